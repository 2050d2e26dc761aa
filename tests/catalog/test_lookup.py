"""Lookup: which names lead to which card, and which lead nowhere."""

import json
import re
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tallystick.catalog.catalog import Catalog, built_on, bundled_path, digest, read_update
from tallystick.catalog.nearest import nearest
from tallystick.config import user_card
from tallystick.core.models import PROVIDERS
from tallystick.core.pricing import price
from tallystick.core.usage import Usage
from tallystick.errors import CatalogError, InputError, MissingRateError, UnknownModelError

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def card(usd, **more):
    return {"provider": "p", "model": "m", "rates": {"input": {"usd": str(usd)}}, "source": "s", **more}


def row(usd, **more):
    return {"cards": [card(usd)], **more}


ROWS = {
    "openai": {
        "alpha-1": {**row(1), "dated": True},
        "alpha-1-mini": row(2),
        "ft:alpha-1": row(3),
        "old-1": {"cards": [card(9, valid_to="2026-01-01T00:00:00Z"), card(8, valid_from="2026-03-01T00:00:00Z")]},
        "bare-1": {},
    },
    "anthropic": {"beta-5": {**row(4), "dated": True}},
    "vertex": {"beta-5": {**row(5), "dated": True}},
    "aws": {
        "anthropic.beta-5-v1:0": row(6),
        "regional.anthropic.beta-5-v1:0": row("6.6"),
        "global.anthropic.beta-5-v1:0": row(6),
        "us-gov.anthropic.beta-5-v1:0": row("7.2"),
        "maker.plain-2": {**row(7), "dated": True},
    },
    "azure": {"alpha-1": row(10)},
    "openrouter": {
        "openai/alpha-1": row(11),
        "openai/alpha-1:batch": row("5.5"),
        "maker/gift:free": row(0),
        "openrouter/auto": {},
    },
    "perplexity": {"perplexity/gamma": row(12)},
    "other:reseller": {"alpha-1": row(99), "only-here": row(13)},
}
ALIASES = {"openai": {"alpha-1-latest": "alpha-1", "alpha": "alpha-1"}, "azure": {"alpha1": "alpha-1"}}


def snapshot(models=ROWS, aliases=ALIASES):
    order = ["openai", "anthropic", "vertex", "aws", "azure", "openrouter"]
    value = {
        "schema": 1,
        "built_at": "2026-11-01",
        "sources": {},
        "preference": order,
        "aliases": aliases,
        "models": models,
    }
    return json.dumps(value, separators=(",", ":")).encode()


BOOK = Catalog(snapshot())


def usd(name, provider=None, book=BOOK, at=NOW):
    found = book.find(name, at=at, provider=provider)
    return found.provider, price(Usage(input=1_000_000), found.card, at=at, context=found.context).amount.to_decimal()


@pytest.mark.parametrize(
    ("name", "provider", "place", "amount", "rule"),
    [
        ("alpha-1", None, "openai", 1, "exact"),
        (" Alpha-1 ", None, "openai", 1, "exact"),
        ("openai/alpha-1", None, "openai", 1, "exact"),
        ("alpha", None, "openai", 1, "alias"),
        ("alpha-1-latest", None, "openai", 1, "alias"),
        ("alpha-1-2026-05-01", None, "openai", 1, "dated"),
        ("alpha-1-20260501", None, "openai", 1, "dated"),
        ("alpha-1-mini", None, "openai", 2, "exact"),
        ("ft:alpha-1:acme::x1", None, "openai", 3, "fine-tune"),
        ("alpha-1", "azure", "azure", 10, "exact"),
        ("azure/alpha-1", None, "azure", 10, "exact"),
        ("azure/alpha1", None, "azure", 10, "alias"),
        ("beta-5", None, "anthropic", 4, "exact"),
        ("beta-5@20260401", "vertex", "vertex", 5, "version"),
        ("projects/p/locations/us-east5/publishers/anthropic/models/beta-5@20260401", None, "vertex", 5, "version"),
        ("anthropic.beta-5-v1:0", "aws", "aws", "6.6", "exact"),
        ("us.anthropic.beta-5-v1:0", None, "aws", "6.6", "exact"),
        ("global.anthropic.beta-5-v1:0", None, "aws", 6, "exact"),
        ("us-gov.anthropic.beta-5-v1:0", None, "aws", "7.2", "exact"),
        (
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/global.anthropic.beta-5-v1:0",
            None, "aws", 6, "exact",
        ),
        ("arn:aws:bedrock:eu-west-1::foundation-model/anthropic.beta-5-v1:0", None, "aws", "6.6", "exact"),
        ("maker.plain-2-v3:0", "aws", "aws", 7, "version"),
        ("openrouter/openai/alpha-1", None, "openrouter", 11, "exact"),
        ("openai/alpha-1:nitro", "openrouter", "openrouter", 11, "exact"),
        ("openai/alpha-1:batch", "openrouter", "openrouter", "5.5", "exact"),
        ("openai/alpha-1:free", "openrouter", "openrouter", 0, "free"),
        ("maker/gift:free", "openrouter", "openrouter", 0, "exact"),
        ("perplexity/gamma", "perplexity", "perplexity", 12, "exact"),
        ("perplexity/gamma", None, "perplexity", 12, "exact"),
        ("only-here", None, "other:reseller", 13, "exact"),
        ("alpha-1", "other:reseller", "other:reseller", 99, "exact"),
    ],
)  # fmt: skip
def test_names_that_lead_somewhere(name, provider, place, amount, rule):
    assert usd(name, provider) == (place, Decimal(amount))
    assert BOOK.find(name, at=NOW, provider=provider).rule == rule


