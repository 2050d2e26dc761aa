"""Count: how many tokens, how sure, and why; and the count of a plain text for any model."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from tallystick.errors import InputError
from tallystick.tokens.calibration import Calibration, content_class, default_ratio, yardstick
from tallystick.tokens.encodings import encoding
from tallystick.tokens.rules import find

Method = Literal["provider", "endpoint", "exact", "calibrated", "estimate"]
METHODS: Final[tuple[Method, ...]] = ("provider", "endpoint", "exact", "calibrated", "estimate")
"""How a count was made, surest first: stated by the provider, asked from its counting endpoint, counted with its own
tokenizer, counted with another and corrected by a learned ratio, estimated."""

# Whole tokens added to both sides of an estimate: ratios say little about a text of three words.
_SLACK: Final = 3


@dataclass(frozen=True, slots=True)
class Count:
    """A number of tokens with bounds.

    `tokens` is the likely value, `low` and `high` enclose it; all three agree when `method` is exact. `encoding` names
    the tokenizer if the model's own was used. `basis` says in a sentence what it rests on. `bytes` is the size of the
    counted text in UTF-8. Raises `InputError` if the bounds do not enclose the value or anything is negative.
    """

    tokens: int
    low: int
    high: int
    method: Method
    encoding: str | None
    basis: str
    bytes: int

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.tokens <= self.high or self.bytes < 0:
            raise InputError(
                f"A count must satisfy 0 <= low <= tokens <= high, not {self.low}, {self.tokens}, {self.high}.",
                money="Nothing was counted.",
                todo="Order the bounds.",
            )

    @property
    def exact(self) -> bool:
        """Whether the number is known, not estimated."""
        return self.method in METHODS[:3]

    def __add__(self, other: Count) -> Count:
        """Both together: sums of values and bounds, the less sure of the two methods and its basis."""
        weaker = max(self, other, key=lambda count: METHODS.index(count.method))
        return Count(
            self.tokens + other.tokens,
            self.low + other.low,
            self.high + other.high,
            weaker.method,
            self.encoding if self.encoding == other.encoding else None,
            weaker.basis,
            self.bytes + other.bytes,
        )


def total(counts: Iterable[Count]) -> Count:
    """The sum of counts; an exact zero if there are none."""
    parts = list(counts)
    if not parts:
        return Count(0, 0, 0, "exact", None, "there was nothing to count", 0)
    result = parts[0]
    for part in parts[1:]:
        result = result + part
    return result


def utf8_length(text: str) -> int:
    """The size of a text in UTF-8 bytes; lone surrogates count three, like the character that replaces them."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def count_text(text: str, model: str, calibration: Calibration | None = None) -> Count:
    """The tokens of a text for a model: exact where its tokenizer is known, else an estimate that says so.

    The text alone is counted, without what a chat message adds (see `count_messages`). Never raises for an unknown
    model. An estimate's upper bound never exceeds the text's bytes by more than a few tokens, because these tokenizers
    make no token of less than a byte.
    """
    size = utf8_length(text)
    row = find("encodings", "model", model)
    if row is not None:
        name: str = row["encoding"]
        tokens = encoding(name).count(text)
        if not row.get("assumed", False):
            return Count(tokens, tokens, tokens, "exact", name, f"counted with {name}, the tokenizer of {model}", size)
        low, high = row["bounds"]
        why = f"counted with {name}; that {model} uses it is assumed, its maker does not say so"
        return _bounded(tokens, (tokens * low, tokens * high), "estimate", why, size)
    kind = content_class(text)
    ours = encoding(yardstick()).count(text)
    learned = calibration.ratio(model, kind) if calibration is not None else None
    ratio = learned or default_ratio(model, kind)
    why = f"{ours} tokens of {yardstick()} times a ratio; {ratio.basis}"
    method: Method = "calibrated" if ratio.learned else "estimate"
    return _bounded(ours * ratio.likely, (ours * ratio.low, ours * ratio.high), method, why, size)


def _bounded(likely: float, bounds: tuple[float, float], method: Method, basis: str, size: int) -> Count:
    if not size:
        return Count(0, 0, 0, method, None, basis, 0)
    # One more than the bytes: some tokenizers put a space before the text.
    ceiling = size + 1
    tokens = min(max(1, round(likely)), ceiling)
    low = max(1, min(tokens, math.floor(bounds[0]) - _SLACK))
    high = max(tokens, min(ceiling, math.ceil(bounds[1]) + _SLACK))
    return Count(tokens, low, high, method, None, basis, size)
