"""The status line: what the ledger says, in one line, and silence where there is none."""

import os
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from report_samples import NOW, call

import tallystick
from tallystick import front
from tallystick.cli import run
from tallystick.cli.quick import place, statusline
from tallystick.insight import statusline as line_module
from tallystick.insight.blocks import block_of, blocks_in
from tallystick.insight.statusline import status_line
from tallystick.ledger.query import Query
from tallystick.ledger.sqlite import SqliteLedger

SOURCE = Path(__file__).resolve().parents[2] / "src"
DOLLAR = 10**12


@pytest.fixture
def fill(tmp_path):
    """Makes a ledger's file and returns its path."""
    made = []

    def fill_one(*entries, zone="UTC"):
        path = tmp_path / f"a folder {len(made)}?#%.db"
        made.append(path)
        with SqliteLedger(path, zone=zone) as ledger:
            if entries:
                ledger.append(list(entries))
        return str(path)

    return fill_one


def test_today_and_the_block(fill):
    path = fill(
        call(1, NOW, 123 * DOLLAR // 100),
        call(2, NOW - timedelta(hours=8), 2 * DOLLAR),
        call(3, NOW - timedelta(days=1), DOLLAR),
    )
    assert status_line(path, NOW) == "$3.23 today · block $1.23, 4h25m left"
    assert status_line(path, NOW + timedelta(hours=9)) == "$3.23 today"
    assert status_line(path, NOW + timedelta(days=3)) == "no calls today"
    assert status_line(fill(), NOW) == "no calls today"


def test_what_is_not_known_says_so(fill):
    assert status_line(fill(call(1, pico=None)), NOW).startswith("unknown today · block unknown,")
    assert status_line(fill(call(1, pico=None), call(2, pico=DOLLAR)), NOW).startswith("at least $1.00 today")
    assert status_line(fill(call(1, pico=DOLLAR, quality="lower_bound")), NOW).startswith("at least $1.00 today")
    assert status_line(fill(call(1, pico=1)), NOW).startswith("under $0.01 today")
    assert status_line(fill(call(1, pico=1), call(2, pico=None)), NOW).startswith("unknown today")
    covered = status_line(fill(call(1, pico=DOLLAR, owed=False)), NOW)
    assert covered.startswith("API-equivalent $1.00 today, not a bill · block API-equivalent $1.00,")
    both = status_line(fill(call(1, pico=DOLLAR, owed=False), call(2, pico=DOLLAR)), NOW)
    assert both.startswith("$1.00 today + API-equivalent $1.00 today, not a bill")


def test_it_says_what_the_ledger_says(fill):
    chance = random.Random(7)
    for zone in ("UTC", "Asia/Kolkata", "America/New_York"):
        entries = [
            call(
                number,
                NOW - timedelta(minutes=chance.randrange(60 * 40)),
                chance.randrange(DOLLAR),
                provider_response_id=f"r{number % 25}",
                source=chance.choice(["client", "log"]),
            )
            for number in range(30)
        ]
        path = fill(*entries, zone=zone)
        with SqliteLedger(path) as ledger:
            midnight = NOW.astimezone(ZoneInfo(zone)).replace(hour=0, minute=0, second=0, microsecond=0)
            day = ledger.total(Query(since=midnight.astimezone(UTC), until=NOW + timedelta(microseconds=1)))[0]
            start = block_of(blocks_in(ledger, Query()), NOW)
            block = (
                None if start is None else ledger.total(Query(since=start, until=NOW + timedelta(microseconds=1)))[0]
            )
        line = status_line(path, NOW)
        cents = f"{round(day.cost.pico / DOLLAR, 2):.2f}"
        assert line.startswith(f"${cents} today"), zone
        assert (block is not None) == ("block" in line)
        if block is not None:
            assert f"block ${round(block.cost.pico / DOLLAR, 2):.2f}," in line


def test_very_many_calls_are_at_least(fill, monkeypatch):
    path = fill(*[call(number, NOW - timedelta(minutes=number), DOLLAR) for number in range(30)])
    monkeypatch.setattr(line_module, "MOST_CALLS", 10)
    monkeypatch.setattr(line_module, "_QUERY", line_module._QUERY.replace("LIMIT 10000", "LIMIT 10"))
    assert status_line(path, NOW) == "at least $10.00 today"


def test_it_is_never_loud(capsys, monkeypatch, tmp_path):
    (tmp_path / "other.db").write_text("nonsense")
    foreign = tmp_path / "foreign.db"
    import sqlite3

    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE entry (started_us)")
    connection.close()
    for bad in (tmp_path / "missing.db", tmp_path, tmp_path / "other.db", foreign, "a\0b"):
        monkeypatch.setitem(os.environ, "TALLY_LEDGER", str(bad).replace("\0", "")) if "\0" not in str(bad) else None
        assert statusline(NOW) == 0
        assert capsys.readouterr().out == "\n"
        assert statusline(NOW, strict=True) == 6
        said = capsys.readouterr()
        assert said.out == "\n"
        assert said.err.startswith("tally: the ledger cannot be used: ")
    monkeypatch.delenv("TALLY_LEDGER")
    config = tmp_path / "tally.toml"
    config.write_text("ledger = nonsense")
    monkeypatch.setenv("TALLY_CONFIG", str(config))
    assert statusline(NOW) == 0
    monkeypatch.delenv("TALLY_CONFIG")
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_DATA_HOME")
    assert statusline(NOW) == 0


def test_it_asks_the_ledger_that_everything_else_asks(monkeypatch, tmp_path):
    monkeypatch.delenv("TALLY_LEDGER")
    monkeypatch.chdir(tmp_path)

    def same():
        assert place(os.environ) == str(front.ledger_path())

    same()
    folder = Path(os.environ["XDG_CONFIG_HOME"]) / "tallystick"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('timezone = "UTC"\n')
    same()
    (folder / "config.toml").write_text('ledger = "~/mine.db"\n')
    same()
    monkeypatch.delenv("XDG_CONFIG_HOME")
    same()
    (tmp_path / "tally.toml").write_text('[rates."ledger"]\ninput = "1"\n')
    same()
    (tmp_path / "tally.toml").write_text('ledger = "/x/y.db"\n')
    same()
    (tmp_path / "named.toml").write_text('ledger = "/named.db"\n')
    monkeypatch.setenv("TALLY_CONFIG", str(tmp_path / "named.toml"))
    same()
    monkeypatch.setenv("TALLY_LEDGER", "~/other.db")
    same()


def test_it_loads_little():
    code = "import sys; from tallystick.cli import run; run(['statusline']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint(
        {
            "click",
            "rich",
            "msgspec",
            "tomllib",
            "tallystick.front",
            "tallystick.catalog.catalog",
            "tallystick.ledger.sqlite",
        }
    )


def test_the_command(capsys, monkeypatch):
    tallystick.record({"input": 1}, "no-such-model", provider="openai")
    assert run(["statusline"]) == 0
    assert capsys.readouterr().out.startswith("unknown today")
    assert run(["statusline", "--strict"]) == 0
    assert run(["statusline", "--help"]) == 0
    assert run(["statusline", "--nonsense"]) == 2
    monkeypatch.setenv("TALLY_LEDGER", "/nowhere/at/all.db")
    assert run(["statusline", "--strict"]) == 6
    from click.testing import CliRunner

    from tallystick.cli import cli

    assert CliRunner().invoke(cli, ["statusline"]).output == "\n"


def test_it_reads_while_others_write(tmp_path):
    with SqliteLedger(tmp_path / "l.db") as ledger:
        ledger.append([call(1, datetime.now(UTC))])
        assert status_line(str(tmp_path / "l.db"), datetime.now(UTC)).startswith("under $0.01")
