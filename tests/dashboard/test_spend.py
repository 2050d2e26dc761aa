"""Spend: its sums are the ledger's, whatever way they are asked for."""

import csv
import io
import re
from datetime import timedelta

import msgspec
import pytest
from dashboard_desk import NOW, entry, month_of_calls

from tallystick.core.money import Money
from tallystick.core.usage import Usage
from tallystick.insight import board_spend
from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.query import Query
from tallystick.ledger.sqlite import SqliteLedger


def now():
    return NOW


def money(told):
    return Money(0) if told is None else Money.from_json(told)


def check(told, calls, since, until=None):
    """The sums of a page against the calls themselves, added up one by one."""
    inside = [one for one in calls if one.started_at >= since and (until is None or one.started_at < until)]
    assert told["total"]["calls"] == len(inside)
    known = sum((one.amount for one in inside if one.amount is not None), Money(0))
    assert money(told["total"]["cost"]) == known
    assert sum((money(row["cost"]) for row in told["rows"]), Money(0)) == known
    assert sum((money(one) for row in told["series"] for one in row["cost"]), Money(0)) == known


@pytest.mark.parametrize("store", ["memory", "sqlite"])
@pytest.mark.parametrize("by", ["model", "provider", "team", "user", "status", "tag.env", "agent"])
@pytest.mark.parametrize("period", ["today", "7d", "30d", "month"])
def test_rows_and_stacks_add_up_to_the_total(browse, tmp_path, store, by, period):
    calls = [*month_of_calls(), entry(900, NOW, model="nova-x", cost=None, tags={"team": "team-9"})]
    ledger = MemoryLedger() if store == "memory" else SqliteLedger(tmp_path / "ledger.db", zone="UTC")
    browser = browse(calls, ledger=ledger, now=now)
    told = browser.get(f"/spend?by={by}&period={period}&format=json").json
    days = {"today": 1, "7d": 7, "30d": 30, "month": NOW.day}[period]
    since = NOW.replace(hour=0, minute=0, second=0) - timedelta(days=days - 1)
    check(told, calls, since)
    ledger.close()


def test_groups_asked_for_one_by_one_are_the_same(browse, monkeypatch):
    calls = [
        entry(number, NOW - timedelta(hours=5 * number), tags={"user": f"user-{number % 12}"}) for number in range(140)
    ]
    browser = browse(calls, now=now)
    whole = browser.get("/spend?by=user&format=json").json
    monkeypatch.setattr(board_spend, "MOST_CELLS", 0)
    apart = browser.get("/spend?by=user&format=json").json
    assert apart["rows"] == whole["rows"]
    assert apart["series"][:4] == whole["series"][:4]
    assert [len(whole["series"]), whole["series"][-1]["name"]] == [8, "5 others"]
    assert [len(apart["series"]), apart["series"][-1]["name"]] == [5, "8 others"]
    shown = browser.get("/spend?by=user").text
    monkeypatch.setattr(board_spend, "SPARE", 0)
    monkeypatch.setattr("tallystick.dashboard.views.spend.ROWS", 3)
    page = browser.get("/spend?by=user&page=2")
    assert [name for name in (f"user-{one}" for one in range(12)) if name in page.text.partition("Per call")[2]] == [
        row["user"] for row in sorted(whole["rows"][3:6], key=lambda row: int(row["user"][5:]))
    ]
    assert all(row["user"] in shown for row in whole["rows"])
    check(apart, calls, NOW.replace(hour=0, minute=0, second=0) - timedelta(days=29))


def test_the_time_before_is_shown_beside(browse):
    calls = [
        entry(1, NOW, usage=Usage(output=300)),
        entry(2, NOW - timedelta(days=1, hours=1), usage=Usage(output=200)),
    ]
    calls += [entry(3, NOW - timedelta(days=1) + timedelta(hours=1), usage=Usage(output=9000))]
    browser = browse(calls, now=now)
    told = browser.get("/spend?period=today&format=json").json
    assert (told["before"]["calls"], told["before"]["cost"]) == (1, calls[1].amount.to_json())
    assert "+50%" in browser.get("/spend?period=today").text
    alone = browser.get("/spend?period=today&compare=0")
    assert ("+50%" in alone.text, browser.get("/spend?period=today&compare=0&format=json").json["before"]) == (
        False,
        None,
    )


def test_what_was_there_before_only_is_a_row_too(browse):
    calls = [entry(1, NOW), entry(2, NOW - timedelta(days=8), model="claude-sonnet-4-5", provider="anthropic")]
    told = browse(calls, now=now).get("/spend?period=7d&format=json").json
    [old] = [row for row in told["rows"] if row["model"] == "claude-sonnet-4-5"]
    assert (old["calls"], old["cost"], old["before"]) == (0, {"usd": "0"}, calls[1].amount.to_json())


def test_a_click_picks_and_a_chip_lets_go(browse):
    browser = browse(month_of_calls(), now=now)
    page = browser.get("/spend?period=7d")
    link = next(one for one in page.links("model=gpt-4o-mini"))
    picked = browser.get(link)
    assert "by=team" in link
    assert "model gpt-4o-mini" in picked.text
    [back] = {
        one
        for one in picked.links("/spend")
        if "model=" not in one
        and "by=team" in one
        and "period=7d" in one
        and "sort" not in one
        and "by=team&" not in one.replace("by=team&period", "")
    } & {"/spend?period=7d&by=team", "/spend?by=team&period=7d"}
    assert "model gpt-4o-mini" not in browser.get(back).text
    assert all("model=gpt-4o-mini" in one for one in picked.links("/tokens"))


