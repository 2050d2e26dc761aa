"""The questions behind the page of runs: every run once, whatever the density; a tree with its sums; what stands out."""

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from tallystick.core.attribution import Tags
from tallystick.core.cost import Cost
from tallystick.core.money import Money
from tallystick.core.usage import Usage
from tallystick.insight import board_lines, board_run, board_runs
from tallystick.insight.board_lines import lines
from tallystick.insight.board_run import run_view
from tallystick.insight.board_runs import run_list, run_status
from tallystick.insight.flights import look_flights
from tallystick.ledger.entry import Entry
from tallystick.ledger.intents import Intents
from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.query import Query
from tallystick.ledger.sqlite import SqliteLedger

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def call(number, at, run, *, pico=1_000_000_000, ms=1000, **more):
    fields = {
        "call_id": f"call-{number:05d}", "started_at": at, "settled_at": at + timedelta(milliseconds=ms),
        "provider": "openai", "model": "gpt-4o", "usage": Usage(input=100, output=10),
        "cost": None if pico is None else Cost((), pico), "run_id": run, "latency_us": ms * 1000, "source": "client",
    }  # fmt: skip
    return Entry(**(fields | more))


@pytest.fixture(params=["file", "memory"])
def ledger(request, tmp_path):
    made = (
        SqliteLedger(tmp_path / "l.db", clock=NOW.timestamp)
        if request.param == "file"
        else MemoryLedger(clock=NOW.timestamp)
    )
    with made as held:
        yield held


def scattered(seed=3, runs=60, days=40):
    chance = random.Random(seed)
    found, number = [], 0
    for run in range(runs):
        start = NOW - timedelta(minutes=chance.randrange(1, days * 1440))
        for _ in range(chance.randrange(1, 12)):
            number += 1
            start += timedelta(minutes=chance.randrange(0, 900 if run % 9 == 0 else 3))
            at = min(start, NOW)
            found.append(
                call(number, at, f"run-{run}", pico=chance.randrange(1, 10**10), tags=Tags(team="ab"[run % 2]))
            )
        number += 1
        found.append(call(number, start, None))
    return found


def walked(ledger, query, order):
    """All pages one after the other."""
    before, pages = None, []
    for _ in range(400):
        page = 1
        while True:
            found = run_list(ledger, query, now=NOW, order=order, before=before, page=page, size=7)
            pages.append(found)
            if found.page >= found.pages:
                break
            page += 1
        before = found.earlier
        if before is None:
            return pages
    raise AssertionError("there is no end")


@pytest.mark.parametrize(
    "limits", [{}, {"LOOK": 9, "RESOLVED": 30}, {"LOOK": 9, "RESOLVED": 4}, {"LOOK": 9, "SCANNED": 5}]
)
@pytest.mark.parametrize("query", [Query(), Query(since=NOW - timedelta(days=20, hours=3)), Query(tags=Tags(team="a"))])
def test_the_newest_runs_page_by_page_are_all_runs_once_in_order(ledger, monkeypatch, limits, query):
    for name, value in limits.items():
        monkeypatch.setattr(board_runs, name, value)
    entries = scattered()
    ledger.append(entries)
    last = {}
    for entry in sorted(entries, key=lambda one: one.started_at):
        if entry.run_id is not None and query.matches(entry):
            last[entry.run_id] = entry.started_at
    pages = walked(ledger, query, "newest")
    seen = [row.run_id for page in pages for row in page.rows]
    assert len(seen) == len(set(seen))
    assert set(seen) == set(last)
    assert all(last[one] >= last[other] for one, other in pairwise(seen))


@pytest.mark.parametrize("ranked", [5000, 12])
@pytest.mark.parametrize("query", [Query(), Query(since=NOW - timedelta(days=20, hours=3)), Query(tags=Tags(team="a"))])
def test_the_dearest_runs_are_ranked_within_a_stretch_that_says_where_it_begins(ledger, monkeypatch, ranked, query):
    monkeypatch.setattr(board_runs, "RANKED", ranked)
    monkeypatch.setattr(board_runs, "SCANNED", ranked)
    entries = [entry for entry in scattered() if query.matches(entry)]
    ledger.append(scattered())
    pages = walked(ledger, query, "cost")
    stretches = {(page.since, page.until): [] for page in pages}
    for page in pages:
        stretches[page.since, page.until] += [row.run_id for row in page.rows]
    for (since, until), shown in stretches.items():
        sums = {}
        for entry in entries:
            if (
                entry.run_id
                and (since is None or entry.started_at >= since)
                and (until is None or entry.started_at < until)
            ):
                sums[entry.run_id] = sums.get(entry.run_id, 0) + entry.amount.pico
        assert sorted(sums) == sorted(shown)
        assert all(sums[one] >= sums[other] for one, other in pairwise(shown))
    assert {run for shown in stretches.values() for run in shown} == {one.run_id for one in entries if one.run_id}
    assert (len(stretches) == 1) is (ranked == 5000)


