"""A started simulator for each script, a ledger in memory, and a meter that writes into it."""

from contextlib import ExitStack

import pytest

from tallystick.defaults import catalog
from tallystick.ledger.memory import MemoryLedger
from tallystick.metering.meter import Meter
from tallystick.simulator import Simulator


@pytest.fixture
def simulate():
    with ExitStack() as stack:

        def start(script=None, **options):
            return stack.enter_context(Simulator(script, **options))

        yield start


@pytest.fixture
def ledger():
    with MemoryLedger() as held:
        yield held


@pytest.fixture
def meter(ledger):
    made = Meter(ledger, catalog)
    yield made
    made.close()
    assert made.faults.counts == {}
