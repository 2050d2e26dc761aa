"""OpenCode: one JSON object per message, in its database or in one file each.

Cached and cache-written tokens are outside input. Reasoning was inside output until the tool began to take it out; the
stated total tells which. A fork copies messages under new ids, so what identifies a call is when it was made and what
it used, not its id.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from tallystick.core.usage import Usage
from tallystick.errors import UsageError
from tallystick.wire.logs.lines import ABSURD, LogCall, biller, lenient
from tallystick.wire.partition import Count
from tallystick.wire.reading import Reading

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = 2**43


class Cache(msgspec.Struct, frozen=True, gc=False):
    """Tokens of the cache."""

    read: Count = 0
    write: Count = 0


class Tokens(msgspec.Struct, frozen=True, gc=False):
    """The counts of a message."""

    input: Count = 0
    output: Count = 0
    reasoning: Count = 0
    cache: Cache = Cache()
    total: Count | None = None


class Times(msgspec.Struct, frozen=True, gc=False):
    """Milliseconds since 1970."""

    created: float | None = None
    completed: float | None = None


class Model(msgspec.Struct, frozen=True, gc=False):
    """The model, as newer versions write it."""

    id: str | None = None
    provider_id: str | None = msgspec.field(default=None, name="providerID")


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where the tool was at work."""

    root: str | None = None


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message."""

    session_id: str | None = msgspec.field(default=None, name="sessionID")
    role: str = "assistant"
    model_id: str | None = msgspec.field(default=None, name="modelID")
    provider_id: str | None = msgspec.field(default=None, name="providerID")
    model: Model | None = None
    tokens: Tokens | None = None
    time: Times | None = None
    path: Place | None = None
    agent: str | None = None


_DECODE: Final = msgspec.json.Decoder(Message).decode


def read_message(data: bytes, session: str | None = None, project: str | None = None) -> LogCall | None:
    """The call that a message tells of; None where it tells of none or is not finished yet. Raises UsageError for one
    that cannot be read."""
    try:
        found = _DECODE(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        found = lenient(data, Message)
    tokens, times, model = found.tokens, found.time, found.model or Model()
    if found.role != "assistant" or tokens is None or times is None or times.created is None or times.completed is None:
        return None
    size = tokens.input + tokens.output + tokens.cache.read + tokens.cache.write + tokens.reasoning
    if not size:
        return None
    if not 0 <= times.created < _LATEST:
        raise UsageError(ABSURD)
    name = found.model_id or model.id or "unknown"
    stated = found.provider_id or model.provider_id
    counts = (tokens.input, tokens.output, tokens.reasoning, tokens.cache.read, tokens.cache.write)
    return LogCall(
        key=f"{times.created:.0f} {times.completed:.0f} {name} {counts}",
        at=_EPOCH + timedelta(milliseconds=times.created),
        model=name,
        usage=tokens,
        size=size,
        provider=biller(stated),
        project=project or (found.path.root if found.path is not None else None),
        session=session or found.session_id,
        quality="estimated" if tokens.reasoning and tokens.total is None else "exact",
    )


def reading_of(call: LogCall) -> Reading:
    """What a call's usage says."""
    tokens: Tokens = call.usage
    cache = tokens.cache
    plain = tokens.input + tokens.output + cache.read + cache.write
    added = tokens.total == plain + tokens.reasoning or tokens.reasoning > tokens.output
    output = tokens.output if added else tokens.output - tokens.reasoning
    usage = Usage(
        input=tokens.input,
        cache_read=cache.read,
        cache_write=cache.write,
        output=output,
        reasoning=tokens.reasoning,
    )
    return Reading(usage, call.model)
