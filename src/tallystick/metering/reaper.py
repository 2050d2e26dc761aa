"""Reaper: settles calls whose stream was forgotten, outside the garbage collection that noticed it.

A collection runs in the middle of any code, with any lock held by its own thread. What it finds is put into a queue,
and a thread that waits there settles it.
"""

from __future__ import annotations

import gc
import os
import queue
import threading
from typing import Any, Final, Protocol


class Closable(Protocol):
    """A call that can be closed."""

    def close(self, reason: str = "end") -> bytes:
        """Settles the call."""


class _Reaper:
    def __init__(self) -> None:
        self.collecting: int | None = None
        self.owner = 0
        self.left: queue.SimpleQueue[tuple[Closable, str] | threading.Event] = queue.SimpleQueue()
        self.lock = threading.Lock()

    def noticed(self, phase: str, _info: dict[str, Any]) -> None:
        self.collecting = threading.get_ident() if phase == "start" else None

    def start(self) -> None:
        """Starts the thread of this process; called where calls begin, never in a collection."""
        if self.owner == os.getpid():
            return
        with self.lock:
            if self.owner == os.getpid():
                return
            if not self.owner:
                gc.callbacks.append(self.noticed)
            self.left = queue.SimpleQueue()
            self.owner = os.getpid()
            threading.Thread(target=self.work, name="tallystick-reaper", daemon=True).start()

    def work(self) -> None:
        while True:
            item = self.left.get()
            if isinstance(item, threading.Event):
                item.set()
            else:
                item[0].close(item[1])
            del item


_REAPER: Final = _Reaper()


def start() -> None:
    """Makes sure that forgotten calls are settled; cheap to call again."""
    _REAPER.start()


def collecting() -> bool:
    """Whether this thread is in the middle of a garbage collection."""
    return _REAPER.collecting is not None and _REAPER.collecting == threading.get_ident()


def settle_later(call: Closable, reason: str) -> None:
    """Has a call settled by the thread."""
    _REAPER.left.put((call, reason))


def drain(seconds: float = 5.0) -> None:
    """Returns when all that was put in before is settled."""
    if _REAPER.owner == os.getpid():
        done = threading.Event()
        _REAPER.left.put(done)
        done.wait(seconds)
