"""Card words: rates and the conditions under which they hold, as people read them."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Final

from tallystick.core.money import Money
from tallystick.core.usage import TOKEN_KINDS

if TYPE_CHECKING:
    from tallystick.core.rates import Rate, RateCard, Variant

_WEEK: Final = 7
_MILLION: Final = 1_000_000


def when_words(variant: Variant) -> str:
    """When a variant holds: `service_tier=flex`, `peak 01:00-04:00 UTC on weekdays 1 to 5`."""
    parts = [f"{key}={value}" for key, value in variant.when]
    for window in variant.windows:
        hours = f"{_clock(window.start)}-{_clock(window.end)} {window.tz}"
        days = window.weekdays
        parts.append(hours if len(days) == _WEEK else f"{hours} on weekdays {', '.join(map(str, days))}")
    return " ".join(parts) or variant.name


def rate_words(kind: str, rate: Rate) -> tuple[str, str, str]:
    """A rate in words: amount, unit, and its steps by prompt size."""
    from tallystick.core.cost import per_words

    steps = ", ".join(
        f"{Money.usd(cliff.usd)} {'from' if cliff.inclusive else 'above'} {cliff.above:,}" for cliff in rate.cliffs
    )
    return str(Money.usd(rate.usd)), per_words(kind, rate.per), steps


def per_million(card: RateCard, kind: str) -> Money | None:
    """The standard rate of a token kind for a million tokens, its own or the one that stands in for it; None where the
    card has neither."""
    seen: set[str] = set()
    while kind not in card.rates and kind not in seen and kind in card.fallbacks:
        seen.add(kind)
        kind = card.fallbacks[kind]
    rate = card.rates.get(kind)
    return None if rate is None or kind not in TOKEN_KINDS else Money.usd(rate.usd * Decimal(_MILLION) / rate.per)


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"
