"""Building the catalogue from small sources made here: what is kept of names, dates, tiers, conflicts and zeros."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from tallystick.catalog.build import build
from tallystick.catalog.catalog import Catalog
from tallystick.catalog.diff import compare
from tallystick.core.pricing import price
from tallystick.core.usage import Usage
from tallystick.errors import CatalogError, MissingRateError, UnknownModelError

pytest.importorskip("genai_prices")

HEAD = """
import datetime
from decimal import Decimal as D
from .types import *
def model(id, match, prices, variants=None, window=None):
    return ModelInfo(id=id, match=match, prices=prices, price_variants=variants, context_window=window)
def provider(id, *models, fallback=None):
    return Provider(id=id, name=id, api_pattern="x", models=list(models), fallback_model_providers=fallback)
def eq(text): return ClauseEquals(equals=text)
def since(year, month, day, **prices):
    return ConditionalPrice(StartDateConstraint(datetime.date(year, month, day)), prices=ModelPrice(**prices))
def always(**prices): return ConditionalPrice(prices=ModelPrice(**prices))
"""
PROVIDERS = """
preference = ["openai", "google", "vertex", "aws", "azure", "openrouter"]
own = ["openai", "google"]
[makers]
"gemini-" = "google"
"claude-" = "anthropic"
[spelling]
[mirror.google]
to = "vertex"
makers = ["google"]
"""
BATCH = """
[[multiplier]]
provider = "openai"
name = "batch"
factor = "0.5"
when = { processing = "batch" }
unless = ["batch"]
source = "the price list"
reviewed = 2026-01-01
why = "half price"
"""
NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def make(tmp_path):
    """Builds from the source text of genai providers, LiteLLM entries and override text."""
    (tmp_path / "genai_prices").mkdir()
    (tmp_path / "genai_prices-0.0.1.dist-info").mkdir()
    (tmp_path / "overrides").mkdir()

    def run(providers, litellm=None, overrides="", previous=None):
        (tmp_path / "genai_prices" / "data.py").write_text(f"{HEAD}\nproviders = [{providers}]\n")
        (tmp_path / "litellm.json").write_text(json.dumps(litellm or {}))
        (tmp_path / "overrides" / "providers.toml").write_text(PROVIDERS)
        (tmp_path / "overrides" / "rules.toml").write_text(overrides)
        return build(
            tmp_path, tmp_path / "litellm.json", previous, built_at=date(2026, 6, 1), litellm_version="9",
            overrides_dir=tmp_path / "overrides",
        )  # fmt: skip

    return run


def card(built, model, provider="openai", at=NOW):
    return Catalog(built.data).find(model, at=at, provider=provider).card


def usd(built, model, usage, provider="openai", at=NOW, **context):
    return price(Usage(usage), card(built, model, provider, at), at=at, context=context).amount.to_decimal()


def test_dated_prices_become_consecutive_cards(make):
    built = make(
        'provider("openai", model("m", eq("m"), [always(input_mtok=D(5)), since(2026, 2, 3, input_mtok=D("2.50"))]))'
    )
    old = card(built, "m", at=datetime(2026, 2, 2, 23, 59, tzinfo=UTC))
    new = card(built, "m", at=datetime(2026, 2, 3, tzinfo=UTC))
    assert (old.rates["input"].usd, new.rates["input"].usd) == (5, Decimal("2.5"))
    assert old.valid_to == new.valid_from == datetime(2026, 2, 3, tzinfo=UTC)


@pytest.mark.parametrize("tampered", ["m-2026-01-01x", "m-mini", "mm", "m-v2"])
def test_a_beginning_matches_no_more_than_a_date_behind_it(make, tampered):
    built = make('provider("openai", model("m", ClauseStartsWith(starts_with="m"), ModelPrice(input_mtok=D(1))))')
    assert card(built, "m-2026-01-01").model == "m"
    with pytest.raises(UnknownModelError):
        card(built, tampered)


def test_a_row_with_equals_only_has_no_dates(make):
    built = make('provider("openai", model("m", eq("m"), ModelPrice(input_mtok=D(1))))')
    with pytest.raises(UnknownModelError):
        card(built, "m-2026-01-01")


def test_patterns_that_say_more_than_a_date_are_dropped_and_logged(make):
    built = make(
        r'provider("openai", model("m", ClauseOr(or_=[eq("m"), ClauseRegex(regex=r"^m-\d"), ClauseRegex(regex=r"^(x/)?n\.1(-\d{8})?$")]), ModelPrice(input_mtok=D(1))))'
    )
    assert built.log.count("genai-prices: match rule dropped") == 1
    assert {card(built, name).model for name in ("n.1", "x/n.1", "n.1-20260101")} == {"m"}


def test_whole_request_steps_and_inclusive_ones(make):
    tiers = "TieredPrices(base=D(1), tiers=[Tier(start={}, price=D(3))])"
    built = make(f'provider("openai", model("m", eq("m"), ModelPrice(input_mtok={tiers.format(200000)}))), '
                 f'provider("x-ai", model("g", eq("g"), ModelPrice(input_mtok={tiers.format(199999)})))')  # fmt: skip
    assert [usd(built, "m", {"input": n}) for n in (200_000, 200_001)] == [Decimal("0.2"), Decimal("0.600003")]
    assert [usd(built, "g", {"input": n}, "x-ai") for n in (199_999, 200_000)] == [Decimal("0.199999"), Decimal("0.6")]


def test_a_tier_verified_later_keeps_its_ratio_before(make):
    variants = '[PriceVariant(when={"service_tier": "flex"}, prices=ModelPrice(input_mtok=D("0.8")), constraint=StartDateConstraint(datetime.date(2026, 5, 1)))]'
    built = make(
        f'provider("openai", model("m", eq("m"), [always(input_mtok=D(10)), since(2026, 2, 1, input_mtok=D(2))], {variants}))'
    )
    when = datetime(2026, 1, 1, tzinfo=UTC)
    assert usd(built, "m", {"input": 1_000_000}, service_tier="flex") == Decimal("0.8")
    assert usd(built, "m", {"input": 1_000_000}, at=when, service_tier="flex") == 4
    assert "applied back" in card(built, "m", at=when).variants[0].source


def test_batch_halves_what_the_batch_variant_does_not_state_and_nothing_twice(make):
    variants = '[PriceVariant(when={"processing": "batch"}, prices=ModelPrice(input_mtok=D("0.6")))]'
    built = make(
        f'provider("openai", model("m", eq("m"), ModelPrice(input_mtok=D(1), cache_read_mtok=D("0.2"), output_mtok=D(4)), {variants}))',
        overrides=BATCH,
    )
    usage = {"input": 1_000_000, "cache_read": 1_000_000, "output": 1_000_000}
    assert usd(built, "m", usage, processing="batch") == Decimal("0.6") + Decimal("0.1") + 2
    assert "cache_read, output by rule" in card(built, "m").note


def test_an_empty_card_is_unknown_and_a_free_id_is_zero(make):
    built = make(
        'provider("openai", model("m", eq("m"), ModelPrice())), provider("openrouter", model("a/b:free", eq("a/b:free"), ModelPrice()))'
    )
    with pytest.raises(MissingRateError):
        card(built, "m")
    assert usd(built, "a/b:free", {"input": 5, "reasoning": 7}, "openrouter") == 0


def test_a_second_source_agrees_differs_or_adds(make):
    entries = {
        "m": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-06, "output_cost_per_token": 4e-06,
              "cache_read_input_token_cost": 1e-07, "max_output_tokens": 99, "deprecation_date": "2027-01-02",
              "input_cost_per_token_flex": 5e-07},
        "n": {"litellm_provider": "openai", "input_cost_per_token": 2e-06},
        "o": {"litellm_provider": "openai", "input_cost_per_token": 3.0000000000000001e-06, "output_cost_per_token": 0.0},
    }  # fmt: skip
    built = make(
        'provider("openai", model("m", eq("m"), ModelPrice(input_mtok=D(1), output_mtok=D(4))), model("n", eq("n"), ModelPrice(input_mtok=D(1))), model("p", eq("p"), ModelPrice(input_mtok=D(1))))',
        entries,
    )
    assert {name: card(built, name).status for name in "mnop"} == {
        "m": "agreed",
        "n": "conflict",
        "o": "single",
        "p": "single",
    }
    assert card(built, "n").rates["input"].usd == 1
    assert card(built, "n").note == "litellm 9 has input 2 for 1"
    assert card(built, "m").rates["cache_read"].usd == Decimal("0.1")
    assert usd(built, "m", {"input": 1_000_000}, service_tier="flex") == Decimal("0.5")
    assert list(card(built, "o").rates) == ["input"]
    row = Catalog(built.data).row("openai", "m")
    assert (row.max_output, row.retires, row.mode) == (99, "2027-01-02", "chat")


def test_audio_at_the_text_rate_is_dropped(make):
    entries = {"t": {"litellm_provider": "openai", "input_cost_per_token": 1e-06, "input_cost_per_audio_token": 1e-06}}
    built = make("", entries)
    assert list(card(built, "t").rates) == ["input"]
    assert "audio_input" not in card(built, "t").fallbacks


def test_google_sells_its_own_models_in_two_places_and_partners_in_one(make):
    built = make(
        'provider("google", model("gemini-x", eq("gemini-x"), ModelPrice(input_mtok=D(1), output_mtok=D(2))), model("claude-x", eq("claude-x"), ModelPrice(input_mtok=D(3))))'
    )
    assert {card(built, "gemini-x", place).provider for place in ("google", "vertex")} == {"google", "vertex"}
    assert card(built, "claude-x", "vertex").rates["input"].usd == 3
    with pytest.raises(UnknownModelError):
        card(built, "claude-x", "google")
    assert card(built, "gemini-x", "google").fallbacks["audio_input"] == "input"


def test_bedrock_profiles(make):
    built = make('provider("aws", model("global.anthropic.c-v1:0", ClauseContains(contains="global.anthropic.c"), ModelPrice(input_mtok=D(3))), '
                 'model("regional.anthropic.c-v1:0", ClauseOr(or_=[ClauseStartsWith(starts_with="anthropic.c"), ClauseContains(contains="eu.anthropic.c")]), ModelPrice(input_mtok=D("3.3"))))',
                 {"anthropic.c-v1:0": {"litellm_provider": "bedrock", "input_cost_per_token": 3e-06},
                  "us.anthropic.c-v1:0": {"litellm_provider": "bedrock_converse", "input_cost_per_token": 3.3e-06}})  # fmt: skip
    names = ("global.anthropic.c-v1:0", "us.anthropic.c-v1:0", "eu.anthropic.c", "anthropic.c-v1:0", "anthropic.c")
    assert [card(built, name, "aws").rates["input"].usd for name in names] == [3, *[Decimal("3.3")] * 4]
    assert card(built, "us.anthropic.c-v1:0", "aws").status == "agreed"


def test_azure_takes_over_what_it_has_no_row_for_unless_its_own_price_is_known(make):
    built = make('provider("openai", model("m", eq("m"), ModelPrice(input_mtok=D(1))), model("n", eq("n"), ModelPrice(input_mtok=D(1)))), provider("azure", fallback=["openai"])',
                 {"azure/n": {"litellm_provider": "azure", "input_cost_per_token": 1.1e-06}})  # fmt: skip
    assert card(built, "m", "azure").source.endswith("; as at openai")
    assert (card(built, "n", "azure").rates["input"].usd, card(built, "n", "azure").status) == (
        Decimal("1.1"),
        "single",
    )


OVERRIDES = """
[[card]]
provider = "openai"
model = "m"
from = 2026-03-01
to = 2026-04-01
rates = { input = "2; 4 from 1000", milliseconds_input = "0.36" }
source = "the price list"
reviewed = 2026-05-01
why = "a month of its own"
[[card.variant]]
name = "peak"
windows = ["01:00-04:00 mon-fri"]
rates = { input = "8" }
[[patch]]
provider = "openai"
model = "m"
from = 2026-04-01
rates = { output = "9" }
minimum = { input = 10 }
source = "the price list"
reviewed = 2026-05-01
why = "output was missing"
"""


def test_overrides_cut_into_the_history(make):
    built = make('provider("openai", model("m", eq("m"), ModelPrice(input_mtok=D(1))))', overrides=OVERRIDES)
    history = Catalog(built.data).history("m", "openai")
    assert [(one.valid_from and one.valid_from.month, one.valid_to and one.valid_to.month, one.status) for one in history] == [
        (None, 3, "single"), (3, 4, "reviewed"), (4, None, "reviewed")]  # fmt: skip
    assert history[1].rates["input"].at_size(1000) == 4
    assert history[1].rates["milliseconds_input"].per == 3_600_000
    peak, quiet = datetime(2026, 3, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, 1, tzinfo=UTC)
    assert [usd(built, "m", {"input": 100}, at=at) for at in (peak, quiet)] == [Decimal("0.0008"), Decimal("0.0002")]
    assert (history[2].rates["input"].minimum, history[2].rates["output"].usd) == (10, 9)


@pytest.mark.parametrize(("text", "fault"), [
    ('[[card]]\nprovider = "openai"', "lacks"),
    ('[[carrd]]\nprovider = "openai"', "unknown table"),
    ('[[settle]]\nprovider="openai"\nmodel="zz"\nsource="s"\nwhy="w"\nreviewed=2026-01-01', "no source knows"),
    ('[[card]]\nprovider="openai"\nmodel="m"\nsource="s"\nwhy="w"\nreviewed=2026-01-01\nrates={inputt="1"}', "not a kind"),
])  # fmt: skip
def test_overrides_that_make_no_sense_are_refused(make, text, fault):
    with pytest.raises(CatalogError, match=fault):
        make('provider("openai", model("m", eq("m"), ModelPrice(input_mtok=D(1))))', overrides=text)


ACCEPT = '[[accept]]\nprovider="openai"\nmodel="m"\nkind="input"\nsource="s"\nwhy="w"\nreviewed=2026-01-01'


@pytest.mark.parametrize("new", ["3.1", "0.9"])
def test_a_rate_that_moves_by_more_than_half_needs_a_review(make, new):
    before = make('provider("openai", model("m", eq("m"), ModelPrice(input_mtok=D(2))))').data
    after = f'provider("openai", model("m", eq("m"), ModelPrice(input_mtok=D("{new}"))))'
    with pytest.raises(CatalogError, match=f"openai/m input: was 2, is {new}"):
        make(after, previous=before)
    assert make(after, overrides=ACCEPT, previous=before)


def test_what_a_source_forgets_is_kept_and_an_undated_change_begins_today(make):
    entry = {"litellm_provider": "openai", "input_cost_per_token": 1e-06}
    first = make("", {"m": entry, "gone": entry}).data
    built = make("", {"m": {**entry, "input_cost_per_token": 1.2e-06}}, previous=first)
    assert [(one.rates["input"].usd, one.valid_from, one.valid_to) for one in Catalog(built.data).history("m")] == [
        (1, None, NOW), (Decimal("1.2"), NOW, None)]  # fmt: skip
    assert card(built, "gone").rates["input"].usd == 1
    again = make("", {"m": {**entry, "input_cost_per_token": 1.2e-06}}, previous=built.data)
    assert again.data == built.data


def test_a_zero_needs_a_review(make):
    with pytest.raises(CatalogError, match="openai/m input: is zero"):
        make('provider("openai", model("m", eq("m"), ModelPrice(input_mtok=D(0))))')


def test_a_build_is_deterministic(make):
    text = 'provider("openai", model("m", ClauseOr(or_=[eq("a"), eq("b"), eq("c")]), ModelPrice(input_mtok=D(2))))'
    assert make(text).data == make(text).data


def test_what_changed(make):
    old = make(
        'provider("openai", model("m", eq("m"), ModelPrice(input_mtok=D(2))), model("gone", eq("gone"), ModelPrice(input_mtok=D(2))))'
    ).data
    new = make(
        'provider("openai", model("m", eq("m"), [always(input_mtok=D(2)), since(2026, 5, 1, input_mtok=D("1.5"), output_mtok=D(3))]), model("new", eq("new"), ModelPrice(input_mtok=D(2))))'
    ).data
    assert [str(change) for change in compare(old, new)] == [
        "openai/gone removed",
        "openai/m input: $2 -> $1.5 per 1,000,000 since 2026-05-01 (-25.0 %)",
        "openai/m output: no rate -> $3 per 1,000,000 since 2026-05-01",
        "openai/new added",
    ]
    assert compare(new, new) == ()


@pytest.mark.parametrize("data", [b"", b"[]", b'{"schema":2}'])
def test_what_is_no_snapshot_is_refused(data):
    with pytest.raises(CatalogError):
        compare(data, data)
