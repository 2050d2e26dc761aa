"""A dashboard over a ledger of real entries, and a browser that asks it."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from dashboard_desk import Browser, filled

from tallystick.dashboard.app import Dashboard
from tallystick.defaults import catalog
from tallystick.ledger.memory import MemoryLedger


@pytest.fixture
def browse():
    """Gives a browser of a dashboard over these entries; `options` are the dashboard's."""

    def start(entries=(), ledger=None, **options):
        place = filled(ledger or MemoryLedger(), entries)
        return Browser(Dashboard(place, catalog, **options))

    return start
