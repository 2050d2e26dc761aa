"""A ledger that cannot be written: the calls succeed, one warning says so, and a repair brings every entry in."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tallystick.defaults import catalog
from tallystick.ledger.sqlite import SqliteLedger
from tallystick.metering.repair import repair
from tallystick.metering.spool import spool_folders

CALLS = 6
SCRIPT = """
import json, logging, os, resource, signal, sys
from pathlib import Path
logging.basicConfig(format="LOG %(message)s", stream=sys.stdout)
import openai, tallystick
from tallystick.capture.process import close_meters, default_meter
from tallystick.simulator import Answer, Simulator
place, how, calls = Path(os.environ["TALLY_LEDGER"]), sys.argv[1], int(sys.argv[2])
said = []
with Simulator(Answer(output_tokens=9)) as sim:
    with openai.OpenAI(base_url=sim.openai_url, api_key="none") as client:
        tallystick.track(client, provider="openai")
        def ask(number):
            made = client.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": f"call {number}"}], stream=number % 2 == 1
            )
            said.append("".join(c.choices[0].delta.content or "" for c in made) if number % 2
                        else made.choices[0].message.content)
        if how in ("later", "a while"):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            ask(0)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        if how == "a while":
            ask(1)
            ask(2)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        for number in range(len(said), calls):
            ask(number)
        meter = default_meter()
        close_meters()
    print("TOLD" + json.dumps({
        "said": said == [call.text for call in sim.calls], "missed": meter.missed, "faults": meter.faults.counts,
        "served": [dict(call.usage) for call in sim.calls],
    }))
"""


def run(place, how, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, how, str(CALLS)],
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TALLY_LEDGER": str(place), **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    [told] = [json.loads(line[4:]) for line in lines if line.startswith("TOLD")]
    warnings = [line for line in lines if line.startswith("LOG the ledger takes no entries")]
    return told, warnings


def brought_in(place, ledger_at):
    """The entries after a repair into a ledger that can be written, and what the repair did."""
    data = Path(os.environ["XDG_DATA_HOME"]) / "tallystick"
    folders = spool_folders(place, data)
    with SqliteLedger(ledger_at) as ledger:
        first = repair(ledger, place, folders, catalog, datetime.now(UTC))
        again = repair(ledger, place, folders, catalog, datetime.now(UTC))
        assert again.spooled == 0
        assert ledger.verify() == []
        entries = sorted(ledger.read(), key=lambda entry: entry.started_at)
    return entries, first


@pytest.mark.parametrize("how", ["a folder in its place", "no ledger at all", "below a file"])
def test_a_ledger_that_cannot_be_opened(tmp_path, how):
    place = tmp_path / "ledger.db"
    if how == "a folder in its place":
        place.mkdir()
    elif how == "no ledger at all":
        place.write_text("These are other bytes than a ledger's.")
    else:
        (tmp_path / "file").write_text("")
        place = tmp_path / "file" / "ledger.db"
    told, warnings = run(place, "now")
    assert told["said"]
    assert (told["missed"], told["faults"], len(warnings)) == (CALLS, {}, 1)
    assert "tally ledger repair" in warnings[0]
    entries, repaired = brought_in(place, tmp_path / "good.db")
    assert repaired.spooled == CALLS
    assert [dict(entry.usage) for entry in entries] == told["served"]
    assert {entry.quality for entry in entries} == {"exact"}
    assert all(entry.amount.pico > 0 for entry in entries)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write what is read-only")
def test_a_read_only_ledger(tmp_path):
    place = tmp_path / "ledger.db"
    SqliteLedger(place).close()
    place.chmod(0o400)
    told, warnings = run(place, "now")
    assert told["said"]
    assert (told["missed"], len(warnings)) == (CALLS, 1)
    place.chmod(0o600)
    entries, repaired = brought_in(place, place)
    assert repaired.spooled == len(entries) == CALLS


def test_a_disk_that_is_full_from_the_second_call_on(tmp_path):
    """No file may grow any more, neither the ledger's nor the spool's: the calls succeed and what is lost is counted."""
    place = tmp_path / "ledger.db"
    told, warnings = run(place, "later")
    assert told["said"]
    assert (told["missed"], told["faults"], len(warnings)) == (CALLS - 1, {}, 1)
    entries, repaired = brought_in(place, place)
    # With no byte left anywhere an entry cannot be kept, and the count says so. The call before is whole.
    assert dict(entries[0].usage) == told["served"][0]
    assert len(entries) == 1 + repaired.spooled + repaired.cut


def test_a_disk_that_was_full_for_a_while(tmp_path):
    place = tmp_path / "ledger.db"
    told, _ = run(place, "a while")
    assert told["said"]
    entries, repaired = brought_in(place, place)
    assert repaired.unread == 0
    assert [dict(entry.usage) for entry in entries[-3:]] == told["served"][-3:]
