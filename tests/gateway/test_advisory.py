"""A budget that goes by a tag which callers set themselves says so: in lists, in the API, in refusals."""

import json
from datetime import UTC, datetime, timedelta

import openai
import pytest
from gateway_desk import tally

from tallystick.core.attribution import Tags
from tallystick.gateway.keys import Key, save
from tallystick.ledger.budget import Budget
from tallystick.ledger.memory import MemoryLedger
from tallystick.metering.advisory import advice, advisory, open_tags
from tallystick.metering.budgets import put, refusal
from tallystick.metering.desk import Desk
from tallystick.simulator import Answer

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 50}


def key(name, **fields):
    return Key(key_id=name, digest="x", created_at=NOW, **fields)


def test_open_tags_are_those_of_the_keys_in_force():
    with MemoryLedger() as ledger:
        assert open_tags(ledger, NOW) == frozenset()
        save(ledger, key("a", open=("project", "feature")))
        save(ledger, key("b", open=("team",), revoked_at=NOW))
        save(ledger, key("c", open=("user",), expires_at=NOW))
        save(ledger, key("d", open=("agent",), expires_at=NOW + timedelta(seconds=1)))
        ledger.state("keys", "broken", "no key")
        assert open_tags(ledger, NOW) == {"project", "feature", "agent"}


def test_a_budget_is_advisory_by_its_scope_and_by_what_it_has_accounts_for():
    opened = frozenset({"project", "feature"})
    scoped = Budget(budget_id="x", limit=1, scope=Tags({"project": "p", "team": "a"}))
    each = Budget(budget_id="x", limit=1, each=("tag:feature", "user"))
    assert advisory(scoped, opened) == ("project",)
    assert advisory(each, opened) == ("tag:feature",)
    assert advisory(Budget(budget_id="x", limit=1, scope=Tags(team="a")), opened) == ()
    assert advisory(scoped, ()) == ()
    assert advice(("project", "tag:feature")) == "advisory: callers set project and feature themselves"
    assert advice(()) == ""


def test_lists_say_so(tmp_path):
    assert tally(tmp_path, "keys", "create", "--team", "a", "--open", "project")[0] == 0
    for name, scope in (("open", "project=p"), ("closed", "team=a")):
        assert tally(tmp_path, "budget", "add", name, "--limit", "$5/day", "--scope", scope)[0] == 0
    listed = tally(tmp_path, "budget", "list", "--json")[1]
    assert {row["name"]: row["advisory"] for row in json.loads(listed)["budgets"]} == {
        "open": ["project"], "closed": [],
    }  # fmt: skip
    shown = tally(tmp_path, "budget", "show", "open")[1]
    assert "advisory: callers set project themselves" in shown
    assert "advisory" not in tally(tmp_path, "budget", "show", "closed")[1]
    assert tally(tmp_path, "budget", "list")[1].count("advisory") == 1


@pytest.mark.skipif(not hasattr(Desk, "refusal"), reason="refusals are made elsewhere")
@pytest.mark.parametrize(("scope", "says"), [("project", True), ("team", False)])
def test_a_refusal_says_so(simulate, gateway, scope, says):
    sim = simulate(Answer(output_tokens=5))
    through = gateway(sim, env={"OPENAI_API_KEY": "sk-held"})
    token = through.key(tags={"team": "t"}, open=("project",))
    put(through.ledger, Budget(budget_id="none", limit=1, scope=Tags({scope: "t"})), datetime.now(UTC))
    headers = {"x-tally-project": "t"}
    with (
        openai.OpenAI(base_url=through.openai, api_key=token, max_retries=0, default_headers=headers) as client,
        pytest.raises(openai.RateLimitError) as caught,
    ):
        client.chat.completions.create(**CHAT)
    said = refusal(caught.value)
    assert said is not None
    assert (said.budget, said.advisory) == ("none", says)
    assert ("callers set project themselves" in str(caught.value)) is says
    assert sim.calls == []
