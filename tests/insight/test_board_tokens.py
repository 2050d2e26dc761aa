"""The questions behind the page of tokens: the sums agree with what reading every call says, and name what they hide."""

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal as D

import pytest

from tallystick.catalog.catalog import Catalog
from tallystick.core.money import Money
from tallystick.core.periods import Period
from tallystick.core.pricing import price
from tallystick.core.rates import Cliff, Rate, RateCard, Variant, Window
from tallystick.core.usage import TOKEN_KINDS, Usage
from tallystick.insight.board_tokens import GROUPS, hit_rate, token_board
from tallystick.insight.savings import look_at
from tallystick.ledger.entry import Entry
from tallystick.ledger.query import Query
from tallystick.ledger.sqlite import SqliteLedger

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
CHANGE = datetime(2026, 9, 10, tzinfo=UTC)


def rates(**usd):
    return {kind: Rate(D(value)) for kind, value in usd.items()}


def catalog():
    """A model whose rates halved on a day in the middle of a month, one without a rate for what it reads from a cache,
    one with a threshold and hours."""
    old = RateCard(
        provider="openai", model="model-a", valid_to=CHANGE,
        rates=rates(input="4", output="8", cache_read="1", cache_write_5m="5"), fallbacks={"cache_write": "cache_write_5m"},
    )  # fmt: skip
    new = RateCard(
        provider="openai", model="model-a", valid_from=CHANGE,
        rates=rates(input="2", output="8", cache_read="0.5", cache_write_5m="2.5"), fallbacks={"cache_write": "cache_write_5m"},
    )  # fmt: skip
    bare = RateCard(provider="anthropic", model="model-b", rates=rates(input="1", output="4"))
    steps = Rate(D(1), cliffs=(Cliff(200_000, D(2)),))
    night = Variant(name="night", when=(), windows=(Window(0, 300),), rates=rates(input="0.5"))
    stepped = RateCard(
        provider="google",
        model="model-c",
        rates={"input": steps, **rates(output="4", cache_read="0.1")},
        variants=(night,),
    )
    return Catalog.bundled().with_user([old, new, bare, stepped])


@pytest.fixture
def ledger(tmp_path):
    with SqliteLedger(tmp_path / "l.db", clock=NOW.timestamp) as held:
        yield held


def call(number, at, usage, model="model-a", provider="openai", book=None, **more):
    card = None
    if book is not None:
        card, _ = book.card_at(model, provider, at)
    cost = None if card is None else price(usage, card, at=at)
    return Entry(
        call_id=f"call-{number:05d}", started_at=at, settled_at=at, provider=provider, model=model, usage=usage,
        cost=cost, source="client", **more,
    )  # fmt: skip


def year(book, count=300):
    chance = random.Random(9)
    return [
        call(
            number, NOW - timedelta(minutes=chance.randrange(1, 300 * 1440)),
            Usage(input=chance.randrange(1, 9000), cache_read=chance.randrange(0, 9000),
                  cache_write_5m=chance.randrange(0, 2000), output=chance.randrange(1, 500)),
            book=book,
        )
        for number in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "since", [None, NOW - timedelta(days=30), CHANGE - timedelta(days=20), CHANGE + timedelta(hours=30)]
)
def test_the_sums_say_what_reading_every_call_says(ledger, since):
    book = catalog()
    ledger.append(year(book))
    query = Query(since=since)
    board = token_board(ledger, query, book, Period("day"), NOW)
    read = look_at(ledger, query, book).owed
    assert read.saved
    assert (board.cached.saved, board.cached.extra, board.cached.net) == (read.saved, read.extra, read.net)
    assert board.cached.unknown == 0
    assert board.cached.hidden == ()


def test_one_name_at_two_providers_is_two_models(ledger):
    book = catalog()
    at = NOW - timedelta(days=60)
    usage = Usage(input=10, cache_read=1_000_000)
    ledger.append(
        [
            call(1, at, usage, book=book),
            call(2, at, usage, provider="azure"),
            call(3, at, usage, "model-c", "google", book=book),
        ]
    )
    board = token_board(ledger, Query(), book, Period("day"), NOW)
    assert {(one.provider, one.cached.known, one.cached.saved) for one in board.models} == {
        ("openai", True, Money.usd("1.5")), ("azure", False, Money(0)), ("google", True, Money.usd("0.9")),
    }  # fmt: skip


