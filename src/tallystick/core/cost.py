"""Cost: what a usage costs, with lines that explain themselves."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import msgspec

from tallystick.core.money import Money
from tallystick.core.rates import Rate
from tallystick.core.usage import unit_of, units_of


class PricedKind(msgspec.Struct, frozen=True, gc=False):
    """How one kind is priced under one card, context and instant: the rate, what multiplies it, and where it is from.

    `numerator / denominator` is the exact price of one unit in picodollars, multipliers included.
    """

    rate: Rate
    numerator: int
    denominator: int
    multipliers: tuple[tuple[str, Decimal], ...]
    source: str
    note: str


class Line(msgspec.Struct, frozen=True, gc=False):
    """One line of a cost: `quantity` units of `kind`, and what they come to.

    `pico` is the amount in picodollars, rounded once, half-even; None where no rate applies (the line is unpriced).
    `note` says what is not obvious: a fallback, a minimum, a bracket.
    """

    kind: str
    quantity: int
    pico: int | None
    priced: PricedKind | None
    note: str

    @property
    def amount(self) -> Money | None:
        """What the line comes to; None when it is unpriced."""
        return None if self.pico is None else Money(self.pico)

    @property
    def unit(self) -> str:
        """The unit of `quantity`: token, millisecond, request, call, ..."""
        return unit_of(self.kind)

    @property
    def rate(self) -> Decimal | None:
        """US dollars for `per` units, before multipliers; None when unpriced."""
        return None if self.priced is None else self.priced.rate.usd

    @property
    def per(self) -> int | None:
        """The number of units that `rate` buys; None when unpriced."""
        return None if self.priced is None else self.priced.rate.per

    @property
    def multipliers(self) -> tuple[tuple[str, Decimal], ...]:
        """What the rate is multiplied by, with names: `(("batch", Decimal("0.5")),)`."""
        return () if self.priced is None else self.priced.multipliers

    @property
    def source(self) -> str | None:
        """Where the rate comes from; None when unpriced."""
        return None if self.priced is None else self.priced.source

    def to_json(self) -> dict[str, Any]:
        """The line as plain JSON values; rates are decimal text."""
        amount = self.amount
        return {
            "kind": self.kind,
            "quantity": self.quantity,
            "unit": self.unit,
            "rate": None if self.rate is None else format(self.rate, "f"),
            "per": self.per,
            "multipliers": [[name, format(factor, "f")] for name, factor in self.multipliers],
            "amount": None if amount is None else amount.to_json(),
            "source": self.source,
            "note": self.note or None,
        }


class Form(msgspec.Struct, frozen=True, gc=False):
    """What the lines of many costs have in common: their kinds, how each is priced, and their notes. `shared` says that
    many costs do hold this very object, so that it is worth to know it again."""

    kinds: tuple[str, ...]
    priced: tuple[PricedKind | None, ...]
    notes: tuple[str, ...]
    shared: bool = False


class Columns(msgspec.Struct, frozen=True, gc=False, eq=False):
    """The lines of a cost side by side: their form, quantities, and amounts in picodollars. Most calls are priced and
    written without anybody looking at a line, so lines are made when they are asked for."""

    form: Form
    quantities: tuple[int, ...]
    amounts: tuple[int | None, ...]

    @property
    def lines(self) -> tuple[Line, ...]:
        """The lines themselves."""
        form = self.form
        return tuple(map(Line, form.kinds, self.quantities, self.amounts, form.priced, form.notes))

    def __eq__(self, other: object) -> bool:
        """Whether the lines are the same, however each side holds them."""
        return self.lines == (other.lines if isinstance(other, Columns) else other)

    def __hash__(self) -> int:
        return hash(self.lines)

    def __repr__(self) -> str:
        return repr(self.lines)


class _Held(msgspec.Struct, frozen=True, gc=False):
    """The fields of a cost, with its lines as they were given."""

    lines: tuple[Line, ...] | Columns
    pico: int | None
    basis: str = "list"
    rate_ids: tuple[str, ...] = ()
    catalogue: str | None = None
    notes: tuple[str, ...] = ()
    listed_pico: int | None = None


_held: Final = _Held.lines.__get__  # type: ignore[union-attr]


class Cost(_Held, frozen=True, gc=False):
    """What one usage costs.

    `basis` is `list` (catalogue), `user` (the user's own rates) or `reported` (the provider stated it). `amount` is
    None as soon as one line is unpriced: a cost that leaves something out is not a number. `known` is the sum of the
    priced lines. `rate_ids` name the rate cards used, `catalogue` is the sha256 of the catalogue they came from.
    Under the basis `reported` the lines are still ours, and `listed` is what they come to.
    """

    @property  # type: ignore[misc]  # what is given as lines is kept beneath
    def lines(self) -> tuple[Line, ...]:
        """A line for each kind."""
        held: tuple[Line, ...] | Columns = _held(self)
        return held.lines if isinstance(held, Columns) else held

    @property
    def columns(self) -> Columns:
        """The lines side by side."""
        held: tuple[Line, ...] | Columns = _held(self)
        if isinstance(held, Columns):
            return held
        if not held:
            return _NO_COLUMNS
        kinds, quantities, amounts, priced, notes = zip(*map(msgspec.structs.astuple, held), strict=True)
        return Columns(Form(kinds, priced, notes), quantities, amounts)

    @property
    def listed(self) -> Money | None:
        """What our rates give, beside a reported cost; None where nothing was reported or our lines are incomplete."""
        return None if self.listed_pico is None else Money(self.listed_pico)

    @property
    def amount(self) -> Money | None:
        """The whole cost, or None where any line is unpriced."""
        return None if self.pico is None else Money(self.pico)

    @property
    def known(self) -> Money:
        """The sum of the lines that have a price; the cost is at least this."""
        return Money(sum([pico for pico in self.columns.amounts if pico is not None]))

    @property
    def unpriced(self) -> tuple[str, ...]:
        """The kinds without a price."""
        return tuple(line.kind for line in self.lines if line.pico is None)

    def to_json(self) -> dict[str, Any]:
        """The cost as plain JSON values."""
        amount, listed = self.amount, self.listed
        return {
            "amount": None if amount is None else amount.to_json(),
            "listed": None if listed is None else listed.to_json(),
            "basis": self.basis,
            "lines": [line.to_json() for line in self.lines],
            "rate_ids": list(self.rate_ids),
            "catalogue": self.catalogue,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        """Line by line, then the total."""
        rows = [_row(line) for line in self.lines]
        total = str(self.amount) if self.pico is not None else f"unknown (at least {self.known})"
        rows.append(("total", "", total, "; ".join(self.notes)))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return "\n".join(
            f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip() for row in rows
        )


_NO_COLUMNS: Final = Columns(Form((), (), (), shared=True), (), ())


def describe_rate(line: Line) -> str:
    """The rate of a line in words: `$2.50 per 1M tokens x 0.5 batch`; `no rate` when unpriced."""
    if line.rate is None or line.per is None:
        return "no rate"
    factors = "".join(f" x {format(factor, 'f')} {name}" for name, factor in line.multipliers)
    return f"{Money.usd(line.rate)} {per_words(line.kind, line.per)}{factors}"


def per_words(kind: str, per: int) -> str:
    """What a rate's `per` means for a kind: `per 1M tokens`, `per hour`, `per call`."""
    unit, many = unit_of(kind), units_of(kind)
    if unit == "millisecond":
        return {3_600_000: "per hour", 60_000: "per minute", 1000: "per second"}.get(per, f"per {per:,} ms")
    return {1: f"per {unit}", 1000: f"per 1k {many}", 1_000_000: f"per 1M {many}"}.get(per, f"per {per:,} {many}")


def _row(line: Line) -> tuple[str, str, str, str]:
    amount = line.amount
    details = f"{line.quantity:,} x {describe_rate(line)}"
    return line.kind, details, "unpriced" if amount is None else str(amount), line.note
