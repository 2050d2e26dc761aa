"""Facts: what a request says about the call it starts, without keeping any of its text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tallystick.core.usage import MAX_COUNT
from tallystick.wire.encodings import inflated
from tallystick.wire.routes import Route, route

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding foreign JSON may raise."""

Part = Mapping[str, msgspec.Raw]

_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_value: Final = msgspec.json.Decoder().decode
_PROMPT: Final = (
    "system", "instructions", "systemInstruction", "system_instruction", "messages", "input", "contents", "prompt",
    "texts", "query", "documents", "tools", "toolConfig", "functions", "response_format",
)  # fmt: skip
_SYSTEM: Final = ("system", "instructions", "systemInstruction", "system_instruction")
_SILENT: Final = frozenset(
    {
        "type", "role", "id", "tool_call_id", "tool_use_id", "toolUseId", "call_id", "data", "bytes", "url", "uri",
        "image_url", "file_data", "file_id", "fileUri", "file_uri", "media_type", "mimeType", "mime_type", "format",
        "signature", "thoughtSignature", "thought_signature", "encrypted_content", "cache_control", "ttl", "detail",
        "finish_reason", "finishReason", "stop_reason", "status", "object", "logprobs",
    }
)  # fmt: skip
"""Keys whose text is no part of what the model reads, or is media."""
_DEPTH: Final = 64
_SHORT: Final = 84
"""Longer names may be spelled in more bytes than are read."""
_MULTIPART: Final = re.compile(
    rb'name="(model|stream|n)"[^\r\n]{0,200}\r?\n(?:[^\r\n]{1,200}\r?\n){0,4}\r?\n([^\r\n]{1,200})\r?\n'
)
_FORM_BYTES: Final = 2**20


_ABSENT: Final = msgspec.Raw()


class _Usual(msgspec.Struct, gc=False):
    """A body as nearly all are, so that one pass reads it; what fits no type is read field by field. So are the fields
    that only few bodies have: here they fit only where they say nothing."""

    model: str | None = None
    stream: bool | None = None
    stream_options: _Options | None = None
    service_tier: str | None = None
    background: bool | None = None
    max_completion_tokens: msgspec.Raw = _ABSENT
    max_output_tokens: msgspec.Raw = _ABSENT
    max_tokens: msgspec.Raw = _ABSENT
    n: msgspec.Raw = _ABSENT
    tools: msgspec.Raw = _ABSENT
    speed: None = None
    inference_geo: None = None
    max_gen_len: None = None
    tier: None = msgspec.field(default=None, name="serviceTier")
    tool_config: None = msgspec.field(default=None, name="toolConfig")
    inference: None = msgspec.field(default=None, name="inferenceConfig")
    generation: None = msgspec.field(default=None, name="generationConfig")
    generation_config: None = None
    options: None = None
    performance: None = msgspec.field(default=None, name="performanceConfig")


class _Options(msgspec.Struct, gc=False):
    include_usage: bool | None = None


_usual: Final = msgspec.json.Decoder(_Usual).decode
_UNLIMITED: Final = (_ABSENT,) * 3


class RequestFacts(msgspec.Struct, frozen=True):
    """What a request says. Every field but `api`, `provider` and `path` may be unknown.

    `max_output` is in tokens per answer and `answers` how many are asked for. `tier` is the service tier asked for;
    `context` what else decides a price and is known beforehand (region, deployment, data residency, speed,
    inference_geo). `tools` are the names of the tools, `body_bytes` is the length of the plain body. `usage_asked` is
    whether a chat stream asks for its usage. The body itself is held until the facts are dropped, so that `texts()`,
    `images` and `payload()` can be decoded when somebody asks.
    """

    api: str
    provider: str
    path: str
    model: str | None = None
    stream: bool = False
    max_output: int | None = None
    answers: int = 1
    tier: str | None = None
    context: Mapping[str, str] = {}
    tools: tuple[str, ...] = ()
    usage_asked: bool = False
    background: bool = False
    body_bytes: int = 0
    body: bytes = b""

    @property
    def images(self) -> int:
        """The number of pictures, counted when somebody asks."""
        return _pictures(self.body)

    def payload(self) -> dict[str, Any]:
        """The whole body, decoded; empty when it is not a JSON object."""
        try:
            decoded = _value(self.body)
        except UNREADABLE:
            return {}
        return decoded if isinstance(decoded, dict) else {}

    def texts(self) -> list[str]:
        """The texts of the prompt: system text, messages, tools. Media, ids and the like are left out."""
        payload = self.payload()
        return texts_of([payload[key] for key in _PROMPT if key in payload])

    def system(self) -> str:
        """The system text, as far as it stands in a field of its own or in messages of that role."""
        payload = self.payload()
        found = [payload[key] for key in _SYSTEM if key in payload]
        messages = payload.get("messages")
        if isinstance(messages, list):
            found += [
                message.get("content")
                for message in messages
                if isinstance(message, dict) and message.get("role") in ("system", "developer")
            ]
        return "\n".join(texts_of(found))