def test_picked_calls_are_those_of_the_filter(browse):
    calls = month_of_calls()
    browser = browse(calls, now=now)
    for query, fits in (
        ("model=gpt-4o", lambda one: one.model == "gpt-4o"),
        ("team=team-1&provider=openai", lambda one: one.tags["team"] == "team-1" and one.provider == "openai"),
        ("tag.env=test&by=model", lambda one: one.tags["env"] == "test"),
        ("user=user-3&by=user", lambda one: one.tags["user"] == "user-3"),
        ("run=run-2&by=model", lambda one: one.run_id == "run-2"),
    ):
        told = browser.get(f"/spend?period=year&{query}&format=json").json
        check(told, [one for one in calls if fits(one)], NOW - timedelta(days=300))


def test_names_no_sums_are_kept_of_are_read_only_when_asked(browse, monkeypatch):
    monkeypatch.setattr(board_spend, "READ_AT_ONCE", 20)
    calls = month_of_calls()
    browser = browse(calls, now=now)
    page = browser.get("/spend?user=user-3&by=model")
    assert "89 calls have to be looked through" in page.text
    told = browser.get("/spend?user=user-3&by=model&format=json").json
    assert (told["calls_to_read"], told["rows"], told["total"]["calls"] > 0) == (89, [], True)
    [more] = set(page.links("read=1"))
    after = browser.get(f"{more}&format=json").json
    assert after["calls_to_read"] == 0
    check(
        after,
        [one for one in calls if one.tags["user"] == "user-3"],
        NOW.replace(hour=0, minute=0, second=0) - timedelta(days=29),
    )


def test_what_sums_answer():
    def answered(by, **query):
        return board_spend.answered_by_sums(Query(**query), by)

    assert answered("user")
    assert answered("team", model="a", provider="b")
    assert not answered("user", model="a")
    assert not answered("model", run_id="r")


def test_a_stretch_cut_within_a_day_is_the_same_as_whole(tmp_path):
    calls = month_of_calls(200)
    with SqliteLedger(tmp_path / "ledger.db", zone="UTC") as ledger:
        ledger.append(calls)
        query = Query(since=NOW - timedelta(days=20), until=NOW - timedelta(days=3, minutes=7))
        parts = board_spend.sums(ledger, query, ("team",))
        plain = {row.group["team"]: row for row in ledger.total(query, ("team",))}
        assert {row.group["team"]: msgspec.structs.replace(row) for row in parts} == plain


def test_csv_has_every_row_and_no_formulas(browse):
    calls = [entry(number, NOW, tags={"user": f"=cmd-{number}"}) for number in range(60)]
    browser = browse(calls, now=now)
    rows = list(csv.DictReader(io.StringIO(browser.get("/spend?by=user&format=csv").body.decode())))
    assert len(rows) == 60
    assert all(row["user"].startswith("'=") for row in rows)
    assert sum(Money.usd(row["cost"]) for row in rows) == sum((one.amount for one in calls), Money(0))
    page = browser.get("/spend?by=user")
    assert len(re.findall(r'<th scope="row"', page.html)) == 41
    second = browser.get(next(one for one in page.links("page=2")))
    assert len(re.findall(r'<th scope="row"', second.html)) == 21


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        ("name", "gpt-4o"),
        ("-name", "gpt-4o-mini"),
        ("cost", "gpt-4o-mini"),
        ("-calls", "gpt-4o-mini"),
        ("-delta", "gpt-4o"),
        ("tokens", "gpt-4o"),
    ],
)
def test_tables_are_sorted_by_a_click(browse, sort, first):
    calls = [entry(1, NOW), *(entry(number, NOW, model="gpt-4o-mini") for number in (2, 3))]
    calls += [entry(9, NOW - timedelta(days=31), model="gpt-4o-mini", usage=Usage(output=90_000))]
    calls += [entry(10, NOW - timedelta(days=31), usage=Usage(output=10))]
    page = browse(calls, now=now).get(f"/spend?sort={sort}")
    assert re.findall(r'<th scope="row" class="text"><a [^>]*>.*?([a-z0-9-]+)</a>', page.html)[0] == first
    assert 'aria-sort="' in page.html


def test_nothing_in_this_time(browse):
    page = browse([entry(1, NOW)], now=now).get("/spend?since=2026-01-01&until=2026-01-08")
    assert "No calls in this time" in page.text
    assert browse(now=now).get("/spend").status == 200


def test_time_is_split_as_fits_the_period(browse):
    browser = browse(month_of_calls(), now=now)
    units = {
        query: browser.get(f"/spend?{query}&format=json").json["per"]
        for query in ("period=today", "period=30d", "period=year", "until=2026-11-10", "unit=week")
    }
    assert list(units.values()) == ["hour", "day", "week", "month", "week"]
    assert len(browser.get("/spend?period=30d&format=json").json["periods"]) == 30
    assert len(browser.get("/spend?period=today&format=json").json["periods"]) == 16


def test_clicks_stay_quick_in_questions_asked(browse):
    """What takes time in a large ledger is how often it is asked."""
    ledger = MemoryLedger()
    browser = browse(month_of_calls(), ledger=ledger, now=now)
    asked = []
    total = ledger.total
    ledger.total = lambda *args: asked.append(args) or total(*args)
    browser.get("/spend?by=team&period=90d")
    assert len(asked) == 2
