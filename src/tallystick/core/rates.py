"""Rates: what one unit of each kind costs, when, under which conditions, and from which source.

A card holds the rates of one model at one provider from one instant to another; `pricing` applies it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, time
from decimal import Decimal
from functools import cached_property
from typing import Any, Final

import msgspec

from tallystick.core.periods import zone
from tallystick.core.usage import is_kind
from tallystick.errors import CatalogError, InputError

Context = Mapping[str, str]
"""What the reader found in the payload, overlaid by the caller: service_tier, processing, speed, inference_geo, ..."""

TIER_KEYS: Final = frozenset({"service_tier", "processing", "speed"})
STANDARD_TIERS: Final = frozenset({"", "default", "standard", "auto", "on_demand"})
"""Values of the tier keys that mean list price."""

DAY: Final = 24 * 60
"""Minutes of a day."""

ANY: Final = "*"
"""In a condition: the key is present, whatever its value."""


MAX_PRICE: Final = 1_000_000_000
"""No price of anything is above this many dollars; more is a slip of the decimal point."""


def _check_prices(owner: object, prices: list[Decimal]) -> None:
    if not all(price.is_finite() and 0 <= price <= MAX_PRICE and price.adjusted() > -60 for price in prices):
        raise CatalogError(f"Prices must be finite, from zero to {MAX_PRICE:,} dollars: {owner}.")


def _check_kinds(owner: str, kinds: Iterable[str]) -> None:
    unknown = [kind for kind in kinds if not is_kind(kind)]
    if unknown:
        raise CatalogError(f"{owner} names kinds of usage that do not exist: {', '.join(unknown)}.")


class Cliff(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A whole-request step: when the prompt holds more than `above` tokens (or exactly, if `inclusive`), every token
    of the request takes `usd` instead of the base rate."""

    above: int
    usd: Decimal
    inclusive: bool = False

    @property
    def first(self) -> int:
        """The smallest prompt, in tokens, that takes this rate."""
        return self.above if self.inclusive else self.above + 1


