"""Pool: the few connections that a process reads with, lent to one thread at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Final

import psycopg

from tallystick.errors import LedgerUnavailable
from tallystick.ledger.postgres_link import Connection, Link, stale
from tallystick.ledger.postgres_words import PostgresNames

SIZE: Final = 4
"""At most this many connections; a thread that wants another waits."""


class Pool:
    """Connections to one database, made when they are wanted and kept."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._free = threading.BoundedSemaphore(SIZE)
        self._lock = threading.Lock()
        self._idle: list[tuple[Connection, PostgresNames]] = []
        self._closed = False

    @contextlib.contextmanager
    def lend(self) -> Iterator[tuple[Connection, PostgresNames]]:
        """A connection in autocommit, with what it has learned. Raises LedgerUnavailable."""
        with self._free:
            pair = self._take()
            try:
                with self._link.explained():
                    yield pair
            finally:
                self._give_back(pair)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[tuple[Connection, PostgresNames]]:
        """Like `lend`, with everything seen in its state of one instant."""
        with self.lend() as (connection, names):
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                yield connection, names
            finally:
                rolled_back(connection)

    def close(self) -> None:
        """Closes what is idle, now and later."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    def _take(self) -> tuple[Connection, PostgresNames]:
        while True:
            with self._lock:
                if self._closed:
                    raise LedgerUnavailable("The ledger is closed.", todo="Open it again.")
                pair = self._idle.pop() if self._idle else None
            if pair is None:
                connection = self._link.connect()
                return connection, PostgresNames(connection)
            if not stale(pair[0]):
                return pair
            pair[0].close()

    def _give_back(self, pair: tuple[Connection, PostgresNames]) -> None:
        with self._lock:
            if not self._closed and not pair[0].closed:
                self._idle.append(pair)
                return
        pair[0].close()


def rolled_back(connection: Connection) -> None:
    """Ends a transaction without its changes, unless the connection is gone, which ends it too."""
    if not connection.closed:
        with contextlib.suppress(psycopg.Error):
            connection.rollback()
