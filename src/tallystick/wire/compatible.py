"""The APIs that speak OpenAI's chat format with accents of their own.

Mistral, DeepSeek, Groq, xAI, OpenRouter, Perplexity, Together, vLLM, Ollama and any other. Cached tokens are inside the
prompt everywhere; reasoning is inside the completion except at xAI (chat) and Perplexity (deep research).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import msgspec

from tallystick.core.money import Money
from tallystick.core.usage import Usage
from tallystick.wire.context import tiers
from tallystick.wire.format import Body, Format, body_reader, like_chat
from tallystick.wire.openai import AudioUsage, ChatUsage, ResponsesUsage, audio_usage, chat_usage, responses_usage
from tallystick.wire.partition import Count, InputDetails, dollars, milliseconds, partition, with_counts
from tallystick.wire.reading import Reading

PICO_PER_TICK: Final = 100
"""xAI's ticks: 10,000,000,000 to the US dollar (xAI, Cost Tracking)."""


class CompatibleUsage(ChatUsage, frozen=True, gc=False):
    """`usage` of a compatible server; some state the cached tokens beside the prompt's details."""

    cached_tokens: Count | None = None


class MistralUsage(ChatUsage, frozen=True, gc=False):
    """`usage` of Mistral; audio is billed by its seconds and is not in prompt_tokens."""

    num_cached_tokens: Count | None = None
    prompt_audio_seconds: Decimal | None = None


class DeepSeekUsage(ChatUsage, frozen=True, gc=False):
    """`usage` of DeepSeek: hits and misses are the two parts of the prompt."""

    prompt_cache_hit_tokens: Count | None = None
    prompt_cache_miss_tokens: Count | None = None


class XaiTools(msgspec.Struct, frozen=True, gc=False):
    """Calls of xAI's hosted tools."""

    web_search_calls: Count = 0
    x_search_calls: Count = 0
    code_interpreter_calls: Count = 0
    file_search_calls: Count = 0
    document_search_calls: Count = 0


class XaiUsage(ChatUsage, frozen=True, gc=False):
    """`usage` of xAI's chat."""

    num_sources_used: Count = 0
    cost_in_usd_ticks: Count | None = None
    server_side_tool_usage_details: XaiTools | None = None


class XaiResponsesUsage(ResponsesUsage, frozen=True, gc=False):
    """`usage` of xAI's responses."""

    num_sources_used: Count = 0
    cost_in_usd_ticks: Count | None = None
    server_side_tool_usage_details: XaiTools | None = None


class CostDetails(msgspec.Struct, frozen=True, gc=False):
    """What OpenRouter knows of the upstream's bill."""

    upstream_inference_cost: Decimal | None = None


class ServerToolUse(msgspec.Struct, frozen=True, gc=False):
    """Calls of OpenRouter's hosted tools."""

    web_search_requests: Count = 0


class OpenRouterUsage(ChatUsage, frozen=True, gc=False):
    """`usage` of OpenRouter; a credit is a US dollar."""

    cost: Decimal | None = None
    is_byok: bool = False
    cost_details: CostDetails | None = None
    server_tool_use: ServerToolUse | None = None
    service_tier: str | None = None
    speed: str | None = None


class PerplexityCost(msgspec.Struct, frozen=True, gc=False):
    """What Perplexity billed, by part."""

    total_cost: Decimal | None = None
    search_queries_cost: Decimal | None = None


class PerplexityUsage(ChatUsage, frozen=True, gc=False):
    """`usage` of Perplexity."""

    citation_tokens: Count = 0
    reasoning_tokens: Count = 0
    num_search_queries: Count = 0
    search_context_size: str | None = None
    cost: PerplexityCost | None = None


class OllamaUsage(msgspec.Struct, frozen=True, gc=False):
    """The counts of Ollama's own API, which stand in the body itself."""

    model: str | None = None
    prompt_eval_count: Count | None = None
    eval_count: Count | None = None