def test_a_row_has_the_whole_run_and_how_it_ended(ledger):
    early = NOW - timedelta(days=3)
    ledger.append([
        call(1, early, "a", parent_run="top"),
        call(2, NOW - timedelta(hours=1), "a", status="error", http_status=500, ms=4000),
        call(3, NOW - timedelta(hours=2), "a", pico=None, status="refused", stopped_by="team"),
        call(4, NOW - timedelta(hours=1), None),
    ])  # fmt: skip
    found = run_list(ledger, Query(since=NOW.replace(hour=0)), now=NOW)
    (row,) = found.rows
    assert (row.total.calls, row.total.cost, row.parent) == (3, Money(2_000_000_000), "top")
    assert (row.started_at, row.ended_at) == (early, NOW - timedelta(hours=1) + timedelta(seconds=4))
    assert row.duration == timedelta(days=2, hours=23, seconds=4)
    assert row.status == "ended, 1 failed, 1 refused"
    assert row.record()["cost"] == Money(2_000_000_000)
    assert found.outside.calls == 1
    assert found.found == found.pages == 1


def test_runs_in_flight_come_first_even_without_any_call_that_ended(ledger, tmp_path):
    ledger.append([call(1, NOW - timedelta(hours=1), "old"), call(2, NOW - timedelta(hours=2), "older")])
    intents = Intents(tmp_path / "flights", lambda: "me.flight")
    slots = [intents.open("f-1", 0, ("openai", "openai.chat", "gpt-4o", run)) for run in ("fresh", "older")]
    slots[0].move(1, 10, 5, 7_000_000)
    try:
        flights = look_flights(tmp_path / "flights")
        found = run_list(ledger, Query(), now=NOW, order="newest", flights=flights)
        assert {row.run_id for row in found.rows[:2]} == {"fresh", "older"}
        assert [row.run_id for row in found.rows[2:]] == ["old"]
        fresh = next(row for row in found.rows if row.run_id == "fresh")
        assert (fresh.status, fresh.flying, fresh.total.calls) == ("under way, 1 in flight", Money(7_000_000), 0)
        view = run_view(ledger, "fresh", flights)
        assert view.of == 0
        assert view.flying == Money(7_000_000)
        assert [line.kind for line in lines(view, NOW)] == ["run", "flight"]
        assert run_view(ledger, "nobody", flights) is None
    finally:
        for slot in slots:
            slot.free()
        intents.close()


def test_status_in_words():
    assert run_status({"ok": 2}, 0, 0) == "ended"
    assert run_status({"ok": 2, "cut": 1000}, 2, 0) == "under way, 2 in flight, 1,000 cut off"
    assert run_status({}, 0, 1) == "never ended, 1 left behind"


def tree():
    """A run with two steps, one run below it, and one below that which begins when the others have long ended."""
    t = NOW - timedelta(hours=5)
    found = [call(n, t + timedelta(seconds=n), "top", step=("plan", "write")[n % 2]) for n in range(1, 11)]
    found += [call(20 + n, t + timedelta(seconds=n), "top/a", parent_run="top", pico=2_000_000_000) for n in range(3)]
    found.append(call(30, t + timedelta(minutes=50), "top/a/b", parent_run="top/a", pico=None))
    found.append(call(31, t + timedelta(minutes=100), "top/c", parent_run="top"))
    found.append(call(40, t, "beside"))
    return found


def test_the_tree_has_direct_and_inclusive_sums(ledger):
    ledger.append(tree())
    view = run_view(ledger, "top")
    assert [(node.run_id, node.depth) for node in view.nodes] == [
        ("top", 0),
        ("top/a", 1),
        ("top/a/b", 2),
        ("top/c", 1),
    ]
    root, a, _, _ = view.nodes
    assert (root.direct.cost, root.inclusive.cost) == (Money(10_000_000_000), Money(17_000_000_000))
    assert (a.direct.calls, a.inclusive.calls, a.inclusive.unpriced) == (3, 4, 1)
    assert [(step.name, step.total.calls) for step in root.steps] == [("write", 5), ("plan", 5)]
    assert view.of == len(view.calls) == 15
    assert view.gaps == ()
    assert run_view(ledger, "top/a").root.inclusive.calls == 4


def test_a_run_without_calls_of_its_own_is_found_by_what_is_below_it(ledger):
    ledger.append([call(1, NOW - timedelta(minutes=1), "below", parent_run="orphan")])
    view = run_view(ledger, "orphan")
    assert [node.run_id for node in view.nodes] == ["orphan", "below"]
    assert "made no call itself" in view.gaps[0]


def test_an_old_run_without_calls_of_its_own_is_found_by_one_below_it(ledger, monkeypatch):
    monkeypatch.setattr(board_run, "ORPHANS", 1)
    t = NOW - timedelta(days=9)
    ledger.append([
        call(1, t, "first", parent_run="orphan"),
        call(2, t + timedelta(minutes=9), "near", parent_run="orphan"),
        call(3, t + timedelta(minutes=10), "deep", parent_run="near"),
        call(4, NOW - timedelta(minutes=1), "else"),
    ])  # fmt: skip
    assert run_view(ledger, "orphan") is None
    assert run_view(ledger, "orphan", near="deep") is None
    view = run_view(ledger, "orphan", near="near")
    assert [(node.run_id, node.depth) for node in view.nodes] == [("orphan", 0), ("first", 1), ("near", 1), ("deep", 2)]
    assert view.root.inclusive.cost == Money(3_000_000_000)


