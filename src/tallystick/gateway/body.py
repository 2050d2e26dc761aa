"""Body: the whole of a request, read before it goes on, for its bound and its model stand in it."""

from __future__ import annotations

import asyncio
from typing import Final

from tallystick.errors import TallyError
from tallystick.gateway.exchange import ClientGone, Exchange

SILENCE_SECONDS: Final = 60.0
"""How long a client may be silent within a request."""


class TooLarge(TallyError):
    """A request's body is larger than the gateway takes."""


async def read_body(exchange: Exchange, limit: int) -> bytes:
    """The whole body of a request; `limit` is in bytes. Raises TooLarge, ClientGone."""
    if exchange.complete:
        body = exchange.whole()
        if len(body) > limit:
            raise _too_large(limit)
        return body
    length = exchange.head.named.get("content-length", "")
    if length.isdecimal() and (len(length) > len(str(limit)) or int(length) > limit):
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(SILENCE_SECONDS) as silence:
            while (part := await exchange.take()) is not None:
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
                parts.append(part)
                silence.reschedule(loop.time() + SILENCE_SECONDS)
    except TimeoutError:
        raise ClientGone("The client fell silent before its request was complete.") from None
    return b"".join(parts)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request is larger than {limit:,} bytes.", todo="Raise max_body in [gateway].")
