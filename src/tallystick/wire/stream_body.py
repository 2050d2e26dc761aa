"""A whole body as the one payload of a call, whatever the API."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tallystick.core.usage import Usage
from tallystick.wire.facts import UNREADABLE, RequestFacts, texts_of
from tallystick.wire.heard import Heard, fields_of, is_null, value_of
from tallystick.wire.reading import Reading

_ANSWERS: Final = (
    "choices", "content", "output", "candidates", "message", "response", "text", "generation", "completion",
    "outputText", "results",
)  # fmt: skip
"""Fields of a body that hold what was generated, in any provider's layout."""


class _Choice(msgspec.Struct, gc=False):
    finish_reason: str | None = None
    gemini: str | None = msgspec.field(default=None, name="finishReason")


class _Incomplete(msgspec.Struct, gc=False):
    reason: str | None = None


class _End(msgspec.Struct, gc=False):
    stop_reason: str | None = None
    converse: str | None = msgspec.field(default=None, name="stopReason")
    finish_reason: str | None = None
    done_reason: str | None = None
    status: str | None = None
    incomplete_details: _Incomplete | None = None
    choices: list[_Choice] = []
    candidates: list[_Choice] = []
    usage: msgspec.Raw = msgspec.Raw()
    metadata: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="usageMetadata")
    error: msgspec.Raw = msgspec.Raw()


_end: Final = msgspec.json.Decoder(_End).decode


class BodyHeard(Heard):
    """Hears one whole body. The generated text is counted only where no usage is stated."""

    __slots__ = ()

    def hear(self, payload: bytes) -> None:
        """Takes in the body."""
        self.started = True
        try:
            end = _end(payload)
        except UNREADABLE:
            end = None
        if end is not None and is_null(end.error):
            usage = end.usage if len(end.usage) else end.metadata
            if not is_null(usage):
                # Nearly every body: where its usage can be read, its text need not be counted.
                self.answered(payload, usage)
                self.finish = _finish(end)
                if self.reading is not None:
                    return
        self._tell(payload, end)

    def _tell(self, payload: bytes, end: _End | None) -> None:
        """Takes in a body that is an error, or states no usage, or is not as documented."""
        fields = fields_of(payload)
        if not is_null(fields.get("error")):
            self.failed(value_of(fields["error"]))
        if fields:
            self.answered(payload, fields.get("usage") or fields.get("usageMetadata"))
            self.finish = None if end is None else _finish(end)
        elif payload.strip() != b"{}":
            self.strange(payload)
        if self.reading is None:
            for text in texts_of([value_of(fields[name]) for name in _ANSWERS if name in fields]):
                self.text(text)

    def settle(self) -> None:
        """A whole body is final once it is there."""
        self.final = self.started


class SpeechHeard(Heard):
    """Spoken audio states no usage: what is billed by the character is counted from the request.

    Source: OpenAI's pricing page, speech models by characters of input. Models billed by tokens have no rate for
    characters, so their cost stays unknown rather than wrong.
    """

    __slots__ = ("_characters",)

    def __init__(self, facts: RequestFacts, texts: list[str] | None = None) -> None:
        super().__init__(facts, texts)
        spoken = facts.payload().get("input")
        self._characters = len(spoken) if isinstance(spoken, str) else 0

    def hear(self, _payload: Any) -> None:
        """Audio says nothing but that it came."""
        self.started = True

    def settle(self) -> None:
        """Whoever got audio pays for the whole input."""
        if self.started and self._characters:
            self.reading = Reading(Usage(characters_input=self._characters))
            self.fault = "the response states no usage; its characters were counted from the request"
            self.final = True


def _finish(end: _End) -> str | None:
    """Why the answer ended, in the provider's word."""
    for choice in (*end.choices, *end.candidates):
        if choice.finish_reason or choice.gemini:
            return choice.finish_reason or choice.gemini
    inner = end.incomplete_details.reason if end.incomplete_details is not None else None
    return end.stop_reason or end.converse or end.finish_reason or end.done_reason or inner or end.status
