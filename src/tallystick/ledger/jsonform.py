"""The JSON form of entries, read back: the inverse of `Entry.to_json`, and what corrections are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any, Final

from tallystick.core.attribution import Tags
from tallystick.core.cost import Cost, Line, PricedKind
from tallystick.core.money import PICO_PER_USD, Money
from tallystick.core.rates import Rate
from tallystick.core.usage import MAX_COUNT, Usage, is_kind
from tallystick.errors import CatalogError, InputError
from tallystick.ledger.entry import CORRECTABLE, MAX_RAW, SCHEMA, Correction, Entry
from tallystick.ledger.sums import limbs, spent

MAX_ID: Final = 256
"""An id has at most this many characters."""


def entry_from_json(row: Mapping[str, Any]) -> Entry:
    """The entry whose `to_json` gave `row`. Keys may be missing where an entry has a default. Raises InputError, with
    the field's name, for anything that is not of that form."""
    schema = row.get("schema", SCHEMA)
    if schema != SCHEMA:
        raise InputError(
            f"This entry has the schema {schema!r}; this version reads {SCHEMA}.", todo="Update tallystick."
        )
    given = {name: value for name, value in row.items() if name != "schema"}
    _known_names(given, _PARSERS, "entry")
    missing = [name for name in ("call_id", "started_at", "provider", "model") if given.get(name) is None]
    if missing:
        raise InputError(f"An entry needs {' and '.join(missing)}.", money="It was not entered.")
    return checked(Entry(**parse_fields(given)))


def parse_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of an entry's fields from their JSON forms. Raises InputError."""
    return {name: _PARSERS[name](name, value) for name, value in given.items()}


def checked(entry: Entry) -> Entry:
    """The entry itself, if a ledger can keep it. Raises InputError for an overlong id or raw usage, or absurd cost."""
    check_texts(entry)
    limbs(spent(entry)[0])
    return entry


def check_texts(entry: Entry) -> None:
    """Raises InputError for an overlong id or raw usage."""
    if len(entry.call_id) > MAX_ID:
        raise InputError(f"A call_id has at most {MAX_ID} characters, not {len(entry.call_id)}.")
    if not entry.call_id.isascii():
        raise InputError(f"The call_id {entry.call_id!r} has characters beyond ASCII.")
    raw = entry.usage_raw
    if raw is not None and len(raw) * 4 > MAX_RAW and len(raw.encode(errors="replace")) > MAX_RAW:
        raise InputError(
            f"The provider's usage object of call {entry.call_id} is longer than {MAX_RAW} bytes.",
            todo="Shorten it or leave it out.",
        )


def check_correction(correction: Correction) -> dict[str, Any]:
    """The values that a correction gives to an entry's fields. Raises InputError."""
    fields = correction.fields
    _known_names(fields, CORRECTABLE, "correction")
    if not fields:
        raise InputError(f"The correction of call {correction.corrects} changes no field.")
    if not 1 <= len(correction.correction_id) <= MAX_ID:
        raise InputError("A correction needs an id of its own.")
    if correction.recorded_at.tzinfo is None:
        raise InputError("A correction's recorded_at needs a time zone.")
    return parse_fields(fields)


def amend(entry: Entry, corrections: Iterable[Correction]) -> Entry:
    """The entry as it stands after corrections, in their order. Raises InputError where the result contradicts
    itself."""
    values: dict[str, Any] = {}
    for correction in corrections:
        values |= check_correction(correction)
    if not values:
        return entry
    return checked(Entry(**{name: getattr(entry, name) for name in entry.__struct_fields__} | values))


def cost_from_json(value: object) -> Cost:
    """The cost whose `to_json` gave `value`. Raises InputError."""
    row = _table("cost", value)
    amount, listed = row.get("amount"), row.get("listed")
    return Cost(
        lines=tuple([_line(line) for line in _list("cost.lines", row.get("lines", []))]),
        pico=None if amount is None else Money.from_json(amount).pico,
        basis=_text("cost.basis", row.get("basis", "list")),
        rate_ids=tuple([_text("cost.rate_ids", name) for name in _list("cost.rate_ids", row.get("rate_ids", []))]),
        catalogue=_optional_text("cost.catalogue", row.get("catalogue")),
        notes=tuple([_text("cost.notes", note) for note in _list("cost.notes", row.get("notes", []))]),
        listed_pico=None if listed is None else Money.from_json(listed).pico,
    )


def _line(value: object) -> Line:
    row = _table("cost.lines", value)
    kind = _text("cost.lines.kind", row.get("kind"))
    if not is_kind(kind):
        raise InputError(f"{kind!r} is not a kind of usage.")
    quantity = _count("cost.lines.quantity", row.get("quantity"))
    amount = row.get("amount")
    note = row.get("note") or ""
    return Line(
        kind=kind,
        quantity=quantity,
        pico=None if amount is None else Money.from_json(amount).pico,
        priced=None if row.get("rate") is None else _priced(row, _text("cost.lines.note", note)),
        note=note,
    )


