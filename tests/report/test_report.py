"""Reports: rows that add up to the whole, whatever the grouping, and what they say they leave out."""

import csv
import io
import itertools
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_samples import NOW, call

import tallystick
from tallystick.core.money import Money
from tallystick.core.usage import Usage
from tallystick.errors import ConfigError, InputError
from tallystick.insight.blocks import LENGTH, block_of, block_starts, blocks_in, totals_by_block
from tallystick.insight.report import PER, report
from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.query import Query
from tallystick.ledger.sqlite import SqliteLedger

FIELDS = ("calls", "refused", "unpriced", "estimated", "lower_bound", "unknown")
NAMES = st.none() | st.sampled_from(["ada", "bob", "=x"])


@st.composite
def calls(draw):
    """Some calls within ten weeks."""
    made = []
    for number in range(draw(st.integers(0, 12))):
        known = draw(st.booleans())
        quality = draw(st.sampled_from(["exact", "estimated", "lower_bound"])) if known else "unknown"
        tags = {name: value for name in ("user", "project") if (value := draw(NAMES)) is not None}
        made.append(
            call(
                number,
                NOW - timedelta(minutes=draw(st.integers(0, 70 * 24 * 60))),
                draw(st.none() | st.integers(0, 10**13)),
                model=draw(st.sampled_from(["model-a", "model-b"])),
                usage=Usage(
                    draw(
                        st.dictionaries(
                            st.sampled_from(["input", "cache_read", "output", "images"]), st.integers(0, 10**6)
                        )
                    )
                )
                if known
                else None,
                quality=quality,
                owed=draw(st.booleans()),
                status=draw(st.sampled_from(["ok", "refused", "error"])),
                run_id=draw(st.none() | st.sampled_from(["run-1", "run-2"])),
                tags=tags,
            )
        )
    return made


QUESTIONS = {
    "per": st.none() | st.sampled_from(PER),
    "by": st.lists(st.sampled_from(["model", "user", "project", "run", "status"]), unique=True, max_size=3),
    "tz": st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns"]),
    "since": st.none() | st.integers(0, 70 * 24 * 60).map(lambda minutes: NOW - timedelta(minutes=minutes)),
}


def expected(entries):
    """The sums that any report of these calls has to come to, added up by hand."""
    costs = {True: 0, False: 0}
    usage = {}
    for entry in entries:
        costs[entry.owed] += entry.cost.pico if entry.cost is not None else 0
        for kind, count in (entry.usage or {}).items():
            usage[kind] = usage.get(kind, 0) + count
    sent = [entry for entry in entries if entry.status != "refused"]
    return {
        "calls": len(entries),
        "refused": len(entries) - len(sent),
        "unpriced": sum(entry.cost is None for entry in sent),
        **{name: sum(entry.quality == name for entry in sent) for name in ("estimated", "lower_bound", "unknown")},
        "cost": costs[True],
        "not_owed": costs[False],
        "usage": usage,
    }


def summed(rows):
    usage = {}
    for row in rows:
        for kind, count in row.usage.items():
            usage[kind] = usage.get(kind, 0) + count
    return {
        **{name: sum(getattr(row, name) for row in rows) for name in FIELDS},
        "cost": sum(row.cost.pico for row in rows),
        "not_owed": sum(row.not_owed.pico for row in rows),
        "usage": {kind: count for kind, count in usage.items() if count},
    }


@given(entries=calls(), **QUESTIONS)
def test_rows_add_up_to_the_calls_whatever_the_grouping(entries, per, by, tz, since):
    with MemoryLedger("UTC") as ledger:
        ledger.append(entries)
        found = report(ledger, per=per, by=by, tz=tz, since=since)
        wanted = expected([entry for entry in entries if since is None or entry.started_at >= since])
        assert summed(found.rows) == wanted
        assert summed([found.total]) == wanted
        json.dumps(found.to_json())
        assert str(found)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=calls(), **QUESTIONS)
def test_both_ledgers_give_the_same_rows(tmp_path_factory, entries, per, by, tz, since):
    place = tmp_path_factory.mktemp("ledger") / "ledger.db"
    with MemoryLedger("UTC") as memory, SqliteLedger(place, zone="UTC") as file:
        memory.append(entries)
        file.append(entries)
        one, other = (report(ledger, per=per, by=by, tz=tz, since=since) for ledger in (memory, file))
        assert str(one) == str(other)
        assert one.to_json() == other.to_json()


