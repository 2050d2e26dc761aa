"""Http: the connections of the simulator. One task for each connection that has a request to answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, cast

import httptools

from tallystick.simulator.request import Request

Handler = Callable[[Request, "Connection"], Awaitable[None]]
"""Answers one request by writing to its connection."""


class Connection(asyncio.Protocol):
    """One client's connection: requests in, writes out. `closed` says that the client has gone."""

    def __init__(self, handler: Handler, living: set[Connection], failed: Callable[[BaseException], bytes]) -> None:
        self.closed = False
        self._failed = failed
        self.task: asyncio.Task[None] | None = None
        self._handler = handler
        self._living = living
        self._waiting: deque[tuple[Request, bool]] = deque()
        self._flows = asyncio.Event()
        self._flows.set()
        self._parser = httptools.HttpRequestParser(self)
        self._keep = True
        self._head = b""
        self._start()

    def _start(self) -> None:
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        self._transport = cast("asyncio.Transport", transport)
        self._living.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, or we have closed."""
        del exc
        self.closed = True
        self._flows.set()
        self._living.discard(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.head(400, {"content-length": "0"}, close=True)
            self.cut()

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        self._flows.clear()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._flows.set()

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The body comes next; a client that asks first is told to send it."""
        if self._headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """A part of the request's body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """A request is whole."""
        method = self._parser.get_method().decode("latin-1")
        request = Request(method, self._target.decode("latin-1"), self._headers, b"".join(self._body))
        self._waiting.append((request, self._parser.should_keep_alive()))
        self._start()
        if self.task is None:
            self._begin()

    def _begin(self) -> None:
        self.task = asyncio.get_running_loop().create_task(self._answer())
        self.task.add_done_callback(self._ended)

    async def _answer(self) -> None:
        while self._waiting and not self.closed:
            request, self._keep = self._waiting.popleft()
            await self._handler(request, self)
            if not self._keep:
                self._transport.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.task = None
        error = None if task.cancelled() else task.exception()
        if error is not None:
            body = self._failed(error)
            headers = {"content-type": "application/json", "content-length": str(len(body)), "x-should-retry": "false"}
            self.head(500, headers, close=True)
            self.write(body)
            self.cut()
        elif self._waiting and not self.closed:
            self._begin()

    def head(self, status: int, headers: dict[str, str], *, close: bool = False) -> None:
        """The status line and the headers; they leave together with what is written next."""
        self._head = head_bytes(status, headers, close=close or not self._keep)

    def write(self, data: bytes | memoryview[Any]) -> None:
        """One write."""
        if self.closed:
            return
        if self._head:
            data, self._head = b"".join((self._head, data)), b""
        self._transport.write(data)

    async def flow(self) -> None:
        """Waits until the client takes more."""
        await self._flows.wait()

    def cut(self) -> None:
        """Closes the connection after what has been written."""
        self.write(b"")
        self._transport.close()

    def end(self) -> None:
        """Ends the connection: at once where it is still being answered, else after what has been written."""
        if self.task is None:
            self._transport.close()
        else:
            self.task.cancel()
            self._transport.abort()


def head_bytes(status: int, headers: dict[str, str], *, close: bool) -> bytes:
    """The status line and headers as bytes."""
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Overloaded"
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
    if close:
        lines.append("connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
