"""OpenAI's streams of typed events: responses, and those of images, transcriptions and speech.

The terminal event of a response carries the whole response, usage and output items included; the others end with an
event that carries the usage alone. Source: OpenAI's API reference, streaming events.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tallystick.wire.facts import UNREADABLE
from tallystick.wire.heard import Heard, fields_of, is_null, value_of


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    delta: str | None = None
    response: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    code: str | None = None
    message: str | None = None
    sequence_number: int = 0


class _Incomplete(msgspec.Struct, gc=False):
    reason: str | None = None


class _Head(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    created_at: float | None = None
    status: str | None = None
    incomplete_details: _Incomplete | None = None
    error: msgspec.Raw = msgspec.Raw()


_event: Final = msgspec.json.Decoder(_Event).decode
_head: Final = msgspec.json.Decoder(_Head).decode
_TERMINAL: Final = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.cancelled", "response.done"}
)
_AUDIO: Final = frozenset({"response.audio.delta", "response.output_audio.delta", "speech.audio.delta"})
_TEXT: Final = ("text.delta", "refusal.delta", "transcript.delta")


class ResponsesHeard(Heard):
    """Hears the events of a response."""

    __slots__ = ()
    calm = b"event: response.output_text.delta\ndata: {"

    def hear(self, payload: bytes) -> None:
        """Takes in the data of one event."""
        try:
            event = _event(payload)
        except UNREADABLE:
            if payload.strip() == b"[DONE]":
                self.ended = True
            else:
                self._terminal(self.strange(payload))
            return
        self.sequence = event.sequence_number + 1
        kind, delta = event.type, event.delta
        if delta is not None:
            if kind.endswith(_TEXT):
                self.text(delta)
            elif kind not in _AUDIO:
                self.unseen(delta)
        elif kind in _TERMINAL:
            self._whole(event.response)
        elif kind == "error" or len(event.error):
            self.failed(value_of(event.error) or {"code": event.code, "message": event.message})
            self.ended = True
        elif not self.started and not is_null(event.response):
            self._begin(event.response)

    def _begin(self, response: msgspec.Raw) -> None:
        self.started = True
        try:
            head = _head(response)
        except UNREADABLE:
            return
        self.model, self.response_id = head.model, head.id
        self.created = int(head.created_at) if head.created_at is not None and abs(head.created_at) < 1e12 else None

    def _terminal(self, fields: dict[str, msgspec.Raw]) -> None:
        """A terminal event that is not as documented may still carry the response."""
        if value_of(fields.get("type")) in _TERMINAL and "response" in fields:
            self._whole(fields["response"])

    def _whole(self, response: msgspec.Raw) -> None:
        self._begin(response)
        self.ended = True
        try:
            head = _head(response)
        except UNREADABLE:
            head = _Head()
        inner = head.incomplete_details.reason if head.incomplete_details is not None else None
        self.finish = inner or head.status
        if not is_null(head.error):
            self.failed(value_of(head.error))
        if len(response):
            self.answered(bytes(response), fields_of(response).get("usage"))

    def settle(self) -> None:
        """Only the terminal event states a usage."""
        self.final = self.ended


class MediaHeard(Heard):
    """Hears the events of an image, a transcription or speech in pieces."""

    __slots__ = ()

    def hear(self, payload: bytes) -> None:
        """Takes in the data of one event."""
        try:
            event = _event(payload)
        except UNREADABLE:
            if payload.strip() == b"[DONE]":
                self.ended = True
            else:
                self.strange(payload)
            return
        self.started = True
        if event.delta is not None and event.type not in _AUDIO:
            self.text(event.delta)
        if not is_null(event.error):
            self.failed(value_of(event.error))
        if not is_null(event.usage):
            self.stated(event.usage)
        if event.type.endswith((".done", ".completed")):
            self.ended, self.finish = True, event.type

    def settle(self) -> None:
        """The last event states the usage."""
        self.final = self.ended
