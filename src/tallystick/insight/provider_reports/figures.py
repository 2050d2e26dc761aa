"""Figure: one number of a provider's report. Statement: a whole report, its pages put together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from tallystick.core.money import Money
from tallystick.core.rates import STANDARD_TIERS
from tallystick.core.usage import INPUT_KINDS, KINDS, MAX_COUNT, OUTPUT_KINDS, Usage
from tallystick.errors import InputError

MAX_USD: Final = Decimal(1_000_000_000_000)
"""No bill is above this many dollars; more is a damaged report."""

MAX_TEXT: Final = 256
"""The longest name of a model, project or key that is believed."""

CALLS: Final = "calls"
"""The class that counts calls instead of tokens."""

TOTAL: Final = "total"
"""The class of money that is stated for everything together."""

_NUMBER: Final = re.compile(r"[-+]?(\d{1,40}(\.\d{0,60})?|\.\d{1,60})([eE][-+]?\d{1,3})?", re.ASCII)
_CACHE_READS: Final = tuple(kind for kind in INPUT_KINDS if kind.endswith("cache_read"))
_CACHE_WRITES: Final = tuple(kind for kind in INPUT_KINDS if kind.startswith("cache_write"))

BY_CACHE: Final[Mapping[str, str]] = {
    **{kind: kind for kind in KINDS},
    **dict.fromkeys(INPUT_KINDS, "input"),
    **dict.fromkeys(_CACHE_READS, "cache_read"),
    **dict.fromkeys(_CACHE_WRITES, "cache_write"),
    **dict.fromkeys(OUTPUT_KINDS, "output"),
}
"""Our kinds by the token classes of reports that part cached from uncached input, whatever the modality."""

BY_LIFETIME: Final[Mapping[str, str]] = {
    **BY_CACHE,
    "cache_write": "cache_write_5m",
    "cache_write_5m": "cache_write_5m",
    "cache_write_1h": "cache_write_1h",
}
"""The same, with cache writes by time to live; one that states none lives five minutes."""

BY_SIDE: Final[Mapping[str, str]] = {
    **BY_CACHE,
    **dict.fromkeys(INPUT_KINDS, "prompt"),
    **dict.fromkeys(OUTPUT_KINDS, "completion"),
}
"""Our kinds by the classes of reports that only know what went in and what came out."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """What a report says of one token class from `start` to before `end`.

    `kind` is the class in the report's own partition, `quantity` tokens or calls, `amount` US dollars; None where the
    report does not state it. `tier` is empty for the standard one. `call` is the provider's id where the figure is
    about a single call, and `usage` then is what it used, in our kinds.
    """

    start: datetime
    end: datetime
    kind: str
    model: str | None = None
    quantity: int | None = None
    amount: Money | None = None
    project: str | None = None
    key: str | None = None
    tier: str = ""
    call: str | None = None
    usage: Usage | None = None


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """One report, its pages put together.

    `classes` maps our kinds to the report's classes; `counted` are the classes whose quantities it states, and `money`
    says whether it states amounts. `tiered` says that its quantities are split by tier. `left_out` are tiers that it
    never contains, and `apis` endings of APIs that it does. `complete` is False when a page says that more follow.
    """

    provider: str
    title: str
    figures: tuple[Figure, ...]
    buckets: tuple[tuple[datetime, datetime], ...]
    classes: Mapping[str, str]
    counted: frozenset[str]
    money: bool
    tiered: bool = False
    complete: bool = True
    left_out: frozenset[str] = frozenset()
    other_apis: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def table(value: object, where: str) -> Mapping[str, Any]:
    """The value as an object. Raises InputError."""
    if not isinstance(value, Mapping):
        raise InputError(f"{where} must be an object, not {shown(value)}.")
    return value


def items(value: object, where: str) -> list[Any]:
    """The value as a list. Raises InputError."""
    if not isinstance(value, list):
        raise InputError(f"{where} must be a list, not {shown(value)}.")
    return value


def count(value: object, where: str) -> int:
    """A count of tokens or calls: whole, from 0 to 2**53 - 1; missing and null are 0. Raises InputError."""
    if value is None or value == "":
        return 0
    number = decimal(value, where)
    if number != number.to_integral_value() or not 0 <= number < MAX_COUNT:
        raise InputError(f"{where} is {shown(value)}; a count is whole, from 0 to 2**53 - 1.")
    return int(number)


def decimal(value: object, where: str) -> Decimal:
    """A number by its decimal text. Raises InputError for NaN, infinities and anything that is no number."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        raise InputError(f"{where} must be a number, not {shown(value)}.")
    text = value.strip() if isinstance(value, str) else str(value)
    if _NUMBER.fullmatch(text) is None:
        raise InputError(f"{where} must be a number, not {shown(value)}.")
    try:
        return Decimal(text)
    except InvalidOperation:
        raise InputError(f"{where} must be a number, not {shown(value)}.") from None


def dollars(value: object, where: str, *, cents: bool = False) -> Money:
    """An amount of US dollars (or of cents) by its decimal text; credits are negative. Missing and null are 0. Raises
    InputError."""
    if value is None or value == "":
        return Money()
    number = decimal(value, where)
    if abs(number) > MAX_USD * (100 if cents else 1):
        raise InputError(f"{where} is {shown(value)}, which is more than any bill.")
    return Money.usd(number.scaleb(-2) if cents else number)


def name(value: object, where: str) -> str | None:
    """A model, project or key: text without control characters, or None. Raises InputError."""
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
        raise InputError(f"{where} must be a short printable text, not {shown(value)}.")
    return value


def instant(value: object, where: str) -> datetime:
    """A point in time, as RFC 3339 text or whole seconds since 1970. Raises InputError."""
    try:
        if isinstance(value, str):
            found = datetime.fromisoformat(value.strip())
            return (found.replace(tzinfo=UTC) if found.tzinfo is None else found).astimezone(UTC)
        if type(value) is int:
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    raise InputError(f"{where} must be a time, not {shown(value)}.")


def span(start: object, end: object, where: str) -> tuple[datetime, datetime]:
    """A bucket's start and end. Raises InputError when it does not end after it begins."""
    first, last = instant(start, f"{where}: its start"), instant(end, f"{where}: its end")
    if first >= last:
        raise InputError(f"{where} ends before it begins.")
    return first, last


def tier_name(service_tier: object, *, batch: object = False) -> str:
    """A tier as the comparison calls it: `batch`, `flex`, `priority`; empty for the standard one."""
    if batch is True or service_tier == "batch":
        return "batch"
    tier = service_tier.lower() if isinstance(service_tier, str) else ""
    return "" if tier in STANDARD_TIERS else tier[:MAX_TEXT]


def check_currency(value: object, where: str) -> None:
    """Raises InputError for a currency that is not US dollars."""
    if value is not None and str(value).lower() != "usd":
        raise InputError(
            f"{where} is in {shown(value)}, not in US dollars.",
            money="Nothing was compared, because the ledger is kept in dollars.",
            todo="Ask the provider for a report in USD.",
        )


def shown(value: object) -> str:
    """A foreign value, short enough for a sentence."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
