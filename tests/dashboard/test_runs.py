"""The page of runs and the page of one run, asked as a browser asks."""

import asyncio
import csv
import io
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import httpx
import pytest

from tallystick.catalog.catalog import Catalog
from tallystick.core.cost import Cost
from tallystick.core.usage import Usage
from tallystick.dashboard.app import Dashboard
from tallystick.ledger.entry import Entry
from tallystick.ledger.intents import Intents
from tallystick.ledger.sqlite import SqliteLedger

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def call(number, run, *, ago=3600, pico=1_000_000_000, **more):
    at = NOW - timedelta(seconds=ago)
    fields = {
        "call_id": f"call-{number:05d}", "started_at": at, "settled_at": at + timedelta(seconds=1), "provider": "openai",
        "model": "gpt-4o", "usage": Usage(input=100, cache_read=40, output=10),
        "cost": None if pico is None else Cost((), pico), "run_id": run, "latency_us": 1_000_000, "ttft_us": 200_000,
        "source": "client",
    }  # fmt: skip
    return Entry(**(fields | more))


@pytest.fixture
def ledger(tmp_path):
    with SqliteLedger(tmp_path / "l.db", clock=NOW.timestamp) as held:
        yield held


def ask(ledger, url, flights=None):
    async def once():
        board = Dashboard(ledger, Catalog.bundled, now=lambda: NOW, flights=flights)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(board), base_url="http://127.0.0.1") as client:
            return await client.get(url)

    return asyncio.run(once())


def words(page):
    """The text of the page's main part, without marks."""
    main = page.text.partition("<main")[2]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", main)).replace("&#39;", "'")


def test_an_empty_ledger_says_how_to_give_calls_a_run(ledger):
    page = ask(ledger, "/runs")
    assert page.status_code == 200
    assert "No runs in this stretch of time" in page.text
    assert "tallystick.run" in page.text


def test_the_list_by_cost_and_by_time(ledger):
    ledger.append(
        [call(1, "dear", pico=5_000_000_000_000, ago=9000), call(2, "cheap"), call(3, "dark", pico=None), call(4, None)]
    )
    newest = ask(ledger, "/runs?format=json").json()
    assert sorted(row["run"] for row in newest["rows"][:2]) == ["cheap", "dark"]
    assert newest["rows"][2]["run"] == "dear"
    dearest = ask(ledger, "/runs?order=cost&format=json").json()
    assert dearest["rows"][0]["run"] == "dear"
    assert dearest["rows"][0]["cost"] == {"usd": "5"}
    assert next(row for row in dearest["rows"] if row["run"] == "dark")["cost"] is None
    assert (dearest["found"], dearest["outside_any_run"]["calls"]) == (3, 1)
    page = words(ask(ledger, "/runs?order=cost"))
    assert "$5.00" in page
    assert "unknown" in page
    assert "Outside any run in this stretch: 1 call, $0.001" in page
    rows = list(csv.DictReader(io.StringIO(ask(ledger, "/runs?order=cost&format=csv").text)))
    assert [row["cost"] for row in rows if row["run"] == "dark"] == [""]


def test_pages_of_a_stretch_and_the_stretch_before(ledger, monkeypatch):
    monkeypatch.setattr("tallystick.insight.board_runs.RANKED", 60)
    ledger.append([call(n, f"run-{n:03d}", ago=60 + 3600 * n, pico=n * 10**9) for n in range(140)])
    first = ask(ledger, "/runs?order=cost")
    assert "page 1" in words(first)
    assert "Too many runs to rank at once" in first.text
    seen = []
    address = "/runs?order=cost"
    while address:
        answer = ask(ledger, address).text
        seen += re.findall(r'<tr data-key="([^"]+)"', answer)
        following = re.search(r'href="([^"]+)">next', answer) or re.search(r'href="([^"]+)">the runs before', answer)
        address = following and following[1].replace("&amp;", "&")
    assert sorted(seen) == [f"run-{n:03d}" for n in range(140)]


@pytest.mark.parametrize("bad", ["order=x", "before=yesterday", "before=2026-11-01", "page=0"])
def test_an_address_that_makes_no_sense_is_told(ledger, bad):
    page = ask(ledger, f"/runs?{bad}")
    assert page.status_code == 400
    assert "Traceback" not in page.text


