"""Request: one call as the simulator received it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any, Final
from urllib.parse import unquote

import msgspec


class Way(msgspec.Struct, frozen=True):
    """What a path asks for. `api` names the format (openai.chat, anthropic.messages, ...), `provider` who answers,
    `model` and `verb` are those in the path, if any."""

    api: str
    provider: str
    model: str | None = None
    verb: str | None = None


COMPATIBLE: Final = ("mistral", "deepseek", "xai", "groq", "openrouter", "together", "vllm", "perplexity", "ollama")
"""Providers that speak OpenAI's chat format with an accent of their own; each answers below its own first segment."""

_PREFIX: Final = re.compile(rf"/(?P<provider>{'|'.join(COMPATIBLE)}|openai|anthropic|gemini|bedrock|azure)(?=/)")
_WAYS: Final = tuple(
    (re.compile(pattern + r"/?\Z"), method, api, owner)
    for pattern, method, api, owner in (
        (r".*/chat/completions", "POST", "chat", "openai"),
        (r".*/completions", "POST", "openai.completions", "openai"),
        (r".*/responses", "POST", "openai.responses", "openai"),
        (r".*/responses/(?P<model>[^/]+)", "GET", "openai.responses.get", "openai"),
        (r".*/embeddings", "POST", "openai.embeddings", "openai"),
        (r".*/audio/transcriptions", "POST", "openai.audio.transcriptions", "openai"),
        (r".*/images/generations", "POST", "openai.images", "openai"),
        (r".*/v1/messages", "POST", "anthropic.messages", "anthropic"),
        (r".*/v1/messages/count_tokens", "POST", "anthropic.count", "anthropic"),
        (r".*/models/(?P<model>[^:]+):(?P<verb>generateContent|streamGenerateContent)", "POST",
         "gemini.generateContent", "gemini"),
        (r".*/models/(?P<model>[^:]+):(?P<verb>countTokens)", "POST", "gemini.count", "gemini"),
        (r".*/models/(?P<model>[^:]+):(?P<verb>embedContent|batchEmbedContents)", "POST", "gemini.embed", "gemini"),
        (r".*/model/(?P<model>[^/]+)/(?P<verb>converse|converse-stream)", "POST", "bedrock.converse", "bedrock"),
        (r".*/model/(?P<model>[^/]+)/(?P<verb>invoke|invoke-with-response-stream)", "POST", "bedrock.invoke",
         "bedrock"),
        (r".*/api/chat", "POST", "ollama.chat", "ollama"),
        (r".*/models", "GET", "openai.models", "openai"),
    )
)  # fmt: skip


@lru_cache(maxsize=512)
def way(method: str, path: str) -> Way | None:
    """What a request asks for, or None where no provider has such a path."""
    first = _PREFIX.match(path)
    for pattern, wanted, name, owner in _WAYS:
        match = pattern.match(path) if wanted == method else None
        if match is None:
            continue
        named = first["provider"] if first else owner
        api = name
        if name == "chat":
            api = f"{named if named in COMPATIBLE else 'openai'}.chat"
        parts = match.groupdict()
        model = parts.get("model")
        return Way(api, named, None if model is None else unquote(model), parts.get("verb"))
    return None


class Request:
    """One call as it came in. `headers` have lower-case names; `way` is what the path asks for, None where it is
    nobody's; `json` is the body, {} where it is no JSON object."""

    def __init__(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> None:
        self.method = method
        self.path, _, self.query = target.partition("?")
        self.headers = headers
        self.body = body
        self.way = way(method, self.path)

    @property
    def api(self) -> str | None:
        """The format that is spoken: openai.chat, anthropic.messages, ..."""
        return None if self.way is None else self.way.api

    @cached_property
    def readable(self) -> bool:
        """Whether the body is a JSON object."""
        return self._decoded is not None

    @cached_property
    def json(self) -> dict[str, Any]:
        """The body as a JSON object."""
        return self._decoded or {}

    @cached_property
    def _decoded(self) -> dict[str, Any] | None:
        try:
            body = msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return body if isinstance(body, dict) else None

    @cached_property
    def model(self) -> str:
        """The model that is asked for."""
        stated = self.way.model if self.way is not None and self.way.model else self.json.get("model")
        return str(stated or self._field("model") or "unnamed")

    @cached_property
    def stream(self) -> bool:
        """Whether a stream is asked for."""
        verb = None if self.way is None else self.way.verb
        if verb is not None:
            return "tream" in verb
        usual = self.api == "ollama.chat"
        return bool(self.json.get("stream", usual)) or self._field("stream") == "true"

    def _field(self, name: str) -> str | None:
        """A field of a multipart form."""
        if not self.headers.get("content-type", "").startswith("multipart/"):
            return None
        pattern = rb'name="%b"\r\n(?:[^\r]+\r\n)*\r\n(.*?)\r\n--' % re.escape(name.encode())
        found = re.search(pattern, self.body, re.DOTALL)
        return found[1].decode("utf-8", "replace") if found else None
