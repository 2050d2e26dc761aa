"""Holds among processes that share one file: exact limits, fair turns, and what a killed process leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hold_samples import account, ask, budget, call, charge, claim, granted, settlement
from ledger_samples import NOW

from tallystick.ledger.hold import Granted, Refused
from tallystick.ledger.sqlite import SqliteLedger

CALL = 40_000_000_000
ROUNDS = 20 if os.environ.get("TALLY_LONG") else 2


@contextmanager
def process(
    path: Path, name: str, pause: float = 0, asks: int = 25, wait: float = 0.15
) -> Iterator[subprocess.Popen[str]]:
    """A process that asks for holds."""
    words = [sys.executable, str(Path(__file__).with_name("hold_process.py")), str(path), name, pause, asks, wait]
    with subprocess.Popen(
        [str(word) for word in words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as one:
        try:
            yield one
        finally:
            if one.poll() is None:
                one.kill()


def lines(one: subprocess.Popen[str]) -> list[str]:
    """All it says until it is done or dead."""
    assert one.stdout is not None
    said = []
    for line in one.stdout:
        said.append(line.strip())
        if said[-1] == "done":
            break
    return said


def began(one: subprocess.Popen[str]) -> None:
    assert one.stdout is not None
    assert one.stdout.readline().strip() == "began"


def ended(one: subprocess.Popen[str]) -> None:
    assert one.stdin is not None
    one.stdin.close()
    assert one.wait(20) == 0


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_exactly_ten_of_one_hundred_whoever_is_killed(tmp_path: Path, round_: int) -> None:
    path = tmp_path / "ledger.db"
    with SqliteLedger(path) as ledger, ExitStack() as stack:
        ledger.put_budget(budget(limit=10 * CALL))
        pauses = (0.02, 0.0, 0.01, 0.05)
        crowd = [stack.enter_context(process(path, f"p{number}", pause)) for number, pause in enumerate(pauses)]
        killed = crowd[round_ % 4]
        for one in crowd:
            began(one)
        give_up = time.monotonic() + 20
        while account(ledger).held < 5 * CALL and time.monotonic() < give_up:
            time.sleep(0.001)
        killed.kill()
        said = {line.split()[1] for one in crowd for line in lines(one) if line.startswith("granted")}
        killed.wait(20)
        ledger.expire()
        holds = ledger.holds()
        assert len(holds) == 10
        assert said <= {one.hold_id for one in holds}
        assert {one.state for one in holds if one.hold_id.startswith(f"p{round_ % 4}-")} <= {"suspect"}
        stands = account(ledger)
        assert (stands.held + stands.suspect, stands.overdraft) == (10 * CALL, 0)
        for one in crowd:
            if one is not killed:
                ended(one)
        assert {one.state for one in ledger.holds()} <= {"open", "suspect"}
        ledger.expire()
        assert account(ledger).suspect == 10 * CALL
        assert ledger.verify() == []


def test_who_came_first_is_served_first_across_processes(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with SqliteLedger(path) as ledger, SqliteLedger(path) as other:
        ledger.put_budget(budget())
        granted(ledger, ask("c0", claim(100)))
        order = []
        waiting = []
        for number, one in enumerate((ledger, other, ledger, other)):
            future = one.authorise(ask(f"w{number}", claim(60 if number % 2 else 50)), wait=30)
            future.add_done_callback(lambda _, number=number: order.append(number))  # type: ignore[misc]
            waiting.append(future)
            in_line(path, number + 1)
        assert isinstance(other.authorise(ask("late", claim(1))).result(20), Refused)
        previous = "c0"
        for number, future in enumerate(waiting):
            (ledger, other)[number % 2].settle(call(previous), settlement(charge(0))).result(20)
            assert isinstance(future.result(20), Granted)
            previous = f"w{number}"
        assert order == [0, 1, 2, 3]


def in_line(path: Path, count: int) -> None:
    """Waits until so many asks stand in the line."""
    import sqlite3

    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    give_up = time.monotonic() + 20
    while connection.execute("SELECT count(*) FROM waiter").fetchone()[0] < count and time.monotonic() < give_up:
        time.sleep(0.001)
    connection.close()


def test_nobody_waits_for_the_line_of_a_dead_process(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with SqliteLedger(path) as ledger:
        ledger.put_budget(budget(limit=10 * CALL))
        granted(ledger, ask("c0", claim(10 * CALL - 1)))
        with process(path, "dead", asks=5, wait=60) as dead:
            began(dead)
            in_line(path, 5)
            waiting = ledger.authorise(ask("c1", claim(1)), wait=60)
            in_line(path, 6)
            assert not waiting.done()
            dead.kill()
            dead.wait(20)
            assert isinstance(waiting.result(20), Granted)
        in_line(path, 0)
        assert [one.hold_id for one in ledger.holds("open")] == ["c0", "c1"]


def test_a_dead_processs_holds_refuse_at_once_and_late_settlements_count(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with SqliteLedger(path) as ledger:
        ledger.put_budget(budget(limit=CALL))
        with process(path, "dead", asks=1) as dead:
            assert "granted dead-0" in lines(dead)
            dead.kill()
            dead.wait(20)
        found = ledger.authorise(ask("c1", claim(CALL)), wait=60).result(20)
        assert isinstance(found, Refused)
        assert (found.spent, found.held) == (CALL, 0)
        assert [path.name for path in (tmp_path / "ledger.db.owners").iterdir() if path.name] == [owner_of(ledger)]
    with SqliteLedger(path) as again:
        again.settle(call("dead-0"), settlement(charge(CALL // 2))).result(20)
        assert (account(again).settled, account(again).suspect) == (CALL // 2, 0)
        granted(again, ask("c2", claim(CALL // 2)))
        assert again.verify() == []


def owner_of(ledger: SqliteLedger) -> str:
    """Who makes its holds."""
    granted(ledger, ask("probe", claim(0)))
    return ledger.holds("open")[-1].owner


def test_holds_of_a_ledger_that_was_closed_are_suspect(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with SqliteLedger(path) as ledger:
        ledger.put_budget(budget())
        granted(ledger, ask("c1", claim(60)))
    with SqliteLedger(path) as again:
        assert again.holds()[0].state == "open"
        assert isinstance(again.authorise(ask("c2", claim(60)), wait=60).result(20), Refused)
        assert again.holds()[0].state == "suspect"
        assert again.extend("c1", 0).result(20) == 0
        assert again.holds()[0].state == "open"


def test_a_forked_child_is_an_owner_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with SqliteLedger(path) as ledger:
        ledger.put_budget(budget())
        granted(ledger, ask("parent", claim(10)))
        child = os.fork()
        if not child:
            code = 1
            try:
                granted(ledger, ask("child", claim(10)))
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert ledger.expire() == ["child"]
        ledger.settle(call("parent"), settlement(charge(3))).result(20)
        assert (account(ledger).settled, account(ledger).suspect) == (3, 10)


def test_a_budget_edited_elsewhere_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with SqliteLedger(path) as ledger, SqliteLedger(path) as other:
        ledger.put_budget(budget(limit=10))
        granted(other, ask("c1", claim(10)))
        waiting = other.authorise(ask("c2", claim(10)), wait=60)
        in_line(path, 1)
        ledger.put_budget(budget(limit=20))
        assert waiting.result(20).version == 2  # type: ignore[union-attr]
        granted(other, ask("c2", claim(10), version=2, expires_at=NOW))
        assert ledger.expire() == ["c2"]
