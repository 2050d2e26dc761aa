"""Learned bounds: how long the answers of a call site are, from its own history.

A rolling quantile alone keeps its coverage only while nothing changes. The level is therefore steered by what actually
happened: each answer above the bound raises it, each one below lets it down a little (adaptive conformal inference,
Gibbs and Candes 2021), so that the stated share of answers stays under the bound when lengths drift.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Iterable
from typing import Final

from tallystick.errors import InputError

ENOUGH: Final = 20
"""Settled calls of a call site before its history is used."""


class AdaptiveQuantile:
    """A running upper bound that holds for the share `target` of what follows, also under drift.

    `window` is how many past values it looks at, `step` how strongly a miss moves the level. Feed values in time order
    with `update`; `bound` is the bound for the next one, None before `ENOUGH` values.
    """

    __slots__ = ("_bound", "_level", "_sorted", "_step", "_target", "_values")

    def __init__(self, target: float, window: int = 1000, step: float = 0.02) -> None:
        if not 0 < target < 1 or window < ENOUGH or not 0 <= step < 1:
            raise InputError(f"A coverage of {target} over {window} values with step {step} makes no sense.")
        self._target = target
        self._step = step
        self._level = target
        self._values: deque[int] = deque(maxlen=window)
        self._sorted: list[int] = []
        self._bound: int | None = None

    @property
    def count(self) -> int:
        """How many values are held."""
        return len(self._values)

    @property
    def bound(self) -> int | None:
        """The bound for the next value, or None while too little is known."""
        return self._bound

    def quantile(self, level: float) -> int | None:
        """The plain empirical quantile of the values held; None while too little is known."""
        return None if len(self._sorted) < ENOUGH else self._at(level)

    def update(self, value: int) -> None:
        """Takes in the next value and steers the level by whether the bound held."""
        bound, values, held = self._bound, self._values, self._sorted
        if bound is not None:
            level = self._level + self._step * ((1 if value > bound else 0) - (1 - self._target))
            self._level = min(max(level, 0.0), 1.0 + self._step)
        if len(held) == values.maxlen:
            held.pop(bisect.bisect_left(held, values[0]))
        values.append(value)
        bisect.insort(held, value)
        if len(held) >= ENOUGH:
            self._bound = self._at(self._level)

    def extend(self, values: Iterable[int]) -> AdaptiveQuantile:
        """Takes in several values in time order; returns itself."""
        for value in values:
            self.update(value)
        return self

    def _at(self, level: float) -> int:
        # The finite-sample rank of conformal prediction: one more than n, so that small histories are not optimistic.
        rank = -int(-level * (len(self._sorted) + 1) // 1)
        if rank > len(self._sorted):
            return self._sorted[-1] + max(1, self._sorted[-1] // 10)
        return self._sorted[max(rank, 1) - 1]
