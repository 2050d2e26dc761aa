"""Calls that have ended and are on their way to the ledger: nobody waits, and a kill loses none of them."""

import os
import signal
import subprocess
import sys
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tallystick.core.attribution import Tags
from tallystick.core.money import Money
from tallystick.defaults import catalog
from tallystick.errors import LedgerCorrupt, LedgerUnavailable
from tallystick.ledger.hold import Charge, Settlement
from tallystick.ledger.ids import new_call_id
from tallystick.ledger.intents import Intents, read_flights
from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.sqlite import SqliteLedger
from tallystick.metering.admission import BudgetAdmission
from tallystick.metering.budgets import put
from tallystick.metering.claims import settlement
from tallystick.metering.finished import Finished, pack, unpack
from tallystick.metering.leave import Admitted, Denied, Who
from tallystick.metering.meter import Meter
from tallystick.metering.repair import Repaired, recover, repair
from tallystick.metering.rules import make_budget
from tallystick.metering.spool import Spool

URL = "https://api.openai.com/v1/chat/completions"
ASKED = b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}'
SAID = (
    b'{"id": "chatcmpl-%d", "object": "chat.completion", "model": "gpt-4o-2024-08-06", "choices": [],'
    b' "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}}'
)
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def run_call(meter, number, who=None, body=ASKED):
    call = meter.call("POST", URL, {}, body, who=who)
    assert isinstance(call.ask().result(5), Admitted)
    call.outgoing()
    call.answered(200, {"content-type": "application/json"})
    call.feed(SAID % number)
    call.close()
    return call


class Later:
    """What was put off, until somebody has it done."""

    def __init__(self):
        self.asked = []

    def __call__(self, seconds, work):
        assert 0 < seconds < 0.05
        self.asked.append(work)

    def come(self):
        while self.asked:
            self.asked.pop()()


def gathering(ledger, folder, **options):
    later = Later()
    meter = Meter(ledger, catalog, intents=Intents(folder, new_call_id), source="gateway", **options)
    meter.gather(later)
    return meter, later


def test_calls_that_end_together_are_entered_together(tmp_path):
    with MemoryLedger() as ledger:
        meter, later = gathering(ledger, tmp_path / "x.flight")
        calls = [run_call(meter, number) for number in range(5)]
        assert all(call.settled.done() for call in calls)
        assert (list(ledger.read()), len(later.asked)) == ([], 1)
        assert read_flights(tmp_path / "x.flight") == []
        later.come()
        assert sorted(entry.call_id for entry in ledger.read()) == sorted(call.call_id for call in calls)
        run_call(meter, 6)
        meter.close()
        assert len(list(ledger.read())) == 6
        assert list((tmp_path / "x.flight").iterdir()) == []


def test_an_entry_in_its_bytes_is_the_same_entry(tmp_path):
    with MemoryLedger() as ledger:
        meter, _ = gathering(ledger, tmp_path / "x.flight")
        entry = run_call(meter, 1, Who(tags=Tags(team="\u00e4"), run_id="r", step="s")).entry
        meter.close()
    assert entry.cost is not None
    assert entry.usage_raw is not None
    taken = Settlement(charges=(Charge(budget_id="a", value="user=x", period="day", amount=2**62),), keep=True)
    for said in (Finished(entry), Finished(entry, taken), Finished(entry, settlement(entry, ()))):
        back = unpack(pack(said))
        assert back == said
        assert back.entry.to_json() == entry.to_json()
    absurd = Settlement(charges=(Charge(budget_id="a", value="", period="day", amount=2**64),))
    assert pack(Finished(entry, absurd)) is None
    with pytest.raises(LedgerCorrupt):
        unpack(b"\x80")


def test_what_has_no_room_in_a_slot_waits_for_the_ledger(tmp_path):
    with MemoryLedger() as ledger:
        meter, later = gathering(ledger, tmp_path / "x.flight")
        who = Who(tags=Tags({f"tag-{number}": "x" * 250 for number in range(20)}))
        run_call(meter, 1, who).settled.result(5)
        assert (len(list(ledger.read())), later.asked) == (1, [])
        meter.close()


class Unwritable(MemoryLedger):
    """A ledger that takes nothing: it raises, or says so later."""

    def submit(self, items, *, durable=False):
        failed = Future()
        failed.set_exception(LedgerUnavailable("The disk is full."))
        return failed


class Raising(MemoryLedger):
    def submit(self, items, *, durable=False):
        raise LedgerUnavailable("The ledger is closed.")


@pytest.mark.parametrize("kind", [Unwritable, Raising])
@pytest.mark.parametrize("many", [1, 3])
def test_what_the_ledger_does_not_take_is_spooled(tmp_path, kind, many):
    with kind() as ledger:
        meter, later = gathering(ledger, tmp_path / "x.flight", spool=Spool((tmp_path / "spool",)))
        for number in range(many):
            run_call(meter, number)
        later.come()
        assert meter.missed == many
        [file] = (tmp_path / "spool").iterdir()
        assert len(file.read_bytes().splitlines()) == many
        meter.close()
        assert list((tmp_path / "x.flight").iterdir()) == []


def test_calls_under_budgets_end_without_waiting_for_the_ledger(tmp_path):
    with SqliteLedger(tmp_path / "ledger.db") as ledger:
        put(ledger, make_budget("soft", {"limit": "$1/day", "hard": False, "scope": {"team": "a"}}), NOW)
        put(ledger, make_budget("firm", {"limit": "$1/day", "scope": {"team": "b"}}), NOW)
        admission = BudgetAdmission(ledger, catalog)
        meter, later = gathering(ledger, tmp_path / "x.flight", admission=admission)
        for number in range(20):
            soft = run_call(meter, 2 * number, Who(tags=Tags(team="a")))
            firm = run_call(meter, 2 * number + 1, Who(tags=Tags(team="b")))
            assert soft.settled.done()
            assert firm.settled.done()
        ledger.flush()
        assert later.asked == []
        for name, call in (("soft", soft), ("firm", firm)):
            [account] = ledger.accounts(name)
            assert Money(account.balance.spent) == call.entry.amount * 20
            assert account.balance.held == 0
        assert ledger.holds("open") == []
        meter.close()
        admission.close()
    assert list((tmp_path / "x.flight").iterdir()) == []


