"""Handover: what a ledger's threads tell an event loop, many answers at a time.

A loop that is called from another thread is woken with a write to a pipe. A group commit answers a crowd of calls at
once, and one such write is enough for all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import deque
from concurrent.futures import Future
from typing import Any, Final, TypeVar

_T = TypeVar("_T")


class _Hand:
    """What waits to be told in one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._given: deque[tuple[asyncio.Future[Any], Future[Any]]] = deque()
        self._called = False

    def give(self, waiter: asyncio.Future[Any], done: Future[Any]) -> None:
        """In any thread: `done` has an outcome for `waiter`."""
        self._given.append((waiter, done))
        if not self._called:
            # The loop lowers this flag before it looks; so what is given meanwhile is seen by it, or calls it again.
            self._called = True
            loop = self._loop()
            if loop is not None:
                # Nobody waits in a loop that is closed.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        self._called = False
        while self._given:
            waiter, done = self._given.popleft()
            if waiter.done():
                continue
            if done.cancelled():
                waiter.cancel()
            elif (error := done.exception()) is not None:
                waiter.set_exception(error)
            else:
                waiter.set_result(done.result())


_HANDS: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Hand]] = weakref.WeakKeyDictionary()


def awaitable(future: Future[_T]) -> asyncio.Future[_T]:
    """Like `asyncio.wrap_future` in the running loop: a future of the loop with the outcome of another thread's one;
    cancelling it cancels that."""
    loop = asyncio.get_running_loop()
    hand = _HANDS.get(loop)
    if hand is None:
        hand = _HANDS[loop] = _Hand(loop)
    waiter: asyncio.Future[_T] = loop.create_future()

    def cancelled(waiter: asyncio.Future[_T]) -> None:
        if waiter.cancelled():
            future.cancel()

    waiter.add_done_callback(cancelled)
    future.add_done_callback(lambda done: hand.give(waiter, done))
    return waiter
