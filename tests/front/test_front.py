"""The seven functions that `import tallystick` gives."""

import os
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

import tallystick
from tallystick.errors import (
    ConfigError,
    InputError,
    LedgerCorrupt,
    MissingRateError,
    TallyError,
    UnknownModelError,
    UsageError,
)


def test_the_first_minutes():
    count = tallystick.count("Hello, how are you today?", model="gpt-4o")
    assert (count.tokens, str(count)) == (7, "7, exact (o200k_base)")
    cost = tallystick.price({"prompt_tokens": 1000, "completion_tokens": 100}, model="gpt-4o")
    assert str(cost.amount) == "$0.0035"
    estimate = tallystick.estimate("Hello, how are you today?", model="claude-sonnet-5", max_output=500)
    assert estimate.low <= estimate.likely <= estimate.high
    entry = tallystick.record({"prompt_tokens": 1000, "completion_tokens": 100}, model="gpt-4o", user="ada")
    assert dict(entry.tags) == {"user": "ada"}
    assert str(tallystick.spent(user="ada")) == "$0.0035 for 1 call"
    assert str(tallystick.spent(user="bob")) == "$0.00 for 0 calls"


def test_few_public_names():
    assert len(tallystick.__all__) <= 25


def test_price_takes_our_kinds_a_usage_and_sdk_objects():
    ours = tallystick.price({"input": 1000, "output": 100}, "gpt-4o").amount
    raw = {"prompt_tokens": 1000, "completion_tokens": 100}
    sdk = SimpleNamespace(model_dump=lambda: {**raw, "prompt_tokens_details": None})
    assert ours == tallystick.price(tallystick.Usage(input=1000, output=100), "gpt-4o").amount
    assert ours == tallystick.price(raw, "gpt-4o").amount
    assert ours == tallystick.price(sdk, "gpt-4o").amount
    assert tallystick.record(sdk, "gpt-4o").amount == ours


def test_context_is_text_or_bool():
    usage = tallystick.Usage(input=1000)
    half = tallystick.price(usage, "gpt-4o", context={"processing": "batch"}).amount
    assert half * 2 == tallystick.price(usage, "gpt-4o").amount
    assert tallystick.price({"input": 1000}, "gpt-4o", context={"processing": "batch", "stream": True}).amount == half
    tiered = tallystick.price(usage, "gpt-4o", context={"service_tier": "batch"})
    assert tiered.amount == half
    fees = tallystick.price(usage, "gpt-4o", context={"output_item_types": ["web_search_call"]})
    assert [line.kind for line in fees.lines] == ["input", "fee:web_search"]
    with pytest.raises(UsageError):
        tallystick.price(usage, "gpt-4o", context={"service_tier": 3})


def test_instants_need_a_zone_and_any_zone_will_do():
    with pytest.raises(InputError, match="time zone"):
        tallystick.price({"input": 1}, "gpt-4o", at=datetime(2026, 11, 1))
    with pytest.raises(InputError):
        tallystick.price({"input": 1}, "gpt-4o", at="2026-11-01")
    with pytest.raises(InputError):
        tallystick.price({"input": 1}, "gpt-4o", at=datetime.min.replace(tzinfo=timezone(timedelta(hours=14))))
    east = timezone(timedelta(hours=9))
    entry = tallystick.record({"input": 1}, "gpt-4o", at=datetime(2026, 11, 1, 3, tzinfo=east))
    assert entry.started_at == datetime(2026, 10, 31, 18, tzinfo=UTC)


@pytest.mark.parametrize("usage", [None, 3, "text", [], {}, {"prompt_tokens": -1}, {"a": {}}])
def test_a_usage_that_cannot_be_read(usage):
    with pytest.raises(InputError):
        tallystick.price(usage, "gpt-4o")


def test_what_is_unknown_says_what_to_do():
    with pytest.raises(UnknownModelError) as caught:
        tallystick.price({"input": 1}, "gpt-4q")
    assert "gpt-4o" in caught.value.nearest
    assert "tally rates set" in caught.value.todo
    with pytest.raises(UnknownModelError):
        tallystick.estimate("hello", "gpt-4q")
    entry = tallystick.record({"input": 1}, "gpt-4q", provider="openai")
    assert (entry.cost, entry.amount) == (None, None)
    assert str(tallystick.spent()) == "unknown for 1 call; not in it: 1 call without a price"