class GroqAudioBody(msgspec.Struct, frozen=True, gc=False):
    """The body of a Groq transcription; `duration` is there in the verbose form."""

    usage: AudioUsage | None = None
    duration: Decimal | None = None
    x_groq: Body[AudioUsage] | None = None


def compatible_usage(stated: CompatibleUsage) -> Reading:
    """Reads the usage of any OpenAI-like chat server."""
    return _cached_beside(stated, stated.cached_tokens)


def _cached_beside(stated: ChatUsage, cached: int | None) -> Reading:
    """Reads a usage whose cached tokens may be stated outside the prompt's details."""
    if cached is None or stated.prompt_tokens_details is not None:
        return chat_usage(stated)
    inside = InputDetails(cached_tokens=cached)
    usage, fault = partition(
        stated.prompt_tokens, stated.completion_tokens, stated.total_tokens, inside, stated.completion_tokens_details
    )
    return Reading(usage, fault=fault)


def mistral_usage(stated: MistralUsage) -> Reading:
    """Reads Mistral's usage. Its total counts audio tokens that the prompt does not, so it is checked for text only."""
    seconds = stated.prompt_audio_seconds
    if not seconds:
        return _cached_beside(stated, stated.num_cached_tokens)
    reading = _cached_beside(msgspec.structs.replace(stated, total_tokens=None), stated.num_cached_tokens)
    usage = with_counts(reading.usage, {"milliseconds_input": milliseconds(seconds)})
    return msgspec.structs.replace(reading, usage=usage)


def deepseek_usage(stated: DeepSeekUsage) -> Reading:
    """Reads DeepSeek's usage; hits + misses must be the prompt."""
    hit, miss = stated.prompt_cache_hit_tokens, stated.prompt_cache_miss_tokens
    reading = _cached_beside(stated, hit)
    if reading.fault is None and hit is not None and miss is not None and hit + miss != stated.prompt_tokens:
        fault = f"{hit} cache hits + {miss} misses are not the {stated.prompt_tokens} tokens of the prompt"
        return msgspec.structs.replace(reading, fault=fault)
    return reading


def xai_usage(stated: XaiUsage) -> Reading:
    """Reads the usage of xAI's chat: reasoning is added to the completion, unless the stated total says that it is
    already inside."""
    made = stated.completion_tokens_details
    reasoning = 0 if made is None else made.reasoning_tokens
    completion = stated.completion_tokens
    if stated.total_tokens != stated.prompt_tokens + completion:
        completion += reasoning
    usage, fault = partition(stated.prompt_tokens, completion, stated.total_tokens, stated.prompt_tokens_details, made)
    return _xai(stated, usage, fault)


def xai_responses_usage(stated: XaiResponsesUsage) -> Reading:
    """Reads the usage of xAI's responses, where reasoning is inside the output."""
    reading = responses_usage(stated)
    return _xai(stated, reading.usage, reading.fault)


def _xai(stated: XaiUsage | XaiResponsesUsage, usage: Usage | None, fault: str | None) -> Reading:
    ticks = stated.cost_in_usd_ticks
    fees = {"fee:live_search": stated.num_sources_used}
    tools = stated.server_side_tool_usage_details
    if tools is not None:
        fees |= {
            "fee:code_interpreter": tools.code_interpreter_calls,
            "fee:document_search": tools.document_search_calls,
            "fee:file_search": tools.file_search_calls,
            "fee:web_search": tools.web_search_calls,
            "fee:x_search": tools.x_search_calls,
        }
    reported = None if ticks is None else Money(ticks * PICO_PER_TICK)
    return Reading(with_counts(usage, fees), reported=reported, fault=fault)


