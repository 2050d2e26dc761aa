"""Spend: what the calls in a ledger cost, in groups, and what each figure leaves out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from tallystick.core.attribution import Tags
from tallystick.core.money import Money, divide_half_even
from tallystick.core.periods import Period
from tallystick.ledger.entry import rfc3339
from tallystick.ledger.query import Query, Total

if TYPE_CHECKING:
    from tallystick.ledger.ledger import Ledger


class Spent(msgspec.Struct, frozen=True):
    """What calls cost. `total` is the sum over all of them, `rows` the groups asked for.

    `cost` is what is owed and known; `gaps` says in words what it leaves out (empty when it is complete). What a
    subscription covers stands apart, in `total.not_owed`.
    """

    total: Total
    rows: tuple[Total, ...] = ()

    @property
    def cost(self) -> Money:
        """US dollars owed, as far as known."""
        return self.total.cost

    @property
    def calls(self) -> int:
        """The number of calls."""
        return self.total.calls

    @property
    def gaps(self) -> str:
        """What the cost leaves out or guesses, in words."""
        return self.total.gaps

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON values."""
        return {"total": total_json(self.total), "rows": [total_json(row) for row in self.rows]}

    def __str__(self) -> str:
        """One line: the cost, the calls, and what is not in it."""
        gaps = f"; not in it: {self.gaps}" if self.gaps else ""
        return f"{cost_words(self.total)} for {self.calls:,} {'call' if self.calls == 1 else 'calls'}{gaps}"


def spend(
    ledger: Ledger,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    model: str | None = None,
    tags: Mapping[str, str] | None = None,
    by: Sequence[str] = (),
    per: Period | None = None,
) -> Spent:
    """Sums the calls from `since` to before `until` that have all the tags, in groups by dimensions or tag names and by
    calendar period. Raises InputError for a grouping that makes no sense, LedgerError where the ledger fails."""
    query = Query(since=since, until=until, model=model, tags=Tags(tags))
    whole = ledger.total(query)[0]
    rows = tuple(ledger.total(query, tuple(by), per)) if by or per is not None else ()
    return Spent(whole, rows)


def known_cost(total: Total) -> Money | None:
    """What a group of calls cost as far as known; None when nothing of it is known, which is not zero."""
    return None if total.unpriced and not total.cost else total.cost


def cost_words(total: Total) -> str:
    """`$0.0035`, `at least $0.0035` where calls without a price are left out, or `unknown`."""
    known = known_cost(total)
    if known is None:
        return "unknown"
    return f"at least {known}" if total.unpriced or total.lower_bound else str(known)


def owed_words(total: Total) -> str:
    """Like `cost_words`, but nothing where a subscription covers all there is: no bill is not a bill of $0."""
    return "" if total.not_owed and not (total.cost or total.unpriced) else cost_words(total)


def covered_words(total: Total) -> str:
    """What a subscription covers, at list prices; empty where it covers nothing."""
    return str(total.not_owed) if total.not_owed else ""


def about(amount: Money) -> Money:
    """An amount that is no exact figure anyway (a mean, a projection), rounded for people to four digits, or to cents
    where that is finer."""
    unit = 10_000_000_000
    while unit > 1 and abs(amount.pico) < unit * 1000:
        unit //= 10
    return Money(divide_half_even(amount.pico, unit) * unit)


def total_json(total: Total) -> dict[str, Any]:
    """A sum as plain JSON values; `cost` is null where nothing of it is known."""
    known = known_cost(total)
    return {
        "group": total.group,
        "start": None if total.start is None else rfc3339(total.start),
        "end": None if total.end is None else rfc3339(total.end),
        "calls": total.calls,
        "refused": total.refused,
        "cost": None if known is None else known.to_json(),
        "not_owed": total.not_owed.to_json(),
        "usage": dict(total.usage),
        "unpriced": total.unpriced,
        "estimated": total.estimated,
        "lower_bound": total.lower_bound,
        "unknown": total.unknown,
        "complete": total.complete,
    }