class Brackets(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Rates that depend on how much was used earlier in a period.

    `mode` is `graduated` (each unit takes the rate of the bracket it falls into) or `volume` (all units of the call
    take the rate of the bracket that its last unit falls into). `steps` are
    `(units already used, usd)`, ascending, the first at 0.
    """

    mode: str
    period: str
    steps: tuple[tuple[int, Decimal], ...]

    def __post_init__(self) -> None:
        starts = [start for start, _ in self.steps]
        if self.mode not in ("graduated", "volume") or not starts or starts[0] != 0 or starts != sorted(set(starts)):
            raise CatalogError(f"Brackets must be graduated or volume, with ascending steps from 0: {self}.")
        _check_prices(self, [usd for _, usd in self.steps])


class Rate(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The price of one kind: `usd` for `per` units, both exact.

    `cliffs` replace `usd` for large prompts; `brackets` replace it by the period's volume; `minimum` is the least
    number of units a call is billed for (when it used any); `step` rounds the quantity up to a multiple.
    """

    usd: Decimal
    per: int = 1_000_000
    cliffs: tuple[Cliff, ...] = ()
    brackets: Brackets | None = None
    minimum: int = 0
    step: int = 1

    def __post_init__(self) -> None:
        _check_prices(self, [self.usd, *(cliff.usd for cliff in self.cliffs)])
        if len({cliff.first for cliff in self.cliffs}) != len(self.cliffs) or any(c.first < 1 for c in self.cliffs):
            raise CatalogError(f"Cliffs must begin at different prompt sizes of one token or more: {self}.")
        if self.cliffs and self.brackets:
            raise CatalogError(f"A rate depends on the prompt's size or on the period's volume, not on both: {self}.")
        if self.per < 1 or self.step < 1 or self.minimum < 0:
            raise CatalogError(f"A rate's per and step are at least 1 and its minimum at least 0: {self}.")

    def at_size(self, prompt_tokens: int) -> Decimal:
        """US dollars for `per` units when the prompt holds `prompt_tokens`."""
        reached = [cliff for cliff in self.cliffs if prompt_tokens >= cliff.first]
        return max(reached, key=lambda cliff: cliff.first).usd if reached else self.usd


class Window(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Hours in which other rates apply: minutes of the day `[start, end)` in time zone `tz`, on `weekdays`
    (1 = Monday .. 7 = Sunday). A window whose end is not after its start runs past midnight and belongs to the
    weekday on which it began."""

    start: int
    end: int
    weekdays: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7)
    tz: str = "UTC"

    def __post_init__(self) -> None:
        if not (0 <= self.start < DAY and 0 <= self.end <= DAY):
            raise CatalogError(f"A window runs between minutes 0 and {DAY} of the day: {self}.")
        if not self.weekdays or not {1, 2, 3, 4, 5, 6, 7}.issuperset(self.weekdays):
            raise CatalogError(f"A window's weekdays are 1 (Monday) to 7: {self}.")

    def active(self, at: datetime) -> bool:
        """Whether the instant lies in the window."""
        local = at.astimezone(UTC if self.tz == "UTC" else zone(self.tz))
        minute, today = local.hour * 60 + local.minute, local.isoweekday()
        if self.start < self.end:
            return today in self.weekdays and self.start <= minute < self.end
        yesterday = (today - 2) % 7 + 1
        return (today in self.weekdays and minute >= self.start) or (yesterday in self.weekdays and minute < self.end)


class Variant(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Rates that replace the card's own, kind by kind, when every pair of `when` is in the context and, if there are
    `windows`, the instant lies in one of them. The first variant that has a kind decides it."""

    name: str
    rates: Mapping[str, Rate]
    when: tuple[tuple[str, str], ...] = ()
    windows: tuple[Window, ...] = ()
    source: str = ""


class Multiplier(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A factor on rates when every pair of `when` is in the context: `regional` 1.1, `batch` 0.5. It applies to
    `kinds`, or to all token kinds when `kinds` is empty; `unless` names variants that already include it."""

    name: str
    factor: Decimal
    when: tuple[tuple[str, str], ...]
    kinds: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_prices(self, [self.factor])


class FlatPlan(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A flat fee for a period that includes an allowance per kind; use beyond it is charged at the card's rates.

    `fee` is owed once a period whatever is used, so it is no line of any call.
    """

    name: str
    fee: Decimal
    period: str
    allowance: Mapping[str, int]

    def __post_init__(self) -> None:
        _check_prices(self, [self.fee])
        if any(units < 0 for units in self.allowance.values()):
            raise CatalogError(f"An allowance is zero or more: {self}.")


class RateCard(msgspec.Struct, frozen=True, dict=True, omit_defaults=True):
    """The rates of one model at one provider from `valid_from` (None: always) to `valid_to` (exclusive; None: still).

    `status` says how well the card is supported: `agreed` (two sources say the same), `single` (one source),
    `conflict` (sources differ; a reviewed choice), `reviewed` (an override of ours) or `user`. `fallbacks` list, kind
    by kind, which other rate applies when there is none of its own; there is no other fallback.
    """

    provider: str
    model: str
    rates: Mapping[str, Rate]
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    source: str = ""
    retrieved_at: str = ""
    status: str = "single"
    variants: tuple[Variant, ...] = ()
    multipliers: tuple[Multiplier, ...] = ()
    fallbacks: Mapping[str, str] = {}
    plan: FlatPlan | None = None
    note: str = ""
    catalogue: str | None = None

    def __post_init__(self) -> None:
        name = f"The card of {self.model} at {self.provider}"
        for rates in (self.rates, *(variant.rates for variant in self.variants)):
            _check_kinds(name, rates)
        _check_kinds(name, (*self.fallbacks, *self.fallbacks.values()))
        _check_kinds(name, (kind for factor in self.multipliers for kind in factor.kinds))
        _check_kinds(name, self.plan.allowance if self.plan else ())
        if any(instant is not None and instant.tzinfo is None for instant in (self.valid_from, self.valid_to)):
            raise CatalogError(f"{name} holds from or to an instant without a time zone.")
        if self.valid_from is not None and self.valid_to is not None and self.valid_from >= self.valid_to:
            raise CatalogError(f"{name} ends before it begins: {self.valid_from} to {self.valid_to}.")

    @property
    def id(self) -> str:
        """The card's name in costs and entries: `openai/gpt-4o@2024-10-01`, with the hour where it begins within a day
        (`@2024-10-01T16:15`), without a date when it holds always."""
        if self.valid_from is None:
            return f"{self.provider}/{self.model}"
        begin = self.valid_from.astimezone(UTC)
        since = f"@{begin:%Y-%m-%d}" if begin.time() == time() else f"@{begin:%Y-%m-%dT%H:%M}"
        return f"{self.provider}/{self.model}{since}"

    @property
    def basis(self) -> str:
        """`user` for the user's own card, otherwise `list`."""
        return "user" if self.status == "user" else "list"

    def covers(self, at: datetime) -> bool:
        """Whether the card holds at the instant. Raises InputError for an instant without a time zone."""
        if at.tzinfo is None:
            raise InputError(f"The instant {at.isoformat()} has no time zone.")
        return (self.valid_from is None or self.valid_from <= at) and (self.valid_to is None or at < self.valid_to)

    @cached_property
    def thresholds(self) -> tuple[int, ...]:
        """The prompt sizes from which any rate of the card changes, ascending."""
        groups = (self.rates, *(variant.rates for variant in self.variants))
        return tuple(sorted({cliff.first for rates in groups for rate in rates.values() for cliff in rate.cliffs}))

    @cached_property
    def dimensions(self) -> tuple[str, ...]:
        """The context keys that decide a price here: those of any condition, and those that name a tier."""
        conditions = (*(variant.when for variant in self.variants), *(factor.when for factor in self.multipliers))
        return tuple(sorted({key for when in conditions for key, _ in when} | TIER_KEYS))

    @cached_property
    def windowed(self) -> tuple[Variant, ...]:
        """The variants that depend on the clock."""
        return tuple(variant for variant in self.variants if variant.windows)

    @cached_property
    def stepped(self) -> bool:
        """Whether a price depends on the prompt's size or on the clock."""
        return bool(self.thresholds or self.windowed)

    @cached_property
    def compiled(self) -> dict[Any, Any]:
        """Plans made so far, by prompt size, context and open windows."""
        return {}
