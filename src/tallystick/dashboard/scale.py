"""Scale: figures on pixels: their range, round ticks, and how a figure looks to people.

Amounts are whole numbers of a unit: `usd` (picodollars), `count`, `ms` (milliseconds) or `percent`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

import msgspec

from tallystick.errors import InputError

Value = int | float | None
"""A figure; None is unknown, which is never drawn as zero."""

TALL: Final = 240
TOP: Final = 12
BOTTOM: Final = 26
_LARGEST: Final = 1e40
_LETTERS: Final = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


class Scale(msgspec.Struct, frozen=True):
    """The figures from `low` to `high` on pixels from `bottom` up to `top`, and where there are ticks."""

    low: float
    high: float
    top: float
    bottom: float
    ticks: tuple[float, ...]

    def y(self, value: float) -> float:
        """Where a figure stands, in pixels from the top."""
        return self.bottom - (value - self.low) / (self.high - self.low) * (self.bottom - self.top)


def shown(value: float, unit: str) -> str:
    """A figure for people: dollars with cents, or below one dollar with four digits that say something."""
    if unit == "usd":
        amount = Decimal(value).scaleb(-12)
        places = 2 if abs(amount) >= 1 or not amount else max(2, 3 - amount.adjusted())
        text = f"{abs(amount).quantize(Decimal(1).scaleb(-min(places, 12)), ROUND_HALF_EVEN):,f}"
        whole, _, digits = text.partition(".")
        return f"{'-' if amount < 0 else ''}${whole}.{digits.rstrip('0'):0<2}"
    if unit == "ms":
        return f"{value:,.0f} ms" if abs(value) < 1000 else f"{value / 1000:,.2f} s"
    if unit == "percent":
        return f"{value:,.1f} %" if value % 1 else f"{value:,.0f} %"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def scaled(values: Sequence[float], unit: str, tall: int = TALL) -> Scale:
    """The scale of a picture that is `tall` pixels: from zero, or below, to the tick above the largest. Raises
    InputError for figures that cannot be drawn."""
    checked(values, "a level")
    one = 10**12 if unit == "usd" else 1
    low, high = min([*values, 0]), max([*values, 0])
    if low == high:
        high = one
    ticks = nice(low, high, 4, least=1 if unit in ("usd", "count") else 0)
    step = ticks[1] - ticks[0]
    top = ticks[-1] if ticks[-1] >= high else ticks[-1] + step
    bottom = ticks[0] if ticks[0] <= low else ticks[0] - step
    ticks = (*([bottom] if bottom < ticks[0] else []), *ticks, *([top] if top > ticks[-1] else []))
    return Scale(bottom, top, TOP, tall - BOTTOM, ticks)


def nice(low: float, high: float, about: int, *, least: float) -> tuple[float, ...]:
    """Round figures from `low` to `high`, some four of them: steps of 1, 2 or 5 times a power of ten."""
    rough = max((high - low) / about, least, 1e-12)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * part for part in (1, 2, 5, 10) if power * part >= rough * 0.999999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple([place * step for place in range(first, max(last, first + 1) + 1)])


def axis_words(value: float, step: float, unit: str) -> str:
    """A tick in few letters: `$0.50`, `$12k`, `3M`."""
    if unit == "ms":
        return shown(value, unit).replace(".00 s", " s")
    if unit == "percent":
        return shown(value, unit)
    amount, part = (value / 1e12, step / 1e12) if unit == "usd" else (value, step)
    sign, dollar = "-" if amount < 0 else "", "$" if unit == "usd" else ""
    for size, letter in _LETTERS:
        if part >= size / 10 and abs(amount) >= size:
            return f"{sign}{dollar}{abs(amount) / size:.10g}{letter}"
    places = max(0, -math.floor(math.log10(part) + 1e-9)) if part < 1 else 0
    places = 2 if dollar and places == 1 else places
    return f"{sign}{dollar}{abs(amount):,.{places}f}"


def checked(values: Sequence[Value], name: str) -> tuple[Value, ...]:
    """The figures, once each is finite and no larger than a picture can show. Raises InputError."""
    for value in values:
        if value is not None and not (abs(value) <= _LARGEST):
            raise InputError(f"{str(value)[:40]} in {name[:60]!r} cannot be drawn.", todo="A figure must be finite.")
    return tuple(values)


def fitting(values: Sequence[Value], count: int, name: str) -> tuple[Value, ...]:
    """The checked figures, once there is one for each of `count` labels. Raises InputError."""
    if len(values) != count:
        raise InputError(f"{name[:60]!r} has {len(values)} figures for {count} labels.")
    return checked(values, name)


def total(values: Sequence[Value]) -> Value:
    """The sum of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def merged(values: Sequence[Value], size: int, *, peaks: bool = False) -> tuple[Value, ...]:
    """Each `size` neighbours as one: their sum, or the one that is furthest from zero."""
    if size <= 1:
        return tuple(values)
    parts = [values[place : place + size] for place in range(0, len(values), size)]
    return tuple([_furthest(part) if peaks else total(part) for part in parts])


def _furthest(values: Sequence[Value]) -> Value:
    return max([value for value in values if value is not None], key=abs, default=None)
