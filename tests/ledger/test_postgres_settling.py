"""Settled calls in PostgreSQL: one round trip each, sums that are right before and after they are folded in, processes
that settle and fold at once, and what one of them leaves behind that is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hold_samples import account, ask, budget, call, charge, claim, granted, settlement
from ledger_samples import NOW, Clock, correction, cost, entry

from tallystick.core.attribution import Tags
from tallystick.core.money import Money
from tallystick.core.periods import Period
from tallystick.core.usage import Usage
from tallystick.errors import LedgerUnavailable
from tallystick.ledger import postgres
from tallystick.ledger.entry import Entry
from tallystick.ledger.postgres import PostgresLedger
from tallystick.ledger.postgres_fold import FOLD_MOVES
from tallystick.ledger.postgres_link import ConnectionLost, Link
from tallystick.ledger.query import Query

HERE = Path(__file__).parent
SETTLER = """
import os, sys, threading
from hold_samples import ask, call, charge, claim, settlement
from tallystick.ledger import postgres
from tallystick.ledger.hold import Granted
from tallystick.ledger.postgres import PostgresLedger
url, name, fold, calls = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
postgres.FOLD_MOVES = fold
with PostgresLedger(url) as ledger:
    numbers, lock = iter(range(calls)), threading.Lock()
    def work():
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            hold_id = f"{name}-{number}"
            found = ledger.authorise(ask(hold_id, claim(10)), wait=30).result()
            assert isinstance(found, Granted), found
            # In one write, so that threads do not mix and a killed process says all of it or nothing.
            os.write(1, f"granted {hold_id}\\n".encode())
            ledger.settle(call(hold_id, 7, run_id=f"run-{number % 3}"), settlement(charge(7))).result()
            os.write(1, f"settled {hold_id}\\n".encode())
    threads = [threading.Thread(target=work) for _ in range(6)]
    print("began", flush=True)
    sys.stdin.readline()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.flush()
