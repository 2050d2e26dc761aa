"""Two rows of `make bench-budgets`: a hundred calls at once on a budget of ten."""

from dataclasses import replace

import pytest

import budgets
from _budget_load import LIMIT, Truth, usual
from tallystick.simulator import Simulator


@pytest.mark.parametrize("name", ["four", "early"])
def test_a_budget_is_never_overspent(tmp_path, name):
    # How many of the ten get their turn in time is for the benchmark to say; a busy machine may miss some.
    load, truth = replace(budgets.LOADS[name], exact=False), Truth()
    with Simulator(usual, heard=truth.hear, keep=0, typed=False) as simulator:
        row = budgets.measure(load, str(tmp_path / "ledger.db"), simulator, truth)
    assert list(budgets.broken(load, row)) == []
    assert 0 < row.spent <= LIMIT
    assert 0 < row.admitted <= 10
    assert row.refused > 0
