"""Counting a whole request: messages, system text and tools in the shapes of the large providers.

Text parts are counted as text, pictures and sound by the media rules, and what a chat format adds around them by dated
data with bounds. What is not understood is counted as its JSON and widens the bounds; nothing here fails on odd shapes.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tallystick.tokens.calibration import Calibration
from tallystick.tokens.count import Count, count_text, total
from tallystick.tokens.media import audio_tokens, image_size, image_tokens, pdf_tokens
from tallystick.tokens.rules import find, load

# A header is in the first bytes; JPEG may carry a large preview before it.
_HEADER: Final = 400_000
_DEEPEST: Final = 12
_PAGE: Final = re.compile(rb"/Type\s*/Page(?![a-zA-Z])")
# Keys of a message or part that are marks, not content.
_MARKS: Final = frozenset(
    ("role", "type", "id", "tool_call_id", "tool_use_id", "call_id", "status", "cache_control", "index", "is_error")
) | frozenset(
    ("signature", "citations", "thoughtSignature", "thought_signature", "detail", "name", "thought", "annotations")
)
_TEXTS: Final = frozenset(
    ("text", "thinking", "refusal", "output_text", "input_text", "reasoning_content", "reasoning", "instructions")
)
_CONTENTS: Final = frozenset(("content", "parts", "summary", "output"))
_CALLS: Final = frozenset(
    ("functionCall", "functionResponse", "function_call", "function_response", "function", "input", "arguments")
)
_CALL_TYPES: Final = frozenset(("tool_use", "tool_result", "function_call", "function_call_output", "server_tool_use"))


@dataclass(slots=True)
class _Gathered:
    """What was found in a request so far."""

    texts: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    media: list[Count] = field(default_factory=list)
    messages: int = 0
    names: int = 0
    calls: int = 0


def _json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    except (TypeError, ValueError, RecursionError):  # odd keys, cycles, depth: their plain text is as good a size
        try:
            return repr(value)
        except RecursionError:
            return ""


def _plain(value: object) -> object:
    """SDK objects as the mapping they stand for."""
    dump = getattr(value, "model_dump", None)
    return dump(exclude_none=True) if callable(dump) and not isinstance(value, type) else value


def _decoded(data: object) -> bytes:
    if isinstance(data, bytes):
        return data
    if not isinstance(data, str):
        return b""
    text = data.partition(",")[2] if data.startswith("data:") else data
    try:
        return base64.b64decode(text[: _HEADER // 4 * 4].encode("ascii", "ignore"))
    except (binascii.Error, ValueError):
        return b""


def _image(data: object, detail: object, model: str) -> Count:
    width, height = image_size(_decoded(data)) or (None, None)
    return image_tokens(width, height, model, detail if isinstance(detail, str) else "auto")


def _sound(data: object, model: str) -> Count:
    # Without decoding, only the size bounds the length: telephone-quality compression to uncompressed stereo.
    size = len(data) * 3 // 4 if isinstance(data, str) else len(data) if isinstance(data, bytes) else 0
    seconds: tuple[float, float, float]
    if not size:
        seconds, why = (1, 60, 1200), "sound of unknown length"
    else:
        seconds, why = (size / 192_000, size / 16_000, size / 1_000), "sound, its length judged by its size"
    low, likely, high = (audio_tokens(length, model) for length in seconds)
    return _wide(likely, low, high, why)


def _document(data: object, model: str) -> Count:
    raw = _decoded(data)
    size = len(data) * 3 // 4 if isinstance(data, str) else len(raw)
    pages = len(_PAGE.findall(raw))
    if pages > 0 and size <= len(raw) + 2:
        return pdf_tokens(pages, model)
    most = max(10, size // 2_000) if size else 100
    low, likely, high = (pdf_tokens(pages, model) for pages in (1, min(10, most), most))
    return _wide(likely, low, high, "a document of unknown length")


def _wide(likely: Count, low: Count, high: Count, basis: str) -> Count:
    tokens = likely.tokens
    why = f"{basis}; {likely.basis}"
    return Count(tokens, min(low.low, tokens), max(high.high, tokens), "estimate", None, why, 0)


def _media_part(part: Mapping[str, Any], model: str) -> Count | None:
    """The count of an image, sound or document part of any provider; None if it is none of these."""
    kind = part.get("type")
    if kind in ("image_url", "input_image") or (kind is None and "image_url" in part):
        url = part.get("image_url")
        holder = url if isinstance(url, Mapping) else {"url": url}
        return _image(holder.get("url"), holder.get("detail", part.get("detail")), model)
    blob = part.get("inlineData") or part.get("inline_data") or part.get("fileData") or part.get("file_data")
    if kind in ("image", "document") or isinstance(blob, Mapping):
        source = blob if isinstance(blob, Mapping) else part.get("source", part)
        if not isinstance(source, Mapping):
            return None
        media = str(source.get("media_type") or source.get("mimeType") or source.get("mime_type") or kind)
        if media.startswith("image"):
            return _image(source.get("data"), part.get("resolution", part.get("detail")), model)
        if media.startswith("audio"):
            return _sound(source.get("data"), model)
        if media.startswith("text") or source.get("type") in ("text", "content"):
            return None
        return _document(source.get("data"), model)
    if kind in ("input_audio", "audio"):
        inner = part.get(str(kind), part)
        return _sound(inner.get("data") if isinstance(inner, Mapping) else None, model)
    if kind in ("file", "input_file"):
        inner = part.get("file", part)
        return _document(inner.get("file_data") if isinstance(inner, Mapping) else None, model)
    return None


def _walk(value: object, found: _Gathered, model: str, depth: int = 0) -> None:
    """Collect the countable parts of a message, a part, or a list of either."""
    value = _plain(value)
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        found.texts.append(value)
    elif depth > _DEEPEST or not isinstance(value, (Mapping, Sequence)) or isinstance(value, (bytes, bytearray)):
        found.odd.append(_json(value))
    elif isinstance(value, Mapping):
        _walk_mapping(value, found, model, depth)
    else:
        for part in value:
            _walk(part, found, model, depth + 1)


def _walk_mapping(part: Mapping[str, Any], found: _Gathered, model: str, depth: int) -> None:
    media = _media_part(part, model)
    if media is not None:
        found.media.append(media)
        return
    kind = part.get("type")
    if (isinstance(kind, str) and kind in _CALL_TYPES) or part.get("role") == "tool":
        found.calls += 1
    name = part.get("name")
    if isinstance(name, str):
        found.texts.append(name)
        found.names += "role" in part
    understood = False
    for key, value in part.items():
        if key in _MARKS or value is None:
            continue
        if key in _TEXTS and isinstance(value, str):
            found.texts.append(value)
        elif key in _CONTENTS:
            _walk(value, found, model, depth + 1)
        elif key == "tool_calls" and isinstance(value, Sequence) and not isinstance(value, str):
            found.calls += len(value)
            _walk(value, found, model, depth + 1)
        elif key == "source" and isinstance(value, Mapping):
            _walk(value.get("data", value.get("content", value)), found, model, depth + 1)
        elif key in _CALLS:
            found.calls += key.endswith(("Call", "Response", "_response"))
            found.texts.append(value if isinstance(value, str) else _json(value))
        else:
            found.odd.append(f"{key}:{value}" if isinstance(value, str) else _json({str(key): value}))
        understood = True
    if not understood and not any(key in _MARKS for key in part):
        found.odd.append(_json(part))


def _each(value: object) -> Iterable[object]:
    value = _plain(value)
    if value is None:
        return ()
    if isinstance(value, Mapping) and isinstance(value.get("contents", value.get("messages")), Sequence):
        return _each(value.get("contents", value.get("messages")))
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        return (value,)
    return value


def _overhead(facts: Mapping[str, Any], found: _Gathered, tools: int) -> Count:
    amounts = {"message": found.messages, "name": found.names, "call": found.calls, "tool": tools}
    amounts |= {"base": 1, "tools_base": int(tools > 0)}
    low, likely, high = (sum(facts[key][at] * amount for key, amount in amounts.items()) for at in range(3))
    why = "what the chat format adds is an estimate"
    if "maker" not in facts:
        why += ": the format of this model is unknown"
    return Count(likely, low, high, "estimate", None, why, 0)


def _scaled(count: Count, factors: Sequence[float], basis: str) -> Count:
    low, likely, high = factors
    tokens = round(count.tokens * likely)
    lower, upper = min(tokens, math.floor(count.low * low)), max(tokens, math.ceil(count.high * high))
    return Count(tokens, lower, upper, "estimate", None, basis, count.bytes)


def count_messages(
    messages: object,
    model: str,
    tools: object = None,
    system: object = None,
    calibration: Calibration | None = None,
) -> Count:
    """The input tokens of a request: its messages, tools and system text for a model, with bounds.

    Accepts OpenAI chat messages and response items, Anthropic messages, Google contents, plain strings, and SDK
    objects of these. Never raises on odd shapes: they are counted as their JSON, and the bounds reach from nothing to
    twice that.
    """
    found = _Gathered()
    for message in (*_each(system), *_each(messages)):
        found.messages += 1
        _walk(message, found, model)
    facts = find("chat", "model", model) or load("chat")["unknown"]
    declared = [_json(_plain(tool)) for tool in _each(tools)]
    parts = [count_text(text, model, calibration) for text in found.texts]
    # A role is part of the message's own wrapping in every format, so it is not counted here.
    parts.append(_overhead(facts, found, len(declared)))
    parts.extend(found.media)
    if declared:
        schemas = total(count_text(text, model, calibration) for text in declared)
        parts.append(_scaled(schemas, facts["schema"], "tools are rendered in a form of the maker's own"))
    if found.odd:
        strange = total(count_text(text, model, calibration) for text in found.odd)
        parts.append(_scaled(strange, (0, 1, 2), "parts that were not understood were counted as JSON"))
    result = total(parts)
    return Count(result.tokens, result.low, result.high, result.method, result.encoding, _basis(parts), result.bytes)


def _basis(parts: Iterable[Count]) -> str:
    reasons = dict.fromkeys(part.basis for part in parts if part.tokens or part.high)
    listed = list(reasons)
    more = f"; and {len(listed) - 4} more" if len(listed) > 4 else ""
    return "; ".join(listed[:4]) + more
