"""SqliteLedger: the ledger in one file, for any number of threads and processes on one machine."""

from __future__ import annotations

import atexit
import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec

from tallystick.core.periods import zone as check_zone
from tallystick.errors import InputError, LedgerCorrupt, LedgerError, LedgerUnavailable
from tallystick.ledger.accounts import Rules
from tallystick.ledger.asking import Answering
from tallystick.ledger.audit import differences, rebuild
from tallystick.ledger.book import Book, read_corrections
from tallystick.ledger.budget import Budget, Budgets
from tallystick.ledger.entry import Correction, Entry
from tallystick.ledger.hold import Account, Ask, Charge, Granted, Hold, Refused, Seed, Settlement, Stale
from tallystick.ledger.holds_budgets import CHANGES
from tallystick.ledger.holds_line import AskJob, Extend, Release
from tallystick.ledger.holds_sqlite import (
    Counter,
    HoldsSheet,
    account_differences,
    read_accounts,
    read_holds,
    read_rules,
)
from tallystick.ledger.ledger import EVERYTHING, KEEP, Item, Receipt
from tallystick.ledger.memory import closed
from tallystick.ledger.owners import Turn
from tallystick.ledger.query import Query
from tallystick.ledger.reading import entries
from tallystick.ledger.rollups import slot_floor
from tallystick.ledger.rows import decode
from tallystick.ledger.sql import queries
from tallystick.ledger.store import begin, connect, create, explained, get_state
from tallystick.ledger.synclog import sync_log
from tallystick.ledger.words import Names
from tallystick.ledger.writer import GroupCommit, Job, SettleJob, Task

DEFAULT_TIMEOUT: Final = 5.0
"""So many seconds an append waits for another process to finish writing."""

_CHECKPOINT_BYTES: Final = 8_000_000
_CHECKPOINT_SECONDS: Final = 0.5
_CHECKPOINT_PAGES: Final = 16_000
_JOINED: Final = "SELECT call_id, started_us, recorded_us, run, body FROM entry WHERE call_id = ?"

T = TypeVar("T")


class _Desk:
    """The connections of one process, and who may use them. A forked child gets a new one."""

    def __init__(self, path: Path) -> None:
        self.writing = threading.RLock()
        self.reading = threading.RLock()
        self.writer: sqlite3.Connection | None = None
        self.reader: sqlite3.Connection | None = None
        self.names: Names | None = None
        self.rules: Rules | None = None
        self.book: Book | None = None
        self.turn = Turn(path)
        self.holds = Counter(path)

    def close(self) -> None:
        for connection in (self.reader, self.writer):
            if connection is not None:
                connection.close()
        self.reader = self.writer = self.names = self.rules = self.book = None


