"""The golden cases: what was read must be what the bill multiplies."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from tallystick.core.usage import Usage
from tallystick.errors import UnsupportedApi
from tallystick.wire.usage import api_of, read_usage

CASES = json.loads((Path(__file__).parents[1] / "data" / "golden_prices.json").read_text())
READABLE = [case for case in CASES if not case["api"].startswith("log.")]
LOGS = [case for case in CASES if case["api"].startswith("log.")]


def billed(usage: Usage, case: dict) -> list[Decimal]:
    """The quantities as the case's components group them: reasoning is billed with output, and milliseconds in seconds
    with Groq's minimum of ten."""
    groups: dict[str, Decimal] = {}
    for kind, count in usage.items():
        group, quantity = kind, Decimal(count)
        if kind == "reasoning":
            group = "output"
        if kind == "milliseconds_input":
            quantity = max(quantity / 1000, Decimal(10))
        groups[group] = groups.get(group, Decimal(0)) + quantity
    return sorted(groups.values())


@pytest.mark.parametrize("case", READABLE, ids=lambda case: case["name"])
def test_quantities_are_those_of_the_bill(case):
    reading = read_usage(case["api"], case["usage"], case.get("context"))
    assert reading.fault is None
    assert billed(reading.usage, case) == sorted(Decimal(part["qty"]) for part in case["components"])


@pytest.mark.parametrize("case", READABLE, ids=lambda case: case["name"])
def test_the_api_is_found_from_provider_and_keys(case):
    assert api_of(case["provider"], case["usage"]) == case["api"]


@pytest.mark.parametrize("case", LOGS, ids=lambda case: case["name"])
def test_lines_of_logs_are_one_call(case):
    reading = read_usage(case["api"], case["usage"], case.get("context"))
    assert reading.fault is None
    assert billed(reading.usage, case) == sorted(Decimal(part["qty"]) for part in case["components"])


def test_logs_without_a_reader_say_so():
    with pytest.raises(UnsupportedApi, match="no reader for log-shaped payloads yet") as caught:
        read_usage("log.amp", [])
    assert caught.value.api == "log.amp"


def test_contexts_of_the_cases():
    by_name = {case["name"]: case for case in CASES}

    def context(name):
        case = by_name[name]
        return read_usage(case["api"], case["usage"], case.get("context")).context

    assert context("openai_flex_tier") == {"service_tier": "flex"}
    assert context("openai_batch") == {"processing": "batch", "service_tier": "default"}
    assert context("openai_eu_residency") == {"data_residency": "eu"}
    assert context("openai_web_search_tool") == {}
    assert context("anthropic_batch") == {"processing": "batch"}
    assert context("anthropic_fast_mode") == {"service_tier": "standard", "speed": "fast"}
    assert context("anthropic_us_only_inference") == {"service_tier": "standard", "inference_geo": "us"}
    assert context("gemini_tool_use_prompt") == {"tool": "url_context"}
    assert context("perplexity_low_context_request_fee") == {"search_context_size": "low"}


def test_reported_costs_of_the_cases():
    for case in READABLE:
        reported = read_usage(case["api"], case["usage"]).reported
        stated = "cost" in case["usage"] or "cost_in_usd_ticks" in case["usage"]
        assert (reported is not None) == stated
        if reported is not None:
            assert reported.to_decimal() == Decimal(case["expected_usd"])
