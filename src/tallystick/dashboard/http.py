"""HTTP: the little that pages need of it: an answer with its protecting headers, a form, a cookie."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from tallystick.errors import InputError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

HTML: Final = "text/html; charset=utf-8"
JSON: Final = "application/json"
CSV: Final = "text/csv; charset=utf-8"
FORM: Final = "application/x-www-form-urlencoded"

MOST_FORM: Final = 65_536
MOST_FIELDS: Final = 64
_SMALL: Final = 600

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
"""Everything comes from here, and nothing inline runs."""

PROTECTION: Final = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # Not no-referrer: browsers would then send "Origin: null" with our own forms, which the fence refuses.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
)


class Gone(Exception):
    """The browser went away before its request was complete."""


class Reply(msgspec.Struct, frozen=True):
    """An answer. `zipped` is the body compressed before, where it was; `cache` what may be done with it."""

    status: int
    body: bytes = b""
    kind: str = HTML
    more: tuple[tuple[bytes, bytes], ...] = ()
    zipped: bytes | None = None
    cache: bytes = b"private, no-cache"


async def give(send: Send, reply: Reply, named: Mapping[str, str], *, head: bool = False) -> None:
    """Sends an answer, compressed where the browser takes that; one that it has already is not sent again."""
    tag = b'"%s"' % hashlib.blake2b(reply.body, digest_size=12).hexdigest().encode()
    body, status = reply.body, reply.status
    headers = [(b"cache-control", reply.cache), (b"vary", b"accept-encoding, cookie"), *PROTECTION, *reply.more]
    if status == 200:
        headers.append((b"etag", tag))
        if tag.decode() in named.get("if-none-match", "").replace("W/", ""):
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
    if len(body) > _SMALL and "gzip" in named.get("accept-encoding", ""):
        body = gzip.compress(body, 5, mtime=0) if reply.zipped is None else reply.zipped
        headers.append((b"content-encoding", b"gzip"))
    headers += [(b"content-type", reply.kind.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else body})


def onward(url: str, *more: tuple[bytes, bytes]) -> Reply:
    """Sends the browser on to another page of ours."""
    return Reply(303, more=((b"location", url.encode("ascii", "replace")), *more), cache=b"no-store")


def names_of(scope: Scope) -> dict[str, str]:
    """The headers of a request by their names in lower case."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def fields_of(raw: bytes) -> list[tuple[str, str]]:
    """The values of a query string or of a form. Raises InputError."""
    try:
        return parse_qsl(raw.decode("utf-8"), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError:
        raise InputError(f"An address has at most {MOST_FIELDS} values, all of them UTF-8.") from None


async def read_form(receive: Receive, named: Mapping[str, str]) -> dict[str, str]:
    """The fields of a form. Raises InputError for anything that is no form of ours, Gone."""
    if named.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise InputError("This is no form.", money="Nothing was changed.")
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > MOST_FORM:
            raise InputError("The form is too large.", money="Nothing was changed.")
        parts.append(part)
        if not message.get("more_body"):
            break
    return dict(fields_of(b"".join(parts)))


def local(address: str) -> str:
    """An address of ours to go on to; anything else becomes the first page."""
    odd = not address.startswith("/") or address[1:2] in ("/", "\\") or "\\" in address
    return "/" if odd or not address.isascii() or not address.isprintable() or " " in address else address
