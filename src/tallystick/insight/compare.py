"""Compare: one text across models, or two prompts on one model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tallystick.core.money import Money
from tallystick.core.pricing import price
from tallystick.core.usage import Usage
from tallystick.errors import InputError, TallyError, UnpricedError
from tallystick.tokens.count import Count, count_text

if TYPE_CHECKING:
    from tallystick.catalog.catalog import Catalog
    from tallystick.core.cost import Cost

_HEADING: Final = re.compile(r"^(?:#{1,6}[ \t]+(?P<title>[^\n]+)|<(?P<tag>[A-Za-z][\w-]*)>)[ \t]*$", re.MULTILINE)
_OPENING: Final = "(opening)"


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
            "input_tokens": _count_json(self.count),
            "output_tokens": self.output_tokens,
            "cost": None if self.cost is None else self.cost.to_json(),
            "per_call": None if self.per_call is None else self.per_call.to_json(),
            "calls_per_month": self.calls,
            "per_month": None if self.per_month is None else self.per_month.to_json(),
            "problem": None if self.problem is None else str(self.problem),
        }


class Section(msgspec.Struct, frozen=True):
    """A part of a prompt, from one heading or tag to the next, and its tokens. Sections are counted apart, so they may
    add up to a few tokens more than the whole."""

    title: str
    tokens: int


class PromptDifference(msgspec.Struct, frozen=True):
    """Two prompts on one model. `saved_tokens` and `saved` are what B saves over A (negative when B is longer);
    `break_even_output` is how many more output tokens of B cost as much as it saves; None where output has no rate."""

    model: str
    a: Count
    b: Count
    a_cost: Money | None
    b_cost: Money | None
    a_sections: tuple[Section, ...]
    b_sections: tuple[Section, ...]
    break_even_output: int | None

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
            return f"{head}; without a rate for output there is no break-even."
        more = self.break_even_output
        return f"{head}; {more:,} more output token{'s' if more != 1 else ''} cost the same."

    def to_json(self) -> dict[str, Any]:
        """The comparison as plain JSON values."""
        return {
            "model": self.model,
            "a": {"tokens": _count_json(self.a), "cost": _money_json(self.a_cost),
                  "sections": msgspec.to_builtins(self.a_sections)},
            "b": {"tokens": _count_json(self.b), "cost": _money_json(self.b_cost),
                  "sections": msgspec.to_builtins(self.b_sections)},
            "saved_tokens": self.saved_tokens,
            "saved": _money_json(self.saved),
            "break_even_output_tokens": self.break_even_output,
            "verdict": self.verdict,
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
        rows.append(ModelCost(model, found.provider, count, output_tokens, cost, calls))
    return tuple(rows)


def compare_prompts(a: str, b: str, model: str, catalog: Catalog, at: datetime) -> PromptDifference:
    """Two prompts on one model: tokens and input cost of each, by section, and the break-even in output tokens. The
    model's rate is optional: without it the costs are None."""
    counts = count_text(a, model), count_text(b, model)
    costs: list[Money | None] = [None, None]
    break_even = None
    try:
        found = catalog.find(model, at=at)
    except UnpricedError:
        pass
    else:
        priced = [price(Usage(input=c.tokens), found.card, at=at, context=found.context) for c in counts]
        costs = [cost.amount for cost in priced]
        one = price(Usage(output=1_000_000), found.card, at=at, context=found.context).amount
        if one and costs[0] is not None and costs[1] is not None:
            break_even = abs(costs[0].pico - costs[1].pico) * 1_000_000 // one.pico
    return PromptDifference(
        model, *counts, costs[0], costs[1], sections(a, model), sections(b, model), break_even
    )


def sections(text: str, model: str) -> tuple[Section, ...]:
    """The parts of a prompt that begin with a Markdown heading or a tag alone on its line, each with its tokens."""
    starts = [(match.start(), match["title"] or f"<{match['tag']}>") for match in _HEADING.finditer(text)]
    if not starts or starts[0][0] > 0:
        starts.insert(0, (0, _OPENING))
    ends = [start for start, _ in starts[1:]] + [len(text)]
    parts = [(title.strip(), text[start:end]) for (start, title), end in zip(starts, ends, strict=True)]
    return tuple(Section(title, count_text(part, model).tokens) for title, part in parts if part.strip())


def _count_json(count: Count) -> dict[str, Any]:
    return {"tokens": count.tokens, "low": count.low, "high": count.high, "method": count.method, "basis": count.basis}


def _money_json(amount: Money | None) -> dict[str, str] | None:
    return None if amount is None else amount.to_json()
