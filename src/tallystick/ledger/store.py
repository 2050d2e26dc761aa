"""Store: opening the ledger's file, and saying in words what is wrong with it."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Final, TypeVar

from tallystick.errors import LedgerCorrupt, LedgerError, LedgerUnavailable
from tallystick.ledger.sql import VERSION, migrations, queries

APPLICATION_ID: Final = 0x54414C59
"""`TALY`, in the head of the file: it says whose SQLite file this is."""

_T = TypeVar("_T")
_OLDEST_SQLITE: Final = (3, 37, 0)
_FIRST_PAUSE: Final = 0.0002
_LONGEST_PAUSE: Final = 0.005
_CORRUPT: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_BUSY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_WORDS: Final = {
    sqlite3.SQLITE_READONLY: ("is read-only", "Give yourself the right to write it and its folder."),
    sqlite3.SQLITE_PERM: ("may not be opened", "Give yourself the right to read and write it and its folder."),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", "Check that its folder exists and may be written."),
    sqlite3.SQLITE_FULL: ("cannot grow, the disk is full", "Make room and try again."),
    sqlite3.SQLITE_IOERR: ("cannot be read or written, the disk failed", "Check the disk and its free space."),
    sqlite3.SQLITE_NOLFS: ("has reached the largest size its disk allows", "Move it to another disk."),
}
_TOGETHER: Final = (64, 32, 16, 8, 4, 2, 1)
_INSERT: Final = re.compile(r"INSERT INTO (.*?)VALUES (\([?, ]+\))", re.DOTALL)
_NOT_WRITTEN: Final = "Nothing of this was entered; what was there before is intact."


def create(path: Path) -> None:
    """Makes the folder (0700) and an empty file (0600) where there are none. Raises LedgerUnavailable.

    A file that is there is left alone: POSIX drops all locks a process has on a file when any descriptor of it is
    closed, SQLite's among them, and whoever exits next would take the ledger for unused.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise disk_trouble(path, error) from None


def connect(path: Path, *, read_only: bool, timeout: float) -> sqlite3.Connection:
    """An open connection to a ledger's file, which is made or brought up to date if need be; at most `timeout` seconds
    are waited for a lock. A read-only one changes nothing. Raises LedgerUnavailable or LedgerCorrupt."""
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise LedgerUnavailable(
            f"This Python has SQLite {sqlite3.sqlite_version}; the ledger needs 3.37 or newer.", todo="Update Python."
        )
    if not path.exists():
        raise LedgerUnavailable(
            f"There is no ledger at {path}.", todo="The first call that is recorded makes it; or name another path."
        )
    mode = "ro" if read_only else "rw"
    with explained(path):
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False, timeout=0
        )
    try:
        with explained(path):
            _prepare(connection, path, read_only=read_only, timeout=timeout)
    except LedgerError:
        connection.close()
        raise
    return connection


def begin(connection: sqlite3.Connection, timeout: float, pause: Callable[[float], None] = time.sleep) -> None:
    """Begins a transaction that writes, waiting up to `timeout` seconds for whoever else writes. SQLite's own waiting
    sleeps longer and longer, so that of many processes some starve; this does not."""
    _patiently(lambda: connection.execute("BEGIN IMMEDIATE"), timeout, pause)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns the faults of SQLite and the disk into errors that say what happened and what to do."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _trouble(path, error) from error
    except OSError as error:
        raise disk_trouble(path, error) from error


def disk_trouble(path: Path, error: OSError) -> LedgerUnavailable:
    """The error for a fault of the file system."""
    return LedgerUnavailable(
        f"The ledger {path} cannot be used: {error.strerror or error}.",
        money=_NOT_WRITTEN,
        todo="Check the path, its rights and the free space.",
    )


