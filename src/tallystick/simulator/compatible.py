"""Compatible: providers that speak OpenAI's chat format with accents of their own, and Ollama's own format.

Source: the API references of Mistral, DeepSeek, Groq, xAI, OpenRouter, Together, vLLM, Perplexity and Ollama.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Final, Literal

import msgspec

from tallystick.simulator import chat
from tallystick.simulator.chat import CREATED, identified
from tallystick.simulator.frames import Frame, Written
from tallystick.simulator.plan import Plan

_TICKS_PER_DOLLAR: Final = 10_000_000_000
_STAMP: Final = "2026-09-21T15:06:40Z"
_NANOSECONDS: Final = {"total_duration": 640_000_000, "load_duration": 9_000_000}


class Accent(msgspec.Struct, frozen=True):
    """How one provider differs. `asked`: a stream states usage only where include_usage asks for it. `where`: in the
    chunk that ends the answer, in one of its own without choices, or in every chunk. `sdk` names the
    types of the SDK that its users take: its own, or OpenAI's."""

    usage: Callable[[Plan], dict[str, Any]]
    asked: bool
    where: Literal["inside", "own", "every"]
    prefix: str = "chatcmpl-"
    sdk: tuple[str, str] = ("openai.types.chat:ChatCompletion", "openai.types.chat:ChatCompletionChunk")


def _basic(plan: Plan) -> dict[str, Any]:
    counts = plan.counts
    return {
        "prompt_tokens": counts.prompt,
        "completion_tokens": counts.completion,
        "total_tokens": counts.prompt + counts.completion,
    }


def _mistral(plan: Plan) -> dict[str, Any]:
    cached = plan.counts.cache_read
    inside = {"num_cached_tokens": cached, "prompt_tokens_details": {"cached_tokens": cached}} if cached else {}
    return _basic(plan) | inside


def _deepseek(plan: Plan) -> dict[str, Any]:
    counts = plan.counts
    stated = _basic(plan) | {"prompt_tokens_details": {"cached_tokens": counts.cache_read}}
    if counts.reasoning:
        stated["completion_tokens_details"] = {"reasoning_tokens": counts.reasoning}
    misses = counts.prompt - counts.cache_read
    return stated | {"prompt_cache_hit_tokens": counts.cache_read, "prompt_cache_miss_tokens": misses}


def _groq(plan: Plan) -> dict[str, Any]:
    counts = plan.counts
    times = {"completion_time": 0.25, "prompt_time": 0.01, "queue_time": 0.05, "total_time": 0.26}
    stated: dict[str, Any] = {**_basic(plan), **times}
    if counts.reasoning:
        stated["completion_tokens_details"] = {"reasoning_tokens": counts.reasoning}
    if counts.cache_read:
        stated["prompt_tokens_details"] = {"cached_tokens": counts.cache_read}
    return stated