@given(entries=calls(), since=QUESTIONS["since"])
def test_blocks_part_the_calls(entries, since):
    with MemoryLedger("UTC") as ledger:
        ledger.append(entries)
        query = Query(since=since)
        starts = blocks_in(ledger, query)
        assert all(later - earlier >= LENGTH for earlier, later in itertools.pairwise(starts))
        asked = [entry for entry in entries if since is None or entry.started_at >= since]
        assert all(block_of(starts, entry.started_at) is not None for entry in asked)
        # Whether one looks at all calls or only from some instant on, a call belongs to the same block.
        whole = blocks_in(ledger, Query())
        assert [block_of(starts, e.started_at) for e in asked] == [block_of(whole, e.started_at) for e in asked]
        assert sum(row.calls for row in totals_by_block(ledger, query)) == len(asked)


@given(st.lists(st.integers(0, 200), max_size=40, unique=True).map(sorted))
def test_a_block_starts_at_the_hour_of_its_first_call_and_lasts_five(numbers):
    hours = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=number) for number in numbers]
    starts = block_starts(hours)
    assert set(starts) <= set(hours)
    for hour in hours:
        start = block_of(starts, hour)
        assert start is not None
        assert start <= hour < start + LENGTH
    assert block_starts([]) == []


def test_blocks_as_an_agent_bills_them(make):
    day = datetime(2026, 11, 20, tzinfo=UTC)
    times = [
        day.replace(hour=9, minute=40),
        day.replace(hour=13, minute=59),
        day.replace(hour=14),
        day.replace(hour=20, minute=30),
    ]
    ledger = make(*[call(number, at) for number, at in enumerate(times)])
    rows = report(ledger, per="block").rows
    assert [(row.start.hour, row.end.hour, row.calls) for row in rows] == [(9, 14, 2), (14, 19, 1), (20, 1, 1)]
    cut = report(ledger, per="block", since=times[1]).rows
    assert [(row.start.hour, row.calls) for row in cut] == [(9, 1), (14, 1), (20, 1)]
    assert "2026-11-20 15:00" in str(report(ledger, per="block", tz="Europe/Berlin"))


def test_calls_around_the_clock_make_blocks_without_a_gap(make):
    times = [NOW - timedelta(hours=number) for number in range(24 * 9)]
    ledger = make(*[call(number, at) for number, at in enumerate(times)])
    whole = blocks_in(ledger, Query())
    late = blocks_in(ledger, Query(since=NOW - timedelta(hours=3)))
    assert late[-1] == whole[-1]


def test_unknown_is_never_zero_and_subscriptions_stand_apart(make):
    ledger = make(
        call(1),
        call(2, pico=None, model="mystery"),
        call(3, owed=False, pico=7 * 10**12),
        call(4, quality="estimated"),
        call(5, quality="lower_bound"),
        call(6, usage=None, quality="unknown", pico=None, model="mystery"),
    )
    text = str(report(ledger))
    assert "unknown" in text
    assert "at least $0.003" in text
    assert "API-equivalent, not a bill" in text
    assert "$7.003" not in text
    last = text.splitlines()
    assert any(
        line
        == "Not exact: 2 calls without a price, 1 call of unknown usage, 1 call counted at least, 1 call estimated."
        for line in last
    )
    mystery = next(row for row in report(ledger).records() if row["model"] == "mystery")
    assert mystery["cost_usd"] is None
    exact = str(report(make(call(1))))
    assert "Every call was measured and priced exactly." in exact


def test_duplicates_are_named(make):
    ledger = make(call(1, provider_response_id="r1"), call(2, provider_response_id="r1", source="log"))
    ledger.append([call(3, provider_response_id="r1")])
    found = report(ledger)
    assert (found.total.calls, found.detail.joined, found.detail.repeated) == (2, 1, 1)
    assert "1 report of these calls by other sources joined: each call counts once." in found.remarks()
    assert "1 call with a provider's id that was given before: each counts." in found.remarks()


