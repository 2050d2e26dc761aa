"""Board, quality: what a ledger does not know, in calls, and in money where that can be bounded."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from tallystick.core.money import Money
from tallystick.insight.board_calls import call_page
from tallystick.insight.board_runs import filtered
from tallystick.insight.board_spend import READ_AT_ONCE, to_read
from tallystick.insight.flights import look_flights
from tallystick.ledger.intents import SUFFIX as FLIGHT
from tallystick.ledger.query import Query, Total
from tallystick.metering.spool import SUFFIX as SPOOL

if TYPE_CHECKING:
    from tallystick.ledger.entry import Entry
    from tallystick.ledger.hold import Hold
    from tallystick.ledger.ledger import Ledger

WORDS: Final = ("estimated", "lower_bound", "unknown")
"""The qualities that are not exact, the surest first."""

LAST: Final = 12
_COUNT_UP_TO: Final = 5_000
_MOST_LINES: Final = 100_000


class Held(msgspec.Struct, frozen=True):
    """Holds of one state: how many, and how much money at most they keep from the budgets (None: none of them is in
    money)."""

    calls: int = 0
    most: Money | None = None


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """What is not known about the calls of a period.

    `total` sums all of them; `qualities` those whose usage is not exact, by quality. `models` are the models with
    something missing. `last` are the newest calls with a gap. `repeated` sums calls that bear a provider's id which the
    same source had given before: all of them count. `joined` is how many reports by other sources were joined into
    calls and not counted again. Both are None where there are too many calls to look, and so are `qualities` where
    calls are picked; then `unread` of them would have to be read to tell. `suspect` are holds whose call nobody
    knows the end of. `left_behind` calls were in flight in processes that died, `missed` entries wait beside the ledger
    because it could not take them.
    """

    total: Total
    qualities: dict[str, Total] | None
    models: tuple[Total, ...]
    last: tuple[Entry, ...]
    repeated: Total | None
    joined: int | None
    suspect: Held
    suspects: tuple[Hold, ...]
    left_behind: int
    missed: int
    unread: int = 0

    @property
    def exact(self) -> int:
        """Calls that were sent, measured exactly and, as far as the sums tell, priced."""
        total = self.total
        return max(0, total.calls - total.refused - total.estimated - total.lower_bound - total.unknown)

    @property
    def sent(self) -> int:
        """Calls that were sent at all."""
        return self.total.calls - self.total.refused

    @property
    def clean(self) -> bool:
        """Whether nothing at all is missing."""
        return self.total.complete and not (self.suspect.calls or self.left_behind or self.missed)


def look_quality(ledger: Ledger, query: Query, flights: Path | None, now: datetime, *, read: bool = False) -> Quality:
    """Asks the ledger for what it does not know about the calls of a query. `read` reads the calls where no sums
    answer. Raises LedgerError."""
    total = ledger.total(query)[0]
    counts = {"estimated": total.estimated, "lower_bound": total.lower_bound, "unknown": total.unknown}
    asked = [word for word in WORDS if counts[word] and query.quality in (None, word)]
    many = 0 if read or total.calls <= READ_AT_ONCE else total.calls
    parted = not many or _plain(query)
    qualities = {word: ledger.total(msgspec.structs.replace(query, quality=word))[0] for word in asked if parted}
    known = not total.complete and (read or not to_read(ledger, query, "model"))
    models = ledger.total(query, ("provider", "model")) if known else []
    gaps = sorted((row for row in models if not row.complete), key=lambda row: -_missing(row))
    suspects = tuple(ledger.holds("suspect"))
    return Quality(
        total=total,
        qualities=qualities if parted else None,
        models=tuple(gaps),
        last=_last(ledger, query, asked, now),
        repeated=None if many else ledger.total(msgspec.structs.replace(query, repeated=True))[0],
        joined=_joined(ledger, query, total),
        suspect=_held(ledger, suspects),
        suspects=suspects,
        left_behind=len(look_flights(flights).left),
        missed=_missed(flights),
        unread=many,
    )


def _plain(query: Query) -> bool:
    """Whether sums by quality answer: those are of all calls only."""
    return not filtered(msgspec.structs.replace(query, quality=None))


def _missing(row: Total) -> int:
    return row.unpriced + row.unknown + row.lower_bound + row.estimated


def _last(ledger: Ledger, query: Query, words: list[str], now: datetime) -> tuple[Entry, ...]:
    found: list[Entry] = []
    for word in words:
        found += call_page(ledger, msgspec.structs.replace(query, quality=word), now, most=LAST).rows
    return tuple(sorted(found, key=lambda entry: entry.started_at, reverse=True)[:LAST])


def _joined(ledger: Ledger, query: Query, total: Total) -> int | None:
    if total.calls > _COUNT_UP_TO:
        return None
    return sum(len(ledger.joined(entry.call_id)) for entry in ledger.read(query) if entry.provider_response_id)


def _held(ledger: Ledger, holds: tuple[Hold, ...]) -> Held:
    """Every budget of a call holds the same money, so a call's largest part is what it may have cost."""
    money = {budget.budget_id for budget in ledger.budgets().budgets if budget.unit == "usd"}
    amounts = [max((part.amount for part in hold.charges if part.budget_id in money), default=None) for hold in holds]
    known = [amount for amount in amounts if amount is not None]
    return Held(len(holds), Money(sum(known)) if known else None)


def _missed(flights: Path | None) -> int:
    """Entries in the spool beside the ledger."""
    if flights is None:
        return 0
    folder = flights.with_name(flights.name.removesuffix(FLIGHT) + SPOOL)
    lines = 0
    try:
        for place in sorted(folder.glob("*.jsonl")):
            with place.open("rb") as file:
                for _ in file:
                    lines += 1
                    if lines >= _MOST_LINES:
                        return lines
    except OSError:
        return lines
    return lines
