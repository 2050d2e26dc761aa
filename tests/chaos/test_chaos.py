"""Short rounds of `make chaos`: clients that are killed, that meter into a full disk or a file they must not write, with
clocks that jump; and power cuts. Nothing is missing, nothing counts twice, no account is above its limit."""

import os

import pytest

import _chaos_power as power
import chaos
from tallystick.simulator import Simulator

SECONDS = 1.2


@pytest.fixture(scope="module")
def stand():
    known = os.environ.get("PYTHONPATH")
    chaos.prepare()
    truth = chaos.Truth()
    with Simulator(chaos.answers, heard=truth.hear, keep=0, typed=False) as simulator:
        yield simulator.openai_url, truth
    if known is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = known


@pytest.mark.parametrize("trouble", ["clock", "full", "readonly"])
def test_a_round_loses_nothing_and_counts_nothing_twice(stand, tmp_path, trouble):
    if trouble == "readonly" and os.geteuid() != 0:
        pytest.skip("only root has rights to give up while others keep theirs")
    url, truth = stand
    (tmp_path / "ledger").mkdir(mode=0o700)
    place = str(tmp_path / "ledger" / "ledger.db")
    found = chaos.run_round(chaos.Stage(place, tmp_path, trouble, 7, SECONDS, lambda: None), url, truth)
    assert (found.missing, found.doubled, found.wrong) == (0, 0, [])
    assert found.finished > 0
    assert found.entries >= found.finished
    assert found.polls > 0
    assert trouble == "clock" or found.spooled > 0


def test_what_a_round_has_left_is_kept_where_something_is_wrong(tmp_path):
    folder, keep = tmp_path / "round", tmp_path / "kept"
    for name in ("0-1.notes", "home/x.spool/7.jsonl", "server/base/1"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    series = chaos.Series(number=2, seed=40, seconds=1.0, away=0.0, keep=keep)
    series.keep_what_is_wrong(folder, 0, chaos.Found())
    assert not keep.exists()
    series.keep_what_is_wrong(folder, 1, chaos.Found(missing=1, wrong=["the finished call x has no entry"]))
    found = {str(place.relative_to(keep)): place.read_text() for place in keep.rglob("*") if place.is_file()}
    assert found == {
        "41/0-1.notes": "0-1.notes",
        "41/home/x.spool/7.jsonl": "home/x.spool/7.jsonl",
        "41/wrong.txt": "the finished call x has no entry\n",
    }


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    made = power.build(tmp_path_factory.mktemp("power"))
    if made is None:
        pytest.skip("there is no C compiler")
    return made


def test_a_power_cut_takes_nothing_that_was_said_to_be_safe(library, tmp_path):
    promised, _, disks, wrong = power.power_round(tmp_path / "cut", library, seed=3, seconds=0.6)
    assert wrong == []
    assert promised > 0
    assert disks == 5


def test_a_ledger_that_does_not_sync_is_found_out(library, tmp_path):
    *_, wrong = power.power_round(tmp_path / "cut", library, seed=3, seconds=0.3, careless=True)
    assert any("the ledger has None" in one for one in wrong)
