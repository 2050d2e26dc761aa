"""Budgets: what the page shows of limits, holds and thresholds, and what its forms change."""

import asyncio
import re
from datetime import UTC, datetime, timedelta

import httpx
import msgspec
import pytest

from tallystick.catalog.catalog import Catalog
from tallystick.core.attribution import Tags
from tallystick.core.cost import Cost
from tallystick.core.money import PICO_PER_USD, Money
from tallystick.core.usage import Usage
from tallystick.dashboard.app import Dashboard
from tallystick.insight.board_budgets import burn, look_budgets
from tallystick.ledger.entry import Entry
from tallystick.ledger.hold import Ask, Charge, Claim, Settlement
from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.sqlite import SqliteLedger
from tallystick.metering.budgets import find_budget, put, standings
from tallystick.metering.claims import stretch
from tallystick.metering.outbox import Outbox, notices
from tallystick.metering.rules import make_budget

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
CATALOG = Catalog.bundled()


def entry(number, pico, *, ago=timedelta(minutes=1), **tags):
    at = NOW - ago
    return Entry(
        call_id=f"call-{number}", started_at=at, settled_at=at, provider="openai", model="model-a", source="gateway",
        usage=Usage(input=100, output=10), cost=Cost((), pico), tags=Tags(tags),
    )  # fmt: skip


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request, tmp_path):
    if request.param == "memory":
        made = MemoryLedger("UTC", NOW.timestamp)
    else:
        made = SqliteLedger(tmp_path / "ledger.db", zone="UTC", clock=NOW.timestamp)
    with made as held:
        yield held


def add(ledger, name, limit, **rule):
    return put(ledger, make_budget(name, {"limit": limit, "tz": "UTC", **rule}, NOW), NOW)


def hold(ledger, budget, pico, call_id="call-held"):
    at = stretch(budget.period, NOW)
    claim = Claim(budget_id=budget.budget_id, value="", period=at.period, base=pico, resets_at=at.resets_at)
    asked = Ask(
        hold_id=call_id, claims=(claim,), output=0, least=0, payload="x", version=ledger.budgets().version,
        expires_at=NOW + timedelta(minutes=5),
    )  # fmt: skip
    return ledger.authorise(asked).result(10)


def visit(ledger, act, **options):
    """Asks a dashboard over the ledger, as a browser does."""

    async def once():
        board = Dashboard(ledger, lambda: CATALOG, now=lambda: NOW, form_key="key", **options)
        transport = httpx.ASGITransport(board)
        headers = {"accept": "text/html"}
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client:
            return await act(client)

    return asyncio.run(once())


def page(ledger, url="/budgets", **options):
    return visit(ledger, lambda client: client.get(url), **options)


def post(ledger, fields, *, key="key", headers=None, **options):
    data = {"form_key": key, **fields}
    return visit(ledger, lambda client: client.post("/budgets", data=data, headers=headers), **options)


def told(answer):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text))


def test_a_ledger_without_budgets_says_how_to_make_one(ledger):
    answer = page(ledger)
    assert answer.status_code == 200
    assert "tally budget add everything" in told(answer)
    assert 'value="create"' in answer.text


def test_a_budget_is_shown_with_what_is_spent_held_and_left(ledger):
    ledger.append([entry(1, 20 * PICO_PER_USD, team="a")])
    budget = add(ledger, "team-a", "$50/day", scope={"team": "a"}, alerts=[50, 80])
    hold(ledger, budget, 5 * PICO_PER_USD)
    said = told(page(ledger))
    assert "$50.00/day · team=a" in said
    assert "$20.00 of $50.00" in said
    assert "$25.00 left · $5.00 held" in said
    assert "call-held" in said
    (row,) = page(ledger, "/budgets?format=json").json()["rows"]
    assert (row["spent"], row["held"], row["left"]) == ({"usd": "20"}, {"usd": "5"}, {"usd": "25"})
    assert (row["percent"], row["resets_at"]) == (40, "2026-11-21T00:00:00.000000Z")
    assert (
        page(ledger, "/budgets?format=csv")
        .text.splitlines()[1]
        .startswith("team-a,,day,team=a,usd,true,false,50,20,0,5,25,40,")
    )


def test_the_burn_down_ends_at_what_the_account_says_and_goes_on_at_its_pace(ledger):
    for hour in range(12):
        ledger.append([entry(hour, PICO_PER_USD, ago=timedelta(hours=12 - hour))])
    budget = add(ledger, "all", "$16/day")
    (stand,) = standings(ledger, budget, NOW)
    found = burn(ledger, budget, stand, NOW)
    assert [point.left for point in found.points[:12]] == [(15 - hour) * PICO_PER_USD for hour in range(12)]
    assert found.points[12].left == 4 * PICO_PER_USD
    assert [point.left for point in found.points[13:]] == [None] * 11
    assert found.projected[12] == 4 * PICO_PER_USD
    assert found.projected[13:18] == (2 * PICO_PER_USD, PICO_PER_USD, 0, None, None)
    assert found.empty_at == NOW + timedelta(hours=4)
    assert "nothing is left from Fri 20 Nov 16:00" in told(page(ledger))


