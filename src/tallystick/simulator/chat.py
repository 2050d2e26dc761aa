"""Chat: OpenAI's chat completions and the older completions, whole or streamed. Source: OpenAI's API reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tallystick.simulator.frames import Frame, Written
from tallystick.simulator.plan import Counts, Plan

CREATED: Final = 1_790_000_000
"""Every answer was made at this second (Unix time), so that equal answers are equal bytes."""

_CHUNK: Final = "openai.types.chat:ChatCompletionChunk"
_WHOLE: Final = "openai.types.chat:ChatCompletion"
_COMPLETION: Final = "openai.types:Completion"
_PADDING: Final = "Jm4QxT7LhVbZ"


def usage(counts: Counts) -> dict[str, Any]:
    """`usage` of a chat completion: parts of the prompt inside it, reasoning inside the completion."""
    stated: dict[str, Any] = {
        "completion_tokens": counts.completion,
        "prompt_tokens": counts.prompt,
        "total_tokens": counts.prompt + counts.completion,
        "completion_tokens_details": {
            "accepted_prediction_tokens": 0,
            "audio_tokens": counts.audio_output,
            "reasoning_tokens": counts.reasoning,
            "rejected_prediction_tokens": 0,
        },
        "prompt_tokens_details": {"audio_tokens": counts.audio_input, "cached_tokens": counts.cache_read},
    }
    if counts.written:
        stated["prompt_tokens_details"]["cache_write_tokens"] = counts.written
    return stated


def identified(plan: Plan, prefix: str) -> dict[str, str]:
    """The id of an answer, unless the script leaves ids out."""
    return {} if plan.id is None else {"id": prefix + plan.id}


def finish_of(plan: Plan) -> str:
    """Why the answer ends; functions to be run are a reason of their own."""
    return "tool_calls" if plan.answer.functions and plan.finish == "stop" else plan.finish


def write(plan: Plan) -> Written:
    """A chat completion."""
    return Written("sse", tuple(_stream(plan))) if plan.stream else Written("json", (_whole(plan),))


def message_of(plan: Plan) -> dict[str, Any]:
    """The assistant's message."""
    calls = _functions(plan)
    message: dict[str, Any] = {"content": None if calls and not plan.text else plan.text, "refusal": None}
    message |= {"role": "assistant", "annotations": []}
    return message | ({"tool_calls": calls} if calls else {})


def _functions(plan: Plan) -> list[dict[str, Any]]:
    return [
        {"id": f"call_{place}", "function": {"arguments": one.arguments, "name": one.name}, "type": "function"}
        for place, one in enumerate(plan.answer.functions)
    ]


def _whole(plan: Plan) -> Frame:
    choice = {"finish_reason": finish_of(plan), "index": 0, "logprobs": None, "message": message_of(plan)}
    payload = {
        **identified(plan, "chatcmpl-"),
        "choices": [choice],
        "created": CREATED,
        "model": plan.model,
        "object": "chat.completion",
        "service_tier": plan.answer.service_tier or "default",
        "system_fingerprint": None,
        **stated_usage(plan, usage(plan.counts)),
    }
    return Frame(payload, plan.text, _WHOLE)


def stated_usage(plan: Plan, usual: dict[str, Any]) -> dict[str, Any]:
    """The usage of a whole body, in the shape that the script asks for."""
    shape = plan.answer.usage
    return {} if shape == "missing" else {"usage": None if shape == "null" else usual}


def _stream(plan: Plan) -> Iterator[Frame]:
    shape = plan.answer.usage
    asked = plan.asked_usage and shape != "missing"
    head: dict[str, Any] = {
        **identified(plan, "chatcmpl-"),
        "choices": [],
        "created": CREATED,
        "model": plan.model,
        "object": "chat.completion.chunk",
        "service_tier": plan.answer.service_tier or "default",
        "system_fingerprint": None,
    }
    nothing: dict[str, Any] = {"usage": None} if asked else {}
    stated = {"usage": usage(plan.counts)} if asked and shape != "null" else nothing

    def chunk(delta: dict[str, Any], finish: str | None = None, tail: dict[str, Any] = nothing) -> dict[str, Any]:
        choice = {"delta": delta, "finish_reason": finish, "index": 0, "logprobs": None}
        padding = {"obfuscation": _PADDING} if plan.answer.obfuscation else {}
        return head | {"choices": [choice]} | tail | padding

    yield Frame(chunk({"content": "", "refusal": None, "role": "assistant"}), "", _CHUNK)
    for piece in plan.pieces:
        yield Frame(chunk({"content": piece}), piece, _CHUNK)
    for place, call in enumerate(_functions(plan)):
        yield Frame(chunk({"tool_calls": [{"index": place, **call}]}), "", _CHUNK)
    inside = stated if shape in ("inside", "twice") else nothing
    yield Frame(chunk({}, finish_of(plan), inside), "", _CHUNK)
    if asked and shape in ("normal", "twice"):
        padding = {"obfuscation": _PADDING} if plan.answer.obfuscation else {}
        yield Frame(head | stated | padding, "", _CHUNK)
    yield Frame(b"[DONE]")


def write_completion(plan: Plan) -> Written:
    """An answer of the older completions API."""
    if not plan.stream:
        payload = _completion(plan, plan.text, plan.finish) | stated_usage(plan, usage(plan.counts))
        return Written("json", (Frame(payload, plan.text, _COMPLETION),))
    asked = plan.asked_usage and plan.answer.usage != "missing"
    nothing: dict[str, Any] = {"usage": None} if asked else {}
    frames = [Frame(_completion(plan, piece, None) | nothing, piece) for piece in plan.pieces]
    frames.append(Frame(_completion(plan, "", plan.finish) | nothing, "", _COMPLETION))
    if asked and plan.answer.usage != "null":
        last = _completion(plan, "", None) | {"choices": [], "usage": usage(plan.counts)}
        frames.append(Frame(last, "", _COMPLETION))
    return Written("sse", (*frames, Frame(b"[DONE]")))


def _completion(plan: Plan, text: str, finish: str | None) -> dict[str, Any]:
    return {
        **identified(plan, "cmpl-"),
        "choices": [{"finish_reason": finish, "index": 0, "logprobs": None, "text": text}],
        "created": CREATED,
        "model": plan.model,
        "object": "text_completion",
    }
