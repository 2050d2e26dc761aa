"""What may be changed on the wire: asking a chat stream for its usage and hiding that again, and ending a stream early.

Everything else stays byte for byte as it was: bytes are spliced, never written anew.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Final

import msgspec

from tallystick.wire.answers import end_event, refusal
from tallystick.wire.eventstream import EventStream
from tallystick.wire.frames import Lines, Objects
from tallystick.wire.heard import fields_of, is_null, value_of
from tallystick.wire.sse import Sse, SseEvents

__all__ = ["NEEDS_OPTION", "Gate", "UsageFilter", "end_event", "inject_usage", "refusal"]

NEEDS_OPTION: Final = frozenset({"openai.chat", "groq.chat", "xai.chat", "vllm.chat", "compatible.chat"})
"""APIs whose streams state their usage only when asked, by `stream_options.include_usage`. DeepSeek, Mistral,
OpenRouter, Perplexity and Together state it unasked with their last choice, so nothing may be injected or stripped
there. Source: DeepSeek's reference of create chat completion, the others' streaming guides."""

_OPTION: Final = "stream_options"
_ASK: Final = b'{"include_usage":true}'
_KEY: Final = b'"usage"'
_NULL: Final = b'"usage":null'
_MEMBER: Final = b',"usage":null'
_LENGTH: Final = len(_NULL)
_PADDING: Final = b',"obfuscation":"'
_CR: Final = ord("\r")
_PLACES: Final = 64
"""Each place where a member may stand costs a decode, and a hostile body may name it a million times."""


class _Top(msgspec.Struct, gc=False):
    usage: msgspec.Raw = msgspec.Raw()


_top: Final = msgspec.json.Decoder(_Top).decode


def inject_usage(body: bytes) -> bytes | None:
    """The body of a chat request with `stream_options.include_usage` set, or None where there is nothing to do: no
    stream, usage already asked for, or a body that cannot be read. All other bytes stay as they are.

    Ask only where `NEEDS_OPTION` has the API, and have an off switch: some compatible servers refuse the option. A
    compressed body has to be plain first.
    """
    fields = fields_of(body)
    if value_of(fields.get("stream")) is not True:
        return None
    stated = fields.get(_OPTION)
    if stated is None:
        start = body.index(b"{") + 1
        return b'%b"stream_options":%b,%b' % (body[:start], _ASK, body[start:])
    raw = bytes(stated)
    options = value_of(raw)
    if options is None:
        wanted = _ASK
    elif not isinstance(options, dict) or options.get("include_usage") is True:
        return None
    elif "include_usage" in options:
        inner = _spliced(raw, "include_usage", bytes(fields_of(raw)["include_usage"]), b"true")
        if inner is None:
            return None
        wanted = inner
    else:
        start = raw.index(b"{") + 1
        wanted = b'%b"include_usage":true%b%b' % (raw[:start], b"," if options else b"", raw[start:])
    return _spliced(body, _OPTION, raw, wanted)


def _spliced(body: bytes, name: str, value: bytes, wanted: bytes) -> bytes | None:
    """The JSON object with one of its own members changed. The same words may stand deeper inside: the place is right
    when the object then reads as it should."""
    expected = {**_plain(body), name: wanted}
    for place in islice(re.finditer(rb'"%b"\s*:\s*' % name.encode(), body), _PLACES):
        if body.startswith(value, place.end()):
            changed = body[: place.end()] + wanted + body[place.end() + len(value) :]
            if _plain(changed) == expected:
                return changed
    return None


def _plain(body: bytes) -> dict[str, bytes]:
    return {name: bytes(raw) for name, raw in fields_of(body).items()}


class UsageFilter:
    """Removes from a chat stream what an injected `include_usage` has added: the last chunk, which has usage and no
    choices, and the usage of every other chunk. All other bytes stay as they are; an unfinished event is held back.

    It wants the plain bytes of an event stream. Never raises, whatever the bytes.
    """

    __slots__ = ("_events", "_held")

    def __init__(self) -> None:
        self._events = SseEvents()
        self._held = False

    def feed(self, data: bytes) -> bytes:
        """The bytes to hand over for these."""
        if not self._held and data[-2:] == b"\n\n" and _CR not in data and data.find(b"\n\n") == len(data) - 2:
            return _without_usage(data)
        return self._in_pieces(data)

    def whole(self, event: bytes) -> bytes:
        """Like `feed`, for bytes that are known to be one whole event."""
        return self._in_pieces(event) if self._held else _without_usage(event)

    def _in_pieces(self, data: bytes) -> bytes:
        events = self._events.feed(data)
        self._held = self._events.pending > 0
        return b"".join(map(_without_usage, events))

    def close(self) -> bytes:
        """The bytes of an unfinished event, at the end of the stream."""
        return _without_usage(self._events.rest())


def _without_usage(event: bytes) -> bytes:
    place = event.rfind(_KEY)
    if place < 0:
        return event
    if event[place - 1 : place + _LENGTH] == _MEMBER and event.find(_KEY) == place and event[:7] == b"data: {":
        # Where the object of the event ends here, or after the padding that OpenAI adds, the member is its own and no
        # inner one's.
        after, end = place + _LENGTH, len(event)
        inside = after + len(_PADDING)
        if event[-3:] == b"}\n\n" and (
            after == end - 3 or (event[after:inside] == _PADDING and event.find(b'"', inside) == end - 4)
        ):
            return event[: place - 1] + event[after:]
    found = event.count(_KEY)
    if found == 1 and event.startswith(b"data: {") and event.count(_NULL) == 1:
        try:
            top = _top(event[6:])
        except msgspec.DecodeError:
            top = _Top()
        if len(top.usage):
            return _cut(event, event.index(_NULL), len(_NULL))
    payloads = Sse().feed(event + b"\n\n")
    fields = fields_of(payloads[0]) if len(payloads) == 1 else {}
    if "usage" not in fields:
        return event
    if not is_null(fields["usage"]) and not value_of(fields.get("choices")):
        return b""
    usage = bytes(fields.pop("usage"))
    expected = {name: bytes(raw) for name, raw in fields.items()}
    for found_at in islice(re.finditer(rb'"usage"\s*:\s*', event), _PLACES):
        if event.startswith(usage, found_at.end()):
            changed = _cut(event, found_at.start(), found_at.end() - found_at.start() + len(usage))
            if _plain(b"".join(Sse().feed(changed + b"\n\n"))) == expected:
                return changed
    return event


def _cut(event: bytes, start: int, length: int) -> bytes:
    """The event without a member of its object, and without the comma that joined it."""
    before, after = event[:start], event[start + length :]
    bare = before.rstrip()
    if bare.endswith(b","):
        return bare[:-1] + after
    rest = after.lstrip()
    return before + rest[1:].lstrip() if rest.startswith(b",") else before + after


class Gate:
    """Lets only whole events of a stream pass, so that it can be ended between two of them. `kind` is the response's
    content type; a type that is no stream passes as it comes. Never raises, whatever the bytes."""

    __slots__ = ("_events", "_framing", "_held")

    def __init__(self, kind: str) -> None:
        plain = kind.partition(";")[0].strip().lower()
        self._events = plain == "text/event-stream"
        self._framing: SseEvents | EventStream | Objects | Lines | None = None
        self._held = b""
        if self._events:
            self._framing = SseEvents()
        elif plain == "application/vnd.amazon.eventstream":
            self._framing = EventStream()
        elif plain == "application/json":
            self._framing = Objects()
        elif plain.endswith(("+json", "ndjson")):
            self._framing = Lines()

    def feed(self, data: bytes) -> bytes:
        """The bytes that may pass."""
        if self._framing is None or (self._events and not self._held and data.endswith(b"\n\n")):
            return data
        self._framing.feed(data)
        held = self._held + data
        passed = len(held) - self._framing.pending
        self._held = held[passed:]
        return held[:passed]

    def rest(self) -> bytes:
        """The bytes of an unfinished event, for a stream that ended by itself."""
        held, self._held = self._held, b""
        return held
