"""tally export, through the command line, with a real ledger and real files."""

import csv
import io
import json
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest

import tallystick
from tallystick.cli import run
from tallystick.core.money import Money
from tallystick.core.usage import Usage
from tallystick.insight.export import COLUMNS
from tallystick.ledger.entry import Correction
from tallystick.ledger.jsonform import entry_from_json

AT = datetime(2026, 10, 1, 12, tzinfo=UTC)


@pytest.fixture
def calls():
    entries = [
        tallystick.record(Usage(input=1000, output=10), "gpt-5", provider="openai", at=AT, run="research", user="ada"),
        tallystick.record(Usage({"input": 7, "fee:web_search": 2}), "claude-sonnet-4-5", provider="anthropic", at=AT),
        tallystick.record(Usage(input=5), "nobody-knows-it", at=AT + timedelta(days=1), note="=HYPERLINK(1)"),
        tallystick.record(None, "gpt-5", provider="openai", at=AT + timedelta(days=2), note='ünï, "quoted"\nline'[:12]),
        tallystick.record(
            {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10, "cost": 0.5}, "anthropic/claude-sonnet-4.5",
            provider="openrouter", at=AT + timedelta(days=3),
        ),
    ]  # fmt: skip
    with tallystick.open() as ledger:
        ledger.append(
            [
                Correction(
                    correction_id="c1", corrects=entries[0].call_id, recorded_at=AT, reason="late",
                    fields={"usage": {"input": 1000, "output": 20}},
                )
            ]
        )  # fmt: skip
    return entries


def read():
    with tallystick.open(read_only=True) as ledger:
        return list(ledger.read())


def export(capsysbinary, *argv, code=0):
    assert run(["export", *map(str, argv)]) == code
    out, err = capsysbinary.readouterr()
    assert b"Traceback" not in err
    return out, err.decode()


def test_json_lines_can_be_read_back(calls, capsysbinary):
    out, _ = export(capsysbinary)
    rows = [json.loads(line) for line in out.decode().splitlines()]
    assert [entry_from_json(row).to_json() for row in rows] == rows == [entry.to_json() for entry in read()]
    assert rows[0]["usage"] == {"input": 1000, "output": 20}
    assert rows[3]["usage"] is None


def test_what_was_exported_makes_the_same_ledger(calls, capsysbinary, tmp_path):
    export(capsysbinary, "--out", tmp_path / "calls.jsonl")
    with tallystick.open(tmp_path / "other.db") as other:
        lines = (tmp_path / "calls.jsonl").read_text().splitlines()
        other.append([entry_from_json(json.loads(line)) for line in lines])
        with tallystick.open(read_only=True) as ledger:
            assert other.total(by=("model",)) == ledger.total(by=("model",))
            assert [entry.to_json() for entry in other.read()] == [entry.to_json() for entry in ledger.read()]


def test_csv_has_a_column_per_field_and_kind(calls, capsysbinary):
    out, _ = export(capsysbinary, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out.decode(), newline="")))
    assert tuple(rows[0]) == COLUMNS
    entries = read()
    assert [row["call_id"] for row in rows] == [entry.call_id for entry in entries]
    assert rows[0]["input"] == "1000"
    assert Money.usd(rows[0]["cost_usd"]) == entries[0].amount
    assert (rows[1]["fees"], rows[1]["cost_usd"]) == ('{"fee:web_search": 2}', entries[1].amount.plain())
    assert (rows[2]["cost_usd"], rows[2]["input"]) == ("", "5")
    assert (rows[3]["input"], rows[3]["cost_usd"]) == ("", "")
    assert rows[4]["cost_basis"] == "reported"
    assert json.loads(rows[0]["tags"]) == {"user": "ada"}


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1"])
def test_cells_that_a_spreadsheet_would_run_are_quoted(text, capsysbinary):
    with tallystick.open() as ledger:
        entry = tallystick.record(Usage(input=1), "gpt-5", at=AT)
        ledger.append([msgspec.structs.replace(entry, call_id="x", step=text, provider_response_id=text)])
    out, _ = export(capsysbinary, "--format", "csv")
    row = list(csv.DictReader(io.StringIO(out.decode(), newline="")))[1]
    assert row["step"] == row["provider_response_id"] == "'" + text


def test_since_until_and_tags(calls, capsysbinary):
    out, _ = export(capsysbinary, "--tag", "user=ada")
    assert len(out.splitlines()) == 1
    out, _ = export(capsysbinary, "--since", "2026-10-02", "--until", "2026-10-04T12:00:00Z")
    assert len(out.splitlines()) == 2
    _, err = export(capsysbinary, "--since", "soon", code=2)
    assert "is not a date" in err


def test_a_file_appears_whole_and_private(calls, capsysbinary, tmp_path):
    path = tmp_path / "calls.csv"
    _, err = export(capsysbinary, "--out", path)
    assert "5 calls written" in err
    assert path.read_bytes().startswith(b"call_id,")
    assert path.stat().st_mode & 0o077 == 0
    assert [part.name for part in tmp_path.iterdir()] == ["calls.csv"]
    _, err = export(capsysbinary, "--out", tmp_path / "none" / "calls.csv", code=2)
    assert "cannot be written" in err


def test_half_a_surrogate_pair_survives(capsysbinary):
    entry = tallystick.record(Usage(input=1), "gpt-5", at=AT)
    from tallystick.insight.export import csv_lines, json_lines

    odd = msgspec.structs.replace(entry, step="\ud800")
    assert entry_from_json(json.loads(b"".join(json_lines([odd])))) == odd
    assert b"\\ud800" in b"".join(csv_lines([odd]))


def test_an_empty_ledger(capsysbinary):
    out, err = export(capsysbinary, "--format", "csv")
    assert len(out.splitlines()) == 1
    assert "no ledger" in err


def test_parquet(calls, capsysbinary, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "calls.parquet"
    export(capsysbinary, "--out", path)
    table = parquet.read_table(path)
    assert tuple(table.column_names) == COLUMNS
    rows, entries = table.to_pylist(), read()
    assert [row["call_id"] for row in rows] == [entry.call_id for entry in entries]
    assert rows[0]["started_at"] == AT
    assert rows[0]["cost_usd"] == entries[0].amount.to_decimal()
    assert isinstance(rows[0]["cost_usd"], Decimal)
    assert rows[3]["input"] is None
    assert rows[0]["owed"] is True


def test_parquet_without_pyarrow_says_what_to_install(calls, capsysbinary, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    _, err = export(capsysbinary, "--out", tmp_path / "calls.parquet", code=2)
    assert "pip install pyarrow" in err
    assert list(tmp_path.iterdir()) == []
    _, err = export(capsysbinary, "--format", "parquet", code=2)
    assert "--out" in err