@pytest.mark.parametrize(
    ("name", "provider"),
    [
        ("alpha-1-turbo", None),
        ("alpha-1-mini-2026-05-01", None),
        ("alpha-10", None),
        ("alpha-1.5", None),
        ("alpha-1-2026-13-01", None),
        ("my-alpha-1", None),
        ("alph", None),
        ("ft:alpha-1-mini:acme::x1", None),
        ("ft:alpha-2:acme::x1", None),
        ("alpha-1", "anthropic"),
        ("alpha-1", "other:nobody"),
        ("beta-5@20260401x", "vertex"),
        ("openai/alpha-1:batch", None),
        ("openai/alpha-1:discounted", "openrouter"),
        ("openai/unknown:free", "openrouter"),
        ("alpha-1:free", "openai"),
        ("anthropic.beta-6-v1:0", "aws"),
        ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abcdefgh", None),
    ],
)
def test_names_that_lead_nowhere(name, provider):
    with pytest.raises(UnknownModelError):
        BOOK.find(name, at=NOW, provider=provider)


def test_known_without_a_rate():
    for name, provider in (("bare-1", None), ("openrouter/auto", "openrouter")):
        with pytest.raises(MissingRateError, match="no source states its rate"):
            BOOK.find(name, at=NOW, provider=provider)


def test_dated_cards_and_the_gap_between_them():
    assert usd("old-1", at=datetime(2025, 12, 31, 23, 59, tzinfo=UTC))[1] == 9
    assert usd("old-1", at=datetime(2026, 3, 1, tzinfo=UTC))[1] == 8
    for day in (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 28, tzinfo=UTC)):
        with pytest.raises(MissingRateError, match=re.escape("the beginning to 2026-01-01, 2026-03-01 to now")):
            BOOK.find("old-1", at=day)
    assert [card.rates["input"].usd for card in BOOK.history("old-1")] == [9, 8]


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\x1bb", "x" * 513])
def test_what_is_no_name(name):
    with pytest.raises(InputError):
        BOOK.find(name, at=NOW)


def mine(model, amount, **more):
    return user_card(model, {"input": Decimal(amount)}, **more)


def test_the_users_rates_win_where_they_hold():
    since = datetime(2026, 6, 1, tzinfo=UTC)
    book = BOOK.with_user([mine("alpha-1", 50, since=since), mine("own", 60), mine("alpha-1", 70, provider="azure")])
    assert usd("alpha-1", book=book) == ("openai", 50)
    assert usd("alpha-1", book=book, at=datetime(2026, 5, 31, tzinfo=UTC)) == ("openai", 1)
    assert usd("alpha-1", "azure", book) == ("azure", 70)
    assert usd("ALPHA-1", "openai", book) == ("openai", 50)
    assert usd("own", book=book) == ("other:user", 60)
    assert usd("own", "vllm", book) == ("vllm", 60)
    assert usd("alpha-1-mini", book=book)[1] == 2
    assert usd("alpha-1")[1] == 1
    found = book.find("alpha-1", at=NOW)
    assert (found.rule, found.card.status, found.card.id) == ("user", "user", "openai/alpha-1@2026-06-01")


