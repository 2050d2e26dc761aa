"""Body: the whole of a request, read before it goes on, for its bound and its model stand in it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from tallystick.errors import TallyError

if TYPE_CHECKING:
    from tallystick.gateway.exchange import Receive

SILENCE_SECONDS: Final = 60.0
"""How long a client may be silent within a request."""


class TooLarge(TallyError):
    """A request's body is larger than the gateway takes."""


class ClientGone(TallyError):
    """The client went away, or fell silent, before its request was complete."""


async def read_body(receive: Receive, named: Mapping[str, str], limit: int) -> bytes:
    """The whole body of a request; `named` are its headers, `limit` is in bytes. Raises TooLarge, ClientGone."""
    length = named.get("content-length", "")
    if length.isdecimal() and (len(length) > len(str(limit)) or int(length) > limit):
        raise _too_large(limit)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        if len(body) <= limit:
            return body
    parts: list[bytes] = []
    size = 0
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(SILENCE_SECONDS) as silence:
            while True:
                if message["type"] == "http.disconnect":
                    raise _gone()
                part = message.get("body", b"")
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
                parts.append(part)
                if not message.get("more_body"):
                    return b"".join(parts)
                silence.reschedule(loop.time() + SILENCE_SECONDS)
                message = await receive()
    except TimeoutError:
        raise _gone() from None


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request is larger than {limit:,} bytes.", todo="Raise max_body in [gateway].")


def _gone() -> ClientGone:
    return ClientGone("The client went away before its request was complete.")
