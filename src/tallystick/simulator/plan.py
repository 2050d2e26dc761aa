"""Plan: an answer decided for one request: the text, its counts, how it ends. Formats write it in their own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tallystick.core.usage import Usage
from tallystick.errors import UsageError
from tallystick.simulator.answer import Answer
from tallystick.simulator.request import Request
from tallystick.simulator.text import counted, generated, pieces, shortened
from tallystick.tokens import count_messages, count_text

ID: Final = "S1MULAT0R-1D-1S-PUT-HERE"
"""Stands in prepared bytes where the id of the call will be; ids have its length."""

_CHAT: Final = frozenset({"cache_read", "cache_write", "reasoning", "audio"})
_STATES: Final[Mapping[str, frozenset[str]]] = {
    "openai.chat": _CHAT,
    "openai.completions": frozenset({"cache_read"}),
    "openai.responses": frozenset({"cache_read", "cache_write", "reasoning", "fees"}),
    "openai.embeddings": frozenset(),
    "openai.images": frozenset(),
    "openai.audio.transcriptions": frozenset({"audio_input"}),
    "anthropic.messages": frozenset({"cache_read", "cache_write", "ttl", "reasoning", "fees"}),
    "gemini.generateContent": frozenset({"cache_read", "reasoning", "audio", "fees"}),
    "gemini.embed": frozenset(),
    "bedrock.converse": frozenset({"cache_read", "cache_write", "ttl"}),
    "bedrock.invoke": frozenset({"cache_read", "cache_write", "ttl", "reasoning", "fees"}),
    "mistral.chat": frozenset({"cache_read"}),
    "deepseek.chat": frozenset({"cache_read", "reasoning"}),
    "groq.chat": frozenset({"cache_read", "reasoning"}),
    "xai.chat": frozenset({"cache_read", "reasoning", "fees"}),
    "openrouter.chat": frozenset({"cache_read", "cache_write", "reasoning", "audio", "fees"}),
    "together.chat": frozenset({"cache_read"}),
    "vllm.chat": frozenset({"cache_read"}),
    "perplexity.chat": frozenset(),
    "ollama.chat": frozenset(),
}
"""Which parts of a usage each API can state; the rest is plain input or output there."""

_BILLED: Final[Mapping[str, frozenset[str]]] = {
    "openai.responses": frozenset({"web_search", "file_search", "code_interpreter"}),
    "anthropic.messages": frozenset({"web_search"}),
    "bedrock.invoke": frozenset({"web_search"}),
    "gemini.generateContent": frozenset({"web_search"}),
    "xai.chat": frozenset({"web_search", "x_search", "code_interpreter", "file_search", "document_search"}),
    "openrouter.chat": frozenset({"web_search"}),
}
_SILENT: Final = frozenset({"openai.embeddings", "gemini.embed", "openai.images"})
_LIMITS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens")


class Counts(msgspec.Struct, frozen=True):
    """What a call uses, in parts that never overlap."""

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    audio_input: int = 0
    output: int = 0
    reasoning: int = 0
    audio_output: int = 0

    @property
    def written(self) -> int:
        """Tokens written to the cache, for whatever time."""
        return self.cache_write_5m + self.cache_write_1h

    @property
    def prompt(self) -> int:
        """The whole prompt."""
        return self.input + self.cache_read + self.written + self.audio_input

    @property
    def completion(self) -> int:
        """Everything generated."""
        return self.output + self.reasoning + self.audio_output


class Plan(msgspec.Struct, frozen=True):
    """An answer decided for one request. `asked_usage` is OpenAI's include_usage; `id` stands in for the call's own
    id, and is None where the script leaves ids out."""

    answer: Answer
    api: str
    provider: str
    model: str
    verb: str | None
    stream: bool
    asked_usage: bool
    thinking: bool
    counts: Counts
    fees: tuple[tuple[str, int], ...]
    text: str
    pieces: tuple[str, ...]
    finish: str
    form: str
    limit: int | None
    id: str | None
    key: bytes
    parts: int

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for plans that are written with the same bytes."""
        return msgspec.structs.astuple(self)[1:]

    @property
    def usage(self) -> Usage:
        """The truth, in kinds."""
        counts = self.counts
        found = {name: getattr(counts, name) for name in counts.__struct_fields__}
        if "ttl" not in _STATES[self.api]:
            found["cache_write"] = found.pop("cache_write_5m") + found.pop("cache_write_1h")
        if self.api == "openai.images":
            found["image_output"] = found.pop("output")
        if self.api == "openai.audio.transcriptions" and self.answer.audio_seconds is not None:
            found = {"milliseconds_input": self.answer.audio_seconds * 1000}
        if self.api == "perplexity.chat":
            found["requests"] = 1
        return Usage({**found, **{f"fee:{name}": count for name, count in self.fees}})


def plan(request: Request, answer: Answer) -> Plan:
    """Decides what one call gets."""
    way = request.way
    if way is None or way.api not in _STATES:
        raise UsageError(f"There is no simulated answer for {request.path}.")
    body, model = request.json, request.model
    states = _STATES[way.api]
    limit = _limit(body)
    text, output, reasoning, finish = _output(request, answer, limit)
    if way.api in _SILENT:
        text, output = "", 0 if way.api != "openai.images" else output
    options = body.get("stream_options")
    fees = tuple((name, count) for name, count in answer.tools.items() if count and name in _BILLED.get(way.api, ()))
    return Plan(
        answer,
        way.api,
        way.provider,
        model,
        way.verb,
        request.stream,
        isinstance(options, dict) and options.get("include_usage") is True,
        _thinks(body),
        _counts(request, answer, states, (output, reasoning)),
        fees,
        text,
        pieces(text, answer.chunks, answer.chunk_tokens),
        finish,
        _form(request),
        limit,
        None if answer.ids == "missing" else ID,
        answer.key,
        _parts(body),
    )


