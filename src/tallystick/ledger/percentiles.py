"""Percentiles: how cost and time are spread over calls, added up by group and period from sketches and single calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from tallystick.core.periods import Period
from tallystick.ledger import sketches
from tallystick.ledger.entry import Entry
from tallystick.ledger.query import Totals, group_of, ordered
from tallystick.ledger.sketches import MEASURES, Spread, spread_of
from tallystick.ledger.sums import spent

Place = tuple[datetime | None, tuple[str | None, ...]]
"""The start of a period, and a group."""


class Gathered:
    """Collects calls by group and period; every way of answering ends here."""

    def __init__(self, by: tuple[str, ...], per: Period | None) -> None:
        self.periods = Totals(by, per)
        self._by = by
        self._bodies: tuple[dict[Place, list[bytes]], ...] = tuple([{} for _ in MEASURES])
        self._counts: tuple[dict[Place, Counter[int]], ...] = tuple([{} for _ in MEASURES])

    def bodies(self, measure: int) -> dict[Place, list[bytes]]:
        """Where to put the written sketches of a measure."""
        return self._bodies[measure]

    def add_all(self, measure: int, place: Place, values: Sequence[int], sign: int) -> None:
        """Adds what is known of a measure of many calls that were sent, or takes them away."""
        counts = self._counts[measure].setdefault(place, Counter())
        if sign > 0:
            counts.update(sketches.codes(values))
        else:
            counts.subtract(sketches.codes(values))

    def add(self, place: Place, values: tuple[int | None, int | None, int | None], sign: int = 1) -> None:
        """Adds one call that was sent (or takes it away): its cost in 1e-12 USD, latency and time to first token in
        microseconds; None for what is not known."""
        for counts, value in zip(self._counts, values, strict=True):
            if value is not None:
                counts.setdefault(place, Counter())[sketches.codes((value,))[0]] += sign

    def add_entry(self, entry: Entry) -> None:
        """Adds one call."""
        if entry.status != "refused":
            pico, unpriced = spent(entry)
            place = self.periods.start_of(entry.started_at), group_of(entry, self._by)
            self.add(place, (None if unpriced else pico, entry.latency_us, entry.ttft_us))

    def rows(self) -> list[Spread]:
        """The groups that have anything to tell, by period and then by name."""
        whole: dict[Place, list[Counter[int]]] = {}
        for measure, (bodies, counts) in enumerate(zip(self._bodies, self._counts, strict=True)):
            for place in bodies.keys() | counts.keys():
                found = sketches.counted(bodies.get(place, ()))
                found.update(counts.get(place, {}))
                whole.setdefault(place, [Counter() for _ in MEASURES])[measure] = +found
        order = ordered({group for _, group in whole})
        places = sorted(whole, key=lambda place: (place[0].timestamp() if place[0] else 0.0, order[place[1]]))
        return [
            spread_of(dict(zip(self._by, place[1], strict=True)), self.periods.bounds(place[0]), whole[place])
            for place in places
            if any(whole[place])
        ]
