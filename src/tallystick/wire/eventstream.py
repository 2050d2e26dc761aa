"""Amazon's binary event stream: frames with headers, a payload and two checksums.

Source: Smithy 2.0, "Amazon Event Stream Specification".
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Final

import msgspec

from tallystick.wire.sse import LIMIT

_PRELUDE: Final = struct.Struct(">III")
_LENGTH: Final = struct.Struct(">H")
_CRC: Final = struct.Struct(">I")
_LEAST: Final = _PRELUDE.size + _CRC.size
_FIXED: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_BYTES, _STRING = 6, 7


class Frame(msgspec.Struct, frozen=True):
    """One message. `kind` is its event type, or its exception or error type where `failed` is true."""

    kind: str
    failed: bool
    payload: bytes


class EventStream:
    """Reads frames. `fault` says why nothing is heard any more: a checksum that is wrong, a length that cannot be.
    Never raises, whatever the bytes."""

    __slots__ = ("_held", "fault", "limit")

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.fault: str | None = None
        self._held = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that these bytes complete."""
        found: list[Frame] = []
        if self.fault is not None:
            return found
        held = self._held
        held += data
        while len(held) >= _PRELUDE.size:
            total, headers, crc = _PRELUDE.unpack_from(held)
            if zlib.crc32(held[:8]) != crc:
                self.fault = "the length of a frame does not match its checksum"
            elif total > self.limit or headers + _LEAST > total:
                self.fault = f"a frame of {total} bytes with {headers} of headers cannot be"
            elif len(held) < total:
                break
            elif zlib.crc32(held[: total - 4]) != _CRC.unpack_from(held, total - 4)[0]:
                self.fault = "a frame does not match its checksum"
            if self.fault is not None:
                self._held = bytearray()
                break
            start = _PRELUDE.size
            found.append(_frame(bytes(held[start : start + headers]), bytes(held[start + headers : total - 4])))
            del held[:total]
        return found

    def flush(self) -> list[Frame]:
        """Nothing: a frame that is not whole says nothing."""
        return []

    @property
    def pending(self) -> int:
        """Bytes of an unfinished frame."""
        return len(self._held)


def _frame(headers: bytes, payload: bytes) -> Frame:
    named = _headers(headers)
    if named.get(":message-type", "event") == "event":
        return Frame(named.get(":event-type", ""), False, payload)
    return Frame(named.get(":exception-type") or named.get(":error-code", ""), True, payload)


def _headers(raw: bytes) -> dict[str, str]:
    """The headers whose value is text; what does not parse ends them."""
    found: dict[str, str] = {}
    at = 0
    while at < len(raw):
        name_end = at + 1 + raw[at]
        name = raw[at + 1 : name_end]
        sort = raw[name_end] if name_end < len(raw) else -1
        at = name_end + 1
        if sort in (_BYTES, _STRING) and at + _LENGTH.size <= len(raw):
            (length,) = _LENGTH.unpack_from(raw, at)
            at += _LENGTH.size
            if sort == _STRING:
                found[name.decode("utf-8", "replace")] = raw[at : at + length].decode("utf-8", "replace")
            at += length
        elif sort in _FIXED:
            at += _FIXED[sort]
        else:
            break
    return found


def encode(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One frame. Names are up to 255 bytes of UTF-8, values up to 32 KiB; struct.error beyond that."""
    packed = b"".join(_text(name, "B") + b"\x07" + _text(value, ">H") for name, value in headers.items())
    lengths = struct.pack(">II", _LEAST + len(packed) + len(payload), len(packed))
    whole = lengths + _CRC.pack(zlib.crc32(lengths)) + packed + payload
    return whole + _CRC.pack(zlib.crc32(whole))


def _text(text: str, length: str) -> bytes:
    raw = text.encode()
    return struct.pack(length, len(raw)) + raw


def event(kind: str, payload: bytes) -> bytes:
    """One frame that carries an event with a JSON payload."""
    names = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return encode(names, payload)
