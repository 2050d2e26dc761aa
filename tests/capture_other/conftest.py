"""Simulators and a ledger for each test, ended with it."""

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tallystick.ledger.memory import MemoryLedger
from tallystick.simulator import Simulator


@pytest.fixture
def simulate():
    with ExitStack() as stack:

        def start(script=None, **options):
            return stack.enter_context(Simulator(script, **options))

        yield start


@pytest.fixture
def twins(simulate):
    """Two providers that say the same, ids and all: one for the caller who is metered, one for the one who is not."""

    def start(script=None, **options):
        return [simulate(script, series="twins000", **options) for _ in range(2)]

    return start


@pytest.fixture
def ledger():
    with MemoryLedger() as held:
        yield held
