"""How often does an estimate's upper bound hold? Two real traces, replayed in order, nothing learned ahead.

For every call the bound is asked before the answer's length is shown: plain rolling quantiles beside the adaptive ones that
estimates use. `reserved` is the sum of the bounds over the sum of the answers: what holding the bound would cost. The last
trace changes its regime half way (conversations, then code, then conversations again), as services do.
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

from _timing import table
from tallystick.metering.bounds import AdaptiveQuantile
from tallystick.metering.estimate import COVERAGE

DATA = Path(__file__).parent / "data"
FIXED_RESERVE = 16_384


def answers(name: str) -> list[int]:
    """The generated tokens of a trace, in order."""
    with gzip.open(DATA / f"azure_{name}.csv.gz", "rt", newline="") as file:
        return [int(row["GeneratedTokens"]) for row in csv.DictReader(file)]


def replay(lengths: list[int], step: float, window: int) -> tuple[float, float, float]:
    """(coverage, worst coverage over 500 calls in a row, reserved over used)."""
    bound_of = AdaptiveQuantile(COVERAGE, window=window, step=step)
    held: list[bool] = []
    reserved = 0
    for length in lengths:
        bound = bound_of.bound
        if bound is not None:
            held.append(length <= bound)
            reserved += bound
        bound_of.update(length)
    worst = min(sum(held[start : start + 500]) / 500 for start in range(0, len(held) - 500, 50))
    return sum(held) / len(held), worst, reserved / sum(lengths)


def main() -> None:
    """Prints coverage and reserve for each trace."""
    conversations, code = answers("conv"), answers("code")
    mixed = conversations[:4000] + code[:4000] + conversations[4000:8000]
    rows = []
    for name, lengths in (("conversations", conversations), ("code", code), ("regime changes", mixed)):
        for method, step in (("plain rolling quantile", 0.0), ("adaptive", 0.02)):
            coverage, worst, reserved = replay(lengths, step, 1000)
            rows.append([name, method, f"{coverage:.1%}", f"{worst:.1%}", f"{reserved:.2f}x"])
        rows.append(
            [
                name,
                f"a fixed {FIXED_RESERVE:,}",
                "100.0%",
                "100.0%",
                f"{FIXED_RESERVE * len(lengths) / sum(lengths):.0f}x",
            ]
        )
    print(f"target coverage {COVERAGE:.0%}")
    print(table(["trace", "bound", "covered", "worst 500", "reserved / used"], rows))


if __name__ == "__main__":
    main()
