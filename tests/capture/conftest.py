"""Fixtures of the logs' tests; what they stand on is in logdesk.py."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
for folder in (HERE, HERE.parents[1] / "benchmarks"):
    sys.path.insert(0, str(folder))

from logdesk import Desk  # noqa: E402 - it lies beside this file


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path / "home")


@pytest.fixture
def new_desk(tmp_path_factory):
    return lambda home=None: Desk(home or tmp_path_factory.mktemp("home"))
