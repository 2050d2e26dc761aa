"""Spans take from the budgets that name their source, and from no others; each call once."""

import json
import threading

import pytest
from apidesk import NOW, call, catalog

from tallystick.core.attribution import Tags
from tallystick.gateway.api.desk import Desk
from tallystick.gateway.otlp import Traces
from tallystick.ledger.budget import Budget
from tallystick.ledger.memory import MemoryLedger
from tallystick.metering.budgets import put
from tallystick.metering.foreign import enter_foreign

START = int(NOW.timestamp() * 1e9)
COST = 2_200_000_000
"""600 plain and 400 cached tokens in, 100 out, at $2, $0.50 and $8 per million, in picodollars."""


def span(number=1, response="", team="a"):
    said = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "model-a",
        "tally.team": team,
    }
    if response:
        said["gen_ai.response.id"] = response
    counts = {"input_tokens": 1000, "output_tokens": 100, "cache_read.input_tokens": 400}
    attributes = [{"key": name, "value": {"stringValue": text}} for name, text in said.items()]
    attributes += [{"key": f"gen_ai.usage.{name}", "value": {"intValue": str(count)}} for name, count in counts.items()]
    return {"traceId": f"{1:032x}", "spanId": f"{number:016x}", "name": "chat", "attributes": attributes,
            "startTimeUnixNano": str(START), "endTimeUnixNano": str(START + 10**9)}  # fmt: skip


def send(served, *spans):
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}).encode()
    status, _, answer = served.ask("POST", "/v1/traces", body, {"content-type": "application/json"})
    assert (status, answer) == (200, b"{}")


def budgets(ledger, *sources):
    """A budget that names sources, and one beside it that names none."""
    for name, named in (("named", sources), ("other", ())):
        put(ledger, Budget(budget_id=name, limit=10**12, scope=Tags(team="z"), sources=named, created_at=NOW), NOW)


def spent(ledger, name):
    return sum(account.balance.spent for account in ledger.accounts(name))


def test_only_a_budget_that_names_the_source_is_moved(served, ledger):
    budgets(ledger, "otlp")
    send(served, span(1, team="z"), span(2, team="z"), span(3, team="y"))
    assert (spent(ledger, "named"), spent(ledger, "other")) == (2 * COST, 0)
    assert ledger.verify() == []


def test_a_budget_that_names_another_source_is_not(served, ledger):
    budgets(ledger, "log")
    send(served, span(1, team="z"))
    assert (spent(ledger, "named"), spent(ledger, "other")) == (0, 0)


def test_sending_again_takes_nothing_more(served, ledger):
    budgets(ledger, "otlp")
    for _ in range(3):
        send(served, span(1, team="z"))
    send(served, span(1, team="z"), span(2, team="z"))
    assert spent(ledger, "named") == 2 * COST


def test_a_call_that_the_gateway_has_seen_is_not_charged_again(served, ledger):
    budgets(ledger, "otlp")
    ledger.append([call(700, provider_response_id="resp-7", source="gateway", tags={"team": "z"})])
    for _ in range(2):
        send(served, span(1, "resp-7", team="z"))
    assert spent(ledger, "named") == 0


def test_what_a_budget_began_with_is_not_taken_again(served, ledger):
    send(served, span(1, team="z"))
    put(
        ledger,
        Budget(
            budget_id="late", limit=10**12, scope=Tags(team="z"), sources=("otlp",), created_at=NOW.replace(minute=50)
        ),
        NOW.replace(minute=50),
    )
    assert spent(ledger, "late") == COST
    send(served, span(1, team="z"))
    assert spent(ledger, "late") == COST


def test_an_exhausted_budget_refuses_calls_because_of_spans(served, ledger):
    put(ledger, Budget(budget_id="small", limit=COST, sources=("otlp",), hard=True, created_at=NOW), NOW)
    before = spent(ledger, "small")
    send(served, span(1, team="z"))
    [account] = ledger.accounts("small")
    assert account.balance.settled == before + COST
    assert account.balance.limit is not None
    assert account.balance.spent > account.balance.limit - COST


def test_many_senders_at_once_charge_each_call_once(tmp_path):
    with MemoryLedger() as ledger:
        put(ledger, Budget(budget_id="all", limit=10**12, sources=("otlp",), created_at=NOW), NOW)
        entries = [call(number, source="otlp", recorded_at=NOW) for number in range(20)]
        threads = [threading.Thread(target=enter_foreign, args=(ledger, entries)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert spent(ledger, "all") == 20 * 10**9
        assert Traces(Desk(ledger, catalog, lambda: NOW)).take([]).entered == 0


@pytest.mark.parametrize("source", ["otlp", "log", "import", "manual"])
def test_every_source_has_to_be_named(source):
    with MemoryLedger() as ledger:
        put(ledger, Budget(budget_id="by", limit=10**12, sources=(source,), each=("team",), created_at=NOW), NOW)
        for number, kind in enumerate(("otlp", "log", "import", "manual")):
            enter_foreign(ledger, [call(number, source=kind, tags={"team": kind}, recorded_at=NOW)])
        assert [(one.value, one.balance.spent) for one in ledger.accounts("by")] == [(f"team={source}", 10**9)]
