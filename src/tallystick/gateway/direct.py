"""Direct: HTTP/1.1 to providers on the gateway's own loop: no other thread between the provider's words and the client.

A request is one write, a chunk of an answer one callback; connections are kept by origin and taken again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Self

import httptools

from tallystick.gateway.sending import ConnectError, Headers, Prepared, UpstreamFault, fault_of

if TYPE_CHECKING:
    import ssl

IDLE_SECONDS: Final = 60.0
"""How long an idle connection is kept for the next request."""

MOST_IDLE: Final = 100
MOST_HEADERS: Final = 500
AHEAD: Final = 64 * 1024
"""Bytes of an answer that are read ahead of a slow client."""

_JOINED: Final = 64 * 1024
_FRAMED: Final = frozenset({b"content-length", b"transfer-encoding"})
_LENGTHLESS: Final = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})

Origin = tuple[bool, str, int]
"""Whether it is TLS, the host, the port."""


class _Connection(asyncio.Protocol):
    """One connection to a provider, with the answer that is on its way."""

    def __init__(self, pool: DirectSender, origin: Origin, loop: asyncio.AbstractEventLoop) -> None:
        self.pool = pool
        self.origin = origin
        self.loop = loop
        self.answer: DirectAnswer | None = None
        self.transport: Any = None
        self.idle_since = 0.0
        self.parser = httptools.HttpResponseParser(self)

    def ask(self, method: str, head: bytes, body: bytes) -> DirectAnswer:
        """Writes a request, and says where its answer arrives."""
        answer = self.answer = DirectAnswer(self, bodiless=method == "HEAD")
        if len(body) <= _JOINED:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)
        return answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.pool.open.add(self)

    def data_received(self, data: bytes) -> None:
        answer = self.answer
        if answer is None:
            # Nobody asked for anything: what is said now belongs to no request.
            self.transport.abort()
            return
        answer.heard = self.loop.time()
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.answer = None
            answer.fail("The provider's answer is no HTTP.")
            self.transport.abort()
        answer.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.pool.forget(self)
        answer, self.answer = self.answer, None
        if answer is None:
            return
        if answer.until_close and exc is None:
            answer.finish()
        else:
            answer.fail("The connection to the provider broke off.")
        answer.wake()

    def on_message_begin(self) -> None:
        if self.answer is None:
            # More than was asked for: whatever it is, the next request must not get it.
            self.transport.abort()
        else:
            self.answer.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        answer = self.answer
        if answer is not None and len(answer.headers) < MOST_HEADERS:
            answer.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        answer = self.answer
        status = self.parser.get_status_code()
        if answer is None or status < 200:
            return
        answer.status = status
        bodiless = status in (204, 304) or answer.bodiless
        answer.until_close = not bodiless and _FRAMED.isdisjoint([name for name, _ in answer.headers])
        answer.begun = True
        if answer.bodiless:
            # The parser waits for a body that a HEAD does not get, so the connection is of no more use.
            self.answer = None
            answer.finish()
            self.transport.close()

    def on_body(self, data: bytes) -> None:
        answer = self.answer
        if answer is not None:
            answer.chunks.append(data)
            answer.ahead += len(data)
            if answer.ahead > AHEAD and not answer.paused:
                answer.paused = True
                self.transport.pause_reading()

    def on_message_complete(self) -> None:
        answer = self.answer
        if answer is None or not answer.begun:
            return
        self.answer = None
        answer.finish()
        if answer.paused:
            answer.paused = False
            self.transport.resume_reading()
        if self.parser.should_keep_alive() and not self.transport.is_closing():
            self.pool.keep(self)
        else:
            self.transport.close()


class DirectAnswer:
    """An answer as it arrives. See `sending.Answer`."""

    __slots__ = (
        "_connection", "_fault", "_waiter", "ahead", "begun", "bodiless", "chunks", "ended",
        "headers", "heard", "paused", "status", "told", "until_close",
    )  # fmt: skip

    def __init__(self, connection: _Connection, *, bodiless: bool) -> None:
        self._connection = connection
        self._fault: UpstreamFault | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.told: Callable[[], None] | None = None
        self.bodiless = bodiless
        self.begun = self.ended = self.paused = self.until_close = False
        self.chunks: list[bytes] = []
        self.ahead = 0
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.heard = connection.loop.time()

    def more(self) -> asyncio.Future[None]:
        """What to wait for before looking again. Raises UpstreamFault."""
        if self._fault is not None:
            raise self._fault
        waiter = self._waiter = self._connection.loop.create_future()
        return waiter

    def at_once(self) -> bytes | None:
        """All that has come and was not read; None where the answer is not complete with that."""
        if not self.ended:
            return None
        chunks, self.chunks = self.chunks, []
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def read(self) -> bytes | None:
        """The next bytes, None at the end. Raises UpstreamFault."""
        chunks = self.chunks
        while not chunks:
            if self.ended:
                return None
            await self.more()
        return self.taken()

    def taken(self) -> bytes:
        """What has come and was not read; empty where that is nothing."""
        chunks = self.chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self.ahead = 0
        if self.paused:
            self.paused = False
            self._connection.transport.resume_reading()
        return data

    async def opened(self) -> Self:
        """The answer itself, when its head is there. Raises UpstreamFault."""
        try:
            while not self.begun:
                await self.more()
        except BaseException:
            self.drop()
            raise
        return self

    async def aclose(self) -> None:
        """Stops reading; a connection whose answer was not read to its end is closed."""
        self.drop()

    def drop(self) -> None:
        """Stops reading."""
        if not self.ended and self._connection.answer is self:
            self._connection.answer = None
            self._connection.transport.abort()

    @property
    def broken(self) -> bool:
        """Whether the rest will never come."""
        return self._fault is not None

    def finish(self) -> None:
        """The answer is complete."""
        self.ended = True

    def fail(self, what: str, *, timed_out: bool = False) -> None:
        """The answer will not be complete."""
        self._fault = UpstreamFault(what, timed_out=timed_out)

    def wake(self) -> None:
        """Something has come."""
        if self.told is not None:
            self.told()
            return
        waiter = self._waiter
        if waiter is not None and (self.chunks or self.ended or self._fault is not None or self.begun):
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def look(self, now: float, wait: float) -> None:
        """Ends an answer whose provider has been silent for too long while somebody waits for it."""
        if self._waiter is None and self.told is None:
            self.heard = max(self.heard, now - wait / 2)
        if self.heard + wait > now:
            return
        connection = self._connection
        self.fail("The provider did not answer in time.", timed_out=True)
        connection.answer = None
        connection.transport.abort()
        self.wake()


class DirectSender:
    """Sends requests on the running loop. `context` is for TLS, `connect` and `read` are in seconds."""

    def __init__(self, context: ssl.SSLContext, *, connect: float, read: float) -> None:
        self._context = context
        self._connect = connect
        self._read = read
        self._idle: dict[Origin, list[_Connection]] = {}
        self._looking: asyncio.TimerHandle | None = None
        self.open: set[_Connection] = set()

    async def send(self, method: str, url: str, headers: Headers, body: bytes) -> DirectAnswer:
        """Sends a request and returns when the head of the answer is there. Raises UpstreamFault."""
        origin, first = _place(method, url)
        connection = self._kept(origin) or await self._connected(origin)
        return await connection.ask(method, _head(method, url, first, headers, body), body).opened()

    def begin(self, method: str, url: str, headers: Headers, body: bytes) -> DirectAnswer | None:
        """Sends a request on a connection that is kept, without waiting for anything; None where there is none."""
        origin, first = _place(method, url)
        connection = self._kept(origin)
        if connection is None:
            return None
        return connection.ask(method, _head(method, url, first, headers, body), body)

    async def aclose(self) -> None:
        """Closes all connections."""
        if self._looking is not None:
            self._looking.cancel()
        for connection in list(self.open):
            connection.transport.abort()
        self._idle.clear()
        # The transports tell of their end on the next turn of the loop.
        await asyncio.sleep(0)

    def look(self) -> None:
        """Looks from time to time, as long as there are connections, for providers that have fallen silent."""
        self._looking = None
        for connection in tuple(self.open):
            if connection.answer is not None:
                connection.answer.look(connection.loop.time(), self._read)
        if self.open:
            self._looking = asyncio.get_running_loop().call_later(min(1.0, self._read / 4), self.look)

    def keep(self, connection: _Connection) -> None:
        """Takes back a connection for the next request."""
        idle = self._idle.setdefault(connection.origin, [])
        if len(idle) >= MOST_IDLE:
            connection.transport.close()
            return
        connection.idle_since = connection.loop.time()
        idle.append(connection)

    def forget(self, connection: _Connection) -> None:
        """A connection has ended."""
        self.open.discard(connection)
        idle = self._idle.get(connection.origin)
        if idle and connection in idle:
            idle.remove(connection)

    def _kept(self, origin: Origin) -> _Connection | None:
        idle = self._idle.get(origin)
        while idle:
            kept = idle.pop()
            if not kept.transport.is_closing() and kept.loop.time() - kept.idle_since < IDLE_SECONDS:
                return kept
            kept.transport.close()
        return None

    async def _connected(self, origin: Origin) -> _Connection:
        loop = asyncio.get_running_loop()
        secure, host, port = origin
        made = _Connection(self, origin, loop)
        try:
            async with asyncio.timeout(self._connect):
                if secure:
                    await self._agreed(made, host, port)
                else:
                    await loop.create_connection(lambda: made, host, port)
        except TimeoutError:
            raise ConnectError("The provider could not be reached in time.", timed_out=True) from None
        except (OSError, ValueError) as error:
            raise fault_of(error) from None
        if self._looking is None:
            self.look()
        return made

    async def _agreed(self, made: _Connection, host: str, port: int) -> None:
        """Connects and agrees on TLS."""
        from tallystick.gateway.shell import Shell

        shell = Shell(made, self._context, host, made.loop)
        transport, _ = await made.loop.create_connection(lambda: shell, host, port)
        try:
            await shell.ready
        except BaseException:
            transport.abort()
            raise


def _head(method: str, url: str, first: bytes, headers: Headers, body: bytes) -> bytes:
    """The head of a request, which begins with `first`."""
    if not body and method in _LENGTHLESS:
        return first + Prepared(headers).lines + b"\r\n"
    prepared = headers if type(headers) is Prepared else Prepared(headers)
    begins = prepared.begins
    if begins is None or begins[0] != method or begins[1] != url:
        begins = prepared.begins = method, url, first + prepared.lines + b"content-length: "
    return b"%b%d\r\n\r\n" % (begins[2], len(body))


@lru_cache(maxsize=256)
def _place(method: str, url: str) -> tuple[Origin, bytes]:
    """Where a request goes, and how it begins."""
    scheme, _, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    return _origin(scheme, authority), f"{method} /{path} HTTP/1.1\r\nhost: {authority}\r\n".encode("latin-1")


def _origin(scheme: str, authority: str) -> Origin:
    secure = scheme == "https"
    host, colon, port = authority.rpartition(":")
    if not colon or "]" in port:
        host, port = authority, "443" if secure else "80"
    return secure, host.strip("[]"), int(port)
