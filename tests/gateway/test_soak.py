"""Some seconds of `make soak`: clients that leave, a provider that fails; every call is in the ledger once."""

import gateway_benchmarks  # noqa: F401 - the script below is found by it

import soak


def test_a_soak_leaks_no_descriptor_and_loses_no_call(tmp_path):
    found = soak.soak(tmp_path, str(tmp_path / "ledger.db"), seconds=10, rate=30, workers=1)
    assert found.wrong == []
    assert found.calls > 50
    kinds = {row[0]: int(row[1]) for row in found.rows}
    assert kinds["left"] > 0
    assert sum(kinds.get(kind, 0) for kind in ("error", "reset", "half", "slow")) > 0
