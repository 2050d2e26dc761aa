"""Writer: one thread that writes, and one that makes the disk keep it.

Everybody who appends puts a job into a queue. The writer takes all that waits and commits it at once; then those jobs
are safe from a killed process. The syncer follows within `SYNC_DELAY` and makes them safe from a power cut; only who
asked for that waits for it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final

from tallystick.errors import LedgerUnavailable, TallyError
from tallystick.ledger.ledger import Item, Receipt

SYNC_DELAY: Final = 0.03
"""Seconds from a commit to the sync that follows it; together with the sync itself less than 50 ms."""

MAX_BATCH: Final = 4000
"""About this many items are committed together; a single append is never split."""


class Job:
    """One append: what to write, and the future that tells how it went."""

    __slots__ = ("durable", "error", "future", "items", "receipt")

    def __init__(self, items: Sequence[Item], *, durable: bool) -> None:
        self.items = items
        self.durable = durable
        self.future: Future[Receipt] = Future()
        self.receipt: Receipt | None = None
        self.error: TallyError | None = None

    def finish(self) -> None:
        """Tells the outcome to who waits."""
        if self.future.done():
            return
        if self.error is None and self.receipt is not None:
            self.future.set_result(self.receipt)
        else:
            self.future.set_exception(self.error or _broken())


class GroupCommit:
    """The queue and its two threads.

    `commit` writes jobs in one transaction and sets the receipt or error of each; `sync` returns when all that was
    committed before is on the disk, or raises LedgerUnavailable; `tidy` is called after each sync, when nobody waits.
    """

    def __init__(self, commit: Callable[[list[Job]], None], sync: Callable[[], None], tidy: Callable[[], None]) -> None:
        self._commit = commit
        self._sync = sync
        self._tidy = tidy
        self._changed = threading.Condition()
        self._queue: deque[Job] = deque()
        self._committed: list[Job] = []
        self._dirty = False
        self._working = False
        self._syncing = False
        self._urgent = False
        self._closing = False
        self._threads: list[threading.Thread] = []
        self._fault: TallyError | None = None

    def submit(self, job: Job) -> None:
        """Queues a job. Raises LedgerUnavailable after `close` or when the disk failed to keep what was written."""
        with self._changed:
            if self._fault is not None:
                raise self._fault
            if self._closing:
                raise LedgerUnavailable("The ledger is closed.", money="Nothing was entered.", todo="Open it again.")
            self._queue.append(job)
            if not self._threads:
                self._start()
            self._changed.notify_all()

    def touched(self) -> None:
        """Something was committed outside the queue; it is synced like the rest."""
        with self._changed:
            self._dirty = True
            if not self._threads:
                self._start()
            self._changed.notify_all()

    def flush(self) -> None:
        """Returns when all that was queued is written and synced."""
        with self._changed:
            self._urgent = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._fault is not None or self._idle())
            self._urgent = False
            if self._fault is not None:
                raise self._fault

    def close(self) -> None:
        """Writes and syncs what is queued, and ends the threads."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        for target, name in ((self._write, "tallystick-writer"), (self._keep, "tallystick-syncer")):
            # Daemons, as Python waits for other threads before it would tell us to close.
            thread = threading.Thread(target=target, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _idle(self) -> bool:
        return not (self._queue or self._working or self._dirty or self._syncing)

    def _write(self) -> None:
        while True:
            with self._changed:
                self._working = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._queue or self._closing)
                jobs = self._take()
                if not jobs:
                    return
                self._working = True
            try:
                self._commit(jobs)
            finally:
                # After a fault of our own, which ends this thread, some have no receipt: they are not written.
                if any(job.receipt is None and job.error is None for job in jobs):
                    jobs += self._give_up()
                self._settle(jobs)

    def _give_up(self) -> list[Job]:
        """No more is taken in; returns what nobody will write."""
        with self._changed:
            self._fault = _broken()
            self._working = False
            left = list(self._queue)
            self._queue.clear()
            return left

    def _take(self) -> list[Job]:
        jobs: list[Job] = []
        size = 0
        while self._queue and (not jobs or size + len(self._queue[0].items) <= MAX_BATCH):
            job = self._queue.popleft()
            jobs.append(job)
            size += len(job.items)
        return jobs

    def _settle(self, jobs: list[Job]) -> None:
        waiting = [job for job in jobs if job.durable and job.receipt is not None and job.error is None]
        with self._changed:
            self._committed += waiting
            self._dirty = self._dirty or any(job.receipt is not None for job in jobs)
            self._changed.notify_all()
        for job in jobs:
            if job not in waiting:
                job.finish()

    def _keep(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._dirty or (self._closing and not self._queue and not self._working))
                if not self._dirty:
                    return
                self._changed.wait_for(lambda: self._committed or self._urgent or self._closing, SYNC_DELAY)
                waiting, self._committed = self._committed, []
                self._dirty = False
                self._syncing = True
            self._sync_now(waiting)
            self._tidy()

    def _sync_now(self, waiting: list[Job]) -> None:
        try:
            self._sync()
        except LedgerUnavailable as error:
            # The kernel may have dropped the pages it could not write, so a later sync proves nothing.
            self._fault = error
            for job in waiting:
                job.error = error
        finally:
            for job in waiting:
                job.finish()
            with self._changed:
                self._syncing = False
                self._changed.notify_all()


def _broken() -> LedgerUnavailable:
    return LedgerUnavailable(
        "The ledger's writer failed.", money="Nothing of this was entered.", todo="Open the ledger again."
    )
