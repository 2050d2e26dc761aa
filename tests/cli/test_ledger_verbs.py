"""record, log, report: the ledger from the command line."""

import json
import sqlite3

import pytest


def test_record_log_and_report(tally):
    said = tally("record", "gpt-4o", "--input", 1000, "--output", 100, "--tag", "user=ada", "--run", "r1")
    assert said.code == 0
    assert "$0.0035" in said.out
    row = json.loads(tally("log", "--json").out)
    assert row["schema"] == 1
    assert row["usage"] == {"input": 1000, "output": 100}
    assert row["cost"]["amount"] == {"usd": "0.0035"}
    assert row["tags"] == {"user": "ada"}
    assert row["run_id"] == "r1"
    assert "user=ada" in tally("log").out
    assert "$0.0035" in tally("report", "--by", "user").out
    total = tally("report", "--json").json["total"]
    assert (total["calls"], total["cost"], total["complete"]) == (1, {"usd": "0.0035"}, True)


def test_an_unknown_model_is_recorded_without_a_cost(tally):
    assert tally("record", "gpt-4q", "--input", 10).code == 3
    assert json.loads(tally("log", "--json").out)["cost"] is None
    for words in (("log",), ("report",), ("report", "--by", "provider", "--per", "day")):
        said = tally(*words)
        assert "unknown" in said.out
        assert "$0.00" not in said.out
    assert tally("report", "--json").json["total"]["cost"] is None
    assert tally("report").code == 0
    assert tally("report", "--strict").code == 4
    tally("record", "gpt-4o", "--input", 1000)
    assert "at least $0.0025" in tally("report").out
    assert "1 call without a price" in tally("report").out


def test_unknown_usage(tally):
    assert tally("record", "gpt-4o", "--unknown-usage").code == 0
    row = json.loads(tally("log", "--json").out)
    assert (row["usage"], row["quality"], row["cost"]) == (None, "unknown", None)


def test_the_log_shows_the_last_fifty(tally):
    for number in range(1, 53):
        tally("record", "gpt-4o", "--input", number)
    rows = [json.loads(line) for line in tally("log", "--json").out.splitlines()]
    assert [row["usage"]["input"] for row in rows] == list(range(3, 53))
    assert len(tally("log", "--json", "--all").out.splitlines()) == 52
    assert len(tally("log", "--json", "-n", 5).out.splitlines()) == 5


def test_before_the_first_call(tally):
    for verb in ("log", "report"):
        said = tally(verb)
        assert (said.code, said.out) == (0, "No calls.\n")
        assert "no ledger" in said.err
    assert tally("log", "--json").out == ""


def test_days_are_the_ledgers_or_the_named_zones(tally):
    tally("record", "gpt-4o", "--input", 1000, "--at", "2026-11-01T23:30:00Z")
    assert tally("report", "--since", "2026-11-02", "--json").json["total"]["calls"] == 0
    shifted = tally("report", "--since", "2026-11-02", "--tz", "Europe/Berlin", "--per", "day", "--json").json
    assert shifted["total"]["calls"] == 1
    assert shifted["rows"][0]["start"] == "2026-11-01T23:00:00.000000Z"


@pytest.mark.parametrize("day", ["9999-01-01", "1999-01-01", "2014-12-31"])
def test_a_call_is_not_made_in_the_future_or_the_last_century(tally, day):
    said = tally("record", "gpt-4o", "--input", 1, "--at", day)
    assert said.code == 2
    assert "Nothing was written" in said.err
    assert tally("log").out == "No calls.\n"


def spoil_header(path):
    path.write_text("nonsense, but longer than the header of a database")


def spoil_owner(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.commit()
    connection.close()


@pytest.mark.parametrize("spoil", [spoil_header, spoil_owner])
def test_a_foreign_ledger_is_exit_6_and_left_alone(tally, tmp_path, monkeypatch, spoil):
    path = tmp_path / "theirs.db"
    spoil(path)
    before = path.read_bytes()
    monkeypatch.setenv("TALLY_LEDGER", str(path))
    for words in (("report",), ("log",), ("record", "gpt-4o", "--input", "1")):
        said = tally(*words)
        assert said.code == 6
        assert str(path) in said.err
    assert path.read_bytes() == before


def test_a_folder_is_not_a_ledger(tally, tmp_path, monkeypatch):
    monkeypatch.setenv("TALLY_LEDGER", str(tmp_path))
    assert tally("record", "gpt-4o", "--input", 1).code == 6
    assert tally("report").code == 6


def test_a_locked_ledger_is_exit_6_and_intact(tally, tmp_path, monkeypatch):
    from tallystick.ledger import sqlite

    path = tmp_path / "ledger.db"
    monkeypatch.setenv("TALLY_LEDGER", str(path))
    tally("record", "gpt-4o", "--input", 1)
    monkeypatch.setattr(sqlite.SqliteLedger.__init__, "__kwdefaults__", {
        **sqlite.SqliteLedger.__init__.__kwdefaults__, "timeout": 0.05,
    })  # fmt: skip
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    said = tally("record", "gpt-4o", "--input", 1)
    other.execute("ROLLBACK")
    other.close()
    assert said.code == 6
    assert "locked" in said.err
    assert tally("report", "--json").json["total"]["calls"] == 1


def test_foreign_text_reaches_no_terminal_as_control_characters(tally):
    name = "evil\u202e[bold]\u200bname"
    assert tally("record", "gpt-4o", "--input", 1, "--tag", f"user={name}").code == 0
    assert tally("record", "[red]x[/red]", "--input", 1).code == 3
    for words in (("log",), ("report", "--by", "user,model")):
        out = tally(*words).out
        assert "\u202e" not in out
        assert "\u200b" not in out
        assert "[bold]" in out
        assert "[red]x[/red]" in out
    assert tally("record", "gpt\x1b[31m", "--input", 1).code == 2
    assert "\x1b" not in tally("price", "gpt\x1b[31m", "--input", 1).err
    assert tally("record", "gpt-4o", "--input", 1, "--tag", "a=\x1b[2J").code == 2


def test_narrow_and_wide_terminals(tally, terminal):
    tally("record", "gpt-4o", "--input", 123456, "--output", 1000, "--tag", "project=a-rather-long-name-of-a-project")
    for width in (40, 60, 120):
        for verb in ("log", "report"):
            drawn = terminal(verb, columns=width).replace("\x1b[1m", "").replace("\x1b[0m", "")
            assert max(len(line) for line in drawn.splitlines() if "  " in line) <= max(width, 60)
            assert "123,456" in drawn
            assert "gpt-4o" in drawn


def test_report_order_and_periods(tally):
    tally("record", "gpt-4o", "--input", 1000, "--tag", "user=ada")
    tally("record", "gpt-4o", "--input", 9000, "--tag", "user=bob")
    lines = tally("report", "--by", "user").out.splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["user", "-" * len(lines[1]), "bob", "ada", "total"]
    assert tally("report", "--per", "fortnight").code == 2
    assert tally("report", "--tz", "Mars/Phobos").code == 2
    assert tally("report", "--since", "someday").code == 2
