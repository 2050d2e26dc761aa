"""Ledgers of both kinds, and rates of our own."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from report_samples import RATES

from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.sqlite import SqliteLedger


@pytest.fixture(params=["memory", "sqlite"])
def make(request, tmp_path):
    """Makes a ledger of either kind, filled with entries."""
    made = []

    def make_one(*entries, zone="UTC"):
        if request.param == "memory":
            ledger = MemoryLedger(zone)
        else:
            ledger = SqliteLedger(tmp_path / f"ledger-{len(made)}.db", zone=zone)
        made.append(ledger)
        if entries:
            ledger.append(list(entries))
        return ledger

    yield make_one
    for ledger in made:
        ledger.close()


@pytest.fixture
def rates(monkeypatch, tmp_path):
    """A configuration with the rates of our own."""
    path = tmp_path / "tally.toml"
    path.write_text(RATES)
    monkeypatch.setenv("TALLY_CONFIG", str(path))
    return path
