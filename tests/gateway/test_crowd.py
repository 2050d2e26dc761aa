"""A budget that a crowd wants through the gateway: two workers, and both kinds of ledger. The table is in
`make bench-budgets`."""

import tempfile
from dataclasses import replace
from pathlib import Path

import gateway_benchmarks  # noqa: F401 - the scripts below are found by it
import pytest

import budgets
import gateway_budgets
from _budget_load import LIMIT, Truth, usual
from tallystick.simulator import Simulator


@pytest.fixture
def place(request, tmp_path):
    if request.param == "sqlite":
        yield str(tmp_path / "ledger.db")
        return
    # The folders of pytest are closed to the user that the database runs as.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, budgets.database(Path(name)) as url:
        yield url


@pytest.mark.parametrize(
    ("name", "place"), [("one", "postgres"), ("early", "sqlite"), ("killed", "sqlite")], indirect=["place"]
)
def test_a_crowd_never_spends_more_than_the_budget(place, name, tmp_path, monkeypatch):
    monkeypatch.setattr(gateway_budgets, "CALLS", 40)
    # How many of the ten get their turn in time is for the benchmark to say; a busy machine may miss some.
    load, truth = replace(gateway_budgets.named(name), exact=False), Truth()
    with Simulator(usual, heard=truth.hear, keep=0, typed=False) as simulator:
        row = gateway_budgets.measure(load, place, simulator.openai_url, truth, tmp_path, workers=2)
    assert list(budgets.broken(load, row)) == []
    assert 0 < row.spent <= LIMIT
    assert 0 < row.admitted <= 10
    assert row.refused > 0
