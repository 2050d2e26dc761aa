"""Watching: what happens on a ledger, whichever process does it: calls in flight, and calls that have just ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from tallystick.core.money import Money
from tallystick.insight.flights import Flights, flight_json, look_flights
from tallystick.ledger.entry import rfc3339
from tallystick.ledger.query import Query

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from tallystick.ledger.entry import Entry
    from tallystick.ledger.ledger import Ledger

AT_ONCE: Final = 2_000
"""At most so many new calls are shown by one look."""

STREAK: Final = 30
"""After so many known calls in a row, newest first, the rest is taken to be known."""

FEW: Final = 50
"""So many calls are read where little has happened."""

FIRST: Final = 500
"""So many calls are known from the first look on."""

KEPT: Final = 20_000
SHOWN: Final = 200
"""So many calls in flight are shown one by one."""


class Seen(msgspec.Struct, frozen=True):
    """One look: the calls in flight, and those that have ended since the look before, in the order of their ends."""

    flights: Flights = Flights()
    ended: tuple[Entry, ...] = ()


class Watch:
    """Looks at a ledger again and again. `folder` is where its calls in flight lie. The first look shows no ended
    calls: what was there before is known. At most `most` new calls are shown by one look. Used by one thread at a
    time."""

    def __init__(self, ledger: Ledger, folder: Path | None, most: int = AT_ONCE) -> None:
        self._most = most
        self._ledger = ledger
        self._folder = folder
        self._known: dict[str, None] = {}
        self._flying: frozenset[str] = frozenset()
        self._begun = False

    def look(self) -> Seen:
        """What is now. Raises LedgerError; the next look then shows what this one could not."""
        # Read before the ledger: a call that ends in between is found in both and shown once.
        flights = look_flights(self._folder)
        if not self._begun:
            self._fresh(FIRST)
            self._begun = True
            self._flying = flights.ids
            return Seen(flights)
        found = self._fresh(self._most)
        # A long call began before many that are known.
        for call_id in self._flying - flights.ids:
            if call_id not in self._known:
                found += self._ledger.read(Query(call_id=call_id))
                self._known[call_id] = None
        self._flying = flights.ids
        found.sort(key=lambda entry: (entry.settled_at or entry.started_at, entry.call_id))
        return Seen(flights.without([entry.call_id for entry in found]), tuple(found))

    def _fresh(self, most: int) -> list[Entry]:
        """The newest calls that were not known."""
        found, enough = self._newest(FEW)
        if not enough:
            found, _ = self._newest(most)
        for entry in reversed(found):
            self._known[entry.call_id] = None
        while len(self._known) > KEPT + self._most:
            del self._known[next(iter(self._known))]
        return found

    def _newest(self, most: int) -> tuple[list[Entry], bool]:
        """The unknown ones among so many of the newest calls, and whether the rest is surely known."""
        found: list[Entry] = []
        read = streak = 0
        for entry in self._ledger.read(Query(newest_first=True, limit=most)):
            read += 1
            streak = streak + 1 if entry.call_id in self._known else 0
            if streak >= STREAK:
                return found, True
            if not streak:
                found.append(entry)
        return found, read < most


def flights_json(flights: Flights, now: datetime) -> dict[str, Any]:
    """The calls in flight as plain JSON values: their number and sums, and the oldest of them one by one."""
    return {
        "at": rfc3339(now),
        "count": len(flights.alive),
        "cost": Money(sum(flight.pico for flight in flights.alive)).to_json(),
        "output": sum(flight.output for flight in flights.alive),
        "in_flight": [flight_json(flight, now) for flight in flights.alive[:SHOWN]],
        "left_behind": len(flights.left),
    }
