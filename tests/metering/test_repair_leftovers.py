"""What lies beside a ledger is taken away only when the ledger has it: unreadable slots, files of another version, an
entry that no ledger takes, a line that comes while a repair is at work, a spool that cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from test_basket import Raising, Unwritable, gathering, run_call

from tallystick.core.attribution import Tags
from tallystick.core.cost import Cost
from tallystick.core.usage import Usage
from tallystick.defaults import catalog
from tallystick.ledger.entry import Entry
from tallystick.ledger.intents import SLOT
from tallystick.ledger.ledger import Ledger
from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.sqlite import SqliteLedger
from tallystick.metering.budgets import put
from tallystick.metering.finished import Noted, pack_note, unpack_note
from tallystick.metering.leave import Who
from tallystick.metering.repair import Repaired, recover, repair
from tallystick.metering.rules import make_budget
from tallystick.metering.spool import Spool

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_basket import gathering, run_call
from tallystick.ledger.memory import MemoryLedger
meter, _ = gathering(MemoryLedger(), Path(sys.argv[1]))
for number in range(3):
    print(run_call(meter, number).call_id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(folder: Path) -> list[str]:
    """Leaves the slots of three calls that had ended when their process was killed; their ids."""
    child = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), str(Path(__file__).parent)],
        check=False, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    return child.stdout.split()


def ids(ledger: Ledger) -> set[str]:
    return {entry.call_id for entry in ledger.read()}


def entry(call_id: str, **fields: str) -> Entry:
    values: dict[str, Any] = {"provider": "p", "model": "m", "usage": Usage(input=1), "cost": Cost((), 5), **fields}
    return Entry(call_id=call_id, started_at=NOW, **values)


def record_of(data: bytearray, call_id: str) -> int:
    """Where the record of a call begins in a file of slots."""
    at = next(at for at in range(SLOT, len(data), SLOT) if call_id.encode() in data[at : at + 100])
    return data.index(b"\x92", at + 300)


@pytest.mark.parametrize("how", ["recover", "repair"])
def test_a_slot_that_cannot_be_read_stays_and_the_others_are_entered(tmp_path, how):
    place = tmp_path / "ledger.db"
    folder = tmp_path / "ledger.db.flight"
    first, *others = killed(folder)
    [file] = folder.iterdir()
    whole = bytearray(file.read_bytes())
    at = record_of(whole, first)
    file.write_bytes(whole[:at] + b"\xc1" + whole[at + 1 :])
    with SqliteLedger(place) as ledger:
        for _ in range(2):
            if how == "recover":
                recover(ledger, folder)
            else:
                assert repair(ledger, place, (), catalog, NOW).unread == 1
            assert ids(ledger) == set(others)
        # Mended, or looked at by the version that has written it, it is entered like the others.
        data = bytearray(file.read_bytes())
        data[at] = whole[at]
        file.write_bytes(data)
        assert repair(ledger, place, (), catalog, NOW) == Repaired(ended=1)
        assert ids(ledger) == {first, *others}
    assert list(folder.iterdir()) == []


def test_slots_of_another_version_are_left_to_it(tmp_path):
    folder = tmp_path / "ledger.db.flight"
    told = killed(folder)
    [file] = folder.iterdir()
    data = file.read_bytes()
    file.write_bytes(b"tallyfl9" + data[8:])
    with MemoryLedger() as ledger:
        assert repair(ledger, tmp_path / "ledger.db", (), catalog, NOW) == Repaired()
        assert recover(ledger, folder) == 0
        assert file.read_bytes()[8:] == data[8:]
        file.write_bytes(data)
        assert recover(ledger, folder) == 3
        assert ids(ledger) == set(told)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("kind", [Unwritable, Raising])
@pytest.mark.parametrize("many", [1, 3])
def test_what_neither_ledger_nor_spool_takes_stays_in_its_slot(tmp_path, kind, many, caplog):
    blocked = tmp_path / "blocked"
    blocked.write_text("not a folder")
    folder = tmp_path / "x.flight"
    with kind() as ledger:
        meter, later = gathering(ledger, folder, spool=Spool((blocked / "spool",)))
        told = {run_call(meter, number).call_id for number in range(many)}
        later.come()
        assert meter.missed == many
        meter.close()
    assert str(folder) in caplog.text
    with MemoryLedger() as ledger:
        assert recover(ledger, folder) == many
        assert ids(ledger) == told
    assert list(folder.iterdir()) == []


def test_an_entry_that_no_ledger_takes_does_not_hold_up_the_others(tmp_path):
    spool = Spool((tmp_path / "spool",), lambda: 7)
    assert all(spool.add(one) for one in (entry("a"), entry("b", requested_model="half \ud800"), entry("c")))
    place = tmp_path / "ledger.db"
    with SqliteLedger(place) as ledger:
        assert repair(ledger, place, (tmp_path / "spool",), catalog, NOW) == Repaired(spooled=2, unread=1)
        # The same process goes on, under the same name.
        assert spool.add(entry("d"))
        assert repair(ledger, place, (tmp_path / "spool",), catalog, NOW) == Repaired(spooled=1, known=2, unread=1)
        assert ids(ledger) == {"a", "c", "d"}
    [left] = (tmp_path / "spool").iterdir()
    assert b'"b"' in left.read_bytes()


def test_a_line_that_comes_while_its_file_is_brought_in_is_not_lost(tmp_path, monkeypatch):
    folder, place = tmp_path / "spool", tmp_path / "ledger.db"
    spool = Spool((folder,), lambda: 7)
    assert spool.add(entry("before"))
    really = os.write
    with MemoryLedger() as ledger:

        def slowly(handle: int, data: bytes) -> int:
            # The file is open; before the line is in it, a repair brings it in and takes it away.
            monkeypatch.setattr(os, "write", really)
            assert repair(ledger, place, (folder,), catalog, NOW) == Repaired(spooled=1)
            return really(handle, data)

        monkeypatch.setattr(os, "write", slowly)
        assert spool.add(entry("meanwhile"))
        assert ids(ledger) == {"before"}
        assert repair(ledger, place, (folder,), catalog, NOW) == Repaired(spooled=1)
        assert ids(ledger) == {"before", "meanwhile"}
    assert list(folder.iterdir()) == []


CUT = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_basket import gathering
from tallystick.core.attribution import Tags
from tallystick.defaults import catalog
from tallystick.ledger.sqlite import SqliteLedger
from tallystick.metering.admission import BudgetAdmission
from tallystick.metering.leave import Admitted, Who
place = Path(sys.argv[1])
ledger = SqliteLedger(place)
meter, _ = gathering(ledger, place.with_name("ledger.db.flight"), admission=BudgetAdmission(ledger, catalog))
asked = b'{"model": "gpt-4o", "stream": true, "max_tokens": 500, "messages": [{"role": "user", "content": "Hello"}]}'
who = Who(tags=Tags(team="b", user="ada"), run_id="r", parent_run="p", step="s")
call = meter.call("POST", "https://api.openai.com/v1/chat/completions", {}, asked, who=who)
assert isinstance(call.ask().result(5), Admitted)
call.outgoing()
if sys.argv[3] == "begun":
    call.answered(200, {"content-type": "text/event-stream"})
    piece = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"a word and one more "}}]}' + bytes((10, 10))
    for _ in range(4):
        # What it has come to is shown at most every 50 ms.
        time.sleep(0.07)
        call.feed(piece)
    assert not call.ended
print(call.call_id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("state", ["sent", "begun"])
def test_a_call_that_was_cut_is_still_somebodys_and_the_rest_of_its_hold_stays_suspect(tmp_path, state):
    place = tmp_path / "ledger.db"
    with SqliteLedger(place) as ledger:
        put(ledger, make_budget("firm", {"limit": "$1/day", "scope": {"team": "b"}}), datetime.now(UTC))
    child = subprocess.run(
        [sys.executable, "-c", CUT, str(place), str(Path(__file__).parent), state],
        check=False, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    [call_id] = child.stdout.split()
    with SqliteLedger(place) as ledger:
        assert ledger.expire() == [call_id]
        [before] = ledger.accounts("firm")
        assert repair(ledger, place, (), catalog, NOW) == Repaired(cut=1)
        [cut] = ledger.read()
        assert (cut.source, cut.status, cut.stopped_by, cut.hold_id) == ("gateway", "cut", "killed", call_id)
        assert (dict(cut.tags), cut.run_id, cut.parent_run, cut.step) == ({"team": "b", "user": "ada"}, "r", "p", "s")
        assert cut.quality == ("lower_bound" if state == "begun" else "unknown")
        [after] = ledger.accounts("firm")
        # What it cost for certain is spent, and nothing is given back.
        assert (after.balance.spent, after.balance.held) == (before.balance.spent, 0)
        assert after.balance.settled == (cut.amount.pico if state == "begun" else 0)
        assert [hold.state for hold in ledger.holds()] == ["suspect"]
        assert repair(ledger, place, (), catalog, NOW) == Repaired()
        ledger.resolve(call_id, None)
        assert ledger.holds("suspect") == []
        assert ledger.verify() == []


def test_a_note_that_was_being_overwritten_says_nothing():
    note = pack_note("gateway", Who(tags=Tags(team="b")))
    assert unpack_note(note).tags == Tags(team="b")
    assert unpack_note(note[:-1]) == unpack_note(b"") == Noted()
    assert pack_note("client", Who(run_id="r")) == b""
