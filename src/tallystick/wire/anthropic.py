"""Anthropic: messages, whole or as the events of a stream.

Cache reads and writes are outside input, thinking is inside output, web searches are counted in the usage and web
fetches are free. Source: Anthropic's API reference (usage), prompt caching and web search guides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from tallystick.core.usage import Usage
from tallystick.errors import UsageError
from tallystick.wire.context import tiers
from tallystick.wire.format import Format
from tallystick.wire.partition import Count
from tallystick.wire.reading import Reading


class CacheCreation(msgspec.Struct, frozen=True, gc=False):
    """Cache writes by time to live."""

    ephemeral_5m_input_tokens: Count = 0
    ephemeral_1h_input_tokens: Count = 0


class ServerTools(msgspec.Struct, frozen=True, gc=False):
    """Calls of hosted tools that cost a fee."""

    web_search_requests: Count = 0


class Thinking(msgspec.Struct, frozen=True, gc=False):
    """Parts of the output."""

    thinking_tokens: Count = 0


class Iteration(msgspec.Struct, frozen=True, gc=False):
    """One round of sampling within a call."""

    type: str = "message"
    input_tokens: Count = 0
    output_tokens: Count = 0
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_creation: CacheCreation | None = None


class MessageUsage(msgspec.Struct, frozen=True, gc=False):
    """`usage` of a message."""

    input_tokens: Count
    output_tokens: Count
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_creation: CacheCreation | None = None
    server_tool_use: ServerTools | None = None
    output_tokens_details: Thinking | None = None
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None
    iterations: list[Iteration] | None = None


class MessageBody(msgspec.Struct, frozen=True, gc=False):
    """The body of a message."""

    id: str | None = None
    model: str | None = None
    usage: MessageUsage | None = None


class StreamMessage(msgspec.Struct, frozen=True):
    """The message inside `message_start`."""

    id: str | None = None
    model: str | None = None
    usage: dict[str, object] | None = None


class StreamEvent(msgspec.Struct, frozen=True):
    """An event of a stream that may carry usage."""

    type: str = ""
    message: StreamMessage | None = None
    usage: dict[str, object] | None = None


def message_usage(stated: MessageUsage) -> Reading:
    """Reads a message's usage."""
    counts: dict[str, int] = {}
    if stated.input_tokens:
        counts["input"] = stated.input_tokens
    fault = _cache(counts, stated)
    output = stated.output_tokens
    thinking = 0 if stated.output_tokens_details is None else stated.output_tokens_details.thinking_tokens
    context = tiers(stated.service_tier, stated.speed, stated.inference_geo)
    if thinking > output:
        return Reading(
            None, context=context, fault=f"{thinking} thinking tokens are more than the {output} of the output"
        )
    if output > thinking:
        counts["output"] = output - thinking
    if thinking:
        counts["reasoning"] = thinking
    if stated.server_tool_use is not None and stated.server_tool_use.web_search_requests:
        counts["fee:web_search"] = stated.server_tool_use.web_search_requests
    usage = Usage.trusted(counts)
    if stated.iterations:
        usage, others = _iterations(usage, stated.iterations)
        fault = "; ".join(filter(None, (fault, others))) or None
    return Reading(usage, None, context, None, None, None, fault)


def message_body(body: MessageBody) -> Reading:
    """Reads a message."""
    if body.usage is None:
        return Reading(None, body.model, {}, None, None, body.id)
    stated = message_usage(body.usage)
    return Reading(stated.usage, body.model, stated.context, None, None, body.id, stated.fault)


def _cache(counts: dict[str, int], stated: MessageUsage | Iteration) -> str | None:
    """Adds the cache kinds. Where the split by time to live and the total differ, the split stands, what the total has
    beyond it is a write of unknown time to live, and the difference is a fault."""
    if stated.cache_read_input_tokens:
        counts["cache_read"] = stated.cache_read_input_tokens
    written = stated.cache_creation_input_tokens
    split = stated.cache_creation
    if split is None:
        if written:
            counts["cache_write"] = written
        return None
    short, long = split.ephemeral_5m_input_tokens, split.ephemeral_1h_input_tokens
    if written is not None and written > short + long:
        counts["cache_write"] = written - short - long
    if short:
        counts["cache_write_5m"] = short
    if long:
        counts["cache_write_1h"] = long
    if written is None or written == short + long:
        return None
    return f"{written} tokens written to the cache are not {short} for 5 minutes + {long} for 1 hour"


def _iterations(usage: Usage, iterations: list[Iteration]) -> tuple[Usage, str | None]:
    """Adds what the top-level counts leave out.

    A compaction is an extra round whose tokens are billed and appear in `iterations` only (Anthropic's compaction
    guide). Rounds of any other kind (an advisor, say) may be another model's, so they cannot be priced here: a fault.
    """
    faults = []
    for iteration in iterations:
        if iteration.type == "compaction":
            counts: dict[str, int] = {"input": iteration.input_tokens, "output": iteration.output_tokens}
            fault = _cache(counts, iteration)
            if fault is not None:
                faults.append(fault)
            usage = usage + Usage(counts)
        elif iteration.type != "message":
            faults.append(
                f"an iteration of type {iteration.type!r} with {iteration.input_tokens} input and "
                f"{iteration.output_tokens} output tokens is not counted"
            )
    return usage, "; ".join(faults) or None


def stream_usage(events: list[StreamEvent]) -> Reading:
    """Reads the events of a stream that carry usage.

    The usage of `message_delta` is cumulative, so the last value of each field stands and nothing is summed.
    `message_start` states an output of 1 as a placeholder: without a later event the output is a lower bound.
    """
    merged: dict[str, object] = {}
    first = StreamMessage()
    finished = False
    for event in events:
        stated = event.usage
        if event.message is not None:
            first = event.message
            stated = event.message.usage
        merged.update({key: value for key, value in (stated or {}).items() if value is not None})
        finished = finished or event.type == "message_delta"
    if not merged:
        raise UsageError("None of the stream's events carries usage.", todo="Give message_start and message_delta.")
    reading = merged_usage(merged)
    faults = [reading.fault, None if finished else "the stream ended before its output was counted"]
    return msgspec.structs.replace(
        reading, model=first.model, response_id=first.id, fault="; ".join(filter(None, faults)) or None
    )


def merged_usage(merged: Mapping[str, object]) -> Reading:
    """Reads the fields that a stream's events have stated so far, each with its last value. Raises UsageError."""
    try:
        return message_usage(msgspec.convert(merged, MessageUsage))
    except msgspec.ValidationError as error:
        raise UsageError(f"The usage of the stream's events cannot be read: {error}.") from None


_BILLERS: Final = ("anthropic", "aws", "vertex", "azure")

FORMATS: Final = {
    "anthropic.messages": Format(_BILLERS, MessageUsage, MessageBody, message_usage, message_body),
    "anthropic.messages.stream": Format(
        _BILLERS, list[StreamEvent], list[StreamEvent], stream_usage, stream_usage, ((),)
    ),
}
"""The readers of this family, by API."""
