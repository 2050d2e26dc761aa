"""Faults: what went wrong in our own metering, counted and said once, while the user's call goes on."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from typing import Final

LOG: Final = logging.getLogger("tallystick")
"""Where one line per kind of trouble goes. Logging, not a Python warning: a warning can be made to raise, and nothing
here may ever end a call."""


class Faults:
    """Counts faults by where they happened; the first of each kind is logged, and handed to `on_fault`."""

    def __init__(self, on_fault: Callable[[str, Exception], object] | None = None) -> None:
        self._on_fault = on_fault
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> dict[str, int]:
        """How many faults there were, by where: call, ask, answered, feed, close, settle, update."""
        with self._lock:
            return dict(self._counts)

    @property
    def total(self) -> int:
        """How many there were."""
        return sum(self.counts.values())

    def add(self, where: str, error: Exception, consequence: str) -> None:
        """One more. `consequence` says what it means for the money."""
        with self._lock:
            self._counts[where] += 1
            first = self._counts[where] == 1
        if first:
            LOG.warning("metering failed in %s: %s: %s. %s", where, type(error).__name__, error, consequence)
            if self._on_fault is not None:
                self._on_fault(where, error)
