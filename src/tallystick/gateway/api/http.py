"""HTTP: the little that the gateway's own rooms need of it: a body, an answer, a sentence when something is wrong."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final
from urllib.parse import quote

import msgspec

from tallystick.errors import ConfigError, ConflictError, InputError, LedgerError, TallyError, UnpricedError
from tallystick.ledger.entry import SCHEMA

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Room = Callable[[Scope, Receive, Send], Awaitable[None]]

JSON: Final = "application/json"


class Problem(TallyError):
    """A request that cannot be answered; `status` is the HTTP status."""

    def __init__(self, status: int, what: str, *, money: str = "", todo: str = "", allow: str = "") -> None:
        self.status = status
        self.allow = allow
        super().__init__(what, money=money, todo=todo)


class Gone(TallyError):
    """The client went away before its request was complete; nobody is there to answer."""


def status_of(error: TallyError) -> int:
    """The HTTP status of one of our errors."""
    if isinstance(error, Problem):
        return error.status
    if isinstance(error, ConflictError):
        return 409
    if isinstance(error, LedgerError | ConfigError):
        return 503
    if isinstance(error, UnpricedError):
        return 404
    return 400 if isinstance(error, InputError) else 503


def problem_json(error: TallyError) -> dict[str, Any]:
    """An error as the body of an answer."""
    said = {"type": type(error).__name__, "message": str(error), "what": error.what}
    return {"schema": SCHEMA, "error": {**said, "money": error.money or None, "todo": error.todo or None}}


def headers_of(scope: Scope) -> dict[str, str]:
    """The headers of a request by their names in lower case."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def path_below(scope: Scope, prefix: str) -> str:
    """The path as it was spelt, without the prefix under which a room is mounted, whether or not whoever mounted it has
    taken that away already."""
    raw: bytes | None = scope.get("raw_path")
    path = quote(scope["path"]) if raw is None else raw.decode("latin-1").partition("?")[0]
    return path[len(prefix) :] if path == prefix or path.startswith(f"{prefix}/") else path


def media_type(headers: MutableMapping[str, str]) -> str:
    """The content type without its parameters."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_body(receive: Receive, limit: int) -> bytes:
    """The whole body of a request. Raises Problem for one above `limit` bytes, Gone."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone("The client went away before its request was complete.")
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise Problem(413, f"The request is larger than {limit:,} bytes.", todo="Send it in parts.")
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


def inflated(body: bytes, coding: str, limit: int) -> bytes:
    """The body without its content coding. Raises Problem for an unknown coding, damaged data, more than `limit`
    bytes."""
    if coding in ("", "identity"):
        return body
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise Problem(415, f"The content coding {coding[:40]!r} is not taken.", todo="Use gzip or none.")
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        data = stream.decompress(body, limit + 1)
    except zlib.error:
        raise Problem(400, f"The body is not the {coding} data that it says it is.") from None
    if len(data) > limit:
        raise Problem(413, f"The request is larger than {limit:,} bytes when inflated.", todo="Send it in parts.")
    if not stream.eof:
        raise Problem(400, f"The {coding} data of the body ends too early.")
    return data


async def send_bytes(
    send: Send, status: int, body: bytes, kind: str, more: Iterable[tuple[bytes, bytes]] = (), *, head: bool = False
) -> None:
    """Sends a whole answer; `head` leaves the body out."""
    headers = [
        (b"content-type", kind.encode("latin-1")),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else body})


async def send_json(send: Send, status: int, value: object, *, head: bool = False) -> None:
    """Sends a value as JSON."""
    await send_bytes(send, status, msgspec.json.encode(value), JSON, head=head)


async def send_problem(send: Send, error: TallyError, *, head: bool = False) -> None:
    """Sends what is wrong, as JSON."""
    more: list[tuple[bytes, bytes]] = []
    if isinstance(error, Problem) and error.allow:
        more.append((b"allow", error.allow.encode("latin-1")))
    body = msgspec.json.encode(problem_json(error))
    await send_bytes(send, status_of(error), body, JSON, more, head=head)
