"""The JSON interface: what it answers about calls, runs, spend, budgets, holds and rates."""

import json
import subprocess
import sys
from datetime import timedelta

import pytest
from apidesk import JSON, NOW, call, spelt

from tallystick.ledger.budget import Budget
from tallystick.ledger.hold import Ask, Claim
from tallystick.ledger.intents import Intents


def test_calls_come_newest_first_and_a_cursor_goes_on_without_a_gap(served):
    seen, cursor, pages = [], None, 0
    while True:
        status, page = served.get("/calls", limit=7, **({"cursor": cursor} if cursor else {}))
        assert status == 200
        assert page["schema"] == 1
        seen += page["calls"]
        pages += 1
        cursor = page["cursor"]
        if cursor is None:
            break
    assert pages == 6
    assert len({row["call_id"] for row in seen}) == len(seen) == 40
    times = [row["started_at"] for row in seen]
    assert times == sorted(times, reverse=True)


def test_calls_of_one_instant_are_parted_by_the_cursor(served, ledger):
    ledger.append([call(100 + number, ago=9000) for number in range(10)])
    seen, cursor = [], {}
    for _ in range(5):
        status, page = served.get("/calls", limit=3, order="oldest", until="2026-11-21T11:00:00Z", **cursor)
        assert status == 200
        seen += [row["call_id"] for row in page["calls"]]
        if page["cursor"] is None:
            break
        cursor = {"cursor": page["cursor"]}
    assert sorted(seen) == [f"call-{100 + number}" for number in range(10)]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"model": "model-b"}, 3), ({"run": "research"}, 4), ({"tag": "team=a"}, 14), ({"tag": ["team=b", "user=u4"]}, 1),
        ({"status": "refused"}, 1), ({"quality": "unknown"}, 1), ({"provider": "anthropic"}, 3), ({"owed": "false"}, 0),
        ({"since": "2026-11-21T12:34:00Z"}, 11), ({"until": "yesterday"}, 0), ({"source": "otlp"}, 0),
    ],
)  # fmt: skip
def test_calls_can_be_filtered(served, query, count):
    status, page = served.get("/calls", limit=1000, **query)
    assert (status, len(page["calls"])) == (200, count)


def test_a_call_comes_with_its_corrections_and_what_others_said(served, ledger):
    ledger.append([call(200, provider_response_id="resp-1"), call(201, provider_response_id="resp-1", source="otlp")])
    status, page = served.get("/calls/call-200")
    assert (status, page["call"]["call_id"]) == (200, "call-200")
    assert [one["call_id"] for one in page["joined"]] == ["call-201"]
    assert page["in_flight"] is None
    _, page = served.get("/calls/call-001")
    assert page["call"]["tags"]["team"] == "c"
    assert page["corrections"][0]["reason"] == "a rate was wrong"
    status, page = served.get("/calls/no-such-call")
    assert status == 404
    assert "no-such-call" in page["error"]["message"]


def test_a_call_in_flight_is_shown(served, tmp_path):
    intents = Intents(tmp_path / "ledger.db.flight", lambda: "tests-1")
    slot = intents.open(
        "call-900", int(NOW.timestamp() * 1e6) - 1_500_000, ("openai", "openai.chat", "model-a", "research")
    )
    slot.move(0, 512, 20, 160_000_000)
    try:
        status, page = served.get("/calls/call-900")
    finally:
        slot.free()
        intents.close()
    assert (status, page["call"]) == (200, None)
    assert page["in_flight"]["cost"] == {"usd": "0.00016"}
    assert page["in_flight"]["age_s"] == 1.5
    assert page["in_flight"]["alive"] is True


def test_a_run_is_a_tree_with_direct_and_inclusive_cost(served):
    status, page = served.get("/runs/research")
    run = page["run"]
    assert (status, page["complete"]) == (200, True)
    assert [step["step"] for step in run["steps"]] == ["write", "plan"]
    assert (run["direct"]["calls"], run["inclusive"]["calls"]) == (4, 8)
    assert (run["direct"]["cost"], run["inclusive"]["cost"]) == ({"usd": "0.004"}, {"usd": "0.008"})
    (below,) = run["runs"]
    assert (below["run_id"], below["parent_run"], below["inclusive"]["calls"]) == ("look/up", "research", 4)
    assert [one["run_id"] for one in below["runs"]] == ["deep"]
    status, page = served.get(f"/runs/{spelt('look/up')}")
    assert (status, page["run"]["direct"]["calls"]) == (200, 3)
    assert served.get("/runs/nothing")[0] == 404


def test_runs_that_name_each_other_as_parent_end(served, ledger):
    ledger.append([call(300, run_id="one", parent_run="two"), call(301, run_id="two", parent_run="one")])
    status, page = served.get("/runs/one")
    assert status == 200
    assert [run["run_id"] for run in page["run"]["runs"]] == ["two"]
    assert page["run"]["runs"][0]["runs"] == []


