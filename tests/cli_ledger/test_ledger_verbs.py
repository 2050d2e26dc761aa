"""tally ledger, through the command line, with real files and other processes."""

import json
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

import tallystick
from tallystick import front
from tallystick.cli import run
from tallystick.core.usage import Usage

AT = datetime(2026, 10, 1, 12, tzinfo=UTC)


def tally(capsys, *argv, code=0):
    found = run(["ledger", *map(str, argv)])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert found == code, out + err
    return out + err


def fill(number=10):
    with tallystick.open() as ledger:
        for _ in range(number):
            tallystick.record(Usage(input=1000, output=10), "gpt-5", provider="openai", at=AT, ledger=ledger)


def total(path=None):
    with tallystick.open(path, read_only=True) as ledger:
        return ledger.total()


def test_verify_says_that_all_is_well(capsys):
    fill()
    assert "10 calls, everything agrees" in tally(capsys, "verify")
    assert json.loads(tally(capsys, "verify", "--json"))["differences"] == []


def test_verify_says_in_words_what_differs(capsys):
    fill()
    connection = sqlite3.connect(front.ledger_path())
    connection.execute("UPDATE entry SET cost_micro = cost_micro + 1 WHERE seq = (SELECT min(seq) FROM entry)")
    connection.commit()
    connection.close()
    text = tally(capsys, "verify", code=1)
    assert "its entry and corrections give" in text
    assert "Restore a backup" in text
    assert json.loads(tally(capsys, "verify", "--json", code=1))["differences"]


