"""The document of the interface: every path that it names answers as it says, and nothing answers that it does not."""

import json
from pathlib import Path

import jsonschema
import pytest
from apidesk import JSON, NOW, Served, call, catalog, filled, spelt

from tallystick.gateway.api.openapi import document
from tallystick.gateway.api.routes import TABLE
from tallystick.gateway.api.schemas import shapes
from tallystick.ledger.budget import Budget
from tallystick.ledger.hold import Ask, Claim
from tallystick.ledger.intents import Intents
from tallystick.ledger.memory import MemoryLedger

BODIES = {
    "putBudget": {"name": "team-a", "limit": "$50/day", "scope": {"team": "a"}, "each": ["user"]},
    "changeBudget": {"raise": {"by": "$1", "for": "2h"}, "paused": True},
    "estimate": {"model": "model-a", "text": "Hello"},
}
VALUES = {"call_id": "call-001", "run_id": "research", "name": "known"}
QUERY = {
    "findRates": {"model": "gpt-4o", "history": "true"},
    "getSpend": {"by": "team", "per": "day", "breakdown": "true"},
}


def valid(name, value):
    whole = {"$ref": f"#/components/schemas/{name}", "components": document()["components"]}
    jsonschema.Draft202012Validator(whole).validate(value)


def test_it_is_a_document_of_openapi_31(served):
    status, found = served.get("/openapi.json")
    assert (status, found) == (200, json.loads(json.dumps(document())))
    assert found["openapi"].startswith("3.1")
    for shape in found["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(shape)
    text = json.dumps(found)
    for name in set(json.dumps(found).split('"#/components/schemas/')[1:]):
        assert name.split('"')[0] in found["components"]["schemas"]
    operations = [one["operationId"] for path in found["paths"].values() for one in path.values()]
    assert len(set(operations)) == len(operations) == len(TABLE) + 2
    assert "pico" not in text.lower()


def example(route, param):
    """A value that a parameter takes."""
    if param.choices:
        return param.choices[0]
    named = {"tz": "UTC", "since": "7d", "until": "now", "at": "now", "tag": "a=b", "cursor": "0", "provider": "openai"}
    kinds = {"count": "3", "flag": "true", "list": "team"}
    if (route.name, param.name) == ("listCalls", "cursor"):
        return "1.0"
    return named.get(param.name) or kinds.get(param.kind, "gpt-4o")


def path_of(route):
    return "/" + "/".join(spelt(VALUES[part[1:-1]]) if part.startswith("{") else part for part in route.parts)


@pytest.mark.parametrize("route", TABLE, ids=lambda route: route.name)
def test_each_path_answers_as_documented(served, ledger, route):
    ledger.put_budget(Budget(budget_id="known", limit=10**12))
    claim = Claim(budget_id="known", value="", period="lifetime", base=5)
    ask = Ask(
        hold_id="h",
        claims=(claim,),
        output=1,
        least=1,
        payload="p",
        version=ledger.budgets().version,
        expires_at=NOW.replace(year=2099),
    )
    ledger.authorise(ask).result(20)
    ledger.append([call(900, provider_response_id="r"), call(901, provider_response_id="r", source="log")])
    query = QUERY.get(route.name, {})
    if route.method == "GET":
        status, value = served.get(path_of(route), **query)
    else:
        status, value = served.send(route.method, path_of(route), BODIES.get(route.name))
    assert status == route.status
    valid(route.shape, value)
    operation = document()["paths"][route.path][route.method.lower()]
    assert str(status) in operation["responses"]
    if route.body is not None:
        valid(route.body.__name__, BODIES[route.name])
    # Whatever may be asked can be asked.
    for param in route.params:
        asked = {**QUERY.get(route.name, {}), param.name: example(route, param)}
        assert served.get(path_of(route), **asked)[0] == 200


@pytest.mark.parametrize("route", TABLE, ids=lambda route: route.name)
def test_each_error_is_as_documented(served, ledger, route):
    documented = document()["paths"][route.path][route.method.lower()]["responses"]
    found = {}
    nowhere = "/" + "/".join("nothing" if part.startswith("{") else part for part in route.parts)
    if route.method == "GET":
        found[400] = served.get(path_of(route), nonsense="x")
        unknown = {"model": "nothing"} if route.name == "findRates" else {}
        found[404] = served.get(nowhere, **unknown) if 404 in route.errors else None
    else:
        status, _, body = served.ask(route.method, f"/tally/v1{path_of(route)}", b"{}")
        found[415] = status, json.loads(body)
        found[400] = served.send(route.method, path_of(route) + "?nonsense=x", {})
        unknown = {"model": "nothing"} if route.name == "estimate" else {}
        sent = {**BODIES.get(route.name, {}), **unknown}
        found[404] = served.send(route.method, nowhere, sent) if 404 in route.errors else None
    for expected, got in found.items():
        if got is not None:
            assert got[0] == expected
            assert str(expected) in documented
            valid("Error", got[1])
    ledger.close()
    if route.method == "GET" and route.name != "findRates":
        status, value = served.get(path_of(route))
        assert status == 503
        valid("Error", value)


def test_a_page_of_calls_and_one_in_flight_fit_their_shapes(served, tmp_path):
    _, value = served.get("/calls", limit=1000)
    valid("Calls", value)
    intents = Intents(tmp_path / "ledger.db.flight", lambda: "tests-1")
    slot = intents.open("call-900", 1_000_000, ("openai", "openai.chat", "model-a", ""))
    try:
        status, value = served.get("/calls/call-900")
    finally:
        slot.free()
        intents.close()
    assert status == 200
    valid("CallPage", value)


def test_the_shapes_refuse_what_does_not_fit():
    assert set(shapes()) == set(document()["components"]["schemas"]) - {
        "BudgetBody",
        "BudgetChange",
        "EstimateBody",
        "Raise",
    }
    with MemoryLedger() as ledger:
        filled(ledger)
        with Served(ledger, None) as served:
            _, value = served.get("/calls", limit=1)
    assert catalog().sha256
    value["calls"][0]["cost"] = 0.5
    with pytest.raises(jsonschema.ValidationError):
        valid("Calls", value)


def test_the_page_of_the_interface_names_every_path(served):
    page = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "http-api.md").read_text()
    for route in TABLE:
        assert f"`{route.method} {route.path}`" in page
        for param in route.params:
            assert f"`{param.name}`" in page
    assert JSON["content-type"] in page
