"""Timing: how the calls of a day ended, how long they took, and how long until their first word."""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from tallystick.insight.watching import Watch
from tallystick.ledger.query import Query

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from tallystick.ledger.entry import Entry
    from tallystick.ledger.ledger import Ledger

BUCKETS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Upper bounds in seconds. Source: OpenTelemetry's advice for gen_ai.client.operation.duration."""

AT_ONCE: Final = 20_000
"""At most so many calls are read at a time, the newest ones."""

Names = tuple[str, str]
"""Provider and model, as they are to be shown."""

Ended = tuple[str, ...]
"""Provider and model, status, quality and source."""


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
    begins at nothing. `folder` is where the calls in flight lie. `latency` and `ttft` are by the names that `named`
    gives a call, `calls` counts how they ended."""

    def __init__(self, ledger: Ledger, folder: Path | None, named: Callable[[Entry], Names]) -> None:
        self._ledger = ledger
        self._named = named
        self._watch = Watch(ledger, folder, AT_ONCE)
        self._day: datetime | None = None
        self._first: frozenset[str] = frozenset()
        self.latency: dict[Names, Histogram] = {}
        self.ttft: dict[Names, Histogram] = {}
        self.calls: dict[Ended, int] = {}

    def update(self, now: datetime) -> None:
        """Counts what the ledger has taken in since the last time. Raises LedgerError."""
        day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        ended: Iterable[Entry] = self._watch.look().ended
        if self._day is None:
            # Looked at before it is read: what ends in between is in both, and counted once.
            ended = list(self._ledger.read(Query(since=day, limit=AT_ONCE, newest_first=True)))
            self._first = frozenset(entry.call_id for entry in ended)
        else:
            ended = [entry for entry in ended if entry.call_id not in self._first]
        if day != self._day:
            self._day = day
            self.latency.clear()
            self.ttft.clear()
            self.calls.clear()
        for entry in ended:
            if entry.started_at >= day:
                self._count(entry)

    def _count(self, entry: Entry) -> None:
        names = self._named(entry)
        ended = (*names, entry.status, entry.quality, entry.source)
        self.calls[ended] = self.calls.get(ended, 0) + 1
        for found, micro in ((self.latency, entry.latency_us), (self.ttft, entry.ttft_us)):
            if micro is not None:
                found.setdefault(names, Histogram()).add(micro)