def test_the_burn_down_leaves_out_what_the_budget_does_not_count(ledger, monkeypatch):
    ledger.append([entry(1, PICO_PER_USD, ago=timedelta(hours=2), team="a")])
    ledger.append([msgspec.structs.replace(entry(2, 5 * PICO_PER_USD, ago=timedelta(hours=2), team="a"), source="log")])
    budget = add(ledger, "team-a", "$16/day", scope={"team": "a"})
    (stand,) = standings(ledger, budget, NOW)
    assert burn(ledger, budget, stand, NOW).points[10].left == 15 * PICO_PER_USD
    monkeypatch.setattr("tallystick.insight.board_budgets.MOST_READ", 1)
    assert burn(ledger, budget, stand, NOW) is None


def test_a_pace_that_would_last_for_ages_is_no_fault(ledger):
    ledger.append([entry(1, 1)])
    budget = add(ledger, "all", "$1000000/year")
    found = burn(ledger, budget, standings(ledger, budget, NOW)[0], NOW)
    assert (len(found.points), found.empty_at, found.projected[-1]) == (12, None, 10**18 - 1)
    assert page(ledger).status_code == 200


@pytest.mark.parametrize("limit", ["$5", "$5/24h", "100 calls/7d"])
def test_what_has_no_calendar_period_has_no_burn_down(ledger, limit):
    ledger.append([entry(1, PICO_PER_USD)])
    budget = add(ledger, "all", limit)
    assert burn(ledger, budget, standings(ledger, budget, NOW)[0], NOW) is None
    assert page(ledger).status_code == 200


def test_one_account_each_shows_the_fullest(ledger):
    for number in range(14):
        ledger.append([entry(number, (number + 1) * PICO_PER_USD, user=f"user-{number:02}")])
    add(ledger, "people", "$20/day", each=["user"])
    (view,) = look_budgets(ledger, NOW).budgets
    assert [one.value for one in view.fullest] == [f"user=user-{number:02}" for number in range(13, 3, -1)]
    assert (view.accounts, view.standing.spent) == (14, 105 * PICO_PER_USD)
    said = told(page(ledger))
    assert "14 accounts" in said
    assert "user=user-13" in said
    assert "user=user-03" not in said


def test_suspect_holds_come_first_and_count_as_spent(ledger):
    budget = add(ledger, "all", "$50/day")
    hold(ledger, budget, 3 * PICO_PER_USD, "call-open")
    hold(ledger, budget, 4 * PICO_PER_USD, "call-lost")
    charge = Charge(budget_id="all", value="", period=stretch(budget.period, NOW).period, amount=PICO_PER_USD)
    lost = msgspec.structs.replace(entry("lost", PICO_PER_USD, ago=timedelta(0)), quality="lower_bound")
    ledger.settle(lost, Settlement(charges=(charge,), keep=True)).result(10)
    board = look_budgets(ledger, NOW)
    assert (board.held, board.open_calls) == (Money(3 * PICO_PER_USD), 1)
    assert (board.suspect, board.suspect_calls) == (Money(3 * PICO_PER_USD), 1)
    assert [(one.call_id, one.state) for one in board.holds] == [("call-lost", "suspect"), ("call-open", "open")]
    assert board.holds[0].claims == (("all", "$3.00"),)
    (view,) = board.budgets
    assert (view.standing.spent, view.standing.held) == (4 * PICO_PER_USD, 3 * PICO_PER_USD)
    said = told(page(ledger))
    assert "$3.00 suspect" in said
    assert "charge it, or give it back" in said


@pytest.mark.parametrize(("word", "spent", "said"), [("charge", 5, "counts as spent"), ("release", 0, "given back")])
def test_a_word_on_a_suspect_hold(word, spent, said):
    times = [NOW.timestamp()]
    with MemoryLedger("UTC", lambda: times[0]) as ledger:
        budget = add(ledger, "all", "$20/day")
        hold(ledger, budget, 5 * PICO_PER_USD)
        assert post(ledger, {"do": word, "name": "call-held"}).status_code == 400
        times[0] += 600
        assert ledger.expire() == ["call-held"]
        assert f'value="{word}"' in page(ledger).text
        assert f'value="{word}"' not in page(ledger, read_only=True).text
        answer = post(ledger, {"do": word, "name": "call-held"})
        assert answer.status_code == 303
        assert said in told(page(ledger, answer.headers["location"]))
        assert ledger.holds("suspect") == []
        (stand,) = standings(ledger, budget, NOW)
        assert stand.spent == spent * PICO_PER_USD