def _priced(row: Mapping[str, Any], note: str) -> PricedKind:
    per = _count("cost.lines.per", row.get("per"))
    try:
        rate = Rate(usd=_decimal("cost.lines.rate", row["rate"]), per=per)
    except CatalogError as error:
        raise InputError(f"The rate of a cost line makes no sense: {error.what}") from None
    exact = Fraction(rate.usd) * PICO_PER_USD / per
    multipliers = []
    for pair in _list("cost.lines.multipliers", row.get("multipliers", [])):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise InputError(f"A multiplier of a cost line is a name and a factor, not {pair!r}.")
        factor = _decimal("cost.lines.multipliers", pair[1])
        multipliers.append((_text("cost.lines.multipliers", pair[0]), factor))
        exact *= Fraction(factor)
    return PricedKind(
        rate=rate,
        numerator=exact.numerator,
        denominator=exact.denominator,
        multipliers=tuple(multipliers),
        source=_optional_text("cost.lines.source", row.get("source")) or "",
        note=note,
    )


def _known_names(given: Mapping[str, Any], allowed: Iterable[str], what: str) -> None:
    names = set(allowed)
    for name in given:
        if name not in names:
            # Every start of the program would pay for this import, and hardly any needs it.
            import difflib

            near = difflib.get_close_matches(str(name), names, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Allowed: {', '.join(sorted(names))}."
            raise InputError(
                f"{name!r} is not a field of {'an entry' if what == 'entry' else 'a correction'}.", todo=hint
            )


def _table(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{name} must be an object, not {_shown(value)}.")
    return value


def _list(name: str, value: object) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise InputError(f"{name} must be a list, not {_shown(value)}.")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InputError(f"{name} must be text, not {_shown(value)}.")
    return value


def _optional_text(name: str, value: object) -> str | None:
    return None if value is None else _text(name, value)


def _count(name: str, value: object) -> int:
    if type(value) is not int or not 0 <= value < MAX_COUNT:
        raise InputError(f"{name} must be a whole number from 0 to 2**53 - 1, not {_shown(value)}.")
    return value


def _optional_count(name: str, value: object) -> int | None:
    return None if value is None else _count(name, value)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{name} must be true or false, not {_shown(value)}.")
    return value


def _decimal(name: str, value: object) -> Decimal:
    try:
        number = Decimal(_text(name, value))
    except InvalidOperation:
        raise InputError(f"{name} must be a decimal number in quotes, not {_shown(value)}.") from None
    if not number.is_finite() or len(number.as_tuple().digits) > 60 or abs(number.adjusted()) > 60:
        raise InputError(f"{name} is {_shown(value)}, which is no sensible number.")
    return number


def _instant(name: str, value: object) -> datetime:
    try:
        instant = datetime.fromisoformat(_text(name, value))
    except ValueError:
        raise InputError(f"{name} must be a time such as 2026-11-21T22:30:00Z, not {_shown(value)}.") from None
    if instant.tzinfo is None:
        raise InputError(f"{name} needs a time zone; {_shown(value)} has none.", todo="Add Z for UTC.")
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise InputError(f"{name} is outside the calendar: {_shown(value)}.") from None


def _optional_instant(name: str, value: object) -> datetime | None:
    return None if value is None else _instant(name, value)


def _usage(name: str, value: object) -> Usage | None:
    return None if value is None else Usage(dict(_table(name, value)))


def _tags(name: str, value: object) -> Tags:
    return Tags(dict(_table(name, value)))


def _cost(name: str, value: object) -> Cost | None:  # noqa: ARG001 - all parsers are called alike
    return None if value is None else cost_from_json(value)


def _money(name: str, value: object) -> Money | None:  # noqa: ARG001 - all parsers are called alike
    return None if value is None else Money.from_json(value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


_PARSERS: Final[dict[str, Callable[[str, object], Any]]] = {
    **dict.fromkeys(("call_id", "provider", "model", "quality", "status", "source"), _text),
    **dict.fromkeys(
        (
            "attempt_of", "api", "requested_model", "maker", "tier", "region", "stopped_by", "run_id", "parent_run",
            "step", "provider_response_id", "trace_id", "span_id", "hold_id", "usage_raw",
        ),
        _optional_text,
    ),
    **dict.fromkeys(("http_status", "latency_us", "ttft_us", "request_bytes", "response_bytes"), _optional_count),
    "started_at": _instant,
    "settled_at": _optional_instant,
    "recorded_at": _optional_instant,
    "usage": _usage,
    "cost": _cost,
    "reported_cost": _money,
    "owed": _flag,
    "context": _tags,
    "tags": _tags,
}  # fmt: skip
