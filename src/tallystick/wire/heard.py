"""Heard: what the payloads of one call have said so far, whatever the API; and the outcome that comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec

from tallystick.core.money import Money
from tallystick.core.usage import Usage
from tallystick.errors import UsageError
from tallystick.wire.facts import UNREADABLE, RequestFacts
from tallystick.wire.reading import Reading
from tallystick.wire.usage import read_response, read_usage

RAW_LIMIT: Final = 4096
"""Bytes of a provider's usage object that an outcome keeps; a larger one is left out."""

_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_value: Final = msgspec.json.Decoder().decode
_WORD: Final = 200


class Outcome(msgspec.Struct, frozen=True):
    """What a call came to.

    `usage` is None when the response stated none. `quality` is `exact` for a final usage without contradiction,
    `estimated` for a final one with a `fault`, `lower_bound` for a usage that was not final, or for delivered text
    without usage, and `unknown` where there is neither. `model`, `response_id` and `finish` are the provider's own
    words; `context` is what decides the price, as served. `reported` is the cost of this very call where it is stated,
    `upstream` a second bill. `text_bytes` is the length of the generated text in UTF-8 (an upper bound where an event
    could not be read), `response_bytes` that of the body as it came. `ended` says that the format's own end was seen;
    `reason` is why the reader was closed. `error` is the provider's word for what failed. `unread` counts events that
    were not as documented. `usage_raw` is the provider's usage object, up to 4 KiB.
    """

    api: str
    usage: Usage | None
    quality: str
    reason: str
    status: int
    model: str | None = None
    response_id: str | None = None
    context: Mapping[str, str] = {}
    reported: Money | None = None
    upstream: Money | None = None
    finish: str | None = None
    error: str | None = None
    fault: str | None = None
    ended: bool = False
    text_bytes: int = 0
    response_bytes: int = 0
    unread: int = 0
    usage_raw: bytes | None = None

    @property
    def fees(self) -> dict[str, int]:
        """The fees inside the usage, by name: `{"fee:web_search": 2}`."""
        return {kind: count for kind, count in (self.usage or {}).items() if kind.startswith("fee:")}


class Ending(msgspec.Struct, frozen=True):
    """What a final event of our own must fit to: the ids of the stream that it ends, the parts that are still open
    (content blocks, or the indexes of answers), the number of the next event, and the tokens counted so far."""

    model: str | None = None
    response_id: str | None = None
    created: int | None = None
    open_parts: tuple[int, ...] = ()
    sequence: int = 0
    started: bool = False
    input_tokens: int = 0
    output_tokens: int = 0