def openrouter_usage(stated: OpenRouterUsage) -> Reading:
    """Reads OpenRouter's usage. With a key of one's own the upstream sends a second bill; without one its cost is
    already inside OpenRouter's."""
    reading = chat_usage(stated)
    upstream = stated.cost_details.upstream_inference_cost if stated.is_byok and stated.cost_details else None
    fees = {"fee:web_search": stated.server_tool_use.web_search_requests} if stated.server_tool_use else {}
    return Reading(
        with_counts(reading.usage, fees),
        context=tiers(stated.service_tier, stated.speed),
        reported=dollars(stated.cost),
        upstream=dollars(upstream),
        fault=reading.fault,
    )


def perplexity_usage(stated: PerplexityUsage) -> Reading:
    """Reads Perplexity's usage.

    Deep research bills citations, reasoning (both beside the completion) and every search; the other models bill a fee
    per request that depends on the search context size. A cost of searches or the extra tokens tell the two apart.
    Source: Perplexity's pricing page.
    """
    prompt, completion, total = stated.prompt_tokens, stated.completion_tokens, stated.total_tokens
    cited, reasoning, cost = stated.citation_tokens, stated.reasoning_tokens, stated.cost
    usage, fault = partition(prompt, completion, None, stated.prompt_tokens_details, stated.completion_tokens_details)
    sums = (prompt + completion, prompt + completion + reasoning, prompt + completion + reasoning + cited)
    if fault is None and total is not None and total not in sums:
        fault = f"the stated total of {total} tokens is not {prompt} input + {completion} output"
    more = {"citation": cited}
    if reasoning:
        more["reasoning"] = reasoning
    if cited or reasoning or (cost is not None and cost.search_queries_cost):
        more["searches"] = stated.num_search_queries
    else:
        more["requests"] = 1
    size = stated.search_context_size
    context = {"search_context_size": size.lower()} if size else {}
    reported = None if cost is None else dollars(cost.total_cost)
    return Reading(with_counts(usage, more), context=context, reported=reported, fault=fault)


def ollama_usage(stated: OllamaUsage) -> Reading:
    """Reads the counts of Ollama's own API; a prompt that was wholly cached is left out of them."""
    if stated.prompt_eval_count is None and stated.eval_count is None:
        return Reading(None, stated.model)
    usage = Usage({"input": stated.prompt_eval_count or 0, "output": stated.eval_count or 0})
    return Reading(usage, stated.model)


def groq_audio_body(body: GroqAudioBody) -> Reading:
    """Reads a Groq transcription: its usage, or the audio's stated duration. The minimum billed is the rate's."""
    inner = body.x_groq or Body()
    stated = body.usage or inner.usage or AudioUsage(seconds=body.duration)
    reading = Reading(None) if stated == AudioUsage() else audio_usage(stated)
    return msgspec.structs.replace(reading, response_id=inner.id)


FORMATS: Final = {
    "mistral.chat": like_chat("mistral", MistralUsage, mistral_usage),
    "deepseek.chat": like_chat("deepseek", DeepSeekUsage, deepseek_usage),
    "groq.chat": like_chat("groq", CompatibleUsage, compatible_usage),
    "groq.audio": Format(
        ("groq",), AudioUsage, GroqAudioBody, audio_usage, groq_audio_body, (("usage",), ("x_groq", "usage"))
    ),
    "xai.chat": like_chat("x-ai", XaiUsage, xai_usage),
    "xai.responses": Format(
        ("x-ai",), XaiResponsesUsage, Body[XaiResponsesUsage], xai_responses_usage, body_reader(xai_responses_usage)
    ),
    "openrouter.chat": like_chat("openrouter", OpenRouterUsage, openrouter_usage),
    "perplexity.chat": like_chat("perplexity", PerplexityUsage, perplexity_usage),
    "together.chat": like_chat("together", CompatibleUsage, compatible_usage),
    "vllm.chat": like_chat("vllm", CompatibleUsage, compatible_usage),
    "ollama.chat": Format(("ollama",), OllamaUsage, OllamaUsage, ollama_usage, ollama_usage, ((),)),
    "compatible.chat": like_chat("other", CompatibleUsage, compatible_usage),
}
"""The readers of these APIs; `compatible.chat` is for a server of any other name."""
