"""What the cache saved and cost, from each call's own lines, and where that cannot be told."""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import NOW, RATES

import tallystick
from tallystick import front
from tallystick.config import parse_config
from tallystick.core.money import Money
from tallystick.core.pricing import price
from tallystick.core.usage import Usage
from tallystick.insight.report import report
from tallystick.insight.savings import OTHER, look_at
from tallystick.ledger.entry import Entry
from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.query import Query

COUNTS = st.integers(0, 10**6)


@pytest.fixture
def ledger(rates):
    with tallystick.open(":memory:") as held:
        yield held


def detail(ledger, catalog=True):
    return look_at(ledger, Query(), front.catalog() if catalog else None)


def test_reads_save_and_writes_cost_extra(ledger):
    tallystick.record(
        {"input": 10, "cache_read": 1_000_000, "cache_write_5m": 1_000_000}, "model-a", ledger=ledger, at=NOW
    )
    found = detail(ledger).owed
    # A million tokens at $2 uncached: read for $0.50, written for $2.50.
    assert (found.saved, found.extra, found.net) == (Money.usd("1.5"), Money.usd("0.5"), Money.usd(1))
    assert (found.calls, found.computed) == (1, 1)
    words = report(ledger, catalog=front.catalog()).remarks()
    assert (
        "Cache: reads saved $1.50 against the uncached rate, writes cost $0.50 extra, net $1.00, over 1 call with cached tokens."
        in words
    )


def test_without_an_input_line_the_catalogue_is_asked(ledger):
    tallystick.record({"cache_read": 1_000_000}, "model-a", ledger=ledger, at=NOW)
    assert detail(ledger).owed.saved == Money.usd("1.5")
    unasked = detail(ledger, catalog=False).owed
    assert (unasked.calls, unasked.computed, unasked.saved) == (1, 0, Money(0))


def test_a_catalogue_that_gives_another_rate_is_not_believed(ledger, rates):
    tallystick.record({"cache_read": 1_000_000}, "model-a", ledger=ledger, at=NOW)
    rates.write_text('[rates.model-a]\ninput = "9"\ncache_read = "0.7"\n')
    assert detail(ledger).owed.computed == 0
    rates.write_text('[rates.model-c]\ninput = "9"\n')
    assert detail(ledger).owed.computed == 0
    assert "unknown for 1 call with cached tokens" in " ".join(report(ledger, catalog=front.catalog()).remarks())


def test_what_has_no_price_or_another_bill_is_left_out(ledger):
    tallystick.record({"input": 5, "cache_read": 5}, "mystery", provider="openai", ledger=ledger, at=NOW)
    tallystick.record({"input": 5, "cache_write": 5, "cache_read": 5, "images": 1}, "model-b", ledger=ledger, at=NOW)
    stated = {
        "prompt_tokens": 10,
        "completion_tokens": 1,
        "total_tokens": 11,
        "cost": 0.5,
        "prompt_tokens_details": {"cached_tokens": 5},
    }
    tallystick.record(stated, "some/model", provider="openrouter", api="openrouter.chat", ledger=ledger, at=NOW)
    found = detail(ledger)
    assert found.owed.calls == 3
    assert found.owed.computed == 1
    kinds = {kind.kind: kind for kind in found.kinds}
    assert kinds["images"].unpriced == 1
    assert kinds[OTHER].cost == Money.usd("0.5")


def test_subscriptions_stand_apart(ledger):
    entry = tallystick.record({"input": 1, "cache_read": 1_000_000}, "model-a", at=NOW, ledger=ledger)
    ledger.append([msgspec.structs.replace(entry, call_id="other", owed=False)])
    found = detail(ledger)
    assert found.owed.saved == found.not_owed.saved == Money.usd("1.5")
    words = " ".join(report(ledger, catalog=front.catalog()).remarks())
    assert "(API-equivalent, not a bill)" in words


def test_a_cliff_holds_for_the_uncached_prompt_too(ledger):
    """The whole prompt decides the rate, cached or not, so what was saved is at that rate."""
    at = datetime(2026, 10, 1, tzinfo=UTC)
    priced = [card for model in ("gemini-2.5-pro",) for card in front.catalog().history(model)]
    cliff = next((card for card in priced if card.thresholds and "cache_read" in card.rates), None)
    if cliff is None:
        pytest.skip("no model of the catalogue has a cliff and a cache")
    entry = tallystick.record({"input": 1000, "cache_read": 500_000}, "gemini-2.5-pro", at=at, ledger=ledger)
    line = {one.kind: one for one in entry.cost.lines}
    full = 500_000 * line["input"].priced.numerator // line["input"].priced.denominator
    assert detail(ledger).owed.saved.pico == full - line["cache_read"].pico


@given(st.lists(st.tuples(COUNTS, COUNTS, COUNTS), max_size=5))
def test_paid_plus_saved_is_what_it_would_have_cost_uncached(counts):
    book = front.catalog().with_user(parse_config(RATES).rates)
    card = book.find("model-a", at=NOW).card
    paid = full = 0
    with MemoryLedger("UTC") as ledger:
        for number, (plain, read, written) in enumerate(counts):
            usage = Usage(input=plain, cache_read=read, cache_write_5m=written)
            cost = price(usage, card, at=NOW)
            ledger.append(
                [
                    Entry(
                        call_id=str(number),
                        started_at=NOW,
                        provider="other:user",
                        model="model-a",
                        usage=usage,
                        cost=cost,
                    )
                ]
            )
            paid += cost.pico
            full += price(Usage(input=plain + read + written), card, at=NOW).pico
        found = look_at(ledger, Query(), book)
    assert found.owed.calls == found.owed.computed
    assert full - paid == found.owed.net.pico
    assert sum(kind.cost.pico for kind in found.kinds) == paid