def test_cost_per_run(make):
    entries = [call(number, pico=number * 10**12, run_id=f"run-{number}") for number in range(1, 101)]
    entries += [call(101, run_id="run-odd", pico=None), call(102)]
    owed, free = report(make(*entries), per="run").runs
    assert free is None
    assert (owed.runs, owed.left_out) == (100, 1)
    assert (owed.mean, owed.p50, owed.p95) == (Money.usd("50.5"), Money.usd(50), Money.usd(95))
    rows = report(make(*entries), per="run").rows
    assert rows[0].group["run"] == "run-100"
    covered = report(make(call(1, owed=False, run_id="r"))).runs
    assert covered[0] is None
    assert covered[1].mean == Money.usd("0.001")


def test_many_calls_are_read_only_when_asked(make, monkeypatch):
    monkeypatch.setattr("tallystick.insight.report.READ_UP_TO", 1)
    ledger = make(call(1, run_id="r"), call(2))
    found = report(ledger)
    assert found.detail is None
    assert "among 2 calls: --breakdown reads them" in found.remarks()[-1]
    assert found.to_json()["detail"] is None
    assert report(ledger, breakdown=True).detail is not None


def test_questions_that_make_no_sense(make):
    ledger = make(call(1))
    for bad in (
        {"per": "fortnight"},
        {"tz": "Mars/Phobos"},
        {"by": ["model", "model"]},
        {"since": datetime(2026, 1, 1)},
    ):
        with pytest.raises(InputError):
            report(ledger, **bad)


def test_the_front_door(rates):
    assert str(tallystick.report()) == "No calls."
    tallystick.record({"input": 1000, "output": 10}, "model-a", at=NOW, user="<b>&ada</b>")
    tallystick.record({"input": 1000}, "model-b", at=NOW - timedelta(days=1), user="bob\u202e")
    found = tallystick.report(by="user", per="day")
    assert [row.group["user"] for row in found.rows] == ["bob\u202e", "<b>&ada</b>"]
    assert "\u202e" not in str(found)
    page = found._repr_html_()
    assert "&lt;b&gt;&amp;ada&lt;/b&gt;" in page
    assert "<b>" not in page
    assert "\u202e" not in page
    assert found.to_json()["total"]["cost"] == {"usd": "0.00308"}
    with tallystick.open(":memory:") as other:
        assert tallystick.report(ledger=other).total.calls == 0
        other.append([call(1)])
        assert tallystick.report(ledger=other, by=("model",)).total.calls == 1
        assert other.zone == "UTC"


def test_breakdown_has_a_column_for_each_kind(make):
    found = report(make(call(1, usage=Usage(input=5, cache_read=7, output=3, images=2))), breakdown=True)
    columns, cells = found.table()
    heads = [head for head, _ in columns]
    assert heads[:6] == ["model", "calls", "input", "cache_read", "output", "images"]
    assert cells[-1][:6] == ["total", "1", "5", "7", "3", "2"]


def test_csv_is_exact_and_starts_no_formula(make):
    tricky = ["=1+1", "+1", "-x", "@sum", "plain", 'a "quoted", one']
    ledger = make(*[call(number, tags={"user": name}) for number, name in enumerate(tricky)], call(99, pico=None))
    found = report(ledger, by=["user"])
    rows = list(csv.DictReader(io.StringIO("\n".join(found.csv_lines()))))
    assert {row["user"] for row in rows} == {"'=1+1", "'+1", "'-x", "'@sum", "plain", 'a "quoted", one', ""}
    assert {row["cost_usd"] for row in rows} == {"0.001000000000", ""}
    timed = list(csv.DictReader(io.StringIO("\n".join(report(ledger, per="day").csv_lines()))))
    assert timed[0]["start"] == "2026-11-21T00:00:00.000000Z"
    assert list(report(make(), by=["user"]).csv_lines()) == ["user,calls,cost_usd"]


def test_data_frames_say_what_to_install(make, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    monkeypatch.setitem(__import__("sys").modules, "polars", None)
    found = report(make(call(1)))
    with pytest.raises(ConfigError, match="pip install pandas"):
        found.to_pandas()
    with pytest.raises(ConfigError, match="pip install polars"):
        found.to_polars()


def test_data_frames(make):
    pandas = pytest.importorskip("pandas")
    polars = pytest.importorskip("polars")
    found = report(make(call(1), call(2, pico=None, model="mystery")), per="day", by=["model"])
    frame = found.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["calls"]) == [1, 1]
    other = found.to_polars()
    assert isinstance(other, polars.DataFrame)
    assert other["cost_usd"].to_list()[1] is None
    assert other["start"].dtype == polars.Datetime("us", "UTC")
