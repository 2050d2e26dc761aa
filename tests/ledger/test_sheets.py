"""Sheets: sums of many values, and what is said when they are damaged."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from ledger_samples import NOW, Clock, cost, entry

from tallystick.core.attribution import Tags
from tallystick.core.periods import Period
from tallystick.core.usage import Usage
from tallystick.errors import LedgerCorrupt
from tallystick.ledger.entry import Entry
from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.query import Query
from tallystick.ledger.sqlite import SqliteLedger

MANY = 700
QUESTIONS = [
    (("user",), None),
    (("user",), Period("month")),
    (("run",), None),
    (("run",), Period("day")),
    (("user", "source"), None),
    (("model", "user"), Period("month")),
    (("maker", "quality", "key"), Period("day")),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "ledger.db"


def many_calls() -> list[Entry]:
    """Calls of many users in many runs over three months; every seventh has no user, every fifth no run."""
    return [
        entry(
            f"call-{number}",
            started_at=NOW - timedelta(hours=3 * number),
            model=f"model-{number % 4}",
            source=("client", "gateway", "log")[number % 3],
            usage=Usage(input=number, output=3, **({"images": 2} if number % 10 == 0 else {})),
            cost=cost(number * 10**9 + 1),
            tags=Tags({"key": f"k{number % 2}"} | ({"user": f"user-{number}"} if number % 7 else {})),
            run_id=f"run-{number // 2}" if number % 5 else None,
        )
        for number in range(MANY)
    ]


@pytest.mark.parametrize("fold", [100, 100_000], ids=["folded", "pending"])
def test_hundreds_of_users_runs_and_labels(file: Path, fold: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tallystick.ledger.book.FOLD_CALLS", fold)
    clock, midnight = Clock(), NOW.replace(hour=0)
    with MemoryLedger("UTC", clock) as memory, SqliteLedger(file, clock=clock.seen) as ledger:
        for first in range(0, MANY, 50):
            batch = many_calls()[first : first + 50]
            assert memory.append(batch) == ledger.append(batch)
        assert ledger.verify() == []
        queries = (
            Query(),
            Query(since=midnight - timedelta(days=20)),
            Query(since=midnight - timedelta(days=70), until=midnight - timedelta(days=3)),
            Query(since=midnight - timedelta(days=40), tags=Tags(user="user-8")),
            Query(since=midnight - timedelta(days=40), source="log"),
        )
        for query in queries:
            for by, per in QUESTIONS:
                assert ledger.total(query, by, per) == memory.total(query, by, per)
        users = ledger.total(by=("user",))
        assert len(users) == MANY - MANY // 7 + 1
        assert (users[-1].group, users[-1].calls) == ({"user": None}, MANY // 7)


def test_a_months_sheet_is_used_and_so_is_what_is_taken_from_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tallystick.ledger.book.FOLD_CALLS", 1)
    query = Query(since=NOW.replace(day=3, hour=0), until=NOW.replace(month=12, day=1, hour=0))
    with SqliteLedger(file) as ledger:
        ledger.append([entry("first", started_at=NOW.replace(day=2)), entry("second", started_at=NOW.replace(day=9))])
        assert [row.calls for row in ledger.total(query, ("user",))] == [1]
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("DELETE FROM sheet WHERE grain = 1 AND period = ?", (NOW.toordinal() - 719163 - 12,))
    with SqliteLedger(file) as ledger:
        # The ninth of November is in the month's sheet still; asked for alone, it is gone.
        assert [row.calls for row in ledger.total(query, ("user",))] == [1]
        assert ledger.total(Query(since=NOW.replace(day=9, hour=0), until=NOW.replace(day=10, hour=0)))[0].calls == 0


@pytest.mark.parametrize("body", [b"\xc1", b"\x93\x01\x02\x03", b"\x81\x01\x02"])
def test_sheets_that_cannot_be_read(file: Path, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tallystick.ledger.book.FOLD_CALLS", 1)
    with SqliteLedger(file) as ledger:
        ledger.append([entry()])
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE sheet SET body = ?", (body,))
    with SqliteLedger(file) as ledger:
        assert any("cannot be read" in line for line in ledger.verify())
        with pytest.raises(LedgerCorrupt, match="damaged"):
            ledger.total(by=("user",))
        with pytest.raises(LedgerCorrupt, match="damaged"):
            ledger.append([entry("another")])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("DELETE FROM sheet WHERE grain = 0", "quarter"),
        ("DELETE FROM sheet WHERE grain = 1 AND axis = 0", "sums of dimensions in day"),
        ("DELETE FROM sheet WHERE grain = 2 AND axis = -1", "sums of cells in month"),
        ("DELETE FROM sheet WHERE axis = -2", "sums of runs in day"),
        ("DELETE FROM sheet WHERE axis IN (SELECT id FROM word WHERE text = 'day:user')", "sums of day:user in month"),
        ("UPDATE sheet SET axis = -9 WHERE axis = -2", "sums of axis -9"),
        ("UPDATE sheet_kind SET quantity = 7", "the entries give"),
    ],
)
def test_verify_names_the_sheet_that_is_wrong(
    file: Path, change: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tallystick.ledger.book.FOLD_CALLS", 1)
    with SqliteLedger(file, clock=Clock()) as ledger:
        ledger.append([entry(run_id="r", usage=Usage(input=1, images=2))])
        assert ledger.verify() == []
    with closing(sqlite3.connect(file)) as connection, connection:
        assert connection.execute(change).rowcount > 0
    with SqliteLedger(file) as ledger:
        assert any(words in line for line in ledger.verify())
