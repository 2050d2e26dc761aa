"""How many tokens a closed model counts where we count some: shipped defaults with wide bounds, and learned ratios.

All ratios are provider tokens per token of the yardstick encoding (stated in `data/ratios.toml`), one for each class of
content, because one ratio for a model is right for totals and wrong for single calls.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from tallystick.errors import InputError
from tallystick.tokens.rules import find, load

ContentClass = Literal["prose", "code", "json", "cjk", "other"]
CLASSES: Final[tuple[ContentClass, ...]] = ("prose", "code", "json", "cjk", "other")
"""The classes of content a ratio is kept for."""

_SAMPLE: Final = 1000
_CJK: Final = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\U00020000-\U0003ffff]")
_JSON: Final = b'"[]{}:,'
_SYMBOLS: Final = b"{}()[];=<>_\\|&#$/*+"
_LETTERS: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CODE_LINE: Final = re.compile(
    r"^(?:\s{2,}\S|\t+\S|\s*(?:def |class |import |from \S+ import |return\b|function |const |let |var |public "
    r"|private |#include|fn |func |if ?\(|for ?\(|while ?\(|package |use |SELECT |INSERT |\}|//|/\*))|[;{]\s*$",
    re.MULTILINE,
)
_ACCENTED: Final = re.compile("[\u00c0-\u024f]")


def _number_of(data: bytes, wanted: bytes) -> int:
    return len(data) - len(data.translate(None, wanted))


def content_class(text: str) -> ContentClass:
    """The class of a text, judged from at most three samples of it: microseconds whatever its length. Never raises."""
    if len(text) > 3 * _SAMPLE:
        middle = len(text) // 2
        sample = text[:_SAMPLE] + "\n" + text[middle : middle + _SAMPLE] + "\n" + text[-_SAMPLE:]
    else:
        sample = text
    solid = len(sample) - sample.count(" ") - sample.count("\n")
    if solid <= 0:
        return "other"
    plain = sample.isascii()
    if not plain and len(_CJK.findall(sample)) > 0.2 * solid:
        return "cjk"
    data = sample.encode("utf-8", "replace")
    if text[:64].lstrip()[:1] in ("{", "[") and _number_of(data, _JSON) > 0.12 * solid:
        return "json"
    letters = _number_of(data, _LETTERS) + (0 if plain else len(_ACCENTED.findall(sample)))
    lines = sample.count("\n") + 1
    symbols = _number_of(data, _SYMBOLS)
    if symbols > 0.04 * solid and (symbols > 0.1 * solid or len(_CODE_LINE.findall(sample)) > 0.3 * lines):
        return "code"
    spaces = sample.count(" ") + sample.count("\n")
    # Long unbroken runs (base64, hashes, URLs) have letters enough, but no spaces between them.
    if letters > 0.7 * solid and solid <= 25 * (spaces + 1):
        return "prose"
    return "other"


class Ratio(NamedTuple):
    """Provider tokens per yardstick token: `likely`, and the `low` and `high` it is believed to lie between."""

    low: float
    likely: float
    high: float
    learned: bool
    basis: str


def yardstick() -> str:
    """The name of the encoding that ratios are relative to."""
    return str(load("ratios")["yardstick"])


def default_ratio(model: str, kind: ContentClass) -> Ratio:
    """The shipped ratio for a model and a class of content. An unknown model gets the widest bounds. Never raises."""
    table = load("ratios")
    row = find("ratios", "model", model)
    if row is None:
        low, likely, high = table["unknown"][kind]
        why = f"the tokenizer of {model} is unknown: no ratio is known for it, the bounds are wide"
        return Ratio(low, likely, high, False, why)
    low, likely, high = row[kind]
    why = f"{row['maker']} publishes no tokenizer for it: default ratio {likely} for {kind}, dated {table['dated']}"
    return Ratio(low, likely, high, False, why)


class Cell(NamedTuple):
    """What was learned for one model and class: calls, both sums (old calls fade), mean and variance of log ratios."""

    calls: int
    ours: float
    theirs: float
    mean: float
    variance: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Learned ratios. A value: `update` gives a new one. `to_dict` and `from_dict` carry it through a store.

    Keys are (model, class); the class is free text, so whole calls can be learned beside classes of content.
    """

    cells: Mapping[tuple[str, str], Cell] = field(default_factory=dict)

    MINIMUM = 5
    """Calls below which nothing is said."""
    MEMORY = 200
    """Calls after which the older ones fade, so that a provider's change is learned."""

    def update(self, model: str, kind: str, ours: int, theirs: int) -> Calibration:
        """Learn from one call: we counted `ours` yardstick tokens, the provider `theirs`. Empty texts teach nothing.

        Raises `InputError` if a count is negative.
        """
        if ours < 0 or theirs < 0:
            raise InputError(
                f"Counts cannot be negative: {ours} and {theirs}.",
                money="Nothing was learned from them.",
                todo="Hand in the token counts of one call.",
            )
        if not ours or not theirs:
            return self
        old = self.cells.get((model, kind), Cell(0, 0.0, 0.0, 0.0, 0.0))
        known = min(old.calls, self.MEMORY)
        share = 1 / (known + 1)
        keep = 1.0 if old.calls < self.MEMORY else 1 - share
        step = math.log(theirs / ours) - old.mean
        new = Cell(
            old.calls + 1,
            old.ours * keep + ours,
            old.theirs * keep + theirs,
            old.mean + share * step,
            (1 - share) * (old.variance + share * step * step),
        )
        return Calibration({**self.cells, (model, kind): new})

    def ratio(self, model: str, kind: str) -> Ratio | None:
        """The learned ratio with bounds, or None before enough calls were seen. Few calls widen the bounds."""
        cell = self.cells.get((model, kind))
        if cell is None or cell.calls < self.MINIMUM:
            return None
        likely = cell.theirs / cell.ours
        width = (2.5 + 8 / cell.calls) * max(math.sqrt(cell.variance), 0.01)
        low = min(likely, math.exp(cell.mean - width))
        high = max(likely, math.exp(cell.mean + width))
        return Ratio(low, likely, high, True, f"ratio {likely:.3f} for {kind}, learned from {cell.calls} calls")

    def to_dict(self) -> dict[str, Any]:
        """The state as plain JSON data."""
        rows = [[model, kind, *cell] for (model, kind), cell in sorted(self.cells.items())]
        return {"schema": 1, "cells": rows}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Calibration:
        """The calibration a `to_dict` described. Raises `InputError` if it is not one."""
        try:
            rows = {1: state["cells"]}[state["schema"]]
            cells = {
                (str(model), str(kind)): Cell(int(calls), *(float(number) for number in numbers))
                for model, kind, calls, *numbers in rows
            }
        except (KeyError, TypeError, ValueError) as fault:
            raise InputError(
                "The stored calibration cannot be read.",
                money="Counts of closed models fall back to the shipped ratios.",
                todo="Delete the stored state; it is learned again.",
            ) from fault
        return cls(cells)
