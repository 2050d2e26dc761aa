"""Answer: what the simulated provider says to one call, and what goes wrong on the way. A script chooses answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import msgspec

from tallystick.errors import InputError
from tallystick.simulator.request import Request

Finish = Literal["stop", "length", "tool_calls", "content_filter"]
"""Why an answer ends, in OpenAI's words; every other format says it in its own."""

UsageShape = Literal["normal", "missing", "null", "inside", "twice"]
"""How usage is stated: as the provider documents it; not at all; as null; in a chunk that has choices; twice."""

Writes = Literal["events", "bytes", "odd"]
"""How the body is cut into writes: one for each event; one for each byte; at seeded places, within characters too."""

STATUSES: Final = (200, 400, 401, 403, 404, 408, 409, 413, 429, 500, 502, 503, 529)
"""Statuses for which each provider's own error shape is known."""


class Function(msgspec.Struct, frozen=True):
    """A function that the model asks the caller to run; `arguments` is a JSON object as text. Raises InputError
    for anything else."""

    name: str
    arguments: str = "{}"

    def __post_init__(self) -> None:
        try:
            given = msgspec.json.decode(self.arguments)
        except msgspec.DecodeError:
            given = None
        if not isinstance(given, dict):
            raise InputError(f"The arguments of {self.name} must be a JSON object as text, not {self.arguments!r}.")


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One answer. Everything has a default; a plain `Answer()` repeats what it was asked.

    Counts are tokens and never overlap with text that is not theirs: `input_tokens` is the whole prompt, cached and
    written tokens inside it; `output_tokens` is the text alone, reasoning and audio beside it. Each provider's own
    arithmetic (inside or outside, added or not) is done when the answer is written. A kind that an API cannot state is
    counted as plain input or output there. The caller's own limit of output tokens is kept: the answer is cut and ends
    with `length`. Times are milliseconds. Raises InputError for values that contradict each other.

    text             what is said; None makes a text of `output_tokens` tokens from `seed`, or repeats the question
    output_tokens    None counts the text with the model's tokenizer
    input_tokens     None counts the prompt with the model's tokenizer and adds `hidden_tokens`
    tools            hosted tools that cost a fee, and how often each ran: {"web_search": 2}
    functions        functions that the caller is asked to run
    cost             what OpenRouter says that the call cost, in US dollars as decimal text
    status           an error status is answered `failures` times to the same request, then the answer; None: always
    headers          more response headers
    chunks           in how many pieces the text is streamed; None: pieces of `chunk_tokens` words
    cut_after        the connection is closed after this many events; `cut_inside`: within the next one
    error_after      a stream ends with the provider's own error event after this many events
    ids              the provider's ids: one for each call, the same for all, or none
    encoding         content encoding of the body, where the client accepts it
    polls            how often a background response says that it is in progress before it is complete
    """

    text: str | None = None
    output_tokens: int | None = None
    input_tokens: int | None = None
    hidden_tokens: int = 0
    cached_tokens: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    audio_seconds: int | None = None
    images: int = 1
    dimensions: int = 8
    service_tier: str | None = None
    tools: Mapping[str, int] = {}
    functions: tuple[Function, ...] = ()
    cost: str | None = None
    upstream_cost: str | None = None
    byok: bool = False
    finish: Finish = "stop"
    seed: int = 0
    usage: UsageShape = "normal"

    status: int = 200
    failures: int | None = None
    message: str | None = None
    headers: Mapping[str, str] = {}

    first_byte_ms: float = 0
    chunk_ms: float = 0
    chunks: int | None = None
    chunk_tokens: int = 1
    writes: Writes = "events"
    cut_after: int | None = None
    cut_inside: bool = False
    error_after: int | None = None

    ids: Literal["unique", "same", "missing"] = "unique"
    crlf: bool = False
    comments: bool = False
    pings: bool = False
    retry_ms: int | None = None
    obfuscation: bool = False
    encoding: Literal["gzip", "br", "zstd"] | None = None
    polls: int = 0

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in _COUNTS}
        for name, count in (*counts.items(), *self.tools.items()):
            if count is not None and (type(count) is not int or count < 0):
                raise InputError(f"{name} of an answer must be a whole number from 0, not {count!r}.")
        parts = self.cached_tokens + self.cache_write_5m + self.cache_write_1h + self.audio_input_tokens
        if self.input_tokens is not None and parts > self.input_tokens:
            raise InputError(
                f"Cached, written and audio tokens ({parts}) are more than the {self.input_tokens} input tokens.",
                todo="input_tokens is the whole prompt; raise it or leave it out.",
            )
        if self.status not in STATUSES:
            raise InputError(f"{self.status} is not a status of a simulated answer.", todo=f"Use one of {STATUSES}.")
        if self.status == 200 and self.failures is not None:
            raise InputError("failures says how often an error comes first; the answer needs an error status.")
        for name, amount in (("cost", self.cost), ("upstream_cost", self.upstream_cost)):
            if amount is not None and _DECIMAL.fullmatch(amount) is None:
                raise InputError(f"{name} must be decimal text such as 0.0125, not {amount!r}.")
        if min(self.first_byte_ms, self.chunk_ms) < 0:
            raise InputError("A delay cannot be negative.")

    @property
    def key(self) -> bytes:
        """The answer as bytes: equal for equal answers."""
        return _encoder.encode(self)


_COUNTS: Final = (
    "output_tokens", "input_tokens", "hidden_tokens", "cached_tokens", "cache_write_5m", "cache_write_1h",
    "reasoning_tokens", "audio_input_tokens", "audio_output_tokens", "audio_seconds", "images", "dimensions",
    "failures", "chunks", "chunk_tokens", "cut_after", "error_after", "retry_ms", "polls",
)  # fmt: skip
_DECIMAL: Final = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]+)?", re.ASCII)
_encoder: Final = msgspec.json.Encoder(order="deterministic")

Script = Answer | Sequence[Answer] | Callable[[Request], Answer]
"""Which answer a call gets: always the same one, one after the other, or what a function says. A list that has run out
answers with an error that says so."""
