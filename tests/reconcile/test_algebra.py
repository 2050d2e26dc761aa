"""A report made from a ledger matches it entirely; whatever is changed in it is found, and nothing else."""

import copy
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.catalog.catalog import Catalog
from tallystick.core.money import Money
from tallystick.core.usage import Usage
from tallystick.insight.correcting import proposals
from tallystick.insight.provider_reports.reading import read_reports
from tallystick.insight.reconcile import reconcile
from tallystick.ledger.ids import new_call_id
from tallystick.ledger.memory import MemoryLedger
from tallystick.metering.rating import Call
from tallystick.metering.recording import entry_for

START = datetime(2026, 10, 1, tzinfo=UTC)
NOW = START + timedelta(days=30)
MODELS = {"gpt-5": "gpt-5-2025-08-07", "gpt-5-mini": "gpt-5-mini-2025-08-07"}
SPLIT = {"input": "input", "cache_read": "cached input", "output": "output", "reasoning": "output"}

counts = st.integers(0, 10**9)
calls = st.lists(
    st.tuples(
        st.sampled_from(sorted(MODELS)),
        st.integers(0, 3 * 86400 - 1),
        st.sampled_from(["", "flex", "batch"]),
        st.builds(Usage, input=counts, cache_read=counts, output=counts, reasoning=counts),
        st.sampled_from(["red", "blue"]),
    ),
    min_size=1,
    max_size=8,
)


def ledger_of(drawn):
    ledger = MemoryLedger()
    entries = []
    for model, offset, tier, usage, project in drawn:
        context = {"processing": "batch"} if tier == "batch" else {"service_tier": tier} if tier else {}
        call = Call(model=model, at=START + timedelta(seconds=offset), provider="openai", context=context)
        entries.append(
            entry_for(usage, call, Catalog.bundled(), call_id=new_call_id(), recorded_at=NOW, tags={"project": project})
        )
    ledger.append(entries)
    return ledger, entries


def reports_of(entries):
    """What OpenAI would say of these calls: a page of usage and a page of costs, by naive sums."""
    tokens, money = {}, {}
    for entry in entries:
        day = (entry.started_at - START).days
        tier = "batch" if entry.context.get("processing") == "batch" else entry.tier or "default"
        row = tokens.setdefault((day, entry.model, entry.tags["project"], tier), Counter())
        row["calls"] += 1
        for kind, number in entry.usage.items():
            row[SPLIT[kind]] += number
        for line in entry.cost.lines:
            key = (day, f"{MODELS[entry.model]}, {SPLIT[line.kind]}", entry.tags["project"])
            money[key] = money.get(key, 0) + line.pico
    usage, costs = pages(), pages()
    for (day, model, project, tier), row in tokens.items():
        usage["data"][day]["results"].append(
            {
                "object": "organization.usage.completions.result",
                "input_tokens": row["input"] + row["cached input"],
                "input_cached_tokens": row["cached input"],
                "input_cache_write_tokens": 0,
                "output_tokens": row["output"],
                "num_model_requests": row["calls"],
                "model": MODELS[model],
                "project_id": project,
                "batch": tier == "batch",
                "service_tier": "default" if tier == "batch" else tier,
            }
        )
    for (day, item, project), pico in money.items():
        amount = {"value": Money(pico).plain(), "currency": "usd"}
        costs["data"][day]["results"].append(
            {"object": "organization.costs.result", "amount": amount, "line_item": item, "project_id": project}
        )
    return usage, costs


def pages():
    first = int(START.timestamp())
    buckets = [
        {"object": "bucket", "start_time": first + day * 86400, "end_time": first + (day + 1) * 86400, "results": []}
        for day in range(3)
    ]
    return {"object": "page", "data": buckets, "has_more": False}


def laid(ledger, *reports):
    files = [(f"page {number}", json.dumps(report).encode()) for number, report in enumerate(reports)]
    statements = read_reports(files, zone=ZoneInfo("UTC"))
    return reconcile(statements, ledger, Catalog.bundled(), now=NOW, tolerance=Money(0))


