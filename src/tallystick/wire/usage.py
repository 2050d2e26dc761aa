"""read_usage() and read_response(): what a payload says about its call, whatever the API."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NoReturn

import msgspec

from tallystick.errors import UnsupportedApi, UsageError
from tallystick.wire.context import overlay
from tallystick.wire.format import Format
from tallystick.wire.formats import APIS, FORMATS
from tallystick.wire.partition import with_counts
from tallystick.wire.reading import Reading
from tallystick.wire.shapes import api_of

__all__ = ["APIS", "api_of", "read_response", "read_usage"]

_DEPTH: Final = 32
_WHOLE: Final = 30


_READY: Final[dict[str, tuple[Callable[[bytes], Any], Callable[[Any], Reading]]]] = {}
_MAKING: Final = threading.Lock()
"""Two threads that need a type for the first time at once bring msgspec, and with it the process, down."""


def read_usage(
    api: str, usage: Mapping[str, object] | Sequence[object], context: Mapping[str, object] | None = None
) -> Reading:
    """What a provider's usage object says, with the caller's context laid over what the object states.

    `usage` is the object as the provider sent it (for `anthropic.messages.stream` the list of events that carry usage).
    Nulls count as absent; whole numbers written as floats are taken, costs as floats are read by their shortest decimal
    text. `context` may hold any key that decides a price; `output_item_types` becomes fees. Where parts exceed their
    whole the result's usage is None and its `fault` has the numbers; a wrong total is a fault beside the usage.

    Raises UsageError for a wrong shape, a count that is negative, not whole or absurd, or an unknown API;
    UnsupportedApi for an API that is known but has no reader yet.
    """
    form = _format(api)
    if api not in _READY:
        _prepare(api)
    reading = form.of_usage(_typed(api, usage, form.usage_type))
    if not context:
        return reading
    merged, fees = overlay(reading.context, context)
    return msgspec.structs.replace(reading, usage=with_counts(reading.usage, fees), context=merged)


def read_response(api: str, body: bytes) -> Reading:
    """What a whole, non-streamed response body says: usage, fees, model, id, tier, cost.

    A body without a usage object (an error, say) gives a usage of None. A body whose usage is sound but whose rest is
    not as documented gives the usage and a fault. Raises UsageError for malformed JSON and for whatever `read_usage`
    raises it for; UnsupportedApi likewise.
    """
    ready = _READY.get(api)
    decode, read = ready if ready is not None else _prepare(api)
    try:
        return read(decode(body))
    except msgspec.ValidationError as error:
        return _tolerant(api, body, error)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        _malformed(api, error)


def _prepare(api: str) -> tuple[Callable[[bytes], Any], Callable[[Any], Reading]]:
    form = _format(api)
    with _MAKING:
        msgspec.json.Decoder(form.usage_type)
        _READY[api] = msgspec.json.Decoder(form.body_type).decode, form.of_body
    return _READY[api]


def _malformed(api: str, error: Exception) -> NoReturn:
    raise UsageError(f"The response body of {api} is not JSON that can be read: {error}.") from None


def _format(api: str) -> Format:
    form = FORMATS.get(api) if isinstance(api, str) else None
    if form is not None:
        return form
    if isinstance(api, str) and api.startswith("log."):
        raise UnsupportedApi(api, f"There is no reader for log-shaped payloads yet, such as {api}.")
    family = str(api).partition(".")[0]
    near = [known for known in FORMATS if known.startswith(f"{family}.")]
    raise UsageError(f"{api!r} is not an API that can be read.", todo=f"Known: {', '.join(near or FORMATS)}.")


def _typed(api: str, usage: object, wanted: Any) -> Any:
    """The usage as its format's type. What does not fit at once is tidied first."""
    try:
        return msgspec.convert(usage, wanted)
    except msgspec.ValidationError:
        try:
            return msgspec.convert(_tidy(usage, _DEPTH), wanted)
        except msgspec.ValidationError as error:
            raise UsageError(
                f"The usage object of {api} cannot be read: {error}.",
                money="Nothing was counted or priced.",
                todo="Give the object as the provider sent it, or name another api.",
            ) from None


def _tidy(value: object, depth: int) -> object:
    """The value without nulls, with whole floats and decimals as integers."""
    if isinstance(value, Mapping):
        if not depth:
            raise UsageError("The payload is nested too deeply to be one of a provider's.")
        return {key: _tidy(inner, depth - 1) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        if not depth:
            raise UsageError("The payload is nested too deeply to be one of a provider's.")
        return [_tidy(inner, depth - 1) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if (
        isinstance(value, Decimal)
        and value.is_finite()
        and value.adjusted() < _WHOLE
        and value == value.to_integral_value()
    ):
        return int(value)
    return value


def _tolerant(api: str, body: bytes, error: msgspec.ValidationError) -> Reading:
    """Reads a body that does not fit its type: once more without nulls, then its usage alone, with a fault."""
    form = _format(api)
    try:
        plain = msgspec.json.Decoder(float_hook=Decimal).decode(body)
        tidy = _tidy(plain, 10 * _DEPTH)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as worse:
        _malformed(api, worse)
    try:
        return form.of_body(msgspec.convert(tidy, form.body_type))
    except msgspec.ValidationError:
        fault = f"the response body is not as documented ({error}), so only its usage was read"
    usage = _find(tidy, form.paths)
    reading = Reading(None) if usage is None else read_usage(api, usage)
    return msgspec.structs.replace(reading, fault="; ".join(filter(None, (fault, reading.fault))))


def _find(body: object, paths: tuple[tuple[str, ...], ...]) -> Any:
    for path in paths:
        found = body
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        if found is not None:
            return found
    return None
