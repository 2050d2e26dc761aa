"""Compare: one text across models, or two prompts on one model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tallystick.core.money import Money, divide_half_even
from tallystick.core.pricing import price
from tallystick.core.usage import Usage
from tallystick.errors import InputError, TallyError, UnpricedError
from tallystick.metering.rating import missing_rate
from tallystick.tokens.count import Count, count_text

if TYPE_CHECKING:
    from tallystick.catalog.catalog import Catalog
    from tallystick.core.cost import Cost

_HEADING: Final = re.compile(r"^(?:#{1,6}[ \t]+(?P<title>[^\n]+)|<(?P<tag>[A-Za-z][\w-]*)>)[ \t]*$", re.MULTILINE)
_OPENING: Final = "(opening)"
_MANY: Final = 1_000_000


class ModelCost(msgspec.Struct, frozen=True):
    """One text on one model: its count by that model's tokenizer, what one call costs with the stated answer, and what
    `calls` of them cost. `cost` is None where no rate applies; `problem` then says why."""

    model: str
    provider: str | None
    count: Count
    output_tokens: int
    cost: Cost | None
    calls: int
    problem: TallyError | None = None

    @property
    def per_call(self) -> Money | None:
        """US dollars for one call."""
        return None if self.cost is None else self.cost.amount

    @property
    def per_month(self) -> Money | None:
        """US dollars for all calls of a month."""
        return None if self.per_call is None else self.per_call * self.calls

    def to_json(self) -> dict[str, Any]:
        """The row as plain JSON values."""
        return {
            "model": self.model,
            "provider": self.provider,
            "input_tokens": self.count.to_json(),
            "output_tokens": self.output_tokens,
            "cost": None if self.cost is None else self.cost.to_json(),
            "per_call": None if self.per_call is None else self.per_call.to_json(),
            "calls_per_month": self.calls,
            "per_month": None if self.per_month is None else self.per_month.to_json(),
            "problem": None if self.problem is None else str(self.problem),
        }


class Section(msgspec.Struct, frozen=True):
    """A part of a prompt, from one heading or tag to the next, and its tokens. Sections are counted apart, so they may
    add up to a few tokens more than the whole; `cost` is theirs at the whole prompt's rate, None where it has none."""

    title: str
    tokens: int
    cost: Money | None = None

    def to_json(self) -> dict[str, Any]:
        """The section as plain JSON values."""
        return {"title": self.title, "tokens": self.tokens, "cost": _money_json(self.cost)}


class PromptDifference(msgspec.Struct, frozen=True):
    """Two prompts on one model. `saved_tokens` and `saved` are what B saves over A (negative when B is longer);
    `break_even_output` is how many more output tokens cost as much as the shorter one saves (rounded down); None where
    there is no rate, and `problem` then says why."""

    model: str
    a: Count
    b: Count
    a_cost: Money | None
    b_cost: Money | None
    a_sections: tuple[Section, ...]
    b_sections: tuple[Section, ...]
    break_even_output: int | None
    problem: UnpricedError | None = None

    @property
    def saved_tokens(self) -> int:
        """Input tokens that B saves over A."""
        return self.a.tokens - self.b.tokens

    @property
    def saved(self) -> Money | None:
        """US dollars that B saves over A, on the input of one call."""
        return None if self.a_cost is None or self.b_cost is None else self.a_cost - self.b_cost

    @property
    def verdict(self) -> str:
        """The comparison in one sentence."""
        if self.saved_tokens == 0:
            return "Both prompts have the same number of input tokens."
        better, count = ("B", self.saved_tokens) if self.saved_tokens > 0 else ("A", -self.saved_tokens)
        head = f"{better} saves {count:,} input token{'s' if count != 1 else ''}"
        if self.break_even_output is None:
            return f"{head}; without a rate for both there is no break-even."
        if self.break_even_output == 0:
            return f"{head}; that is less than one output token costs."
        more = self.break_even_output
        return f"{head}; {more:,} more output {'token costs' if more == 1 else 'tokens cost'} the same."

    def to_json(self) -> dict[str, Any]:
        """The comparison as plain JSON values."""
        return {
            "model": self.model,
            "a": {"tokens": self.a.to_json(), "cost": _money_json(self.a_cost),
                  "sections": [section.to_json() for section in self.a_sections]},
            "b": {"tokens": self.b.to_json(), "cost": _money_json(self.b_cost),
                  "sections": [section.to_json() for section in self.b_sections]},
            "saved_tokens": self.saved_tokens,
            "saved": _money_json(self.saved),
            "break_even_output_tokens": self.break_even_output,
            "verdict": self.verdict,
            "problem": None if self.problem is None else str(self.problem),
        }  # fmt: skip


