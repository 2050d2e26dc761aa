"""Bedrock: converse and invoke, whole or as binary event streams. Source: AWS's bedrock-runtime reference.

What a model is invoked with is its maker's own format; here that is Anthropic's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from tallystick.simulator import messages
from tallystick.simulator.frames import Frame, Written
from tallystick.simulator.plan import Plan

_STOPS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "content_filtered",
}
_METRICS: Final = {"latencyMs": 640}


def usage(plan: Plan) -> dict[str, Any]:
    """`usage` of a conversation: cached and written tokens outside the input, inside the total."""
    counts = plan.counts
    stated: dict[str, Any] = {
        "inputTokens": counts.input,
        "outputTokens": counts.completion,
        "totalTokens": counts.prompt + counts.completion,
    }
    if counts.cache_read or counts.written:
        stated |= {"cacheReadInputTokens": counts.cache_read, "cacheWriteInputTokens": counts.written}
        rows = (("5m", counts.cache_write_5m), ("1h", counts.cache_write_1h))
        details = [{"inputTokens": count, "ttl": ttl} for ttl, count in rows if count]
        if details:
            stated["cacheDetails"] = details
    return stated


def write(plan: Plan) -> Written:
    """A conversation."""
    if plan.verb == "converse-stream":
        return Written("eventstream", tuple(_stream(plan)))
    blocks = [{"text": plan.text}, *({"toolUse": use} for use in _uses(plan))]
    payload = {
        "output": {"message": {"role": "assistant", "content": blocks}},
        "stopReason": _stop(plan),
        **_usage(plan),
        "metrics": _METRICS,
        **_tier(plan),
    }
    return Written("json", (Frame(payload, plan.text, "botocore:ConverseResponse"),))


def _stop(plan: Plan) -> str:
    return _STOPS["tool_calls" if plan.answer.functions and plan.finish == "stop" else plan.finish]


def _usage(plan: Plan) -> dict[str, Any]:
    shape = plan.answer.usage
    return {} if shape == "missing" else {"usage": None if shape == "null" else usage(plan)}


def _tier(plan: Plan) -> dict[str, Any]:
    tier = plan.answer.service_tier
    return {} if tier is None else {"serviceTier": {"type": tier}}


def _uses(plan: Plan) -> list[dict[str, Any]]:
    return [
        {"toolUseId": f"tooluse_{place}", "name": one.name, "input": msgspec.json.decode(one.arguments)}
        for place, one in enumerate(plan.answer.functions)
    ]


def _stream(plan: Plan) -> Iterator[Frame]:
    yield _event("messageStart", {"role": "assistant"})
    for piece in plan.pieces:
        yield _event("contentBlockDelta", {"delta": {"text": piece}, "contentBlockIndex": 0}, piece)
    yield _event("contentBlockStop", {"contentBlockIndex": 0})
    for place, use in enumerate(_uses(plan), 1):
        start = {"toolUse": {"toolUseId": use["toolUseId"], "name": use["name"]}}
        yield _event("contentBlockStart", {"start": start, "contentBlockIndex": place})
        given = {"toolUse": {"input": plan.answer.functions[place - 1].arguments}}
        yield _event("contentBlockDelta", {"delta": given, "contentBlockIndex": place})
        yield _event("contentBlockStop", {"contentBlockIndex": place})
    yield _event("messageStop", {"stopReason": _stop(plan)})
    metadata = {**_usage(plan), "metrics": _METRICS, **_tier(plan)}
    times = 0 if plan.answer.usage == "missing" else 2 if plan.answer.usage == "twice" else 1
    for _ in range(times):
        yield Frame(metadata, "", "botocore:ConverseStreamMetadataEvent", "metadata")


def _event(name: str, payload: dict[str, Any], text: str = "") -> Frame:
    return Frame(payload, text, f"botocore:{name[0].upper()}{name[1:]}Event", name)


def write_invoke(plan: Plan) -> Written:
    """A model invoked in its maker's own format."""
    silent = plan.answer.usage in ("missing", "null")
    if plan.verb != "invoke-with-response-stream":
        counts = plan.counts
        stated = {
            "x-amzn-bedrock-input-token-count": counts.input,
            "x-amzn-bedrock-output-token-count": counts.completion,
        }
        headers = tuple((name, str(count)) for name, count in stated.items())
        return Written("json", (messages.whole(plan),), () if silent else headers)
    frames = messages.events(plan, metrics=not silent)
    wrapped = (msgspec.structs.replace(frame, name="chunk", wrapped=True) for frame in frames)
    return Written("eventstream", tuple(wrapped))
