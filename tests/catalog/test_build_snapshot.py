"""The bundled snapshot keeps the promises of the build: its hash, its shape, no silent zero, no guessed name."""

import hashlib
import json
from datetime import UTC, datetime
from fractions import Fraction
from importlib import resources
from itertools import pairwise

import msgspec
import pytest

from tallystick.catalog.catalog import Catalog
from tallystick.core.pricing import price
from tallystick.core.rates import RateCard
from tallystick.core.usage import TOKEN_KINDS, Usage, is_kind
from tallystick.errors import UnknownModelError

FOLDER = resources.files("tallystick.catalog")
DATA = FOLDER.joinpath("snapshot.json").read_bytes()
SNAPSHOT = json.loads(DATA)
CATALOG = Catalog(DATA)
NOW = datetime(2026, 11, 17, 20, tzinfo=UTC)


def rows():
    return ((provider, model, row) for provider, models in SNAPSHOT["models"].items() for model, row in models.items())


def cards():
    for provider, model, row in rows():
        for card in row.get("cards", []):
            yield provider, model, msgspec.convert(card, RateCard)


def cost(model, usage, provider, at=NOW, **context):
    return Fraction(
        price(Usage(usage), CATALOG.find(model, at=at, provider=provider).card, at=at, context=context).pico
    )


def test_the_hash_beside_it_is_its_own():
    assert FOLDER.joinpath("snapshot.sha256").read_text().split() == [hashlib.sha256(DATA).hexdigest(), "snapshot.json"]


def test_every_card_says_who_says_so_and_when():
    for provider, model, card in cards():
        assert (card.provider, card.model) == (provider, model)
        assert card.source
        assert card.retrieved_at
        assert card.status in {"agreed", "single", "conflict", "reviewed"}
        assert card.status != "conflict" or card.note
        assert all(is_kind(kind) for kind in card.rates)


def test_cards_follow_each_other_without_overlap():
    for provider, model, row in rows():
        found = row.get("cards", [])
        for one, two in pairwise(found):
            assert one["valid_to"] <= two["valid_from"], (provider, model)


def test_zeros_are_free_ids_or_reviewed():
    for provider, model, card in cards():
        for rate in (*card.rates.values(), *(rate for variant in card.variants for rate in variant.rates.values())):
            assert rate.usd or card.status == "reviewed" or (provider == "openrouter" and model.endswith(":free")), (
                model
            )


def test_fallbacks_lead_to_a_rate_and_never_replace_one():
    for _, model, card in cards():
        for kind, other in card.fallbacks.items():
            seen = {kind}
            while other not in card.rates:
                assert other not in seen, model
                seen.add(other)
                other = card.fallbacks[other]  # noqa: PLW2901
            assert kind not in card.rates


def test_names_lead_to_rows():
    for provider, aliases in SNAPSHOT["aliases"].items():
        for alias, model in aliases.items():
            assert alias == alias.lower()
            assert model in SNAPSHOT["models"][provider]
            assert alias not in SNAPSHOT["models"][provider]


@pytest.mark.parametrize(("provider", "name"), [
    ("anthropic", "claude-sonnet-4-5-turbo-xyz"), ("deepseek", "deepseek-chat-v9"), ("google", "gemini-3.8-flash-cybers"),
    ("openai", "gpt-5-nano-plus"), ("aws", "eu.anthropic.claude-sonnet-4-5-turbo-v1:0"),
])  # fmt: skip
def test_what_a_source_would_guess_is_unknown(provider, name):
    with pytest.raises(UnknownModelError):
        CATALOG.find(name, at=NOW, provider=provider)


def test_batch_halves_every_token_once():
    """On every row of the three providers with a batch rule, unless the source states another batch rate."""
    for provider, model, card in cards():
        rules = [one for one in card.multipliers if one.name == "batch"]
        if provider not in {"openai", "anthropic", "google"} or not card.rates.keys() & TOKEN_KINDS:
            continue
        assert [rule.factor for rule in rules] == [pytest.approx(0.5)], model
        stated = {
            kind for variant in card.variants if ("processing", "batch") in variant.when for kind in variant.rates
        }
        at = card.valid_from or datetime(2024, 1, 1, tzinfo=UTC)
        for kind in card.rates.keys() & TOKEN_KINDS - stated:
            usage = Usage({kind: 1000})
            assert 2 * price(usage, card, at=at, context={"processing": "batch"}).pico == price(usage, card, at=at).pico


@pytest.mark.parametrize(("name", "context", "factor"), [
    ("gpt-5.6-sol", {"data_residency": "eu"}, "1.1"), ("gpt-5.6-sol", {"data_residency": "jp"}, "1"), ("gpt-4o", {"data_residency": "eu"}, "1"),
    ("claude-opus-4-6", {"inference_geo": "us"}, "1.1"), ("claude-opus-4-5", {"inference_geo": "us"}, "1"),
    ("claude-opus-4-6", {"inference_geo": "us", "processing": "batch"}, "0.55"),
])  # fmt: skip
def test_regional_processing(name, context, factor):
    assert cost(name, {"input": 1000}, None, **context) == cost(name, {"input": 1000}, None) * Fraction(factor)


@pytest.mark.parametrize(("at", "usd"), [
    ("2026-08-16T02:00", "0.435"), ("2026-08-17T02:00", "1.32"), ("2026-08-22T06:00", "1.32"), ("2026-08-22T10:00", "0.66"),
    ("2026-08-23T02:00", "0.66"), ("2026-08-24T02:00", "1.32"), ("2026-08-29T02:00", "0.66"), ("2026-08-28T09:59", "1.32"),
])  # fmt: skip
def test_deepseek_by_the_clock(at, usd):
    when = datetime.fromisoformat(at).replace(tzinfo=UTC)
    assert cost("deepseek-v4-pro", {"input": 10**6}, "deepseek", when) == Fraction(usd) * 10**12


@pytest.mark.parametrize(("name", "usd"), [
    ("anthropic.claude-sonnet-4-6", "3.3"), ("eu.anthropic.claude-sonnet-4-6", "3.3"), ("global.anthropic.claude-sonnet-4-6", "3"),
    ("us-gov.anthropic.claude-sonnet-4-6", "3.6"), ("us.anthropic.claude-sonnet-4-20250514-v1:0", "3"),
    ("us.anthropic.claude-3-7-sonnet-20250219-v1:0", "3"), ("anthropic.claude-opus-4-5-20251101-v1:0", "5.5"),
])  # fmt: skip
def test_bedrock_by_area(name, usd):
    assert cost(name, {"input": 10**5}, "aws") == Fraction(usd) * 10**11


@pytest.mark.parametrize(("size", "usd"), [("low", "6"), ("medium", "10"), ("high", "14"), (None, "14")])
def test_perplexity_by_search_size(size, usd):
    context = {"search_context_size": size} if size else {}
    assert cost("sonar-pro", {"requests": 1000}, "perplexity", **context) == Fraction(usd) * 10**12
