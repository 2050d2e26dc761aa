"""A started gateway before a simulated provider."""

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from gateway_desk import NAMES, started

from tallystick.ledger.memory import MemoryLedger
from tallystick.simulator import Simulator


@pytest.fixture
def stack():
    with ExitStack() as held:
        yield held


@pytest.fixture
def simulate(stack):
    def start(script=None, **options):
        return stack.enter_context(Simulator(script, **options))

    return start


@pytest.fixture
def gateway(stack):
    """Starts a gateway before a simulator."""

    def start(sim, **options):
        upstreams = {name: getattr(sim, attribute) for name, attribute in NAMES.items()}
        return stack.enter_context(started(MemoryLedger(), {**upstreams, **options.pop("upstreams", {})}, **options))

    return start