def test_a_run_that_made_no_call_itself_shows_those_below_it(served, ledger):
    ledger.append([call(310, run_id="child", parent_run="frame")])
    status, page = served.get("/runs/frame")
    assert (status, page["run"]["direct"]["calls"], page["run"]["inclusive"]["calls"]) == (200, 0, 1)
    assert page["complete"] is False


def test_runs_are_listed_with_the_most_expensive_first(served):
    status, page = served.get("/runs", limit=2)
    assert status == 200
    assert [row["group"]["run"] for row in page["runs"]] == ["research", "look/up"]
    assert page["outside_any_run"]["calls"] == 32
    _, rest = served.get("/runs", limit=2, cursor=page["cursor"])
    assert [row["group"]["run"] for row in rest["runs"]] == ["deep"]
    assert rest["cursor"] is None


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"by": "model"}, ["--by", "model"]),
        ({"by": "team,model", "per": "day"}, ["--by", "team,model", "--per", "day"]),
        ({"per": "hour", "tz": "Asia/Kolkata"}, ["--per", "hour", "--tz", "Asia/Kolkata"]),
        ({"per": "run"}, ["--per", "run"]),
        ({"since": "2026-11-21T12:20:00Z", "tag": "team=a", "breakdown": "true"},
         ["--since", "2026-11-21T12:20:00Z", "-t", "team=a", "--breakdown"]),
    ],
)  # fmt: skip
def test_spend_is_what_tally_report_says(served, ledger, tmp_path, query, words):
    status, page = served.get("/spend", **query)
    assert status == 200
    ledger.flush()
    done = subprocess.run(
        [sys.executable, "-m", "tallystick.cli", "report", *words, "--json"],
        capture_output=True, text=True, check=True,
        env={"PYTHONPATH": "src", "TALLY_LEDGER": str(tmp_path / "ledger.db"), "HOME": str(tmp_path)},
    )  # fmt: skip
    assert {"schema": 1, **json.loads(done.stdout)} == page


def test_a_budget_is_added_raised_paused_and_removed(served, ledger):
    status, page = served.send("POST", "/budgets", {"name": "team-a", "limit": "$50/day", "scope": {"team": "a"}})
    assert status == 201
    assert page["budget"]["limit"] == {"usd": "50"}
    # What was spent before it was made counts: fourteen calls of team a.
    assert page["budget"]["accounts"][0]["spent"] == {"usd": "0.014"}
    status, page = served.send("POST", "/budgets", {"name": "team-a", "limit": "$60/day", "scope": {"team": "a"}})
    assert (status, page["budget"]["limit"]) == (200, {"usd": "60"})
    status, page = served.send("PATCH", "/budgets/team-a", {"raise": {"by": "$10", "for": "2h"}})
    assert status == 200
    assert page["budget"]["raised_until"] == "2026-11-21T14:34:56.000000Z"
    assert page["budget"]["accounts"][0]["limit"] == {"usd": "70"}
    status, page = served.send("PATCH", "/budgets/team-a", {"raise": None, "paused": True})
    assert (page["budget"]["raised_until"], page["budget"]["paused"]) == (None, True)
    assert served.get("/budgets")[1]["budgets"][0]["name"] == "team-a"
    assert served.get("/budgets/team-a")[0] == 200
    status, page = served.send("DELETE", "/budgets/team-a", None)
    assert (status, page) == (200, {"schema": 1, "removed": "team-a"})
    assert ledger.budgets().budgets == ()
    assert served.send("DELETE", "/budgets/team-a", None)[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "words"),
    [
        ("POST", "/budgets", {"name": "x", "limit": "a lot"}, "'a lot' is not a limit"),
        ("POST", "/budgets", {"name": "../x", "limit": "$1"}, "cannot name a budget"),
        ("POST", "/budgets", {"name": "x", "limit": "$1", "scope": {"tean": "a"}}, "Did you mean 'team'"),
        ("POST", "/budgets", {"name": "x", "limit": "$1", "nonsense": 1}, "nonsense"),
        ("POST", "/budgets", {"limit": "$1"}, "name"),
        ("POST", "/budgets", [], "cannot be read"),
        ("PATCH", "/budgets/known", {}, "Nothing is to be changed"),
        ("PATCH", "/budgets/known", {"raise": {"by": "5 calls"}}, "does not fit"),
        ("PATCH", "/budgets/known", {"raise": {"by": "$5", "for": "ages"}}, "not a length"),
        ("POST", "/estimate", {"model": "model-a"}, "a text or messages"),
        ("POST", "/estimate", {"model": "model-a", "text": "x", "max_output": 0}, "max_output"),
    ],
)  # fmt: skip
def test_a_change_that_makes_no_sense_is_a_sentence(served, ledger, method, path, body, words):
    ledger.put_budget(Budget(budget_id="known", limit=10**12))
    status, page = served.send(method, path, body)
    assert status == 400
    assert words in page["error"]["message"]
    assert [one.budget_id for one in ledger.budgets().budgets] == ["known"]


