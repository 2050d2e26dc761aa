"""What-if: what the calls of a period would have cost on another model, by its tokenizer, rates and cache rules.

Computed from sums by model, never from the calls themselves, so that a year is as quick as a day. What sums cannot know
widens the range or stands as a remark; how long another model's answers would have been is in no ledger at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tallystick.core.money import Money, divide_half_even
from tallystick.core.pricing import plan_for
from tallystick.errors import InputError, UnpricedError
from tallystick.insight.savings import READS, WRITES
from tallystick.tokens.calibration import Ratio, default_ratio
from tallystick.tokens.rules import find, load

if TYPE_CHECKING:
    from tallystick.catalog.catalog import Catalog, Found
    from tallystick.core.cost import PricedKind
    from tallystick.ledger.query import Total

ONLY_A_RERUN: Final = (
    "Another model writes longer or shorter answers, thinks more or less, and needs more or fewer attempts. "
    "These figures keep your answers as they were; only a rerun of your own tasks can tell what it would really cost."
)
"""What stands beside every what-if."""

MIXED: Final = ("prose", "code", "json")
"""The content that a sum of calls is taken to hold; sums do not tell."""

SUGGESTED_PLACES: Final = 3
SUGGESTED_EACH: Final = 2
_SPECIAL: Final = frozenset(
    ("audio", "codex", "computer", "image", "live", "realtime", "research", "search", "tts", "vision")
)
"""Parts of names that say that a model is for something else than any chat."""
_TEXT: Final = frozenset({"input", "output", "reasoning", "cache_read", *WRITES})


class Range(msgspec.Struct, frozen=True):
    """US dollars: the likely figure, and what it is believed to lie between."""

    low: Money
    likely: Money
    high: Money

    def __add__(self, other: Range) -> Range:
        """Both together; the bounds are added up, so that they never claim too much."""
        return Range(self.low + other.low, self.likely + other.likely, self.high + other.high)

    def to_json(self) -> dict[str, Any]:
        """The range as plain JSON values."""
        return {"low": self.low.to_json(), "likely": self.likely.to_json(), "high": self.high.to_json()}


class WhatIf(msgspec.Struct, frozen=True, kw_only=True):
    """The same calls on one other model. `calls` were carried over and cost `before`; `cost` is what they would have
    cost there. `left_out` calls could not be carried over, for the reasons in `remarks`. `ratios`: so many of its
    tokens one token was taken for, at least and at most among the models the calls were made on. `problem` says why
    nothing could be said at all; `cost` is then None."""

    provider: str
    model: str
    calls: int = 0
    before: Money = Money(0)
    cost: Range | None = None
    left_out: int = 0
    ratios: tuple[float, float] = (1.0, 1.0)
    remarks: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def difference(self) -> Money | None:
        """What the calls would likely cost more than they did; negative when they would cost less."""
        return None if self.cost is None else self.cost.likely - self.before

    def to_json(self) -> dict[str, Any]:
        """The row as plain JSON values."""
        return {
            "provider": self.provider,
            "model": self.model,
            "calls": self.calls,
            "before": self.before.to_json(),
            "cost": None if self.cost is None else self.cost.to_json(),
            "difference": None if self.difference is None else self.difference.to_json(),
            "left_out": self.left_out,
            "ratios": list(self.ratios),
            "remarks": list(self.remarks),
            "problem": self.problem,
        }


def what_if(
    traffic: Sequence[Total], model: str, catalog: Catalog, at: datetime, provider: str | None = None
) -> WhatIf:
    """The calls of `traffic` (sums by provider and model) on `model` at the rates of the instant `at`.

    Raises nothing for a model that is unknown or has no rate: the row then says so in `problem`.
    """
    try:
        found = catalog.find(model, at=at, provider=provider)
    except (UnpricedError, InputError) as error:
        return WhatIf(provider=provider or "", model=model, problem=error.what)
    moved: Range | None = None
    calls = left_out = 0
    before = Money(0)
    remarks: dict[str, None] = {}
    ratios: list[float] = []
    for row in traffic:
        sent = row.calls - row.refused
        if not sent:
            continue
        carried = _carried(row, sent, found, at)
        if isinstance(carried, str):
            left_out += sent
            remarks[carried] = None
            continue
        cost, notes = carried
        remarks |= dict.fromkeys(notes)
        ratios.append(tokens_for(str(row.group.get("model")), found.model).likely)
        moved = cost if moved is None else moved + cost
        calls += sent
        before += row.cost + row.not_owed
    return WhatIf(
        provider=found.provider, model=found.model, calls=calls, before=before, cost=moved, left_out=left_out,
        ratios=(min(ratios), max(ratios)) if ratios else (1.0, 1.0), remarks=tuple(remarks),
        problem=None if moved is not None else "None of these calls could be carried over.",
    )  # fmt: skip


def suggestions(traffic: Sequence[Total], catalog: Catalog, at: datetime) -> tuple[WhatIf, ...]:
    """At each of the providers in use and the first ones of the catalogue, the chat models on which this traffic would
    have cost next less than it did: two each, the dearest first. Undated ids that are not being retired only."""
    used = [str(row.group.get("provider")) for row in sorted(traffic, key=lambda row: -row.cost.pico)]
    places = list(dict.fromkeys([*used, *catalog.providers()[:SUGGESTED_PLACES]]))[: SUGGESTED_PLACES + 1]
    chosen: list[WhatIf] = []
    for place in places:
        rows = [
            row
            for name in _candidates(catalog, place, at)
            if (row := what_if(traffic, name, catalog, at, place)).cost is not None and not row.left_out
        ]
        cheaper = [(row.cost.likely, row.model, row) for row in rows if row.cost and row.cost.likely < row.before]
        chosen += [row for _, _, row in sorted(cheaper, key=lambda one: (-one[0].pico, one[1]))[:SUGGESTED_EACH]]
    return tuple(chosen)


def _candidates(catalog: Catalog, provider: str, at: datetime) -> Iterator[str]:
    for name in catalog.models(provider):
        row = catalog.row(provider, name)
        if row is None or row.mode != "chat" or row.retires or not row.context_window or ":" in name:
            continue
        parts = name.replace(".", "-").split("-")
        if not _SPECIAL.isdisjoint(parts) or any(len(part) >= 4 and part.isdigit() for part in parts):
            continue
        cards = [card for card in row.cards if card.valid_from is None or card.valid_from <= at]
        if any({"input", "output", "cache_read"} <= card.rates.keys() for card in cards):
            yield name


def _carried(row: Total, sent: int, found: Found, at: datetime) -> tuple[Range, tuple[str, ...]] | str:
    """What one model's calls cost on another; a text says why nothing can be told."""
    source = str(row.group.get("model"))
    if not row.usage or row.unknown >= sent:
        return f"calls of {source} have no known usage"
    if row.unpriced >= sent:
        return f"calls of {source} have no price to compare with"
    size = row.usage.input_tokens // max(1, sent - row.unknown)
    window = found.row.context_window
    factor = tokens_for(source, found.model)
    if window is not None and size * factor.likely > window:
        return f"calls of {source} hold {size:,} tokens on average, more than it takes ({window:,})"
    kinds = plan_for(found.card, round(size * factor.likely), at, found.context).kinds
    moved: list[Range] = []
    notes: list[str] = []
    for kind, quantity in row.usage.items():
        one = _kind_moved(kind, quantity, row, kinds, factor)
        if one is None:
            return f"it has no rate for {kind}"
        moved.append(one)
    if _charges_writes(kinds) and row.usage.get("cache_read") and not any(row.usage.get(kind) for kind in WRITES):
        notes.append("it charges for writing to the cache, and how much would be written is a guess")
    if row.usage.get("cache_read") and "cache_read" not in kinds:
        notes.append("it has no price for cached input: that is taken at the full rate")
    if row.unpriced or row.unknown:
        notes.append(f"some calls of {source} have no price or no known usage")
    total = moved[0]
    for more in moved[1:]:
        total += more
    return total, tuple(notes)


