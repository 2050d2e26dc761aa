"""Outgoing: what may be changed in a request body: asking for the stream's usage, and a lower maximum of output."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from tallystick.wire.facts import UNREADABLE, RequestFacts
from tallystick.wire.transform import NEEDS_OPTION

_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode: Final = msgspec.json.encode

_NESTED: Final = {
    "gemini.generateContent": ("generationConfig", "maxOutputTokens"),
    "bedrock.converse": ("inferenceConfig", "maxTokens"),
    "ollama.chat": ("options", "num_predict"),
}
"""Where the maximum stands inside another object."""

_NAMES: Final[tuple[str, ...]] = ("max_completion_tokens", "max_output_tokens", "max_tokens", "max_gen_len")


def wants_usage(facts: RequestFacts, url: str, refusing: set[str]) -> bool:
    """Whether this request should be asked for its usage: a chat stream that does not ask itself, at a host that is not
    known to refuse."""
    if not facts.stream or facts.usage_asked or facts.api not in NEEDS_OPTION:
        return False
    host = host_of(url)
    return host not in refusing and policy_of(host) != "never"


def host_of(url: str) -> str:
    """The host of a URL in lower case; empty for a path."""
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


@functools.lru_cache(maxsize=256)
def policy_of(host: str) -> str:
    """`inject` or `never` where the table of hosts says so, else `auto`."""
    for row in _hosts():
        if host == row["ends"] or host.endswith(f".{row['ends']}"):
            return str(row["policy"])
    return "auto"


@functools.cache
def _hosts() -> list[dict[str, Any]]:
    text = (Path(__file__).parent / "data" / "hosts.toml").read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = tomllib.loads(text)["host"]
    return rows


def with_max_output(body: bytes, api: str, tokens: int) -> bytes | None:
    """The body with its maximum of output tokens set; None for one that cannot be read. The values of all other fields
    keep their bytes."""
    try:
        fields = _fields(body)
        outer = _NESTED.get(api)
        if outer is None:
            stated = [name for name in _NAMES if name in fields]
            for name in stated or [_name(api)]:
                fields[name] = msgspec.Raw(_encode(tokens))
        else:
            holder = outer[0]
            inner = _fields(fields[holder]) if holder in fields else {}
            inner[outer[1]] = msgspec.Raw(_encode(tokens))
            fields[holder] = msgspec.Raw(_encode(inner))
    except UNREADABLE:
        return None
    return _encode(fields)


def _name(api: str) -> str:
    if api in ("openai.responses", "xai.responses"):
        return "max_output_tokens"
    return "max_completion_tokens" if api in ("openai.chat", "groq.chat", "xai.chat") else "max_tokens"
