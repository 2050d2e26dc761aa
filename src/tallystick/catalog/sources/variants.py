"""Variants: the rates of service tiers and batches, laid over dated cards.

A source often dates a tier by the day on which somebody verified it, not by the day the price began. Before that day
the tier keeps the exact ratio it had to the base price, kind by kind; leaving it at list price would be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction

from tallystick.catalog.sources.row import make_rate, plain
from tallystick.core.rates import Cliff, Rate, Variant

_DIGITS = 12


@dataclass(frozen=True)
class Period:
    """Base rates between two days (None: open), with the variants that depend on the clock."""

    start: date | None
    end: date | None
    rates: Mapping[str, Rate]
    windows: tuple[Variant, ...] = ()

    def holds(self, day: date | None) -> bool:
        """Whether the day lies in the period; None is the beginning of time."""
        if day is None:
            return self.start is None
        return (self.start is None or self.start <= day) and (self.end is None or day < self.end)


@dataclass(frozen=True)
class Stated:
    """Rates that a source states for a context, and the day since which it states them."""

    when: tuple[tuple[str, str], ...]
    start: date | None
    rates: Mapping[str, Rate]


def variants_for(
    period: Period, periods: Sequence[Period], stated: Sequence[Stated], source: str, tell: Callable[[str], None]
) -> Iterator[Variant]:
    """The variants of one period's card, first the batch, then in the source's order. `tell` hears of what was lost."""
    groups: dict[tuple[tuple[str, str], ...], list[Stated]] = {}
    for one in stated:
        groups.setdefault(one.when, []).append(one)
    for when, entries in sorted(groups.items(), key=lambda item: item[0][0][0] != "processing"):
        name = when[0][1]
        active = [
            one for one in entries if one.start is None or (period.start is not None and one.start <= period.start)
        ]
        inside = [one for one in entries if one not in active and period.holds(one.start)]
        if active and inside:
            tell(f"{name} changes inside a card, later rate used")
        if active or inside:
            rates, note = _first_of([*inside, *active]), _verified(inside)
        else:
            first = min(entries, key=lambda one: one.start or date.min)
            origin = next(one for one in periods if one.holds(first.start))
            rates, note = (
                scaled(first.rates, origin.rates, period.rates),
                f"; ratio verified {first.start}, applied back",
            )
            if len(rates) != len(first.rates.keys() & period.rates.keys()):
                tell(f"{name} ratio not exact, not applied back")
        if not rates and name == "batch" and not any(one.rates for one in entries):
            rates, note = dict(period.rates), "; listed at the standard rates"
        if rates:
            yield Variant(name, rates, when, source=source + note)


def _verified(inside: Sequence[Stated]) -> str:
    return f"; verified {inside[0].start}, applied back" if inside else ""


def _first_of(entries: Sequence[Stated]) -> dict[str, Rate]:
    rates: dict[str, Rate] = {}
    for one in entries:
        for kind, rate in one.rates.items():
            rates.setdefault(kind, rate)
    return rates


def scaled(rates: Mapping[str, Rate], base: Mapping[str, Rate], other: Mapping[str, Rate]) -> dict[str, Rate]:
    """`rates` as they would be over `other`, at the exact ratio each has to `base`; kinds whose ratio is not one exact
    number for all prompt sizes, or does not give a finite price, are left out."""
    result = {}
    for kind, rate in rates.items():
        if kind not in base or kind not in other or rate.per != other[kind].per or not base[kind].usd:
            continue
        ratio = Fraction(rate.usd) / Fraction(base[kind].usd)
        sizes = sorted({cliff.first for one in (rate, base[kind]) for cliff in one.cliffs})
        if all(Fraction(rate.at_size(size)) == ratio * Fraction(base[kind].at_size(size)) for size in sizes):
            moved = times(other[kind], ratio)
            if moved is not None:
                result[kind] = moved
    return result


def times(rate: Rate, ratio: Fraction) -> Rate | None:
    """The rate multiplied by an exact ratio; None when that has no finite decimal."""
    usd = _decimal(Fraction(rate.usd) * ratio)
    cliffs = [(cliff, _decimal(Fraction(cliff.usd) * ratio)) for cliff in rate.cliffs]
    if usd is None or any(price is None for _, price in cliffs):
        return None
    steps = tuple(Cliff(cliff.above, price, cliff.inclusive) for cliff, price in cliffs if price is not None)
    return make_rate(usd, rate.per, steps)


def _decimal(value: Fraction) -> Decimal | None:
    scaled_up = value * 10**_DIGITS
    if scaled_up.denominator != 1:
        return None
    return plain(Decimal(scaled_up.numerator).scaleb(-_DIGITS))
