"""What-if: the same traffic on another model, from sums."""

import math
from datetime import UTC, datetime, timedelta

import pytest

from tallystick.catalog.catalog import Catalog
from tallystick.core.attribution import Tags
from tallystick.core.money import Money
from tallystick.core.pricing import price
from tallystick.core.usage import Usage
from tallystick.insight.board_models import elsewhere, model_uses
from tallystick.insight.whatif import suggestions, tokens_for, what_if
from tallystick.ledger.entry import Entry
from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.query import Query, Total
from tallystick.tokens.encodings import encoding
from tallystick.tokens.rules import load

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
CATALOG = Catalog.bundled()
PROSE = """The meeting is moved to Thursday afternoon, since half of the team is travelling. Please bring the
figures of the last quarter, and be ready to explain why the costs of the new service grew faster than its users."""
CODE = """def total(rows):
    seen = {}
    for row in rows:
        if row.key not in seen:
            seen[row.key] = 0
        seen[row.key] += row.amount * (1 + row.tax_rate)
    return sorted(seen.items(), key=lambda pair: -pair[1])
"""
JSON = """{"id": 4711, "status": "open", "items": [{"sku": "A-113", "count": 2, "price": 19.95}, {"sku": "B"}],
 "shipping": {"name": "Ada", "street": "1 Long Row", "city": "London"}, "paid": false, "notes": null}"""


def traffic(model, provider="openai", calls=100, **usage):
    """A sum of calls as the ledger gives it, priced at the catalogue's rates."""
    found = CATALOG.find(model, at=AT, provider=provider)
    one = price(Usage(usage), found.card, at=AT).amount
    whole = Usage({kind: count * calls for kind, count in usage.items()})
    return Total({"provider": provider, "model": model}, calls=calls, cost=Money(one.pico * calls), usage=whole)


def test_the_stated_ratios_are_those_of_the_tokenizers():
    for name, stated in load("ratios")["encodings"].items():
        found = sorted(encoding(name).count(text) / encoding("o200k_base").count(text) for text in (PROSE, CODE, JSON))
        likely = math.prod(found) ** (1 / 3)
        assert stated == pytest.approx([found[0], likely, found[-1]], abs=0.0006), name


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4.1-mini", "o3"])
def test_on_its_own_model_the_traffic_costs_what_it_did(model):
    row = traffic(model, input=1000, cache_read=500, output=200)
    moved = what_if([row], model, CATALOG, AT)
    assert moved.cost.low == moved.cost.likely == moved.cost.high == row.cost == moved.before
    assert not moved.difference
    assert moved.left_out == 0


def test_models_with_one_tokenizer_are_compared_exactly():
    row = traffic("gpt-4o", input=1000, output=100)
    moved = what_if([row], "gpt-4o-mini", CATALOG, AT)
    # 100 calls of 1,000 and 100 tokens at $0.15 and $0.60 per million.
    assert str(moved.cost.likely) == "$0.021"
    assert moved.cost.low == moved.cost.high
    assert moved.ratios == (1.0, 1.0)


def test_another_tokenizer_gives_a_range_and_its_ratio():
    moved = what_if([traffic("gpt-4o", input=1000, output=100)], "claude-haiku-4-5", CATALOG, AT)
    assert moved.cost.low < moved.cost.likely < moved.cost.high
    factor = tokens_for("gpt-4o", "claude-haiku-4-5").likely
    assert moved.ratios == (factor, factor)
    # $1 and $5 per million tokens.
    expected = round(100_000 * factor) * 1_000_000 + round(10_000 * factor) * 5_000_000
    assert moved.cost.likely == Money(expected)


def test_a_paid_cache_costs_what_a_free_one_did_not():
    plain = what_if([traffic("gpt-4o", input=1000, output=100)], "claude-haiku-4-5", CATALOG, AT)
    cached = what_if([traffic("gpt-4o", input=1000, cache_read=1, output=100)], "claude-haiku-4-5", CATALOG, AT)
    assert cached.cost.likely > plain.cost.likely
    assert cached.cost.low - plain.cost.low < Money.usd("0.0001")
    assert any("writing to the cache" in remark for remark in cached.remarks)


def test_what_cannot_be_carried_over_is_left_out_and_said():
    long = traffic("gpt-4.1", input=900_000, output=10)
    unknown = Total({"provider": "openai", "model": "nobody-knows"}, calls=3, usage=Usage(input=10), unpriced=3)
    moved = what_if([traffic("gpt-4o", input=1000), long, unknown], "gpt-4o", CATALOG, AT)
    assert (moved.calls, moved.left_out) == (100, 103)
    assert any("more than it takes (128,000)" in remark for remark in moved.remarks)
    assert any("no price to compare with" in remark for remark in moved.remarks)
    nowhere = what_if([unknown], "gpt-4o", CATALOG, AT)
    assert nowhere.cost is None
    assert nowhere.problem
    missing = what_if([long], "no-such-model-at-all", CATALOG, AT)
    assert missing.cost is None
    assert "no-such-model-at-all" in missing.problem
    assert missing.to_json()["cost"] is None


def test_suggestions_cost_next_less_two_at_each_provider():
    rows = [traffic("gpt-4o", input=1000, cache_read=500, output=200)]
    offered = suggestions(rows, CATALOG, AT)
    assert offered
    places = [row.provider for row in offered]
    assert max(places.count(place) for place in places) == 2
    assert all(row.cost.likely < row.before and not row.left_out for row in offered)
    for place in set(places):
        costs = [row.cost.likely.pico for row in offered if row.provider == place]
        assert costs == sorted(costs, reverse=True)


def test_uses_and_the_table_from_a_ledger():
    ledger = MemoryLedger()
    card = CATALOG.find("gpt-4o", at=AT).card
    usage = Usage(input=1000, output=100)
    cost = price(usage, card, at=AT)
    for number in range(4):
        start = AT - timedelta(minutes=number)
        ledger.append(
            [Entry(
                call_id=f"call-{number}", started_at=start, settled_at=start, recorded_at=start, provider="openai",
                model="gpt-4o", maker="openai", usage=usage, quality="exact", cost=cost, status="ok", source="client",
                tags=Tags(),
            )]
        )  # fmt: skip
    uses, _ = model_uses(ledger, Query())
    assert [(use.model, use.sent, str(use.mean), use.prompt, use.answer) for use in uses] == [
        ("gpt-4o", 4, "$0.0035", 1000, 100)
    ]
    rows, offered = elsewhere(uses, ["gpt-4o-mini", "nope"], CATALOG, AT)
    assert [row.model for row in rows] == ["gpt-4o-mini", "nope", "gpt-4o"]
    assert rows[2].difference == Money(0)
    assert "gpt-4o-mini" not in [row.model for row in offered]
