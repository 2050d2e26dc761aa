"""Responses: OpenAI's responses, whole, streamed or in the background. Source: OpenAI's API reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tallystick.simulator.chat import CREATED, identified, stated_usage
from tallystick.simulator.frames import Frame, Written
from tallystick.simulator.plan import Counts, Plan

_TYPES: Final = "openai.types.responses:"
_REASONS: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
_KINDS: Final = {
    "response.created": "ResponseCreatedEvent",
    "response.in_progress": "ResponseInProgressEvent",
    "response.output_item.added": "ResponseOutputItemAddedEvent",
    "response.output_item.done": "ResponseOutputItemDoneEvent",
    "response.content_part.added": "ResponseContentPartAddedEvent",
    "response.content_part.done": "ResponseContentPartDoneEvent",
    "response.output_text.delta": "ResponseTextDeltaEvent",
    "response.output_text.done": "ResponseTextDoneEvent",
    "response.completed": "ResponseCompletedEvent",
    "response.incomplete": "ResponseIncompleteEvent",
}


def usage(counts: Counts) -> dict[str, Any]:
    """`usage` of a response: cached and written tokens inside the input, reasoning inside the output."""
    return {
        "input_tokens": counts.prompt,
        "input_tokens_details": {"cache_write_tokens": counts.written, "cached_tokens": counts.cache_read},
        "output_tokens": counts.completion,
        "output_tokens_details": {"reasoning_tokens": counts.reasoning},
        "total_tokens": counts.prompt + counts.completion,
    }


def write(plan: Plan) -> Written:
    """A response; one in the background is queued first and has its usage when it is fetched."""
    if plan.stream:
        return Written("sse", tuple(_stream(plan)))
    if plan.form == "background":
        return Written("json", (Frame(_response(plan, "queued", []), "", _TYPES + "Response"),))
    if plan.form == "in_progress":
        return Written("json", (Frame(_response(plan, "in_progress", []), "", _TYPES + "Response"),))
    payload = _response(plan, _status(plan), _items(plan))
    return Written("json", (Frame(payload, plan.text, _TYPES + "Response"),))


def _status(plan: Plan) -> str:
    return "incomplete" if plan.finish in _REASONS else "completed"


def _response(plan: Plan, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    over = status in ("completed", "incomplete")
    reason = _REASONS.get(plan.finish) if status == "incomplete" else None
    tools = [{"type": name} for name, _ in plan.fees if name == "web_search"]
    stated = stated_usage(plan, usage(plan.counts)) if over else {"usage": None}
    return {
        **identified(plan, "resp_"),
        "created_at": CREATED,
        "error": None,
        "incomplete_details": None if reason is None else {"reason": reason},
        "instructions": None,
        "metadata": {},
        "model": plan.model,
        "object": "response",
        "output": output,
        "parallel_tool_calls": True,
        "temperature": 1,
        "tool_choice": "auto",
        "tools": tools,
        "top_p": 1,
        "background": plan.form in ("background", "fetched", "in_progress"),
        "max_output_tokens": plan.limit,
        "previous_response_id": None,
        "service_tier": plan.answer.service_tier or "default",
        "status": status,
        "truncation": "disabled",
        **stated,
    }


def _items(plan: Plan) -> list[dict[str, Any]]:
    """The output: reasoning, calls of hosted tools, the message, functions to be run."""
    items: list[dict[str, Any]] = []
    if plan.counts.reasoning:
        items.append({"id": "rs_0", "summary": [], "type": "reasoning"})
    for name, times in plan.fees:
        items.extend(_tool(name, place) for place in range(times))
    items.append(_message(plan, [_part(plan.text)], "completed"))
    items.extend(
        {"arguments": one.arguments, "call_id": f"call_{place}", "name": one.name, "type": "function_call",
         "id": f"fc_{place}", "status": "completed"}
        for place, one in enumerate(plan.answer.functions)
    )  # fmt: skip
    return items


def _tool(name: str, place: int) -> dict[str, Any]:
    if name == "web_search":
        action = {"query": "what was asked", "type": "search"}
        return {"id": f"ws_{place}", "action": action, "status": "completed", "type": "web_search_call"}
    if name == "file_search":
        asked = ["what was asked"]
        return {
            "id": f"fs_{place}",
            "queries": asked,
            "status": "completed",
            "type": "file_search_call",
            "results": None,
        }
    return {
        "id": f"ci_{place}",
        "code": "1 + 1",
        "container_id": f"cntr_{place}",
        "outputs": None,
        "status": "completed",
        "type": "code_interpreter_call",
    }


def _message(plan: Plan, content: list[dict[str, Any]], status: str) -> dict[str, Any]:
    named = identified(plan, "msg_") or {"id": "msg_0"}
    return {**named, "content": content, "role": "assistant", "status": status, "type": "message"}


def _part(text: str) -> dict[str, Any]:
    return {"annotations": [], "text": text, "type": "output_text", "logprobs": []}


def _stream(plan: Plan) -> Iterator[Frame]:
    for number, (kind, payload, text) in enumerate(_events(plan)):
        whole = {**payload, "sequence_number": number, "type": kind}
        if plan.answer.obfuscation and kind.endswith(".delta"):
            whole["obfuscation"] = "Jm4QxT7LhVbZ"
        yield Frame(whole, text, _TYPES + _KINDS[kind], kind)


def _events(plan: Plan) -> Iterator[tuple[str, dict[str, Any], str]]:
    begun = _response(plan, "in_progress", [])
    yield "response.created", {"response": begun}, ""
    yield "response.in_progress", {"response": begun}, ""
    for index, item in enumerate(_items(plan)):
        if item["type"] != "message":
            started = item if item["type"] == "reasoning" else item | {"status": "in_progress"}
            yield "response.output_item.added", {"item": started, "output_index": index}, ""
            yield "response.output_item.done", {"item": item, "output_index": index}, ""
            continue
        where = {"content_index": 0, "item_id": item["id"], "output_index": index}
        started = _message(plan, [], "in_progress")
        yield "response.output_item.added", {"item": started, "output_index": index}, ""
        yield "response.content_part.added", {**where, "part": _part("")}, ""
        for piece in plan.pieces:
            yield "response.output_text.delta", {**where, "delta": piece, "logprobs": []}, piece
        yield "response.output_text.done", {**where, "logprobs": [], "text": plan.text}, ""
        yield "response.content_part.done", {**where, "part": _part(plan.text)}, ""
        yield "response.output_item.done", {"item": item, "output_index": index}, ""
    status = _status(plan)
    yield f"response.{status}", {"response": _response(plan, status, _items(plan))}, ""
