"""Flights: the calls that have begun and not ended, in all processes on a ledger, and what each run has spent lately
with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from tallystick.core.money import Money
from tallystick.errors import LedgerCorrupt
from tallystick.insight.spend import total_json
from tallystick.ledger.entry import rfc3339
from tallystick.ledger.intents import InFlight, read_ended, read_flights
from tallystick.ledger.query import Total
from tallystick.metering.finished import unpack

if TYPE_CHECKING:
    from pathlib import Path

    from tallystick.ledger.entry import Entry


class Flights(msgspec.Struct, frozen=True):
    """The calls in flight, oldest first: `alive` in processes that run, `left` behind by killed ones, which nobody will
    end. What a call has come to so far is an estimate until it is settled."""

    alive: tuple[InFlight, ...] = ()
    left: tuple[InFlight, ...] = ()

    @property
    def ids(self) -> frozenset[str]:
        """The ids of the calls of running processes."""
        return frozenset(flight.call_id for flight in self.alive)

    def without(self, ended: Iterable[str]) -> Flights:
        """The flights but for calls whose entry is in the ledger already."""
        known = frozenset(ended)
        kept = [tuple(flight for flight in part if flight.call_id not in known) for part in (self.alive, self.left)]
        return Flights(*kept)


class RunSpend(msgspec.Struct, frozen=True):
    """What one run has spent: its ended calls in `total`, and `flights` calls of it in flight, which have come to
    `pico` picodollars and `output` generated tokens so far, both estimates."""

    run_id: str
    total: Total
    flights: int = 0
    pico: int = 0
    output: int = 0

    @property
    def cost(self) -> Money:
        """What is known of the run's cost, the calls in flight with what they came to so far."""
        return self.total.cost + Money(self.pico)

    def to_json(self) -> dict[str, Any]:
        """The run as plain JSON values."""
        return {
            "run": self.run_id,
            "total": total_json(self.total),
            "in_flight": self.flights,
            "in_flight_cost": Money(self.pico).to_json(),
            "in_flight_output": self.output,
        }


def look_flights(folder: Path | None) -> Flights:
    """The calls in flight beside a ledger; None: it has no such place. Where they cannot be read there are none."""
    if folder is None:
        return Flights()
    try:
        found = read_flights(folder)
    except OSError:
        return Flights()
    return Flights(tuple(one for one in found if one.alive), tuple(one for one in found if not one.alive))


def ended_call(folder: Path | None, call_id: str) -> Entry | None:
    """The entry of a call that has ended a moment ago and is on its way to the ledger; None where there is none."""
    if folder is None:
        return None
    try:
        record = read_ended(folder, call_id)
        return None if record is None else unpack(record).entry
    except (OSError, LedgerCorrupt):
        return None


def run_spends(totals: Sequence[Total], flights: Flights, most: int) -> tuple[RunSpend, ...]:
    """The runs of these sums by run, and those in flight: runs with calls in flight first, then what cost most. Calls
    outside any run are left out."""
    sums = {row.group["run"]: row for row in totals if row.group.get("run") is not None}
    found = []
    for run_id in dict.fromkeys([*sums, *(flight.run_id for flight in flights.alive if flight.run_id)]):
        ours = [flight for flight in flights.alive if flight.run_id == run_id]
        found.append(
            RunSpend(
                str(run_id),
                sums.get(run_id, Total(group={"run": run_id})),
                len(ours),
                sum(flight.pico for flight in ours),
                sum(flight.output for flight in ours),
            )
        )
    found.sort(key=lambda run: (not run.flights, -run.cost.pico, -run.total.not_owed.pico, run.run_id))
    return tuple(found[:most])


def flight_json(flight: InFlight, now: datetime) -> dict[str, Any]:
    """A call in flight as plain JSON values; ages in seconds."""
    started = datetime.fromtimestamp(flight.started_us / 1_000_000, UTC)
    return {
        "call_id": flight.call_id,
        "started_at": rfc3339(started),
        "age_s": age(flight, now),
        "provider": flight.provider,
        "api": flight.api,
        "model": flight.model,
        "run": flight.run_id or None,
        "output": flight.output,
        "response_bytes": flight.response_bytes,
        "cost": Money(flight.pico).to_json(),
        "owner": flight.owner,
    }


def age(flight: InFlight, now: datetime) -> float:
    """For how many seconds a call has been in flight."""
    return max(0.0, round(now.timestamp() - flight.started_us / 1_000_000, 3))
