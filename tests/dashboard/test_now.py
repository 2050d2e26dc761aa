"""Now: what is being spent at this moment, and a call's own page."""

import re
from datetime import timedelta

import pytest
from dashboard_desk import NOW, entry, month_of_calls

from tallystick.core.money import Money
from tallystick.core.usage import Usage
from tallystick.dashboard.figures import dollars
from tallystick.ledger.entry import Correction
from tallystick.ledger.intents import Intents
from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.query import Query
from tallystick.metering.budgets import put
from tallystick.metering.rules import make_budget


def now():
    return NOW


def budget(ledger, name, **rule):
    put(ledger, make_budget(name, rule, NOW), NOW)


def test_an_empty_ledger_says_what_to_do(browse):
    page = browse(now=now).get("/")
    assert "No calls yet" in page.text
    assert "tally scan" in page.text
    assert "tally budget add" in page.text


def test_today_the_month_and_the_last_calls(browse):
    calls = month_of_calls()
    page = browse(calls, now=now).get("/")
    month = sum((one.amount for one in calls if one.started_at >= NOW.replace(day=1, hour=0, minute=0)), Money(0))
    assert f"This month {dollars(month)}" in page.text
    told = browse(calls, now=now).get("/?format=json").json
    assert told["month"]["cost"] == month.to_json()
    today = [one for one in calls if one.started_at.date() == NOW.date()]
    assert told["today"]["calls"] == len(today) > 0
    yesterday = [
        one
        for one in calls
        if NOW.date() - timedelta(days=1) == one.started_at.date() and one.started_at + timedelta(days=1) <= NOW
    ]
    assert told["yesterday_until_now"]["calls"] == len(yesterday) > 0
    assert [row["call_id"] for row in told["rows"]][:3] == ["call-0", "call-1", "call-2"]
    assert {"/calls/call-0", "/runs/run-0"} <= set(page.links())


def test_the_days_are_those_of_the_time_zone_asked_for(browse):
    calls = [entry(1, NOW - timedelta(hours=3)), entry(2, NOW - timedelta(hours=13))]
    browser = browse(calls, now=now)
    assert browser.get("/?format=json").json["today"]["calls"] == 2
    assert browser.get("/?format=json&tz=Asia/Tokyo").json["today"]["calls"] == 0


def test_the_last_hour_minute_by_minute(browse):
    calls = [entry(number, NOW - timedelta(minutes=at)) for number, at in enumerate((0, 3, 3, 59, 61))]
    browser = browse(calls, now=now)
    told = browser.get("/?format=json").json["minutes"]
    assert len(told) == 60
    assert [one["calls"] for one in told if one["calls"]] == [1, 2, 1]
    assert "4 calls in the last hour" in browser.get("/").text
    assert '<svg class="chart bars"' in browser.get("/").html


def test_a_minute_of_unknown_cost_is_not_a_minute_of_nothing(browse):
    told = browse([entry(1, NOW, model="nova-x", cost=None)], now=now).get("/?format=json").json
    assert told["minutes"][-1]["cost"] is None
    assert told["minutes"][-2]["cost"] == {"usd": "0"}
    page = browse([entry(1, NOW, model="nova-x", cost=None)], now=now).get("/")
    assert "Today unknown" in page.text
    assert "1 call without a price" in page.text


def test_budgets_with_the_fullest_first(browse):
    ledger = MemoryLedger()
    ledger.append(
        [
            entry(
                number,
                NOW - timedelta(minutes=number),
                usage=Usage(output=100_000),
                tags={"team": "a"},
                source="gateway",
            )
            for number in range(3)
        ]
    )
    budget(ledger, "all", limit="$4/month")
    budget(ledger, "team-a", limit="$3/day", scope={"team": "a"})
    budget(ledger, "tokens", limit="1M tokens/day")
    budget(ledger, "calls", limit="3 calls/day")
    page = browse(ledger=ledger, now=now).get("/")
    names = re.findall(r"<b>([a-z-]+)</b>", page.html)
    assert names == ["calls", "team-a", "all", "tokens"]
    assert "$1.00 left of $4.00/month" in page.text
    assert "700,000 tokens left of 1,000,000 tokens/day" in page.text
    assert "75.0% of $4.00/month" in page.text
    assert page.html.count("meter bad") == 2


def test_a_projection_with_its_range(browse):
    calls = [
        entry(number, NOW - timedelta(hours=6 * number), usage=Usage(output=50_000 + 1000 * (number % 4)))
        for number in range(160)
    ]
    page = browse(calls, now=now).get("/")
    assert re.search(r"about \$[\d.]+ at its end \(\$[\d.]+ to \$[\d.]+\)", page.text)
    few = browse(calls[:9], now=now).get("/")
    assert "no projection: 2 complete days of history" in few.text