@pytest.mark.parametrize("verb", [("verify",), ("info",), ("compact",), ("backup", "copy.db")])
def test_without_a_ledger(capsys, verb, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    text = tally(capsys, *verb, code=6)
    assert "There is no ledger" in text
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_ledger(capsys, monkeypatch, tmp_path):
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE t (a)")
    connection.close()
    monkeypatch.setenv("TALLY_LEDGER", str(other))
    for verb in ("verify", "info", "compact"):
        assert "belongs to another program" in tally(capsys, verb, code=6)
    fill_path = tmp_path / "real.db"
    monkeypatch.setenv("TALLY_LEDGER", str(fill_path))
    fill(1)
    assert "belongs to another program" in tally(capsys, "restore", other, "--yes", code=6)
    assert total()[0].calls == 1


def test_backup_and_restore(capsys, tmp_path):
    fill(10)
    copy = tmp_path / "safe" / "copy.db"
    text = tally(capsys, "backup", copy)
    assert "Copied 10 calls" in text
    assert [part.name for part in copy.parent.iterdir()] == ["copy.db"]
    assert copy.stat().st_mode & 0o077 == 0
    before = total()
    fill(5)
    assert "already" in tally(capsys, "backup", copy, code=2)
    assert "already" in tally(capsys, "restore", copy, code=2)
    assert total()[0].calls == 15
    text = tally(capsys, "restore", copy, "--yes")
    assert "now holds 10 calls" in text
    assert total() == before
    (kept,) = Path(front.ledger_path()).parent.glob("*.replaced-*")
    assert str(kept) in text
    assert total(kept)[0].calls == 15
    # The restored ledger is a ledger: it takes calls and agrees with itself.
    fill(1)
    assert "11 calls, everything agrees" in tally(capsys, "verify")


def test_restore_where_there_is_no_ledger(capsys, tmp_path, monkeypatch):
    fill(3)
    tally(capsys, "backup", tmp_path / "copy.db")
    monkeypatch.setenv("TALLY_LEDGER", str(tmp_path / "new" / "ledger.db"))
    assert "now holds 3 calls" in tally(capsys, "restore", tmp_path / "copy.db")
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0


def test_restore_refuses_a_copy_that_does_not_agree_with_itself(capsys, tmp_path):
    fill(3)
    copy = tmp_path / "copy.db"
    tally(capsys, "backup", copy)
    connection = sqlite3.connect(copy)
    connection.execute("UPDATE entry SET output = output + 1")
    connection.commit()
    connection.close()
    assert "does not agree with itself" in tally(capsys, "restore", copy, "--yes", code=6)
    assert total()[0].usage.output_tokens == 30


def test_a_ledger_is_not_copied_onto_itself(capsys):
    fill(1)
    path = front.ledger_path()
    assert "itself" in tally(capsys, "backup", path, "--yes", code=2)
    assert "itself" in tally(capsys, "restore", path, "--yes", code=2)


HOLDER = """
import sys, tallystick
from tallystick.core.usage import Usage
with tallystick.open() as ledger:
    tallystick.record(Usage(input=1), "gpt-5", ledger=ledger)
    print("ready", flush=True)
    sys.stdin.readline()
"""


def test_restore_waits_until_nobody_has_the_ledger_open(capsys, tmp_path):
    fill(2)
    tally(capsys, "backup", tmp_path / "copy.db")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "ready\n"
        text = tally(capsys, "restore", tmp_path / "copy.db", "--yes", code=6)
        assert "in use by another program" in text
        other.stdin.write("\n")
        other.stdin.flush()
        other.wait()
    assert total()[0].calls == 3
    assert not list(Path(front.ledger_path()).parent.glob("*.restored*"))
    tally(capsys, "restore", tmp_path / "copy.db", "--yes")
    assert total()[0].calls == 2


STEPPING = """
import sys, tallystick
from tallystick.core.usage import Usage
with tallystick.open() as ledger:
    while sys.stdin.readline():
        tallystick.record(Usage(input=1), "gpt-5", ledger=ledger)
        print("done", flush=True)
"""


@pytest.mark.parametrize("killed", [True, False])
def test_a_program_that_comes_and_goes_costs_another_no_call(killed):
    with subprocess.Popen(
        [sys.executable, "-c", STEPPING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:

        def step():
            other.stdin.write("\n")
            other.stdin.flush()
            assert other.stdout.readline() == "done\n"

        step()
        for _ in range(2):
            visitor = (
                "import tallystick as t; from tallystick.core.usage import Usage; t.record(Usage(input=1), 'gpt-5')"
            )
            subprocess.run([sys.executable, "-c", visitor], check=True)
            step()
        if killed:
            other.kill()
        other.stdin.close()
        other.wait()
    assert total()[0].calls == 5


def test_a_backup_of_a_ledger_in_use_is_of_one_instant(capsys, tmp_path):
    fill(1)
    stop = threading.Event()

    def write():
        with tallystick.open() as ledger:
            while not stop.is_set():
                tallystick.record(Usage(input=1000, output=10), "gpt-5", provider="openai", at=AT, ledger=ledger)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            copy = tmp_path / f"copy{number}.db"
            tally(capsys, "backup", copy)
            with tallystick.open(copy, read_only=True) as ledger:
                assert ledger.verify() == []
                assert ledger.total()[0].calls >= 1
    finally:
        stop.set()
        writer.join()


def test_compact_keeps_every_sum(capsys):
    fill(300)
    before = total()
    text = tally(capsys, "compact")
    assert "before" in text
    assert total() == before
    assert "everything agrees" in tally(capsys, "verify")
    fill(1)
    assert total()[0].calls == 301


def test_compact_while_another_program_has_it_open(capsys):
    fill(50)
    with subprocess.Popen(
        [sys.executable, "-c", STEPPING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        for _ in range(2):
            other.stdin.write("\n")
            other.stdin.flush()
            assert other.stdout.readline() == "done\n"
            tally(capsys, "compact")
        other.stdin.close()
        other.wait()
    assert total()[0].calls == 52
    assert "everything agrees" in tally(capsys, "verify")


def test_info(capsys):
    fill(3)
    text = tally(capsys, "info")
    assert "3 (2026-10-01 12:00 to 2026-10-01 12:00 UTC)" in text
    found = json.loads(tally(capsys, "info", "--json"))
    assert (found["calls"], found["corrections"], found["joined"], found["zone"]) == (3, 0, 0, "UTC")
    assert found["first"] == "2026-10-01T12:00:00.000000Z"
    assert found["size"] > 0
