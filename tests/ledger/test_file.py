"""The file: what it survives, and what it says when it cannot."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ledger_samples import NOW, Clock, correction, cost, entry

from tallystick.core.attribution import Tags
from tallystick.core.periods import Period
from tallystick.core.usage import Usage
from tallystick.errors import ConfigError, ConflictError, InputError, LedgerCorrupt, LedgerError, LedgerUnavailable
from tallystick.ledger.paths import default_path
from tallystick.ledger.query import Query
from tallystick.ledger.sqlite import SqliteLedger

HERE = Path(__file__).parent
APPENDER = """
import sys
sys.path[:0] = [{here!r}]
from ledger_samples import entry
from tallystick.ledger.sqlite import SqliteLedger
ledger = SqliteLedger({file!r})
number = 0
while number < {limit}:
    names = [f"{name}-{{number + step:06}}" for step in range(1 + number % 3)]
    ledger.append([entry(name, run_id="r") for name in names], durable=number % 7 == 0)
    print(*names, flush=True)
    number += len(names)
"""


def appender(file: Path, name: str, limit: int) -> subprocess.Popen[str]:
    script = APPENDER.format(here=str(HERE), file=str(file), name=name, limit=limit)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment)


def test_a_killed_process_loses_nothing_it_had_acknowledged(file: Path) -> None:
    for round_number in range(5):
        process = appender(file, f"round{round_number}", 10**9)
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        time.sleep(0.02 * round_number)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
        lines += rest.splitlines(keepends=True)
        process.stdout.close()
        process.wait()
        # A line that was cut off by the kill was acknowledged all the same, but its last name may be short.
        names = [name for line in lines if line.endswith("\n") for name in line.split()]
        assert names
        with SqliteLedger(file) as ledger:
            written = {one.call_id for one in ledger.read()}
            assert written.issuperset(names)
            assert ledger.verify() == []


def test_two_processes_append_at_once(file: Path) -> None:
    processes = [appender(file, name, 300) for name in ("left", "right")]
    lines = [process.communicate(timeout=60)[0] for process in processes]
    with SqliteLedger(file) as ledger:
        assert {one.call_id for one in ledger.read()} == {name for text in lines for name in text.split()}
        assert ledger.total(by=("run",))[0].calls == ledger.total()[0].calls >= 600
        assert ledger.verify() == []


def test_many_threads_share_one_ledger(file: Path) -> None:
    with SqliteLedger(file) as ledger:

        def work(name: int) -> None:
            for number in range(40):
                ledger.append([entry(f"{name}-{number}")], durable=number == 0)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ledger.total()[0].calls == 320
        assert ledger.verify() == []


def test_of_appends_committed_together_each_fails_alone(file: Path) -> None:
    with SqliteLedger(file) as ledger:
        ledger.append([entry("old", run_id="r")])
        with ledger._desk.writing:
            futures = [
                ledger.submit([entry("a", run_id="s", tags=Tags(user="new"))]),
                ledger.submit([entry("b", run_id="t"), entry("old", model="other", run_id="u")]),
                ledger.submit([correction("a", owed=False)]),
                ledger.submit([correction("nobody", "fix-2", owed=False)]),
                ledger.submit([entry("c", run_id="u")], durable=True),
            ]
        errors = [type(future.exception(10)) for future in futures]
        assert errors == [type(None), ConflictError, type(None), InputError, type(None)]
        assert [one.call_id for one in ledger.read()] == ["old", "a", "c"]
        assert ledger.total(Query(run_id="u"))[0].calls == 1
        assert ledger.verify() == []


def test_a_long_append_with_a_known_entry(file: Path) -> None:
    with SqliteLedger(file) as ledger:
        ledger.append([entry("0")])
        receipt = ledger.append([entry(f"{number}", usage=Usage(input=2**51)) for number in range(1, 2500)])
        assert receipt.written == 2499
        receipt = ledger.append([entry("0"), *[entry(f"x{number}") for number in range(1500)]])
        assert (receipt.written, receipt.known) == (1500, 1)
        assert ledger.total()[0].usage["input"] == 2499 * 2**51 + 1501 * 1000
        with pytest.raises(LedgerError, match="would pass what it can count"):
            ledger.append([entry(f"y{number}", usage=Usage(input=2**53 - 1)) for number in range(1200)])
        assert ledger.total()[0].calls == 4000
        assert ledger.verify() == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_of_our_own_is_never_taken_for_success(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SqliteLedger(file) as ledger:
        ledger.append([entry()])

        def fail(*_: object) -> str:
            raise RuntimeError("a fault of our own")

        monkeypatch.setattr("tallystick.ledger.book.link_hash", fail)
        with pytest.raises(LedgerUnavailable, match="writer failed"):
            ledger.append([entry("b")])
        monkeypatch.undo()
        with pytest.raises(LedgerUnavailable, match="writer failed"):
            ledger.append([entry("c")])
        assert ledger.total()[0].calls == 1


def test_rights_and_settings(file: Path) -> None:
    with SqliteLedger(file) as ledger:
        ledger.append([entry()], durable=True)
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.with_name("ledger.db-wal").stat().st_mode & 0o777 == 0o600
        assert file.parent.stat().st_mode & 0o777 == 0o700
    connection = sqlite3.connect(file)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("SELECT call_id, provider, usd_about FROM calls").fetchall() == [
        ("call-1", "openai", 0.0035)
    ]
    connection.close()


def test_a_locked_ledger_says_so_and_goes_on_afterwards(file: Path) -> None:
    with SqliteLedger(file, timeout=0.02) as ledger:
        ledger.append([entry()])
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerUnavailable, match="is locked"):
            ledger.append([entry("call-2")])
        other.execute("ROLLBACK")
        other.close()
        ledger.append([entry("call-3")])
        assert [one.call_id for one in ledger.read()] == ["call-1", "call-3"]
        assert ledger.verify() == []


def test_read_only(file: Path) -> None:
    with SqliteLedger(file) as ledger:
        ledger.append([entry()])
    with SqliteLedger(file, read_only=True) as ledger:
        assert ledger.total()[0].calls == 1
        for attempt in (lambda: ledger.append([entry("b")]), lambda: ledger.state("a", "b", "c")):
            with pytest.raises(LedgerUnavailable, match="read-only"):
                attempt()
    with pytest.raises(LedgerUnavailable):
        SqliteLedger(file.with_name("missing.db"), read_only=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_file_that_may_not_be_written(file: Path) -> None:
    with SqliteLedger(file) as ledger:
        ledger.append([entry()])
    file.chmod(0o400)
    with pytest.raises(LedgerUnavailable):
        SqliteLedger(file)


def test_files_that_are_no_ledger_are_left_alone(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("Dear diary, today I spent nothing.")
    with pytest.raises(LedgerCorrupt, match="not a database"):
        SqliteLedger(file)
    foreign = file.with_name("foreign.db")
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE diary (day)")
    connection.close()
    before = foreign.read_bytes()
    with pytest.raises(LedgerCorrupt, match="another program"):
        SqliteLedger(foreign)
    assert foreign.read_bytes() == before
    with pytest.raises(LedgerUnavailable):
        SqliteLedger(file.parent)


def test_a_ledger_of_a_newer_version_is_refused(file: Path) -> None:
    SqliteLedger(file).close()
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(LedgerUnavailable, match="newer"):
        SqliteLedger(file)


def test_a_damaged_file_is_noticed(file: Path) -> None:
    with SqliteLedger(file) as ledger:
        ledger.append([entry(f"{number}", usage_raw="x" * 900) for number in range(300)])
    content = bytearray(file.read_bytes())
    for page in range(60, len(content) // 4096):
        content[page * 4096 : page * 4096 + 100] = b"\xff" * 100
    file.write_bytes(content)
    with SqliteLedger(file) as ledger:
        assert "damaged" in ledger.verify()[0]
        with pytest.raises(LedgerCorrupt, match="damaged"):
            list(ledger.read())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE entry SET body = (SELECT body FROM entry WHERE seq = 2)", "is not what was written"),
        ("UPDATE entry SET cost_micro = 1", "stands as"),
        ("UPDATE entry SET seq = 99 WHERE seq = 2", "were written in batches"),
        ("DELETE FROM response", "index of responses"),
        ("DELETE FROM sheet WHERE axis = 0", "sums of dimensions"),
        ("DELETE FROM sheet WHERE axis > 0", "sums of day:team"),
        ("DELETE FROM sheet WHERE axis = -2", "sums of runs"),
        ("DELETE FROM run", "is missing"),
        ("DELETE FROM sheet_kind", "the entries give"),
        ("DELETE FROM batch WHERE batch_no = 0", "is missing"),
        ("DELETE FROM entry_kind", "rare kinds"),
    ],
)
def test_verify_notices_what_was_changed_behind_the_ledgers_back(
    file: Path, change: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tallystick.ledger.book.FOLD_CALLS", 1)
    with SqliteLedger(file) as ledger:
        ledger.append([entry(run_id="r", usage=Usage(input=1, images=2), provider_response_id="x")])
        ledger.append([entry("b")])
        assert ledger.verify() == []
    connection = sqlite3.connect(file)
    # The tables refer to each other by number only, so SQLite lets all of this pass.
    connection.execute(change)
    connection.commit()
    connection.close()
    with SqliteLedger(file) as ledger:
        assert any(words in line for line in ledger.verify())


def test_what_is_pending_counts_like_what_is_folded_in(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tallystick.ledger.book.FOLD_CALLS", 7)
    with SqliteLedger(file) as one, SqliteLedger(file) as other:
        for number in range(10):
            # Two writers take turns, so that each meets what the other has left pending or has folded in.
            name, ledger = f"{number}", (one, other)[number % 2]
            ledger.append([entry(name, provider_response_id=name, source="log", usage=Usage(input=1, images=1))])
            ledger.append([entry(f"again-{name}", provider_response_id=name, source="log")])
            assert one.total()[0].calls == other.total()[0].calls == 2 * number + 2
        receipt = other.append([entry(f"seen-{number}", provider_response_id=f"{number}") for number in range(10)])
        assert receipt.written == 10
        assert one.total()[0].calls == 10
        assert [row.calls for row in one.total(by=("source",))] == [10]
        assert one.verify() == []
        pending = sqlite3.connect(file).execute("SELECT count(*) FROM pending").fetchone()
        assert pending == (0,)


def test_damaged_sums_that_are_pending_are_noticed(file: Path) -> None:
    with SqliteLedger(file) as ledger:
        ledger.append([entry()])
        ledger.append([entry("b")])
    connection = sqlite3.connect(file)
    connection.execute("DELETE FROM pending WHERE batch = 1")
    connection.commit()
    with SqliteLedger(file) as ledger:
        assert "the entries give" in ledger.verify()[0]
        connection.execute("UPDATE pending SET body = x'c1'")
        connection.commit()
        assert "damaged" in ledger.verify()[0]
        with pytest.raises(LedgerCorrupt, match="cannot be read"):
            ledger.total()
    connection.close()


FULL = """
import resource, signal, sys
sys.path[:0] = [{here!r}]
from ledger_samples import entry
from tallystick.errors import LedgerUnavailable
from tallystick.ledger.sqlite import SqliteLedger
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = SqliteLedger({file!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
number = 0
try:
    while number < 5000:
        ledger.append([entry(f"{{number}}", usage_raw="x" * 900)])
        number += 1
except LedgerUnavailable as error:
    print(number, error)
"""


def test_a_full_disk_is_said_and_nothing_is_lost(file: Path) -> None:
    script = FULL.format(here=str(HERE), file=str(file))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True, timeout=60
    )
    written, _, message = done.stdout.partition(" ")
    assert "disk" in message
    with SqliteLedger(file) as ledger:
        assert ledger.verify() == []
        assert ledger.total()[0].calls == int(written) > 3
        ledger.append([entry("after")])


def test_a_ledger_that_reached_its_size_goes_on_when_there_is_room(file: Path) -> None:
    with SqliteLedger(file) as ledger:
        ledger.append([entry()])
        pages = ledger._writer().execute("PRAGMA page_count").fetchone()[0]
        ledger._writer().execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(LedgerUnavailable, match="disk is full"):
            ledger.append([entry(f"more-{number}", usage_raw="x" * 900) for number in range(100)])
        ledger._writer().execute("PRAGMA max_page_count = 1000000")
        ledger.append([entry("call-2")])
        assert [one.call_id for one in ledger.read()] == ["call-1", "call-2"]
        assert ledger.verify() == []


def test_a_disk_that_does_not_keep_what_was_written(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    ledger = SqliteLedger(file)
    monkeypatch.setattr("tallystick.ledger.synclog._datasync", fail)
    with pytest.raises(LedgerUnavailable, match="did not keep"):
        ledger.append([entry()], durable=True)
    with pytest.raises(LedgerUnavailable, match="did not keep"):
        ledger.append([entry("b")])
    monkeypatch.undo()
    ledger.close()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_writes_on_its_own(file: Path) -> None:
    with SqliteLedger(file) as ledger:
        ledger.append([entry("before")])
        list(ledger.read())
        child = multiprocessing.get_context("fork").Process(target=lambda: ledger.append([entry("child")]))
        child.start()
        ledger.append([entry("parent")])
        child.join(20)
        assert child.exitcode == 0
        assert {one.call_id for one in ledger.read()} == {"before", "child", "parent"}
        assert ledger.verify() == []


def test_what_was_submitted_is_written_when_python_ends(file: Path) -> None:
    script = APPENDER.format(here=str(HERE), file=str(file), name="x", limit=0) + 'ledger.submit([entry("last")])'
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=60)
    with SqliteLedger(file) as ledger:
        assert [one.call_id for one in ledger.read()] == ["last"]


def test_another_time_zone_moves_the_days(file: Path) -> None:
    with SqliteLedger(file, zone="UTC") as ledger:
        ledger.append(
            [entry(f"{hour}", started_at=NOW.replace(hour=hour), usage=Usage(images=1)) for hour in (3, 5, 20)]
        )
        ledger.rezone("America/New_York")
        days = ledger.total(per=Period("day", "America/New_York"))
        assert [row.calls for row in days] == [1, 2]
        ledger.append([entry("late", started_at=NOW.replace(hour=4, minute=59))])
        assert ledger.total(per=Period("day", "America/New_York"))[0].calls == 2
        assert ledger.verify() == []
        with pytest.raises(InputError):
            ledger.rezone("Mars/Olympus")
    with SqliteLedger(file) as ledger:
        assert ledger.zone == "America/New_York"


def test_quarters_are_dropped_after_62_days(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tallystick.ledger.book.FOLD_CALLS", 1)
    clock = Clock()
    with SqliteLedger(file, clock=clock) as ledger:
        ledger.append([entry("old", usage=Usage(images=1))])
        clock.now = NOW.replace(year=2027)
        ledger.append([entry("new", started_at=clock.now), entry("older")])
        connection = sqlite3.connect(file)
        slots = "SELECT count(*) FROM sheet WHERE axis IN (SELECT id FROM word WHERE text = 'slot:provider')"
        assert connection.execute(slots).fetchone() == (1,)
        connection.close()
        assert ledger.total(Query(since=NOW, until=NOW.replace(year=2027)), by=("source",))[0].calls == 2
        assert ledger.verify() == []


def test_a_copy_of_the_file_is_a_ledger(file: Path) -> None:
    with SqliteLedger(file) as ledger:
        ledger.append([entry(cost=cost(5))])
    shutil.copy(file, file.with_name("copy.db"))
    with SqliteLedger(file.with_name("copy.db")) as ledger:
        assert ledger.verify() == []


def test_where_the_ledger_lives() -> None:
    home = {"HOME": "/home/ada"}
    cases: list[tuple[dict[str, str], str, str]] = [
        (home, "linux", "/home/ada/.local/share/tallystick/ledger.db"),
        ({**home, "XDG_DATA_HOME": "/data"}, "linux", "/data/tallystick/ledger.db"),
        ({**home, "XDG_DATA_HOME": "data"}, "linux", "/home/ada/.local/share/tallystick/ledger.db"),
        (home, "darwin", "/home/ada/Library/Application Support/tallystick/ledger.db"),
        ({"LOCALAPPDATA": "/local"}, "win32", "/local/tallystick/ledger.db"),
        ({"USERPROFILE": "/ada"}, "win32", "/ada/AppData/Local/tallystick/ledger.db"),
    ]
    for env, platform, path in cases:
        assert default_path(env, platform) == Path(path)
    with pytest.raises(ConfigError, match="HOME"):
        default_path({}, "linux")
