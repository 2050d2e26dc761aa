"""Board of now: what is being spent at this moment, as the first page of the dashboard asks for it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from tallystick.core.money import Money
from tallystick.core.periods import Period
from tallystick.insight.flights import Flights, look_flights
from tallystick.ledger.query import Query, Total
from tallystick.metering.budgets import Standing, standings

if TYPE_CHECKING:
    from pathlib import Path

    from tallystick.ledger.budget import Budget
    from tallystick.ledger.entry import Correction, Entry
    from tallystick.ledger.intents import InFlight
    from tallystick.ledger.ledger import Ledger

MINUTE: Final = timedelta(minutes=1)
_TICK: Final = timedelta(microseconds=1)


class Days(msgspec.Struct, frozen=True):
    """Today and this month up to now, and yesterday up to the same hour, each by the clocks of a time zone; `gone` is
    the share of today that has passed."""

    today: Total
    yesterday: Total
    month: Total
    gone: float


class Level(msgspec.Struct, frozen=True):
    """How full a budget is: of its accounts in the present period the fullest one, and how many there are."""

    budget: Budget
    fullest: Standing
    accounts: int

    @property
    def share(self) -> float:
        """What is spent of the limit; 1 for a limit of 0."""
        return self.fullest.spent / self.fullest.limit if self.fullest.limit else 1.0

    @property
    def held(self) -> float:
        """What calls in flight may still take of the limit, beside what is spent."""
        return self.fullest.held / self.fullest.limit if self.fullest.limit else 0.0

    @property
    def whole(self) -> bool:
        """Whether the budget is about everything that is spent, in dollars."""
        return self.budget.unit == "usd" and not self.budget.scope and not self.budget.each


class Seen(msgspec.Struct, frozen=True):
    """One call as it stands: settled in `entry`, or still in flight; with what corrected it and what other sources
    said of it."""

    entry: Entry | None
    flight: InFlight | None
    corrections: tuple[Correction, ...] = ()
    joined: tuple[Entry, ...] = ()


def days(ledger: Ledger, now: datetime, tz: str) -> Days:
    """What today and this month have come to. Raises LedgerError."""
    day, month = Period("day", tz), Period("month", tz)
    start, end = day.bounds(now)
    first = month.bounds(now)[0]
    assert start is not None
    assert end is not None
    assert first is not None
    before = day.bounds(start - _TICK)[0]
    assert before is not None
    after = now + _TICK
    return Days(
        ledger.total(Query(since=start, until=after))[0],
        ledger.total(Query(since=before, until=min(start, before + (after - start))))[0],
        ledger.total(Query(since=first))[0],
        (now - start) / (end - start),
    )


def minute_of(ledger: Ledger, start: datetime) -> Total:
    """The calls that began in the minute from `start`. Raises LedgerError."""
    return ledger.total(Query(since=start, until=start + MINUTE))[0]


def levels(ledger: Ledger, now: datetime) -> tuple[Level, ...]:
    """How full the budgets that limit anything are, the fullest first. Raises LedgerError."""
    found = []
    for budget in ledger.budgets().budgets:
        accounts = () if budget.paused else standings(ledger, budget, now)
        if accounts:
            fullest = max(accounts, key=lambda one: (one.spent + one.held) / one.limit if one.limit else 1.0)
            found.append(Level(budget, fullest, len(accounts)))
    return tuple(sorted(found, key=lambda one: (-one.share, one.budget.budget_id)))


def latest(ledger: Ledger, now: datetime, most: int) -> tuple[Entry, ...]:
    """The latest calls, newest first. Raises LedgerError."""
    return tuple(ledger.read(Query(until=now + _TICK, newest_first=True, limit=most)))


def call(ledger: Ledger, flights: Path | None, call_id: str) -> Seen | None:
    """One call, settled or in flight; None where there is none of that id. Raises LedgerError."""
    # Looked at before the ledger: a call that ends in between is then found there.
    flying = look_flights(flights)
    entry = next(ledger.read(Query(call_id=call_id)), None)
    if entry is not None:
        return Seen(entry, None, ledger.corrections(call_id), ledger.joined(call_id))
    flight = next((one for one in (*flying.alive, *flying.left) if one.call_id == call_id), None)
    return None if flight is None else Seen(None, flight)


def spent_in_flight(flights: Flights) -> Money:
    """What the calls in flight have come to so far, an estimate."""
    return Money(sum(flight.pico for flight in flights.alive))
