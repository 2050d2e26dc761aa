"""Figures: how amounts, counts, shares and times look on a page. People see dollars; the exact figure is in the title,
and what is not zero never looks like zero."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from tallystick.core.money import PICO_PER_USD, Money, divide_half_even
from tallystick.core.periods import zone
from tallystick.insight.spend import known_cost
from tallystick.ledger.query import Total

_SCALES: Final = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k"))
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_AGES: Final = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def clean(text: str) -> str:
    """Text from anywhere without characters that are not seen or that turn others around."""
    if text.isprintable():
        return text
    spaced = text.replace("\n", " ").replace("\t", " ")
    return "".join(char for char in spaced if unicodedata.category(char) not in _HIDDEN)


def places_for(amount: Money) -> int:
    """So many decimals show an amount of this size to three digits or more, or to cents."""
    size = abs(amount.pico)
    if size >= PICO_PER_USD or not size:
        return 2
    places = 4
    while places < 8 and size < 10 ** (12 - places + 2):
        places += 1
    return places if size < PICO_PER_USD // 100 else 4


def column_places(amounts: Iterable[Money | None]) -> int:
    """So many decimals for all amounts of a column, by the largest of them."""
    return places_for(max((abs(one) for one in amounts if one is not None), default=Money(0)))


def dollars(amount: Money | None, places: int | None = None, *, sign: bool = False) -> str:
    """An amount for people: `$1,204.31`, `$0.0035`, `<$0.01` for what would round to nothing, `unknown`. `sign` puts a
    plus in front of what is above zero."""
    if amount is None:
        return "unknown"
    places = places_for(amount) if places is None else places
    unit = 10 ** (12 - places)
    steps = divide_half_even(abs(amount.pico), unit)
    minus = "\u2212" if amount.pico < 0 else "+" if sign and amount.pico > 0 else ""
    if not steps and amount.pico:
        return f"{minus}<${1 / 10**places:.{places}f}"
    whole, rest = divmod(steps, 10**places)
    return f"{minus}${whole:,}.{rest:0{places}d}"


def count(number: int | None) -> str:
    """A whole number with its thousands apart."""
    return "unknown" if number is None else f"{number:,}"


def compact(number: float | None) -> str:
    """A number to three digits: `1.24M`, `982`, `12.3k`."""
    if number is None:
        return "unknown"
    for scale, letter in _SCALES:
        if abs(number) >= scale * 0.9995:
            value = number / scale
            return f"{value:.{2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0}f}{letter}"
    return f"{number:,.0f}"


def calls(number: int) -> str:
    """`1 call`, `1,204 calls`."""
    return f"{number:,} {'call' if number == 1 else 'calls'}"


def percent(share: float | None, places: int | None = None) -> str:
    """A share as a percentage: `12.4%`, `<0.1%`, `84%`."""
    if share is None:
        return ""
    value = abs(share) * 100
    if 0 < value < 0.1:
        return "<0.1%"
    places = (0 if value >= 99.95 or not value else 1) if places is None else places
    return f"{value:.{places}f}%"


def change(now: Money | float | None, before: Money | float | None) -> float | None:
    """By which share something grew; None where there was nothing before, or either is unknown."""
    first, last = (one.pico if isinstance(one, Money) else one for one in (before, now))
    return None if first is None or last is None or not first else (last - first) / abs(first)


def delta(share: float | None) -> str:
    """A change in words: `+12%`, `-3.4%` (with a true minus), how many times for what grew tenfold."""
    if share is None:
        return "new"
    if abs(share) < 0.0005:
        return "±0%"
    if share >= 9:
        return f"\u00d7{share + 1:,.0f}"
    places = 0 if abs(share) >= 0.0995 else 1
    return f"{'+' if share > 0 else chr(0x2212)}{abs(share) * 100:.{places}f}%"


def moment(at: datetime | None, tz: str = "UTC", shape: str = "%Y-%m-%d %H:%M:%S") -> str:
    """An instant by the clocks of a time zone."""
    return "" if at is None else at.astimezone(zone(tz)).strftime(shape)


def lasting(seconds: float | timedelta | None) -> str:
    """A length of time: `340 ms`, `12.4 s`, `3 m 20 s`, `2 h 5 m`, `4 d 3 h`."""
    if seconds is None:
        return ""
    value = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    whole = round(value)
    parts: list[str] = []
    for size, letter in _AGES:
        if whole >= size or parts:
            parts.append(f"{whole // size} {letter}")
            whole %= size
    return " ".join([part for part in parts[:2] if not part.startswith("0 ")])


def total_known(total: Total) -> Money | None:
    """What a sum is as far as known; None where nothing of it is."""
    return known_cost(total)


def open_ended(total: Total) -> bool:
    """Whether a sum may be more than it says."""
    return bool(total.unpriced or total.lower_bound)