print("done", flush=True)
"""


@contextmanager
def settler(url: str, name: str, *, fold: int, calls: int) -> Iterator[subprocess.Popen[str]]:
    """A process that settles calls in six threads, once it is told to."""
    words = [sys.executable, "-c", SETTLER, url, name, str(fold), str(calls)]
    path = f"{HERE.parents[1] / 'src'}{os.pathsep}{HERE}"
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as one:
        try:
            assert one.stdout is not None
            assert one.stdout.readline() == "began\n"
            yield one
        finally:
            if one.poll() is None:
                one.kill()


def go(one: subprocess.Popen[str]) -> None:
    assert one.stdin is not None
    one.stdin.write("\n")
    one.stdin.flush()


def number(url: str, statement: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(statement).fetchone()
        assert row is not None
        return int(row[0])


def folded(url: str) -> bool:
    """Waits until nothing is pending."""
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        if not number(url, "SELECT count(*) FROM tallystick.move"):
            return True
        time.sleep(0.01)
    return False


def test_a_hold_and_a_settled_call_cost_one_round_trip_each(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trips: list[int] = []
    wait: Any = psycopg.Connection.wait

    def counted(connection: Any, *given: Any, **named: Any) -> Any:
        if threading.current_thread().name == "tallystick-writer":
            trips.append(connection.info.backend_pid)
        return wait(connection, *given, **named)

    with PostgresLedger(postgres_url) as ledger:
        ledger.put_budget(budget(limit=1000))
        for turn in range(12):
            if turn == 2:
                monkeypatch.setattr(psycopg.Connection, "wait", counted)
            granted(ledger, ask(f"c{turn}", claim(20)))
            usage = Usage(input=1, images=turn + 1)
            ledger.settle(
                call(f"c{turn}", 3, usage=usage, provider_response_id=f"r{turn}"), settlement(charge(3))
            ).result(20)
        monkeypatch.undo()
        assert len(trips) == 20
        assert len(set(trips)) == 1
        assert (account(ledger).held, account(ledger).settled) == (0, 36)
        assert ledger.total()[0].usage == Usage(input=12, images=78)
        assert ledger.verify() == []


def test_a_statement_that_cannot_be_right_is_told_and_not_tried_again(postgres_url: str) -> None:
    link = Link(postgres_url, timeout=1, read_only=True)
    with link.connect() as connection:
        with (
            pytest.raises(LedgerUnavailable, match=r"A statement for the ledger .* is wrong") as raised,
            link.explained(),
        ):
            connection.execute("SELECT %s, %s", (1,))
        assert not isinstance(raised.value, ConnectionLost)
        connection.close()
        with pytest.raises(ConnectionLost), link.explained():
            connection.execute("SELECT 1")


def several() -> list[Entry]:
    """Calls of all sorts."""
    found = []
    for turn in range(40):
        fields: dict[str, Any] = {
            "started_at": NOW - timedelta(hours=5 * turn),
            "model": f"model-{turn % 3}",
            "provider": ("openai", "google")[turn % 2],
            "tags": Tags(team=f"team-{turn % 4}", user="ada", feature=f"f{turn % 5}"),
            "usage": Usage(input=turn, output=2, images=turn % 3),
            "quality": ("exact", "estimated", "lower_bound", "unknown")[turn % 4],
            "status": "refused" if turn == 7 else "ok",
            "run_id": f"run-{turn % 6}",
            "latency_us": 1000 * turn,
            "ttft_us": 10 * turn,
            "owed": turn % 2 == 0,
        }
        found.append(call(f"c{turn}", 10**6 + turn, **fields))
    return found


def answers(ledger: PostgresLedger) -> list[object]:
    """What it says to every kind of question."""
    since = Query(since=NOW.replace(hour=0) - timedelta(days=3), until=NOW.replace(hour=0) + timedelta(days=1))
    odd = Query(since=NOW - timedelta(days=2, minutes=7), until=NOW)
    asked: list[tuple[Query, tuple[str, ...], Period | None]] = [
        (Query(), (), None),
        (Query(), ("model", "status"), Period("month")),
        (since, ("provider", "quality"), Period("day")),
        (since, ("tag:team",), None),
        (since, ("tag:feature", "source"), Period("day")),
        (odd, ("maker", "model"), None),
        (Query(run_id="run-3"), (), None),
        (Query(tags=Tags(feature="f2")), ("model",), None),
        (Query(status="refused"), (), None),
    ]
    found: list[object] = [ledger.total(query, by, per) for query, by, per in asked]
    found += [ledger.spread(query, by, per) for query, by, per in asked[:4]]
    found += [ledger.top(since, ("model",), "calls", 2), ledger.top(Query(), ("run",), "cost", 3)]
    return [*found, list(ledger.read()), ledger.accounts()]


def test_what_is_pending_answers_every_question_like_what_is_folded_in(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PostgresLedger(postgres_url, zone="Europe/Berlin", clock=Clock()) as ledger:
        ledger.put_budget(budget(limit=10**12))
        for one in several():
            granted(ledger, ask(one.call_id, claim(10**7)))
            ledger.settle(one, settlement(charge(10**6))).result(20)
        ledger.append([correction("c4", "f1", cost=cost(99).to_json()), correction("c9", "f2", model="other")])
        ledger.append([entry("log", source="log", provider_response_id="r"), entry("late", provider_response_id="r")])
        ledger.flush()
        assert number(postgres_url, "SELECT count(*) FROM tallystick.move") == 40 + 4 + 3
        assert not number(postgres_url, "SELECT count(*) FROM tallystick.cube")
        assert ledger.verify() == []
        pending = answers(ledger)
        assert ledger.total()[0].calls == 41
        monkeypatch.setattr(postgres, "FOLD_MOVES", 1)
        # What is known already adds nothing, but is a reason to look.
        assert ledger.append([entry("late", provider_response_id="r")]).written == 0
        assert folded(postgres_url)
        assert number(postgres_url, "SELECT sum(calls) FROM tallystick.cube WHERE grain = 1") == 41
        assert answers(ledger) == pending
        assert ledger.verify() == []


def test_it_folds_when_thousands_of_calls_are_pending_and_not_before(postgres_url: str) -> None:
    with PostgresLedger(postgres_url) as ledger:
        ledger.append([entry(f"a{turn}") for turn in range(FOLD_MOVES - 1)])
        ledger.flush()
        assert number(postgres_url, "SELECT count(*) FROM tallystick.move") == FOLD_MOVES - 1
        ledger.append([entry("b")])
        assert folded(postgres_url)
        assert number(postgres_url, "SELECT sum(calls) FROM tallystick.cube WHERE grain = 1") == FOLD_MOVES
        assert ledger.total()[0].calls == FOLD_MOVES
        assert ledger.verify() == []


def test_processes_that_settle_and_fold_at_once_leave_one_book(postgres_url: str) -> None:
    with PostgresLedger(postgres_url) as ledger:
        ledger.put_budget(budget(limit=10**9))
        with settler(postgres_url, "x", fold=1, calls=90) as one, settler(postgres_url, "y", fold=1, calls=90) as other:
            go(one)
            go(other)
            said = [each.communicate(timeout=120)[0].splitlines()[-1] for each in (one, other)]
        assert said == ["done", "done"]
        assert number(postgres_url, "SELECT sum(calls) FROM tallystick.cube WHERE grain = 1") > 0
        assert ledger.total()[0].calls == 180
        assert [one.cost for one in ledger.total(by=("run",))] == [Money(60 * 7)] * 3
        assert (account(ledger).held, account(ledger).settled) == (0, 180 * 7)
        assert ledger.verify() == []


@pytest.mark.parametrize("lines", [3, 40])
def test_a_process_killed_while_it_settles_leaves_calls_whole(postgres_url: str, lines: int) -> None:
    with PostgresLedger(postgres_url) as ledger:
        ledger.put_budget(budget(limit=10**9))
        with (
            settler(postgres_url, "x", fold=5, calls=10_000) as one,
            settler(postgres_url, "y", fold=5, calls=60) as other,
        ):
            go(one)
            go(other)
            assert one.stdout is not None
            said = [one.stdout.readline() for _ in range(lines)]
            one.kill()
            said += one.communicate(timeout=60)[0].splitlines()
            assert other.communicate(timeout=120)[0].splitlines()[-1] == "done"
        told = {word: {line.split()[1] for line in said if line.startswith(word)} for word in ("granted", "settled")}
        entered = {one.call_id for one in ledger.read()}
        held = {one.hold_id for one in ledger.holds() if one.state in {"open", "suspect"}}
        assert told["settled"] | {f"y-{turn}" for turn in range(60)} <= entered
        assert told["granted"] <= entered | held
        assert entered == {one.hold_id for one in ledger.holds("settled")}
        assert account(ledger).settled == 7 * len(entered) == ledger.total()[0].cost.pico
        assert ledger.verify() == []
