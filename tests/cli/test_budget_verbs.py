"""tally budget: what people type, what they see, and what a slip costs."""

import sys
from datetime import UTC, datetime, timedelta

import pytest

import tallystick
from tallystick.core.attribution import Tags
from tallystick.core.money import Money
from tallystick.core.usage import Usage
from tallystick.ledger.hold import Ask, Claim

SCOPED = ("--limit", "$50/day", "--scope", "team=a")


def held(name="team-a", call="call-1"):
    """Holds $0.10 of a budget for a call that never ends."""
    now = datetime.now(UTC)
    with tallystick.open() as ledger:
        claim = Claim(budget_id=name, value="", period=f"day {now.date()}", base=10**11)
        ask = Ask(
            hold_id=call, claims=(claim,), output=0, least=0, payload="x", version=ledger.budgets().version,
            expires_at=now - timedelta(seconds=1),
        )  # fmt: skip
        ledger.authorise(ask).result(timeout=10)
        return ledger.expire()


def test_a_budget_from_its_making_to_its_end(tally):
    empty = tally("budget")
    assert empty.code == 0
    assert "no budget yet" in empty.out
    made = tally("budget", "add", "team-a", *SCOPED, "--alert", "50,80,100")
    assert made.code == 0
    assert "$50.00/day" in made.out
    assert "50 %, 80 %, 100 %" in made.out
    tallystick.record({"input": 1000}, "gpt-4o", tags={"team": "a"})
    listed = tally("budget", "list")
    assert "team-a" in listed.out
    assert "$50.00/day" in listed.out
    assert "team=a" in listed.out
    raised = tally("budget", "raise", "team-a", "--by", "$10", "--for", "2h")
    assert "$60.00 until" in raised.out
    assert "raised by $10.00 until" in tally("budget", "list").out
    assert tally("budget", "pause", "team-a").code == 0
    assert tally("budget", "show", "team-a", "--json").json["paused"] is True
    assert tally("budget", "resume", "team-a").code == 0
    assert tally("budget", "show", "team-a", "--json").json["paused"] is False
    assert tally("budget", "remove", "team-a").code == 0
    assert tally("budget", "list", "--json").json == {"budgets": []}


def test_json_says_it_all(tally):
    added = tally("budget", "add", "each", "--limit", "1M tokens/month", "--each", "user", "--soft", "--tz", "Europe/Berlin",
                  "--anchor", "5", "--source", "log", "--fail-open", "--json").json  # fmt: skip
    assert added == {
        "name": "each", "limit": 1_000_000, "unit": "tokens", "period": "month", "tz": "Europe/Berlin", "anchor": 5, "scope": {},
        "each": ["user"], "hard": False, "failure": "open", "sources": ["log"], "alerts": [], "paused": False, "raised_by": 0,
        "raised_until": None, "accounts": [], "advisory": [],
    }  # fmt: skip
    tally("budget", "add", "money", *SCOPED)
    money = tally("budget", "list", "--json").json["budgets"][1]
    assert money["limit"] == {"usd": "50"}
    (account,) = money["accounts"]
    assert account["spent"] == {"usd": "0"}
    assert account["left"] == {"usd": "50"}
    assert account["resets_at"].endswith("T00:00:00.000000Z")
    assert "each user" in tally("budget", "list").out
    assert "No call has concerned it" in tally("budget", "show", "each").out


def test_another_limit_keeps_what_was_used(tally):
    from tallystick.ledger.entry import Entry

    tally("budget", "add", "a", "--limit", "$5/day", "--scope", "team=a")
    with tallystick.open() as ledger:
        entry = Entry(
            call_id="c", started_at=datetime.now(UTC), provider="openai", model="gpt-4o", source="client",
            usage=Usage(input=1), cost=tallystick.price({"prompt_tokens": 10**6, "completion_tokens": 0}, "gpt-4o"),
            tags=Tags(team="a"),
        )  # fmt: skip
        ledger.append([entry])
    added = tally("budget", "add", "b", "--limit", "$5/day", "--scope", "team=a", "--json").json
    assert added["accounts"][0]["spent"] == {"usd": "2.5"}
    edited = tally("budget", "add", "b", "--limit", "$4/day", "--scope", "team=a", "--json").json
    assert edited["accounts"][0]["left"] == {"usd": "1.5"}
    assert "62 %" in tally("budget", "show", "b").out


