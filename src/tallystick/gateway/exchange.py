"""Exchange: one request's answer on its way to the client, and whether anybody is still there to take it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

import msgspec

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
RawHeaders = list[tuple[bytes, bytes]]

WATCH_AFTER: Final = 0.25
"""Seconds after which an exchange without a stream looks whether its client is still there."""

DRAIN_SECONDS: Final = 60.0
"""How long a provider's answer is still read after the client has gone."""

_json: Final = msgspec.json.encode


class Exchange:
    """One request and the sending of its answer. Use it in the task that serves the request, and close it there.

    An answer that is begun and not ended makes the server cut the client's connection. `gone_seen` says whether the
    client is known to have gone; `drain` seconds later the task is cancelled, whatever it waits for.
    """

    __slots__ = ("_drain", "_task", "_timer", "_watch", "gone_seen", "receive", "send")

    def __init__(self, receive: Receive, send: Send, *, drain: float = DRAIN_SECONDS) -> None:
        self.receive = receive
        self.send = send
        self._drain = drain
        self._watch: asyncio.Task[Any] | None = None
        self._task = asyncio.current_task()
        self.gone_seen = False
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """The whole request has been read: from now on the client may be watched."""
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER, self._look)

    async def start(self, status: int, headers: RawHeaders) -> None:
        """Sends the head."""
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def body(self, data: bytes) -> None:
        """Sends a piece of the body, as slowly as the client takes it."""
        await self.send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """Sends the last piece."""
        await self.send({"type": "http.response.body", "body": data, "more_body": False})

    async def give(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Sends a whole answer."""
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self.start(status, raw)
        await self.end(body)

    async def say(self, status: int, value: object) -> None:
        """Sends JSON of our own."""
        body = _json(value)
        await self.give(status, {"content-type": "application/json", "content-length": str(len(body))}, body)

    @property
    def gone(self) -> bool:
        """Whether the client has gone; watched for from the first time it is asked."""
        if self._watch is None:
            self._look()
        return self.gone_seen

    def close(self) -> None:
        """Stops watching."""
        if self._timer is not None:
            self._timer.cancel()
        if self._watch is not None:
            self._watch.remove_done_callback(self._left)
            self._watch.cancel()

    def _look(self) -> None:
        if self._watch is None:
            self._watch = asyncio.ensure_future(self.receive())
            self._watch.add_done_callback(self._left)

    def _left(self, watch: asyncio.Task[Any]) -> None:
        if watch.cancelled():
            return
        watch.exception()
        self.gone_seen = True
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._drain, self._expire)

    def _expire(self) -> None:
        if self._task is not None:
            self._task.cancel()
