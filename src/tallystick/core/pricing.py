"""price(): the cost of a usage under a rate card.

Pricing compiles a card, for one combination of context, clock window and prompt size, into a plan (kind -> exact
picodollars per unit) and keeps it, so that a call costs a dictionary lookup and a multiplication per kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

import msgspec

from tallystick.core.cost import Cost, Line, PricedKind
from tallystick.core.money import PICO_PER_USD, Money, divide_half_even
from tallystick.core.rates import (
    ANY,
    STANDARD_TIERS,
    TIER_KEYS,
    Brackets,
    Context,
    FlatPlan,
    Multiplier,
    Rate,
    RateCard,
    Variant,
)
from tallystick.core.usage import TOKEN_KINDS, Usage, unit_of


class Plan(msgspec.Struct, frozen=True, gc=False):
    """A card compiled for one context, window and prompt size: how each kind is priced, and what to remark."""

    kinds: Mapping[str, PricedKind]
    notes: tuple[str, ...]


def price(
    usage: Usage,
    card: RateCard,
    *,
    at: datetime,
    context: Context | None = None,
    volume: Mapping[str, int] | None = None,
) -> Cost:
    """What `usage` costs under `card` at the instant `at`, in the given context.

    `volume` is what the period used before this call, per kind, for rates with brackets or an allowance; without it
    such lines are priced from the period's start and say so. Each line is rounded once, half-even, to 1e-12 USD. A kind
    without a rate gives an unpriced line and a cost whose amount is None.
    """
    plan = plan_for(card, usage.input_tokens if card.thresholds else 0, at, context)
    kinds, special = plan.kinds, card.plan
    lines = []
    total = 0
    complete = True
    for kind, quantity in usage.items():
        priced = kinds.get(kind)
        if priced is None:
            lines.append(Line(kind, quantity, None, None, "no rate for this kind"))
            complete = False
        elif priced.simple and special is None:
            pico = quantity * priced.numerator
            if priced.denominator != 1:
                pico = divide_half_even(pico, priced.denominator)
            lines.append(Line(kind, quantity, pico, priced, priced.note))
            total += pico
        else:
            line, pico = _special_line(kind, quantity, priced, special, volume)
            lines.append(line)
            total += pico
    return Cost(tuple(lines), total if complete else None, card.basis, (card.id,), card.catalogue, plan.notes)


def plan_for(card: RateCard, prompt_tokens: int, at: datetime, context: Context | None) -> Plan:
    """The compiled plan of a card for a prompt size, an instant and a context."""
    size = sum([prompt_tokens >= first for first in card.thresholds]) if card.thresholds else 0
    values = tuple([context.get(key) for key in card.dimensions]) if context else None
    windows = tuple([_open(variant, at) for variant in card.windowed]) if card.windowed else None
    key = (size, values, windows)
    plan: Plan | None = card.compiled.get(key)
    if plan is None:
        plan = card.compiled[key] = _compile(card, prompt_tokens, at, context or {})
    return plan


def plan_fee(card: RateCard) -> Money | None:
    """The flat fee of the card's plan, owed once a period; None when the card has no plan."""
    return None if card.plan is None else Money.usd(card.plan.fee)


def _open(variant: Variant, at: datetime) -> bool:
    return not variant.windows or any(window.active(at) for window in variant.windows)


def _matches(when: tuple[tuple[str, str], ...], context: Context) -> bool:
    return all(context.get(key) == value or (value == ANY and bool(context.get(key))) for key, value in when)


def _compile(card: RateCard, prompt_tokens: int, at: datetime, context: Context) -> Plan:
    chosen: dict[str, tuple[Rate, str, str]] = {}
    for variant in card.variants:
        if _matches(variant.when, context) and _open(variant, at):
            for kind, rate in variant.rates.items():
                chosen.setdefault(kind, (rate, variant.name, variant.source or card.source))
    for kind, rate in card.rates.items():
        chosen.setdefault(kind, (rate, "", card.source))
    factors = [factor for factor in card.multipliers if _matches(factor.when, context)]
    kinds = {}
    for kind, (rate, name, source) in chosen.items():
        applied = tuple((f.name, f.factor) for f in factors if name not in f.unless and _applies(f, kind))
        kinds[kind] = _priced(rate, rate.at_size(prompt_tokens), applied, source, name)
    for kind in card.fallbacks:
        found = _fallback(kind, card.fallbacks, kinds)
        if kind not in kinds and found is not None:
            kinds[kind] = msgspec.structs.replace(kinds[found], note=f"at the rate of {found}")
    return Plan(kinds, tuple(_remarks(card, context)))