def _trouble(path: Path, error: sqlite3.DatabaseError) -> LedgerError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _BUSY:
        return LedgerUnavailable(
            f"The ledger {path} is locked: another program has been writing it for too long.",
            money=_NOT_WRITTEN,
            todo="Try again, or end that program.",
        )
    if code in _CORRUPT:
        return LedgerCorrupt(
            f"The ledger {path} is damaged or not a ledger: {error}.",
            money="Nothing of this was entered, and its totals cannot be trusted.",
            todo="Restore it from a backup, or move it away to begin a new one.",
        )
    if code in _WORDS:
        what, todo = _WORDS[code]
        return LedgerUnavailable(f"The ledger {path} {what}: {error}.", money=_NOT_WRITTEN, todo=todo)
    if code == sqlite3.SQLITE_CONSTRAINT:
        # The tables are STRICT: where a sum leaves 64 bits SQLite would go on inexactly, and is stopped.
        return LedgerError(
            f"A sum in the ledger {path} would pass what it can count: {error}.",
            money=_NOT_WRITTEN,
            todo="Check the usage of these calls.",
        )
    return LedgerError(f"The ledger {path} failed: {error}.", money=_NOT_WRITTEN, todo="Please report this.")


def _prepare(connection: sqlite3.Connection, path: Path, *, read_only: bool, timeout: float) -> None:
    connection.execute("PRAGMA trusted_schema = OFF")
    owner, empty, version = _patiently(lambda: _head(connection), timeout)
    if owner != APPLICATION_ID and not (empty and owner == 0):
        raise _foreign(path, "belongs to another program")
    if version > VERSION:
        raise LedgerUnavailable(
            f"The ledger {path} was written by a newer tallystick.", money=_NOT_WRITTEN, todo="Update tallystick."
        )
    # Readers meet a lock only for moments, while another process opens or leaves; SQLite's own waiting is enough there.
    connection.execute(f"PRAGMA busy_timeout = {int(timeout * 1000)}")
    if read_only:
        if empty:
            raise LedgerUnavailable(f"The ledger {path} is empty.", todo="Open it for writing once.")
        connection.execute("PRAGMA query_only = ON")
        return
    if empty:
        _patiently(lambda: connection.execute("PRAGMA journal_mode = WAL"), timeout)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA cache_size = -16000")
    if version < VERSION:
        _migrate(connection, timeout)


def _head(connection: sqlite3.Connection) -> tuple[int, bool, int]:
    """Whose file it is, whether it has no tables, and the version of its schema: all of one instant, as another
    process may just be making it."""
    connection.execute("BEGIN")
    try:
        empty = not _pragma(connection, "schema_version")
        return _pragma(connection, "application_id"), empty, _pragma(connection, "user_version")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _migrate(connection: sqlite3.Connection, timeout: float) -> None:
    begin(connection, timeout)
    try:
        # Another process may have been faster; now that we hold the lock the answer stays true.
        for number, statements in enumerate(migrations(found := _pragma(connection, "user_version")), found + 1):
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def write_rows(connection: sqlite3.Connection, statement: str, rows: Sequence[Sequence[object]]) -> None:
    """Executes an INSERT of one row for all these rows, many at a time: Python lets other threads run during each step,
    and a crowd of them would do so between any two rows. Where one of them fails some stand: the caller has to roll
    back."""
    done = 0
    for size in _TOGETHER:
        while len(rows) - done >= size:
            values = list(chain.from_iterable(rows[done : done + size]))
            connection.execute(_for_rows(statement, size), values)
            done += size


@cache
def _for_rows(statement: str, count: int) -> str:
    # To undo a part of many rows SQLite would first copy every page that they touch, which takes as long as the rows.
    return _INSERT.sub(lambda found: f"INSERT OR FAIL INTO {found[1]}VALUES {', '.join([found[2]] * count)}", statement)


def get_state(connection: sqlite3.Connection, namespace: str, key: str) -> str | None:
    """The text of a key in the table of state."""
    row = connection.execute(queries()["get_state"], (namespace, key)).fetchone()
    return None if row is None else row[0]


def _patiently(attempt: Callable[[], _T], timeout: float, pause: Callable[[float], None] = time.sleep) -> _T:
    waited, step = 0.0, _FIRST_PAUSE
    while True:
        try:
            return attempt()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _BUSY or waited >= timeout:
                raise
        pause(step)
        waited += step
        step = min(step * 2, _LONGEST_PAUSE)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _foreign(path: Path, why: str) -> LedgerCorrupt:
    return LedgerCorrupt(
        f"The file {path} {why}; it is not a ledger.",
        money="Nothing was entered.",
        todo="Choose another path for the ledger.",
    )