def test_a_month_in_which_a_rate_changed_is_added_up_by_day(ledger):
    book = catalog()
    usage = Usage(input=0, cache_read=1_000_000)
    ledger.append(
        [call(1, CHANGE - timedelta(days=3), usage, book=book), call(2, CHANGE + timedelta(days=3), usage, book=book)]
    )
    board = token_board(ledger, Query(), book, Period("month"), NOW)
    assert board.cached.saved == Money.usd("3") + Money.usd("1.5")


def test_what_has_no_rate_is_unknown_and_never_zero(ledger):
    book = catalog()
    at = NOW - timedelta(days=2)
    ledger.append([
        call(0, at, Usage(input=10), "model-b", "anthropic", book=book),
        call(1, at, Usage(input=10, cache_read=700), "model-b", "anthropic", book=book),
        call(2, at, Usage(input=10, cache_read=50), "no-such-model"),
        call(3, at, Usage(input=1000, cache_read=1_000_000), book=book),
    ])  # fmt: skip
    board = token_board(ledger, Query(), book, Period("day"), NOW)
    found = {one.model: one for one in board.models}
    assert board.cached.saved == Money.usd("1.5")
    assert (board.cached.tokens, board.cached.unknown) == (1_000_750, 750)
    assert not found["model-b"].cached.known
    assert found["model-b"].record()["cache_saved"] is None
    assert found["model-a"].record()["cache_saved"] == Money.usd("1.5")
    assert "cache_read" in found["model-b"].cached.reasons[0]
    assert "no price" in found["no-such-model"].cached.reasons[0]


def test_what_sums_cannot_know_is_named(ledger):
    book = catalog()
    ledger.append(
        [call(1, NOW - timedelta(days=2), Usage(input=250_000, cache_read=10), "model-c", "google", book=book)]
    )
    board = token_board(ledger, Query(), book, Period("day"), NOW)
    assert board.cached.saved == Money.usd("0.000009")
    assert look_at(ledger, Query(), book).owed.saved == Money.usd("0.000019")
    assert ["200,001" in board.cached.hidden[0], "by the hour" in board.cached.hidden[1]] == [True, True]


def test_kinds_over_time_and_by_model(ledger):
    book = catalog()
    first = Usage(
        input=100,
        cache_read=300,
        cache_write_5m=40,
        cache_write_1h=2,
        output=20,
        reasoning=7,
        audio_input=5,
        searches=3,
    )
    ledger.append([
        call(1, NOW - timedelta(days=4), first),
        call(2, NOW - timedelta(days=1), Usage(output=9), "model-b", "anthropic"),
        call(3, NOW - timedelta(days=40), Usage(input=999)),
    ])  # fmt: skip
    board = token_board(ledger, Query(since=NOW - timedelta(days=7)), book, Period("day"), NOW)
    assert board.tokens == {
        "uncached input": 100, "cache read": 300, "cache write": 42, "output": 29, "reasoning": 7,
        "audio": 5, "image": 0, "video": 0,
    }  # fmt: skip
    assert board.groups == ("uncached input", "cache read", "cache write", "output", "reasoning", "audio")
    assert board.others == (("searches", 3, "searches"),)
    assert board.hit_rate == 300 / 447
    assert [sum(bucket.tokens.values()) for bucket in board.buckets] == [474, 0, 0, 9]
    assert [bucket.hit_rate for bucket in board.buckets] == [300 / 447, None, None, None]
    assert [one.model for one in board.models] == ["model-a", "model-b"]


def test_every_kind_of_token_is_shown_in_one_group():
    kinds = [kind for group in GROUPS.values() for kind in group]
    assert sorted(kinds) == sorted(TOKEN_KINDS)


def test_nothing_is_no_rate(ledger):
    board = token_board(ledger, Query(), catalog(), Period("month"), NOW)
    assert (board.models, board.buckets, board.hit_rate) == ((), (), None)
    assert hit_rate(Usage(input=10)) == 0
