"""Short rounds of `make chaos` through the gateway: workers that are killed under load, a database that crashes. What a
client has got whole is in the ledger, once, or its money is held."""

import os
import signal
import tempfile
from pathlib import Path

import pytest

import _chaos_desk as desk
import _chaos_gateway as gateways
from tallystick.simulator import Simulator

SECONDS = 1.5


@pytest.fixture(scope="module")
def stand():
    known = os.environ.get("PYTHONPATH")
    desk.prepare()
    truth = desk.Truth()
    with Simulator(desk.answers, heard=truth.hear, keep=0, typed=False) as simulator:
        yield simulator.openai_url, truth
    if known is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = known


@pytest.mark.parametrize(("kind", "trouble"), [("sqlite", "kill"), ("postgres", "crash")])
def test_killed_workers_lose_nothing_and_count_nothing_twice(stand, kind, trouble):
    url, truth = stand
    # The folders of pytest are closed to the user that the database runs as.
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name,
        desk.store(kind, Path(name)) as (place, again),
    ):
        crash = (lambda: again(signal.SIGQUIT)) if trouble == "crash" else None
        plot = gateways.Plot(place, Path(name), trouble, 11, SECONDS, crash, workers=2)
        found = gateways.run_round(plot, {"openai": url}, truth)
    assert (found.missing, found.doubled, found.wrong) == (0, 0, [])
    assert found.finished > 0
    assert found.killed > 0
    assert found.entries + found.held >= found.finished