def test_runs_that_name_each_other_as_parent_come_to_an_end(ledger):
    ledger.append([
        call(1, NOW - timedelta(minutes=2), "a", parent_run="b"),
        call(2, NOW - timedelta(minutes=1), "b", parent_run="a"),
        call(3, NOW - timedelta(minutes=1), "c", parent_run="c"),
    ])  # fmt: skip
    assert [node.run_id for node in run_view(ledger, "a").nodes] == ["a", "b"]
    assert [node.run_id for node in run_view(ledger, "c").nodes] == ["c"]


def test_what_cannot_be_looked_at_is_said(ledger, monkeypatch):
    ledger.append(tree())
    monkeypatch.setattr(board_run, "NEARBY", 1)
    assert "may be missing" in run_view(ledger, "top").gaps[0]
    monkeypatch.setattr(board_run, "ASIDE", 3)
    assert "too many to look for" in run_view(ledger, "top").gaps[0]
    monkeypatch.undo()
    monkeypatch.setattr(board_run, "NODES", 2)
    view = run_view(ledger, "top")
    assert len(view.nodes) == 2
    assert "2 of" in view.gaps[0]


def test_what_stands_out_is_beyond_three_deviations_of_the_same_model(ledger):
    t = NOW - timedelta(hours=1)
    usual = [call(n, t + timedelta(seconds=n), "r", ms=1000 + 10 * n) for n in range(9)]
    odd = [
        call(20, t, "r", ms=9000),
        call(21, t, "r", pico=50_000_000_000),
        call(22, t, "r", model="other", ms=90_000),
        call(23, t, "r", ms=1200),
        call(24, t, "r", status="refused", ms=0, pico=None, usage=None, quality="unknown", cost=None),
    ]
    ledger.append([*usual, *odd])
    view = run_view(ledger, "r")
    assert {call.entry.call_id for call in view.outliers} == {"call-00020", "call-00021"}
    slow = next(call for call in view.calls if call.entry.call_id == "call-00020")
    assert slow.slow == pytest.approx(9_000_000 / 1_030_000, rel=0.05)
    assert slow.dear is None
    assert slow.remarks == (f"slow {slow.slow:.1f}\u00d7",)
    assert next(call for call in view.calls if call.entry.status == "refused").remarks == ("refused",)


def test_calls_that_were_sent_again_are_counted_by_their_first_attempt(ledger):
    t = NOW - timedelta(hours=1)
    first = call(1, t, "r", status="error", http_status=529, pico=0)
    again = [call(n, t + timedelta(seconds=n), "r", attempt_of="call-00001") for n in (2, 3)]
    cut = call(4, t + timedelta(seconds=9), "r", status="cut", stopped_by="budget", quality="lower_bound")
    ledger.append([first, *again, cut])
    view = run_view(ledger, "r")
    assert [call.attempt for call in view.calls] == [1, 2, 3, 1]
    assert view.calls[0].remarks == ("failed (529)",)
    assert view.calls[2].remarks == ("attempt 3",)
    assert view.calls[3].remarks == ("cut off by budget", "counted at least")
    assert len(view.retries) == 2


def test_a_run_of_thousands_shows_few_lines_and_says_how_many_more(ledger, monkeypatch):
    monkeypatch.setattr(board_run, "READ", 300)
    t = NOW - timedelta(hours=4)
    ledger.append(
        [
            call(n, t + timedelta(seconds=n), "big", step=f"s{n // 100}", ms=9000 if n == 55 else 1000)
            for n in range(1000)
        ]
    )
    view = run_view(ledger, "big")
    assert (view.of, len(view.calls), view.root.inclusive.cost) == (1000, 300, Money(10**12))
    found = lines(view, NOW)
    assert len(found) == 1 + 3 * (1 + board_lines.EACH + 1) + 1
    assert "call-00055" in [line.call.entry.call_id for line in found if line.call]
    assert [line.hidden for line in found if line.kind == "more"] == [92, 92, 92, 700]
    assert all(0 <= line.start <= 1 and line.start + line.length <= 1 + 1e-9 for line in found)
    newest = run_view(ledger, "big", newest=True)
    assert newest.calls[-1].entry.call_id == "call-00999"
    assert [step.name for step in newest.root.steps] == ["s7", "s8", "s9"]


def test_lines_lie_where_the_calls_were_in_time(ledger):
    t = NOW - timedelta(hours=1)
    ledger.append([call(1, t, "r", ms=1000, ttft_us=250_000), call(2, t + timedelta(seconds=3), "r", ms=1000)])
    root, first, second = lines(run_view(ledger, "r"), NOW)
    assert (root.kind, root.start, root.length, root.duration) == ("run", 0, 1, timedelta(seconds=4))
    assert (first.start, first.length, first.first) == (0, 0.25, 0.0625)
    assert (second.start, second.length, second.first) == (0.75, 0.25, None)