def request_facts(
    method: str, url: str, headers: Mapping[str, str], body: bytes, *, provider: str | None = None
) -> RequestFacts | None:
    """What a request says about its call, or None where no reader knows the path (`routes.is_free` says whether such a
    path is known to cost nothing).

    `headers` are looked up by their names in lower case; `provider` names who bills where the caller knows better than
    the host. Never raises, whatever the body: what cannot be read is left unknown.
    """
    way = route(method, url, provider)
    if way is None:
        return None
    plain: bytes | None = body
    encoding = headers.get("content-encoding")
    if encoding is not None:
        plain = inflated(encoding, body)
    if plain is None:
        return RequestFacts(way.api, way.provider, way.path, way.model, way.stream or False, context=way.context)
    if "multipart/" in headers.get("content-type", ""):
        return _of_form(way, plain)
    try:
        facts = _of_usual(way, _usual(plain), plain)
        if facts is not None:
            return facts
    except UNREADABLE:
        pass
    return _of_fields(way, _object(plain), plain)


def _of_usual(way: Route, said: _Usual, body: bytes) -> RequestFacts | None:
    """The facts of a body that has nothing rare in it; None where it has."""
    model, tier = said.model, said.service_tier
    if (model and len(model) > _SHORT) or (tier and len(tier) > _SHORT):
        return None
    most = None
    stated = (said.max_completion_tokens, said.max_output_tokens, said.max_tokens)
    if stated != _UNLIMITED:
        most = min([count for raw in stated if (count := _count(raw)) is not None], default=None)
    stream = way.stream
    if stream is None:
        stream = way.api == "ollama.chat" if said.stream is None else said.stream
    return RequestFacts(
        way.api,
        way.provider,
        way.path,
        way.model or model or None,
        stream,
        most,
        1 if said.n is _ABSENT else _count(said.n) or 1,
        tier or None,
        way.context,
        () if said.tools is _ABSENT else _tool_names({"tools": said.tools}),
        said.stream_options is not None and said.stream_options.include_usage is True,
        said.background is True,
        len(body),
        body,
    )


def _of_fields(way: Route, fields: Part, body: bytes) -> RequestFacts:
    inference = _inside(fields, "inferenceConfig", "generationConfig", "generation_config", "options")
    # Ollama streams unless it is told not to; everybody else does when told to.
    usual = way.api == "ollama.chat"
    stream = way.stream if way.stream is not None else _flag(fields.get("stream"), usual)
    most = _limits(fields, "max_completion_tokens", "max_output_tokens", "max_tokens", "max_gen_len") or _limits(
        inference, "maxTokens", "maxOutputTokens", "max_output_tokens", "num_predict"
    )
    answers = _count(fields.get("n")) or _limits(inference, "candidateCount", "candidate_count") or 1
    context = dict(way.context)
    for name in ("speed", "inference_geo"):
        if text := _text(fields.get(name)):
            context[name] = text
    latency = _text(_inside(fields, "performanceConfig").get("latency"))
    if latency == "optimized":
        context["speed"] = latency
    tier = fields.get("service_tier", fields.get("serviceTier"))
    return RequestFacts(
        way.api,
        way.provider,
        way.path,
        way.model or _text(fields.get("model")),
        stream,
        most,
        answers,
        _text(tier) or _text(_object(tier).get("type")),
        context,
        _tool_names(fields),
        _flag(_inside(fields, "stream_options").get("include_usage"), False),
        _flag(fields.get("background"), False),
        len(body),
        body,
    )


