"""A hard budget of the ledger on a tracked client: held before, cut in the middle, refused after; in the SDK's words."""

import openai

import tallystick
from tallystick.capture.process import close_meters
from tallystick.core.attribution import Tags
from tallystick.ledger.budget import Budget
from tallystick.ledger.sqlite import SqliteLedger
from tallystick.simulator import Answer

HELLO = [{"role": "user", "content": "Hello, how are you today?"}]


def test_a_hard_budget_holds_cuts_and_refuses(simulate, tmp_path):
    tallystick.count("The tokenizer is loaded.", model="gpt-4o")
    sim = simulate(Answer(output_tokens=3000, chunk_tokens=8, chunk_ms=2))
    with SqliteLedger(tmp_path / "ledger.db") as ledger:
        ledger.put_budget(Budget(budget_id="team-a", limit=5 * 10**9, scope=Tags(team="a")))
        with openai.OpenAI(base_url=sim.openai_url, api_key="none", max_retries=3) as client:
            tallystick.track(client, ledger=ledger, provider="openai", team="a")
            chunks = list(client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True))
            refused_call = None
            while refused_call is None:
                try:
                    list(client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True))
                except openai.RateLimitError as error:
                    refused_call = error
        close_meters()
        first, *_, refused = ledger.read()
        [account] = ledger.accounts("team-a")
        assert ledger.verify() == []
    assert "team-a" in str(refused_call)
    assert chunks[-1].choices[0].finish_reason == "length"
    # All that is left is held, and the provider is told how much that is: it ends the answer there by itself.
    assert (first.status, first.quality, first.hold_id) == ("ok", "exact", first.call_id)
    assert (refused.status, refused.stopped_by) == ("refused", "team-a")
    assert account.balance.spent <= 5 * 10**9
    assert account.balance.settled > 3 * 10**9
    assert account.balance.held == 0