def test_calls_in_flight_are_on_the_page_before_any_script_runs(browse, tmp_path):
    intents = Intents(tmp_path / "flights", lambda: "x")
    ids = begun(intents)
    browser = browse(flights=tmp_path / "flights", now=now)
    page = browser.get("/")
    assert 'data-sse="flights.count">1<' in page.html
    assert f'data-id="{ids}"' in page.html
    one = browser.get(f"/calls/{ids}")
    assert (one.status, "Cost so far" in one.text, "in flight" in one.text) == (200, True, True)
    assert browser.get(f"/calls/{ids}?format=json").json["in_flight"]["model"] == "gpt-4o"
    intents.close()


def begun(intents):
    slot = intents.open(
        "call-in-flight", int(NOW.timestamp() * 1e6) - 4_000_000, ("openai", "openai.chat", "gpt-4o", "run-1")
    )
    slot.move(int(NOW.timestamp() * 1e6), 900, 42, 1_230_000_000)
    return "call-in-flight"


def test_a_call_line_by_line(browse):
    call = entry(
        7,
        NOW,
        usage=Usage(input=1000, cache_read=500, output=100),
        tags={"team": "a", "env": "x y"},
        run_id="r/1",
        latency_us=1_500_000,
    )
    page = browse([call], now=now).get("/calls/call-7")
    assert [kind in page.text for kind in ("input 1,000", "cache_read 500", "output 100")] == [True] * 3
    assert f"total {call.amount}" in page.text
    assert {"/runs/r%2F1", "/spend?team=a", "/spend?tag.env=x%20y"} <= set(page.links()) or "/runs/r/1" in page.links()
    rows = browse([call], now=now).get("/calls/call-7?format=json").json["rows"]
    assert sum((Money.from_json(row["amount"]) for row in rows), Money(0)) == call.amount


def test_a_call_of_an_odd_name_has_a_page(browse):
    call = entry(1, NOW)
    odd = type(call)(**{**{name: getattr(call, name) for name in call.__struct_fields__}, "call_id": "a/b?c #1"})
    browser = browse([odd], now=now)
    [link] = set(browser.get("/").links("/calls/"))
    assert browser.get(link.replace("a/b", "a%2Fb")).status == 200


def test_a_call_says_what_corrected_it_and_who_else_saw_it(browse):
    ledger = MemoryLedger()
    seen = entry(1, NOW, source="gateway", provider_response_id="resp-1")
    ledger.append([seen])
    ledger.append([entry(2, NOW, source="log", provider_response_id="resp-1")])
    ledger.append(
        [
            Correction(
                correction_id="c1",
                corrects="call-1",
                recorded_at=NOW,
                reason="the provider said so",
                fields={"quality": "estimated"},
            )
        ]
    )
    page = browse(ledger=ledger, now=now).get("/calls/call-1")
    assert "the provider said so" in page.text
    assert "quality estimated" in page.text
    assert "Also seen by" in page.text
    told = browse(ledger=ledger, now=now).get("/calls/call-1?format=json").json
    assert [len(told["corrections"]), len(told["joined"])] == [1, 1]


def test_an_unpriced_call_is_unknown_and_says_how_to_price_it(browse):
    page = browse([entry(1, NOW, model="nova-x", cost=None)], now=now).get("/calls/call-1")
    assert "unknown, not zero" in page.text
    assert "tally rates set nova-x" in page.text
    assert "$0.00" not in page.text
    nothing = browse([entry(1, NOW, usage=Usage(), cost=None)], now=now).get("/calls/call-1")
    assert "Nothing was counted" in nothing.text


def test_what_a_subscription_covers_is_no_bill(browse):
    ledger = [entry(1, NOW, owed=False)]
    assert "not a bill" in browse(ledger, now=now).get("/").text
    assert "Covered by a subscription" in browse(ledger, now=now).get("/calls/call-1").text


def test_there_is_no_such_call(browse):
    page = browse(now=now).get("/calls/nobody")
    assert (page.status, "There is no call 'nobody'." in page.text) == (404, True)
    assert "No calls in this time" in browse(now=now).get("/calls").text


@pytest.mark.parametrize("part", ["today", "month", "minutes", "budgets", "last", "gaps"])
def test_live_parts_are_named_once(browse, part):
    html = browse([entry(1, NOW, model="nova-x", cost=None)], now=now).get("/").html
    assert html.count(f'data-live="{part}"') == 1
    assert 'data-live-each="1.5"' in html


def test_sums_kept_for_a_while_do_not_hide_new_calls(browse):
    ledger = MemoryLedger()
    browser = browse(month_of_calls(6), ledger=ledger, now=now)
    before = browser.get("/?format=json").json
    ledger.append([entry(99, NOW - timedelta(minutes=2))])
    after = browser.get("/?format=json").json
    assert after["today"]["calls"] == before["today"]["calls"] + 1
    assert after["minutes"][-3]["calls"] == 1
    assert ledger.total(Query())[0].calls == 7