def test_an_ask_finds_what_calls_that_ended_before_have_given_back(tmp_path):
    with SqliteLedger(tmp_path / "ledger.db") as ledger:
        # Room for one call that may have 24 tokens of answer beside one that had 12, not beside one like itself.
        put(ledger, make_budget("one", {"limit": "$0.00042"}), NOW)
        admission = BudgetAdmission(ledger, catalog, wait=0.0)
        meter, _ = gathering(ledger, tmp_path / "x.flight", admission=admission)
        body = ASKED[:-1] + b', "max_tokens": 24}'
        first = run_call(meter, 1, body=body)
        second = meter.call("POST", URL, {}, body)
        verdict = second.ask().result(5)
        assert isinstance(verdict, Admitted)
        assert not verdict.capped
        third = meter.call("POST", URL, {}, body)
        denied = third.ask().result(5)
        assert isinstance(denied, Denied)
        assert Money(denied.refused.spent) == first.entry.amount
        assert denied.refused.held > 0
        second.failed(ConnectionRefusedError())
        meter.close()
        admission.close()


HELD = """
import os, signal, sys
from concurrent.futures import Future
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_basket import gathering, run_call
from tallystick.defaults import catalog
from tallystick.ledger.sqlite import SqliteLedger
from tallystick.metering.admission import BudgetAdmission
place = Path(sys.argv[1])
class Slow(SqliteLedger):
    def settle(self, entry, settlement, *, durable=False, later=False):
        assert later
        return Future()
ledger = Slow(place)
meter, _ = gathering(ledger, place.with_name(place.name + ".flight"), admission=BudgetAdmission(ledger, catalog))
print(*[run_call(meter, number).entry.amount.pico for number in range(3)], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_leaves_no_money_held_for_calls_that_have_ended(tmp_path):
    place = tmp_path / "ledger.db"
    with SqliteLedger(place) as ledger:
        put(ledger, make_budget("firm", {"limit": "$1/day"}), datetime.now(UTC))
    child = subprocess.run(
        [sys.executable, "-c", HELD, str(place), str(Path(__file__).parent)],
        check=False, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert child.returncode == -signal.SIGKILL
    costs = [int(word) for word in child.stdout.split()]
    with SqliteLedger(place) as ledger:
        assert len(ledger.holds("open")) == len(costs) == 3
        # What nobody has answered for yet is suspect, until the slots say how it ended.
        assert len(ledger.expire()) == 3
        assert recover(ledger, place.with_name("ledger.db.flight")) == 3
        [account] = ledger.accounts("firm")
        assert (account.balance.spent, account.balance.held) == (sum(costs), 0)
        assert {hold.state for hold in ledger.holds()} == {"settled"}
        assert all(entry.hold_id == entry.call_id for entry in ledger.read())
        assert ledger.verify() == []


CHILD = """
import os, signal, sys
from concurrent.futures import Future
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_basket import SAID, gathering, run_call
from tallystick.ledger.sqlite import SqliteLedger
place = Path(sys.argv[1])
ledger = SqliteLedger(place)
meter, later = gathering(ledger, place.with_name(place.name + ".flight"))
told = [run_call(meter, number).call_id for number in range(3)]
if sys.argv[3] == "entered":
    ledger.append([call.entry for call in [run_call(meter, 3)]])
    told.append("")
call = meter.call("POST", "https://api.openai.com/v1/chat/completions", {}, b'{"model": "gpt-4o"}')
call.ask()
print(*told, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", ["open", "repair"])
@pytest.mark.parametrize("state", ["waiting", "entered"])
def test_a_kill_loses_no_call_that_was_told_its_end(tmp_path, how, state):
    place = tmp_path / "ledger.db"
    folder = place.with_name("ledger.db.flight")
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(place), str(Path(__file__).parent), state],
        check=False, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert child.returncode == -signal.SIGKILL
    told = child.stdout.split()
    there = state == "entered"
    with SqliteLedger(place) as ledger:
        assert len(list(ledger.read())) == there
        if how == "open":
            assert (recover(ledger, folder), recover(ledger, folder)) == (3, 0)
        else:
            assert repair(ledger, place, (), catalog, NOW) == Repaired(cut=1, ended=3, known=there)
        entries = {entry.call_id: entry for entry in ledger.read() if entry.status == "ok"}
        assert set(told) <= set(entries)
        assert len(entries) == 3 + there
        assert all(entries[call_id].quality == "exact" and entries[call_id].amount for call_id in told)
        # The call that was in flight stays for a repair.
        again = Repaired(cut=1) if how == "open" else Repaired()
        assert repair(ledger, place, (), catalog, NOW) == again
        assert ledger.verify() == []
    assert list(folder.iterdir()) == []


def test_where_nothing_was_left_there_is_nothing_to_recover(tmp_path):
    with MemoryLedger() as ledger:
        assert recover(ledger, tmp_path / "none") == 0
        meter, _ = gathering(ledger, tmp_path / "x.flight")
        run_call(meter, 1)
        # The owner lives.
        assert recover(ledger, tmp_path / "x.flight") == 0
        meter.recover()
        meter.close()
        assert len(list(ledger.read())) == 1
