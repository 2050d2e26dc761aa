"""Protocol: HTTP as uvicorn speaks it, with bounds on what a client may send before its request is heard."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES: Final = 64 * 1024
"""How much may come before the head of a request is complete."""

HEAD_SECONDS: Final = 20.0
"""How long a head may take."""


class Bounded(HttpToolsProtocol):
    """A connection whose client has to come to the point: a head that is too long or too slow ends it."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._heading = True
        self._head = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_SECONDS, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        super().data_received(data)
        if not self._heading:
            if self._timer is not None:
                self._stop()
            return
        self._head += len(data)
        if self._head > HEAD_BYTES:
            self.transport.write(
                b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
            self.transport.close()
        elif self._timer is None and self._head:
            self._timer = self.loop.call_later(HEAD_SECONDS, self._late)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._heading = True

    def on_headers_complete(self) -> None:
        """Its head is complete."""
        self._heading = False
        self._head = 0
        super().on_headers_complete()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self._heading and not self.transport.is_closing():
            self.transport.close()
