"""What every test stands on: its own ledger and configuration, and the same random choices on every run."""

import os

import pytest
from hypothesis import Phase, settings

settings.register_profile("suite", derandomize=True, deadline=None, max_examples=150)
# A fault only has to be noticed, not explained: no time goes into finding the smallest example.
QUICK = (Phase.explicit, Phase.generate)
settings.register_profile("mutants", derandomize=True, deadline=None, max_examples=40, database=None, phases=QUICK)
settings.register_profile("explore", deadline=None, max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


@pytest.fixture(autouse=True)
def _own_place(monkeypatch, tmp_path_factory):
    """No test reads or writes what belongs to the person who runs it."""
    place = tmp_path_factory.mktemp("home")
    for name in [name for name in os.environ if name.startswith("TALLY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(place / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(place / "data"))
    monkeypatch.setenv("XDG_STATE_HOME", str(place / "state"))
    monkeypatch.setenv("TALLY_LEDGER", str(place / "ledger.db"))
