"""Lines: a line of a log as its type, and the call that a log tells of."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec

from tallystick.core.models import provider_id
from tallystick.errors import InputError, UsageError
from tallystick.wire.reading import Reading

T = TypeVar("T")

BROKEN: Final = "lines that are not JSON"
ABSURD: Final = "lines whose numbers, dates or nesting make no sense"

_DEPTH: Final = 16
_WHOLE: Final = 2**53


class LogCall(msgspec.Struct, frozen=True, gc=False):
    """One call, as a tool's log tells of it.

    `key` is the same wherever and whenever this call is met again. `usage` is an object of the tool's own, which its
    reader turns into a Reading; `size` orders two sightings of the same call: the larger one is the fuller. `provider`
    is who bills where the log says so. `project`, `session`, `parent` and `step` say what the call was for.
    """

    key: str
    at: datetime
    model: str
    usage: Any
    size: int
    aside: bool = False
    provider: str | None = None
    tier: str | None = None
    project: str | None = None
    session: str | None = None
    agent: str | None = None
    parent: str | None = None
    step: str | None = None
    response_id: str | None = None
    quality: str = "exact"


def fuller(new: LogCall, old: LogCall) -> bool:
    """Whether, of two sightings of one call, the new one tells more: larger usage first, then the main thread before a
    side chain, then by name, so that the outcome does not depend on the order in which files are read."""
    if new.size != old.size:
        return new.size > old.size
    if new.aside != old.aside:
        return old.aside
    return _place(new) < _place(old)


def _place(call: LogCall) -> tuple[str, str, str, str]:
    return call.session or "", call.project or "", call.agent or "", call.model


def merged(new: LogCall, old: LogCall) -> LogCall:
    """One call of two sightings: the fuller one, at the earlier one's time."""
    winner, other = (new, old) if fuller(new, old) else (old, new)
    return winner if winner.at <= other.at else msgspec.structs.replace(winner, at=other.at)


def lenient(line: bytes, wanted: type[T]) -> T:
    """A line that did not fit its type at first, once more without nulls and with whole floats as integers. Raises
    UsageError whose `what` is BROKEN or ABSURD."""
    try:
        plain = msgspec.json.decode(line)
    except RecursionError:
        raise UsageError(ABSURD) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UsageError(BROKEN) from None
    return converted(plain, wanted)


def converted(plain: object, wanted: type[T]) -> T:
    """A decoded value as its type, without nulls and with whole floats as integers. Raises UsageError (ABSURD)."""
    try:
        return msgspec.convert(_tidy(plain, _DEPTH), wanted)
    except msgspec.ValidationError:
        raise UsageError(ABSURD) from None


def _tidy(value: object, depth: int) -> object:
    if isinstance(value, Mapping):
        return {key: _tidy(inner, depth - 1) for key, inner in value.items() if inner is not None} if depth else {}
    if isinstance(value, list):
        return [_tidy(inner, depth - 1) for inner in value] if depth else []
    if isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE:
        return int(value)
    return value


def biller(stated: object) -> str | None:
    """Who bills, by the name that a log gives; None where that is no name."""
    if not isinstance(stated, str):
        return None
    try:
        return provider_id(stated)
    except InputError:
        return None


def joined(readings: list[Reading]) -> Reading:
    """Several calls as one reading: counts added up, everything else from the last."""
    if not readings:
        raise UsageError("None of the lines tells of a call.", todo="Give the lines as the tool wrote them.")
    total = readings[-1]
    for reading in readings[:-1]:
        usage = None if total.usage is None or reading.usage is None else total.usage + reading.usage
        fault = "; ".join(filter(None, (reading.fault, total.fault))) or None
        total = msgspec.structs.replace(total, usage=usage, fault=fault)
    return total