class Heard:
    """The common part. A subclass hears one format's payloads and fills the attributes; `texts` collects the text
    pieces when they are wanted. `calm` is how the reads begin that may wait: those that bring pieces of text, never an
    end. Never raises, whatever the payload."""

    calm: ClassVar[bytes] = b""

    __slots__ = (
        "api", "context", "created", "ended", "error", "fault", "final", "finish", "model", "open", "raw", "reading",
        "response_id", "sequence", "started", "text_bytes", "texts", "unread",
    )  # fmt: skip

    def __init__(self, facts: RequestFacts, texts: list[str] | None = None) -> None:
        self.api = facts.api
        self.context: dict[str, str] = dict(facts.context)
        self.texts = texts
        self.text_bytes = 0
        self.reading: Reading | None = None
        self.raw: bytes | None = None
        self.final = self.ended = self.started = False
        self.model: str | None = None
        self.response_id: str | None = None
        self.created: int | None = None
        self.finish: str | None = None
        self.error: str | None = None
        self.fault: str | None = None
        self.open: dict[int, None] = {}
        self.sequence = 0
        self.unread = 0

    def hear(self, payload: Any) -> None:
        """Takes in one payload of the format's framing."""
        raise NotImplementedError

    def text(self, piece: str) -> None:
        """Counts a piece of generated text."""
        # surrogatepass: JSON may spell half a character, and it counts as its three bytes.
        self.text_bytes += len(piece) if piece.isascii() else len(piece.encode("utf-8", "surrogatepass"))
        texts = self.texts
        if texts is not None:
            texts.append(piece)

    def unseen(self, piece: str) -> None:
        """Counts a piece that is generated but is no text for a reader: the arguments of a tool."""
        self.text_bytes += len(piece.encode("utf-8", "surrogatepass"))

    def strange(self, payload: bytes) -> dict[str, msgspec.Raw]:
        """Takes in a payload that is not as documented: all of it may be text. Its fields, if it has any."""
        self.unread += 1
        self.text_bytes += len(payload)
        return fields_of(payload)

    def stated(self, usage: Any) -> None:
        """Takes in a usage object, as raw JSON; the last one stands."""
        try:
            self.take(read_usage(self.api, _value(usage)), usage)
        except (UsageError, *UNREADABLE) as error:
            self.fault = f"a usage could not be read: {error}"[:_WORD]

    def answered(self, body: bytes, usage: Any = None) -> None:
        """Takes in a payload with the shape of a whole response."""
        try:
            self.take(read_response(self.api, body), usage)
        except (UsageError, *UNREADABLE) as error:
            self.fault = f"a usage could not be read: {error}"[:_WORD]

    def take(self, reading: Reading, usage: Any = None) -> None:
        """Takes in a reading; one without usage adds only names and context."""
        self.model = reading.model or self.model
        self.response_id = reading.response_id or self.response_id
        self.context.update(reading.context)
        if reading.usage is not None or reading.fault is not None:
            self.reading = reading
            self.fault = None
            self.raw = None if usage is None or len(usage) > RAW_LIMIT else bytes(usage)

    def failed(self, error: Any) -> None:
        """Takes in an error object or text: the most telling word of it."""
        said = error
        if isinstance(error, dict):
            said = next(
                (error[key] for key in ("type", "status", "code", "message") if isinstance(error.get(key), str)), None
            )
        self.error = said[:_WORD] if isinstance(said, str) and said else "error"

    def settle(self) -> None:
        """Called once at the end, before the outcome is made."""

    def ending(self) -> Ending:
        """What an event that ends this stream early must fit to."""
        usage = self.reading.usage if self.reading is not None else None
        return Ending(
            self.model,
            self.response_id,
            self.created,
            tuple(self.open),
            self.sequence,
            self.started,
            usage.input_tokens if usage else 0,
            usage.output_tokens if usage else 0,
        )

    def outcome(self, reason: str, status: int, response_bytes: int, faults: list[str]) -> Outcome:
        """What all that was heard comes to; `faults` are those of the framing."""
        reading = self.reading or Reading(None)
        own = [self.fault] if self.fault else []
        fault = "; ".join([text for text in (reading.fault, *own, *faults) if text]) or None
        if reading.usage is None:
            quality = "lower_bound" if self.text_bytes or (faults and response_bytes) else "unknown"
        elif not self.final:
            quality = "lower_bound"
        else:
            quality = "estimated" if reading.fault or own else "exact"
        return Outcome(
            self.api, reading.usage, quality, reason, status, self.model, self.response_id, self.context,
            reading.reported, reading.upstream, self.finish, self.error, fault, self.ended, self.text_bytes,
            response_bytes, self.unread, self.raw,
        )  # fmt: skip


def fields_of(payload: Any) -> dict[str, msgspec.Raw]:
    """The fields of a JSON object, undecoded; empty for anything else."""
    try:
        return _fields(payload)
    except UNREADABLE:
        return {}


def value_of(raw: Any) -> Any:
    """A JSON value; None for what is not JSON."""
    try:
        return _value(raw) if raw is not None else None
    except UNREADABLE:
        return None


def is_null(raw: Any) -> bool:
    """Whether a raw field is absent or null."""
    return raw is None or (len(raw) in (0, 4) and bytes(raw) in (b"", b"null"))