def _of_form(way: Route, body: bytes) -> RequestFacts:
    """The facts of a form with files: its short fields; the files themselves are not looked at."""
    found = {name.decode(): value.decode("utf-8", "replace") for name, value in _MULTIPART.findall(body[:_FORM_BYTES])}
    if len(body) > _FORM_BYTES:
        tail = _MULTIPART.findall(body[-_FORM_BYTES:])
        found = {name.decode(): value.decode("utf-8", "replace") for name, value in tail} | found
    number = found.get("n", "")
    return RequestFacts(
        way.api,
        way.provider,
        way.path,
        found.get("model"),
        found.get("stream", "").strip().lower() in ("true", "1"),
        answers=int(number) if re.fullmatch("[1-9][0-9]{0,2}", number, re.ASCII) else 1,
        context=way.context,
        body_bytes=len(body),
    )


def _decoded(raw: msgspec.Raw | None) -> Any:
    if raw is None:
        return None
    try:
        return _value(raw)
    except UNREADABLE:
        return None


def _text(raw: msgspec.Raw | None) -> str | None:
    value = _decoded(raw) if raw is not None and len(raw) < 1024 else None
    return value if isinstance(value, str) and value else None


def _flag(raw: msgspec.Raw | None, usual: bool) -> bool:
    value = _decoded(raw)
    return value if isinstance(value, bool) else usual


def _count(raw: msgspec.Raw | None) -> int | None:
    value = _decoded(raw)
    return value if type(value) is int and 0 < value < MAX_COUNT else None


def _object(raw: msgspec.Raw | bytes | None) -> Part:
    if raw is None:
        return {}
    try:
        return _fields(raw)
    except UNREADABLE:
        return {}


def _inside(fields: Part, *names: str) -> Part:
    for name in names:
        if name in fields:
            return _object(fields[name])
    return {}


def _limits(fields: Part, *names: str) -> int | None:
    """The smallest of the limits that are stated."""
    found = [count for name in names if (count := _count(fields.get(name))) is not None]
    return min(found, default=None)


def _tool_names(fields: Part) -> tuple[str, ...]:
    """The names of the tools in any provider's layout; a hosted tool without a name goes by its type."""
    tools = _decoded(fields.get("tools")) or _decoded(_inside(fields, "toolConfig").get("tools"))
    found: list[str] = []
    for tool in tools if isinstance(tools, list) else ():
        if not isinstance(tool, dict):
            continue
        declared = tool.get("functionDeclarations") or tool.get("function_declarations")
        inner = tool.get("function") or tool.get("toolSpec")
        several = declared if isinstance(declared, list) else [inner if isinstance(inner, dict) else tool]
        for one in several:
            name = (one.get("name") or one.get("type") or next(iter(one), "")) if isinstance(one, dict) else ""
            if isinstance(name, str) and name:
                found.append(name)
    return tuple(found)


def _pictures(body: bytes) -> int:
    """The number of pictures in a prompt; the body is walked only if it speaks of any."""
    if b"image" not in body:
        return 0
    try:
        left = [(_value(body), 0)]
    except UNREADABLE:
        return 0
    count = 0
    while left:
        value, depth = left.pop()
        if depth > _DEPTH:
            continue
        if isinstance(value, list):
            left += [(inner, depth + 1) for inner in value]
        elif isinstance(value, dict):
            if _is_picture(value):
                count += 1
            else:
                left += [(inner, depth + 1) for inner in value.values()]
    return count


def _is_picture(part: Mapping[str, Any]) -> bool:
    """Whether a part of a message is a picture: by its type, as Bedrock's `image`, or by the media type of Gemini's
    inline data."""
    if part.get("type") in ("image", "image_url", "input_image"):
        return True
    inner = part.get("image") or part.get("inlineData") or part.get("inline_data") or part.get("fileData")
    if not isinstance(inner, dict):
        return False
    media = inner.get("mimeType") or inner.get("mime_type") or ("image/" if "source" in inner else "")
    return isinstance(media, str) and media.startswith("image/")


def texts_of(values: list[Any]) -> list[str]:
    """All texts inside these values, in their order."""
    found: list[str] = []
    left: list[tuple[Any, int]] = [(value, 0) for value in reversed(values)]
    while left:
        value, depth = left.pop()
        if isinstance(value, str):
            found.append(value)
        elif depth > _DEPTH:
            continue
        elif isinstance(value, list):
            left += [(inner, depth + 1) for inner in reversed(value)]
        elif isinstance(value, dict):
            left += [(inner, depth + 1) for key, inner in reversed(value.items()) if key not in _SILENT]
    return found