def _xai(plan: Plan) -> dict[str, Any]:
    """Reasoning stands beside the completion, inside the total."""
    counts = plan.counts
    tools = {f"{name}_calls": count for name, count in plan.fees}
    stated = {
        "prompt_tokens": counts.prompt,
        "completion_tokens": counts.output,
        "total_tokens": counts.prompt + counts.completion,
        "prompt_tokens_details": {
            "text_tokens": counts.prompt,
            "audio_tokens": 0,
            "image_tokens": 0,
            "cached_tokens": counts.cache_read,
        },
        "completion_tokens_details": {
            "reasoning_tokens": counts.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
        "num_sources_used": 0,
    }
    if tools:
        stated["server_side_tool_usage_details"] = tools
    if plan.answer.cost is not None:
        stated["cost_in_usd_ticks"] = int(Decimal(plan.answer.cost) * _TICKS_PER_DOLLAR)
    return stated


def _openrouter(plan: Plan) -> dict[str, Any]:
    """The cost is part of the usage; with a key of the caller's own the upstream sends a second bill."""
    answer = plan.answer
    stated = chat.usage(plan.counts)
    if plan.fees:
        stated["server_tool_use"] = {"web_search_requests": dict(plan.fees)["web_search"]}
    stated["cost"] = msgspec.Raw((answer.cost or "0").encode())
    stated["is_byok"] = answer.byok
    upstream = answer.upstream_cost
    stated["cost_details"] = {"upstream_inference_cost": None if upstream is None else msgspec.Raw(upstream.encode())}
    return stated


def _together(plan: Plan) -> dict[str, Any]:
    return _basic(plan) | {"cached_tokens": plan.counts.cache_read}


def _vllm(plan: Plan) -> dict[str, Any]:
    cached = plan.counts.cache_read
    return _basic(plan) | {"prompt_tokens_details": {"cached_tokens": cached} if cached else None}


def _perplexity(plan: Plan) -> dict[str, Any]:
    return _basic(plan) | {"search_context_size": "low"}


ACCENTS: Final = {
    "mistral": Accent(
        _mistral, False, "inside", "cmpl-",
        ("mistralai.client.models:ChatCompletionResponse", "mistralai.client.models:CompletionChunk"),
    ),
    "deepseek": Accent(_deepseek, True, "inside"),
    "groq": Accent(
        _groq, True, "own", sdk=("groq.types.chat:ChatCompletion", "groq.types.chat:ChatCompletionChunk")
    ),
    "xai": Accent(_xai, False, "every"),
    "openrouter": Accent(_openrouter, False, "own", "gen-"),
    "together": Accent(_together, False, "inside"),
    "vllm": Accent(_vllm, True, "own"),
    "perplexity": Accent(_perplexity, False, "every"),
}  # fmt: skip
"""The accents, by provider."""


def write(plan: Plan) -> Written:
    """A chat completion as the provider writes it."""
    accent = ACCENTS[plan.provider]
    if plan.stream:
        return Written("sse", (*_stream(plan, accent), Frame(b"[DONE]")))
    choice: dict[str, Any] = {"index": 0, "message": _message(plan), "finish_reason": _finish(plan)}
    payload = _head(plan, accent, "chat.completion") | {"choices": [choice]}
    payload |= chat.stated_usage(plan, accent.usage(plan))
    if plan.provider == "groq" and plan.id is not None:
        payload["x_groq"] = {"id": f"req_{plan.id}"}
    return Written("json", (Frame(payload, plan.text, accent.sdk[0]),))


def _finish(plan: Plan) -> str:
    return chat.finish_of(plan)


def _message(plan: Plan) -> dict[str, Any]:
    whole = chat.message_of(plan)
    message = {"role": "assistant", "content": whole["content"]}
    if plan.provider == "deepseek" and plan.counts.reasoning:
        message["reasoning_content"] = "Let me think."
    return message | ({"tool_calls": whole["tool_calls"]} if "tool_calls" in whole else {})


def _head(plan: Plan, accent: Accent, kind: str) -> dict[str, Any]:
    head: dict[str, Any] = {**identified(plan, accent.prefix), "object": kind, "created": CREATED, "model": plan.model}
    if plan.provider == "openrouter":
        head["provider"] = "Simulated"
    if plan.provider == "groq":
        head |= {"system_fingerprint": "fp_0", "service_tier": plan.answer.service_tier or "on_demand"}
    return head


def _stream(plan: Plan, accent: Accent) -> Iterator[Frame]:
    shape = plan.answer.usage
    head = _head(plan, accent, "chat.completion.chunk")
    kind = accent.sdk[1]
    told = (plan.asked_usage or not accent.asked) and shape not in ("missing", "null")
    stated = {"usage": accent.usage(plan)} if told else {"usage": None} if shape == "null" else {}
    inside = accent.where != "own" or shape in ("inside", "twice")
    every = stated if accent.where == "every" else {}

    def chunk(delta: dict[str, Any], finish: str | None, tail: dict[str, Any]) -> dict[str, Any]:
        return head | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]} | tail

    first: dict[str, Any] = {"role": "assistant", "content": ""}
    started = {"x_groq": {"id": f"req_{plan.id}"}} if plan.provider == "groq" and plan.id is not None else {}
    yield Frame(chunk(first, None, every | started), "", kind)
    for piece in plan.pieces:
        yield Frame(chunk({"content": piece}, None, every), piece, kind)
    calls = chat.message_of(plan).get("tool_calls", [])
    for place, call in enumerate(calls):
        yield Frame(chunk({"tool_calls": [{"index": place, **call}]}, None, every), "", kind)
    yield Frame(chunk({"content": ""}, _finish(plan), stated if inside else {}), "", kind)
    if stated and ((accent.where == "own" and shape != "inside") or shape == "twice"):
        yield Frame(head | {"choices": []} | stated, "", kind)


def write_ollama(plan: Plan) -> Written:
    """Ollama's own chat: lines of JSON, the counts in the last one."""
    done = {"stop": "stop", "length": "length"}.get(plan.finish, "stop")
    head = {"model": plan.model, "created_at": _STAMP}
    counts: dict[str, Any] = {}
    if plan.answer.usage not in ("missing", "null"):
        counts = {"prompt_eval_count": plan.counts.prompt, "eval_count": plan.counts.completion}
    tail = {"done_reason": done, "done": True, **_NANOSECONDS, **counts}
    if not plan.stream:
        message = {"role": "assistant", "content": plan.text}
        return Written("json", (Frame({**head, "message": message, **tail}, plan.text),))
    frames = [
        Frame({**head, "message": {"role": "assistant", "content": piece}, "done": False}, piece)
        for piece in plan.pieces
    ]
    last = {**head, "message": {"role": "assistant", "content": ""}, **tail}
    return Written("lines", (*frames, Frame(last)))
