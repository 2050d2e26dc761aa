"""OTLP in protobuf: a reader of our own for the few fields of an ExportTraceServiceRequest that matter, and a writer
for its answer. Source: opentelemetry-proto, trace/v1 and common/v1; protobuf's encoding guide."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from tallystick.errors import InputError
from tallystick.wire.otlp import Span, Value, checked, kept

_DEEPEST: Final = 8
_LONGEST: Final = 10
_WORD: Final = 2**64
_SIGN: Final = 2**63
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DOUBLE: Final = struct.Struct("<d")

Field = tuple[int, int | bytes]
"""A field's number, and its value: a number, or the bytes of a text or message."""


def read_traces(body: bytes) -> list[Span]:
    """The spans of a request. Raises InputError for what is no such message."""
    spans: list[Span] = []
    for number, resource_spans in _messages(body):
        if number == 1:
            _read_resource(resource_spans, spans)
    return spans


def write_answer(rejected: int, message: str) -> bytes:
    """The answer to a request: empty when all was taken, else how many spans were not, and why."""
    if not rejected and not message:
        return b""
    text = message.encode("utf-8", "replace")
    count = b"\x08" + _varint(rejected) if rejected else b""
    partial = count + b"\x12" + _varint(len(text)) + text
    return b"\x0a" + _varint(len(partial)) + partial


def _read_resource(data: bytes, spans: list[Span]) -> None:
    resource: dict[str, Value] = {}
    scopes: list[bytes] = []
    for number, value in _messages(data):
        if number == 1:
            for inner, pair in _messages(value):
                if inner == 1:
                    _read_pair(pair, resource)
        elif number == 2:
            scopes.append(value)
    for scope_spans in scopes:
        scope = ""
        for number, value in _messages(scope_spans):
            if number == 1:
                scope = next((_text(name) for inner, name in _messages(value) if inner == 1), "")
        for number, value in _messages(scope_spans):
            if number == 2:
                checked(spans, _read_span(value, resource, scope))


def _read_span(data: bytes, resource: dict[str, Value], scope: str) -> Span:
    texts: dict[int, bytes] = {}
    numbers: dict[int, int] = {}
    attributes: dict[str, Value] = {}
    status = 0
    for number, value in _fields(data):
        if isinstance(value, int):
            numbers[number] = value
        elif number == 9:
            _read_pair(value, attributes)
        elif number == 15:
            status = next((one for inner, one in _fields(value) if inner == 3 and isinstance(one, int)), 0)
        else:
            texts[number] = value
    return Span(
        trace_id=texts.get(1, b"").hex(),
        span_id=texts.get(2, b"").hex(),
        parent=texts.get(4, b"").hex(),
        name=_text(texts.get(5, b"")),
        start_ns=numbers.get(7, 0),
        end_ns=numbers.get(8, 0),
        attributes=attributes,
        resource=resource,
        scope=scope,
        status=status,
    )


def _read_pair(data: bytes, found: dict[str, Value]) -> None:
    name, value = "", None
    for number, part in _messages(data):
        if number == 1:
            name = _text(part)
        elif number == 2:
            value = _read_value(part, _DEEPEST)
    kept(name, value, found)


def _read_value(data: bytes, depth: int) -> object:
    if not depth:
        raise InputError("A value in the spans is nested too deeply.")
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            return _text(value)
        if number == 2 and isinstance(value, int):
            return bool(value)
        if number == 3 and isinstance(value, int):
            return value - _WORD if value >= _SIGN else value
        if number == 4 and isinstance(value, int):
            return _DOUBLE.unpack(value.to_bytes(8, "little"))[0]
        if number == 5 and isinstance(value, bytes):
            return [_read_value(one, depth - 1) for inner, one in _messages(value) if inner == 1]
    return None


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields that are texts or messages."""
    for number, value in _fields(data):
        if isinstance(value, bytes):
            yield number, value


def _fields(data: bytes) -> Iterator[Field]:
    at, size = 0, len(data)
    while at < size:
        key, at = _read_varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT and number:
            value, at = _read_varint(data, at)
            yield number, value
            continue
        length = 8 if kind == _FIXED64 else 4 if kind == _FIXED32 else -1
        if kind == _BYTES:
            length, at = _read_varint(data, at)
        if not number or length < 0 or at + length > size:
            raise InputError("The body is no protobuf message of spans.", todo="Send application/x-protobuf or JSON.")
        part = data[at : at + length]
        at += length
        yield number, part if kind == _BYTES else int.from_bytes(part, "little")


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place, byte in enumerate(data[at : at + _LONGEST]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value % _WORD, at + place + 1
    raise InputError("The body is no protobuf message of spans.", todo="Send application/x-protobuf or JSON.")


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
