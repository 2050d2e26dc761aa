"""Reader: the bytes of one response in, progress and at the end the outcome out. No I/O, no clock.

The format's own end (`[DONE]`, message_stop, response.completed, a last chunk, a metadata frame) ends a call, not the
end of the bytes: clients close there, and the call has to be settled before they are told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from tallystick.core.usage import Usage
from tallystick.wire.encodings import Inflater
from tallystick.wire.eventstream import EventStream
from tallystick.wire.facts import RequestFacts
from tallystick.wire.frames import Framing, Lines, Objects, Passing, Whole
from tallystick.wire.heard import Ending, Heard, Outcome
from tallystick.wire.reading import Reading
from tallystick.wire.sse import LIMIT, Sse
from tallystick.wire.stream_anthropic import MessagesHeard
from tallystick.wire.stream_bedrock import ConverseHeard, InvokeBodyHeard, InvokeHeard
from tallystick.wire.stream_body import BodyHeard, SpeechHeard
from tallystick.wire.stream_chat import ChatHeard
from tallystick.wire.stream_gemini import GeminiHeard
from tallystick.wire.stream_openai import MediaHeard, ResponsesHeard
from tallystick.wire.stream_other import CohereHeard, OllamaHeard


class Progress(msgspec.Struct, frozen=True, gc=False):
    """What one read has brought. `output_bytes` is the length of the generated text in it, in UTF-8: an upper bound of
    its tokens for byte-level encodings. `text_delta` is that text where it was asked for, otherwise empty. `usage` is
    the usage so far where this read stated one. `ended` is true once the format's own end has been seen."""

    text_delta: str
    output_bytes: int
    usage: Usage | None
    ended: bool


class Reader:
    """Reads one response. Made by `reader_for`; none of its methods ever raises, whatever the bytes."""

    __slots__ = (
        "_all", "_expected", "_framing", "_hear", "_heard", "_inflater", "_outcome", "_pieces", "_reading", "_status",
        "_texts", "made", "response_bytes",
    )  # fmt: skip

    def __init__(
        self,
        heard: Heard,
        framing: Framing,
        *,
        status: int = 200,
        inflater: Inflater | None = None,
        expected: int | None = None,
        texts: list[str] | None = None,
    ) -> None:
        self._heard = heard
        self._framing = framing
        self._status = status
        self._inflater = inflater
        self._expected = expected
        self._texts = texts
        self._all = False
        self._outcome: Outcome | None = None
        self._reading: Reading | None = None
        self._pieces, self._hear = framing.feed, heard.hear
        self.response_bytes = self.made = 0

    @property
    def ended(self) -> bool:
        """Whether the format's own end has been seen."""
        return self._heard.ended

    @property
    def usage(self) -> Usage | None:
        """The usage so far, where the latest read stated one."""
        reading = self._heard.reading
        return None if reading is None or reading is self._reading else reading.usage

    @property
    def calm(self) -> bytes:
        """How reads begin that bring text and never an end, where each is one event. Several of them may be joined and
        taken at once, later. Empty where every read has to be taken as it comes."""
        return self._heard.calm if self._inflater is None and isinstance(self._framing, Sse) else b""

    def take(self, data: bytes) -> bool:
        """Takes in the next bytes of the body as they came off the wire, for those who want no more of each read than
        `made`, the length of the generated text in it. True when it brought more than text: then see `usage` and
        `ended`."""
        heard = self._heard
        before, ended = heard.text_bytes, heard.ended
        reading = self._reading = heard.reading
        if self._outcome is None:
            size = len(data)
            if size == self._expected and not self.response_bytes and self._inflater is None and 0 < size <= LIMIT:
                # Nearly every body that is no stream: it is whole as it came.
                self.response_bytes, self._all = size, True
                heard.hear(data)
                heard.ended = True
                self.made = heard.text_bytes - before
                return True
            self.response_bytes += size
            if self._inflater is not None:
                data = self._inflater.feed(data)
            hear = self._hear
            for payload in self._pieces(data):
                hear(payload)
            if self._expected is not None and self.response_bytes >= self._expected and not heard.ended:
                self._complete()
        self.made = heard.text_bytes - before
        return heard.reading is not reading or heard.ended is not ended

    def take_calm(self, reads: list[bytes]) -> bool:
        """Takes in reads that begin as `calm` says and are one event of one line each, all of which wait since; like
        `take` otherwise."""
        framing, heard = self._framing, self._heard
        if self._outcome is not None or not isinstance(framing, Sse) or not framing.resting:
            return self.take(b"".join(reads))
        before, ended = heard.text_bytes, heard.ended
        reading = self._reading = heard.reading
        start, hear = len(heard.calm) - 1, self._hear
        for data in reads:
            hear(data[start:-2])
        self.response_bytes += sum(map(len, reads))
        self.made = heard.text_bytes - before
        return heard.reading is not reading or heard.ended is not ended

    def feed(self, data: bytes) -> Progress | None:
        """Takes in the next bytes of the body as they came off the wire; None when they bring nothing to tell."""
        if not self.take(data) and not self.made:
            return None
        text = ""
        if self._texts:
            text = "".join(self._texts)
            self._texts.clear()
        return Progress(text, self.made, self.usage, self._heard.ended)

    def close(self, reason: str = "end") -> Outcome:
        """The outcome. `reason` says why no more bytes come: `end` of the bytes, `cut` by us, `cancelled` by the
        caller, `error` of the connection. The first call decides; later ones give the same outcome."""
        if self._outcome is not None:
            return self._outcome
        heard = self._heard
        if not self._all:
            if reason == "end":
                self._complete()
            else:
                self._flush()
        heard.settle()
        faults = []
        if getattr(self._framing, "overflow", False):
            faults.append(f"the body or one of its events is larger than {LIMIT} bytes, so not all of it was read")
        for part in (self._framing, self._inflater):
            fault = getattr(part, "fault", None)
            if fault:
                faults.append(fault)
        self._outcome = heard.outcome(reason, self._status, self.response_bytes, faults)
        return self._outcome

    def ending(self) -> Ending:
        """What an event that ends this stream early must fit to; for `answers.end_event`."""
        return self._heard.ending()

    def _complete(self) -> None:
        self._flush()
        if isinstance(self._framing, Whole):
            self._heard.ended = True

    def _flush(self) -> None:
        """What is left at the end counts only if it is whole: the rest of a cut event is no event."""
        for payload in self._framing.flush():
            if isinstance(self._framing, Whole) or _is_whole(payload):
                self._heard.hear(payload)


