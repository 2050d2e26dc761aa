"""Both ledgers, for every test of the contract."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from ledger_samples import Clock

from tallystick.ledger.ledger import Ledger
from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.sqlite import SqliteLedger


@pytest.fixture(params=["memory", "sqlite", "sqlite, folded at once"])
def make(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ledger]:
    """Makes a ledger of either kind."""
    if request.param == "sqlite, folded at once":
        monkeypatch.setattr("tallystick.ledger.book.FOLD_CALLS", 1)

    def make_one(zone: str = "UTC") -> Ledger:
        if request.param == "memory":
            return MemoryLedger(zone, Clock())
        return SqliteLedger(tmp_path / "ledger.db", zone=zone, clock=Clock())

    return make_one


@pytest.fixture
def ledger(make: Callable[..., Ledger]) -> Iterator[Ledger]:
    with make() as one:
        yield one
        assert one.verify() == []


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "ledger.db"
