"""Check: price a file of cases whose cost is known, and say where ours differs. Users audit their own bills with it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tallystick.core.models import provider_id
from tallystick.core.money import Money
from tallystick.errors import InputError, TallyError, UnpricedError, UnsupportedApi
from tallystick.metering.rating import Call, rate

if TYPE_CHECKING:
    from tallystick.catalog.catalog import Catalog

AGREE: Final = "agree"
DIFFER: Final = "differ"
UNSUPPORTED: Final = "unsupported"
EXIT_CODES: Final = {AGREE: 0, UNSUPPORTED: 4, DIFFER: 1}
_REQUIRED: Final = ("model", "usage", "expected_usd")


class Verdict(msgspec.Struct, frozen=True):
    """How one case came out: `result` is agree, differ or unsupported; `reason` says why when it is not agree."""

    name: str
    model: str
    result: str
    expected: Money | None
    ours: Money | None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """The verdict as plain JSON values."""
        return {
            "name": self.name,
            "model": self.model,
            "result": self.result,
            "expected": None if self.expected is None else self.expected.to_json(),
            "ours": None if self.ours is None else self.ours.to_json(),
            "reason": self.reason or None,
        }


def check_cases(cases: object, catalog: Catalog, now: datetime) -> tuple[Verdict, ...]:
    """Prices every case of a list and compares at 1e-12 USD, half-even.

    A case has `model`, `usage` (the provider's own object) and `expected_usd` (decimal text; null where the cost must
    be unknown), and may have `name`, `provider`, `api`, `date` (RFC 3339; default now) and `context`. Raises InputError
    when the whole is not such a list, naming the first case that is not one.
    """
    if not isinstance(cases, list) or not cases:
        raise InputError(
            "A file of cases is a JSON list with at least one case.", todo="See docs/how-to/audit-a-bill.md."
        )
    return tuple(_check(_case(case, number), catalog, now) for number, case in enumerate(cases, 1))


def exit_code(verdicts: tuple[Verdict, ...]) -> int:
    """0 when all agree, 4 when some are only unsupported, 1 when any differs."""
    results = {verdict.result for verdict in verdicts}
    return next(EXIT_CODES[result] for result in (DIFFER, UNSUPPORTED, AGREE) if result in results)


def _case(case: object, number: int) -> Mapping[str, Any]:
    if not isinstance(case, Mapping):
        raise InputError(f"Case {number} is not an object.")
    missing = [key for key in _REQUIRED if key not in case]
    if missing:
        raise InputError(f"Case {number} ({case.get('name', 'unnamed')}) lacks {', '.join(missing)}.")
    for key, kind in (("model", str), ("provider", str), ("api", str), ("context", Mapping)):
        if not isinstance(case.get(key), kind | None):
            raise InputError(f"Case {number} ({case.get('name', 'unnamed')}): {key} cannot be {case[key]!r}.")
    return {"name": f"case {number}", **case}


def _check(case: Mapping[str, Any], catalog: Catalog, now: datetime) -> Verdict:
    name, model = str(case["name"]), str(case["model"])
    expected = _expected(case["expected_usd"], name)
    at = _instant(case.get("date"), now, name)
    provider = None if case.get("provider") is None else provider_id(case["provider"])
    call = Call(model=model, at=at, provider=provider, api=case.get("api"), context=case.get("context") or {})
    try:
        rated = rate(case["usage"], call, catalog)
    except UnsupportedApi as error:
        return Verdict(name, model, UNSUPPORTED, expected, None, str(error))
    except TallyError as error:
        return Verdict(name, model, DIFFER, expected, None, str(error))
    ours = None if rated.cost is None else rated.cost.amount
    if ours == expected:
        return Verdict(name, model, AGREE, expected, ours)
    if isinstance(rated.unpriced, UnpricedError):
        return Verdict(name, model, UNSUPPORTED, expected, None, str(rated.unpriced))
    lines = () if rated.cost is None else rated.cost.lines
    parts = [f"{line.kind} {line.quantity:,} = {'unpriced' if line.amount is None else line.amount}" for line in lines]
    reason = rated.reading.fault or "; ".join(parts) or "the usage states no counts"
    return Verdict(name, model, DIFFER, expected, ours, reason)


def _expected(value: object, name: str) -> Money | None:
    if value is None:
        return None
    try:
        return Money.usd(Decimal(str(value)))
    except (InvalidOperation, InputError):
        raise InputError(f"{name}: expected_usd is {value!r}, which is not a decimal number.") from None


def _instant(value: object, now: datetime, name: str) -> datetime:
    if value is None:
        return now
    try:
        instant = datetime.fromisoformat(str(value))
    except ValueError:
        raise InputError(f"{name}: date is {value!r}; write it as 2026-11-17T20:00:00Z.") from None
    try:
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except OverflowError:
        raise InputError(f"{name}: date {value!r} is outside the calendar.") from None
