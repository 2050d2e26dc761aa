"""Messages: Anthropic's messages, whole or streamed. Source: Anthropic's API reference and guides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from tallystick.simulator.chat import identified
from tallystick.simulator.frames import Frame, Written
from tallystick.simulator.plan import Plan

STOPS: Final = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
"""Reasons to stop, in Anthropic's words."""

_TYPES: Final = "anthropic.types:"
_SIGNATURE: Final = "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pk="
_THOUGHT: Final = "Let me think about this."


def usage(plan: Plan) -> dict[str, Any]:
    """`usage` of a whole message: cached and written tokens outside the input, thinking inside the output."""
    counts = plan.counts
    stated: dict[str, Any] = {
        "cache_creation": {
            "ephemeral_1h_input_tokens": counts.cache_write_1h,
            "ephemeral_5m_input_tokens": counts.cache_write_5m,
        },
        "cache_creation_input_tokens": counts.written,
        "cache_read_input_tokens": counts.cache_read,
        "inference_geo": "not_available",
        "input_tokens": counts.input,
        "output_tokens": counts.completion,
    }
    stated |= _parts(plan)
    return stated | {"service_tier": plan.answer.service_tier or "standard"}


def _parts(plan: Plan) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if plan.counts.reasoning:
        found["output_tokens_details"] = {"thinking_tokens": plan.counts.reasoning}
    if plan.fees:
        searches = dict(plan.fees).get("web_search", 0)
        found["server_tool_use"] = {"web_fetch_requests": 0, "web_search_requests": searches}
    return found


def stop_of(plan: Plan) -> str:
    """Why the message ends."""
    return STOPS["tool_calls" if plan.answer.functions and plan.finish == "stop" else plan.finish]


def write(plan: Plan) -> Written:
    """A message."""
    return Written("sse", tuple(events(plan))) if plan.stream else Written("json", (whole(plan),))


def whole(plan: Plan) -> Frame:
    """A message in one body."""
    payload = _message(plan, _blocks(plan), stop_of(plan))
    shape = plan.answer.usage
    if shape != "missing":
        payload["usage"] = None if shape == "null" else usage(plan)
    return Frame(payload, plan.text, _TYPES + "Message")


def _message(plan: Plan, content: list[dict[str, Any]], stop: str | None) -> dict[str, Any]:
    return {
        **identified(plan, "msg_"),
        "content": content,
        "model": plan.model,
        "role": "assistant",
        "stop_reason": stop,
        "stop_sequence": None,
        "type": "message",
    }


def _blocks(plan: Plan) -> list[dict[str, Any]]:
    """The content: thinking where it was asked for, searches, the text, functions to be run."""
    blocks: list[dict[str, Any]] = []
    if plan.thinking and plan.counts.reasoning:
        blocks.append({"signature": _SIGNATURE, "thinking": _THOUGHT, "type": "thinking"})
    for place in range(dict(plan.fees).get("web_search", 0)):
        identity = f"srvtoolu_{place}"
        asked = {"query": "what was asked"}
        blocks.append({"id": identity, "input": asked, "name": "web_search", "type": "server_tool_use"})
        blocks.append({"content": [], "tool_use_id": identity, "type": "web_search_tool_result"})
    blocks.append({"citations": None, "text": plan.text, "type": "text"})
    for place, one in enumerate(plan.answer.functions):
        blocks.append({"id": f"toolu_{place}", "input": _object(one.arguments), "name": one.name, "type": "tool_use"})
    return blocks


def _object(text: str) -> Any:
    return msgspec.json.decode(text)


def events(plan: Plan, *, metrics: bool = False) -> Iterator[Frame]:
    """A message as events; with `metrics`, Bedrock's own counts are in the last one."""
    shape = plan.answer.usage
    start = _message(plan, [], None)
    if shape in ("missing", "null"):
        start |= {} if shape == "missing" else {"usage": None}
    else:
        start["usage"] = usage(plan) | {"output_tokens": 1}
        start["usage"].pop("output_tokens_details", None)
        start["usage"].pop("server_tool_use", None)
    yield _event("message_start", {"message": start, "type": "message_start"})
    for index, block in enumerate(_blocks(plan)):
        yield from _block(plan, index, block)
        if plan.answer.pings and not index:
            yield _event("ping", {"type": "ping"})
    delta: dict[str, Any] = {"delta": {"stop_reason": stop_of(plan), "stop_sequence": None}, "type": "message_delta"}
    if shape not in ("missing", "null"):
        counts = plan.counts
        stated = {
            "cache_creation_input_tokens": counts.written,
            "cache_read_input_tokens": counts.cache_read,
            "input_tokens": counts.input,
            "output_tokens": counts.completion,
        } | _parts(plan)
        if shape == "twice":
            # Usage is cumulative: an earlier one says less, and the sum of both would be wrong.
            less = stated | {"output_tokens": counts.completion // 2}
            less.pop("output_tokens_details", None)
            yield _event(
                "message_delta", {**delta, "delta": {"stop_reason": None, "stop_sequence": None}, "usage": less}
            )
        delta["usage"] = stated
    elif shape == "null":
        delta["usage"] = None
    yield _event("message_delta", delta)
    yield _event("message_stop", {"type": "message_stop"} | (_metrics(plan) if metrics else {}))


def _metrics(plan: Plan) -> dict[str, Any]:
    counts = plan.counts
    stated = {"inputTokenCount": counts.input, "outputTokenCount": counts.completion}
    stated |= {"invocationLatency": 640, "firstByteLatency": 210}
    if counts.cache_read or counts.written:
        stated["cacheReadInputTokenCount"] = counts.cache_read
        stated["cacheWriteInputTokenCount"] = counts.written
    return {"amazon-bedrock-invocationMetrics": stated}


def _event(name: str, payload: dict[str, Any], text: str = "") -> Frame:
    kind = "".join(word.capitalize() for word in name.split("_"))
    return Frame(payload, text, None if name == "ping" else f"{_TYPES}Raw{kind}Event", name)


def _block(plan: Plan, index: int, block: dict[str, Any]) -> Iterator[Frame]:
    kind = block["type"]
    deltas: list[tuple[dict[str, Any], str]] = []
    empty = dict(block)
    if kind == "text":
        empty["text"] = ""
        deltas = [({"text": piece, "type": "text_delta"}, piece) for piece in plan.pieces]
    elif kind == "thinking":
        empty |= {"signature": "", "thinking": ""}
        deltas = [({"thinking": _THOUGHT, "type": "thinking_delta"}, "")]
        deltas.append(({"signature": _SIGNATURE, "type": "signature_delta"}, ""))
    elif kind in ("tool_use", "server_tool_use"):
        empty["input"] = {}
        arguments = msgspec.json.encode(block["input"]).decode()
        deltas = [({"partial_json": arguments, "type": "input_json_delta"}, "")]
    yield _event("content_block_start", {"content_block": empty, "index": index, "type": "content_block_start"})
    for delta, text in deltas:
        payload = {"delta": delta, "index": index, "type": "content_block_delta"}
        yield _event("content_block_delta", payload, text)
    yield _event("content_block_stop", {"index": index, "type": "content_block_stop"})
