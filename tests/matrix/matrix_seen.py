"""Seen: what a caller notices of its calls, in a form that can be compared: objects, exceptions, headers, bytes."""

import enum
import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta

PLACES = (
    ("_client",),
    ("_api_client", "_httpx_client"),
    ("_api_client", "_async_httpx_client"),
    ("sdk_configuration", "client"),
    ("sdk_configuration", "async_client"),
)
"""Where SDKs keep the httpx client they send with."""

_OWN = re.compile(r"127\.0\.0\.1:\d+|boundary=\w+|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""What differs between two equal runs: the port, the boundary of a form, ids that a library makes up."""


def told(value):
    """A value as plain data, with the names of the types of what SDKs give."""
    if value is None or isinstance(value, bool | int | float | bytes):
        return value
    if isinstance(value, str):
        return _OWN.sub("OWN", value)
    if isinstance(value, BaseException):
        more = {name: told(getattr(value, name, None)) for name in ("status_code", "code", "body", "message", "param")}
        return [kind(value), told(str(value)), more]
    if isinstance(value, enum.Enum | datetime | timedelta):
        return str(value)
    if kind(value).startswith("litellm."):
        # LiteLLM dates what it gives, and hides its own figures of time and money in it.
        fields = {name: part for name, part in vars(value).items() if name != "created" and not name.startswith("_")}
        return [kind(value), {name: told(part) for name, part in fields.items()}]
    if hasattr(value, "model_dump"):
        fields = {**vars(value), **(getattr(value, "__pydantic_extra__", None) or {})}
        return [kind(value), {name: told(part) for name, part in fields.items()}, getattr(value, "_request_id", None)]
    if isinstance(value, Mapping):
        return {told(name): told(part) for name, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [told(part) for part in value]
    if isinstance(value, type):
        return value.__name__
    if hasattr(value, "__dict__") and type(value).__module__.partition(".")[0] in _OPENED:
        return [kind(value), {name: told(part) for name, part in vars(value).items() if not name.startswith("_")}]
    return kind(value)


_OPENED = ("openai", "anthropic", "mistralai", "groq", "google", "litellm", "langchain_core")


def kind(value):
    """The name of a value's type, without the parameters of a generic one."""
    return f"{type(value).__module__.partition('.')[0]}.{type(value).__name__}"


class Caller:
    """What one run of a cell has seen. `say` takes whatever the caller gets; `kept` holds what the caller keeps."""

    def __init__(self):
        self.said = []
        self.headers = []
        self.handed = []
        self.kept = []

    def say(self, value):
        """The caller got this."""
        self.said.append(told(value))

    def watch(self, client):
        """Notes the headers and the bytes of every response that the client is handed."""
        for http in _http_clients(client):
            if "Async" in type(http).__name__:
                http.event_hooks = {**http.event_hooks, "response": [self._answered_async]}
            else:
                http.event_hooks = {**http.event_hooks, "response": [self._answered]}

    def _answered(self, response):
        request = response.request
        self.headers.append(
            [
                response.status_code, _plain(response.headers), response.http_version, response.reason_phrase,
                request.method, told(str(request.url)), _plain(request.headers),
                None if "multipart" in request.headers.get("content-type", "") else getattr(request, "_content", None),
            ]
        )  # fmt: skip
        if hasattr(response, "_content"):
            raise AssertionError("a real transport gives a response that is not read yet")
        self.handed.append([])
        response.stream = _tee(response.stream, self.handed[-1])

    async def _answered_async(self, response):
        self._answered(response)


def _plain(headers):
    return [[name.decode().lower(), told(value.decode("latin-1"))] for name, value in headers.raw]


def _http_clients(client):
    found = {}
    for one in (client, getattr(client, "root_client", None), getattr(client, "root_async_client", None)):
        for path in PLACES:
            inner = one
            for name in path:
                inner = getattr(inner, name, None)
            if hasattr(inner, "event_hooks"):
                found[id(inner)] = inner
    return list(found.values())


def _tee(stream, parts):
    base = next(one for one in type(stream).__mro__ if one.__name__ in ("SyncByteStream", "AsyncByteStream"))
    kind = _Tee if base.__name__ == "SyncByteStream" else _AsyncTee
    return type("Tee", (kind, base), {})(stream, parts)


class _Tee:
    """A body that notes what passes. An iterator and no generator: it has no end of its own when it is dropped."""

    def __init__(self, inner, parts):
        self._inner = inner
        self._parts = parts

    def __iter__(self):
        self._source = iter(self._inner)
        return self

    def __next__(self):
        part = next(self._source)
        self._parts.append(part)
        return part

    def close(self):
        self._inner.close()


class _AsyncTee:
    def __init__(self, inner, parts):
        self._inner = inner
        self._parts = parts

    def __aiter__(self):
        self._source = aiter(self._inner)
        return self

    async def __anext__(self):
        part = await anext(self._source)
        self._parts.append(part)
        return part

    async def aclose(self):
        await self._inner.aclose()


def delivered_text(body):
    """The generated text in the whole events of a body; an oracle of its own, made for what the simulator writes."""
    if body.startswith(b"{"):
        return _text_of(json.loads(body))
    whole = body[: body.rfind(b"\n\n") + 2] if b"\n\n" in body else b""
    text = ""
    for line in whole.decode().splitlines():
        if line.startswith("data: {"):
            text += _text_of(json.loads(line[6:]))
    return text


def _text_of(event):
    if event.get("type") == "response.output_text.delta":
        return event["delta"]
    if event.get("type") == "content_block_delta":
        return event["delta"].get("text", "")
    found = ""
    for choice in event.get("choices", ()):
        found += choice.get("delta", choice.get("message", {})).get("content") or choice.get("text") or ""
    for block in event.get("content", ()):
        found += block.get("text", "")
    for candidate in event.get("candidates", ()):
        found += "".join(part.get("text", "") for part in candidate.get("content", {}).get("parts", ()))
    return found
