"""Money: an exact amount of US dollars, held as a whole number of picodollars (1e-12 USD)."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from functools import total_ordering

from tallystick.errors import InputError

PICO_PER_USD = 1_000_000_000_000
_TEXT = re.compile(
    r"(?P<sign>[-+]?)\$?(?P<number>(\d{1,30}|\d{1,3}(,\d{3}){1,9})(\.\d{1,40})?|\.\d{1,40})( ?USD)?", re.ASCII
)
_PLAIN = re.compile(r"-?\d{1,60}(\.\d{1,40})?", re.ASCII)


def divide_half_even(numerator: int, denominator: int) -> int:
    """`numerator / denominator` as a whole number, ties to the even neighbour. `denominator` is positive."""
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient & 1):
        return quotient + 1
    return quotient


@total_ordering
class Money:
    """An exact, immutable amount of US dollars.

    `Money(pico)` takes whole picodollars; people use `Money.usd("0.0035")` or `Money.parse("$0.50")`. Adding,
    subtracting and multiplying by whole numbers are exact; there is no division and no float.
    """

    __slots__ = ("_pico",)
    _pico: int

    def __init__(self, pico: int = 0) -> None:
        if type(pico) is not int:
            raise InputError(
                f"Money takes a whole number of picodollars, not {pico!r}.", todo='Use Money.usd("0.0035") for dollars.'
            )
        object.__setattr__(self, "_pico", pico)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Money is immutable; {name} cannot be set")

    @classmethod
    def usd(cls, amount: str | int | Decimal | Fraction) -> Money:
        """Dollars as decimal text, int, Decimal or Fraction, rounded half-even to 1e-12. Floats are refused: they
        have already lost the exact amount. Raises InputError."""
        if isinstance(amount, str):
            return cls.parse(amount)
        if isinstance(amount, bool) or not isinstance(amount, int | Decimal | Fraction):
            raise InputError(f"Money cannot be made of {amount!r}.", todo='Write the amount as text, such as "0.0035".')
        if isinstance(amount, Decimal) and not (amount.is_finite() and amount.adjusted() < 60):
            raise InputError(f"Money must be finite and less than 1e60 dollars, not {amount}.")
        if isinstance(amount, Decimal) and amount.adjusted() < -60:
            return cls(0)
        exact = Fraction(amount)
        return cls(divide_half_even(exact.numerator * PICO_PER_USD, exact.denominator))

    @classmethod
    def parse(cls, text: str) -> Money:
        """Reads "$0.50", "0.50", "-1.25", "1,000" or "3 USD"; digits beyond 1e-12 are rounded half-even. A comma only
        parts thousands: "0,50" is refused. Raises InputError."""
        match = _TEXT.fullmatch(text.strip())
        if match is None:
            raise InputError(
                f"{text!r} is not an amount of money.", todo='Write dollars and cents, such as "$0.50" or "12".'
            )
        amount = cls.usd(Fraction(match["number"].replace(",", "")))
        return -amount if match["sign"] == "-" else amount

    @property
    def pico(self) -> int:
        """Whole picodollars (1e-12 USD)."""
        return self._pico

    def to_decimal(self) -> Decimal:
        """Dollars, exactly."""
        return Decimal(self._pico).scaleb(-12)

    def to_json(self) -> dict[str, str]:
        """`{"usd": "0.0035"}`: dollars as decimal text, never a float."""
        return {"usd": self.plain()}

    @classmethod
    def from_json(cls, value: object) -> Money:
        """The inverse of `to_json`. Raises InputError."""
        if not isinstance(value, dict) or set(value) != {"usd"} or not isinstance(value["usd"], str):
            raise InputError(f'{value!r} is not an amount of money; expected {{"usd": "0.0035"}}.')
        if _PLAIN.fullmatch(value["usd"]) is None:
            raise InputError(f"{value['usd']!r} is not a decimal number of dollars.")
        return cls.usd(Fraction(value["usd"]))

    def plain(self) -> str:
        """Dollars as the shortest exact decimal text, without a sign for dollars: `0.0035`."""
        whole, rest = divmod(abs(self._pico), PICO_PER_USD)
        digits = f"{rest:012d}".rstrip("0")
        sign = "-" if self._pico < 0 else ""
        return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"

    def __str__(self) -> str:
        """Exact dollars with at least two decimals where there are any: `$0.0035`, `$0.50`, `$12.00`."""
        whole, _, digits = self.plain().lstrip("-").partition(".")
        sign = "-" if self._pico < 0 else ""
        return f"{sign}${int(whole):,}.{digits:0<2}"

    def __repr__(self) -> str:
        return f"Money.usd({self.plain()!r})"

    def __eq__(self, other: object) -> bool:
        return self._pico == other._pico if isinstance(other, Money) else NotImplemented

    def __lt__(self, other: Money) -> bool:
        return self._pico < other._pico if isinstance(other, Money) else NotImplemented

    def __hash__(self) -> int:
        return hash((Money, self._pico))

    def __bool__(self) -> bool:
        return self._pico != 0

    def __add__(self, other: Money | int) -> Money:
        if isinstance(other, Money):
            return Money(self._pico + other._pico)
        # sum() starts from the integer 0, which is the only number money adds to.
        return self if type(other) is int and other == 0 else NotImplemented

    __radd__ = __add__

    def __sub__(self, other: Money) -> Money:
        return Money(self._pico - other._pico) if isinstance(other, Money) else NotImplemented

    def __mul__(self, count: int) -> Money:
        return Money(self._pico * count) if type(count) is int else NotImplemented

    __rmul__ = __mul__

    def __neg__(self) -> Money:
        return Money(-self._pico)

    def __abs__(self) -> Money:
        return Money(abs(self._pico))

    def __reduce__(self) -> tuple[type[Money], tuple[int]]:
        return Money, (self._pico,)
