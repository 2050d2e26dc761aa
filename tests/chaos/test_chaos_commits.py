"""Commits to PostgreSQL whose connection breaks at any byte of what goes to and fro: what was told to be entered is
entered, once; and a doubt about a commit stays until the server has been asked about it."""

from __future__ import annotations

import select
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

import _chaos_desk as desk
from tallystick.core.cost import Cost
from tallystick.core.usage import Usage
from tallystick.errors import LedgerUnavailable
from tallystick.ledger.budget import Budget
from tallystick.ledger.entry import Correction, Entry
from tallystick.ledger.hold import Ask, Charge, Claim, Granted, Settlement
from tallystick.ledger.ledger import Ledger
from tallystick.ledger.postgres import PostgresLedger

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SOCKET = ".s.PGSQL.5432"
CUTS = 24
"""Places at which each kind of commit is cut, in each direction."""


class Way:
    """A way to a server of PostgreSQL that can be cut after so many bytes, `down` to the client or `up` to the server.
    Once cut, `full` of the connections after it are told that there are too many."""

    def __init__(self, folder: Path, target: str) -> None:
        self.seen = {"down": 0, "up": 0}
        self.full = 0
        self._left: tuple[str, int] | None = None
        self._target = target
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(folder / SOCKET))
        self._listening.listen(16)
        self._start(self._accept)

    def cut(self, direction: str | None, after: int = 0) -> None:
        """Cuts the way there; None: not any more."""
        with self._lock:
            self.seen = {"down": 0, "up": 0}
            self._left = None if direction is None else (direction, after)

    def close(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()
        self._listening.close()

    def _start(self, work: Callable[..., None], *more: Any) -> None:
        thread = threading.Thread(target=work, args=more)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._end.is_set():
            if select.select([self._listening], [], [], 0.05)[0]:
                client = self._listening.accept()[0]
                self._start(self._pass_on, client)

    def _pass_on(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        with client, server:
            if self.full and self._left is None:
                self.full -= 1
                client.recv(4096)
                said = b"SFATAL\0VFATAL\0C53300\0Msorry, too many clients already\0\0"
                client.sendall(b"E" + struct.pack("!I", len(said) + 4) + said)
                return
            server.connect(self._target)
            whole = True
            while whole and not self._end.is_set():
                for one in select.select([client, server], [], [], 0.05)[0]:
                    try:
                        whole = self._moved(one, server if one is client else client, "up" if one is client else "down")
                    except OSError:
                        whole = False
                    if not whole:
                        break

    def _moved(self, source: socket.socket, target: socket.socket, direction: str) -> bool:
        data = source.recv(65536)
        cut = False
        with self._lock:
            self.seen[direction] += len(data)
            if self._left is not None and self._left[0] == direction:
                left = self._left[1] - len(data)
                cut = left <= 0
                data = data[: self._left[1]]
                self._left = None if cut else (direction, left)
        target.sendall(data)
        return bool(data) and not cut


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, desk.store("postgres", Path(name)) as (at, _):
        yield at


@pytest.fixture
def way(server: str) -> Iterator[tuple[Way, str]]:
    import psycopg

    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS tallystick CASCADE")
    host = parse_qs(urlsplit(server).query)["host"][0]
    with tempfile.TemporaryDirectory() as folder:
        found = Way(Path(folder), f"{host}/{SOCKET}")
        try:
            yield found, f"postgresql://postgres:@/postgres?host={folder}"
        finally:
            found.close()


class Load:
    """Appends of all kinds; each gives the futures to wait for, and the ids of calls that are entered then."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._number = 0

    def name(self) -> str:
        self._number += 1
        return f"call-{self._number}"

    def call(self, call_id: str, **fields: Any) -> Entry:
        values: dict[str, Any] = {"usage": Usage(input=3), "cost": Cost((), 10), "model": "m", **fields}
        return Entry(call_id=call_id, started_at=NOW, provider="p", **values)

    def held(self) -> str:
        """A call that holds money."""
        claim = Claim(budget_id="b", value="", period="2026-11", base=10, per_output=0)
        name = self.name()
        ask = Ask(
            hold_id=name, claims=(claim,), output=0, least=0, payload="p", version=1, expires_at=NOW + timedelta(900)
        )
        assert isinstance(self._ledger.authorise(ask).result(20), Granted)
        return name

    def settle(self, call_id: str) -> Future[Any]:
        charge = Charge(budget_id="b", value="", period="2026-11", amount=10)
        return self._ledger.settle(self.call(call_id), Settlement(charges=(charge,)), later=True)

    def plain(self) -> tuple[list[Future[Any]], list[str]]:
        names = [self.name() for _ in range(3)]
        return [self._ledger.submit([self.call(name)]) for name in names], names

    def settled(self) -> tuple[list[Future[Any]], list[str]]:
        name = self.held()
        return [self.settle(name)], [name]

    def charged(self) -> tuple[list[Future[Any]], list[str]]:
        one, other = self.name(), self.name()
        return [self.settle(one), self._ledger.submit([self.call(other, model=other)])], [one, other]

    def careful(self) -> tuple[list[Future[Any]], list[str]]:
        name, other = self.name(), self.name()
        items = [
            self.call("base"),
            self.call(name),
            Correction(correction_id=name, corrects="base", recorded_at=NOW, reason="r", fields={"owed": False}),
        ]
        return [self._ledger.submit(items), self.settle(other)], [name, other]


@pytest.mark.parametrize("kind", ["plain", "settled", "charged", "careful"])
def test_what_was_told_is_entered_once_wherever_the_connection_breaks(server, way, kind):
    between, url = way
    told: list[str] = []
    with PostgresLedger(url, timeout=10) as ledger:
        ledger.put_budget(Budget(budget_id="b", limit=10**12))
        load = Load(ledger)
        ledger.append([load.call("base")])

        def once() -> dict[str, int]:
            futures, names = getattr(load, kind)()
            for future in futures:
                future.result(30)
            told.extend(names)
            return dict(between.seen)

        once()
        between.cut(None)
        sizes = once()
        for direction in ("down", "up"):
            for number in range(CUTS):
                between.cut(direction, sizes[direction] * number // (CUTS - 1))
                once()
                between.cut(None)
    with PostgresLedger(server) as ledger:
        assert sorted(one.call_id for one in ledger.read()) == sorted({*told, "base"})
        assert {hold.state for hold in ledger.holds()} <= {"settled"}
        assert ledger.verify() == []


def test_a_doubt_about_a_commit_outlives_a_server_that_has_no_room(server, way):
    between, url = way
    with PostgresLedger(url, timeout=5) as ledger:
        load = Load(ledger)
        ledger.append([load.call("base")])
        # The server commits, its answer is lost, and the way back is barred for a while.
        between.full = 1
        between.cut("down", 0)
        with pytest.raises(LedgerUnavailable, match="not known"):
            ledger.append([load.call("doubtful")])
        assert ledger.append([load.call("later")]).written == 1
        assert ledger.append([load.call("doubtful")]).known == 1
    with PostgresLedger(server) as ledger:
        assert {one.call_id for one in ledger.read()} == {"base", "doubtful", "later"}
        assert ledger.verify() == []