def test_of_two_user_rates_the_later_day_and_then_the_later_line_wins():
    days = [datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2)]
    cards = [mine("own", 1, since=days[1]), mine("own", 2, since=days[0]), mine("own", 3), mine("own", 4)]
    assert usd("own", book=BOOK.with_user(cards))[1] == 1
    assert usd("own", book=BOOK.with_user(cards), at=datetime(2026, 1, 15, tzinfo=UTC))[1] == 2
    assert usd("own", book=BOOK.with_user(cards), at=datetime(2025, 1, 15, tzinfo=UTC))[1] == 4
    again = [*cards, mine("own", 5, since=days[1])]
    assert usd("own", book=BOOK.with_user(again))[1] == 5


def test_nearest_names():
    names = BOOK.with_user([mine("alpha-9", 1)])
    with pytest.raises(UnknownModelError) as caught:
        names.find("alpha-8", at=NOW)
    assert "alpha-9" in caught.value.nearest[:2]
    assert len(caught.value.nearest) == 3
    with pytest.raises(UnknownModelError) as caught:
        BOOK.find("alpha-1-mini2", at=NOW, provider="openai")
    assert caught.value.nearest[0] == "alpha-1-mini"
    assert len(set(caught.value.nearest)) == 3


def test_nearest_shows_each_model_once_and_first_parties_first():
    names = {"alpha-1": (9, "a"), "alpha-1.0": (0, "b"), "alpha-1-0": (0, "b"), "alpha-2": (0, "c"), "zzz": (0, "d")}
    assert nearest("alpha-3", names, 3) == ("alpha-2", "alpha-1", "alpha-1-0")
    assert nearest("alpha-3", {"alpha-1": (16, "r"), "alpha-2": (0, "c")}, 2) == ("alpha-2", "alpha-1")
    assert nearest("", names, 3) == ()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("gpt4o", "gpt-4o"),
        ("gpt-4o-mimi", "gpt-4o-mini"),
        ("claude-sonet-5", "claude-sonnet-5"),
        ("claude-sonnet-4-5-turbo-xyz", "claude-sonnet-4-5"),
    ],
)
def test_nearest_names_in_the_bundled_catalogue(typed, meant):
    with pytest.raises(UnknownModelError) as caught:
        Catalog.bundled().find(typed, at=NOW)
    assert caught.value.nearest[0] == meant


def test_made_up_suffixes_of_known_models_are_unknown():
    book = Catalog.bundled()
    for provider in ("openai", "anthropic", "google", "mistral", "x-ai"):
        for model in list(book.models(provider)):
            with pytest.raises(UnknownModelError):
                book.resolve(f"{model}-xyzzy", provider)


def test_every_row_is_found_by_its_own_name():
    book = Catalog.bundled()
    lost = []
    for provider in book.providers():
        for model in book.models(provider):
            if model.startswith(("regional.", "ft:")):
                continue
            found = book.resolve(model, provider)
            if (found.provider, found.row) != (provider, book.row(provider, model)):
                # A bare Bedrock id is its regional row where there is one.
                if provider == "aws" and found.model in (f"regional.{model}", f"global.{model}"):
                    continue
                lost.append((provider, model, found.provider, found.model))
    assert lost == []


def test_providers_are_known_or_other():
    assert [
        name for name in Catalog.bundled().providers() if name not in PROVIDERS and not name.startswith("other:")
    ] == []


def test_what_is_no_catalogue():
    for data in (b"", b"[]", b"{}", b"\xff", snapshot().replace(b'"schema":1', b'"schema":2')):
        with pytest.raises(CatalogError):
            Catalog(data)


def test_the_kept_hash_is_the_files_own():
    assert Catalog.bundled().sha256 == digest(bundled_path().read_bytes())
    assert built_on(bundled_path().read_bytes()) == Catalog.bundled().built_at


def test_an_update_is_used_when_it_is_whole_and_newer(tmp_path):
    assert Catalog.newest(tmp_path) is Catalog.bundled()
    for day, used in (("2999-01-01", True), ("2001-01-01", False)):
        data = snapshot().replace(b"2026-11-01", day.encode())
        (tmp_path / "snapshot.json").write_bytes(data)
        (tmp_path / "snapshot.sha256").write_text(f"{digest(data)}  snapshot.json\n")
        assert (Catalog.newest(tmp_path).built_at == day) is used
    (tmp_path / "snapshot.sha256").write_text("0" * 64)
    assert read_update(tmp_path) is None
    (tmp_path / "snapshot.sha256").write_bytes(b"\xff")
    assert read_update(tmp_path) is None
    assert built_on(b"nonsense") == ""
