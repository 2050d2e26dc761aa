"""Protocol: HTTP/1.1 as our clients speak it, with bounds on what one may send before its request is heard."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

import httptools

from tallystick.gateway.exchange import Exchange, Head

HEAD_BYTES: Final = 64 * 1024
"""How much may come before the head of a request is complete."""

HEAD_SECONDS: Final = 20.0
"""How long a head may take."""

KEEP_ALIVE_SECONDS: Final = 75.0
"""How long an idle connection is kept; longer than the providers' clients keep theirs, so that none is closed under a
request."""

MOST_WAITING: Final = 16
"""Requests that a client may send ahead on one connection before no more of it is read."""

KNOWN_HEADS: Final = 256
"""A client begins all its requests with the same bytes, but for their length: so many such heads are known again."""

KNOWN_BYTES: Final = 8 * 1024
"""Longer heads are not."""

_LENGTHS: Final = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")
_DIGITS: Final = 9

_NAMES: Final[dict[bytes, tuple[bytes, str]]] = {}
"""Names of headers as they are mostly spelt, in lower case as bytes and as text."""

_USUAL: Final = (
    "host", "content-type", "content-length", "authorization", "accept", "accept-encoding", "accept-language",
    "user-agent", "connection", "x-api-key", "api-key", "x-goog-api-key", "anthropic-version", "anthropic-beta",
    "x-stainless-lang", "x-stainless-package-version", "x-stainless-os", "x-stainless-arch", "x-stainless-runtime",
    "x-stainless-runtime-version", "x-stainless-async", "x-stainless-retry-count", "x-stainless-read-timeout",
    "x-stainless-timeout", "x-stainless-raw-response", "x-stainless-helper-method", "idempotency-key", "traceparent",
    "tracestate", "baggage", "openai-organization", "openai-project", "openai-beta", "http-referer", "x-title",
    "x-tally-user", "x-tally-team", "x-tally-project", "x-tally-agent", "x-tally-tags", "x-tally-run", "x-tally-step",
    "content-encoding", "transfer-encoding", "expect", "cookie", "origin", "x-goog-api-client", "x-goog-user-project",
    "amz-sdk-invocation-id", "amz-sdk-request", "x-amz-date", "x-amz-security-token", "x-request-id",
)  # fmt: skip
for _name in _USUAL:
    for _spelt in (_name, _name.title()):
        _NAMES[_spelt.encode()] = (_name.encode(), _name)

_OVERLONG: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_BROKEN: Final = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_FAILED: Final = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

_HEADS: Final[dict[bytes, Head]] = {}
"""Heads by their bytes, without the number of bytes that follow."""

Serve = Callable[[Exchange], Coroutine[Any, Any, None]]
"""Answers one request."""


class Connection(asyncio.Protocol):
    """A client's connection: its requests are answered by `serve`, one after the other in the order in which they came;
    a request that is complete is answered by `at_once`, unless that returns false. `all_of_them` are the connections of
    a server; `failed` is told what either raises."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        serve: Serve,
        at_once: Callable[[Exchange], bool],
        all_of_them: set[Connection],
        failed: Callable[[BaseException], None],
    ) -> None:
        self.loop = loop
        self.full: asyncio.Future[None] | None = None
        self.leaving = False
        self._serve = serve
        self._at_once = at_once
        self._all = all_of_them
        self._failed = failed
        self._parser = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._named: dict[str, str] = {}
        self._reading: Exchange | None = None
        self._answering: Exchange | None = None
        self._waiting: deque[Exchange] = deque()
        self._paused = self._closed = False
        self._head = 0
        self._learns: bytes | None = None
        self._since = loop.time()
        self._idle = False

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        self._transport = transport
        self._all.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the loop says it
        """It has gone."""
        self._closed = True
        self._all.discard(self)
        self._waiting.clear()
        if self._answering is not None:
            self._answering.left()
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if self._answering is None and self._reading is None and not self._head:
            exchange = self._known(data)
            if exchange is not None:
                self._idle = False
                self._waiting.append(exchange)
                self._next()
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # What follows is no HTTP; the request itself is answered, and then the connection ends.
            reading, self._reading = self._reading, None
            if reading is not None:
                reading.keep = False
                reading.complete = True
        except httptools.HttpParserError:
            self._refuse(_BROKEN)
            return
        if self._answering is None:
            if self._waiting:
                self._next()
            elif self._reading is None:
                self._heading(len(data))
        elif self._reading is None and (self._target or len(self._waiting) >= MOST_WAITING):
            self._heading(len(data) if self._target else 0)
            if len(self._waiting) >= MOST_WAITING:
                self._pause()

    def pause_writing(self) -> None:
        """The client takes less than it is given."""
        if self.full is None:
            self.full = self.loop.create_future()

    def resume_writing(self) -> None:
        """It has caught up."""
        full, self.full = self.full, None
        if full is not None and not full.done():
            full.set_result(None)

    # What the parser calls.

    def on_url(self, url: bytes) -> None:
        """A part of the URL."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        known = _NAMES.get(name)
        if known is None:
            name = name.lower()
            known = name, name.decode("latin-1")
        self._headers.append((known[0], value))
        self._named[known[1]] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The head is complete."""
        parser = self._parser
        target, named = self._target, self._named
        if not target.startswith(b"/"):
            target = _origin_form(target)
        method = parser.get_method().decode("latin-1")
        head = Head(method, target, parser.get_http_version(), self._headers, named, keep=parser.should_keep_alive())
        exchange = Exchange(self, head)
        if "expect" in named:
            exchange.expects = named["expect"].lower() == "100-continue"
        self._learn(head)
        self._target, self._headers, self._named = b"", [], {}
        self._head = 0
        self._idle = False
        self._reading = exchange
        self._waiting.append(exchange)

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        reading = self._reading
        if reading is not None and not reading.feed(data):
            self._pause()

    def on_message_complete(self) -> None:
        """The request is complete."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.complete = True
            reading.wake()
            if reading.ended and not self._closed:
                self._transport.close()

    # What the exchange calls.

    @property
    def here(self) -> tuple[str, int] | None:
        """Our own address."""
        return _address(self._transport.get_extra_info("sockname"))

    @property
    def there(self) -> tuple[str, int] | None:
        """The client's address."""
        return _address(self._transport.get_extra_info("peername"))

    def write(self, data: bytes) -> None:
        """Sends bytes, if there is still somebody to take them."""
        if not self._closed:
            self._transport.write(data)

    def read_on(self) -> None:
        """What was read ahead has been taken."""
        if self._paused and not self._closed:
            self._paused = False
            self._transport.resume_reading()

    def answered(self, exchange: Exchange) -> None:
        """An answer has been sent; the next request may have its own."""
        self._answering = None
        self._since = self.loop.time()
        if exchange.complete:
            if not exchange.keep or self.leaving:
                self._transport.close()
                return
            if self._waiting:
                self._next()
            else:
                self._idle = not self._target
        # The rest of a request that is not complete is thrown away: who is cut off while sending sees no answer.
        self.read_on()

    def proceed(self, exchange: Exchange, work: Coroutine[Any, Any, None]) -> None:
        """A request is answered by a task from here on."""
        task = exchange.task = self.loop.create_task(work)
        task.add_done_callback(self._done)

    def broke(self, exchange: Exchange, error: BaseException) -> None:
        """Answering a request has failed."""
        self._failed(error)
        if self._answering is exchange:
            self._drop(exchange, failed=True)

    # What the server calls.

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self._answering is not None

    def leave(self) -> None:
        """Ends the connection as soon as it has been answered."""
        self.leaving = True
        if self._answering is None and not self._closed:
            self._transport.close()

    def cancel(self) -> None:
        """Ends the connection, and what is being done for it."""
        if self._answering is not None:
            self._answering.cancel()
        if not self._closed:
            self._transport.abort()

    def look(self, now: float) -> None:
        """Ends a connection that has been idle, or has spelt out its head, for too long."""
        if self._answering is not None or self._closed:
            return
        if now - self._since > (KEEP_ALIVE_SECONDS if self._idle else HEAD_SECONDS):
            self._transport.close()

    # Its own.

    def _known(self, data: bytes) -> Exchange | None:
        """The request that these bytes are, if they are one whole request and begin as an earlier one did: then the
        parser has taken the head before, and need not do so again."""
        end = data.find(b"\r\n\r\n", 0, KNOWN_BYTES)
        if end < 0:
            return None
        for words in _LENGTHS:
            at = data.find(words, 0, end)
            if at >= 0:
                break
        else:
            return None
        at += len(words)
        after = data.find(b"\r", at)
        digits = data[at:after]
        if not digits.isdigit() or len(digits) > _DIGITS:
            return None
        key = data[:at] + data[after:end]
        head = _HEADS.get(key)
        if head is None:
            self._learns = key
            return None
        body = data[end + 4 :]
        if len(body) != int(digits):
            return None
        exchange = Exchange(self, head)
        exchange.filled(body)
        return exchange

    def _learn(self, head: Head) -> None:
        """Remembers a head that the parser has taken, where another length would change nothing else in it."""
        key, self._learns = self._learns, None
        named = head.named
        if key is None or "transfer-encoding" in named or "expect" in named or "upgrade" in named:
            return
        if [name for name, _ in head.headers].count(b"content-length") != 1:
            return
        if len(_HEADS) >= KNOWN_HEADS:
            _HEADS.clear()
        _HEADS[key] = head

    def _next(self) -> None:
        exchange = self._answering = self._waiting.popleft()
        if not (exchange.complete and self._moves(exchange)):
            self.proceed(exchange, self._serve(exchange))

    def _moves(self, exchange: Exchange) -> bool:
        """Whether a request is answered without a task, or could not be answered at all."""
        with exchange:
            return self._at_once(exchange)
        return True

    def _done(self, task: asyncio.Task[None]) -> None:
        """A task has ended; one that has not answered ends the connection."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failed(error)
        exchange = self._answering
        if exchange is not None and exchange.task is task:
            self._drop(exchange, failed=error is not None)

    def _drop(self, exchange: Exchange, *, failed: bool) -> None:
        """Nobody answers the request any more."""
        exchange.close()
        exchange.ended = True
        self._answering = None
        if not self._closed:
            if not exchange.begun and failed:
                self._transport.write(_FAILED)
            self._transport.close()

    def _heading(self, size: int) -> None:
        """A head has begun, and is not complete."""
        if self._idle:
            self._idle = False
            self._since = self.loop.time()
        self._head += size
        if self._head > HEAD_BYTES:
            self._refuse(_OVERLONG)

    def _pause(self) -> None:
        if not self._paused and not self._closed:
            self._paused = True
            self._transport.pause_reading()

    def _refuse(self, words: bytes) -> None:
        """What comes here is nothing that could be answered."""
        reading, self._reading, answering = self._reading, None, self._answering
        self._waiting.clear()
        if self._closed:
            return
        if answering is None or (answering is reading and not answering.begun):
            self._transport.write(words)
            self._transport.close()
        else:
            # What is being answered was sound; but nothing may follow it.
            answering.keep = False
            self._pause()


def _origin_form(target: bytes) -> bytes:
    """The path and query of a URL that was given whole."""
    try:
        parts = httptools.parse_url(target)
    except httptools.HttpParserError:
        return target
    path: bytes = parts.path or b"/"
    return path if parts.query is None else path + b"?" + parts.query


def _address(found: Any) -> tuple[str, int] | None:
    return (str(found[0]), int(found[1])) if isinstance(found, tuple) else None