def test_count_never_fails_on_models_and_refuses_what_is_no_text():
    assert not tallystick.count("hello", "no-such-model").exact
    assert tallystick.count([{"role": "user", "content": "hello"}], "gpt-4o").tokens > 1
    for value in (None, 3, b"hello"):
        with pytest.raises(InputError):
            tallystick.count(value, "gpt-4o")


def test_compare():
    rows = tallystick.compare("Hello there", models=["gpt-4o", "gpt-4q"], output_tokens=10, calls=3)
    assert rows[0].per_month == rows[0].per_call * 3
    assert rows[1].per_call is None
    assert isinstance(rows[1].problem, UnknownModelError)
    difference = tallystick.compare("Hello there, my dear friend", "Hello", models="gpt-4o")
    assert difference.saved_tokens == difference.a.tokens - difference.b.tokens
    assert difference.saved.pico > 0
    with pytest.raises(InputError):
        tallystick.compare("a", "b", models=["gpt-4o", "gpt-5.5"])
    with pytest.raises(InputError):
        tallystick.compare("a", models=[])
    with pytest.raises(InputError):
        tallystick.compare("a", models="gpt-4o", calls=-1)


def test_a_ledger_of_ones_own(tmp_path):
    with tallystick.open(tmp_path / "mine.db") as ledger:
        tallystick.record({"input": 1000}, "gpt-4o", ledger=ledger, tags={"project": "x"}, cached=True)
        assert tallystick.spent(ledger=ledger, project="x").calls == 1
        assert tallystick.spent(ledger=ledger, cached="true").calls == 1
    assert tallystick.spent().calls == 0
    with tallystick.open(tmp_path / "mine.db", read_only=True) as ledger:
        assert tallystick.spent(ledger=ledger).calls == 1
        with pytest.raises(TallyError):
            tallystick.record({"input": 1000}, "gpt-4o", ledger=ledger)


def test_a_ledger_that_is_none(tmp_path):
    (tmp_path / "x").write_text("nonsense, longer than a header")
    with pytest.raises(LedgerCorrupt):
        tallystick.open(tmp_path / "x")
    with pytest.raises(TallyError):
        tallystick.open(tmp_path / "missing", read_only=True)
    with pytest.raises(ConfigError):
        tallystick.open("a\0b")


def test_history_of_a_call_site():
    with tallystick.open() as ledger:
        for number in range(25):
            tallystick.record({"input": 10, "output": 1000 + number}, "gpt-4o", ledger=ledger, agent="writer")
            tallystick.record({"input": 10, "output": 5}, "gpt-4o", ledger=ledger, agent="namer")
    writer = tallystick.estimate("hello", "gpt-4o", agent="writer")
    namer = tallystick.estimate("hello", "gpt-4o", agent="namer")
    assert writer.output.low >= 1000
    assert namer.output.high <= 6
    assert "25 calls" in writer.output.basis
    assert tallystick.estimate("hello", "gpt-4o", agent="writer", max_output=50).output.high == 50


def test_the_users_rates_are_read_again_when_the_file_changes(tmp_path, monkeypatch):
    path = tmp_path / "tally.toml"
    monkeypatch.setenv("TALLY_CONFIG", str(path))
    path.write_text('[rates.mine]\ninput = "1"\n')
    assert tallystick.price({"input": 1_000_000}, "mine").amount == tallystick.Money.usd(1)
    path.write_text('[rates.mine]\ninput = "22"\n')
    assert tallystick.price({"input": 1_000_000}, "mine").amount == tallystick.Money.usd(22)
    path.unlink()
    with pytest.raises(ConfigError):
        tallystick.price({"input": 1}, "mine")


def test_a_model_known_without_a_rate_at_that_instant(tmp_path, monkeypatch):
    monkeypatch.setenv("TALLY_CONFIG", str(tmp_path / "tally.toml"))
    (tmp_path / "tally.toml").write_text('[rates.mine]\nfrom = 2026-01-01\nto = 2026-02-01\ninput = "1"\n')
    for day in (datetime(2025, 12, 31, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)):
        with pytest.raises(MissingRateError, match="2026-01-01 to 2026-02-01"):
            tallystick.price({"input": 1}, "mine", at=day)
    assert tallystick.price({"input": 1}, "mine", at=datetime(2026, 1, 31, tzinfo=UTC)).basis == "user"


def test_the_default_ledger_is_where_the_environment_says():
    from tallystick import front

    assert str(front.ledger_path()) == os.environ["TALLY_LEDGER"]
