"""Server: the connections of one process, from the first request until the last has been answered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from tallystick.gateway.exchange import Exchange
from tallystick.gateway.protocol import Connection

DRAIN_SECONDS: Final = 30
"""How long calls in flight may take to end after the gateway was told to stop."""

_LOG: Final = logging.getLogger("tallystick")
_TICK: Final = 0.1
_LOOK_TICKS: Final = 5
"""Ticks between two looks for connections that idle or dawdle."""

_BACKLOG: Final = 2048
_LAST_TURNS: Final = 3


class Application(Protocol):
    """What a server serves."""

    async def begin(self) -> None:
        """Called before the first request."""
        ...

    async def serve(self, exchange: Exchange) -> None:
        """Answers one request."""
        ...

    def at_once(self, exchange: Exchange) -> bool:
        """Answers a request that is complete without a task, now or when what it takes has come; false where `serve`
        has to."""
        ...

    async def close(self) -> None:
        """Called after the last request."""
        ...


class Server:
    """Serves an application on sockets that listen. `ready` is called when it takes requests, `stopping` when it takes
    no more. Setting `should_exit`, from whatever thread, ends it politely."""

    def __init__(
        self,
        application: Application,
        ready: Callable[[], None] | None = None,
        stopping: Callable[[], None] | None = None,
    ) -> None:
        self.should_exit = False
        self._application = application
        self._ready = ready
        self._stopping = stopping
        self._connections: set[Connection] = set()

    def run(self, sockets: list[socket.socket]) -> None:
        """Serves until told to end by `should_exit`, SIGINT or SIGTERM, and then lets the calls in flight end."""
        with self._signals(), asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(self._run(sockets))

    async def _run(self, sockets: list[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        await self._application.begin()
        listening = []
        try:
            for one in sockets:
                listening.append(await loop.create_server(self._connection, sock=one, backlog=_BACKLOG))  # noqa: PERF401 - what listens is closed where a later one does not
            if self._ready is not None:
                self._ready()
            await self._watch(loop)
            if self._stopping is not None:
                self._stopping()
        finally:
            # What has come already, while the loop was busy, is taken in: its client would find the door shut.
            await _turns()
            for server in listening:
                server.close()
            await self._drain()
            await self._application.close()

    def _connection(self) -> Connection:
        serves = self._application
        return Connection(asyncio.get_running_loop(), serves.serve, serves.at_once, self._connections, _failed)

    async def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        ticks = 0
        while not self.should_exit:
            await asyncio.sleep(_TICK)
            ticks += 1
            if ticks % _LOOK_TICKS == 0:
                now = loop.time()
                for connection in tuple(self._connections):
                    connection.look(now)

    async def _drain(self) -> None:
        for connection in tuple(self._connections):
            connection.leave()
        for _ in range(int(DRAIN_SECONDS / _TICK)):
            if not any(connection.busy for connection in self._connections):
                break
            await asyncio.sleep(_TICK)
        for connection in tuple(self._connections):
            connection.cancel()
        # What was cancelled settles its call before the ledger closes.
        await _turns()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        kept = {number: signal.signal(number, self._told) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)

    def _told(self, _number: int, _frame: object) -> None:
        self.should_exit = True


async def _turns() -> None:
    """A few turns of the loop."""
    for _ in range(_LAST_TURNS):
        await asyncio.sleep(0)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop

    made: Any = uvloop.new_event_loop
    return made  # type: ignore[no-any-return]


def _failed(error: BaseException) -> None:
    # The words of an error may hold what nobody should read in a log.
    _LOG.error("a request was not answered: %s", type(error).__name__)
