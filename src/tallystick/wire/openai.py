"""OpenAI: chat, responses, embeddings, images, transcriptions and realtime.

Cached, cache-written, audio and image tokens are inside input; reasoning is inside output. Source: OpenAI's API
reference (usage objects) and its prompt-caching and reasoning guides.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import msgspec

from tallystick.core.usage import Usage
from tallystick.wire.context import ITEM_FEES, tiers
from tallystick.wire.format import Body, Format, body_reader
from tallystick.wire.partition import Count, InputDetails, OutputDetails, milliseconds, partition, with_counts
from tallystick.wire.reading import Reading

_WEB_SEARCH: Final = "web_search_call"


class ChatUsage(msgspec.Struct, frozen=True, gc=False):
    """`usage` of a chat completion."""

    prompt_tokens: Count
    completion_tokens: Count = 0
    total_tokens: Count | None = None
    prompt_tokens_details: InputDetails | None = None
    completion_tokens_details: OutputDetails | None = None


class ResponsesUsage(msgspec.Struct, frozen=True, gc=False):
    """`usage` of a response or a generated image."""

    input_tokens: Count
    output_tokens: Count = 0
    total_tokens: Count | None = None
    input_tokens_details: InputDetails | None = None
    output_tokens_details: OutputDetails | None = None


class EmbeddingsUsage(msgspec.Struct, frozen=True, gc=False):
    """`usage` of an embedding."""

    prompt_tokens: Count
    total_tokens: Count | None = None


class AudioUsage(msgspec.Struct, frozen=True, gc=False):
    """`usage` of a transcription (`type`: tokens or duration) or of a realtime response."""

    input_tokens: Count | None = None
    output_tokens: Count = 0
    total_tokens: Count | None = None
    seconds: Decimal | None = None
    input_token_details: InputDetails | None = None
    output_token_details: OutputDetails | None = None


class Action(msgspec.Struct, frozen=True, gc=False):
    """What a hosted tool did."""

    type: str | None = None


class OutputItem(msgspec.Struct, frozen=True, gc=False):
    """One item of a response's output."""

    type: str = ""
    action: Action | None = None
    container_id: str | None = None


class Tool(msgspec.Struct, frozen=True, gc=False):
    """A tool as the response repeats it."""

    type: str = ""
    search_context_size: str | None = None


class ResponsesBody(msgspec.Struct, frozen=True, gc=False):
    """The body of a response."""

    id: str | None = None
    model: str | None = None
    usage: ResponsesUsage | None = None
    service_tier: str | None = None
    output: list[OutputItem] = []
    tools: list[Tool] = []


class ImagesBody(msgspec.Struct, frozen=True, gc=False):
    """The body of an image generation."""

    usage: ResponsesUsage | None = None
    data: list[msgspec.Raw] | None = None
    size: str | None = None


class TranscriptionBody(msgspec.Struct, frozen=True, gc=False):
    """The body of a transcription; `duration` is there in the verbose form."""

    usage: AudioUsage | None = None
    duration: Decimal | None = None


class RealtimeEvent(msgspec.Struct, frozen=True, gc=False):
    """The `response.done` event."""

    response: Body[AudioUsage] | None = None


def chat_usage(stated: ChatUsage) -> Reading:
    """Reads a chat completion's usage."""
    usage, fault = partition(
        stated.prompt_tokens,
        stated.completion_tokens,
        stated.total_tokens,
        stated.prompt_tokens_details,
        stated.completion_tokens_details,
    )
    return Reading(usage, fault=fault)


def chat_body(body: Body[ChatUsage]) -> Reading:
    """Reads a chat completion. One straight line: every call of the gateway passes here."""
    tier = body.service_tier
    stated = body.usage
    if stated is None:
        return Reading(None, body.model, tiers(tier), None, None, body.id)
    usage, fault = partition(
        stated.prompt_tokens,
        stated.completion_tokens,
        stated.total_tokens,
        stated.prompt_tokens_details,
        stated.completion_tokens_details,
    )
    context = {"service_tier": tier} if tier and tier != "batch" else tiers(tier)
    return Reading(usage, body.model, context, None, None, body.id, fault)


def responses_usage(stated: ResponsesUsage) -> Reading:
    """Reads a response's usage. Fees of hosted tools are not in it; they come with the output items."""
    usage, fault = partition(
        stated.input_tokens,
        stated.output_tokens,
        stated.total_tokens,
        stated.input_tokens_details,
        stated.output_tokens_details,
    )
    return Reading(usage, fault=fault)


def responses_body(body: ResponsesBody) -> Reading:
    """Reads a response, with the fees of its output items."""
    context = tiers(body.service_tier)
    stated = body.usage
    if stated is None:
        return Reading(None, body.model, context, None, None, body.id)
    usage, fault = partition(
        stated.input_tokens,
        stated.output_tokens,
        stated.total_tokens,
        stated.input_tokens_details,
        stated.output_tokens_details,
    )
    fees = output_fees(body.output)
    if fees:
        usage = with_counts(usage, fees)
        if ITEM_FEES[_WEB_SEARCH] in fees:
            context.update(_search_tool(body.tools))
    return Reading(usage, body.model, context, None, None, body.id, fault)


