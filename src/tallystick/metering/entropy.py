"""Entropy: random bytes, fetched from the machine many at once, as the system call costs more than the id."""

from __future__ import annotations

import os
from collections import deque
from typing import Final

from tallystick.ledger.ids import ENTROPY_BYTES, CallIds

_AT_ONCE: Final = 128
_POOL: Final[deque[bytes]] = deque()


def entropy(size: int) -> bytes:
    """So many random bytes, which nobody gets twice."""
    if size != ENTROPY_BYTES:
        return os.urandom(size)
    while True:
        try:
            # One step, which no other thread comes between.
            return _POOL.popleft()
        except IndexError:
            many = os.urandom(size * _AT_ONCE)
            _POOL.extend([many[at : at + size] for at in range(0, len(many), size)])


if hasattr(os, "register_at_fork"):
    # A child must not say the same as its parent.
    os.register_at_fork(after_in_child=_POOL.clear)

call_id: Final = CallIds(entropy=entropy)
"""A new call id."""