class SqliteLedger(Answering):
    """A Ledger in the SQLite file `path`, made with its folder if missing (0600 in 0700).

    `zone` is the time zone of the days of a new ledger (UTC); an existing one keeps its own. `clock` gives seconds
    since 1970 UTC. An append waits at most `timeout` seconds for other processes. `read_only` changes nothing in the
    file. Threads may share one; after a fork the child's copy works on its own. Raises LedgerUnavailable,
    LedgerCorrupt.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        zone: str | None = None,
        clock: Callable[[], float] = time.time,
        timeout: float = DEFAULT_TIMEOUT,
        read_only: bool = False,
    ) -> None:
        self._path = Path(path)
        self._log = self._path.with_name(f"{self._path.name}-wal")
        self._clock = clock
        self._timeout = timeout
        self._read_only = read_only
        self._closed = False
        self._checkpoint_at = 0.0
        self._desk = _Desk(self._path)
        self._group = GroupCommit(self._commit, self._sync, self._checkpoint, self)
        if zone is not None:
            check_zone(zone)
        if not read_only:
            create(self._path)
        with self._reading() as (connection, _):
            known = None if _is_new(connection) else get_state(connection, "ledger", "zone")
        if known is None:
            self._found(zone or "UTC")
        _LIVE.add(self)

    @property
    def path(self) -> Path:
        """The ledger's file."""
        return self._path

    @property
    def zone(self) -> str:
        """The time zone of the ledger's days and months, an IANA name."""
        with self._reading() as (connection, _):
            return get_state(connection, "ledger", "zone") or "UTC"

    def append(self, items: Sequence[Item], *, durable: bool = False) -> Receipt:
        """Writes all items or none. See `Ledger.append`."""
        return self.submit(items, durable=durable).result()

    def submit(self, items: Sequence[Item], *, durable: bool = False) -> Future[Receipt]:
        """Like `append`, without waiting. See `Ledger.submit`."""
        return self._queue(Job(tuple(items), durable=durable))

    def read(self, query: Query = EVERYTHING) -> Iterator[Entry]:
        """The calls that fit. See `Ledger.read`."""
        return entries(self._reading, query)

    def corrections(self, call_id: str) -> tuple[Correction, ...]:
        """The corrections of a call, in their order."""
        with self._reading() as (connection, _):
            row = connection.execute(queries()["entry_by_call"], (call_id,)).fetchone()
            return () if row is None else tuple(read_corrections(connection, row[0]))

    def joined(self, call_id: str) -> tuple[Entry, ...]:
        """The entries of other sources that were joined into a call."""
        with self._snapshot() as (connection, names):
            found = connection.execute(queries()["joined_into"], (call_id,)).fetchall()
            return tuple([decode(connection.execute(_JOINED, row).fetchone(), names) for row in found])

    def state(self, namespace: str, key: str, value: str | msgspec.UnsetType | None = KEEP) -> str | None:
        """Text kept beside the calls. See `Ledger.state`."""
        if not isinstance(value, str) and value is not None:
            with self._reading() as (connection, _):
                return get_state(connection, namespace, key)
        if namespace == "ledger":
            raise InputError("The namespace 'ledger' is the ledger's own.", todo="Choose another one.")
        self._writable()
        with self._transaction() as connection:
            if value is None:
                connection.execute(queries()["drop_state"], (namespace, key))
            else:
                connection.execute(queries()["set_state"], (namespace, key, value))
        return value

    def states(self, namespace: str) -> dict[str, str]:
        """All keys of a namespace with their text, by key."""
        with self._reading() as (connection, _):
            return dict(connection.execute(queries()["all_state"], (namespace,)).fetchall())

    def authorise(self, ask: Ask, *, wait: float = 0.0, ample: bool = False) -> Future[Granted | Refused | Stale]:
        """Sets money aside. See `Ledger.authorise`."""
        return self._queue(AskJob(ask, wait, ahead=ample))

    def extend(self, hold_id: str, output: int) -> Future[int]:
        """Lets a hold cover more. See `Ledger.extend`."""
        return self._queue(Extend(hold_id, output))

    def settle(
        self, entry: Entry, settlement: Settlement, *, durable: bool = False, later: bool = False
    ) -> Future[Receipt]:
        """Enters a call and ends its hold. See `Ledger.settle`."""
        return self._queue(SettleJob(entry, settlement, durable=durable), later=later)

    def release(self, hold_id: str) -> Future[None]:
        """Gives a hold back. See `Ledger.release`."""
        return self._queue(Release(hold_id))

    def resolve(self, hold_id: str, charges: Sequence[Charge] | None) -> None:
        """An operator's word on a suspect hold. See `Ledger.resolve`."""
        with self._holding() as sheet:
            sheet.till.resolve(hold_id, charges)

    def expire(self) -> list[str]:
        """Makes the holds of the dead and the overdue ones suspect. See `Ledger.expire`."""
        with self._holding() as sheet:
            return sheet.sweep()

    def holds(self, state: str | None = None, budget_id: str | None = None) -> list[Hold]:
        """The holds. See `Ledger.holds`."""
        with self._snapshot() as (connection, _):
            return read_holds(connection, state, budget_id)

    def accounts(self, budget_id: str | None = None) -> list[Account]:
        """The accounts. See `Ledger.accounts`."""
        with self._snapshot() as (connection, _):
            return read_accounts(connection, self._rules(connection), budget_id, int(self._clock() * 1_000_000))

    def budgets(self) -> Budgets:
        """The budgets. See `Ledger.budgets`."""
        with self._snapshot() as (connection, _):
            return self._rules(connection).listed()

    def put_budget(self, budget: Budget, seeds: Sequence[Seed] = ()) -> Budgets:
        """Adds or changes a budget. See `Ledger.put_budget`."""
        with self._holding() as sheet:
            budgets = sheet.put_budget(budget, seeds)
        CHANGES.note()
        return budgets

    def drop_budget(self, budget_id: str) -> Budgets:
        """Takes a budget away. See `Ledger.drop_budget`."""
        with self._holding() as sheet:
            budgets = sheet.drop_budget(budget_id)
        CHANGES.note()
        return budgets

    def flush(self) -> None:
        """Returns when everything submitted so far is safe from a power cut."""
        self._group.flush()

    def verify(self) -> list[str]:
        """Recomputes sums and hash chains from the entries; each difference in words. Reads the whole ledger, in its
        state of one instant, while others go on writing."""
        with self._reading():
            connection = connect(self._path, read_only=True, timeout=self._timeout)
        try:
            with contextlib.closing(connection), explained(self._path):
                connection.execute("BEGIN")
                return differences(connection) or account_differences(connection)
        except LedgerCorrupt as error:
            return [error.what]

    def rezone(self, zone: str) -> None:
        """Moves the days and months to another time zone, by adding everything up anew; nobody can write meanwhile.
        Raises InputError for a zone that does not exist."""
        check_zone(zone)
        self._writable()
        with self._transaction() as connection:
            rebuild(connection, zone)

    def close(self) -> None:
        """Writes what is pending and lets go of the file."""
        if self._closed:
            return
        self._closed = True
        self._group.close()
        with self._desk.writing, self._desk.reading:
            self._desk.close()
            self._desk.turn.close()
            self._desk.holds.owner.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _queue(self, task: Task[T], *, later: bool = False) -> Future[T]:
        self._writable()
        self._group.submit(task, later=later)
        return task.future

    @contextlib.contextmanager
    def _holding(self) -> Iterator[HoldsSheet]:
        """A transaction on holds, outside of the queue."""
        self._writable()
        with self._transaction() as connection:
            self._desk.holds.forget()
            try:
                sheet = self._desk.holds.sheet(connection, int(self._clock() * 1_000_000))
                yield sheet
                sheet.write()
                buried = sheet.buried
            finally:
                self._desk.holds.forget()
        for owner in buried:
            self._desk.holds.owner.bury(owner)

    def _rules(self, connection: sqlite3.Connection) -> Rules:
        """The budgets; who asks often pays for a look at their version only."""
        rules = self._desk.rules = read_rules(connection, self._desk.rules)
        return rules

    def _found(self, zone: str) -> None:
        """Makes the tables of a new ledger."""
        if self._read_only:
            raise LedgerUnavailable(f"The ledger {self._path} is empty.", todo="Open it for writing once.")
        with self._transaction() as connection:
            if get_state(connection, "ledger", "zone") is None:
                now_us = int(self._clock() * 1_000_000)
                for key, value in (("zone", zone), ("slot_floor", str(slot_floor(now_us)))):
                    connection.execute(queries()["set_state"], ("ledger", key, value))

    def _writable(self) -> None:
        if self._closed:
            raise closed()
        if self._read_only:
            raise LedgerUnavailable(
                f"The ledger {self._path} was opened read-only.", money="Nothing was entered.", todo="Open it to write."
            )

    def waiting(self) -> bool:
        """Whether asks wait for holds in flight; for the writer."""
        return self._desk.holds.waiting()

    def due(self) -> bool:
        """Whether to look at those that wait: time has passed, or somebody else has written; for the writer."""
        desk = self._desk
        if desk.holds.late():
            return True
        if desk.writer is None or not desk.writing.acquire(blocking=False):
            return False
        try:
            found = None if desk.writer is None else desk.writer.execute("PRAGMA data_version").fetchone()
            return found is None or found[0] != desk.holds.seen
        except sqlite3.DatabaseError:
            # The commit will meet the same fault, and says what it is.
            return True
        finally:
            desk.writing.release()

    def leave(self) -> list[Task[Any]]:
        """Gives up all asks that wait; for the writer."""
        return self._desk.holds.leave(closed())

    def _commit(self, tasks: list[Task[Any]]) -> list[Task[Any]]:
        desk = self._desk
        with desk.writing:
            try:
                connection = self._writer()
                if desk.book is None:
                    desk.book = Book(connection, self._path, desk.holds, self._clock, self._timeout)
                with desk.turn.taken(self._timeout):
                    return desk.book.commit(tasks)
            except LedgerError as error:
                for task in tasks:
                    task.error = error
                return [*tasks, *desk.holds.given_up(error)]

    def _writer(self) -> sqlite3.Connection:
        desk = self._desk
        if desk.writer is None:
            desk.writer = connect(self._path, read_only=False, timeout=self._timeout)
            desk.writer.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            desk.writer.execute("PRAGMA busy_timeout = 0")
        return desk.writer

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._desk.writing, explained(self._path):
            connection = self._writer()
            with self._desk.turn.taken(self._timeout):
                begin(connection, self._timeout)
                try:
                    yield connection
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
        self._group.touched()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[tuple[sqlite3.Connection, Names]]:
        if self._closed:
            raise LedgerUnavailable("The ledger is closed.", todo="Open it again.")
        desk = self._desk
        with desk.reading, explained(self._path):
            if desk.reader is None or desk.names is None:
                desk.reader = connect(self._path, read_only=self._read_only, timeout=self._timeout)
                desk.reader.execute("PRAGMA query_only = ON")
                desk.names = Names(desk.reader)
            yield desk.reader, desk.names

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[tuple[sqlite3.Connection, Names]]:
        with self._reading() as (connection, names):
            connection.execute("BEGIN")
            try:
                yield connection, names
            finally:
                # A disk that fails has SQLite end the transaction by itself.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def _sync(self) -> None:
        """Makes the disk keep all that was committed. In WAL mode that is the -wal file; nobody's commit waits."""
        sync_log(self._path, self._log)

    def _checkpoint(self) -> None:
        """Moves a long log into the file, here rather than in somebody's commit. It is no matter if it cannot."""
        with contextlib.suppress(sqlite3.OperationalError, OSError):
            now = time.monotonic()
            if now < self._checkpoint_at:  # the log's file stays as long as it was when all of it has been moved
                return
            if self._log.stat().st_size < _CHECKPOINT_BYTES or not self._desk.reading.acquire(blocking=False):
                return
            self._checkpoint_at = now + _CHECKPOINT_SECONDS
            try:
                if self._desk.reader is not None:
                    self._desk.reader.execute("PRAGMA wal_checkpoint(PASSIVE)")
            finally:
                self._desk.reading.release()

    def _before_fork(self) -> None:
        # SQLite's locks do not survive a fork, so there must be no open connection during one.
        with contextlib.suppress(LedgerUnavailable):
            self._group.flush()
        self._desk.writing.acquire()
        self._desk.reading.acquire()
        self._desk.close()

    def _after_fork_in_parent(self) -> None:
        self._desk.reading.release()
        self._desk.writing.release()

    def _after_fork_in_child(self) -> None:
        self._desk.turn.close()
        self._desk.holds.owner.forsake()
        self._desk = _Desk(self._path)
        self._group = GroupCommit(self._commit, self._sync, self._checkpoint, self)


def _is_new(connection: sqlite3.Connection) -> bool:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version == 0


_LIVE: Final[weakref.WeakSet[SqliteLedger]] = weakref.WeakSet()


def _close_all() -> None:
    for ledger in list(_LIVE):
        ledger.close()


def _open_ones() -> list[SqliteLedger]:
    return [ledger for ledger in _LIVE if not ledger._closed]  # noqa: SLF001 - of this module


def _before_fork() -> None:
    for ledger in _open_ones():
        ledger._before_fork()  # noqa: SLF001


def _after_fork_in_parent() -> None:
    for ledger in _open_ones():
        ledger._after_fork_in_parent()  # noqa: SLF001


def _after_fork_in_child() -> None:
    for ledger in _open_ones():
        ledger._after_fork_in_child()  # noqa: SLF001


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
