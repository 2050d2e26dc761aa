"""Row: one model at one provider while the catalogue is being built."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Final

from tallystick.core.rates import Cliff, Rate, RateCard


@dataclass
class Row:
    """A model at a provider: its names and its rate cards in order of time, not yet merged with other sources.

    `uplifts` are the factors for regional processing that the source states, by the rule they belong to (`eu`, `us`,
    `endpoint`). `dated` allows the lookup to drop a release date or a version from a name to reach this row.
    """

    provider: str
    id: str
    cards: list[RateCard] = field(default_factory=list)
    aliases: set[str] = field(default_factory=set)
    maker: str | None = None
    context_window: int | None = None
    max_output: int | None = None
    mode: str | None = None
    retires: str | None = None
    dated: bool = False
    uplifts: dict[str, Decimal] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """Provider and id."""
        return self.provider, self.id

    def current(self, at: datetime) -> RateCard | None:
        """The card in force at the instant."""
        return next((card for card in self.cards if card.covers(at)), None)


@dataclass
class Log:
    """What a build left out or had to choose, by reason, for the maintainers to read."""

    entries: dict[str, list[str]] = field(default_factory=dict)

    def note(self, reason: str, what: str) -> None:
        """Records one case under its reason."""
        self.entries.setdefault(reason, []).append(what)

    def count(self, reason: str) -> int:
        """How many cases a reason has."""
        return len(self.entries.get(reason, []))

    def lines(self, show: int = 5) -> Iterable[str]:
        """One line per reason: how often, and the first few cases."""
        for reason, cases in sorted(self.entries.items()):
            more = ", ..." if len(cases) > show else ""
            yield f"{len(cases):5}  {reason}: {', '.join(cases[:show])}{more}"


def midnight(day: date) -> datetime:
    """The UTC midnight on which a day begins."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def plain(value: Decimal) -> Decimal:
    """The same number without an exponent or trailing zeros."""
    whole = value.normalize()
    exponent = whole.as_tuple().exponent
    return whole.quantize(Decimal(1)) if isinstance(exponent, int) and exponent > 0 else whole


MILLION: Final = 1_000_000


def make_rate(usd: Decimal, per: int = MILLION, cliffs: Iterable[Cliff] = ()) -> Rate:
    """A rate whose defaults are left unsaid, so that they stay out of the snapshot."""
    steps = tuple(cliffs)
    if per == MILLION:
        return Rate(usd, cliffs=steps) if steps else Rate(usd)
    return Rate(usd, per, steps) if steps else Rate(usd, per)


def unit_price(rate: Rate) -> Fraction:
    """US dollars for one unit, exactly."""
    return Fraction(rate.usd) / rate.per
