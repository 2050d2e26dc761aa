"""The list of calls: newest first, page after page, picked, and as CSV and JSON."""

from datetime import timedelta

import msgspec
import pytest
from dashboard_desk import NOW, entry, filled, month_of_calls

from tallystick.insight import board_calls
from tallystick.insight.board_calls import call_page
from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.query import Query
from tallystick.ledger.sqlite import SqliteLedger


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request, tmp_path):
    made = MemoryLedger("UTC") if request.param == "memory" else SqliteLedger(tmp_path / "ledger.db", zone="UTC")
    with made as held:
        yield filled(held, month_of_calls())


def walked(ledger, query, most):
    """All calls, page after page, and how many pages there were."""
    found, pages, cursor = [], 0, ""
    while cursor is not None:
        page = call_page(ledger, query, NOW, cursor, most)
        found += page.rows
        pages, cursor = pages + 1, page.cursor
    return [one.call_id for one in found], pages


@pytest.mark.parametrize(
    "picked", [{}, {"model": "gpt-4o"}, {"provider": "anthropic", "status": "ok"}, {"status": "cut"}]
)
@pytest.mark.parametrize("searched", [60_000, 5])
def test_pages_hold_every_call_once(ledger, monkeypatch, picked, searched):
    monkeypatch.setattr(board_calls, "SEARCHED", searched)
    query = Query(since=NOW - timedelta(days=35), **picked)
    wanted = [one.call_id for one in ledger.read(msgspec.structs.replace(query, newest_first=True))]
    found, pages = walked(ledger, query, 7)
    assert found == wanted
    assert pages >= max(1, -(-len(wanted) // 7))


def test_calls_of_one_instant_are_parted_between_pages(ledger):
    alike = [entry(1000 + number, NOW - timedelta(days=2)) for number in range(9)]
    ledger.append(alike)
    found, _ = walked(ledger, Query(), 4)
    assert len(found) == len(set(found)) == 129
    assert {one.call_id for one in alike} <= set(found)


def test_the_page_leads_on_and_to_each_call(browse):
    browser = browse(month_of_calls(), now=lambda: NOW)
    page = browser.get("/calls")
    assert page.html.count("<tr data-key=") == board_calls.SIZE
    assert page.links("/calls/call-0")
    (onward,) = page.links("cursor=")
    after = browser.get(onward)
    assert after.html.count("<tr data-key=") == 39
    assert "call-50" in after.html
    assert "data-live-each" not in after.html
    assert browser.get("/calls?user=user-3&status=error").text.count("No calls in this time") == 1


def test_programs_get_the_same_calls(browse):
    browser = browse(month_of_calls(), now=lambda: NOW)
    told = browser.get("/calls?team=team-1&format=json").json
    assert {row["call_id"] for row in told["rows"]} == {f"call-{n}" for n in range(120) if n % 4 == 1 and n < 89}
    assert told["rows"][0]["cost"] == month_of_calls()[1].amount.to_json()
    lines = browser.get("/calls?team=team-1&format=csv").body.decode().splitlines()
    assert len(lines) == 1 + len(told["rows"])
    assert not any("000000," in line for line in lines[1:])


@pytest.mark.parametrize("cursor", ["x", "1", "-5.0", "99999999999999999999.0", "1.9999999"])
def test_what_is_no_place_in_the_list_is_told(browse, cursor):
    answer = browse(now=lambda: NOW).get(f"/calls?cursor={cursor}")
    assert (answer.status, "is no place in the list" in answer.text) == (400, True)
