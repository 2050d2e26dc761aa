"""Questions to the ledger: what was spent, what two prompts cost, what another catalogue would make of it."""

from datetime import UTC, datetime

import msgspec
import pytest

import tallystick
from tallystick.catalog.catalog import Catalog, bundled_path
from tallystick.core.money import Money
from tallystick.insight.compare import compare_models, compare_prompts, sections
from tallystick.insight.rerate import rerate
from tallystick.insight.spend import cost_words, known_cost, spend

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
BOOK = Catalog.bundled()


@pytest.fixture
def ledger():
    with tallystick.open(":memory:") as held:
        yield held


def test_spend_never_takes_unknown_for_zero(ledger):
    tallystick.record({"input": 10}, "gpt-4q", ledger=ledger)
    spent = spend(ledger, by=["model"])
    assert known_cost(spent.total) is None
    assert cost_words(spent.rows[0]) == "unknown"
    assert spent.to_json()["total"]["cost"] is None
    tallystick.record({"input": 1000}, "gpt-4o", ledger=ledger)
    spent = spend(ledger, by=["model"])
    assert cost_words(spent.total) == "at least $0.0025"
    assert spent.to_json()["total"]["complete"] is False
    assert spent.gaps == "1 call without a price"


def test_a_free_call_is_zero(ledger):
    usage = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11, "cost": 0}
    tallystick.record(usage, "some/model", provider="openrouter", api="openrouter.chat", ledger=ledger)
    assert cost_words(spend(ledger).total) == "$0.00"


def test_sections_by_headings_and_tags():
    text = "before\n# One\ntext\n## Two\n<rules>\nbe brief\n</rules>\n"
    assert [part.title for part in sections(text, "gpt-4o")] == ["(opening)", "One", "Two", "<rules>"]
    assert sections("no headings", "gpt-4o")[0].title == "(opening)"
    assert sections("", "gpt-4o") == ()


def test_prompts_compared_both_ways():
    long, short = "word " * 401, "word " * 1
    there, back = (compare_prompts(*pair, "gpt-4o", BOOK, NOW) for pair in ((long, short), (short, long)))
    assert there.saved_tokens == -back.saved_tokens == 400
    assert there.break_even_output == back.break_even_output == 100
    assert there.verdict == "B saves 400 input tokens; 100 more output tokens cost the same."
    assert back.verdict.startswith("A saves 400")
    assert compare_prompts(long, long, "gpt-4o", BOOK, NOW).verdict.startswith("Both prompts")
    assert "less than one output token" in compare_prompts("a b c", "a b", "gpt-4o", BOOK, NOW).verdict
    unknown = compare_prompts(long, short, "gpt-4q", BOOK, NOW)
    assert unknown.a_cost is unknown.saved is None
    assert unknown.problem is not None


def test_models_compared():
    (row,) = compare_models("hello", ["gpt-4o"], BOOK, NOW, output_tokens=100, calls=2000)
    assert row.per_month == row.per_call * 2000
    assert msgspec.json.decode(msgspec.json.encode(row.to_json()))["per_call"] == row.per_call.to_json()


def dearer():
    """The bundled catalogue with another input rate for gpt-4o, and without gpt-5.5."""
    data = msgspec.json.decode(bundled_path().read_bytes())
    card = data["models"]["openai"]["gpt-4o"]["cards"][0]
    card["rates"]["input"]["usd"] = "5"
    data["models"]["openai"]["gpt-5.5"]["cards"] = []
    return Catalog(msgspec.json.encode(data))


def test_rerating_says_what_would_change_and_changes_nothing(ledger):
    tallystick.record({"input": 1_000_000}, "gpt-4o", ledger=ledger)
    tallystick.record({"input": 1_000_000}, "gpt-4o", context={"service_tier": "priority"}, ledger=ledger)
    tallystick.record({"input": 1_000_000}, "gpt-5.5", ledger=ledger)
    tallystick.record({"input": 1_000_000}, "claude-sonnet-5", ledger=ledger)
    before = [entry.to_json() for entry in ledger.read()]
    effects = {effect.model: effect for effect in rerate(ledger, BOOK, dearer())}
    assert set(effects) == {"gpt-4o", "gpt-5.5"}
    assert effects["gpt-4o"].difference == Money.usd("2.5")
    assert effects["gpt-4o"].calls == 2
    assert effects["gpt-5.5"].lost == 1
    assert [entry.to_json() for entry in ledger.read()] == before
    assert rerate(ledger, BOOK, BOOK) == ()
    # The ledger has a price that the old catalogue does not give: nothing can be said, so nothing is.
    assert rerate(ledger, dearer(), BOOK) == ()
    tallystick.record({"input": 1}, "gpt-4o", ledger=ledger)
    tallystick.record({"input": 1}, "gpt-4q", ledger=ledger)
    assert [(effect.model, effect.skipped) for effect in rerate(ledger, BOOK, dearer())] == [
        ("gpt-4o", 0),
        ("gpt-5.5", 0),
    ]