def output_fees(items: list[OutputItem]) -> dict[str, int]:
    """Counts per fee of a response's output items.

    A web search call whose action is not a search (it opens a page, or looks for text in one) costs no call: OpenAI's
    web search guide says that search actions incur a tool call cost, and says so of no other action. An item without
    an action counts. Code interpreter is billed by container, so calls in one container count once.
    """
    counts: dict[str, int] = {}
    containers: set[str] = set()
    for item in items:
        fee = ITEM_FEES.get(item.type)
        if fee is None:
            continue
        if item.type == _WEB_SEARCH:
            action = item.action
            if action is not None and action.type not in ("search", None):
                continue
        elif item.type == "code_interpreter_call" and item.container_id is not None:
            if item.container_id in containers:
                continue
            containers.add(item.container_id)
        counts[fee] = counts.get(fee, 0) + 1
    return counts


def _search_tool(tools: list[Tool]) -> dict[str, str]:
    """Which search tool was offered, and with what context size: both may decide the fee."""
    for tool in tools:
        if tool.type.startswith("web_search"):
            size = tool.search_context_size
            return {"tool": tool.type, "search_context_size": size} if size else {"tool": tool.type}
    return {}


def embeddings_usage(stated: EmbeddingsUsage) -> Reading:
    """Reads an embedding's usage."""
    usage, fault = partition(stated.prompt_tokens, 0, stated.total_tokens, None, None)
    return Reading(usage, fault=fault)


def images_usage(stated: ResponsesUsage) -> Reading:
    """Reads an image generation's usage. Without output details all output is image."""
    made = stated.output_tokens_details or OutputDetails(image_tokens=stated.output_tokens)
    usage, fault = partition(
        stated.input_tokens, stated.output_tokens, stated.total_tokens, stated.input_tokens_details, made
    )
    return Reading(usage, fault=fault)


def images_body(body: ImagesBody) -> Reading:
    """Reads an image generation. Models billed by the picture state no usage: the pictures are counted."""
    context = {"media_size": body.size} if body.size else {}
    if body.usage is None:
        return Reading(Usage({"images": len(body.data)}) if body.data else None, None, context)
    return msgspec.structs.replace(images_usage(body.usage), context=context)


def audio_usage(stated: AudioUsage) -> Reading:
    """Reads the usage of a transcription, in tokens or in seconds, or of a realtime response."""
    if stated.input_tokens is not None:
        usage, fault = partition(
            stated.input_tokens,
            stated.output_tokens,
            stated.total_tokens,
            stated.input_token_details,
            stated.output_token_details,
        )
        return Reading(usage, fault=fault)
    if stated.seconds is None:
        return Reading(None, fault="the usage states neither tokens nor seconds")
    return Reading(Usage({"milliseconds_input": milliseconds(stated.seconds)}))


def speech_usage(stated: AudioUsage) -> Reading:
    """Reads the usage of generated speech, all of whose output is audio."""
    if stated.output_token_details is None:
        made = OutputDetails(audio_tokens=stated.output_tokens)
        stated = msgspec.structs.replace(stated, output_token_details=made)
    return audio_usage(stated)


def transcription_body(body: TranscriptionBody) -> Reading:
    """Reads a transcription; without a usage object, the audio's stated duration is what was used."""
    if body.usage is not None:
        return audio_usage(body.usage)
    return Reading(None) if body.duration is None else audio_usage(AudioUsage(seconds=body.duration))


def realtime_body(event: RealtimeEvent) -> Reading:
    """Reads a `response.done` event."""
    return Reading(None) if event.response is None else _realtime(event.response)


_realtime: Final = body_reader(audio_usage)

_BILLERS: Final = ("openai", "azure")

FORMATS: Final = {
    "openai.chat": Format(_BILLERS, ChatUsage, Body[ChatUsage], chat_usage, chat_body),
    "openai.responses": Format(_BILLERS, ResponsesUsage, ResponsesBody, responses_usage, responses_body),
    "openai.embeddings": Format(
        _BILLERS, EmbeddingsUsage, Body[EmbeddingsUsage], embeddings_usage, body_reader(embeddings_usage)
    ),
    "openai.images": Format(_BILLERS, ResponsesUsage, ImagesBody, images_usage, images_body),
    "openai.audio.transcriptions": Format(_BILLERS, AudioUsage, TranscriptionBody, audio_usage, transcription_body),
    "openai.audio.speech": Format(_BILLERS, AudioUsage, Body[AudioUsage], speech_usage, body_reader(speech_usage)),
    "openai.realtime": Format(
        _BILLERS, AudioUsage, RealtimeEvent, audio_usage, realtime_body, (("response", "usage"),)
    ),
}
"""The readers of this family, by API."""
