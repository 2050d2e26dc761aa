"""Bedrock: Converse. Cache reads and writes are outside inputTokens. Source: AWS's TokenUsage and CacheDetail
reference."""

from __future__ import annotations

from typing import Final

import msgspec

from tallystick.core.usage import Usage
from tallystick.wire.context import tiers
from tallystick.wire.format import Format
from tallystick.wire.partition import Count, keep
from tallystick.wire.reading import Reading


class CacheDetail(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Tokens written to the cache for one time to live."""

    ttl: str = ""
    input_tokens: Count = 0


class ConverseUsage(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """`usage` of a Converse response."""

    input_tokens: Count
    output_tokens: Count
    total_tokens: Count | None = None
    cache_read_input_tokens: Count = 0
    cache_write_input_tokens: Count = 0
    cache_details: list[CacheDetail] = []


class Tier(msgspec.Struct, frozen=True, gc=False):
    """The service tier that served the call."""

    type: str | None = None


class Performance(msgspec.Struct, frozen=True, gc=False):
    """Which latency was served."""

    latency: str | None = None


class ConverseBody(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The body of a Converse response; it names neither model nor id."""

    usage: ConverseUsage | None = None
    service_tier: Tier | None = None
    performance_config: Performance | None = None


def converse_usage(stated: ConverseUsage) -> Reading:
    """Reads a Converse usage. Writes beyond those listed by time to live have an unknown one."""
    read, written = stated.cache_read_input_tokens, stated.cache_write_input_tokens
    short = long = 0
    fault = None
    if stated.cache_details:
        by_ttl = {"5m": 0, "1h": 0}
        for detail in stated.cache_details:
            by_ttl[detail.ttl] = by_ttl.get(detail.ttl, 0) + detail.input_tokens
        short, long = by_ttl["5m"], by_ttl["1h"]
        listed = sum(by_ttl.values())
        if listed != written:
            fault = f"{written} tokens written to the cache are not the {listed} of its details"
    whole = stated.input_tokens + read + written + stated.output_tokens
    if fault is None and stated.total_tokens is not None and stated.total_tokens != whole:
        fault = f"the stated total of {stated.total_tokens} tokens is not the {whole} of its parts"
    rows = {
        "input": stated.input_tokens,
        "cache_read": read,
        "cache_write": written - short - long,
        "cache_write_5m": short,
        "cache_write_1h": long,
        "output": stated.output_tokens,
    }
    counts: dict[str, int] = {}
    keep(counts, rows)
    return Reading(Usage(counts) if stated.cache_details else Usage.trusted(counts), fault=fault)


def converse_body(body: ConverseBody) -> Reading:
    """Reads a Converse response. A latency of `optimized` has its own price and becomes the speed."""
    latency = None if body.performance_config is None else body.performance_config.latency
    tier = None if body.service_tier is None else body.service_tier.type
    context = tiers(tier, latency if latency == "optimized" else None)
    if body.usage is None:
        return Reading(None, context=context)
    stated = converse_usage(body.usage)
    return Reading(stated.usage, None, context, None, None, None, stated.fault)


class InvokeMetrics(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """`amazon-bedrock-invocationMetrics`: the counts that Bedrock adds to the last chunk of a model's own stream."""

    input_token_count: Count
    output_token_count: Count = 0
    cache_read_input_token_count: Count = 0
    cache_write_input_token_count: Count = 0


class InvokeChunk(msgspec.Struct, frozen=True, gc=False):
    """The last chunk of a model's own stream."""

    metrics: InvokeMetrics | None = msgspec.field(default=None, name="amazon-bedrock-invocationMetrics")


def invoke_usage(stated: InvokeMetrics) -> Reading:
    """Reads Bedrock's own counts of an InvokeModel call; like Converse's, they leave cached tokens out of input."""
    counts: dict[str, int] = {}
    rows = {
        "input": stated.input_token_count,
        "cache_read": stated.cache_read_input_token_count,
        "cache_write": stated.cache_write_input_token_count,
        "output": stated.output_token_count,
    }
    keep(counts, rows)
    return Reading(Usage.trusted(counts))


def invoke_body(body: InvokeChunk) -> Reading:
    """Reads the last chunk of a model's own stream."""
    return Reading(None) if body.metrics is None else invoke_usage(body.metrics)


FORMATS: Final = {
    "bedrock.converse": Format(("aws",), ConverseUsage, ConverseBody, converse_usage, converse_body),
    "bedrock.invoke": Format(
        ("aws",), InvokeMetrics, InvokeChunk, invoke_usage, invoke_body, (("amazon-bedrock-invocationMetrics",),)
    ),
}
"""The readers of this family, by API."""
