"""report, daily, monthly, blocks, top: called as a person calls them."""

import csv
import io
import json
from datetime import timedelta

import pytest
from report_samples import NOW

import tallystick
from tallystick.cli import run


@pytest.fixture
def tally(capsys, monkeypatch, rates):
    """Runs a command at a fixed instant; exit code, output, complaints."""
    monkeypatch.setattr("tallystick.front.now", lambda: NOW)

    def call(*words):
        capsys.readouterr()
        code = run([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def some(rates):
    for days in (0, 1, 8, 40):
        at = NOW - timedelta(days=days)
        tallystick.record(
            {"input": 1000, "output": 100}, "model-a", at=at, run=f"run-{days}", user="ada", feature="=cmd"
        )
        tallystick.record({"input": 1000}, "model-b", at=at, tags={"status": "odd"})


def test_short_forms_are_reports(tally, some):
    for verb, per, since in (
        ("daily", "day", "2026-10-23"),
        ("monthly", "month", None),
        ("blocks", "block", "2026-11-15"),
    ):
        short = json.loads(tally(verb, "--json")[1])
        words = ["report", "--per", per, "--json", *(["--since", since] if since else [])]
        assert short == json.loads(tally(*words)[1])
    assert "Since 2026-10-23; --since shows more." in tally("daily")[1]
    assert "shows more" not in tally("daily", "--since", "2026-01-01")[1]
    assert len(json.loads(tally("daily", "--since", "2026-01-01", "--json")[1])["rows"]) == 4


def test_options(tally, some):
    assert len(json.loads(tally("report", "--by", "user,model", "--by", "feature", "--json")[1])["rows"]) == 2
    rows = list(csv.DictReader(io.StringIO(tally("report", "--by", "feature", "--csv")[1])))
    assert [row["feature"] for row in rows] == ["'=cmd", ""]
    assert tally("report", "--csv", "--json")[0] == 2
    assert tally("report", "--model", "model-b", "--json")[0] == 0
    assert json.loads(tally("report", "--tag", "user=ada", "--json")[1])["total"]["calls"] == 4
    out = tally("report", "--breakdown")[1]
    assert "kind" in out
    assert "$0.012" in out  # four times 1,000 input tokens at $2, and at $1 a million
    assert tally("report", "--strict")[0] == 0
    tallystick.record({"input": 1}, "mystery", provider="openai", at=NOW)
    assert tally("report", "--strict")[0] == 4


def test_percentiles(tally, some):
    out = tally("report", "--spread")[1]
    assert "cost p95" in out
    assert "within 1.6 %" in out
    assert len(json.loads(tally("report", "--by", "user", "--spread", "--json")[1])["spreads"]) == 2
    assert json.loads(tally("report", "--json")[1])["spreads"] is None
    assert "no percentiles" in tally("blocks", "--spread")[2]


def test_nothing_yet(tally):
    for words in (
        ("report",),
        ("daily",),
        ("monthly",),
        ("blocks",),
        ("top",),
        ("live", "--once"),
        ("report", "--csv"),
    ):
        code, out, err = tally(*words)
        assert code == 0, words
        assert "there is no ledger" in err
        assert out
    assert tally("daily")[1] == "No calls since 2026-10-23.\n"


def test_top(tally, some):
    code, out, _ = tally("top", "-n", 2)
    assert code == 0
    heads = [line.split()[0] for line in out.splitlines() if line.endswith("cost")]
    assert heads == ["model", "run", "feature", "tag:status", "user"]
    assert "and 1 more: --number shows them." in out
    found = json.loads(tally("top", "--by", "model", "--since", "2026-01-01", "--json")[1])
    assert [row["group"]["model"] for row in found["model"]] == ["model-a", "model-b"]
    tallystick.record({"input": 1}, "mystery", provider="openai", at=NOW)
    assert tally("top", "--by", "model")[1].splitlines()[-1].split() == ["mystery", "1", "unknown"]
    assert tally("top", "--until", "2020-01-01")[1] == "No calls since 2026-10-23.\n"


def test_very_many_calls_are_not_looked_through_for_tags(tally, some, monkeypatch):
    monkeypatch.setattr("tallystick.cli.top.READ_UP_TO", 1)
    out = tally("top")[1]
    assert "user" in out
    assert "feature" not in out


def test_help_has_an_example(tally):
    for verb in ("report", "daily", "monthly", "blocks", "top", "live", "chart", "statusline"):
        code, out, _ = tally(verb, "--help")
        assert code == 0
        assert "Example: tally" in out
