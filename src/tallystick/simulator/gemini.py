"""Gemini: generateContent, whole, as server-sent events or as a JSON array. Source: Google's API reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from tallystick.simulator.frames import Frame, Written
from tallystick.simulator.plan import Plan

_TYPE: Final = "google.genai.types:GenerateContentResponse"
_FINISH: Final = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP", "content_filter": "SAFETY"}


def usage(plan: Plan) -> dict[str, Any]:
    """`usageMetadata`: cached tokens inside the prompt, thoughts beside the candidates."""
    counts = plan.counts
    stated: dict[str, Any] = {}
    if counts.cache_read:
        stated["cachedContentTokenCount"] = counts.cache_read
    stated["candidatesTokenCount"] = counts.output + counts.audio_output
    if counts.audio_output:
        stated["candidatesTokensDetails"] = _modalities(counts.output, counts.audio_output)
    stated["promptTokenCount"] = counts.prompt
    stated["promptTokensDetails"] = _modalities(counts.prompt - counts.audio_input, counts.audio_input)
    if counts.reasoning:
        stated["thoughtsTokenCount"] = counts.reasoning
    stated["totalTokenCount"] = counts.prompt + counts.completion
    return stated


def _modalities(text: int, audio: int) -> list[dict[str, Any]]:
    rows = [("TEXT", text), *([("AUDIO", audio)] if audio else [])]
    return [{"modality": name, "tokenCount": count} for name, count in rows]


def write(plan: Plan) -> Written:
    """A generated content."""
    if plan.verb != "streamGenerateContent":
        parts = [*_thoughts(plan), {"text": plan.text}, *_functions(plan)]
        return Written("json", (Frame(_body(plan, parts, last=True), plan.text, _TYPE),))
    return Written("sse" if plan.form == "sse" else "array", tuple(_stream(plan)))


def _thoughts(plan: Plan) -> list[dict[str, Any]]:
    return [{"text": "Let me think.", "thought": True}] if plan.thinking and plan.counts.reasoning else []


def _functions(plan: Plan) -> list[dict[str, Any]]:
    return [
        {"functionCall": {"args": msgspec.json.decode(one.arguments), "name": one.name}}
        for one in plan.answer.functions
    ]


def _body(plan: Plan, parts: list[dict[str, Any]], *, last: bool) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}}
    if last:
        candidate["finishReason"] = _FINISH[plan.finish]
        searches = dict(plan.fees).get("web_search", 0)
        if searches:
            candidate["groundingMetadata"] = {"webSearchQueries": [f"question {place}" for place in range(searches)]}
    candidate["index"] = 0
    body: dict[str, Any] = {"candidates": [candidate], "modelVersion": plan.model}
    if plan.id is not None:
        body["responseId"] = plan.id
    shape = plan.answer.usage
    if shape == "null":
        body["usageMetadata"] = None
    elif shape != "missing":
        body["usageMetadata"] = usage(plan) if last else _early(plan)
    return body


def _early(plan: Plan) -> dict[str, Any]:
    """What is stated before the end: the prompt alone, so that the last statement is the one that counts."""
    stated = usage(plan)
    for name in ("candidatesTokenCount", "candidatesTokensDetails", "thoughtsTokenCount"):
        stated.pop(name, None)
    return stated | {"totalTokenCount": plan.counts.prompt}


def _stream(plan: Plan) -> Iterator[Frame]:
    if thoughts := _thoughts(plan):
        yield Frame(_body(plan, thoughts, last=False), "", _TYPE)
    for piece in plan.pieces[:-1]:
        yield Frame(_body(plan, [{"text": piece}], last=False), piece, _TYPE)
    final = plan.pieces[-1] if plan.pieces else ""
    yield Frame(_body(plan, [{"text": final}, *_functions(plan)], last=True), final, _TYPE)
    if plan.answer.usage == "twice":
        yield Frame(_body(plan, [{"text": ""}], last=True), "", _TYPE)
