"""The stream of Anthropic's messages.

`message_start` states the input and a placeholder for the output, `message_delta` cumulative counts, of which the last
stand; `message_stop` ends the call. Source: Anthropic's guide on streaming messages.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tallystick.errors import UsageError
from tallystick.wire.anthropic import merged_usage
from tallystick.wire.facts import UNREADABLE, RequestFacts
from tallystick.wire.heard import RAW_LIMIT, Heard, is_null, value_of


class _Delta(msgspec.Struct, gc=False):
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _Block(msgspec.Struct, gc=False):
    text: str | None = None
    name: str | None = None


class _Message(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    usage: msgspec.Raw = msgspec.Raw()


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    index: int | None = None
    delta: _Delta | None = None
    content_block: _Block | None = None
    message: _Message | None = None
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


_event: Final = msgspec.json.Decoder(_Event).decode


class MessagesHeard(Heard):
    """Hears the events of a stream."""

    __slots__ = ("_counted", "_merged")
    calm = b"event: content_block_delta\ndata: {"

    def __init__(self, facts: RequestFacts, texts: list[str] | None = None) -> None:
        super().__init__(facts, texts)
        self._merged: dict[str, object] = {}
        self._counted = False

    def hear(self, payload: bytes) -> None:
        """Takes in the data of one event."""
        try:
            event = _event(payload)
        except UNREADABLE:
            fields = self.strange(payload)
            if not is_null(fields.get("error")):
                self.failed(value_of(fields["error"]))
            if not is_null(fields.get("usage")):
                self._merge(fields["usage"])
            return
        delta = event.delta
        if event.type == "content_block_delta":
            if delta is not None:
                self._piece(delta)
        else:
            self._mark(event)

    def _piece(self, delta: _Delta) -> None:
        if delta.text:
            self.text(delta.text)
        elif delta.thinking:
            self.text(delta.thinking)
        elif delta.partial_json:
            self.unseen(delta.partial_json)

    def _mark(self, event: _Event) -> None:
        """Everything but text: what begins, what ends, what was counted."""
        kind = event.type
        if kind == "content_block_start":
            self.open[event.index or 0] = None
            block = event.content_block or _Block()
            self.text(block.text or "")
            self.unseen(block.name or "")
        elif kind == "content_block_stop":
            self.open.pop(event.index or 0, None)
        elif kind == "message_start" and event.message is not None:
            self.started = True
            self.model, self.response_id = event.message.model, event.message.id
            self._merge(event.message.usage)
        elif kind == "message_delta":
            if event.delta is not None and event.delta.stop_reason is not None:
                self.finish = event.delta.stop_reason
            if not is_null(event.usage):
                self._counted = True
                self._merge(event.usage)
        elif kind == "message_stop":
            self.ended = True
        elif kind == "error":
            self.failed(value_of(event.error))
            self.ended = True

    def _merge(self, usage: Any) -> None:
        stated = value_of(usage)
        if not isinstance(stated, dict):
            return
        self._merged.update({key: value for key, value in stated.items() if value is not None})
        try:
            self.take(merged_usage(self._merged))
        except UsageError as error:
            self.fault = str(error)[:RAW_LIMIT]

    def settle(self) -> None:
        """The output is counted by the last `message_delta`; before it there is only a placeholder."""
        self.final = self._counted and self.finish is not None
        if self._merged:
            raw = msgspec.json.encode(self._merged)
            self.raw = raw if len(raw) <= RAW_LIMIT else None
