"""The stream of OpenAI's chat format, and of everybody who speaks it.

The usage comes with the last chunk, which may or may not have choices; some state it with every chunk, cumulative, so
the last one stands. `[DONE]` ends the call. Source: OpenAI's API reference, chat completion chunk object.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tallystick.wire.facts import UNREADABLE, RequestFacts
from tallystick.wire.heard import Heard, is_null, value_of


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct, gc=False):
    function: _Function | None = None


class _Audio(msgspec.Struct, gc=False):
    transcript: str | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | list[msgspec.Raw] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None
    audio: _Audio | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int | None = None
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


_ABSENT: Final = msgspec.Raw()


class _Groq(msgspec.Struct, gc=False):
    usage: msgspec.Raw = msgspec.Raw()
    error: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = _ABSENT
    error: msgspec.Raw = _ABSENT
    x_groq: _Groq | None = None


class _Head(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    created: int | None = None
    service_tier: str | None = None


_NULL: Final = len(b"null")

_chunk: Final = msgspec.json.Decoder(_Chunk).decode
_head: Final = msgspec.json.Decoder(_Head).decode


class ChatHeard(Heard):
    """Hears chunks."""

    __slots__ = ()
    calm = b"data: {"

    def __init__(self, facts: RequestFacts, texts: list[str] | None = None) -> None:
        super().__init__(facts, texts)
        self.open = dict.fromkeys(range(min(facts.answers, 128)))

    def hear(self, payload: bytes) -> None:
        """Takes in the data of one event."""
        try:
            chunk = _chunk(payload)
        except UNREADABLE:
            self._unusual(payload)
            return
        if not self.started:
            self._begin(payload)
        for choice in chunk.choices or ():
            if choice.finish_reason is not None:
                self.finish = choice.finish_reason
                self.open.pop(choice.index or 0, None)
            delta = choice.delta
            if delta is not None:
                content = delta.content
                if isinstance(content, str):
                    # As in `text`: nearly every chunk comes here.
                    self.text_bytes += (
                        len(content) if content.isascii() else len(content.encode("utf-8", "surrogatepass"))
                    )
                    if self.texts is not None:
                        self.texts.append(content)
                elif content:
                    self._parts(content)
                if (
                    delta.tool_calls
                    or delta.reasoning_content
                    or delta.reasoning
                    or delta.refusal
                    or delta.function_call is not None
                    or delta.audio is not None
                ):
                    self._beside(delta)
            if choice.text:
                self.text(choice.text)
        usage = chunk.usage
        if (usage is not _ABSENT and len(usage) > _NULL) or chunk.error is not _ABSENT or chunk.x_groq is not None:
            self._aside(payload, usage, chunk.error, chunk.x_groq)

    def _begin(self, payload: bytes) -> None:
        self.started = True
        try:
            head = _head(payload)
        except UNREADABLE:
            return
        self.model, self.response_id, self.created = head.model, head.id, head.created
        if head.service_tier:
            self.context["service_tier"] = head.service_tier

    def _beside(self, delta: _Delta) -> None:
        """What a piece of an answer has beside its content."""
        if delta.tool_calls or delta.function_call is not None:
            self._calls(delta)
        if delta.reasoning_content:
            self.text(delta.reasoning_content)
        elif delta.reasoning:
            self.text(delta.reasoning)
        if delta.refusal:
            self.text(delta.refusal)
        if delta.audio is not None and delta.audio.transcript:
            self.text(delta.audio.transcript)

    def _calls(self, delta: _Delta) -> None:
        for function in (*[call.function for call in delta.tool_calls or ()], delta.function_call):
            if function is not None:
                self.unseen(function.name or "")
                self.unseen(function.arguments or "")

    def _parts(self, parts: list[msgspec.Raw]) -> None:
        """Content in parts, as Mistral's reasoning models send it: text, or thinking made of texts."""
        for part in parts:
            value = value_of(part)
            inner = value.get("thinking", [value]) if isinstance(value, dict) else []
            for piece in inner if isinstance(inner, list) else [{"text": inner}]:
                text = piece.get("text") if isinstance(piece, dict) else None
                if isinstance(text, str):
                    self.text(text)

    def _aside(self, payload: bytes, usage: msgspec.Raw | None, error: msgspec.Raw | None, groq: _Groq | None) -> None:
        if not is_null(error):
            self.failed(value_of(error))
        if groq is not None:
            if groq.error:
                self.failed(groq.error)
            if is_null(usage) and not is_null(groq.usage):
                self.stated(groq.usage)
        if not is_null(usage):
            self.answered(payload, usage)

    def _unusual(self, payload: bytes) -> None:
        if payload.strip() == b"[DONE]":
            self.ended = True
            return
        fields: dict[str, Any] = self.strange(payload)
        if not is_null(fields.get("error")):
            self.failed(value_of(fields["error"]))
        if not is_null(fields.get("usage")):
            self.answered(payload, fields["usage"])

    def settle(self) -> None:
        """A usage is final once every answer has finished: some state it with every chunk."""
        self.final = self.ended or (self.finish is not None and not self.open)