def _is_whole(payload: bytes) -> bool:
    try:
        msgspec.json.decode(payload, type=msgspec.Raw)
    except msgspec.DecodeError:
        return payload.strip() == b"[DONE]"
    return True


_EVENTS: Final[Mapping[str, type[Heard]]] = {
    "anthropic.messages": MessagesHeard,
    "openai.responses": ResponsesHeard,
    "xai.responses": ResponsesHeard,
    "gemini.generateContent": GeminiHeard,
    "openai.images": MediaHeard,
    "openai.audio.transcriptions": MediaHeard,
    "openai.audio.speech": MediaHeard,
    "cohere.chat": CohereHeard,
    "ollama.chat": OllamaHeard,
}
"""Who hears the streams of an API; every other one is chat."""

_FRAMES: Final[Mapping[str, type[Heard]]] = {"bedrock.converse": ConverseHeard, "bedrock.invoke": InvokeHeard}
_EVENT_STREAM: Final = "text/event-stream"
_BINARY: Final = "application/vnd.amazon.eventstream"


def reader_for(
    facts: RequestFacts,
    status: int,
    headers: Mapping[str, str],
    *,
    want_text: bool = False,
    texts: list[str] | None = None,
) -> Reader:
    """The reader of a response, chosen by what was asked and by how the response says it comes.

    `headers` are those of the response, looked up by their names in lower case. With `want_text` each progress carries
    the text it brought. Who uses `take` may give `texts`, to which each piece is added.
    """
    if want_text and texts is None:
        texts = []
    heard: Heard | None = None
    if facts.stream and status < 400:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        heard, framing = _stream(facts, kind, texts)
    expected: int | None = None
    if heard is None:
        heard = _body(facts, status, headers, texts)
        framing = Passing() if isinstance(heard, SpeechHeard) else Whole()
        if isinstance(framing, Whole):
            expected = _length(headers.get("content-length", ""))
    inflater: Inflater | None = None
    if "content-encoding" in headers:
        encoding = headers["content-encoding"].strip().lower()
        inflater = Inflater(encoding) if encoding not in ("", "identity") else None
    return Reader(heard, framing, status=status, inflater=inflater, expected=expected, texts=texts)


def _length(text: str) -> int | None:
    return int(text) if len(text) <= _DIGITS and text.isascii() and text.isdigit() else None


_DIGITS: Final = 18


def _stream(facts: RequestFacts, kind: str, texts: list[str] | None) -> tuple[Heard | None, Framing]:
    """Who hears a stream, and how it is framed; nobody where the response is no stream after all."""
    api = facts.api
    if api in _FRAMES:
        return (_FRAMES[api](facts, texts), EventStream()) if kind in (_BINARY, "") else (None, Whole())
    heard = _EVENTS.get(api, ChatHeard)
    if kind == _EVENT_STREAM:
        return heard(facts, texts), Sse()
    if api == "gemini.generateContent":
        return heard(facts, texts), Objects()
    if api == "ollama.chat" or kind.endswith(("+json", "ndjson")):
        return heard(facts, texts), Lines()
    if kind == "application/json" or kind.startswith(("audio/", "image/")) or heard is MediaHeard:
        return None, Whole()
    return heard(facts, texts), Sse()


def _body(facts: RequestFacts, status: int, headers: Mapping[str, str], texts: list[str] | None) -> Heard:
    if facts.api == "bedrock.invoke":
        return InvokeBodyHeard(facts, texts, headers)
    if facts.api == "openai.audio.speech" and status < 400:
        return SpeechHeard(facts, texts)
    return BodyHeard(facts, texts)
