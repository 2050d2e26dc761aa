"""Both ledgers give the same answers, and rollups the same as entries, whatever is appended and asked."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_samples import NOW, Clock, cost

from tallystick.core.attribution import Tags
from tallystick.core.periods import Period
from tallystick.core.usage import Usage
from tallystick.errors import TallyError
from tallystick.ledger.entry import Correction, Entry
from tallystick.ledger.ledger import Item, Ledger, Receipt
from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.query import Query
from tallystick.ledger.sqlite import SqliteLedger

ZONES = ("UTC", "America/New_York", "Asia/Kathmandu", "Africa/Monrovia")
usages = st.dictionaries(
    st.sampled_from(["input", "output", "cache_write_5m", "images", "fee:x"]), st.integers(0, 2**53 - 1), max_size=3
)
costs = st.one_of(st.none(), st.integers(-(2**40), 2**72)).map(lambda pico: None if pico is None else cost(pico))
tags = st.dictionaries(st.sampled_from(["team", "key", "user"]), st.sampled_from(["a", "b"]), max_size=2)
offsets = st.one_of(
    st.integers(-5, 200).map(lambda quarters: timedelta(minutes=15 * quarters)),
    st.integers(-(10**13), 10**13).map(lambda us: timedelta(microseconds=us)),
    st.integers(-30000, 0).map(lambda days: timedelta(days=days, minutes=44, seconds=29)),
)


@st.composite
def made_entries(draw: st.DrawFn) -> Entry:
    usage = draw(st.none() | usages)
    quality = "unknown" if usage is None else draw(st.sampled_from(["exact", "estimated", "lower_bound", "unknown"]))
    return Entry(
        call_id=draw(st.sampled_from([f"call-{number}" for number in range(12)])),
        started_at=NOW + draw(offsets),
        provider=draw(st.sampled_from(["openai", "aws"])),
        model=draw(st.sampled_from(["a", "b"])),
        maker=draw(st.sampled_from([None, "m"])),
        usage=None if usage is None else Usage(usage),
        quality=quality,
        cost=draw(costs),
        status=draw(st.sampled_from(["ok", "error", "refused"])),
        source=draw(st.sampled_from(["client", "gateway", "otlp", "log"])),
        owed=draw(st.booleans()),
        tags=Tags(draw(tags)),
        run_id=draw(st.sampled_from([None, "r", "s"])),
        provider_response_id=draw(st.sampled_from([None, None, "x", "y"])),
    )


@st.composite
def made_corrections(draw: st.DrawFn) -> Correction:
    fields: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "usage": usages,
                "cost": costs.map(lambda value: None if value is None else value.to_json()),
                "model": st.sampled_from(["a", "c"]),
                "tags": tags,
                "owed": st.booleans(),
                "status": st.sampled_from(["ok", "refused"]),
                "quality": st.sampled_from(["exact", "estimated", "unknown"]),
            },
        )
    )
    return Correction(
        correction_id=draw(st.sampled_from(["f1", "f2", "f3", "f4"])),
        corrects=f"call-{draw(st.integers(0, 12))}",
        recorded_at=NOW + timedelta(seconds=draw(st.integers(0, 20))),
        reason="because",
        fields=fields,
    )


@st.composite
def questions(draw: st.DrawFn) -> tuple[Query, tuple[str, ...], Period | None]:
    names = ["provider", "model", "maker", "source", "status", "quality", "run", "team", "key", "user"]
    edges = (
        st.none()
        | offsets.map(lambda offset: NOW + offset)
        | st.integers(-40, 5).map(lambda days: NOW.replace(hour=0) + timedelta(days=days))
    )
    query = Query(
        since=draw(edges),
        until=draw(edges),
        provider=draw(st.none() | st.just("aws")),
        model=draw(st.none() | st.just("a")),
        source=draw(st.none() | st.just("log")),
        run_id=draw(st.sampled_from([None, None, "r"])),
        tags=Tags(draw(st.just({}) | tags)),
        owed=draw(st.sampled_from([None, None, True])),
        as_of=draw(st.sampled_from([None, None, None, NOW + timedelta(seconds=6)])),
    )
    plain = draw(st.booleans())
    query = Query(since=query.since, until=query.until) if plain else query
    by = tuple(draw(st.lists(st.sampled_from(names), max_size=1 if plain else 3, unique=True)))
    unit = draw(st.sampled_from([None, "hour", "day", "week", "month", "year", "lifetime"]))
    return query, by, None if unit is None else Period(unit, draw(st.sampled_from(ZONES)))


appends = st.lists(st.one_of(made_entries(), made_entries(), made_corrections()), max_size=4)


def outcome(ledger: Ledger, items: list[Item]) -> Receipt | type[TallyError]:
    try:
        return ledger.append(items)
    except TallyError as error:
        return type(error)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(appends, max_size=6),
    st.lists(questions(), min_size=3, max_size=6),
    st.sampled_from(ZONES),
    st.sampled_from([1, 4, 1000]),
)
def test_memory_and_file_agree(
    steps: list[list[Item]], asked: list[tuple[Query, tuple[str, ...], Period | None]], zone: str, fold: int
) -> None:
    clock = Clock()
    with (
        patch("tallystick.ledger.book.FOLD_CALLS", fold),
        tempfile.TemporaryDirectory() as folder,
        MemoryLedger(zone, clock.seen) as memory,
        SqliteLedger(Path(folder) / "l.db", zone=zone, clock=clock.seen) as file,
    ):
        for items in steps:
            # Time stands still while both write, however often they look.
            clock()
            assert outcome(memory, items) == outcome(file, items)
        assert file.verify() == []
        for query, by, per in asked:
            assert file.total(query, by, per) == memory.total(query, by, per)
            assert list(file.read(query)) == list(memory.read(query))


@st.composite
def calls_over_months(draw: st.DrawFn) -> Entry:
    made = draw(made_entries())
    at = NOW - timedelta(days=draw(st.integers(0, 430)), minutes=draw(st.integers(0, 1439)))
    return msgspec.structs.replace(made, started_at=at, provider_response_id=None)


@st.composite
def whole_days(draw: st.DrawFn, zone: str) -> tuple[Query, tuple[str, ...], Period | None]:
    """Questions about whole days of a zone, near and far, which the sheets of days and months answer together."""
    names = ["provider", "model", "maker", "source", "status", "quality", "run", "team", "key", "user"]
    day, last = Period("day", zone), st.integers(0, 440)
    since, until = (
        None if back is None else day.bounds(NOW + timedelta(days=5) - timedelta(days=back))[0]
        for back in (draw(st.none() | last), draw(st.none() | last))
    )
    filters = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "provider": st.just("aws"),
                "status": st.just("ok"),
                "tags": tags.map(Tags),
            },
        )
    )
    by = tuple(draw(st.lists(st.sampled_from(names), max_size=3, unique=True)))
    unit = draw(st.sampled_from([None, "day", "week", "month", "year", "lifetime"]))
    return Query(since=since, until=until, **filters), by, None if unit is None else Period(unit, zone)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.data(),
    st.lists(st.lists(st.one_of(calls_over_months(), calls_over_months(), made_corrections()), max_size=8), max_size=4),
    st.sampled_from(ZONES),
    st.sampled_from([1, 6, 1000]),
)
def test_whole_days_agree_however_many_months_they_span(
    data: st.DataObject, steps: list[list[Item]], zone: str, fold: int
) -> None:
    clock = Clock()
    with (
        patch("tallystick.ledger.book.FOLD_CALLS", fold),
        tempfile.TemporaryDirectory() as folder,
        MemoryLedger(zone, clock.seen) as memory,
        SqliteLedger(Path(folder) / "l.db", zone=zone, clock=clock.seen) as file,
    ):
        for items in steps:
            # Time stands still while both write, however often they look.
            clock()
            assert outcome(memory, items) == outcome(file, items)
        assert file.verify() == []
        for query, by, per in data.draw(st.lists(whole_days(zone), min_size=4, max_size=8)):
            assert file.total(query, by, per) == memory.total(query, by, per)
