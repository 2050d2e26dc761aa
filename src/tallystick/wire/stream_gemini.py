"""The stream of Gemini: each chunk is a whole response with a part of the text and the usage so far.

The chunk that states a finish reason for every candidate, and the usage, ends the call. Source: Google's reference of
GenerateContentResponse and UsageMetadata.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tallystick.wire.facts import UNREADABLE, RequestFacts
from tallystick.wire.gemini import Candidate, grounding_fees
from tallystick.wire.heard import Heard, is_null, value_of
from tallystick.wire.partition import with_counts


class _Part(msgspec.Struct, gc=False, rename="camel"):
    text: str | None = None
    function_call: msgspec.Raw = msgspec.Raw()
    executable_code: msgspec.Raw = msgspec.Raw()


class _Content(msgspec.Struct, gc=False):
    parts: list[_Part] = []


class _Answer(msgspec.Struct, gc=False, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None
    index: int = 0
    grounding_metadata: msgspec.Raw = msgspec.Raw()


class _Feedback(msgspec.Struct, gc=False, rename="camel"):
    block_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False, rename="camel"):
    candidates: list[_Answer] = []
    usage_metadata: msgspec.Raw = msgspec.Raw()
    prompt_feedback: _Feedback | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: msgspec.Raw = msgspec.Raw()


_chunk: Final = msgspec.json.Decoder(_Chunk).decode
_candidate: Final = msgspec.json.Decoder(Candidate).decode
_MOST_SOURCES: Final = 1000


class GeminiHeard(Heard):
    """Hears chunks."""

    __slots__ = ("_lost", "_sources")

    def __init__(self, facts: RequestFacts, texts: list[str] | None = None) -> None:
        super().__init__(facts, texts)
        self.open = dict.fromkeys(range(min(facts.answers, 128)))
        self._sources: list[Candidate] = []
        self._lost = False

    def hear(self, payload: bytes) -> None:
        """Takes in one chunk."""
        try:
            chunk = _chunk(payload)
        except UNREADABLE:
            fields = self.strange(payload)
            if not is_null(fields.get("usageMetadata")):
                self.stated(fields["usageMetadata"])
            return
        self.started = True
        self.model = chunk.model_version or self.model
        self.response_id = chunk.response_id or self.response_id
        for answer in chunk.candidates:
            self._answer(answer)
        if not is_null(chunk.error):
            self.failed(value_of(chunk.error))
            self.ended = True
        if chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason is not None:
            self.finish = chunk.prompt_feedback.block_reason
            self.open.clear()
        if not is_null(chunk.usage_metadata):
            self.stated(chunk.usage_metadata)
            self.ended = self.ended or not self.open

    def _answer(self, answer: _Answer) -> None:
        for part in answer.content.parts if answer.content is not None else ():
            if part.text:
                self.text(part.text)
            for made in (part.function_call, part.executable_code):
                if not is_null(made):
                    self.text_bytes += len(made)
        if not is_null(answer.grounding_metadata) and len(self._sources) < _MOST_SOURCES:
            try:
                self._sources.append(_candidate(b'{"groundingMetadata":%b}' % bytes(answer.grounding_metadata)))
            except UNREADABLE:
                self._lost = True
        if answer.finish_reason is not None:
            self.finish = answer.finish_reason
            self.open.pop(answer.index, None)

    def settle(self) -> None:
        """Every chunk states the usage so far; it is final when every candidate has finished."""
        self.final = self.finish is not None and not self.open
        if self._lost:
            self.fault = "what the answer is grounded on could not be read, so its fees are not counted"
        if self.reading is not None and self._sources:
            usage = with_counts(self.reading.usage, grounding_fees(self._sources))
            self.reading = msgspec.structs.replace(self.reading, usage=usage)