@settings(max_examples=60)
@given(calls)
def test_a_report_made_from_the_ledger_matches(drawn):
    ledger, entries = ledger_of(drawn)
    usage, costs = reports_of(entries)
    for reports in ((usage, costs), (usage,), (costs,), (costs, usage)):
        found = laid(ledger, *reports)
        assert [row for row in found.rows if row.state != "matched"] == []
        assert found.exit_code == 0
    assert found.here_usd == found.there_usd == sum((entry.amount for entry in entries), Money(0))
    assert list(proposals(found, ledger, Catalog.bundled(), now=NOW, new_id=new_call_id)) == []


@settings(max_examples=60)
@given(calls, st.data())
def test_any_other_quantity_is_found(drawn, data):
    ledger, entries = ledger_of(drawn)
    usage, _ = reports_of(entries)
    bucket = data.draw(st.sampled_from([bucket for bucket in usage["data"] if bucket["results"]]))
    result = data.draw(st.sampled_from(bucket["results"]))
    field = data.draw(st.sampled_from(["input_cached_tokens", "output_tokens", "num_model_requests"]))
    result[field] += 1
    result["input_tokens"] += field == "input_cached_tokens"
    found = laid(ledger, usage)
    (row,) = [row for row in found.rows if row.state != "matched"]
    kind = {"input_cached_tokens": "cache_read", "output_tokens": "output", "num_model_requests": "calls"}[field]
    assert (row.place.kind, row.difference) == (kind, 1)
    assert row.place.start == datetime.fromtimestamp(bucket["start_time"], UTC)
    assert row.cause
    assert found.exit_code == 1


@settings(max_examples=60)
@given(calls, st.integers(1, 10**15), st.data())
def test_any_other_amount_is_found_to_the_last_digit(drawn, more, data):
    ledger, entries = ledger_of(drawn)
    usage, costs = reports_of(entries)
    filled = [bucket for bucket in costs["data"] if bucket["results"]]
    if not filled:
        return
    result = data.draw(st.sampled_from(data.draw(st.sampled_from(filled))["results"]))
    result["amount"]["value"] = (Money.usd(result["amount"]["value"]) + Money(more)).plain()
    found = laid(ledger, usage, costs)
    (row,) = [row for row in found.rows if row.state != "matched"]
    assert row.difference_usd == Money(more) == found.there_usd - found.here_usd
    assert row.cause in ("price", "tier")


@settings(max_examples=40)
@given(calls)
def test_a_bill_at_another_tier_is_corrected_until_it_matches(drawn):
    _, as_billed = ledger_of([(model, at, "flex", usage, project) for model, at, _, usage, project in drawn])
    ledger, _ = ledger_of([(model, at, "", usage, project) for model, at, _, usage, project in drawn])
    reports = reports_of(as_billed)
    found = laid(ledger, *reports)
    wanted = list(proposals(found, ledger, Catalog.bundled(), now=NOW, new_id=new_call_id))
    assert len(wanted) == len(drawn)
    ledger.append([one.correction for one in wanted])
    assert laid(ledger, *reports).exit_code == 0
    assert ledger.verify() == []


@settings(max_examples=30)
@given(calls, st.integers(0, 7))
def test_a_lost_call_is_missing_or_different_here(drawn, which):
    _, entries = ledger_of(drawn)
    lost = entries[which % len(entries)]
    ledger = MemoryLedger()
    ledger.append([entry for entry in entries if entry is not lost])
    usage, _ = reports_of(entries)
    found = laid(ledger, usage)
    wrong = [row for row in found.rows if row.state != "matched"]
    assert {row.place.start for row in wrong} == {START + timedelta(days=(lost.started_at - START).days)}
    assert found.quantities()["calls"] == (len(entries), len(entries) - 1)
    assert {row.cause for row in wrong} <= {"calls", "token class"}


@settings(max_examples=30)
@given(calls, st.permutations(range(3)))
def test_order_of_buckets_and_pages_does_not_matter(drawn, order):
    ledger, entries = ledger_of(drawn)
    usage, _ = reports_of(entries)
    parts = []
    for place in order:
        part = copy.deepcopy(usage)
        part["data"] = [usage["data"][place]]
        part["has_more"] = place != order[-1]
        parts.append(part)
    found = laid(ledger, *parts)
    assert found.exit_code == 0
    assert found.rows == laid(ledger, usage).rows
