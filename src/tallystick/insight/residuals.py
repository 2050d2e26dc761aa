"""Residuals: why a provider's amount differs from ours, found by pricing the same calls another way.

Other tiers, other sides of a context threshold and other dated rates of the model are tried on the calls themselves; if
one gives the provider's amounts in every token class, it is the cause. Otherwise a round price per unit that gives the
amount is the cause. What neither explains is not explained.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Final

import msgspec

from tallystick.core.cost import Cost, Line, PricedKind, per_words
from tallystick.core.money import PICO_PER_USD, Money, divide_half_even
from tallystick.core.pricing import plan_for, price
from tallystick.core.rates import TIER_KEYS, Rate, RateCard
from tallystick.core.usage import TOKEN_KINDS
from tallystick.errors import TallyError

if TYPE_CHECKING:
    from tallystick.catalog.catalog import Catalog, Found
    from tallystick.ledger.entry import Entry

MAX_CANDIDATES: Final = 32
_DIGITS: Final = 4
_ROUND: Final = Context(prec=_DIGITS, rounding=ROUND_HALF_EVEN)
"""A price per unit that somebody set has few digits; one that needs more is an average of several."""


class Candidate(msgspec.Struct, frozen=True):
    """Another way to price the same calls: in a `context`, as if the prompt had `size` tokens, or with another `card`.
    `tier` is what the calls' tier would be; None where this says nothing of it."""

    cause: str
    words: str
    context: Mapping[str, str] = {}
    size: int | None = None
    card: RateCard | None = None
    tier: str | None = None

    def cost(self, entry: Entry, found: Found) -> Cost | None:
        """What the call would cost, `found` being its card as things stand; None where a kind has no rate."""
        usage, used = entry.usage, self.card or found.card
        if usage is None:
            return None
        context = {**found.context, **{key: value for key, value in entry.context.items() if key not in TIER_KEYS}}
        context |= {"region": entry.region} if entry.region else {}
        context |= self.context
        if self.cause != "tier" and entry.tier:
            context["service_tier"] = entry.tier
        try:
            if self.size is None:
                made = price(usage, used, at=entry.started_at, context=context)
            else:
                plan = plan_for(used, self.size, entry.started_at, context)
                lines = [_line(kind, quantity, plan.kinds[kind]) for kind, quantity in usage.items()]
                made = summed(lines, plan.basis, plan.rate_ids, used.catalogue)
        except (TallyError, KeyError):
            return None
        return None if made.pico is None else made


def candidates(of: Found, catalog: Catalog) -> list[Candidate]:
    """The ways in which a model's calls could have been priced, the standard one first."""
    card = of.card
    found = [Candidate("tier", "billed at the standard tier", tier="")]
    conditions = (*(variant.when for variant in card.variants), *(factor.when for factor in card.multipliers))
    for when in dict.fromkeys(when for when in conditions if when):
        context = dict(when)
        tiers = [context[key] for key in sorted(TIER_KEYS) if context.get(key, "*") != "*"]
        if tiers:
            found.append(Candidate("tier", f"billed at the {tiers[0]} tier", context, tier=tiers[0]))
        else:
            words = ", ".join(f"{key} {value}" for key, value in when)
            found.append(Candidate("region", f"billed with {words}", context))
    if card.thresholds:
        found.append(Candidate("context window", "billed as long prompts", size=card.thresholds[-1]))
        found.append(Candidate("context window", "billed as short prompts", size=0))
    for other in catalog.history(of.model, of.provider):
        if other is not card and other.id != card.id:
            since = "always" if other.valid_from is None else f"{other.valid_from:%Y-%m-%d}"
            found.append(Candidate("price", f"billed at the rate of {since}", card=other))
    return found[:MAX_CANDIDATES]


class Trial:
    """One group of calls, priced in every way that is known; `sums` are picodollars by candidate and token class, None
    as soon as one call cannot be priced that way."""

    def __init__(self, ways: list[Candidate]) -> None:
        self.ways = ways
        self.sums: list[dict[str, int] | None] = [{} for _ in ways]

    def add(self, entry: Entry, found: Found, classes: Mapping[str, str]) -> None:
        """Prices one more call in every way."""
        for number, way in enumerate(self.ways):
            sums = self.sums[number]
            cost = None if sums is None else way.cost(entry, found)
            if sums is None or cost is None:
                self.sums[number] = None
                continue
            for line in cost.lines:
                kind = classes.get(line.kind, line.kind)
                sums[kind] = sums.get(kind, 0) + (line.pico or 0)

    def matching(self, wanted: Mapping[str, int], tolerance: int) -> list[Candidate]:
        """The ways that give the wanted amounts in every class."""
        fitting = []
        for way, sums in zip(self.ways, self.sums, strict=True):
            if sums is None:
                continue
            # An only class of "total" stands for all of them.
            given = {"total": sum(sums.values())} if set(wanted) == {"total"} else sums
            if all(abs(given.get(kind, 0) - pico) <= tolerance for kind, pico in wanted.items()):
                fitting.append(way)
        return fitting


def round_price(pico: int, quantity: int, kind: str, tolerance: int) -> Rate | None:
    """The price per unit that makes `quantity` cost `pico` (within `tolerance`, both in picodollars), if it is one that
    somebody could have set: four significant digits. Nothing billed is no price of zero."""
    if quantity <= 0 or pico <= 0:
        return None
    per = 1_000_000 if kind in TOKEN_KINDS or not kind.startswith("fee:") else 1
    exact = Fraction(pico * per, quantity * PICO_PER_USD)
    usd = _ROUND.divide(Decimal(exact.numerator), Decimal(exact.denominator))
    # An amount so small that the tolerance hides the digits of its price says nothing of it.
    if abs(Fraction(usd) * PICO_PER_USD * quantity / per - pico) > min(tolerance, pico // 10**_DIGITS):
        return None
    return Rate(usd, per)


def rate_words(rate: Rate, kind: str) -> str:
    """`$1.25 per 1M tokens`."""
    return f"{Money.usd(rate.usd)} {per_words(kind if kind.startswith('fee:') else 'input', rate.per)}"


def billed_lines(
    lines: Iterable[Line], prices: Mapping[str, Rate], classes: Mapping[str, str], source: str
) -> list[Line]:
    """The lines of a cost, those of the given classes priced anew."""
    found = []
    for line in lines:
        rate = prices.get(classes.get(line.kind, line.kind))
        if rate is None:
            found.append(line)
            continue
        exact = Fraction(rate.usd) * PICO_PER_USD / rate.per
        found.append(
            _line(
                line.kind, line.quantity, PricedKind(rate, exact.numerator, exact.denominator, (), source, "as billed")
            )
        )
    return found


def summed(lines: list[Line], basis: str, rate_ids: tuple[str, ...] = (), catalogue: str | None = None) -> Cost:
    """A cost of its lines; its amount is unknown as soon as one of them has none."""
    amounts = [line.pico for line in lines]
    whole = None if None in amounts else sum(amount for amount in amounts if amount is not None)
    return Cost(tuple(lines), whole, basis, rate_ids, catalogue)


def _line(kind: str, quantity: int, priced: PricedKind) -> Line:
    return Line(kind, quantity, divide_half_even(quantity * priced.numerator, priced.denominator), priced, priced.note)
