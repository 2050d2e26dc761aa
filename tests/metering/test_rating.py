"""Rating and recording: from what a provider said to what the ledger keeps."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tallystick.catalog.catalog import Catalog
from tallystick.core.usage import Usage
from tallystick.errors import InputError, UnknownModelError, UsageError
from tallystick.metering.check import check_cases, exit_code
from tallystick.metering.estimate import expected_output
from tallystick.metering.rating import Call, rate
from tallystick.metering.recording import entry_for, raw_text

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
BOOK = Catalog.bundled()


def entry(raw, **call):
    return entry_for(raw, Call(**{"model": "gpt-4o", "at": NOW, **call}), BOOK, call_id="id", recorded_at=NOW)


def test_an_unknown_model_is_no_error_but_unpriced():
    rated = rate({"input": 5}, Call(model="gpt-4q", at=NOW), BOOK)
    assert rated.cost is None
    assert isinstance(rated.unpriced, UnknownModelError)
    assert rated.provider == "other:unknown"


def test_a_stated_cost_is_the_bill():
    raw = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100, "cost": Decimal("0.0123")}
    rated = rate(raw, Call(model="openai/gpt-4o", provider="openrouter", api="openrouter.chat", at=NOW), BOOK)
    assert rated.cost.basis == "reported"
    assert str(rated.cost.amount) == "$0.0123"
    unknown = rate(raw, Call(model="some/model-x", provider="openrouter", api="openrouter.chat", at=NOW), BOOK)
    assert unknown.unpriced is None
    assert str(unknown.cost.amount) == "$0.0123"


def test_what_contradicts_itself_is_kept_and_not_exact():
    raw = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 20}}
    kept = entry(raw)
    assert kept.cost is None
    assert kept.quality != "exact"
    assert '"cached_tokens":20' in kept.usage_raw


def test_no_usage_is_unknown_and_not_zero():
    kept = entry(None)
    assert (kept.usage, kept.cost, kept.quality) == (None, None, "unknown")


def test_the_entry_keeps_what_decides_the_price():
    kept = entry({"input": 10}, context={"processing": "batch", "service_tier": "default"})
    assert kept.tier == "default"
    assert dict(kept.context) == {"processing": "batch"}
    assert kept.requested_model == kept.model == "gpt-4o"


def test_ambiguous_and_wrong_payloads():
    for raw in (3, "x", {"what": 1}, [{"a": 1}]):
        with pytest.raises(UsageError):
            rate(raw, Call(model="gpt-4o", at=NOW), BOOK)


def test_long_usage_objects_are_not_kept():
    assert raw_text({"a": "x" * 5000}) is None
    assert raw_text({"a": Decimal("1.50")}) == '{"a":"1.50"}'


def test_answers_without_a_history():
    default = expected_output((), None)
    assert default.low < default.likely < default.high
    assert "default" in default.basis
    few = expected_output([5] * 19, None)
    assert "19 earlier calls are too few" in few.basis
    assert expected_output([5] * 20, None).likely == 5
    assert expected_output([5] * 20, 3).high == 3


def case(**fields):
    usage = {"prompt_tokens": 1000, "completion_tokens": 0}
    return {"model": "gpt-4o", "usage": usage, "expected_usd": "0.0025", **fields}


@pytest.mark.parametrize(
    ("fields", "result", "code"),
    [
        ({}, "agree", 0),
        ({"expected_usd": "0.00250"}, "agree", 0),
        ({"expected_usd": "0.0025000000001"}, "agree", 0),
        ({"expected_usd": "0.002500000001"}, "differ", 1),
        ({"expected_usd": None}, "differ", 1),
        ({"model": "gpt-4q"}, "unsupported", 4),
        ({"model": "gpt-4q", "expected_usd": None}, "agree", 0),
        ({"api": "log.nonesuch"}, "unsupported", 4),
        ({"usage": {"prompt_tokens": -1}}, "differ", 1),
        ({"provider": "azure_openai"}, "agree", 0),
        ({"date": "2026-11-01"}, "agree", 0),
        ({"context": {"processing": "batch"}, "expected_usd": "0.00125"}, "agree", 0),
    ],
)
def test_verdicts(fields, result, code):
    verdicts = check_cases([case(**fields)], BOOK, NOW)
    assert verdicts[0].result == result, verdicts
    assert exit_code(verdicts) == code
    assert bool(verdicts[0].reason) == (result != "agree")


def test_the_worst_verdict_decides():
    cases = [case(), case(model="gpt-4q"), case(expected_usd="1")]
    assert exit_code(check_cases(cases, BOOK, NOW)) == 1
    assert exit_code(check_cases(cases[:2], BOOK, NOW)) == 4


@pytest.mark.parametrize("cases", [{}, [], "x", [1], [{}], [case(model=3)], [case(context=3)], [case(date="x")]])
def test_what_is_no_list_of_cases(cases):
    with pytest.raises(InputError):
        check_cases(cases, BOOK, NOW)


def test_counted_usage_takes_context_too():
    batch = rate(Usage(input=1000), Call(model="gpt-4o", at=NOW, context={"processing": "batch"}), BOOK)
    plain = rate(Usage(input=1000), Call(model="gpt-4o", at=NOW), BOOK)
    assert batch.cost.amount * 2 == plain.cost.amount