def compare_models(
    text: str, models: Sequence[str], catalog: Catalog, at: datetime, *, output_tokens: int, calls: int
) -> tuple[ModelCost, ...]:
    """What the text costs as the input of each model, with an answer of `output_tokens`, once and `calls` times a
    month. A model without a rate has its count and the reason, not a price. Raises InputError for negative counts."""
    if output_tokens < 0 or calls < 0:
        raise InputError("The answer's tokens and the calls per month are zero or more.")
    if not models:
        raise InputError("There is nothing to compare.", todo="Name at least one model.")
    rows = []
    for model in models:
        count = count_text(text, model)
        try:
            found = catalog.find(model, at=at)
        except UnpricedError as error:
            rows.append(ModelCost(model, None, count, output_tokens, None, calls, error))
            continue
        usage = Usage(input=count.tokens, output=output_tokens)
        cost = price(usage, found.card, at=at, context=found.context)
        problem = missing_rate(cost, model) if cost.unpriced else None
        rows.append(ModelCost(model, found.provider, count, output_tokens, cost, calls, problem))
    return tuple(rows)


def compare_prompts(a: str, b: str, model: str, catalog: Catalog, at: datetime) -> PromptDifference:
    """Two prompts on one model: tokens and input cost of each, by section, and the break-even in output tokens. The
    model's rate is optional: without it the costs are None."""
    counts = count_text(a, model), count_text(b, model)
    try:
        found = catalog.find(model, at=at)
    except UnpricedError as error:
        parts = sections(a, model), sections(b, model)
        return PromptDifference(model, *counts, None, None, *parts, None, error)
    costs = [price(Usage(input=count.tokens), found.card, at=at, context=found.context) for count in counts]
    parts = sections(a, model, costs[0]), sections(b, model, costs[1])
    amounts = [cost.amount for cost in costs]
    # An answer is priced with the prompt it follows: above a context threshold it costs more.
    usage = Usage(input=min(counts[0].tokens, counts[1].tokens), output=_MANY)
    whole = price(usage, found.card, at=at, context=found.context)
    out = next((line.pico for line in whole.lines if line.kind == "output"), None)
    problem = missing_rate(whole, model) if whole.unpriced else None
    break_even = None
    if out and amounts[0] is not None and amounts[1] is not None:
        break_even = abs(amounts[0].pico - amounts[1].pico) * _MANY // out
    return PromptDifference(model, *counts, amounts[0], amounts[1], *parts, break_even, problem)


def sections(text: str, model: str, cost: Cost | None = None) -> tuple[Section, ...]:
    """The parts of a prompt that begin with a Markdown heading or a tag alone on its line, each with its tokens, priced
    as the input of the whole prompt's `cost` is."""
    starts = [(match.start(), match["title"] or f"<{match['tag']}>") for match in _HEADING.finditer(text)]
    if not starts or starts[0][0] > 0:
        starts.insert(0, (0, _OPENING))
    ends = [start for start, _ in starts[1:]] + [len(text)]
    parts = [(title.strip(), text[start:end]) for (start, title), end in zip(starts, ends, strict=True)]
    priced = next((line.priced for line in cost.lines), None) if cost is not None else None
    found = []
    for title, part in parts:
        if part.strip():
            tokens = count_text(part, model).tokens
            share = None
            if priced is not None:
                share = Money(divide_half_even(tokens * priced.numerator, priced.denominator))
            found.append(Section(title, tokens, share))
    return tuple(found)


def _money_json(amount: Money | None) -> dict[str, str] | None:
    return None if amount is None else amount.to_json()
