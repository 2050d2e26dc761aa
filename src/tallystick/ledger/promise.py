"""Promise: a future that costs little where nobody waits for it. A ledger makes several for each call."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any, Final, TypeVar

R = TypeVar("R")

# The words of `concurrent.futures`, whose `wait` and `as_completed` look at them.
_PENDING: Final = "PENDING"
_RUNNING: Final = "RUNNING"
_CANCELLED: Final = "CANCELLED"
_NOTIFIED: Final = "CANCELLED_AND_NOTIFIED"
_FINISHED: Final = "FINISHED"
_ENDED: Final = frozenset({_CANCELLED, _NOTIFIED, _FINISHED})


class _Calls(list[Any]):
    """Callbacks that are taken out one by one, by whoever comes first; so each is called once."""

    def __iter__(self) -> Iterator[Any]:
        while self:
            try:
                call = self.pop(0)
            except IndexError:
                return
            yield call


class Promise(Future[R]):
    """A `concurrent.futures.Future` without the lock and the condition of one.

    Each step that two threads may want to take is a single one of a list or a dict, which no thread can come between:
    who takes `_chance` tells the outcome, and who takes a callback calls it. And whoever tells notes the outcome before
    he looks for those that wait, whoever waits says so before he looks for an outcome; so they cannot miss each other.
    """

    _result: Any = None
    _exception: BaseException | None = None
    _invoke_callbacks: Callable[[], None]

    def __init__(self) -> None:
        # Not that of Future, which makes a condition.
        self._state = _PENDING
        self._chance = [True]
        self._done_callbacks = _Calls()

    def __getattr__(self, name: str) -> Any:
        """Makes what only `concurrent.futures.wait` and the like look for."""
        if name == "_condition":
            return self.__dict__.setdefault(name, threading.Condition())
        if name in ("_waiters", "_locks"):
            return self.__dict__.setdefault(name, _Calls() if name == "_locks" else [])
        raise AttributeError(name)

    def cancel(self) -> bool:
        """See `Future.cancel`."""
        if self._taken():
            self._end(_CANCELLED)
            return True
        while self._state == _PENDING:
            # Whoever was faster is just about to say what it is.
            time.sleep(0)
        return self.cancelled()

    def cancelled(self) -> bool:
        """See `Future.cancelled`."""
        return self._state in (_CANCELLED, _NOTIFIED)

    def running(self) -> bool:
        """See `Future.running`."""
        return self._state == _RUNNING

    def done(self) -> bool:
        """See `Future.done`."""
        return self._state in _ENDED

    def add_done_callback(self, fn: Callable[[Future[R]], object]) -> None:
        """See `Future.add_done_callback`."""
        self._done_callbacks.append(fn)
        if self._state in _ENDED:
            self._invoke_callbacks()

    def result(self, timeout: float | None = None) -> R:
        """See `Future.result`."""
        if self._state not in _ENDED:
            self._wait(timeout)
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                # The traceback keeps this frame, which would keep the error.
                del self
        if self._state != _FINISHED:
            raise CancelledError
        return self._result  # type: ignore[no-any-return]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """See `Future.exception`."""
        if self._state not in _ENDED:
            self._wait(timeout)
        if self._state != _FINISHED:
            raise CancelledError
        return self._exception

    def set_running_or_notify_cancel(self) -> bool:
        """See `Future.set_running_or_notify_cancel`."""
        if self._taken():
            self._state = _RUNNING
            return True
        if self._state == _RUNNING or not self.cancel():
            raise InvalidStateError(self._state)
        self._state = _NOTIFIED
        if "_condition" in self.__dict__:
            with self._condition:
                self._condition.notify_all()
        return False

    def set_result(self, result: R) -> None:
        """See `Future.set_result`."""
        self._take()
        self._result = result
        self._end(_FINISHED)

    def set_exception(self, exception: BaseException | None) -> None:
        """See `Future.set_exception`."""
        self._take()
        self._exception = exception
        self._end(_FINISHED)

    def _take(self) -> None:
        if self._state != _RUNNING and not self._taken():
            raise InvalidStateError(self._state)

    def _taken(self) -> bool:
        """Whether it is ours to tell the outcome."""
        try:
            return self._chance.pop()
        except IndexError:
            return False

    def _end(self, state: str) -> None:
        self._state = state
        seen = self.__dict__
        if "_locks" in seen:
            for lock in self._locks:
                lock.release()
        if "_condition" in seen:
            with self._condition:
                for waiter in self._waiters:
                    self._tell(waiter)
        if self._done_callbacks:
            self._invoke_callbacks()

    def _tell(self, waiter: Any) -> None:
        """Tells one of those that wait for several."""
        if self._state != _FINISHED:
            waiter.add_cancelled(self)
        elif self._exception is not None:
            waiter.add_exception(self)
        else:
            waiter.add_result(self)

    def _wait(self, timeout: float | None) -> None:
        lock = threading.Lock()
        lock.acquire()
        self._locks.append(lock)
        if self._state not in _ENDED and not lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            raise TimeoutError