def _kind_moved(kind: str, quantity: int, row: Total, kinds: Mapping[str, PricedKind], factor: Ratio) -> Range | None:
    """The cost of one kind of usage on the other model; None where it has no rate for it."""
    plain = kinds.get(READS.get(kind) or WRITES.get(kind) or kind)
    own = kinds.get(kind, plain)
    if own is None:
        return None
    if kind not in _TEXT:
        exact = Money(_amount(quantity, own))
        return Range(exact, exact, exact)
    low = high = likely = own
    written = any(row.usage.get(name) for name in WRITES)
    if kind == "input" and not written and row.usage.get("cache_read") and _charges_writes(kinds):
        # Where the cache filled itself for nothing, what was new in each prompt would have been written here.
        likely = high = kinds["cache_write"]
    amounts = (
        _amount(math.floor(quantity * factor.low), low),
        _amount(round(quantity * factor.likely), likely),
        _amount(math.ceil(quantity * factor.high), high),
    )
    return Range(*(Money(amount) for amount in amounts))


def _charges_writes(kinds: Mapping[str, PricedKind]) -> bool:
    """Whether writing to the cache costs more than sending the same tokens; elsewhere it is free or happens unasked."""
    written, plain = kinds.get("cache_write"), kinds.get("input")
    return written is not None and plain is not None and _amount(1_000_000, written) > _amount(1_000_000, plain)


def _amount(quantity: int, priced: PricedKind) -> int:
    return divide_half_even(quantity * priced.numerator, priced.denominator)


@lru_cache(maxsize=1024)
def tokens_for(source: str, target: str) -> Ratio:
    """How many tokens of the target one token of the source is. Exactly one where both share a tokenizer."""
    one, other = find("encodings", "model", source), find("encodings", "model", target)
    if source == target or (one is not None and other is not None and one["encoding"] == other["encoding"]):
        return Ratio(1.0, 1.0, 1.0, False, "the same tokenizer")
    rows = find("ratios", "model", source), find("ratios", "model", target)
    if one is None and other is None and rows[0] is not None and rows[0] is rows[1]:
        return Ratio(1.0, 1.0, 1.0, False, "the same family of tokenizers")
    mine, theirs = _mixed(source), _mixed(target)
    likely = theirs.likely / mine.likely
    # Two independent doubts: their logarithms add up as squares do.
    down = math.hypot(math.log(theirs.likely / theirs.low), math.log(mine.high / mine.likely))
    up = math.hypot(math.log(theirs.high / theirs.likely), math.log(mine.likely / mine.low))
    why = f"{target} counts about {likely:.2f} tokens where {source} counts one: the range is that of the ratio"
    return Ratio(likely * math.exp(-down), likely, likely * math.exp(up), False, why)


def _mixed(model: str) -> Ratio:
    """A model's tokens per token of the yardstick, over the usual kinds of content."""
    row = find("encodings", "model", model)
    if row is not None:
        low, likely, high = load("ratios")["encodings"][row["encoding"]]
        return Ratio(low, likely, high, False, "measured on samples")
    ratios = [default_ratio(model, kind) for kind in MIXED]
    bounds = (math.prod(side) ** (1 / len(MIXED)) for side in zip(*[ratio[:3] for ratio in ratios], strict=True))
    low, likely, high = bounds
    return Ratio(low, likely, high, False, ratios[0].basis)
