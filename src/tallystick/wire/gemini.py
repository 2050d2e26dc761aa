"""Gemini: generateContent, at Google and at Vertex.

Cached tokens are inside promptTokenCount; thoughts and tool-use prompts are added to it and to the candidates: total =
prompt + candidates + thoughts + toolUsePrompt. Source: Google's UsageMetadata reference.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tallystick.core.usage import Usage
from tallystick.wire.context import tiers
from tallystick.wire.format import Format
from tallystick.wire.partition import NO_MEDIA, CachedDetails, Count, Split, keep, leftover, media_prompt, with_counts
from tallystick.wire.reading import Reading


class Modality(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Tokens of one modality: TEXT, AUDIO, IMAGE, VIDEO or DOCUMENT (billed as text)."""

    modality: str = ""
    token_count: Count = 0


class GeminiUsage(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """`usageMetadata`. Counts of zero may be left out."""

    prompt_token_count: Count | None = None
    cached_content_token_count: Count = 0
    candidates_token_count: Count = 0
    thoughts_token_count: Count = 0
    tool_use_prompt_token_count: Count = 0
    total_token_count: Count | None = None
    prompt_tokens_details: list[Modality] = []
    cache_tokens_details: list[Modality] = []
    candidates_tokens_details: list[Modality] = []
    tool_use_prompt_tokens_details: list[Modality] = []
    service_tier: str | None = None
    traffic_type: str | None = None


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """A source that an answer rests on."""

    maps: dict[str, object] | None = None


class Grounding(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """What an answer was grounded on."""

    web_search_queries: list[str] = []
    grounding_chunks: list[Chunk] = []


class Candidate(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """One answer."""

    grounding_metadata: Grounding | None = None


class GeminiBody(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The body of generateContent."""

    response_id: str | None = None
    model_version: str | None = None
    usage_metadata: GeminiUsage | None = None
    candidates: list[Candidate] = []


def gemini_usage(stated: GeminiUsage) -> Reading:
    """Reads a usageMetadata object."""
    usage, fault = _split(stated)
    return Reading(usage, context=_tier(stated), fault=fault)


def gemini_body(body: GeminiBody) -> Reading:
    """Reads a generateContent response, with its grounding fees."""
    stated = body.usage_metadata
    if stated is None:
        return Reading(None, body.model_version, {}, None, None, body.response_id)
    usage, fault = _split(stated)
    for candidate in body.candidates:
        if candidate.grounding_metadata is not None:
            usage = with_counts(usage, grounding_fees(body.candidates))
            break
    return Reading(usage, body.model_version, _tier(stated), None, None, body.response_id, fault)


def grounding_fees(candidates: list[Candidate]) -> dict[str, int]:
    """The fees of grounded answers: `fee:web_search` counts the distinct search queries that are not empty,
    `fee:google_maps` is 1 when a source is a map.

    Google bills newer models by the query and older ones by the grounded request; empty queries are free (Gemini API
    pricing and grounding guide). The count is the query count for both: a rate per request is a rate whose `step` and
    `per` exceed any number of queries.
    """
    queries: set[str] = set()
    maps = False
    for candidate in candidates:
        grounding = candidate.grounding_metadata
        if grounding is not None:
            queries.update(query for query in grounding.web_search_queries if query.strip())
            maps = maps or any(chunk.maps is not None for chunk in grounding.grounding_chunks)
    return {"fee:google_maps": int(maps), "fee:web_search": len(queries)}


def _split(stated: GeminiUsage) -> Split:
    prompt = stated.prompt_token_count
    if prompt is None:
        return None, "the usage states no prompt tokens"
    tool, thoughts = stated.tool_use_prompt_token_count, stated.thoughts_token_count
    cached, candidates = stated.cached_content_token_count, stated.candidates_token_count
    whole = prompt + tool + candidates + thoughts
    made = _by_modality(stated.candidates_tokens_details)
    plain = candidates - made.audio_tokens - made.image_tokens - made.video_tokens
    if plain < 0:
        return None, f"the parts of the candidates exceed their {candidates} tokens"
    media = _by_modality(stated.prompt_tokens_details)
    stored = _by_modality(stated.cache_tokens_details)
    counts: dict[str, int] = {}
    if tool or media is not NO_MEDIA or stored is not NO_MEDIA or cached > prompt:
        rows = media_prompt(prompt, cached, 0, media, stored)
        below = keep(counts, rows)
        if tool:
            extra = media_prompt(tool, 0, 0, _by_modality(stated.tool_use_prompt_tokens_details), NO_MEDIA)
            below += keep({}, extra)
            counts = {}
            keep(counts, {kind: count + extra[kind] for kind, count in rows.items()})
        if below:
            return None, leftover(below, prompt + tool)
    else:
        if prompt > cached:
            counts["input"] = prompt - cached
        if cached:
            counts["cache_read"] = cached
    if plain:
        counts["output"] = plain
    if thoughts:
        counts["reasoning"] = thoughts
    if made is not NO_MEDIA:
        keep(
            counts,
            {
                "audio_output": made.audio_tokens,
                "image_output": made.image_tokens,
                "video_output": made.video_tokens,
            },
        )
    # Only sums can exceed the largest count, and only tool use is summed.
    usage = Usage(counts) if tool else Usage.trusted(counts)
    total = stated.total_token_count
    if total is None or total == whole:
        return usage, None
    return usage, (
        f"the stated total of {total} tokens is not {prompt} prompt + {tool} tool-use prompt + "
        f"{candidates} candidates + {thoughts} thoughts"
    )


def _by_modality(details: list[Modality]) -> CachedDetails:
    if not details:
        return NO_MEDIA
    audio = image = video = 0
    for part in details:
        if part.modality == "AUDIO":
            audio += part.token_count
        elif part.modality == "IMAGE":
            image += part.token_count
        elif part.modality == "VIDEO":
            video += part.token_count
    return CachedDetails(audio, image, video) if audio or image or video else NO_MEDIA


def _tier(stated: GeminiUsage) -> dict[str, str]:
    """The tier: `serviceTier` at Google, `trafficType` at Vertex (ON_DEMAND_FLEX, PROVISIONED_THROUGHPUT, ...)."""
    said = stated.service_tier or stated.traffic_type
    if not said:
        return {}
    tier = said.lower().removeprefix("service_tier_").removeprefix("on_demand_")
    return tiers(None if tier in ("unspecified", "traffic_type_unspecified") else tier)


FORMATS: Final = {
    "gemini.generateContent": Format(
        ("google", "vertex"), GeminiUsage, GeminiBody, gemini_usage, gemini_body, (("usageMetadata",),)
    ),
}
"""The readers of this family, by API."""
