"""The views Models, Quality and Rates, asked as a browser asks, over a ledger whose truth is known."""

import asyncio
import csv
import io
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tallystick.catalog.catalog import Catalog
from tallystick.core.money import Money
from tallystick.core.pricing import price
from tallystick.core.usage import Usage
from tallystick.dashboard.app import Dashboard
from tallystick.errors import UnpricedError
from tallystick.insight.board_quality import look_quality
from tallystick.insight.board_rates import history
from tallystick.ledger.entry import Entry
from tallystick.ledger.query import Query
from tallystick.ledger.sqlite import SqliteLedger

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
CATALOG = Catalog.bundled()


def entry(number, model="gpt-4o", provider="openai", quality="exact", usage=None, started=None, **more):
    started = started or NOW - timedelta(hours=number)
    usage = Usage(input=1000, output=100) if usage is None else usage
    try:
        card = CATALOG.find(model, at=started, provider=provider).card
        cost = None if quality == "unknown" else price(usage, card, at=started)
    except UnpricedError:
        cost = None
    return Entry(
        call_id=f"0190{number:032x}", started_at=started, settled_at=started, recorded_at=started, provider=provider,
        model=model, maker=provider, usage=None if quality == "unknown" else usage, quality=quality, cost=cost,
        status="ok", source="client", **more,
    )  # fmt: skip


@pytest.fixture
def ledger(tmp_path):
    with SqliteLedger(tmp_path / "ledger.db", clock=NOW.timestamp) as ledger:
        yield ledger


def ask(ledger, url, catalog=CATALOG):
    """GET an address of a dashboard over the ledger."""

    async def once():
        board = Dashboard(ledger, lambda: catalog, now=lambda: NOW)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(board), base_url="http://127.0.0.1") as client:
            return await client.get(url)

    return asyncio.run(once())


def test_an_empty_ledger_says_what_to_do_next(ledger):
    for path in ("/models", "/quality", "/rates"):
        answer = ask(ledger, path)
        assert answer.status_code == 200
        assert "No calls in this period" in answer.text


def test_models_shows_what_a_call_takes_and_what_it_would_cost_elsewhere(ledger):
    ledger.append([entry(number) for number in range(10)])
    found = ask(ledger, "/models?with=gpt-4o-mini&format=json").json()
    (row,) = found["rows"]
    assert (row["model"], row["calls"], row["mean"], row["prompt"], row["answer"]) == (
        "gpt-4o", 10, {"usd": "0.0035"}, 1000, 100,
    )  # fmt: skip
    mini, own = found["what_if"][:2]
    # 10,000 and 1,000 tokens at $0.15 and $0.60 per million.
    assert (mini["model"], mini["likely"], mini["difference"]) == ("gpt-4o-mini", {"usd": "0.0021"}, {"usd": "-0.0329"})
    assert (own["model"], own["likely"], own["before"]) == ("gpt-4o", {"usd": "0.035"}, {"usd": "0.035"})
    page = ask(ledger, "/models?with=gpt-4o-mini").text
    assert "only a rerun of your own tasks can tell" in page
    assert "$0.0021" in page
    rows = list(csv.DictReader(io.StringIO(ask(ledger, "/models?format=csv").text)))
    assert rows[0]["model"] == "gpt-4o"


def test_models_refuses_a_flood_of_names_and_names_what_it_does_not_know(ledger):
    ledger.append([entry(1)])
    assert ask(ledger, "/models?with=" + "+".join(f"m{number}" for number in range(20))).status_code == 400
    page = ask(ledger, "/models?with=%3Cb%3Enobody")
    assert page.status_code == 200
    assert "<b>nobody" not in page.text
    assert "&lt;b&gt;nobody" in page.text


def test_quality_counts_what_is_not_known_and_bounds_it(ledger):
    ledger.append(
        [
            entry(1),
            entry(2, quality="estimated"),
            entry(3, quality="lower_bound"),
            entry(4, quality="unknown"),
            entry(5, model="nobody-knows-this"),
        ]
    )
    found = look_quality(ledger, Query(), None, NOW)
    assert (found.sent, found.total.unpriced, found.total.lower_bound) == (5, 2, 1)
    assert found.qualities["estimated"].cost == found.qualities["lower_bound"].cost == Money.usd("0.0035")
    assert not found.clean
    assert {one.quality for one in found.last} == {"estimated", "lower_bound", "unknown"}
    page = ask(ledger, "/quality")
    assert page.status_code == 200
    assert "tally rates set" in page.text
    assert "at least" in page.text
    data = ask(ledger, "/quality?format=json").json()
    assert data["total"]["estimated"] == 1
    assert [row["model"] for row in data["rows"]] == ["gpt-4o", "nobody-knows-this"]


def test_quality_of_a_clean_ledger_says_so(ledger):
    ledger.append([entry(1)])
    assert look_quality(ledger, Query(), None, NOW).clean
    assert "every call was measured exactly and priced" in ask(ledger, "/quality").text


def test_quality_sees_what_waits_beside_the_ledger(ledger, tmp_path):
    ledger.append([entry(1)])
    spool = tmp_path / "ledger.db.spool"
    spool.mkdir()
    (spool / "7.jsonl").write_text("{}\n{}\n")
    found = look_quality(ledger, Query(), tmp_path / "ledger.db.flight", NOW)
    assert found.missed == 2
    assert not found.clean


def test_rates_are_shown_to_their_last_digit(ledger):
    ledger.append([entry(1, usage=Usage(input=10, cache_read=10)), entry(2, model="gpt-5-mini")])
    rows = {row["model"]: row for row in ask(ledger, "/rates?format=json").json()["rows"]}
    assert rows["gpt-5-mini"]["cache_read"] == {"usd": "0.025"}
    page = ask(ledger, "/rates").text
    assert "$0.025" in page
    found = ask(ledger, "/rates?find=openai+gpt-4o-mini&format=json").json()["rows"]
    assert "gpt-4o-mini" in [row["model"] for row in found]
    assert all("gpt-4o-mini" in row["model"] for row in found)
    assert "No model of that name" in ask(ledger, "/rates?find=zzzzzz").text


def test_a_model_s_page_says_what_a_change_did_to_the_ledger(ledger):
    model = "gpt-5.6-luna"
    old, new = CATALOG.history(model, "openai")[:2]
    change = new.valid_from
    times = [change - timedelta(hours=1), change + timedelta(hours=1), change + timedelta(days=1)]
    made = [entry(number, model=model, started=at) for number, at in enumerate(times)]
    ledger.append(made)
    told = history(ledger, CATALOG, model, "openai", NOW)
    (one,) = told.changes
    usage = Usage(input=2000, output=200)
    assert (one.at, one.calls) == (change, 2)
    assert one.new == made[1].amount + made[2].amount == price(usage, new, at=change).amount
    assert one.old == price(usage, old, at=change - timedelta(hours=1)).amount
    assert one.difference == one.new - one.old
    assert one.difference
    assert {kind for kind, _, _ in one.moved} <= {*old.rates, *new.rates}
    page = ask(ledger, f"/rates?model={model}&provider=openai")
    assert page.status_code == 200
    assert "What its changes did to this ledger" in page.text


def test_a_model_without_any_rate_gets_the_command_that_sets_one(ledger):
    ledger.append([entry(1, model="nobody-knows-this")])
    page = ask(ledger, "/rates?model=nobody-knows-this&provider=openai")
    assert page.status_code == 200
    assert "tally rates set nobody-knows-this" in page.text
