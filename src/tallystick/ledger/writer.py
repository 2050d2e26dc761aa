"""Writer: one thread that writes, and one that makes the disk keep it.

Everybody who appends puts a job into a queue. The writer takes all that waits and commits it at once; then those jobs
are safe from a killed process. The syncer follows within `SYNC_DELAY` and makes them safe from a power cut; only who
asked for that waits for it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, Final, Generic, Protocol, TypeVar

from tallystick.errors import LedgerUnavailable, TallyError
from tallystick.ledger.entry import Entry
from tallystick.ledger.hold import Settlement
from tallystick.ledger.ledger import Item, Receipt
from tallystick.ledger.promise import Promise

SYNC_DELAY: Final = 0.015
"""Seconds from a commit to the sync that follows it; together with the sync itself less than 50 ms."""

POLL: Final = 0.002
"""While tasks stand in the line, it is asked so often (in seconds) whether they are due."""

LATER: Final = 0.03
"""What nobody waits for is committed after so many seconds, or with what comes before and cannot go ahead of it; with
`SYNC_DELAY` and the sync less than 50 ms."""

GATHER: Final = 0.001
"""While many ask at once, a commit waits so many seconds for more of them."""

CROWD: Final = 8
"""So many asks in one commit are many."""

MAX_BATCH: Final = 4000
"""About this many items are committed together; a single append is never split."""

R = TypeVar("R")


class Task(Generic[R]):
    """Something to do in the ledger, and the future that tells how it went. `receipt` is what it came to; a task that
    has neither receipt nor error is not done. With `durable` the future waits until the disk has it. One that is
    `ahead` may be committed before what nobody waits for. `size` is about how much work it is; an entry is 1."""

    __slots__ = ("durable", "error", "future", "receipt")
    ahead = False
    size = 1

    def __init__(self, *, durable: bool) -> None:
        self.durable = durable
        self.future: Future[R] = Promise()
        self.receipt: R | None = None
        self.error: TallyError | None = None

    @property
    def told(self) -> Any:
        """What the future says of the receipt."""
        return self.receipt

    def finish(self) -> None:
        """Tells the outcome to who waits."""
        try:
            if self.error is None and self.receipt is not None:
                self.future.set_result(self.told)
            else:
                self.future.set_exception(self.error or _broken())
        except InvalidStateError:
            # Whoever has cancelled meanwhile does not want to know, and nobody is told twice.
            return


class Job(Task[Receipt]):
    """One append: what to write."""

    __slots__ = ("items", "size")

    def __init__(self, items: Sequence[Item], *, durable: bool) -> None:
        super().__init__(durable=durable)
        self.items = items
        self.size = len(items)


class SettleJob(Job):
    """One call to enter, with what it takes from the accounts."""

    __slots__ = ("call_id", "settlement")

    def __init__(self, entry: Entry, settlement: Settlement, *, durable: bool) -> None:
        super().__init__((entry,), durable=durable)
        self.call_id = entry.call_id
        self.settlement = settlement


class Line(Protocol):
    """The tasks that a commit has put back because they have to wait for something."""

    def waiting(self) -> bool:
        """Whether there are any."""
        ...

    def due(self) -> bool:
        """Whether it is worth while to look at them now; cheap, as it is asked every `POLL` seconds."""
        ...

    def leave(self) -> list[Task[Any]]:
        """Gives all of them up, as nobody will look at them any more."""
        ...


class GroupCommit:
    """The queue and its two threads.

    `commit` writes tasks in one transaction and sets the receipt or error of each; it returns those that are done, or
    None for all of them. Tasks that it puts back stand in `line`, and `commit` is called without any when they are
    due. `sync` returns when all that was committed before is on the disk, or raises LedgerUnavailable; `tidy` is
    called after each sync, when nobody waits.
    """

    def __init__(
        self,
        commit: Callable[[list[Any]], Sequence[Task[Any]] | None],
        sync: Callable[[], None],
        tidy: Callable[[], None],
        line: Line | None = None,
    ) -> None:
        self._commit = commit
        self._sync = sync
        self._tidy = tidy
        self._line = line
        lock = threading.Lock()
        self._work = threading.Condition(lock)
        self._unsynced = threading.Condition(lock)
        self._calm = threading.Condition(lock)
        self._queue: deque[Task[Any]] = deque()
        self._later: deque[Task[Any]] = deque()
        self._later_at = 0.0
        self._committed: list[Task[Any]] = []
        self._dirty = False
        self._working = False
        self._syncing = False
        self._urgent = False
        self._closing = False
        self._ended = False
        self._sleeping = False
        self._deep = False
        self._crowd = 0
        self._poked = False
        self._threads: list[threading.Thread] = []
        self._fault: TallyError | None = None

    def submit(self, task: Task[Any], *, later: bool = False) -> None:
        """Queues a task; `later` says that nobody waits for it. Raises LedgerUnavailable after `close` or when the disk
        failed to keep what was written."""
        if self._fault is not None:
            raise self._fault
        if self._closing:
            raise _closed()
        # Without the lock, for which a crowd would queue. The writer looks at the queue once more after it has said
        # that it sleeps, and so does who ends it; so what is put here is seen by them, or they are seen here.
        if later:
            if not self._later:
                self._later_at = time.monotonic() + LATER
            self._later.append(task)
        else:
            self._queue.append(task)
        if (self._deep if later else self._sleeping) or not self._threads or self._ended:
            self._wake(task)

    def _wake(self, task: Task[Any]) -> None:
        with self._work:
            if not self._ended:
                self._start()
                if self._queue or self._later:
                    # It is called once; it finds the rest in the queue. One that has taken everything meanwhile, and
                    # sleeps again, must go on counting as asleep.
                    self._work.notify()
                    self._sleeping = False
                return
            for queue in (self._queue, self._later):
                if task in queue:
                    queue.remove(task)
                    break
            else:
                # The writer has seen it, and tells what became of it.
                return
        raise self._fault or _closed()

    def touched(self) -> None:
        """Something was committed outside the queue; it is synced like the rest, and who waits is looked at."""
        with self._work:
            self._dirty = True
            self._poked = True
            self._start()
            self._work.notify()
            self._unsynced.notify()

    def flush(self) -> None:
        """Returns when all that was queued is written and synced."""
        with self._work:
            self._urgent = True
            self._work.notify()
            self._unsynced.notify()
            self._calm.wait_for(lambda: self._fault is not None or self._idle())
            self._urgent = False
            if self._fault is not None:
                raise self._fault

    def close(self) -> None:
        """Writes and syncs what is queued, and ends the threads. Who still waits in the line is told so."""
        with self._work:
            self._closing = True
            self._ended = self._ended or not self._threads
            self._work.notify()
            self._unsynced.notify()
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        if self._threads:
            return
        for target, name in ((self._write, "tallystick-writer"), (self._keep, "tallystick-syncer")):
            # Daemons, as Python waits for other threads before it would tell us to close.
            thread = threading.Thread(target=target, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _idle(self) -> bool:
        return not (self._queue or self._later or self._working or self._dirty or self._syncing)

    def _write(self) -> None:
        while (tasks := self._next()) is not None:
            if not tasks and not self._due():
                continue
            done: Sequence[Task[Any]] = tasks
            whole = False
            try:
                told = self._commit(tasks)
                done = tasks if told is None else told
                whole = True
            finally:
                # A fault of our own ends this thread, and what has no receipt then is not written.
                if not whole:
                    done = [*tasks, *self._give_up()]
                self._settle(done)
                if not whole:
                    self._rest()
        for task in self._left_waiting():
            task.finish()

    def _next(self) -> list[Task[Any]] | None:
        """What to commit next, nothing when it is time to look at the line, None at the end."""
        waiting = self._line is not None and self._line.waiting()
        with self._work:
            self._working = False
            if self._idle():
                self._calm.notify_all()
            self._sleep(poll=waiting)
            if 2 * len(self._queue) < self._crowd >= CROWD and not (self._closing or self._poked):
                # Most of those who asked last are on their way back; one commit for them costs less than several.
                self._work.wait(GATHER)
            if self._closing:
                self._ended = not (self._queue or self._later)
            if self._ended and not (self._queue or self._later):
                # The syncer may wait for the writer's last word.
                self._unsynced.notify()
                return None
            self._ended = False
            self._working = True
            return self._take(waiting=waiting)

    def _sleep(self, *, poll: bool) -> None:
        """Until there is something to do. What nobody waits for lies for a while, so that more comes to it; who brings
        more of it then need not wake anybody."""
        if self._ready():
            return
        self._sleeping = True
        self._work.wait_for(self._ready, POLL if poll else LATER)
        if not (poll or self._later or self._ready()):
            self._deep = True
            self._work.wait_for(lambda: self._later or self._ready())
            self._deep, self._sleeping = False, True
            self._work.wait_for(self._ready, LATER)
        self._sleeping = False

    def _ready(self) -> bool:
        return bool(self._queue or self._closing or self._poked or (self._urgent and self._later))

    def _due(self) -> bool:
        poked, self._poked = self._poked, False
        return self._line is not None and self._line.waiting() and (poked or self._line.due())

    def _give_up(self) -> list[Task[Any]]:
        """No more is taken in; returns what nobody will write."""
        with self._work:
            self._fault = _broken()
            self._ended = True
            left = [*self._drained(), *self._left_waiting()]
            self._calm.notify_all()
            return left

    def _rest(self) -> None:
        with self._work:
            self._working = False
            self._unsynced.notify()

    def _left_waiting(self) -> list[Task[Any]]:
        return [] if self._line is None else self._line.leave()

    def _take(self, *, waiting: bool) -> list[Task[Any]]:
        """What is committed next: nearly all that was asked for, and what nobody waits for when it is time for it, or
        when `waiting` or some task here may depend on it."""
        tasks = _first_of(self._queue)
        if self._later and (
            waiting
            or self._urgent
            or self._closing
            or not all(task.ahead for task in tasks)
            or not tasks
            or time.monotonic() >= self._later_at
        ):
            tasks[:0] = _first_of(self._later)
        self._crowd = max(sum([task.durable for task in tasks]), self._crowd * 3 // 4)
        return tasks

    def _drained(self) -> list[Task[Any]]:
        tasks: list[Task[Any]] = []
        for queue in (self._later, self._queue):
            while queue:
                tasks.append(queue.popleft())
        return tasks

    def _settle(self, done: Sequence[Task[Any]]) -> None:
        later: list[Task[Any]] = []
        now: list[Task[Any]] = []
        written = False
        for task in done:
            stands = task.error is None and task.receipt is not None
            written = written or stands
            (later if stands and task.durable else now).append(task)
        if written:
            with self._work:
                self._committed += later
                self._dirty = True
                self._unsynced.notify()
        for task in now:
            task.finish()

    def _keep(self) -> None:
        while True:
            with self._work:
                self._unsynced.wait_for(lambda: self._dirty or (self._closing and self._ended and not self._working))
                if not self._dirty:
                    return
                self._unsynced.wait_for(lambda: self._committed or self._urgent or self._closing, SYNC_DELAY)
                waiting, self._committed = self._committed, []
                self._dirty = False
                self._syncing = True
            self._sync_now(waiting)
            self._tidy()

    def _sync_now(self, waiting: list[Task[Any]]) -> None:
        try:
            self._sync()
        except LedgerUnavailable as error:
            # The kernel may have dropped the pages it could not write, so a later sync proves nothing.
            self._fault = error
            for task in waiting:
                task.error = error
        finally:
            for task in waiting:
                task.finish()
            with self._work:
                self._syncing = False
                if self._fault is not None or self._idle():
                    self._calm.notify_all()


def _first_of(queue: deque[Task[Any]]) -> list[Task[Any]]:
    """Takes out about as much as is committed at once."""
    tasks: list[Task[Any]] = []
    room = MAX_BATCH
    while queue:
        room -= queue[0].size
        if room < 0 and tasks:
            break
        tasks.append(queue.popleft())
    return tasks


def _closed() -> LedgerUnavailable:
    return LedgerUnavailable("The ledger is closed.", money="Nothing was entered.", todo="Open it again.")


def _broken() -> LedgerUnavailable:
    return LedgerUnavailable(
        "The ledger's writer failed.", money="Nothing of this was entered.", todo="Open the ledger again."
    )
