"""Shell: TLS around a connection to a provider, with the bytes moved by us: what one read has brought is unwrapped at
once, without the turns of the loop that its own TLS takes."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any, Final

RECORD: Final = 16 * 1024
"""The most that one record holds. Source: RFC 8446, section 5.1."""


class Shell(asyncio.Protocol):
    """The outer side, as the loop knows it, and to `inner` the transport. `ready` has a result when the two sides have
    agreed, and an error where they have not: an OSError, of which ssl.SSLError is one."""

    def __init__(
        self, inner: asyncio.Protocol, context: ssl.SSLContext, name: str, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.ready: asyncio.Future[None] = loop.create_future()
        self._inner = inner
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._transport: Any = None
        self._agreed = False
        self._fault: OSError | None = None

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected: we speak first."""
        self._transport = transport
        self._agree()

    def data_received(self, data: bytes) -> None:
        """More of what the other side says."""
        self._incoming.write(data)
        if not self._agreed:
            self._agree()
            if not (self._agreed and self._incoming.pending):
                return
        parts, goes_on = self._unwrapped()
        if parts:
            self._inner.data_received(parts[0] if len(parts) == 1 else b"".join(parts))
        # Keys are changed in the middle of a connection, and that is answered.
        self._flush()
        if self._fault is not None:
            self._transport.abort()
        elif not goes_on:
            self._transport.close()

    def eof_received(self) -> None:
        """The other side says no more; the loop closes the connection."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        fault = self._fault or exc
        if self._agreed:
            self._inner.connection_lost(fault)
        elif not self.ready.done():
            self.ready.set_exception(fault or ConnectionResetError())

    def pause_writing(self) -> None:
        """The other side takes less than it is given; a request is written whole all the same."""

    def resume_writing(self) -> None:
        """It has caught up."""

    # What the inner side calls.

    def write(self, data: bytes) -> None:
        """Sends bytes."""
        if self._transport.is_closing():
            return
        try:
            self._tls.write(data)
        except OSError as error:
            self._fault = error
            self._transport.abort()
            return
        self._flush()

    def is_closing(self) -> bool:
        """Whether the connection is at its end."""
        return bool(self._transport.is_closing())

    def pause_reading(self) -> None:
        """No more is to be read for now."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Reads on."""
        self._transport.resume_reading()

    def close(self) -> None:
        """Says goodbye and ends the connection."""
        if not self._transport.is_closing():
            # The other side's goodbye is not waited for.
            with contextlib.suppress(OSError):
                self._tls.unwrap()
            self._flush()
            self._transport.close()

    def abort(self) -> None:
        """Ends the connection at once."""
        self._transport.abort()

    def _agree(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except OSError as error:
            self._fault = error
            # Our side says why.
            self._flush()
            self._transport.close()
            if not self.ready.done():
                self.ready.set_exception(error)
            return
        self._flush()
        self._agreed = True
        inner_side: Any = self
        self._inner.connection_made(inner_side)
        if not self.ready.done():
            self.ready.set_result(None)

    def _unwrapped(self) -> tuple[list[bytes], bool]:
        """What has come, and whether more may come: the other side may have said goodbye."""
        tls, incoming = self._tls, self._incoming
        parts: list[bytes] = []
        try:
            while data := tls.read(RECORD):
                parts.append(data)
                # Asking for what is not there costs as much as reading.
                if not (incoming.pending or tls.pending()):
                    return parts, True
        except ssl.SSLWantReadError:
            return parts, True
        except OSError as error:
            self._fault = error
        return parts, False

    def _flush(self) -> None:
        if self._outgoing.pending and not self._transport.is_closing():
            self._transport.write(self._outgoing.read())
