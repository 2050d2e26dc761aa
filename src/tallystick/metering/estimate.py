"""Estimate: what a call will cost before it is made, as low, likely and high, and on what basis."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tallystick.core.money import Money
from tallystick.core.pricing import price
from tallystick.core.usage import Usage
from tallystick.errors import InputError
from tallystick.metering.bounds import ENOUGH, AdaptiveQuantile

if TYPE_CHECKING:
    from tallystick.catalog.catalog import Found
    from tallystick.tokens.count import Count

COVERAGE = 0.9


class Output(msgspec.Struct, frozen=True):
    """How many tokens the answer is expected to have: about one in ten is below `low`, half below `likely`, nine in ten
    below `high`. `basis` says where that is from."""

    low: int
    likely: int
    high: int
    basis: str


class Estimate(msgspec.Struct, frozen=True):
    """What a call will cost: `low`, `likely` and `high` US dollars (None where a rate is missing), the counted input,
    the expected output, and the rate card used."""

    model: str
    provider: str
    low: Money | None
    likely: Money | None
    high: Money | None
    input: Count
    output: Output
    rate_id: str
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The estimate as plain JSON values."""
        costs = {"low": self.low, "likely": self.likely, "high": self.high}
        return {
            "model": self.model,
            "provider": self.provider,
            **{name: None if cost is None else cost.to_json() for name, cost in costs.items()},
            "input": self.input.to_json(),
            "output": msgspec.to_builtins(self.output),
            "rate_id": self.rate_id,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        """The range, the input and its basis, the output and its basis; then what to know besides."""
        sign = "" if self.input.method == "exact" else "about "
        return (
            f"{self.likely or 'unknown'} likely ({self.low or 'unknown'} to {self.high or 'unknown'}) on {self.model}\n"
            f"input   {sign}{self.input.tokens:,} tokens ({self.input.basis})\n"
            f"output  {self.output.likely:,} tokens likely, {self.output.low:,} to {self.output.high:,} "
            f"({self.output.basis})" + "".join(f"\nnote    {note}" for note in self.notes)
        )


def estimate_call(
    count: Count,
    found: Found,
    at: datetime,
    *,
    max_output: int | None = None,
    history: Sequence[int] = (),
    notes: tuple[str, ...] = (),
) -> Estimate:
    """Prices the counted input with the expected output. `history` holds the output tokens of earlier calls of the same
    call site, oldest first; it is used from 20 calls on. `max_output` caps the answer. Raises InputError for a maximum
    below 1."""
    if max_output is not None and max_output < 1:
        raise InputError(f"max_output is {max_output}; an answer has at least 1 token.")
    output = expected_output(history, max_output)
    costs = [
        price(Usage(input=tokens, output=answer), found.card, at=at, context=found.context)
        for tokens, answer in (
            (count.low, output.low), (count.tokens, output.likely), (count.high, output.high)
        )
    ]  # fmt: skip
    low, likely, high = (cost.amount for cost in costs)
    return Estimate(
        found.model, found.provider, low, likely, high, count, output, found.card.id, (*notes, *costs[1].notes)
    )


def expected_output(history: Sequence[int], max_output: int | None) -> Output:
    """The length of an answer from a call site's history, or a stated default while there is too little of it."""
    if len(history) >= ENOUGH:
        learned = AdaptiveQuantile(COVERAGE).extend(history)
        low, likely = learned.quantile(1 - COVERAGE) or 0, learned.quantile(0.5) or 0
        high = learned.bound or likely
        basis = f"the last {learned.count} calls of this call site"
    else:
        table = defaults()
        low, likely, high = table["low"], table["likely"], table["high"]
        had = f"{len(history)} earlier calls are too few; " if history else ""
        basis = f"{had}default: {table['source']}"
    if max_output is None:
        return Output(low, likely, max(high, likely), basis)
    capped = f"{basis}, at most {max_output:,}"
    return Output(min(low, max_output), min(likely, max_output), min(max(high, likely), max_output), capped)


@functools.cache
def defaults() -> dict[str, Any]:
    """The stated default answer length, with its source."""
    text = (Path(__file__).parent / "data" / "outputs.toml").read_text(encoding="utf-8")
    table: dict[str, Any] = tomllib.loads(text)["default"]
    return table
