"""A ledger with calls in it, and the gateway's own rooms served from it on a real socket."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from apidesk import Served, filled

from tallystick.ledger.sqlite import SqliteLedger


@pytest.fixture
def ledger(tmp_path):
    with SqliteLedger(tmp_path / "ledger.db", zone="UTC") as held:
        filled(held)
        yield held


@pytest.fixture
def served(ledger, tmp_path):
    with Served(ledger, tmp_path / "ledger.db.flight") as running:
        yield running
