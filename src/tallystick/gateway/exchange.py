"""Exchange: one request of a client and the answer to it, and whether anybody is still there to take it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping
from functools import lru_cache
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Protocol
from urllib.parse import unquote

import msgspec

from tallystick.errors import TallyError

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
RawHeaders = list[tuple[bytes, bytes]]

DRAIN_SECONDS: Final = 60.0
"""How long a provider's answer is still read after the client has gone."""

JOINED_BYTES: Final = 256 * 1024
"""Up to so many bytes of a body are written together with their head."""

_AHEAD: Final = 64 * 1024
"""Bytes of a request that are read ahead of who takes them."""

_BODILESS: Final = frozenset({204, 304})
_json: Final = msgspec.json.encode


class ClientGone(TallyError):
    """The client went away, or fell silent, before its request was complete."""


class Way(Protocol):
    """An exchange's connection, as the exchange knows it. `full` is what to wait for where the client takes less than
    it is given; `leaving` says that nothing comes after the answer; `here` and `there` are the two addresses."""

    loop: asyncio.AbstractEventLoop
    full: asyncio.Future[None] | None
    leaving: bool

    @property
    def here(self) -> tuple[str, int] | None:
        """Our own address."""
        ...

    @property
    def there(self) -> tuple[str, int] | None:
        """The client's address."""
        ...

    def write(self, data: bytes) -> None:
        """Sends bytes."""
        ...

    def read_on(self) -> None:
        """What was read ahead has been taken."""
        ...

    def answered(self, exchange: Exchange) -> None:
        """The answer has been sent."""
        ...

    def proceed(self, exchange: Exchange, work: Coroutine[Any, Any, None]) -> None:
        """The answer is made by a task from here on."""
        ...

    def broke(self, exchange: Exchange, error: BaseException) -> None:
        """Making the answer has failed."""
        ...


class Moved(Protocol):
    """What makes the answer where no task does."""

    def left(self) -> None:
        """The client has gone."""
        ...

    def cancel(self) -> None:
        """Nobody waits any more."""
        ...


class Head:
    """The head of a request. All requests that begin with the same bytes, but for their length, share one: then the
    `content-length` in it is that of the first of them.

    `target` is the URL as it was spelt, without its query; `headers` are as they came, their names in lower case, and
    `named` the same by name. `keep` says that the connection may be used again. `known` is what who serves such
    requests has found out about them."""

    __slots__ = ("headers", "keep", "known", "method", "named", "query", "target", "version")

    def __init__(
        self, method: str, target: bytes, version: str, headers: RawHeaders, named: dict[str, str], *, keep: bool
    ) -> None:
        self.method = method
        self.target, _, self.query = target.partition(b"?")
        self.version = version
        self.headers = headers
        self.named = named
        self.keep = keep
        self.known: Any = None


