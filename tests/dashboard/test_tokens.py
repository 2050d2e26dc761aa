"""The page of tokens, asked as a browser asks."""

import asyncio
import csv
import io
import re
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tallystick.catalog.catalog import Catalog
from tallystick.core.pricing import price
from tallystick.core.usage import Usage
from tallystick.dashboard.app import Dashboard
from tallystick.ledger.entry import Entry
from tallystick.ledger.sqlite import SqliteLedger

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
BOOK = Catalog.bundled()


def call(number, usage, *, days=1, model="gpt-4o", provider="openai", priced=True):
    at = NOW - timedelta(days=days)
    usage = Usage(usage)
    cost = price(usage, BOOK.card_at(model, provider, at)[0], at=at) if priced else None
    return Entry(
        call_id=f"call-{number:05d}", started_at=at, settled_at=at, provider=provider, model=model, usage=usage, cost=cost,
        source="client",
    )  # fmt: skip


@pytest.fixture
def ledger(tmp_path):
    with SqliteLedger(tmp_path / "l.db", clock=NOW.timestamp) as held:
        yield held


def ask(ledger, url):
    async def once():
        board = Dashboard(ledger, lambda: BOOK, now=lambda: NOW)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(board), base_url="http://127.0.0.1") as client:
            return await client.get(url)

    return asyncio.run(once())


def words(page):
    main = page.text.partition("<main")[2]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", main))


def test_an_empty_ledger_says_what_to_do(ledger):
    page = ask(ledger, "/tokens")
    assert page.status_code == 200
    assert "No calls in this period" in page.text


def test_kinds_hit_rate_and_saving(ledger):
    ledger.append([
        call(1, {"input": 600_000, "cache_read": 400_000, "output": 1000}),
        call(2, {"input": 10, "output": 10, "reasoning": 5, "audio_input": 3}, days=3, priced=False, model="own-model"),
    ])  # fmt: skip
    page = ask(ledger, "/tokens")
    text = words(page)
    # gpt-4o: 400,000 tokens at $2.50 less $1.25 a million.
    assert "Saved by caching $0.50" in text
    assert "40.0%" in text
    assert "Audio" in text
    assert page.text.count('class="chart') >= 2
    answer = ask(ledger, "/tokens?format=json").json()
    assert answer["caching"]["saved"] == {"usd": "0.5"}
    assert answer["caching"]["net"] == {"usd": "0.5"}
    assert answer["tokens"]["cache read"] == 400_000
    rows = {row["model"]: row for row in answer["rows"]}
    assert rows["gpt-4o"]["cache_saved"] == {"usd": "0.5"}
    assert rows["own-model"]["cost"] is None
    assert [one["tokens"]["output"] for one in answer["over_time"]] == [10, 0, 1000]
    cells = list(csv.DictReader(io.StringIO(ask(ledger, "/tokens?format=csv").text)))
    assert {row["model"]: row["cache_read"] for row in cells} == {"gpt-4o": "400000", "own-model": "0"}


def test_a_saving_that_nobody_knows_is_no_zero(ledger):
    ledger.append([call(1, {"input": 10, "cache_read": 1_234_567}, model="own-model", priced=False)])
    text = words(ask(ledger, "/tokens"))
    assert "Saved by caching unknown" in text
    assert "Not in it: 1,234,567 cached tokens whose rate is not known (the calls of own-model have no price)" in text
    assert ask(ledger, "/tokens?format=json").json()["caching"]["saved"] is None


def test_without_caching_there_is_no_saving_to_show(ledger):
    ledger.append([call(1, {"input": 10, "output": 10})])
    text = words(ask(ledger, "/tokens"))
    assert "Saved by caching" not in text
    assert "No token came from a cache" in text


@pytest.mark.parametrize("period", ["today", "7d", "30d", "month", "90d", "year"])
def test_every_period_has_its_pictures(ledger, period):
    ledger.append([call(n, {"input": 10, "cache_read": n}, days=n * 2) for n in range(150)])
    page = ask(ledger, f"/tokens?period={period}")
    assert page.status_code == 200
    assert 'class="chart' in page.text
    assert "<script>" not in page.text
    assert ' style="' not in page.text


def test_a_link_of_a_model_narrows_the_page_to_it(ledger):
    ledger.append([call(1, {"input": 10}), call(2, {"input": 7}, model="gpt-4o-mini")])
    page = ask(ledger, "/tokens").text
    link = re.search(r'href="(/tokens\?[^"]*model=gpt-4o-mini[^"]*)"', page)[1].replace("&amp;", "&")
    assert [row["model"] for row in ask(ledger, f"{link}&format=json").json()["rows"]] == ["gpt-4o-mini"]
