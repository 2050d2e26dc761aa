"""Live: what is being spent now: the calls in flight, the burn rate, the current block and month with their
projections, the latest runs, the last calls."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tallystick.core.money import Money
from tallystick.core.periods import Period
from tallystick.insight.blocks import HOUR, LENGTH, added, block_of, block_starts, sure_start
from tallystick.insight.flights import Flights, RunSpend, flight_json, run_spends
from tallystick.insight.projection import BLOCK_HOURS, Projection, project_block, project_days
from tallystick.insight.spend import about, total_json
from tallystick.ledger.entry import rfc3339
from tallystick.ledger.query import Query, Total

if TYPE_CHECKING:
    from tallystick.ledger.entry import Entry
    from tallystick.ledger.ledger import Ledger

BLOCK_HISTORY: Final = timedelta(days=28)
DAY_HISTORY: Final = timedelta(days=90)
RUNS: Final = 5
"""So many runs are shown."""

_ONE: Final = timedelta(hours=1)
_TICK: Final = timedelta(microseconds=1)


class Stretch(msgspec.Struct, frozen=True):
    """A block or month under way, from `start` to before `end`: its calls so far, and what it will have cost at its
    end: `owed`, and `not_owed` for what a subscription covers (None where nothing is)."""

    start: datetime
    end: datetime
    total: Total
    owed: Projection | None
    not_owed: Projection | None

    def to_json(self) -> dict[str, Any]:
        """The stretch as plain JSON values."""
        return {
            "start": rfc3339(self.start),
            "end": rfc3339(self.end),
            "total": total_json(self.total),
            "projection": None if self.owed is None else self.owed.to_json(),
            "projection_not_owed": None if self.not_owed is None else self.not_owed.to_json(),
        }


class Live(msgspec.Struct, frozen=True):
    """One look at the ledger at the instant `at`.

    `burn` is the sum over the last `minutes`. `block` is None between blocks, and where four weeks without a silence do
    not tell when one began. `last` are the latest calls, newest first; `zone` is the time zone of the month. `runs`
    are the runs of the last `minutes`, those with calls in flight among `flights` first.
    """

    at: datetime
    zone: str
    minutes: int
    burn: Total
    block: Stretch | None
    month: Stretch
    last: tuple[Entry, ...]
    sums: tuple[Total, ...] = ()
    flights: Flights = Flights()

    @property
    def runs(self) -> tuple[RunSpend, ...]:
        """What the runs of the last minutes have spent, the calls in flight with what they came to so far."""
        return run_spends(self.sums, self.flights, RUNS)

    def moved(self, now: datetime, flights: Flights) -> Live:
        """The same look a moment later, with the calls in flight as they are then."""
        ended = [entry.call_id for entry in self.last]
        return msgspec.structs.replace(self, at=now, flights=flights.without(ended))

    def per_minute(self, amount: Money | int) -> Money | int:
        """An amount or a count of the last minutes, for one of them; money rounded for people."""
        if isinstance(amount, Money):
            return about(Money(round(amount.pico / self.minutes)))
        return round(amount / self.minutes)

    def to_json(self) -> dict[str, Any]:
        """The look as plain JSON values."""
        burn = self.burn
        cost, free = Money(burn.cost.pico // self.minutes), Money(burn.not_owed.pico // self.minutes)
        return {
            "at": rfc3339(self.at),
            "tz": self.zone,
            "burn": {
                "minutes": self.minutes,
                "total": total_json(burn),
                "cost_per_minute": cost.to_json() if burn.cost or not burn.unpriced else None,
                "not_owed_per_minute": free.to_json(),
                "tokens_per_minute": round(burn.usage.tokens / self.minutes),
            },
            "block": None if self.block is None else self.block.to_json(),
            "month": self.month.to_json(),
            "in_flight": [flight_json(flight, self.at) for flight in self.flights.alive],
            "left_behind": [flight_json(flight, self.at) for flight in self.flights.left],
            "runs": [run.to_json() for run in self.runs],
            "last": [entry.to_json() for entry in self.last],
        }


def look(ledger: Ledger, now: datetime, *, minutes: int = 10, last: int = 5, flights: Flights | None = None) -> Live:
    """Asks the ledger what is being spent at the instant `now`. `flights` are the calls in flight, read before this is
    asked, so that none is missed between. Raises LedgerError."""
    after = now + _TICK
    recent = Query(since=now - timedelta(minutes=minutes), until=after)
    burn = ledger.total(recent)[0]
    sums = tuple(ledger.total(recent, ("run",))) if burn.calls else ()
    calls = tuple(ledger.read(Query(until=after, limit=last, newest_first=True)))
    found = Live(now, ledger.zone, minutes, burn, _block(ledger, now), _month(ledger, now), calls, sums)
    return found if flights is None else found.moved(now, flights)


def _block(ledger: Ledger, now: datetime) -> Stretch | None:
    hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    rows = ledger.total(Query(since=hour - BLOCK_HISTORY), (), HOUR)
    hours = {row.start: row for row in rows if row.start is not None and row.start <= hour}
    active = sorted(hours)
    anchor = sure_start(hour - BLOCK_HISTORY, active)
    starts = [] if anchor is None else block_starts(active[anchor:])
    current = block_of(starts, now)
    if current is None:
        return None
    later = ledger.total(Query(since=now + _TICK, until=hour + _ONE))[0]
    total = added(_sum([row for start, row in hours.items() if start >= current]), later, -1)
    past = [[hours.get(start + _ONE * step) for step in range(BLOCK_HOURS)] for start in starts if start < current]
    elapsed = (now - current) / _ONE
    owed, free = (
        project_block([_spent(block, owed) for block in past], _pico(total, owed), elapsed)
        if _shown(total, owed)
        else None
        for owed in (True, False)
    )
    return Stretch(current, current + LENGTH, total, owed, free)


def _month(ledger: Ledger, now: datetime) -> Stretch:
    day, month = Period("day", ledger.zone), Period("month", ledger.zone)
    start, end = month.bounds(now)
    today, tomorrow = day.bounds(now)
    assert start is not None
    assert end is not None
    assert today is not None
    assert tomorrow is not None
    first = day.bounds(today - DAY_HISTORY)[0]
    rows = [row for row in ledger.total(Query(since=first), (), day) if row.start is not None and row.start <= today]
    later = ledger.total(Query(since=now + _TICK, until=tomorrow))[0]
    total = added(_sum([row for row in rows if row.start is not None and row.start >= start]), later, -1)
    # Clock changes make days of 23 and 25 hours; their number is what counts.
    left = (tomorrow - now) / (tomorrow - today) + round((end - tomorrow) / timedelta(days=1))
    owed, free = (
        project_days(_daily(rows, day, today, owed), _pico(total, owed), left) if _shown(total, owed) else None
        for owed in (True, False)
    )
    return Stretch(start, end, total, owed, free)


def _daily(rows: Sequence[Total], day: Period, today: datetime, owed: bool) -> list[int]:
    """The spend of each complete day since the first one with calls, in picodollars."""
    spent = {row.start: _pico(row, owed) for row in rows}
    found, at = [], min((row.start for row in rows if row.start is not None), default=today)
    while at < today:
        found.append(spent.get(at, 0))
        end = day.bounds(at)[1]
        assert end is not None
        at = end
    return found


def _spent(block: Sequence[Total | None], owed: bool) -> list[int]:
    return [0 if row is None else _pico(row, owed) for row in block]


def _sum(rows: Sequence[Total]) -> Total:
    total = Total(group={})
    for row in rows:
        total = added(total, row)
    return total


def _pico(total: Total, owed: bool) -> int:
    return total.cost.pico if owed else total.not_owed.pico


def _shown(total: Total, owed: bool) -> bool:
    """Whether there is anything to project: a subscription's calls are no bill, and the other way round."""
    return bool(total.not_owed) if not owed else bool(total.cost) or not (total.not_owed or total.unpriced)