class Exchange:
    """One request, as its connection reads it, and the sending of its answer.

    `complete` says that the whole body is there. `gone_seen` says that the client has gone;
    `DRAIN_SECONDS` later the task is cancelled, whatever it waits for. An answer that is begun and not ended makes
    the connection end.
    """

    __slots__ = (
        "_ahead", "_chunked", "_connection", "_parts", "_silent", "_started", "_timer", "_told", "_waiter", "begun",
        "complete", "ended", "expects", "gone_seen", "head", "keep", "passing", "task",
    )  # fmt: skip

    def __init__(self, connection: Way, head: Head) -> None:
        self._connection = connection
        self.head = head
        self.keep = head.keep
        self.complete = self.begun = self.ended = self.gone_seen = self.expects = False
        self.task: asyncio.Task[None] | None = None
        self.passing: Moved | None = None
        self._chunked = self._silent = self._told = False
        self._parts: list[bytes] = []
        self._ahead = 0
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._started: MutableMapping[str, Any] | None = None

    # The request.

    async def take(self) -> bytes | None:
        """The next bytes of the body, None at its end. Raises ClientGone."""
        while not self._parts:
            if self.complete:
                return None
            if self.gone_seen:
                raise ClientGone("The client went away before its request was complete.")
            if self.expects:
                self.expects = False
                if not self.begun:
                    self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await self._more()
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        if self._ahead > _AHEAD:
            self._connection.read_on()
        self._ahead = 0
        return data

    def whole(self) -> bytes:
        """The whole body of a request that is complete, unless somebody has taken some of it."""
        parts, self._parts = self._parts, []
        if self._ahead > _AHEAD:
            self._connection.read_on()
        self._ahead = 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def filled(self, body: bytes) -> None:
        """The whole body has come with the head. For the connection."""
        self._parts.append(body)
        self.complete = True

    def feed(self, data: bytes) -> bool:
        """More of the body has come; false where no more should be read before it is taken. For the connection."""
        if self.ended:
            return True
        self._parts.append(data)
        self._ahead += len(data)
        self.wake()
        return self._ahead <= _AHEAD

    def left(self) -> None:
        """The client has gone. For the connection."""
        self.gone_seen = True
        self.wake()
        if self.passing is not None:
            self.passing.left()
        if self.task is not None and not self.task.done():
            self._timer = self._connection.loop.call_later(DRAIN_SECONDS, self.task.cancel)

    def proceed(self, work: Coroutine[Any, Any, None]) -> None:
        """Goes on with a task."""
        self._connection.proceed(self, work)

    def cancel(self) -> None:
        """Ends what is being done for it. For the connection."""
        if self.task is not None:
            self.task.cancel()
        elif self.passing is not None:
            self.passing.cancel()

    def __enter__(self) -> None:
        """What fails within ends the connection, as a task that fails does."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            return False
        if self.passing is not None:
            self.passing.cancel()
        self._connection.broke(self, error)
        return isinstance(error, Exception)

    def wake(self) -> None:
        """Something has changed for who waits. For the connection."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _more(self) -> None:
        self._waiter = self._connection.loop.create_future()
        await self._waiter

    @property
    def gone(self) -> bool:
        """Whether the client has gone."""
        return self.gone_seen

    # The answer.

    def begin(self, status: int, headers: RawHeaders) -> None:
        """Sends the head."""
        self._connection.write(self._head(status, headers, None))

    def piece(self, data: bytes) -> None:
        """Sends a piece of the body. Who sends more should wait where this has made the connection `crowded`."""
        if data and not self._silent:
            self._connection.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def finish(self, data: bytes = b"") -> None:
        """Sends the last piece."""
        if self._chunked and not self._silent:
            data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
        if data and not self._silent:
            self._connection.write(data)
        self._over()

    @property
    def crowded(self) -> bool:
        """Whether the client takes less than it is given."""
        return self._connection.full is not None

    async def start(self, status: int, headers: RawHeaders) -> None:
        """Sends the head."""
        self.begin(status, headers)

    async def body(self, data: bytes) -> None:
        """Sends a piece of the body, as slowly as the client takes it."""
        self.piece(data)
        if self._connection.full is not None:
            await self._connection.full

    async def end(self, data: bytes = b"") -> None:
        """Sends the last piece."""
        self.finish(data)
        if self._connection.full is not None:
            await self._connection.full

    def reply(self, status: int, headers: RawHeaders, body: bytes) -> bool:
        """Sends a whole answer; true where one should wait until it is `taken`."""
        head = self._head(status, headers, len(body))
        connection = self._connection
        if self._silent:
            connection.write(head)
        elif len(body) <= JOINED_BYTES:
            connection.write(head + body)
        else:
            connection.write(head)
            connection.write(body)
        self._over()
        return connection.full is not None

    async def taken(self) -> None:
        """Returns when the client has taken most of what was sent."""
        if self._connection.full is not None:
            await self._connection.full

    async def answer(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Sends a whole answer, as slowly as the client takes it."""
        if self.reply(status, headers, body):
            await self.taken()

    async def give(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Sends a whole answer of our own."""
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self.answer(status, raw, body)

    async def say(self, status: int, value: object) -> None:
        """Sends JSON of our own."""
        await self.answer(status, [(b"content-type", b"application/json")], _json(value))

    def close(self) -> None:
        """Nobody waits for the task's end any more. For the connection."""
        if self._timer is not None:
            self._timer.cancel()

    def _over(self) -> None:
        self.ended = True
        self.close()
        self._connection.answered(self)

    def _head(self, status: int, headers: RawHeaders, length: int | None) -> bytes:
        """The head of the answer; `length` is that of the body where all of it is known. Raises ValueError for a
        header that would begin another one."""
        keep = self.keep and not self._connection.leaving and self.complete
        measured = False
        lines = [_status_line(status)]
        for name, value in headers:
            lines.append(b"%b: %b\r\n" % (name, value))
            if name == b"content-length":
                measured = True
            elif name == b"connection" and value.lower() == b"close":
                keep = False
        self._silent = self.head.method == "HEAD" or status in _BODILESS
        if not measured and not self._silent:
            if length is not None:
                lines.append(b"content-length: %d\r\n" % length)
            elif self.head.version == "1.1":
                self._chunked = True
                lines.append(b"transfer-encoding: chunked\r\n")
            else:
                keep = False
        if not keep:
            lines.append(b"connection: close\r\n")
        elif self.head.version != "1.1":
            lines.append(b"connection: keep-alive\r\n")
        self.keep = keep
        lines.append(b"\r\n")
        head = b"".join(lines)
        ends = len(lines)
        if head.count(b"\n") != ends or head.count(b"\r") != ends or b"\0" in head:
            raise ValueError("a header holds a line break")
        self.begun = True
        return head

    # The same as ASGI.

    def scope(self) -> MutableMapping[str, Any]:
        """The request as an ASGI application gets it."""
        connection, head = self._connection, self.head
        headers = head.headers
        if self.complete:
            length = b"%d" % sum(map(len, self._parts))
            headers = [(name, length if name == b"content-length" else value) for name, value in headers]
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": head.version,
            "scheme": "http",
            "method": head.method,
            "path": unquote(head.target.decode("latin-1")),
            "raw_path": head.target,
            "query_string": head.query,
            "root_path": "",
            "headers": headers,
            "server": connection.here,
            "client": connection.there,
            "state": {},
            "extensions": {},
        }

    async def receive(self) -> MutableMapping[str, Any]:
        """What an ASGI application is told next."""
        if not self._told:
            try:
                data = await self.take()
            except ClientGone:
                return {"type": "http.disconnect"}
            self._told = self.complete
            return {"type": "http.request", "body": data or b"", "more_body": not self.complete}
        while not self.gone_seen and not self.ended:
            await self._more()
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """What an ASGI application says next."""
        kind = message["type"]
        if kind == "http.response.start":
            self._started = message
            return
        started, self._started = self._started, None
        data: bytes = message.get("body", b"")
        more: bool = message.get("more_body", False)
        if started is not None:
            headers = [(bytes(name).lower(), bytes(value)) for name, value in started.get("headers", ())]
            if not more:
                await self.answer(started["status"], headers, data)
                return
            await self.start(started["status"], headers)
        if more:
            await self.body(data)
        else:
            await self.end(data)


@lru_cache(maxsize=128)
def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()
