"""Words that calls share are numbered in memory; whoever else writes the file must not get in the way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tallystick.core.attribution import Tags
from tallystick.core.usage import Usage
from tallystick.errors import ConflictError
from tallystick.ledger.entry import Entry
from tallystick.ledger.query import Query
from tallystick.ledger.sqlite import SqliteLedger

START = datetime(2026, 11, 21, 9, tzinfo=UTC)


def call(number: int, *, model: str = "small", response: str | None = None, output: int = 1) -> Entry:
    return Entry(
        call_id=f"call-{number}",
        started_at=START + timedelta(seconds=number),
        recorded_at=START,
        provider="openai",
        model=model,
        usage=Usage(input=number + 1, output=output),
        source="gateway",
        tags=Tags(project=f"project-{number}", session=f"session-{number}"),
        run_id=f"run-{number}",
        provider_response_id=response,
    )


def test_two_writers_that_take_turns_agree_on_every_word(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    calls = [call(number, model=f"model-{number % 7}") for number in range(40)]
    with SqliteLedger(path) as one, SqliteLedger(path) as two:
        for first in range(0, 40, 4):
            (one if first % 8 else two).append(calls[first : first + 4])
            # The other one meets both words it knows and words it does not.
            again = call(100 + first, model="model-3")
            (two if first % 8 else one).append([again])
            calls.append(again)
        assert {entry.call_id: (entry.tags, entry.run_id, entry.model) for entry in one.read()} == {
            entry.call_id: (entry.tags, entry.run_id, entry.model) for entry in calls
        }
        assert one.verify() == []


def test_words_of_a_refused_append_are_given_anew(tmp_path: Path) -> None:
    with SqliteLedger(tmp_path / "ledger.db") as ledger:
        ledger.append([call(1)])
        with pytest.raises(ConflictError):
            ledger.append([call(2), call(3), call(1, output=9)])
        ledger.append([call(4), call(3)])
        assert {entry.call_id: entry.tags["session"] for entry in ledger.read()} == {
            f"call-{number}": f"session-{number}" for number in (1, 3, 4)
        }
        assert ledger.verify() == []


def test_many_calls_of_few_responses_in_one_append(tmp_path: Path) -> None:
    calls = [call(number, response=f"response-{number % 50}") for number in range(600)]
    with SqliteLedger(tmp_path / "ledger.db") as ledger:
        receipt = ledger.append(calls)
        assert (receipt.written, len(receipt.repeated)) == (600, 550)
        assert sum(total.calls for total in ledger.total(Query(), by=("run",))) == 600
        assert ledger.verify() == []
