"""Heart: shows the other machines that a process lives, and hears when one of them has given something back."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Iterable
from typing import Final

import psycopg

from tallystick.errors import TallyError
from tallystick.ledger.postgres_link import Connection, Link, query

BEAT: Final = 2.0
"""Seconds between two signs of life."""

DEAD_AFTER: Final = 15.0
"""An owner that has not been seen for so many seconds, by the server's clock, counts as dead."""


class Heart:
    """A thread with a connection of its own, from `start` to `stop`. `woken` is set when another process has changed
    what somebody may wait for; `listening` tells whether that would be heard."""

    def __init__(self, link: Link, owner_id: str) -> None:
        self._link = link
        self._owner_id = owner_id
        self.woken = False
        self.listening = False
        self._thread: threading.Thread | None = None
        self._ours: socket.socket | None = None

    @property
    def beating(self) -> bool:
        """Whether it has been started."""
        return self._thread is not None

    def start(self) -> None:
        """Begins, unless it has begun already."""
        if self._thread is None:
            self._ours, theirs = socket.socketpair()
            self._thread = threading.Thread(target=self._run, args=(theirs,), name="tallystick-heart", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends, and lets go of the connection."""
        if self._thread is not None and self._ours is not None:
            self._ours.close()
            self._thread.join()
            self._thread = self._ours = None

    def _run(self, end: socket.socket) -> None:
        with end:
            ended = False
            while not ended:
                with contextlib.suppress(TallyError):
                    ended = self._live(end)
                self.listening = False
                # The server is away, or has sent us away; it may be back soon.
                ended = ended or bool(_readable((end,), 1.0))

    def _live(self, end: socket.socket) -> bool:
        """Beats and listens on one connection; True at the end, False or an error when the connection is gone."""
        with contextlib.closing(self._link.connect()) as connection, self._link.explained():
            # A sign of life that a power cut undoes was of no use anyhow.
            connection.execute("SET synchronous_commit TO off")
            connection.add_notify_handler(self._wake)
            connection.execute(query("listen"))
            self.woken = self.listening = True
            while True:
                connection.execute(query("beat"), (self._owner_id,))
                due = time.monotonic() + BEAT
                while (left := due - time.monotonic()) > 0:
                    if end in _readable((end, connection), left):
                        return True
                    self._hear(connection)

    def _hear(self, connection: Connection) -> None:
        pgconn = connection.pgconn
        pgconn.consume_input()
        while pgconn.notifies():
            self._wake()
        if pgconn.status != psycopg.pq.ConnStatus.OK:
            raise psycopg.OperationalError("the connection is gone")

    def _wake(self, _: psycopg.Notify | None = None) -> None:
        self.woken = True


def _readable(ends: Iterable[socket.socket | Connection], seconds: float) -> list[object]:
    """Those from which something can be read within so many seconds."""
    with selectors.DefaultSelector() as watch:
        for end in ends:
            watch.register(end, selectors.EVENT_READ)
        return [key.fileobj for key, _ in watch.select(seconds)]
