"""Live: calls as they happen, and spend per minute, as Server-Sent Events. The ledger is looked at only while somebody
listens, and only once for all of them."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import Any, Final

import msgspec

from tallystick.errors import LedgerError
from tallystick.gateway.api.desk import Desk
from tallystick.gateway.api.http import Problem, Receive, Scope, Send, send_problem
from tallystick.insight.flights import Flights
from tallystick.insight.spend import total_json
from tallystick.insight.watching import Seen, Watch, flights_json
from tallystick.ledger.entry import SCHEMA, rfc3339
from tallystick.ledger.query import Query

PAUSE: Final = 0.25
"""Seconds between two looks."""

WAITING: Final = 256
"""So many events may wait for a slow listener; then it is let go."""

MOST_LISTENERS: Final = 100
_SPEND_EACH: Final = 4
_HEARTBEAT_EACH: Final = 40
_FAREWELL: Final = 1.0
_MINUTE: Final = timedelta(minutes=1)
_HEADERS: Final = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-accel-buffering", b"no"),
]


class Listener:
    """One who listens. `over` is set when there is nothing more to say to them."""

    def __init__(self, most: int) -> None:
        self.waiting: asyncio.Queue[bytes] = asyncio.Queue(most)
        self.over = asyncio.Event()

    def tell(self, data: bytes) -> None:
        """Puts an event into the line; one that does not keep up is let go."""
        try:
            self.waiting.put_nowait(data)
        except asyncio.QueueFull:
            self.over.set()


class Live:
    """The stream. `pause` is seconds between two looks, `waiting` how many events may wait for a listener."""

    def __init__(self, desk: Desk, *, pause: float = PAUSE, waiting: int = WAITING) -> None:
        self._desk = desk
        self._pause = pause
        self._waiting = waiting
        self._listeners: set[Listener] = set()
        self._watching: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._turn = asyncio.Lock()

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    @property
    def watching(self) -> bool:
        """Whether the ledger is being looked at."""
        return self._watching is not None and not self._watching.done()

    def close(self) -> None:
        """Ends all streams, so that the server can end; from any thread."""
        self._closed = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one listener until it goes away, does not keep up, or the room closes."""
        del scope
        if self._closed or len(self._listeners) >= MOST_LISTENERS:
            await send_problem(send, Problem(503, "Nobody else can listen now.", todo="Try again later."))
            return
        listener = Listener(self._waiting)
        try:
            hello = await self._begin(listener)
        except LedgerError as error:
            await send_problem(send, error)
            return
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        tasks = [
            asyncio.create_task(_pass_on(listener, send, hello)),
            asyncio.create_task(_away(receive)),
            asyncio.create_task(_over(listener)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._listeners.discard(listener)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._closed:
            # One that does not read its stream must not hold up the end of the server.
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(send({"type": "http.response.body", "body": b""}), _FAREWELL)

    async def _begin(self, listener: Listener) -> bytes:
        """Puts a listener among the others, so that what happens from now on is told, and gives its first event."""
        self._loop = asyncio.get_running_loop()
        async with self._turn:
            self._listeners.add(listener)
            watch = Watch(self._desk.ledger, self._desk.flights)
            try:
                hello = await asyncio.to_thread(self._hello, watch)
            except LedgerError:
                self._listeners.discard(listener)
                raise
            if not self.watching:
                self._watching = asyncio.create_task(self._watch(watch))
        return b"retry: 1000\n\n" + _framed("hello", hello)

    async def _watch(self, watch: Watch) -> None:
        before = Flights()
        spent: dict[str, Any] | None = None
        number = 0
        while self._listeners and not self._closed:
            try:
                seen = await asyncio.to_thread(watch.look)
                self._tell_calls(seen, before)
                before = seen.flights
                if number % _SPEND_EACH == 0:
                    now = await asyncio.to_thread(self._minute)
                    if now != spent:
                        spent = now
                        self._tell("spend", {"at": rfc3339(self._desk.now()), "minute": now})
            except LedgerError as error:
                self._tell("trouble", {"message": str(error)})
            if number % _HEARTBEAT_EACH == 0:
                self._tell("heartbeat", {"at": rfc3339(self._desk.now())})
            number += 1
            await asyncio.sleep(self._pause)

    def _tell_calls(self, seen: Seen, before: Flights) -> None:
        for entry in seen.ended:
            self._tell("call", entry.to_json())
        if seen.flights != before:
            self._tell("flights", flights_json(seen.flights, self._desk.now()))

    def _tell(self, kind: str, value: dict[str, Any]) -> None:
        data = _framed(kind, value)
        for listener in list(self._listeners):
            listener.tell(data)

    def _hello(self, watch: Watch) -> dict[str, Any]:
        seen = watch.look()
        last = self._desk.ledger.read(Query(newest_first=True, limit=10))
        return {
            "schema": SCHEMA,
            **flights_json(seen.flights, self._desk.now()),
            "minute": self._minute(),
            "last": [entry.to_json() for entry in last],
        }

    def _minute(self) -> dict[str, Any]:
        """The sum over the calls that began in the last minute."""
        return total_json(self._desk.ledger.total(Query(since=self._desk.now() - _MINUTE))[0])

    def _end(self) -> None:
        for listener in self._listeners:
            listener.over.set()


async def _pass_on(listener: Listener, send: Send, hello: bytes) -> None:
    data = hello
    while True:
        await send({"type": "http.response.body", "body": data, "more_body": True})
        data = await listener.waiting.get()


async def _away(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _over(listener: Listener) -> None:
    await listener.over.wait()


def _framed(kind: str, value: dict[str, Any]) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + msgspec.json.encode(value) + b"\n\n"
