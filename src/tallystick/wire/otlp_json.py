"""OTLP in JSON: the same spans in OpenTelemetry's JSON encoding, where ids are hex and long integers may be text."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from tallystick.errors import InputError
from tallystick.wire.otlp import Span, Value, checked, kept

_DIGITS: Final = 20
_HEX: Final = re.compile(r"(?:[0-9a-f]{2}){1,32}")


class _Any(msgspec.Struct, frozen=True, rename="camel"):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: int | str | None = None
    double_value: float | str | None = None
    array_value: dict[str, Any] | None = None


class _Pair(msgspec.Struct, frozen=True):
    key: str = ""
    value: _Any | None = None


class _Holder(msgspec.Struct, frozen=True):
    attributes: list[_Pair] | None = None


class _Scope(msgspec.Struct, frozen=True):
    name: str | None = None


class _Status(msgspec.Struct, frozen=True):
    code: int | str | None = None


class _Span(msgspec.Struct, frozen=True, rename="camel"):
    trace_id: str = ""
    span_id: str = ""
    parent_span_id: str | None = None
    name: str | None = None
    start_time_unix_nano: int | str = 0
    end_time_unix_nano: int | str = 0
    attributes: list[_Pair] | None = None
    status: _Status | None = None


class _ScopeSpans(msgspec.Struct, frozen=True):
    scope: _Scope | None = None
    spans: list[_Span] | None = None


class _ResourceSpans(msgspec.Struct, frozen=True, rename="camel"):
    resource: _Holder | None = None
    scope_spans: list[_ScopeSpans] | None = None


class _Request(msgspec.Struct, frozen=True, rename="camel"):
    resource_spans: list[_ResourceSpans] | None = None


_decode: Final = msgspec.json.Decoder(_Request).decode
_CODES: Final = {"STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": 2}


def read_traces(body: bytes) -> list[Span]:
    """The spans of a request. Raises InputError for what is no such message."""
    try:
        request = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"The body is no JSON of spans: {str(error)[:200].rstrip('.')}.") from None
    spans: list[Span] = []
    for group in request.resource_spans or ():
        resource = {} if group.resource is None else _attributes(group.resource.attributes)
        for scope_spans in group.scope_spans or ():
            scope = "" if scope_spans.scope is None else scope_spans.scope.name or ""
            for span in scope_spans.spans or ():
                checked(spans, _span(span, resource, scope))
    return spans


def _span(span: _Span, resource: dict[str, Value], scope: str) -> Span:
    code = None if span.status is None else span.status.code
    return Span(
        trace_id=_hex(span.trace_id),
        span_id=_hex(span.span_id),
        parent=_hex(span.parent_span_id or ""),
        name=span.name or "",
        start_ns=_whole(span.start_time_unix_nano) or 0,
        end_ns=_whole(span.end_time_unix_nano) or 0,
        attributes=_attributes(span.attributes),
        resource=resource,
        scope=scope,
        status=_CODES.get(code, 0) if isinstance(code, str) else code or 0,
    )


def _attributes(pairs: list[_Pair] | None) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for pair in pairs or ():
        kept(pair.key, None if pair.value is None else _value(pair.value), found)
    return found


def _value(value: _Any) -> object:
    if value.int_value is not None:
        return _whole(value.int_value)
    if value.array_value is not None:
        listed = value.array_value.get("values")
        inner = listed if isinstance(listed, list) else []
        return [one.get("stringValue") for one in inner if isinstance(one, dict)]
    plain = (value.string_value, value.bool_value, value.double_value)
    return next((one for one in plain if one is not None), None)


def _whole(value: int | str) -> int | None:
    if isinstance(value, str):
        text = value.removeprefix("-")
        return int(value) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else None
    return value


def _hex(text: str) -> str:
    """An id as lower-case hex; empty for what is none."""
    lowered = text.lower()
    return lowered if _HEX.fullmatch(lowered) else ""
