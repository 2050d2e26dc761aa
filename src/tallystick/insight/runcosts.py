"""Run costs: what one agent task costs, over many of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from tallystick.core.money import Money, divide_half_even

if TYPE_CHECKING:
    from tallystick.ledger.query import Total


class RunCosts(msgspec.Struct, frozen=True):
    """The cost of a run in US dollars: `mean` (rounded to 1e-12), and `p50` and `p95`, each the cost of an actual run
    that half, or 95 %, of the runs do not exceed. `left_out` runs hold calls whose cost is unknown; they are not in."""

    runs: int
    mean: Money
    p50: Money
    p95: Money
    left_out: int = 0

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON values."""
        return {
            "runs": self.runs,
            "mean": self.mean.to_json(),
            "p50": self.p50.to_json(),
            "p95": self.p95.to_json(),
            "left_out": self.left_out,
        }


def run_costs(runs: Sequence[Total]) -> tuple[RunCosts | None, RunCosts | None]:
    """Cost per run where money is owed, and where a subscription covers it (its API-equivalent); None where there are
    no such runs. `runs` are sums by run; calls outside any run are passed over."""
    named = [run for run in runs if run.group.get("run") is not None]
    unknown = sum(bool(run.unpriced) for run in named)
    whole = [run for run in named if not run.unpriced]
    owed = [run.cost.pico for run in whole if run.cost or not run.not_owed]
    free = [run.not_owed.pico for run in whole if run.not_owed]
    return _spread(owed, unknown), _spread(free, 0 if owed else unknown)


def _spread(costs: list[int], left_out: int) -> RunCosts | None:
    if not costs:
        return None
    costs.sort()
    count = len(costs)
    middle, high = (Money(costs[-(-share * count // 100) - 1]) for share in (50, 95))
    return RunCosts(count, Money(divide_half_even(sum(costs), count)), middle, high, left_out)