@pytest.mark.parametrize(
    "words",
    [
        ("add", "x", "--limit", "-$5"), ("add", "x", "--limit", "$5/eon"), ("add", "x", "--limit", "$5/day", "--tz", "Mars/Olympus"),
        ("add", "x", "--limit", "$5", "--scope", "taem=a"), ("add", "x", "--limit", "$5", "--scope", "team"), ("add", "x y", "--limit", "$5"),
        ("add", "x", "--limit", "$5", "--alert", "half"), ("add", "x", "--limit", "$5/day", "--anchor", "9"), ("add", "x"),
        ("show", "x"), ("remove", "x"), ("pause", "x"), ("raise", "x", "--by", "$1"), ("holds", "resolve", "x", "--charge"),
        ("holds", "resolve", "x"), ("holds", "resolve", "x", "--charge", "--release"),
    ],
)  # fmt: skip
def test_a_slip_is_one_sentence_and_changes_nothing(tally, words):
    said = tally("budget", *words)
    assert said.code == 2
    assert said.err.startswith(("tally: ", "Usage: "))
    assert tally("budget", "list", "--json").json == {"budgets": []}


def test_a_raise_has_to_fit(tally):
    tally("budget", "add", "a", "--limit", "$5/day")
    for words in (
        ("--by", "5 calls"),
        ("--by", "$5/day"),
        ("--by", "$5", "--for", "soon"),
        ("--by", "$5", "--for", "0h"),
    ):
        assert tally("budget", "raise", "a", *words).code == 2
    assert tally("budget", "show", "a", "--json").json["raised_until"] is None


def test_suspect_holds_are_shown_and_resolved(tally):
    tally("budget", "add", "team-a", *SCOPED)
    assert tally("budget", "holds").out == "Nothing is held.\n"
    assert tally("budget", "holds", "--suspect").out == "No hold is suspect.\n"
    assert held() == ["call-1"]
    assert "$0.10 suspect" in tally("budget", "show", "team-a").out
    shown = tally("budget", "holds", "--suspect")
    assert "call-1" in shown.out
    assert "$0.10 of team-a" in shown.out
    (hold,) = tally("budget", "holds", "--json").json["holds"]
    assert hold["holds"][0]["amount"] == Money.usd("0.10").to_json()
    assert tally("budget", "holds", "resolve", "call-1", "--charge").code == 0
    (account,) = tally("budget", "show", "team-a", "--json").json["accounts"]
    assert (account["spent"], account["suspect"]) == ({"usd": "0.1"}, {"usd": "0"})
    held(call="call-2")
    assert tally("budget", "holds", "resolve", "call-2", "--release").code == 0
    (account,) = tally("budget", "show", "team-a", "--json").json["accounts"]
    assert account["spent"] == {"usd": "0.1"}


def test_deliver_tells_of_thresholds(tally, tmp_path, monkeypatch):
    assert tally("budget", "deliver").code == 2
    config = tmp_path / "tally.toml"
    told = tmp_path / "told"
    config.write_text(
        f'[alerts]\ncommand = ["{sys.executable}", "-c", "import sys; open({str(told)!r}, \'a\').write(sys.argv[1])"]\n'
    )
    monkeypatch.setenv("TALLY_CONFIG", str(config))
    tally("budget", "add", "team-a", *SCOPED, "--alert", "0.1%".replace("0.1", "1"))
    assert tally("budget", "deliver").out == "0 delivered, 0 waiting.\n"
    tally("budget", "add", "team-a", "--limit", "$0.10/day", "--scope", "team=a", "--alert", "50")
    held()
    assert tally("budget", "deliver", "--json").json == {"delivered": 1, "waiting": 0}
    assert told.read_text().startswith("Budget team-a has spent $0.10 of $0.10")
    config.write_text('[alerts]\nwebhook = "env:NOT_SET"\n')
    tally("budget", "add", "team-a", "--limit", "$0.10/day", "--scope", "team=a", "--alert", "100")
    assert tally("budget", "deliver").code == 4
