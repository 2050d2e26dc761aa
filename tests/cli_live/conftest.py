"""A home for each test, and a simulated provider."""

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tallystick.simulator import Simulator


@pytest.fixture
def home(tmp_path):
    place = tmp_path / "home"
    place.mkdir()
    return place


@pytest.fixture
def simulate():
    with ExitStack() as stack:

        def start(script=None):
            return stack.enter_context(Simulator(script, typed=False))

        yield start