def nested(ledger):
    ledger.append([
        *[call(n, "top", ago=4000 - 10 * n, step=("plan", "write")[n // 5]) for n in range(10)],
        call(10, "top", ago=3700, status="error", http_status=529, step="write"),
        call(11, "top", ago=3698, attempt_of="call-00010", step="write"),
        call(12, "top", ago=3690, status="cut", stopped_by="budget", quality="lower_bound", step="write"),
        call(13, "top", ago=3680, pico=None, step="write"),
        call(14, "top", ago=3670, latency_us=40_000_000, step="write"),
        call(15, "top/a", ago=3900, parent_run="top"),
    ])  # fmt: skip


def test_one_run_as_a_tree(ledger):
    nested(ledger)
    page = ask(ledger, "/runs/top")
    text = words(page)
    assert "at least $0.0150" in text.partition("Calls")[0]
    for said in (
        "failed (529)", "attempt 2", "cut off by budget", "counted at least", "without a price",
        "slow 40.0\u00d7", "MAD times 1.4826", "1 sent again", "Inclusive", "top/a", "plan 5",
    ):  # fmt: skip
        assert said in text, said
    assert 'href="/calls/call-00014"' in page.text
    # One bar for each line: two runs, three steps or groups, sixteen calls.
    assert page.text.count('<svg class="bar"') == 2 + 2 + 16
    answer = ask(ledger, "/runs/top?format=json").json()
    assert answer["inclusive"]["calls"] == 16
    assert answer["direct"]["calls"] == 15
    assert len(answer["rows"]) == 16


def test_calls_of_a_run_can_be_narrowed(ledger):
    nested(ledger)
    page = ask(ledger, "/runs/top?only=outliers").text
    assert page.partition('id="calls"')[2].count("<tr data-key") == 1
    page = ask(ledger, "/runs/top?part=top&step=plan").text
    assert page.partition('id="calls"')[2].count("<tr data-key") == 5
    assert ask(ledger, "/runs/top?only=nonsense").status_code == 400


def test_a_run_of_thousands_is_no_dead_page(ledger, monkeypatch):
    monkeypatch.setattr("tallystick.insight.board_run.READ", 400)
    ledger.append([call(n, "big", ago=9000 - n, step=f"part {n // 200}") for n in range(3000)])
    page = ask(ledger, "/runs/big")
    text = words(page)
    assert "and 192 more" in text
    assert "and 2,600 more" in text
    assert "The run has 3,000 calls; the first 400 of them are looked at one by one" in text
    assert len(page.content) < 150_000
    assert "part 14" in words(ask(ledger, "/runs/big?end=1"))
    assert "page 2" in words(ask(ledger, "/runs/big?page=2"))


def test_a_run_under_way_is_live(ledger, tmp_path):
    ledger.append([call(1, "top", ago=10)])
    intents = Intents(tmp_path / "flights", lambda: "me.flight")
    slot = intents.open(
        "f-1", int((NOW - timedelta(seconds=5)).timestamp() * 1e6), ("openai", "openai.chat", "gpt-5", "top")
    )
    slot.move(1, 10, 77, 2_000_000_000)
    try:
        listed = ask(ledger, "/runs", tmp_path / "flights")
        assert "under way" in words(listed)
        page = ask(ledger, "/runs/top", tmp_path / "flights")
        text = words(page)
        assert "under way, 1 in flight" in text
        assert "in flight, estimated" in text
        assert 'data-live-each="3.0"' in page.text
        for part in ("run-status", "run-figures", "run-tree", "run-calls"):
            assert f'data-live="{part}"' in page.text
    finally:
        slot.free()
        intents.close()


def test_names_from_anywhere_stay_text(ledger):
    evil = '<script>alert(1)</script>/?"&\u202e'
    ledger.append(
        [call(1, evil, step='"><img src=x onerror=alert(1)>', model="<b>m</b>"), call(2, "kid", parent_run=evil)]
    )
    for url in ("/runs", "/runs?order=cost", f"/runs/{quote(evil, safe='')}", "/runs/kid"):
        page = ask(ledger, url)
        assert page.status_code == 200
        for mark in ("<script>alert", "<img", "<b>m", "\u202e", ' style="'):
            assert mark not in page.text
    assert "2 calls" not in words(ask(ledger, f"/runs/{quote(evil, safe='')}"))


def test_a_run_above_others_without_calls_of_its_own_has_a_page(ledger):
    ledger.append([call(1, "kid", parent_run="the task"), call(2, "other kid", parent_run="the task")])
    for page in ("/runs", "/runs/kid"):
        link = re.search(r'href="(/runs/the%20task\?near=[^"]+)"', ask(ledger, page).text)[1]
        text = words(ask(ledger, link))
        assert "Cost, with all runs below $0.002" in text
        assert "other kid" in text


def test_a_run_that_is_not_there_is_a_404(ledger):
    page = ask(ledger, "/runs/nobody")
    assert page.status_code == 404
    assert "nobody" in page.text
