"""Holds in a file: what the disk, the lock and a strange hand do to them."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path

import pytest
from hold_samples import account, ask, budget, call, charge, claim, granted, settlement
from ledger_samples import NOW, Clock, correction, cost, entry

from tallystick.errors import ConflictError, InputError, LedgerUnavailable
from tallystick.ledger.hold import Granted, Refused
from tallystick.ledger.ledger import Receipt
from tallystick.ledger.sqlite import SqliteLedger


def test_many_things_in_one_transaction_each_fail_alone(file: Path) -> None:
    with SqliteLedger(file) as ledger:
        ledger.put_budget(budget())
        granted(ledger, ask("c1", claim(30, 1)))
        granted(ledger, ask("c2", claim(30)))
        with ledger._desk.writing:
            wanted = [
                ledger.authorise(ask("c3", claim(50))),
                ledger.authorise(ask("c3", claim(50))),
                ledger.authorise(ask("c3", claim(50), payload="other")),
                ledger.authorise(ask("c1", claim(30, 1))),
                ledger.settle(call("c2"), settlement(charge(10))),
                ledger.settle(call("c2"), settlement(charge(11))),
                ledger.settle(call("c4"), settlement(charge(-1))),
                ledger.submit([entry("plain"), correction("plain", cost=cost(1).to_json())]),
                ledger.extend("c1", 5),
                ledger.extend("never", 5),
                ledger.release("c2"),
                ledger.authorise(ask("c5", claim(50))),
                ledger.release("c5"),
            ]
        errors = [type(one.exception(20)) for one in wanted]
        nothing = type(None)
        assert errors == [
            nothing, nothing, ConflictError, nothing, nothing, ConflictError, InputError, nothing, nothing, InputError,
            ConflictError, nothing, nothing,
        ]  # fmt: skip
        assert isinstance(wanted[0].result(), Granted)
        assert wanted[1].result() == wanted[0].result()
        assert isinstance(wanted[11].result(), Refused)
        assert (account(ledger).held, account(ledger).settled) == (85, 10)
        assert [one.call_id for one in ledger.read()] == ["c2", "plain"]
        assert ledger.verify() == []


def test_a_full_disk_refuses_all_of_a_batch_and_nothing_is_half_done(file: Path) -> None:
    with SqliteLedger(file) as ledger:
        ledger.put_budget(budget(limit=10**9))
        ledger.put_budget(budget("other", 10**9))
        granted(ledger, ask("c0", claim(500), version=2))
        waiting = ledger.authorise(ask("line", claim(10**9), version=2), wait=60)
        ledger.flush()
        pages = ledger._writer().execute("PRAGMA page_count").fetchone()[0]
        ledger._writer().execute(f"PRAGMA max_page_count = {pages}")
        before = ledger.accounts(), ledger.holds()
        with ledger._desk.writing:
            wide = claim(budget_id="other")
            wanted = [
                ledger.authorise(ask(f"c{number}", wide, payload="x" * 4000, version=2)) for number in range(1, 60)
            ]
            wanted.append(ledger.settle(call("c0"), settlement(charge(5))))
        for one in wanted:
            with pytest.raises(LedgerUnavailable, match="disk is full"):
                one.result(20)
        assert (ledger.accounts(), ledger.holds()) == before
        assert not waiting.done()
        ledger._writer().execute("PRAGMA max_page_count = 1000000")
        ledger.settle(call("c0"), settlement(charge(0))).result(20)
        assert isinstance(waiting.result(20), Granted)
        assert ledger.verify() == []


def test_a_grant_is_told_when_the_disk_has_it_and_nobody_waits_for_that_otherwise(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, slow = threading.Event(), threading.Event()

    def sync(handle: int) -> None:
        slow.set()
        assert disk.wait(20)
        os.fdatasync(handle)

    with SqliteLedger(file) as ledger:
        ledger.put_budget(budget())
        granted(ledger, ask("c1", claim(10, 1)))
        ledger.flush()
        monkeypatch.setattr("tallystick.ledger.synclog._datasync", sync)
        told = [ledger.authorise(ask("c2", claim(10))), ledger.extend("c1", 5)]
        assert slow.wait(20)
        assert isinstance(ledger.authorise(ask("c3", claim(100))).result(20), Refused)
        ledger.settle(call("c1"), settlement(charge(3))).result(20)
        ledger.release("unknown").result(20)
        assert (account(ledger).held, account(ledger).settled) == (10, 3)
        assert [one.done() for one in told] == [False, False]
        disk.set()
        assert isinstance(told[0].result(20), Granted)
        assert told[1].result(20) == 5


def test_a_disk_that_keeps_nothing_grants_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(handle: int) -> None:
        raise OSError(5, f"Input/output error {handle}")

    with SqliteLedger(file) as ledger:
        ledger.put_budget(budget())
        granted(ledger, ask("c1", claim(10)))
        ledger.flush()
        monkeypatch.setattr("tallystick.ledger.synclog._datasync", broken)
        with pytest.raises(LedgerUnavailable, match="did not keep"):
            ledger.authorise(ask("c2", claim(10))).result(20)
        with pytest.raises(LedgerUnavailable, match="did not keep"):
            ledger.authorise(ask("c3", claim(10)))
    monkeypatch.undo()
    with SqliteLedger(file) as again:
        assert account(again).held == 20
        assert again.verify() == []


def test_read_only_ledgers_show_and_hold_nothing(file: Path) -> None:
    with SqliteLedger(file) as ledger:
        ledger.put_budget(budget())
        granted(ledger, ask("c1", claim(30)))
        with SqliteLedger(file, read_only=True) as reader:
            assert (account(reader).held, len(reader.holds()), reader.budgets().version) == (30, 1, 1)
            with pytest.raises(LedgerUnavailable, match="read-only"):
                reader.authorise(ask("c2"))
            for change in (lambda: reader.put_budget(budget()), reader.expire, lambda: reader.resolve("c1", None)):
                with pytest.raises(LedgerUnavailable, match="read-only"):
                    change()


def test_who_cannot_get_the_turn_is_told_in_time_and_can_go_on_later(file: Path) -> None:
    with SqliteLedger(file, timeout=0.1) as ledger:
        ledger.put_budget(budget())
        granted(ledger, ask("c1", claim(10)))
        stopped = os.open(file.with_name(file.name + ".lock"), os.O_RDWR)
        fcntl.flock(stopped, fcntl.LOCK_EX)
        for _ in range(2):
            with pytest.raises(LedgerUnavailable, match="another program"):
                ledger.authorise(ask("c2", claim(10))).result(20)
        os.close(stopped)
        give_up = time.monotonic() + 20
        while not goes(ledger) and time.monotonic() < give_up:
            pass
        assert account(ledger).held == 20
    with SqliteLedger(file) as again:
        assert again.expire() == ["c1", "c2"]


def test_who_waits_longer_than_the_ledger_can_be_written_is_told_so(file: Path) -> None:
    with SqliteLedger(file, timeout=0.05) as ledger:
        ledger.put_budget(budget())
        granted(ledger, ask("c1", claim(100)))
        short = ledger.authorise(ask("c2", claim(10)), wait=0.4)
        long = ledger.authorise(ask("c3", claim(10)), wait=60)
        ledger.flush()
        stopped = os.open(file.with_name(file.name + ".lock"), os.O_RDWR)
        fcntl.flock(stopped, fcntl.LOCK_EX)
        found = short.exception(20)
        os.close(stopped)
        assert isinstance(found, LedgerUnavailable)
        assert not long.done()
        give_up = time.monotonic() + 20
        while ledger.release("c1").exception(20) is not None and time.monotonic() < give_up:
            pass
        assert isinstance(long.result(20), Granted)


def goes(ledger: SqliteLedger) -> bool:
    """Whether an ask comes through."""
    try:
        granted(ledger, ask("c2", claim(10)))
    except LedgerUnavailable:
        return False
    return True


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE account SET settled = '11'", "settled 11, its holds and charges give 10"),
        ("UPDATE account SET held = '0', unlearned = 4", "held 0, its holds and charges give 30; unlearned 4"),
        ("DELETE FROM account", "account b 2026-11 is wrong"),
        ("DELETE FROM hold WHERE hold_id = 'c1'", "settled 10, its holds and charges give 0"),
        ("UPDATE hold SET state = 2 WHERE hold_id = 'c2'", "held 30, its holds and charges give 0"),
        ("UPDATE hold SET parts = 'x'", "hold c1 cannot be read"),
        ("UPDATE budget SET body = '{}'", None),
    ],
)
def test_verify_notices_accounts_changed_behind_the_ledgers_back(file: Path, change: str, words: str | None) -> None:
    with SqliteLedger(file) as ledger:
        ledger.put_budget(budget())
        for number in (1, 2):
            granted(ledger, ask(f"c{number}", claim(30)))
        ledger.settle(call("c1"), settlement(charge(10))).result(20)
        assert ledger.verify() == []
    connection = sqlite3.connect(file)
    connection.execute(change)
    connection.commit()
    connection.close()
    with SqliteLedger(file) as ledger:
        if words is not None:
            assert words in " ".join(ledger.verify())
        else:
            with pytest.raises(Exception, match="a budget cannot be read"):
                ledger.budgets()


def test_periods_of_a_rolling_budget_are_dropped_a_day_after_they_left_the_window(file: Path) -> None:
    clock = Clock()
    with SqliteLedger(file, clock=clock) as ledger:
        ledger.put_budget(budget())
        late = ""
        for number in range(200, 250):
            clock.now = NOW + timedelta(hours=number)
            hold_id = f"c{number}"
            granted(ledger, ask(hold_id, claim(30, period=f"{number}", since=f"{number - 2}")))
            if late:
                ledger.settle(call(late), settlement(charge(1, period=f"{number - 1}"))).result(20)
            late = hold_id
        periods = [one.period for one in ledger.accounts()]
        assert periods[-1] == "249"
        assert 27 <= len(periods) <= 51
        assert "222" in periods
        assert "201" not in periods
        assert ledger.verify() == []
        ledger.append(
            [correction("c200", cost=cost(4).to_json()), correction("c248", "fix-2", cost=cost(13).to_json())]
        )
        assert (account(ledger, period="248").settled, ledger.verify()) == (4, [])
        ledger.settle(call("old"), settlement(charge(1, period="200"))).result(20)
        assert "200" not in [one.period for one in ledger.accounts()]
        assert ledger.verify() == []


def test_a_ledger_of_the_version_before_gains_budgets(file: Path) -> None:
    with SqliteLedger(file) as ledger:
        ledger.append([entry()])
    connection = sqlite3.connect(file)
    for table in ("budget", "account", "rolled", "hold", "waiter", "spread"):
        connection.execute(f"DROP TABLE {table}")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()
    with SqliteLedger(file) as ledger:
        assert ledger.budgets().version == 0
        ledger.put_budget(budget())
        granted(ledger, ask("c1"))
        assert [one.call_id for one in ledger.read()] == ["call-1"]
        assert ledger.verify() == []


def test_closing_writes_what_nobody_waits_for(file: Path) -> None:
    with SqliteLedger(file) as ledger:
        ledger.put_budget(budget())
        for number in range(30):
            granted(ledger, ask(f"c{number}", claim(3)))
            ledger.settle(call(f"c{number}"), settlement(charge(1)), later=True)
    with SqliteLedger(file) as ledger:
        assert (account(ledger).held, account(ledger).settled) == (0, 30)
        assert len(list(ledger.read())) == 30


def test_a_crowd_that_does_not_wait_loses_nothing(file: Path) -> None:
    def work(first: int) -> None:
        for number in range(first, first + 50):
            granted(ledger, ask(f"c{number}", claim(3)))
            written.append(ledger.settle(call(f"c{number}"), settlement(charge(1)), later=number % 3 > 0))

    with SqliteLedger(file) as ledger:
        ledger.put_budget(budget(limit=10_000))
        written: list[Future[Receipt]] = []
        crowd = [threading.Thread(target=work, args=(1000 * number,)) for number in range(8)]
        for one in crowd:
            one.start()
        for one in crowd:
            one.join()
        assert all(one.result(20).written == 1 for one in written)
        assert (account(ledger).held, account(ledger).settled) == (0, 400)
        assert ledger.verify() == []