@pytest.mark.parametrize(
    "headers", [{}, {"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}]
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/budgets"), ("PATCH", "/budgets/a"), ("DELETE", "/budgets/a")])
def test_a_form_of_another_site_changes_nothing(served, ledger, method, path, headers):
    body = b'{"name": "a", "limit": "$1"}'
    status, _, answer = served.ask(method, f"/tally/v1{path}", body, headers)
    assert status == 415
    assert json.loads(answer)["error"]["money"] == "Nothing was changed."
    assert ledger.budgets().budgets == ()
    status, _, _ = served.ask(method, f"/tally/v1{path}", body, {**JSON, "origin": "https://example.com"})
    assert status == 403


def test_holds_are_listed_with_their_budget(served, ledger):
    ledger.put_budget(Budget(budget_id="all", limit=10**12))
    claim = Claim(budget_id="all", value="", period="lifetime", base=3 * 10**9)
    ask = Ask(
        hold_id="call-777", claims=(claim,), output=10, least=1, payload="p", version=ledger.budgets().version,
        expires_at=NOW + timedelta(days=3650),
    )  # fmt: skip
    ledger.authorise(ask).result(20)
    status, page = served.get("/holds")
    assert status == 200
    (hold,) = page["holds"]
    assert (hold["call_id"], hold["state"], hold["holds"][0]["amount"]) == ("call-777", "open", {"usd": "0.003"})
    assert served.get("/holds", state="suspect")[1]["holds"] == []
    assert served.get("/holds", budget="other")[1]["holds"] == []


def test_rates_are_found_and_unknown_models_have_neighbours(served):
    status, page = served.get("/rates", model="model-a")
    assert (status, page["rule"], page["cards"][0]["rates"]["input"]["usd"]) == (200, "user", "2")
    _, now = served.get("/rates", model="gpt-4o")
    _, all_cards = served.get("/rates", model="gpt-4o", history="true")
    assert now["cards"][0] in all_cards["cards"]
    status, page = served.get("/rates", model="gpt-4oo")
    assert status == 404
    assert "gpt-4o" in page["error"]["message"]


def test_an_estimate_learns_from_the_ledger(served):
    status, page = served.send("POST", "/estimate", {"model": "model-a", "text": "Hello", "max_output": 500})
    assert status == 200
    assert "the last 35 calls" in page["output"]["basis"]
    assert page["output"]["likely"] == 15
    messages = [{"role": "user", "content": "Hello"}]
    status, page = served.send("POST", "/estimate", {"model": "model-a", "messages": messages, "agent": "nobody"})
    assert (status, "default" in page["output"]["basis"]) == (200, True)
    assert served.send("POST", "/estimate", {"model": "no-such-model", "text": "x"})[0] == 404


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/calls", {"limit": "0"}), ("/calls", {"limit": "many"}), ("/calls", {"limit": "1001"}), ("/calls", {"nonsense": "1"}),
        ("/calls", {"since": "whenever"}), ("/calls", {"since": "0001-01-01"}), ("/calls", {"since": "99999999999999d"}),
        ("/calls", {"status": "fine"}), ("/calls", {"cursor": "x"}), ("/calls", {"cursor": "1.999999999"}),
        ("/calls", {"cursor": "9" * 17 + ".1"}), ("/calls", {"tag": "team"}), ("/calls", {"tag": "a\nb=c"}),
        ("/calls", {"owed": "perhaps"}), ("/calls", {"model": ""}), ("/calls", {"model": ["a", "b"]}),
        ("/spend", {"per": "fortnight"}), ("/spend", {"tz": "Mars/Olympus"}), ("/spend", {"by": "model,model"}),
        ("/rates", {}), ("/rates", {"model": "x" * 600}), ("/runs", {"cursor": "-1"}), ("/holds", {"state": "lost"}),
        ("/spend", {"by": ",".join(f"t{n}" for n in range(40))}),
    ],
)  # fmt: skip
def test_a_question_that_makes_no_sense_is_a_sentence(served, path, query):
    status, page = served.get(path, **query)
    assert status == 400
    assert page["error"]["what"].endswith(".")


def test_paths_and_methods_that_are_not_there(served):
    status, page = served.get("/nothing")
    assert (status, page["error"]["todo"]) == (404, "/tally/v1/openapi.json lists what there is.")
    status, headers, _ = served.ask("DELETE", "/tally/v1/calls", None, JSON)
    assert (status, headers["allow"]) == (405, "GET")
    status, _, body = served.ask("HEAD", "/tally/v1/calls")
    assert (status, body) == (200, b"")


def test_a_ledger_that_cannot_be_asked_is_said_so(served, ledger):
    ledger.close()
    status, page = served.get("/calls")
    assert status == 503
    assert page["error"]["type"] == "LedgerUnavailable"
