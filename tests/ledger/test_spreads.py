"""Spreads: percentiles of cost and time, from sketches kept beside the sums or from the calls, alike in all ledgers."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from ledger_samples import NOW, Clock, cost, entry

from tallystick.core.attribution import Tags
from tallystick.core.money import Money
from tallystick.core.periods import Period
from tallystick.errors import InputError, LedgerCorrupt
from tallystick.ledger.entry import Correction, Entry
from tallystick.ledger.ledger import Ledger
from tallystick.ledger.query import Query
from tallystick.ledger.sketches import ERROR, SHARES, added, at, codes, counted, value_of
from tallystick.ledger.sqlite import SqliteLedger

MIDNIGHT = NOW.replace(hour=0, minute=0, second=0, microsecond=0)


def calls(count: int = 120) -> list[Entry]:
    """Calls of two models and three keys over two weeks; some refused, unpriced, or without a time."""
    chance = random.Random(5)
    return [
        entry(
            f"call-{number}",
            started_at=MIDNIGHT - timedelta(hours=3 * (number % 100), minutes=number),
            model=f"model-{number % 2}",
            status="refused" if number % 17 == 16 else "ok",
            cost=None if number % 11 == 10 else cost(int(10 ** (6 + 5 * chance.random()))),
            latency_us=None if number % 13 == 12 else int(10 ** (3 + 4 * chance.random())),
            ttft_us=chance.randrange(70) if number % 2 else None,
            tags=Tags(key=f"k{number % 3}", user=f"u{number % 5}"),
            run_id=f"run-{number % 4}",
        )
        for number in range(count)
    ]


def right(values: list[int], share: int) -> int:
    """The actual figure at a percentile, by nearest rank."""
    return sorted(values)[-(-len(values) * share // 100) - 1]


def close(found: int, actual: int) -> bool:
    return abs(found - actual) <= actual * ERROR


@pytest.mark.parametrize("value", [0, 1, 63, 64, 65, 127, 128, 10**6, 10**12 + 7, 2**63 - 1, 2**73])
def test_a_code_stands_for_a_value_within_the_error(value: int) -> None:
    [code] = codes([value])
    assert close(value_of(code), value)
    assert codes([-value]) == [0]
    assert codes([value + value // 30 + 1])[0] > code


def test_sketches_take_calls_in_and_out_in_any_size() -> None:
    chance = random.Random(3)
    values = [int(2 ** (20 + 9 * chance.random())) for _ in range(3000)]
    body, kept = b"", []
    for first in range(0, 3000, 250):
        more = codes(values[first : first + 250])
        kept += more
        less = [kept.pop(chance.randrange(len(kept))) for _ in range(20)]
        body = added(body, more, less)
        assert sorted(counted([body]).elements()) == sorted(kept)
    whole = added(added(b"", [7] * 70_000), [7, 8])
    assert counted([whole, body])[7] == 70_001
    assert added(body, [], kept) == b""
    assert added(b"", [], [9]) == b""
    assert at({5: 1}) == [5, 5, 5, 5]


@pytest.mark.parametrize("by", [(), ("model",), ("key", "model"), ("user",), ("run",), ("status",)])
def test_percentiles_are_within_the_error_of_the_calls_own_figures(ledger: Ledger, by: tuple[str, ...]) -> None:
    ledger.append(calls())
    for query in (Query(), Query(since=MIDNIGHT - timedelta(days=5), model="model-1", tags=Tags(key="k1"))):
        sent = [one for one in ledger.read(query) if one.status != "refused"]
        rows = ledger.spread(query, by)
        assert rows
        for row in rows:
            mine = [one for one in sent if all(_value(one, name) == row.group[name] for name in by)]
            costs = [one.amount.pico for one in mine if one.amount is not None]
            spread = [(row.cost, costs)]
            spread += [(row.latency_us, [one.latency_us for one in mine if one.latency_us is not None])]
            spread += [(row.ttft_us, [one.ttft_us for one in mine if one.ttft_us is not None])]
            for found, values in spread:
                assert (0 if found is None else found.calls) == len(values)
                for share in SHARES if values else ():
                    value = getattr(found, f"p{share}")
                    assert close(value.pico if isinstance(value, Money) else value, right(values, share))


def _value(one: Entry, name: str) -> str | None:
    if name == "run":
        return one.run_id
    return one.tags.get(name) if name in ("key", "user") else getattr(one, name)


def test_by_day_week_and_hour(ledger: Ledger) -> None:
    ledger.append(calls())
    for unit in ("day", "week", "month", "hour"):
        rows = ledger.spread(by=("model",), per=Period(unit, "UTC"))
        totals = ledger.total(by=("model",), per=Period(unit, "UTC"))
        sent = {(row.start, row.end, row.group["model"]): row.calls - row.refused - row.unpriced for row in totals}
        found = {(row.start, row.end, row.group["model"]): row.cost.calls if row.cost else 0 for row in rows}
        assert found == {key: count for key, count in sent.items() if key in found}
        assert sum(found.values()) == sum(sent.values())


def test_since_the_middle_of_a_day_and_as_of_an_instant(ledger: Ledger) -> None:
    ledger.append(calls())
    noon = MIDNIGHT - timedelta(days=2, hours=12)
    sent = [one for one in ledger.read(Query(since=noon)) if one.status != "refused" and one.latency_us is not None]
    [row] = ledger.spread(Query(since=noon))
    assert row.latency_us is not None
    assert row.latency_us.calls == len(sent)
    [past] = ledger.spread(Query(since=noon, as_of=NOW + timedelta(days=1)))
    assert past == row


def test_corrections_and_better_sources_move_the_sketches(ledger: Ledger) -> None:
    ledger.append([entry("a", cost=cost(10**9), latency_us=1000), entry("b", cost=cost(10**9), latency_us=2000)])
    ledger.append(
        [
            Correction(
                correction_id=f"fix-{number}", corrects="a", recorded_at=NOW, reason="test",
                fields={"cost": cost(pico).to_json()},
            )
            for number, pico in enumerate((5 * 10**9, 10**12))
        ]
    )  # fmt: skip
    [row] = ledger.spread(by=("provider",))
    assert row.cost is not None
    assert row.latency_us is not None
    assert (row.cost.calls, row.latency_us.calls) == (2, 2)
    assert close(row.cost.p50.pico, 10**9)
    assert close(row.cost.p99.pico, 10**12)
    ledger.append([entry("log", source="log", provider_response_id="r", latency_us=50)])
    ledger.append([entry("seen", source="client", provider_response_id="r", latency_us=90)])
    [row] = ledger.spread()
    assert row.latency_us is not None
    assert (row.latency_us.calls, close(row.latency_us.p50, 1000)) == (3, True)


def test_nothing_to_tell(ledger: Ledger) -> None:
    assert ledger.spread() == []
    ledger.append([entry("refused", status="refused", latency_us=5)])
    assert ledger.spread(by=("model",)) == []
    with pytest.raises(InputError, match="limit"):
        ledger.spread(Query(limit=3))


def test_the_largest_groups_and_the_sum_of_the_others(ledger: Ledger) -> None:
    ledger.append(calls())
    by = ("model", "user")
    rows = ledger.total(by=by)
    for order, weight in (
        ("cost", lambda row: row.cost.pico),
        ("calls", lambda row: row.calls),
        ("tokens", lambda row: sum(row.usage.values())),
    ):
        for most in (0, 3, 10, 50):
            top = ledger.top(by=by, order=order, most=most)
            expected = sorted(rows, key=weight, reverse=True)[:most]
            assert list(top.rows) == expected
            assert top.groups == len(rows)
            assert top.total == ledger.total()[0]
            assert top.rest.calls == top.total.calls - sum(row.calls for row in expected)
    with pytest.raises(InputError, match="top"):
        ledger.top(by=by, order="colour")  # type: ignore[arg-type]


def test_a_change_of_time_zone_moves_the_days(file: Path) -> None:
    with SqliteLedger(file, clock=Clock()) as ledger:
        ledger.append([entry("late", started_at=MIDNIGHT - timedelta(minutes=5), latency_us=70)])
        ledger.rezone("Europe/Berlin")
        [row] = ledger.spread(per=Period("day", "Europe/Berlin"))
        assert row.start == MIDNIGHT - timedelta(hours=1)
        assert ledger.verify() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("DELETE FROM spread WHERE measure = 1", "spread of latency"),
        ("UPDATE spread SET day = day + 100", "spread of cost"),
    ],
)
def test_verify_names_the_spread_that_is_wrong(
    file: Path, change: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tallystick.ledger.book.FOLD_CALLS", 1)
    with SqliteLedger(file, clock=Clock()) as ledger:
        ledger.append(calls(5))
        assert ledger.verify() == []
    with closing(sqlite3.connect(file)) as connection, connection:
        assert connection.execute(change).rowcount > 0
    with SqliteLedger(file) as ledger:
        assert any(words in line for line in ledger.verify())


def test_spreads_that_cannot_be_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tallystick.ledger.book.FOLD_CALLS", 1)
    with SqliteLedger(file) as ledger:
        ledger.append(calls(5))
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE spread SET body = x'c1'")
    with SqliteLedger(file) as ledger:
        with pytest.raises(LedgerCorrupt, match="spreads"):
            ledger.spread()
        assert ledger.total()[0].calls == 5


def test_long_readings_tell_how_far_they_are_and_can_be_ended(make: Callable[[], Ledger]) -> None:
    heard: list[float | None] = []

    def enough(_: float | None) -> None:
        raise KeyboardInterrupt

    query = Query(owed=True, since=MIDNIGHT - timedelta(days=20), until=MIDNIGHT)
    with make() as ledger:
        ledger.append(calls())
        assert ledger.total(query, ("user",), progress=heard.append) == ledger.total(query, ("user",))
        assert ledger.spread(query, ("user",), progress=heard.append) == ledger.spread(query, ("user",))
        assert heard
        assert all(share is not None and 0 <= share <= 1 for share in heard)
        for ask in (ledger.total, ledger.spread):
            with pytest.raises(KeyboardInterrupt):
                ask(query, ("user",), progress=enough)
        assert ledger.total(query)[0].calls == len(list(ledger.read(query)))
