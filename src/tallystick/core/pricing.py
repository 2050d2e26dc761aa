"""price(): the cost of a usage under a rate card.

Pricing compiles a card, for one combination of context, clock window and prompt size, into a plan (kind -> exact
picodollars per unit) and keeps it, so that a call costs a dictionary lookup and a multiplication per kind.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from operator import mul
from typing import Any, Final

import msgspec

from tallystick.core.cost import Columns, Cost, Form, Line, PricedKind
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
from tallystick.core.usage import TOKEN_KINDS, Usage, units_of
from tallystick.errors import InputError

MAX_PLANS: Final = 256
"""Plans a card keeps; context values come from payloads, so their number has to have an end."""


class Plan(msgspec.Struct, frozen=True, gc=False):
    """A card compiled for one context, window and prompt size: how each kind is priced, and what to
    remark. `whole` says that every kind is simply multiplied by a whole number of picodollars; `forms` are then the
    forms of the costs made so far, with what to multiply by, for the kinds of their usages."""

    kinds: Mapping[str, PricedKind]
    notes: tuple[str, ...]
    rate_ids: tuple[str, ...]
    basis: str
    whole: bool
    forms: dict[tuple[str, ...], tuple[Form, tuple[int, ...]]]


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
    counts: Any = usage.items()
    shape, quantities = tuple(counts.mapping), tuple(counts.mapping.values())
    # All kinds together are at least as many as the tokens of the prompt, and quicker to add up.
    small = not card.thresholds or sum(quantities) < card.thresholds[0]
    plan = plan_for(card, 0 if small else usage.input_tokens, at, context)
    if plan.whole:
        # Most calls: every kind has a rate, and a whole number of picodollars a unit.
        known = plan.forms.get(shape) or _form(plan, shape)
        if known is not None:
            form, rates = known
            amounts = tuple(map(mul, quantities, rates))
            columns = Columns(form, quantities, amounts)
            return Cost(columns, sum(amounts), plan.basis, plan.rate_ids, card.catalogue, plan.notes)
    lines = [_line(kind, quantity, plan.kinds.get(kind), card.plan, volume) for kind, quantity in counts]
    picos = [line.pico for line in lines]
    total = None if None in picos else sum(picos)  # type: ignore[arg-type]
    return Cost(tuple(lines), total, plan.basis, plan.rate_ids, card.catalogue, plan.notes)


def _form(plan: Plan, shape: tuple[str, ...]) -> tuple[Form, tuple[int, ...]] | None:
    """The form of the costs of a usage with these kinds, and the rates; None where a kind has no rate."""
    priced = [plan.kinds[kind] for kind in shape if kind in plan.kinds]
    if len(priced) < len(shape):
        return None
    if len(plan.forms) >= MAX_PLANS:
        plan.forms.clear()
    form = Form(shape, tuple(priced), tuple([one.note for one in priced]), shared=True)
    found = plan.forms[shape] = form, tuple([one.numerator for one in priced])
    return found


def reported(cost: Cost | None, amount: Money) -> Cost:
    """The cost of a call whose response states it: the stated amount is the bill, ours stands beside it as `listed`,
    and a difference is noted. `cost` is None where no rate of ours applies."""
    if cost is None:
        return Cost((), amount.pico, "reported", notes=("stated by the provider; no rate of ours to check it",))
    notes = cost.notes
    if cost.pico is not None and cost.pico != amount.pico:
        notes = (*notes, f"the provider states {amount}, our rates give {Money(cost.pico)}")
    return msgspec.structs.replace(cost, pico=amount.pico, basis="reported", notes=notes, listed_pico=cost.pico)


def plan_for(card: RateCard, prompt_tokens: int, at: datetime, context: Context | None) -> Plan:
    """The compiled plan of a card for a prompt size, an instant and a context. Raises InputError for an instant without
    a time zone."""
    if at.tzinfo is None:
        raise InputError(
            f"The instant {at.isoformat()} has no time zone.",
            money="Rates change with the hour, so nothing was priced.",
            todo="Give an instant with a time zone: datetime(..., tzinfo=UTC).",
        )
    key: object = tuple(map(context.get, card.dimensions)) if context else None
    if card.stepped:
        size = sum([prompt_tokens >= first for first in card.thresholds])
        windows = tuple([_open(variant, at) for variant in card.windowed]) if card.windowed else ()
        key = key, size, windows
    plan: Plan | None = card.compiled.get(key)
    if plan is None:
        if len(card.compiled) >= MAX_PLANS:
            card.compiled.clear()
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
        found = _fallback(kind, card.fallbacks, chosen)
        if kind not in chosen and found is not None:
            notes = (kinds[found].note, f"at the rate of {found}")
            kinds[kind] = msgspec.structs.replace(kinds[found], note="; ".join(note for note in notes if note))
    whole = card.plan is None and all(priced.denominator == 1 and _plain(priced.rate) for priced in kinds.values())
    return Plan(kinds, tuple(_remarks(card, context)), (card.id,), card.basis, whole, {})


def _plain(rate: Rate) -> bool:
    return not rate.minimum and rate.step == 1 and rate.brackets is None


def _applies(factor: Multiplier, kind: str) -> bool:
    return kind in factor.kinds if factor.kinds else kind in TOKEN_KINDS


def _fallback(kind: str, fallbacks: Mapping[str, str], rated: Container[str]) -> str | None:
    seen = {kind}
    following = fallbacks.get(kind)
    while following is not None and following not in seen:
        if following in rated:
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
    shown = rate if usd == rate.usd else msgspec.structs.replace(rate, usd=usd)
    return PricedKind(shown, exact.numerator, exact.denominator, multipliers, source, note)


def _remarks(card: RateCard, context: Context) -> Iterator[str]:
    if card.status == "conflict":
        yield f"sources disagree on {card.id}" + (f": {card.note}" if card.note else "")
    conditions = (*(variant.when for variant in card.variants), *(factor.when for factor in card.multipliers))
    for key in sorted(TIER_KEYS):
        value = context.get(key) or ""
        if value not in STANDARD_TIERS and not any(
            key in dict(when) and _matches(when, context) for when in conditions
        ):
            yield f"no rate of its own for {key} {value}: standard rates used"


def _line(
    kind: str, quantity: int, priced: PricedKind | None, plan: FlatPlan | None, volume: Mapping[str, int] | None
) -> Line:
    """One line, with a minimum, a rounding step, brackets or a plan's allowance where there is one."""
    if priced is None:
        return Line(kind, quantity, None, None, "no rate for this kind")
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
        notes.append(f"{rate.brackets.mode} over the {rate.brackets.period}: {used:,} {units_of(kind)} used before")
    return Line(kind, billed, pico, priced, "; ".join(notes))


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
