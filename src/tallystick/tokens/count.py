"""Count: how many tokens, how sure, and why; and the count of a plain text for any model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

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

# Characters that are estimated in one go when a text comes in pieces.
_PART: Final = 1_000_000


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

    def __str__(self) -> str:
        """`7, exact (o200k_base)`, or `about 12, estimate (9 to 16)`."""
        if self.low == self.high:
            return f"{self.tokens:,}, {self.method}" + (f" ({self.encoding})" if self.encoding else "")
        return f"about {self.tokens:,}, {self.method} ({self.low:,} to {self.high:,})"

    def to_json(self) -> dict[str, Any]:
        """The count as plain JSON values."""
        return {
            "tokens": self.tokens,
            "low": self.low,
            "high": self.high,
            "method": self.method,
            "encoding": self.encoding,
            "basis": self.basis,
            "bytes": self.bytes,
        }

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
        return _counted(encoding(row["encoding"]).count(text), row, model, size)
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


def count_chunks(chunks: Iterable[str], model: str, calibration: Calibration | None = None) -> Count:
    """The tokens of a text that comes in pieces, in memory that does not grow with it.

    Where the model's tokenizer is known the count is that of the whole text, however it was cut. Elsewhere each part of
    a million characters is estimated by itself, and values and bounds are added up.
    """
    row = find("encodings", "model", model)
    if row is None:
        parts = [count_text(part, model, calibration) for part in _parts(chunks)]
        if len(parts) < 2:
            return parts[0] if parts else count_text("", model, calibration)
        whole = total(parts)
        return replace(
            whole, basis=f"{len(parts)} parts of the text, each estimated by itself; the last: {parts[-1].basis}"
        )
    size = 0

    def measured() -> Iterator[str]:
        nonlocal size
        for chunk in chunks:
            size += utf8_length(chunk)
            yield chunk

    tokens = encoding(row["encoding"]).count_stream(measured())
    return _counted(tokens, row, model, size)


def _parts(chunks: Iterable[str]) -> Iterator[str]:
    waiting: list[str] = []
    length = 0
    for chunk in chunks:
        waiting.append(chunk)
        length += len(chunk)
        if length >= _PART:
            yield "".join(waiting)
            waiting, length = [], 0
    if length:
        yield "".join(waiting)


def _counted(tokens: int, row: Mapping[str, Any], model: str, size: int) -> Count:
    """A count made with the tokenizer that a row of the data names."""
    name: str = row["encoding"]
    if not row.get("assumed", False):
        return Count(tokens, tokens, tokens, "exact", name, f"counted with {name}, the tokenizer of {model}", size)
    low, high = row["bounds"]
    why = f"counted with {name}; that {model} uses it is assumed, its maker does not say so"
    return _bounded(tokens, (tokens * low, tokens * high), "estimate", why, size)
