"""Frames: the events of one answer, and the bytes they become."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, Final, Literal

import msgspec

from tallystick.core.usage import Usage
from tallystick.simulator.answer import Answer
from tallystick.simulator.plan import ID, Plan
from tallystick.simulator.sdk import through
from tallystick.wire import eventstream

Framing = Literal["sse", "json", "array", "lines", "eventstream", "text"]

TYPES: Final = {
    "sse": "text/event-stream; charset=utf-8",
    "json": "application/json",
    "array": "application/json",
    "lines": "application/x-ndjson",
    "eventstream": "application/vnd.amazon.eventstream",
    "text": "text/plain; charset=utf-8",
}

_ID: Final = ID.encode()


class Frame(msgspec.Struct, frozen=True):
    """One event. `payload` is its JSON, or bytes as they go out; `text` is the generated text in it; `type`
    names the SDK's own type for it (module:Class or botocore:Shape); `wrapped` puts it into Bedrock's {"bytes": ...};
    `failed` marks one of its exceptions."""

    payload: Any
    text: str = ""
    type: str | None = None
    name: str | None = None
    wrapped: bool = False
    failed: bool = False


class Written(msgspec.Struct, frozen=True):
    """An answer in its format's own words."""

    framing: Framing
    frames: tuple[Frame, ...]
    headers: tuple[tuple[str, str], ...] = ()


class Prepared(msgspec.Struct, frozen=True):
    """An answer as bytes, with `ID` where the id belongs. `ends[i]` is where event i ends in `body`; `wire` and
    `wire_ends` are the same in HTTP's chunked coding. `usage` is the truth. `late` are events whose checksums
    must wait for the id."""

    content_type: str
    headers: tuple[tuple[str, str], ...]
    whole: bool
    body: bytes
    ends: tuple[int, ...]
    wire: bytes
    wire_ends: tuple[int, ...]
    texts: tuple[str, ...]
    typed: tuple[str, ...]
    usage: Usage | None = None
    late: tuple[tuple[str, bytes, bool, bool], ...] = ()

    def with_id(self, call_id: str) -> Prepared:
        """The same with the id of one call in it."""
        given = call_id.encode()
        if self.late:
            blocks = [_framed(name, payload.replace(_ID, given), *marks) for name, payload, *marks in self.late]
            return _assembled(self, blocks)
        body = self.body.replace(_ID, given)
        return msgspec.structs.replace(self, body=body, wire=self.wire.replace(_ID, given))


def prepare(written: Written, plan: Plan, *, typed: bool) -> Prepared:
    """The bytes of an answer; where `typed`, its payloads pass through the SDKs' own types."""
    payloads, types = _payloads(written.frames, typed=typed and _regular(plan.answer))
    framing = written.framing
    empty = Prepared(
        TYPES[framing], written.headers, framing in ("json", "text"), b"", (), b"", (),
        tuple(frame.text for frame in written.frames), types, plan.usage,
    )  # fmt: skip
    if framing == "eventstream":
        named = [(f.name or "", p, f.wrapped, f.failed) for f, p in zip(written.frames, payloads, strict=True)]
        late = tuple(named) if any(_ID in payload for payload in payloads) else ()
        made = _assembled(empty, [_framed(*parts) for parts in named])
        return msgspec.structs.replace(made, late=late)
    return _assembled(empty, list(_blocks(written, payloads, plan.answer)))


def _assembled(empty: Prepared, blocks: Sequence[bytes]) -> Prepared:
    coded = [] if empty.whole else [b"%x\r\n%b\r\n" % (len(block), block) for block in blocks]
    return msgspec.structs.replace(
        empty,
        body=b"".join(blocks),
        ends=tuple(accumulate(map(len, blocks))),
        wire=b"".join(coded),
        wire_ends=tuple(accumulate(map(len, coded))),
    )


def _regular(answer: Answer) -> bool:
    """Whether the SDKs' types can be expected to accept the payloads: some faults are breaches of them."""
    return answer.ids != "missing" and answer.usage in ("normal", "inside", "twice")


def _payloads(frames: Iterable[Frame], *, typed: bool) -> tuple[list[bytes], tuple[str, ...]]:
    made: list[bytes] = []
    types: dict[str, Any] = {}
    for frame in frames:
        payload = frame.payload
        if typed and frame.type is not None and types.get(frame.type) != _shape(payload):
            # Frames of one shape differ in their text only, so one of them speaks for all.
            accepted = through(frame.type, payload)
            if accepted is not None:
                types[frame.type] = _shape(payload)
                payload = accepted
        made.append(payload if isinstance(payload, bytes) else msgspec.json.encode(payload))
    return made, tuple(types)


def _shape(value: Any) -> Any:
    """A payload without its texts and numbers."""
    if isinstance(value, dict):
        return tuple((key, part if key == "type" else _shape(part)) for key, part in value.items())
    if isinstance(value, list):
        return tuple(_shape(part) for part in value)
    return type(value)


def _blocks(written: Written, payloads: Sequence[bytes], answer: Answer) -> Iterable[bytes]:
    framing = written.framing
    if framing == "sse":
        yield from _events(written.frames, payloads, answer)
    elif framing == "lines":
        yield from (payload + b"\n" for payload in payloads)
    elif framing == "array":
        last = len(payloads) - 1
        for place, payload in enumerate(payloads):
            yield (b",\r\n" if place else b"[") + payload + (b"\n]" if place == last else b"")
    else:
        yield from payloads


def _events(frames: Sequence[Frame], payloads: Sequence[bytes], answer: Answer) -> Iterable[bytes]:
    end = b"\r\n" if answer.crlf else b"\n"
    for place, (frame, payload) in enumerate(zip(frames, payloads, strict=True)):
        block = b""
        if answer.comments and place % 2 == 0:
            block += b": a comment that says nothing" + end + end
        if answer.retry_ms is not None and not place:
            # In a block of its own some SDKs take it for an event without data.
            block += b"retry: %d%b" % (answer.retry_ms, end)
        if frame.name is not None:
            block += b"event: " + frame.name.encode() + end
        yield block + b"data: " + payload + end + end


def _framed(name: str, payload: bytes, wrapped: bool, failed: bool) -> bytes:
    if wrapped:
        payload = b'{"bytes":"' + base64.b64encode(payload) + b'"}'
    if failed:
        names = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
        return eventstream.encode(names, payload)
    return eventstream.event(name, payload)


def odd_ends(size: int, seed: int) -> list[int]:
    """Where a body of that many bytes is cut, at places that heed neither events nor characters."""
    ends, at = [], 0
    while at < size:
        at = min(size, at + 1 + zlib.crc32(b"%d:%d" % (seed, at)) % 23)
        ends.append(at)
    return ends