def _applies(factor: Multiplier, kind: str) -> bool:
    return kind in factor.kinds if factor.kinds else kind in TOKEN_KINDS


def _fallback(kind: str, fallbacks: Mapping[str, str], kinds: Mapping[str, PricedKind]) -> str | None:
    seen = {kind}
    following = fallbacks.get(kind)
    while following is not None and following not in seen:
        if following in kinds:
            return following
        seen.add(following)
        following = fallbacks.get(following)
    return None


def _priced(
    rate: Rate, usd: Decimal, multipliers: tuple[tuple[str, Decimal], ...], source: str, note: str
) -> PricedKind:
    exact = Fraction(usd) * PICO_PER_USD / rate.per
    for _, factor in multipliers:
        exact *= Fraction(factor)
    simple = not rate.minimum and rate.step == 1 and rate.brackets is None
    shown = rate if usd == rate.usd else msgspec.structs.replace(rate, usd=usd)
    return PricedKind(shown, exact.numerator, exact.denominator, simple, multipliers, source, note)


def _remarks(card: RateCard, context: Context) -> Iterator[str]:
    if card.status == "conflict":
        yield f"sources disagree on {card.id}" + (f": {card.note}" if card.note else "")
    conditions = (*(variant.when for variant in card.variants), *(factor.when for factor in card.multipliers))
    for key in sorted(TIER_KEYS):
        value = context.get(key, "")
        if value not in STANDARD_TIERS and not any((key, value) in when for when in conditions):
            yield f"no rate of its own for {key} {value}: standard rates used"


def _special_line(
    kind: str, quantity: int, priced: PricedKind, plan: FlatPlan | None, volume: Mapping[str, int] | None
) -> tuple[Line, int]:
    """A line whose quantity is not simply multiplied: a minimum, a rounding step, brackets or a plan's allowance."""
    rate = priced.rate
    notes = [priced.note] if priced.note else []
    billed = -(-max(quantity, rate.minimum) // rate.step) * rate.step
    if billed != quantity:
        notes.append(f"used {quantity:,}, billed {billed:,}")
    used = 0 if volume is None else volume.get(kind, 0)
    allowance = None if plan is None else plan.allowance.get(kind)
    if volume is None and (rate.brackets is not None or allowance is not None):
        notes.append("the period's volume is unknown: priced as its first use")
    included = 0
    if plan is not None and allowance is not None:
        included = min(billed, max(0, allowance - used))
        notes.append(f"{included:,} included in {plan.name}")
    if rate.brackets is None:
        pico = divide_half_even((billed - included) * priced.numerator, priced.denominator)
    else:
        pico = _bracketed(billed - included, used + included, rate.brackets, priced)
        notes.append(f"{rate.brackets.mode} over the {rate.brackets.period}: {used:,} {unit_of(kind)}s used before")
    return Line(kind, billed, pico, priced, "; ".join(notes)), pico


def _bracketed(quantity: int, used: int, brackets: Brackets, priced: PricedKind) -> int:
    """The price of `quantity` units after `used` units of the same period, in picodollars."""
    total = used + quantity
    exact = Fraction(0)
    ends = [*(start for start, _ in brackets.steps[1:]), total]
    for (start, usd), end in zip(brackets.steps, ends, strict=True):
        if brackets.mode == "graduated":
            exact += Fraction(usd) * max(0, min(total, end) - max(used, start))
        elif start < total or start == 0:
            exact = Fraction(usd) * quantity
    for _, factor in priced.multipliers:
        exact *= Fraction(factor)
    exact *= Fraction(PICO_PER_USD, priced.rate.per)
    return divide_half_even(exact.numerator, exact.denominator)
