"""Timing: how long the calls of a day took, and how long until their first word, counted into buckets."""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Final

from tallystick.ledger.query import Query

if TYPE_CHECKING:
    from collections.abc import Callable

    from tallystick.ledger.entry import Entry
    from tallystick.ledger.ledger import Ledger

BUCKETS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Upper bounds in seconds. Source: OpenTelemetry's advice for gen_ai.client.operation.duration."""

LATE: Final = timedelta(minutes=15)
"""A call that is entered so long after it began is still counted."""

AT_ONCE: Final = 50_000
"""So many calls are read at a time; what is left is read the next time."""

Names = tuple[str, str]
"""Provider and model, as they are to be shown."""


class Histogram:
    """Durations in buckets; `total` is their sum in microseconds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0

    def add(self, micro: int) -> None:
        """Counts one duration in microseconds."""
        self.counts[bisect_left(BUCKETS, micro / 1_000_000)] += 1
        self.total += micro

    @property
    def cumulative(self) -> list[int]:
        """How many were at most each bound, and at last all of them."""
        found, below = [], 0
        for count in self.counts:
            below += count
            found.append(below)
        return found


class DayTimes:
    """The times of the calls that began since midnight UTC. Every process on a ledger counts the same, and each day
    begins at nothing. `latency` and `ttft` are by the names that `named` gives a call."""

    def __init__(self, ledger: Ledger, named: Callable[[Entry], Names]) -> None:
        self._ledger = ledger
        self._named = named
        self._day: datetime | None = None
        self._from: datetime | None = None
        self._seen: dict[str, datetime] = {}
        self.latency: dict[Names, Histogram] = {}
        self.ttft: dict[Names, Histogram] = {}

    def update(self, now: datetime) -> None:
        """Counts what the ledger has taken in since the last time. Raises LedgerError."""
        day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        if day != self._day:
            self._day = self._from = day
            self._seen.clear()
            self.latency.clear()
            self.ttft.clear()
        latest = self._from or day
        for entry in islice(self._ledger.read(Query(since=self._from)), AT_ONCE + len(self._seen)):
            latest = max(latest, entry.started_at)
            if entry.call_id not in self._seen:
                self._seen[entry.call_id] = entry.started_at
                self._count(entry)
        self._from = edge = max(day, min(latest, now) - LATE)
        self._seen = {call_id: at for call_id, at in self._seen.items() if at >= edge}

    def _count(self, entry: Entry) -> None:
        names = self._named(entry)
        for found, micro in ((self.latency, entry.latency_us), (self.ttft, entry.ttft_us)):
            if micro is not None:
                found.setdefault(names, Histogram()).add(micro)
