"""A ledger in which nothing is wrong verifies, whatever was folded into its sums and whatever the clock did between two
batches; and one in which a sum is wrong does not, even where its words were never written."""

from __future__ import annotations

import itertools
import sqlite3
import tempfile
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_samples import NOW, Clock, entry
from test_same_answers import made_corrections, made_entries

from tallystick.core.attribution import Tags
from tallystick.errors import TallyError
from tallystick.ledger.entry import Entry
from tallystick.ledger.ledger import Item
from tallystick.ledger.sqlite import SqliteLedger

QUARTER = timedelta(minutes=15)
NAMES = ("key", "team", "project")


@pytest.mark.parametrize(
    "tags",
    [dict.fromkeys(names, "x") for size in range(len(NAMES) + 1) for names in itertools.combinations(NAMES, size)],
    ids=lambda tags: "+".join(tags) or "none",
)
@pytest.mark.parametrize("back", [0, 100])
def test_sums_whose_words_nobody_has_written_are_told_from_those_of_runs_and_cells(
    file: Path, tags: dict[str, str], back: int
) -> None:
    # Two days of one month, each in a batch of its own: their sums by month are not those by day.
    with SqliteLedger(file, clock=Clock().seen) as ledger:
        for number in range(2):
            at = NOW - timedelta(days=back + number)
            ledger.append([entry(f"call-{number}", started_at=at, tags=Tags(tags), run_id="r")])
            assert ledger.verify() == []


def test_a_wrong_sum_of_runs_is_found_where_most_words_are_not_written(file: Path) -> None:
    with patch("tallystick.ledger.book.FOLD_CALLS", 2), SqliteLedger(file, clock=Clock().seen) as ledger:
        old = NOW - timedelta(days=100)
        ledger.append([entry(f"call-{number}", started_at=old, run_id=f"run-{number}") for number in range(2)])
        ledger.append([entry("pending", started_at=old, run_id="run-0", status="error")])
        assert ledger.verify() == []
    with sqlite3.connect(file) as connection:
        connection.execute("DELETE FROM sheet WHERE axis = -2")
    connection.close()
    with SqliteLedger(file, read_only=True) as ledger:
        [first, second] = ledger.verify()
    assert "The sums of runs in day" in first
    assert "The sums of runs in day" in second


@st.composite
def around(draw: st.DrawFn, now_days: int) -> Entry:
    """A call about where quarters of an hour begin or end to have sums of their own, or about today."""
    made = draw(made_entries())
    day = NOW + timedelta(days=now_days) - timedelta(days=draw(st.sampled_from([0, 61, 62, 63, 100, 101])))
    at = day.replace(hour=0) + draw(st.integers(-4, 4)) * QUARTER
    return msgspec.structs.replace(made, started_at=at + timedelta(microseconds=draw(st.integers(-1, 1))))


@st.composite
def days_of_work(draw: st.DrawFn) -> list[tuple[timedelta, list[Item], str | None, bool]]:
    """Batches, each after the clock has stepped on (or back); before some the ledger moves to another time zone, or is
    closed and opened again."""
    steps = []
    day = 0
    for _ in range(draw(st.integers(1, 6))):
        leap = draw(
            st.sampled_from([timedelta(), QUARTER, timedelta(hours=13), timedelta(1), timedelta(30), -timedelta(2)])
        )
        day += leap.days
        items: list[Any] = draw(st.lists(st.one_of(around(day), around(day), made_corrections()), max_size=5))
        zone = draw(st.sampled_from([None, None, None, "UTC", "America/New_York", "Asia/Kathmandu", "Europe/Berlin"]))
        steps.append((leap, items, zone, draw(st.booleans())))
    return steps


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(days_of_work(), st.sampled_from([1, 3, 1000]))
def test_a_clock_that_steps_between_two_batches_changes_no_sum(
    steps: list[tuple[timedelta, list[Item], str | None, bool]], fold: int
) -> None:
    clock = Clock()
    with patch("tallystick.ledger.book.FOLD_CALLS", fold), tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "l.db"
        ledger = SqliteLedger(place, clock=clock.seen)
        try:
            for number, (leap, items, zone, anew) in enumerate(steps):
                clock.now += leap
                if anew:
                    ledger.close()
                    ledger = SqliteLedger(place, clock=clock.seen)
                if zone is not None:
                    ledger.rezone(zone)
                for item in items:
                    with suppress(TallyError):
                        ledger.append([item])
                with suppress(TallyError):
                    ledger.append([entry(f"more-{number}", started_at=clock.now), *items])
                assert ledger.verify() == []
        finally:
            ledger.close()
