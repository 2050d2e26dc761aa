"""A started simulator for each script, ended with the test."""

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tallystick.simulator import Simulator


@pytest.fixture
def simulate():
    with ExitStack() as stack:

        def start(script=None, **options):
            return stack.enter_context(Simulator(script, **options))

        yield start
