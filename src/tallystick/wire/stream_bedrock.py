"""The streams of Bedrock: Converse, and InvokeModel with the model's own chunks inside.

`metadata` comes last and ends a Converse stream; InvokeModel's last chunk carries `amazon-bedrock-invocationMetrics`.
Source: AWS's reference of ConverseStream, InvokeModelWithResponseStream and InvokeModel (response headers).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tallystick.errors import UsageError
from tallystick.wire.eventstream import Frame
from tallystick.wire.facts import UNREADABLE, RequestFacts
from tallystick.wire.heard import Heard, fields_of, is_null, value_of
from tallystick.wire.shapes import api_of
from tallystick.wire.stream_anthropic import MessagesHeard
from tallystick.wire.stream_body import BodyHeard
from tallystick.wire.usage import read_usage


class _ToolUse(msgspec.Struct, gc=False):
    name: str | None = None
    input: str | None = None


class _Reasoning(msgspec.Struct, gc=False):
    text: str | None = None


class _Delta(msgspec.Struct, gc=False, rename="camel"):
    text: str | None = None
    tool_use: _ToolUse | None = None
    reasoning_content: _Reasoning | None = None


class _Event(msgspec.Struct, gc=False, rename="camel"):
    content_block_index: int = 0
    delta: _Delta | None = None
    start: _Delta | None = None
    stop_reason: str | None = None
    usage: msgspec.Raw = msgspec.Raw()


class _Chunk(msgspec.Struct, gc=False):
    inner: bytes = msgspec.field(default=b"", name="bytes")


class _Own(msgspec.Struct, gc=False):
    """What the chunks of models other than Anthropic's call their text, and how they end."""

    text: str | None = None
    generation: str | None = None
    completion: str | None = None
    output_text: str | None = msgspec.field(default=None, name="outputText")
    stop_reason: str | None = None
    completion_reason: str | None = msgspec.field(default=None, name="completionReason")


_event: Final = msgspec.json.Decoder(_Event).decode
_chunk: Final = msgspec.json.Decoder(_Chunk).decode
_own: Final = msgspec.json.Decoder(_Own).decode
_METRICS: Final = "amazon-bedrock-invocationMetrics"
_COUNTS: Final = {
    "inputTokenCount": "x-amzn-bedrock-input-token-count",
    "outputTokenCount": "x-amzn-bedrock-output-token-count",
    "cacheReadInputTokenCount": "x-amzn-bedrock-cache-read-input-token-count",
    "cacheWriteInputTokenCount": "x-amzn-bedrock-cache-write-input-token-count",
}


class ConverseHeard(Heard):
    """Hears the frames of a Converse stream."""

    __slots__ = ()

    def hear(self, payload: Frame) -> None:
        """Takes in one frame."""
        if payload.failed:
            self.failed(payload.kind)
            self.ended = True
            return
        try:
            event = _event(payload.payload)
        except UNREADABLE:
            self.strange(payload.payload)
            return
        kind = payload.kind
        self.started = True
        for delta in (event.delta, event.start):
            if delta is not None:
                self._piece(delta)
        if kind in ("contentBlockDelta", "contentBlockStart"):
            self.open[event.content_block_index] = None
        elif kind == "contentBlockStop":
            self.open.pop(event.content_block_index, None)
        elif kind == "messageStop":
            self.finish = event.stop_reason
        elif kind == "metadata":
            self.ended = True
            self.answered(payload.payload, event.usage)

    def _piece(self, delta: _Delta) -> None:
        if delta.text:
            self.text(delta.text)
        if delta.reasoning_content is not None and delta.reasoning_content.text:
            self.text(delta.reasoning_content.text)
        if delta.tool_use is not None:
            self.unseen(delta.tool_use.name or "")
            self.unseen(delta.tool_use.input or "")

    def settle(self) -> None:
        """Only the metadata states a usage."""
        self.final = self.ended


class InvokeHeard(MessagesHeard):
    """Hears the frames of a model's own stream. Anthropic's chunks are its usual events; of other models' chunks the
    text and Bedrock's own counts are taken."""

    __slots__ = ("_measured",)

    def __init__(self, facts: RequestFacts, texts: list[str] | None = None) -> None:
        super().__init__(facts, texts)
        self._measured = False

    def hear(self, payload: Any) -> None:
        """Takes in one frame."""
        frame: Frame = payload
        if frame.failed:
            self.failed(frame.kind)
            self.ended = True
            return
        try:
            inner = _chunk(frame.payload).inner
        except UNREADABLE:
            self.strange(frame.payload)
            return
        fields = fields_of(inner)
        if isinstance(value_of(fields.get("type")), str):
            super().hear(inner)
        elif inner:
            self._other(inner)
        if self._merged:
            self.api = "anthropic.messages"
        elif not is_null(fields.get(_METRICS)):
            self.stated(fields[_METRICS])
            self._measured = self.ended = True

    def _other(self, inner: bytes) -> None:
        self.started = True
        try:
            own = _own(inner)
        except UNREADABLE:
            self.strange(inner)
            return
        self.finish = own.stop_reason or own.completion_reason or self.finish
        texts = [text for text in (own.text, own.generation, own.completion, own.output_text) if text is not None]
        for text in texts:
            self.text(text)
        if not texts and _METRICS.encode() not in inner:
            self.text_bytes += len(inner)

    def settle(self) -> None:
        """Bedrock's own counts are final; Anthropic's are when its stream says so."""
        super().settle()
        self.final = self.final or self._measured


class InvokeBodyHeard(BodyHeard):
    """Hears a model's own whole body. Its usage is read by its keys, whoever the maker is; without one, Bedrock's
    counts in the response's headers stand."""

    __slots__ = ("_headers",)

    def __init__(self, facts: RequestFacts, texts: list[str] | None, headers: Mapping[str, str]) -> None:
        super().__init__(facts, texts)
        self._headers = headers

    def answered(self, body: bytes, usage: Any = None) -> None:
        """Takes in the usage of the body, or the headers'."""
        fields = fields_of(body)
        for name in ("id", "model"):
            if isinstance(said := value_of(fields.get(name)), str):
                setattr(self, "response_id" if name == "id" else name, said)
        stated = value_of(usage)
        if isinstance(stated, dict):
            try:
                api = api_of("aws", stated)
                self.take(read_usage(api, stated), usage)
                self.api = api
            except UsageError as error:
                self.fault = f"a usage could not be read: {error}"[:200]
        counts = {
            name: int(count)
            for name, header in _COUNTS.items()
            if (count := self._headers.get(header, "")).isascii() and count.isdigit()
        }
        if self.reading is None and "inputTokenCount" in counts:
            self.stated(msgspec.json.encode(counts))
