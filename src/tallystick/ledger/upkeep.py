"""Upkeep: a ledger's file copied while in use, put back from a copy, made small, and told in figures."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from tallystick.errors import InputError, LedgerCorrupt, LedgerUnavailable
from tallystick.ledger.entry import rfc3339
from tallystick.ledger.rows import from_us
from tallystick.ledger.sqlite import SqliteLedger
from tallystick.ledger.store import connect, create, explained, get_state

WAIT: Final = 5.0
"""So many seconds a lock of another program is waited for."""

_COUNTS: Final = {
    "calls": "SELECT count(*) FROM entry WHERE joined_us IS NULL",
    "joined": "SELECT count(*) FROM entry WHERE joined_us IS NOT NULL",
    "corrections": "SELECT count(*) FROM correction",
    "batches": "SELECT count(*) FROM batch",
    "writers": "SELECT count(DISTINCT writer_id) FROM batch",
}


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """A ledger's file in figures. `size` is the bytes of all its parts; `joined` are sightings by other sources that
    became attributes of a call; `first` and `last` are the starts of the oldest and the newest call."""

    path: str
    size: int
    zone: str
    schema: int
    calls: int
    joined: int
    corrections: int
    batches: int
    writers: int
    first: datetime | None
    last: datetime | None

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON values."""
        row: dict[str, Any] = {name: getattr(self, name) for name in self.__struct_fields__}
        for name in ("first", "last"):
            row[name] = None if row[name] is None else rfc3339(row[name])
        return row


def facts(path: Path) -> Facts:
    """The figures of a ledger's file. Raises LedgerError."""
    with _reading(path) as connection:
        counts = {name: connection.execute(query).fetchone()[0] for name, query in _COUNTS.items()}
        ends = connection.execute("SELECT min(started_us), max(started_us) FROM entry").fetchone()
        first, last = (None if instant is None else from_us(instant) for instant in ends)
        zone = get_state(connection, "ledger", "zone") or "UTC"
        schema = connection.execute("PRAGMA user_version").fetchone()[0]
    return Facts(path=str(path), size=size_of(path), zone=zone, schema=schema, first=first, last=last, **counts)


def size_of(path: Path) -> int:
    """The bytes of a ledger's file and of the log beside it; 0 where there is none."""
    total = 0
    for part in (path, _beside(path, "-wal")):
        with contextlib.suppress(FileNotFoundError):
            total += part.stat().st_size
    return total


def verify_file(path: Path) -> list[str]:
    """What in a ledger's file does not agree with its entries, in words. Changes nothing. Raises LedgerError."""
    with SqliteLedger(path, read_only=True) as ledger:
        return ledger.verify()


def backup(path: Path, target: Path) -> int:
    """Copies a ledger, in its state of one instant, while others go on writing to it; the copy appears when it is whole
    and safe from a power cut. Returns the number of its calls. Raises LedgerError, InputError for a target that is the
    ledger itself."""
    if _same(path, target):
        raise InputError(f"{target} is the ledger itself.", todo="Name another file for the copy.")
    create(part := _beside(target, ".part"))
    try:
        with _reading(path) as source, explained(part), contextlib.closing(sqlite3.connect(part)) as copy:
            # In one step: in several it would begin anew whenever somebody writes.
            source.backup(copy)
            number: int = copy.execute(_COUNTS["calls"]).fetchone()[0]
        _synced(part)
        with explained(target):
            part.replace(target)
            _synced(target.parent)
    finally:
        for rest in (part, _beside(part, "-wal"), _beside(part, "-shm")):
            rest.unlink(missing_ok=True)
    return number


def restore(copy: Path, path: Path, *, now: datetime) -> Path | None:
    """Puts a copy in the place of the ledger at `path`. The copy is verified first, and the ledger that stood there is
    kept beside it under a name with the time; returns that name. Raises LedgerCorrupt for a copy that does not agree
    with itself, LedgerUnavailable while another program has the ledger open; then nothing has changed."""
    if _same(copy, path):
        raise InputError(f"{copy} is the ledger itself.", todo="Name the copy that is to be put in its place.")
    wrong = verify_file(copy)
    if wrong:
        raise LedgerCorrupt(
            f"The copy {copy} does not agree with itself: {wrong[0]}",
            money="Its totals cannot be trusted, so it was not put in place.",
            todo=f"Look at all of it: TALLY_LEDGER={copy} tally ledger verify",
        )
    kept: Path | None = None
    fresh = _beside(path, ".restored")
    backup(copy, fresh)
    try:
        if path.exists() and path.stat().st_size:
            _alone(path)
            kept = _free_name(path, now)
            with explained(path):
                path.replace(kept)
                # A log left beside a damaged file would be taken for the new one's.
                _beside(path, "-shm").unlink(missing_ok=True)
                log = _beside(path, "-wal")
                if log.exists() and log.stat().st_size:
                    log.replace(_beside(kept, "-wal"))
                log.unlink(missing_ok=True)
        with explained(path):
            fresh.replace(path)
            _synced(path.parent)
    finally:
        fresh.unlink(missing_ok=True)
    return kept


def compact(path: Path) -> tuple[int, int]:
    """Rewrites the file without gaps, empties the log beside it and refreshes what the planner knows; the sizes in
    bytes before and after. Others may read meanwhile, writers wait. Needs free space for a second copy. No call, sum or
    correction changes. Raises LedgerError."""
    before = size_of(path)
    with explained(path), contextlib.closing(connect(path, read_only=False, timeout=WAIT)) as connection:
        connection.execute(f"PRAGMA busy_timeout = {int(WAIT * 1000)}")
        connection.execute("VACUUM")
        connection.execute("PRAGMA optimize")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return before, size_of(path)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    connection = connect(path, read_only=True, timeout=WAIT)
    with contextlib.closing(connection), explained(path):
        connection.execute("BEGIN")
        yield connection
        connection.execute("ROLLBACK")


def _alone(path: Path) -> None:
    """Makes sure that nobody else has the file open, and that all of it is in one file. Raises LedgerUnavailable."""
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=0)
    with contextlib.closing(connection):
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.OperationalError:
            raise LedgerUnavailable(
                f"The ledger {path} is in use by another program.",
                money="It was not replaced: what that program writes would be lost.",
                todo="End it (the gateway, the dashboard, your application), then restore again.",
            ) from None
        except sqlite3.DatabaseError:
            # A damaged file is what a restore is for: it is kept aside as it is.
            return


def _free_name(path: Path, now: datetime) -> Path:
    name = _beside(path, f".replaced-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}")
    number = 1
    while name.exists():
        number += 1
        name = _beside(path, f".replaced-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{number}")
    return name


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _synced(path: Path) -> None:
    with explained(path):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
