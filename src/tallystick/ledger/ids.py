"""Ids: our own name for a call, a UUID of version 7, so that text order is time order."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Final

_VERSION: Final = 7 << 76
_VARIANT: Final = 2 << 62
_RANDOM_BITS: Final = 62
_TICKS_PER_MS: Final = 4096
ENTROPY_BYTES: Final = 8
"""How many random bytes one id takes."""


class CallIds:
    """Makes ids that only grow, whatever the clock does. Threads may share one.

    `clock` gives microseconds since 1970 UTC, `entropy` that many random bytes.
    """

    def __init__(
        self, clock: Callable[[], int] = lambda: time.time_ns() // 1000, entropy: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._clock = clock
        self._entropy = entropy
        self._lock = threading.Lock()
        self._last = -1
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._unlock)

    def __call__(self) -> str:
        """The next id, as text in the usual form of a UUID."""
        tick = ticks(self._clock())
        with self._lock:
            self._last = tick = max(tick, self._last + 1)
        return uuid7(tick, self._entropy(ENTROPY_BYTES))

    def _unlock(self) -> None:
        # Another thread may have held the lock at the fork; in the child nobody would ever release it.
        self._lock = threading.Lock()


def ticks(now_us: int) -> int:
    """Microseconds since 1970 as a UUID's clock: milliseconds times 4096, plus the fraction (RFC 9562, method 3)."""
    milliseconds, rest = divmod(now_us, 1000)
    return milliseconds * _TICKS_PER_MS + rest * _TICKS_PER_MS // 1000


def uuid7(tick: int, entropy: bytes) -> str:
    """The UUID of a clock value of `ticks` and eight random bytes."""
    milliseconds, fraction = divmod(tick, _TICKS_PER_MS)
    random = int.from_bytes(entropy, "big") & ((1 << _RANDOM_BITS) - 1)
    number = (milliseconds & ((1 << 48) - 1)) << 80 | _VERSION | fraction << 64 | _VARIANT | random
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


new_call_id: Final = CallIds()
"""A new id from this machine's clock and random source."""
