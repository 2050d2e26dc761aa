"""The streams of Ollama and Cohere.

Ollama sends lines of JSON, the last of which says `done` and counts; Cohere ends with `message-end` (version 2) or
`stream-end` (version 1). Source: Ollama's API document; Cohere's reference of Chat streaming.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tallystick.wire.facts import UNREADABLE
from tallystick.wire.heard import Heard, fields_of, is_null, value_of


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    thinking: str | None = None
    tool_calls: msgspec.Raw = msgspec.Raw()


class _Line(msgspec.Struct, gc=False):
    model: str | None = None
    message: _Message | None = None
    response: str | None = None
    thinking: str | None = None
    done: bool = False
    done_reason: str | None = None
    error: msgspec.Raw = msgspec.Raw()


class _CohereText(msgspec.Struct, gc=False):
    text: str | None = None
    thinking: str | None = None


class _Call(msgspec.Struct, gc=False):
    function: dict[str, str] = {}


class _CohereMessage(msgspec.Struct, gc=False):
    content: _CohereText | list[msgspec.Raw] | None = None
    tool_plan: str | None = None
    tool_calls: _Call | list[msgspec.Raw] | None = None


class _CohereDelta(msgspec.Struct, gc=False):
    message: _CohereMessage | None = None
    finish_reason: str | None = None
    usage: msgspec.Raw = msgspec.Raw()


class _CohereEvent(msgspec.Struct, gc=False):
    type: str = ""
    event_type: str = ""
    id: str | None = None
    text: str | None = None
    delta: _CohereDelta | None = None
    finish_reason: str | None = None
    response: msgspec.Raw = msgspec.Raw()


_line: Final = msgspec.json.Decoder(_Line).decode
_cohere: Final = msgspec.json.Decoder(_CohereEvent).decode


class OllamaHeard(Heard):
    """Hears lines."""

    __slots__ = ()

    def hear(self, payload: bytes) -> None:
        """Takes in one line."""
        try:
            line = _line(payload)
        except UNREADABLE:
            self.strange(payload)
            return
        self.started = True
        self.model = line.model or self.model
        message = line.message or _Message()
        for text in (line.response, line.thinking, message.content, message.thinking):
            if text:
                self.text(text)
        if not is_null(message.tool_calls):
            self.text_bytes += len(message.tool_calls)
        if not is_null(line.error):
            self.failed(value_of(line.error))
            self.ended = True
        if line.done:
            self.ended, self.finish = True, line.done_reason
            fields = fields_of(payload)
            counts = {name: value_of(fields[name]) for name in ("prompt_eval_count", "eval_count") if name in fields}
            self.answered(payload, msgspec.json.encode(counts))

    def settle(self) -> None:
        """Only the last line counts."""
        self.final = self.ended


class CohereHeard(Heard):
    """Hears the events of a chat, in either version."""

    __slots__ = ()

    def hear(self, payload: bytes) -> None:
        """Takes in one event."""
        try:
            event = _cohere(payload)
        except UNREADABLE:
            if payload.strip() != b"[DONE]":
                self.strange(payload)
            return
        self.started = True
        self.response_id = event.id or self.response_id
        if event.text and event.event_type == "text-generation":
            self.text(event.text)
        delta = event.delta
        if delta is not None:
            if delta.message is not None:
                self._piece(delta.message)
            self.finish = delta.finish_reason or self.finish
            if not is_null(delta.usage):
                self.stated(delta.usage)
        if event.event_type == "stream-end":
            self.finish = event.finish_reason
            fields = fields_of(event.response)
            if not is_null(fields.get("meta")):
                self.stated(fields["meta"])
        self.ended = self.ended or event.type == "message-end" or event.event_type == "stream-end"

    def _piece(self, message: _CohereMessage) -> None:
        content = message.content
        if isinstance(content, _CohereText):
            self.text(content.text or content.thinking or "")
        self.text(message.tool_plan or "")
        if isinstance(message.tool_calls, _Call):
            for piece in message.tool_calls.function.values():
                self.unseen(piece)

    def settle(self) -> None:
        """Only the last event counts."""
        self.final = self.ended
