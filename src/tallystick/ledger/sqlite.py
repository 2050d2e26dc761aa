"""SqliteLedger: the ledger in one file, for any number of threads and processes on one machine."""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from tallystick.core.periods import Period
from tallystick.core.periods import zone as check_zone
from tallystick.errors import InputError, LedgerCorrupt, LedgerError, LedgerUnavailable
from tallystick.ledger.answers import Question, answer
from tallystick.ledger.audit import differences, rebuild
from tallystick.ledger.book import Book, read_corrections
from tallystick.ledger.entry import Correction, Entry
from tallystick.ledger.ledger import EVERYTHING, KEEP, Item, Receipt
from tallystick.ledger.query import Query, Total, Totals, grouping
from tallystick.ledger.reading import entries
from tallystick.ledger.rollups import slot_floor
from tallystick.ledger.rows import decode
from tallystick.ledger.sql import queries
from tallystick.ledger.store import begin, connect, create, explained, get_state
from tallystick.ledger.words import Names
from tallystick.ledger.writer import GroupCommit, Job

DEFAULT_TIMEOUT: Final = 5.0
"""So many seconds an append waits for another process to finish writing."""

_CHECKPOINT_BYTES: Final = 8_000_000
_CHECKPOINT_PAGES: Final = 16_000
_JOINED: Final = "SELECT call_id, started_us, recorded_us, run, body FROM entry WHERE call_id = ?"


class _Desk:
    """The connections of one process, and who may use them. A forked child gets a new one."""

    def __init__(self) -> None:
        self.writing = threading.RLock()
        self.reading = threading.RLock()
        self.writer: sqlite3.Connection | None = None
        self.reader: sqlite3.Connection | None = None
        self.names: Names | None = None
        self.book: Book | None = None

    def close(self) -> None:
        for connection in (self.reader, self.writer):
            if connection is not None:
                connection.close()
        self.reader = self.writer = self.names = self.book = None


class SqliteLedger:
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
        self._clock = clock
        self._timeout = timeout
        self._read_only = read_only
        self._closed = False
        self._desk = _Desk()
        self._group = GroupCommit(self._commit, self._sync, self._checkpoint)
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
        self._writable()
        job = Job(tuple(items), durable=durable)
        self._group.submit(job)
        return job.future

    def read(self, query: Query = EVERYTHING) -> Iterator[Entry]:
        """The calls that fit. See `Ledger.read`."""
        return entries(self._reading, query)

    def total(self, query: Query = EVERYTHING, by: Sequence[str] = (), per: Period | None = None) -> list[Total]:
        """Sums over the calls that fit. See `Ledger.total`."""
        names_by = grouping(tuple(by), query)
        totals = Totals(names_by, per)
        with self._snapshot() as (connection, names):
            zone = get_state(connection, "ledger", "zone") or "UTC"
            known = answer(connection, names, Question.of(query, names_by, per, zone), totals)
        if not known:
            totals = Totals(names_by, per)
            for entry in self.read(query):
                totals.add_entry(entry)
        return totals.rows()

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
                return differences(connection)
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
            raise LedgerUnavailable("The ledger is closed.", money="Nothing was entered.", todo="Open it again.")
        if self._read_only:
            raise LedgerUnavailable(
                f"The ledger {self._path} was opened read-only.", money="Nothing was entered.", todo="Open it to write."
            )

    def _commit(self, jobs: list[Job]) -> None:
        desk = self._desk
        with desk.writing:
            try:
                connection = self._writer()
            except LedgerError as error:
                for job in jobs:
                    job.error = error
                return
            if desk.book is None:
                writer_id = secrets.token_hex(8)
                desk.book = Book(connection, self._path, writer_id, self._clock, self._timeout)
            desk.book.commit(jobs)

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
        wal = self._path.with_name(self._path.name + "-wal")
        try:
            file = os.open(wal, os.O_RDWR)
        except FileNotFoundError:
            return  # the last connection has gone, and has synced everything into the file itself
        except OSError as error:
            raise _unsynced(self._path, error) from error
        try:
            _datasync(file)
        except OSError as error:
            raise _unsynced(self._path, error) from error
        finally:
            os.close(file)

    def _checkpoint(self) -> None:
        """Moves a long log into the file, here rather than in somebody's commit. It is no matter if it cannot."""
        with contextlib.suppress(sqlite3.OperationalError, OSError):
            wal = self._path.with_name(self._path.name + "-wal")
            if wal.stat().st_size < _CHECKPOINT_BYTES or not self._desk.reading.acquire(blocking=False):
                return
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
        self._desk = _Desk()
        self._group = GroupCommit(self._commit, self._sync, self._checkpoint)


def _is_new(connection: sqlite3.Connection) -> bool:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version == 0


def _unsynced(path: Path, error: OSError) -> LedgerUnavailable:
    return LedgerUnavailable(
        f"The disk did not keep what was written to the ledger {path}: {error.strerror or error}.",
        money="The last entries may be lost in a power cut.",
        todo="Check the disk and its free space, then open the ledger again.",
    )


_datasync: Final = getattr(os, "fdatasync", os.fsync)
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