def _counts(request: Request, answer: Answer, states: frozenset[str], made: tuple[int, int]) -> Counts:
    whole = answer.input_tokens
    if whole is None:
        parts = answer.cached_tokens + answer.cache_write_5m + answer.cache_write_1h + answer.audio_input_tokens
        whole = max(parts, prompt_tokens(request) + answer.hidden_tokens)
    caches = "cache_read" in states, "cache_write" in states
    cached = answer.cached_tokens if caches[0] else 0
    short, long = (answer.cache_write_5m, answer.cache_write_1h) if caches[1] else (0, 0)
    heard = answer.audio_input_tokens if states & {"audio", "audio_input"} else 0
    spoken = 0 if request.api in _SILENT else answer.audio_output_tokens
    output, reasoning = made
    if "audio" not in states:
        output, spoken = output + spoken, 0
    if "reasoning" not in states:
        output, reasoning = output + reasoning, 0
    return Counts(whole - cached - short - long - heard, cached, short, long, heard, output, reasoning, spoken)


def _output(request: Request, answer: Answer, limit: int | None) -> tuple[str, int, int, str]:
    """The text, its tokens, the reasoning and the finish, within the caller's limit."""
    reasoning = 0 if request.api in _SILENT else answer.reasoning_tokens
    tokens = answer.output_tokens
    if answer.text is not None:
        text = answer.text
        tokens = counted(text, request.model) if tokens is None else tokens
    elif tokens is not None:
        text = generated(tokens, answer.seed)
    else:
        text = f"You said: {asked(request.json)[:400]}"
        tokens = counted(text, request.model)
    if limit is None or reasoning + tokens <= limit:
        return text, tokens, reasoning, answer.finish
    reasoning = min(reasoning, limit)
    left = limit - reasoning
    if answer.text is None and answer.output_tokens is not None:
        return generated(left, answer.seed), left, reasoning, "length"
    if answer.output_tokens is None:
        return shortened(text, left, request.model), left, reasoning, "length"
    return text[: len(text) * left // tokens], left, reasoning, "length"


def _limit(body: dict[str, Any]) -> int | None:
    places = [body, *(body.get(name) for name in ("generationConfig", "inferenceConfig", "options"))]
    for place in places:
        if isinstance(place, dict):
            for name in (*_LIMITS, "maxOutputTokens", "maxTokens", "num_predict"):
                if type(place.get(name)) is int and place[name] > 0:
                    return int(place[name])
    return None


def _thinks(body: dict[str, Any]) -> bool:
    """Whether the caller asked to see the thinking."""
    thinking = body.get("thinking")
    config = body.get("generationConfig")
    shown = config.get("thinkingConfig") if isinstance(config, dict) else None
    return (isinstance(thinking, dict) and thinking.get("type") in ("enabled", "adaptive")) or (
        isinstance(shown, dict) and shown.get("includeThoughts") is True
    )


def _form(request: Request) -> str:
    """How the answer is to be written, where the caller chooses: Gemini's alt, a transcription's response format."""
    if "alt=sse" in request.query:
        return "sse"
    if request.json.get("background") is True:
        return "background"
    return str(request.json.get("encoding_format") or "")


def _parts(body: dict[str, Any]) -> int:
    """How many things are to be embedded."""
    given = body.get("input")
    many = body.get("requests")
    if isinstance(many, list):
        return len(many)
    texts = isinstance(given, list) and bool(given) and not isinstance(given[0], int)
    return len(given) if texts and isinstance(given, list) else 1


def prompt_tokens(request: Request) -> int:
    """The tokens of a prompt, counted as the model's own tokenizer does where that is known."""
    body, model = request.json, request.model
    if request.api in ("openai.embeddings", "openai.images", "openai.completions", "gemini.embed"):
        given = body.get("input", body.get("prompt", body.get("content")))
        if isinstance(given, list) and given and isinstance(given[0], int):
            return len(given)
        texts = given if isinstance(given, list) else [given]
        return sum(count_text(text if isinstance(text, str) else str(text), model).tokens for text in texts)
    messages = body.get("messages", body.get("input", body.get("contents")))
    system = body.get("system", body.get("instructions", body.get("systemInstruction")))
    tools = body.get("tools", body.get("toolConfig"))
    return count_messages(messages, model, tools=tools, system=system).tokens


def asked(body: dict[str, Any]) -> str:
    """The last text of the caller's."""
    for name in ("messages", "input", "contents", "prompt"):
        texts = list(_texts(body.get(name)))
        if texts:
            return texts[-1]
    return "nothing"


def _texts(value: object, depth: int = 0) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and depth < 6:
        return [text for part in value[-2:] for text in _texts(part, depth + 1)]
    if isinstance(value, dict):
        return [text for name in ("content", "text", "parts") for text in _texts(value.get(name), depth + 1)]
    return []