def test_passed_thresholds_say_when(ledger):
    ledger.append([entry(1, 9 * PICO_PER_USD)])
    budget = add(ledger, "all", "$10/day", alerts=[50, 80, 100])
    (stand,) = standings(ledger, budget, NOW)
    for notice in notices(budget, stand, "x", NOW):
        Outbox(ledger).add(notice)
    ledger.state("outbox", "broken", "{")
    said = told(page(ledger))
    assert "Thresholds passed" in said
    assert re.search(r"2026-11-20 12:00:00 all 80 % \$9.00 \$10.00 not yet", said)
    assert "nearly used up" in said


def test_a_form_makes_raises_and_pauses(ledger):
    answer = post(ledger, {"do": "create", "name": "team-a", "limit": "$5/day", "scope": "team=a", "alerts": "50, 80%"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/budgets?done=create&name=team-a")
    made = find_budget(ledger, "team-a")
    assert (made.limit, dict(made.scope), made.alerts, made.hard) == (5 * PICO_PER_USD, {"team": "a"}, (50, 80), True)
    assert "team-a limits calls from now on." in told(page(ledger, answer.headers["location"]))
    assert post(ledger, {"do": "raise", "name": "team-a", "by": "$10", "for": "2h"}).status_code == 303
    raised = find_budget(ledger, "team-a")
    assert (raised.limit_at(NOW), raised.raised_until) == (15 * PICO_PER_USD, NOW + timedelta(hours=2))
    assert "raised by $10.00 until 2026-11-20 14:00 UTC" in told(page(ledger))
    assert post(ledger, {"do": "unraise", "name": "team-a"}).status_code == 303
    assert find_budget(ledger, "team-a").limit_at(NOW) == 5 * PICO_PER_USD
    assert post(ledger, {"do": "pause", "name": "team-a"}).status_code == 303
    assert find_budget(ledger, "team-a").paused
    assert "paused" in told(page(ledger))
    assert post(ledger, {"do": "resume", "name": "team-a"}).status_code == 303
    assert not find_budget(ledger, "team-a").paused


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"do": "create", "name": "a b", "limit": "$5"}, "cannot name a budget"),
        ({"do": "create", "name": "there", "limit": "$9"}, "There is a budget"),
        ({"do": "create", "name": "x", "limit": "five"}, "is not a limit"),
        ({"do": "create", "name": "x", "limit": "$5", "scope": "team"}, "is no scope"),
        ({"do": "create", "name": "x", "limit": "$5", "scope": "taem=a"}, "Did you mean"),
        ({"do": "create", "name": "x", "limit": "$5", "alerts": "half"}, "percentages"),
        ({"do": "raise", "name": "there", "by": "10 calls"}, "does not fit"),
        ({"do": "raise", "name": "there", "by": "$1", "for": "soon"}, "not a length of time"),
        ({"do": "raise", "name": "nobody", "by": "$1"}, "There is no budget"),
        ({"do": "burn", "name": "there"}, "nothing that can be done"),
        ({}, "nothing that can be done"),
    ],
)
def test_a_form_that_makes_no_sense_changes_nothing(ledger, fields, says):
    add(ledger, "there", "$1/day")
    before = ledger.budgets()
    answer = post(ledger, fields)
    assert answer.status_code == 400
    assert says in told(answer)
    assert ledger.budgets() == before


def test_only_a_page_of_ours_that_may_change_something_does(ledger):
    fields = {"do": "create", "name": "x", "limit": "$5"}
    assert post(ledger, fields, read_only=True).status_code == 403
    assert post(ledger, fields, key="guessed").status_code == 403
    assert post(ledger, fields, headers={"origin": "https://elsewhere.example"}).status_code == 403
    assert post(ledger, fields, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert ledger.budgets().budgets == ()
    add(ledger, "there", "$1/day")
    assert "<form" not in page(ledger, read_only=True).text.partition("<main")[2]


def test_names_from_elsewhere_stay_text(ledger):
    nasty = '<img src=x onerror=alert(1)>"'
    ledger.append([entry(1, PICO_PER_USD, user=nasty)])
    add(ledger, "people", "$20/day", each=["user"])
    answer = page(ledger, f"/budgets?done=create&name={nasty.replace(' ', '%20').replace('#', '')}")
    assert answer.status_code == 200
    assert "<img" not in answer.text
    assert "&lt;img" in answer.text
