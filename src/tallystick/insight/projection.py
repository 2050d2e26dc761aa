"""Projection: what a block or a month will have cost at its end, if the past is any guide.

Each method is tried on the past first. Where its forecasts were off by more than half, there is no projection: spend
that comes in bursts cannot be forecast, and a number would only look like knowledge.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from tallystick.core.money import Money

WORST: Final = 0.5
"""A method whose forecasts of the past were off by more than this share gives none of the future."""

WINDOW: Final = 28
"""Days whose spend stands for the days to come."""

FEWEST_DAYS: Final = 14
FEWEST_BLOCKS: Final = 8
FEWEST_TRIALS: Final = 5
_LEARN: Final = 7
_EIGHTY: Final = 1.2815515655446004
"""So many standard deviations to either side hold 80 % of a normal distribution."""

BLOCK_HOURS: Final = 5
_FIRST_HALF_HOUR: Final = 0.5


class Projection(msgspec.Struct, frozen=True):
    """What something will have cost at its end, in US dollars: `low`, `likely` and `high`, beside the cost `so_far`.

    `basis` says how it was made, `error` by which share `trials` forecasts of the past by the same method were off
    altogether (None: it could not be tried). Where `refused` is not empty it says why there is no projection.
    """

    so_far: Money
    low: Money | None = None
    likely: Money | None = None
    high: Money | None = None
    basis: str = ""
    error: float | None = None
    trials: int = 0
    refused: str = ""

    @property
    def backtest(self) -> str:
        """The trial on the past, in words; empty where there was none."""
        if self.error is None:
            return ""
        return f"{self.trials} forecasts of the past were off by {self.error:.0%}"

    def to_json(self) -> dict[str, Any]:
        """The projection as plain JSON values."""
        amounts = {name: getattr(self, name) for name in ("low", "likely", "high")}
        return {
            "so_far": self.so_far.to_json(),
            **{name: None if amount is None else amount.to_json() for name, amount in amounts.items()},
            "basis": self.basis or None,
            "backtest_error": None if self.error is None else round(self.error, 4),
            "backtest_trials": self.trials,
            "refused": self.refused or None,
        }


def project_days(days: Sequence[int], so_far: int, left: float) -> Projection:
    """A month's cost at its end. `days` is the spend of each complete day up to yesterday, oldest first, and `so_far`
    that of the month, both in picodollars; `left` is how many days are left, with fractions.

    Each day to come is taken for a mean day of the last four weeks. The range holds 80 % of what the spread of those
    days makes likely, if days are independent of each other.
    """
    if len(days) < FEWEST_DAYS:
        return Projection(Money(so_far), refused=f"{len(days)} complete days of history; it takes {FEWEST_DAYS}")
    ahead = max(1, min(round(left), len(days) // 2))
    pairs = [
        (statistics.fmean(days[max(0, at - WINDOW) : at]) * ahead, float(sum(days[at : at + ahead])))
        for at in range(_LEARN, len(days) - ahead + 1)
    ]
    error = _error(pairs)
    recent = days[-WINDOW:]
    basis = f"a mean day of the last {len(recent)}, 80 % range from their spread"
    refused = _refusal(error, len(pairs))
    if refused:
        return Projection(Money(so_far), basis=basis, error=error, trials=len(pairs), refused=refused)
    rest, spread = statistics.fmean(recent) * left, statistics.stdev(recent) * math.sqrt(left)
    low, likely, high = (so_far + max(0, round(rest + side * spread)) for side in (-_EIGHTY, 0, _EIGHTY))
    return Projection(Money(so_far), Money(low), Money(likely), Money(high), basis, error, len(pairs))


def project_block(blocks: Sequence[Sequence[int]], so_far: int, elapsed: float) -> Projection:
    """A block's cost at its end. `blocks` are earlier ones by their five hours and `so_far` is what this one cost, in
    picodollars; `elapsed` is how many of its hours have passed, with fractions.

    Earlier blocks say how many times its cost at this point a block costs in the end; the middle one of these factors
    is likely, and the range is that of the middle 80 % of blocks.
    """
    if elapsed < _FIRST_HALF_HOUR:
        return Projection(Money(so_far), refused="it began less than half an hour ago")
    pairs = [(_until(block, elapsed), float(sum(block))) for block in blocks]
    known = sorted((end / then, then, end) for then, end in pairs if then > 0)
    if len(known) < FEWEST_BLOCKS:
        words = f"{len(known)} earlier blocks with spend by this hour; it takes {FEWEST_BLOCKS}"
        return Projection(Money(so_far), refused=words)
    factors = [factor for factor, _, _ in known]
    trials = []
    for place, (_, then, end) in enumerate(known):
        others = factors[:place] + factors[place + 1 :]
        trials.append((then * statistics.median(others), end))
    error = _error(trials)
    basis = f"how {len(known)} earlier blocks went on from here, middle 80 % as range"
    refused = _refusal(error, len(trials))
    if refused:
        return Projection(Money(so_far), basis=basis, error=error, trials=len(trials), refused=refused)
    tenths = statistics.quantiles(factors, n=10, method="inclusive")
    low, likely, high = (
        Money(max(so_far, round(so_far * factor))) for factor in (tenths[0], statistics.median(factors), tenths[-1])
    )
    return Projection(Money(so_far), low, likely, high, basis, error, len(trials))


def _until(block: Sequence[int], elapsed: float) -> float:
    """What a block had cost after so many hours; within an hour in proportion."""
    whole = min(int(elapsed), BLOCK_HOURS)
    part = block[whole] * (elapsed - whole) if whole < BLOCK_HOURS else 0.0
    return sum(block[:whole]) + part


def _error(pairs: Sequence[tuple[float, float]]) -> float | None:
    """By which share forecasts missed, all taken together; None where there was nothing to forecast."""
    actual = sum(real for _, real in pairs)
    return sum(abs(forecast - real) for forecast, real in pairs) / actual if actual > 0 else None


def _refusal(error: float | None, trials: int) -> str:
    if error is None or trials < FEWEST_TRIALS:
        return "too little history to try a forecast on"
    if error > WORST:
        return f"forecasts of the past were off by {error:.0%}, more than {WORST:.0%}"
    return ""
