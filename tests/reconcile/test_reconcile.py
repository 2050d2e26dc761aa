"""tally reconcile, through the command line, with the providers' own shapes and a real ledger."""

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import tallystick
from tallystick.cli import run
from tallystick.core.usage import Usage

DATA = Path(__file__).resolve().parents[1] / "data" / "provider_reports"
AT = datetime(2026, 10, 1, 12, tzinfo=UTC)
DAY = 1790812800


def tally(capsys, *argv, code=None, err=True):
    found = run([str(part) for part in argv])
    out, remarks = capsys.readouterr()
    assert "Traceback" not in remarks
    if code is not None:
        assert found == code, out + remarks
    return out + remarks if err else out


def report(capsys, *argv, code=None):
    return json.loads(tally(capsys, "reconcile", "--json", *argv, code=code, err=False))


def write(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def call(model="gpt-5", provider="openai", at=AT, context=None, usage=None, **tags):
    if usage is None:
        usage = Usage(input=40_000, cache_read=70_000, output=8_000, reasoning=1_000)
    return tallystick.record(usage, model, provider=provider, at=at, context=context or {}, **tags)


def costs(lines, start=DAY, days=1, project="proj_a", **page):
    results = [
        {
            "object": "organization.costs.result",
            "amount": {"value": value, "currency": "usd"},
            "line_item": item,
            "project_id": project,
            **({} if quantity is None else {"quantity": quantity, "quantity_unit": "tokens"}),
        }
        for item, value, quantity in lines
    ]
    bucket = {"object": "bucket", "start_time": start, "end_time": start + 86400 * days, "results": results}
    return {"object": "page", "data": [bucket], "has_more": False, "next_page": None, **page}


def usage(rows, start=DAY, **page):
    results = [
        {
            "object": "organization.usage.completions.result",
            "input_tokens": row.get("input", 0) + row.get("cached", 0) + row.get("written", 0),
            "input_cached_tokens": row.get("cached", 0),
            "input_cache_write_tokens": row.get("written", 0),
            "output_tokens": row.get("output", 0),
            "num_model_requests": row.get("calls", 1),
            "model": row.get("model", "gpt-5-2025-08-07"),
            "project_id": row.get("project"),
            "api_key_id": None,
            "batch": row.get("batch", False),
            "service_tier": row.get("tier", "default"),
        }
        for row in rows
    ]
    bucket = {"object": "bucket", "start_time": start, "end_time": start + 86400, "results": results}
    return {"object": "page", "data": [bucket], "has_more": False, "next_page": None, **page}


def of(found, kind, model=None):
    rows = [row for row in found["rows"] if row["kind"] == kind and (model is None or row["model"] == model)]
    assert len(rows) == 1, rows
    return rows[0]


def test_openai_costs_match_to_the_last_cent(capsys, tmp_path):
    for _ in range(10):
        call()
    found = report(capsys, DATA / "openai_costs.json", code=0)
    assert found["states"] == {"matched": 3, "open": 0, "missing here": 0, "missing there": 0, "different": 0}
    amount = {"report": {"usd": "1.4875"}, "ledger": {"usd": "1.4875"}, "difference": {"usd": "0"}}
    assert found["total"]["amount"] == amount
    assert of(found, "output")["quantity"] == {"report": 90_000, "ledger": 90_000, "difference": 0}


def test_openai_usage_with_two_projects_keys_and_a_batch(capsys):
    for number in range(410):
        one = Usage(input=400_000, cache_read=700_000, cache_write=100_000, output=90_000) if number == 0 else Usage()
        call(usage=one, project="proj_a", key="key_1")
    for number in range(55):
        one = Usage(input=300_000, output=12_000) if number == 0 else Usage()
        call("gpt-5-mini", context={"processing": "batch"}, usage=one, project="proj_b", key="key_2")
    found = report(capsys, DATA / "openai_usage_completions.json", code=0)
    assert {(row["project"], row["key"]) for row in found["rows"]} == {("proj_a", "key_1"), ("proj_b", "key_2")}
    assert len(found["rows"]) == 8


def test_anthropic_usage_and_costs_make_one_row(capsys):
    for number in range(20):
        counts = {
            "input": 7_500,
            "cache_write_1h": 500,
            "cache_write_5m": 2_500,
            "cache_read": 100_000,
            "output": 2_600,
        }
        call("claude-sonnet-4-5", "anthropic", usage=Usage({**counts, "fee:web_search": int(number < 7)}))
    both = (DATA / "anthropic_usage_report_messages.json", DATA / "anthropic_cost_report.json")
    found = report(capsys, *both, code=0)
    assert of(found, "input")["quantity"]["ledger"] == 150_000
    assert of(found, "input")["amount"]["report"] == {"usd": "0.45"}  # 45 cents
    assert of(found, "fee:web_search")["amount"]["ledger"] == {"usd": "0.07"}
    assert of(found, "cache_write_5m")["amount"]["ledger"] == {"usd": "0.1875"}
    assert found["total"]["amount"]["difference"] == {"usd": "0"}
    text = tally(capsys, "reconcile", *both, code=0)
    assert "6 rows: 6 matched." in text
    assert "$2.1475" in text


def test_priority_tier_is_not_in_anthropics_costs(capsys):
    for _ in range(20):
        counts = {
            "input": 7_500,
            "cache_write_1h": 500,
            "cache_write_5m": 2_500,
            "cache_read": 100_000,
            "output": 2_600,
        }
        call("claude-sonnet-4-5", "anthropic", usage=Usage({**counts, "fee:web_search": 7 if _ == 0 else 0}))
    call("claude-sonnet-4-5", "anthropic", usage=Usage(input=1000), context={"service_tier": "priority"})
    found = report(capsys, DATA / "anthropic_cost_report.json", code=0)
    assert "1 priority calls of $0.003" in " ".join(found["notes"])


def test_missing_here_missing_there_and_open(capsys, tmp_path):
    page = usage([{"input": 10, "output": 1}])
    found = report(capsys, write(tmp_path / "a.json", page), code=4)
    assert {row["state"] for row in found["rows"]} == {"missing here"}
    call("gpt-5-mini", usage=Usage(input=5, output=1))
    found = report(capsys, write(tmp_path / "b.json", usage([])), code=4)
    assert {row["state"] for row in found["rows"]} == {"missing there"}
    start = int((datetime.now(UTC) - timedelta(hours=80)).timestamp())
    young = usage([{"input": 10, "output": 1}], start=start)
    found = report(capsys, write(tmp_path / "c.json", young), code=4)
    assert {(row["state"], row["cause"]) for row in found["rows"]} == {("open", "late data")}


def test_a_young_bucket_that_matches_is_matched(capsys, tmp_path):
    start = int((datetime.now(UTC) - timedelta(hours=20)).timestamp())
    call(usage=Usage(input=10, output=1), at=datetime.fromtimestamp(start + 60, UTC))
    page = usage([{"input": 10, "output": 1}], start=start)
    report(capsys, write(tmp_path / "a.json", page), code=0)


@pytest.mark.parametrize(
    ("tier", "batch", "context"),
    [("flex", False, "flex"), ("priority", False, "priority"), ("default", True, "batch")],
)
def test_a_tier_is_named_corrected_and_then_matches(capsys, tmp_path, tier, batch, context):
    calls = [call() for _ in range(3)]
    page = usage([{"input": 120_000, "cached": 210_000, "output": 27_000, "calls": 3, "tier": tier, "batch": batch}])
    path = write(tmp_path / "usage.json", page)
    found = report(capsys, path, code=1)
    assert {row["cause"] for row in found["rows"] if row["state"] == "different"} == {"tier"}
    text = tally(capsys, "reconcile", path, "--correct", "--yes", code=0)
    assert "Appended 3 corrections" in text
    expected = tallystick.price(
        Usage(input=40_000, cache_read=70_000, output=8_000, reasoning=1_000), "gpt-5", provider="openai", at=AT,
        context={"processing": "batch"} if batch else {"service_tier": tier},
    )  # fmt: skip
    with tallystick.open(read_only=True) as ledger:
        entries = list(ledger.read())
        assert [entry.amount for entry in entries] == [expected.amount] * 3
        assert {entry.tier for entry in entries} == {context}
        assert len(ledger.corrections(calls[0].call_id)) == 1
    report(capsys, path, code=0)


def test_a_corrected_ledger_verifies(capsys, tmp_path):
    call()
    page = usage([{"input": 40_000, "cached": 70_000, "output": 9_000, "tier": "flex"}])
    report(capsys, write(tmp_path / "u.json", page), "--correct", "--yes", code=0)
    with tallystick.open(read_only=True) as ledger:
        assert ledger.verify() == []


def test_costs_alone_tell_the_tier_too(capsys, tmp_path):
    call(usage=Usage(input=1_000_000, output=100_000))
    lines = [("gpt-5-2025-08-07, input", 2.5, 1_000_000), ("gpt-5-2025-08-07, output", 2.0, 100_000)]
    found = report(capsys, write(tmp_path / "costs.json", costs(lines)), code=1)
    assert of(found, "input")["why"] == "billed at the priority or fast tier, which cost the same"
    report(capsys, "--correct", "--yes", tmp_path / "costs.json", code=0)


def test_a_tier_that_costs_the_same_as_another_is_not_claimed(capsys, tmp_path):
    entry = call(usage=Usage(input=1_000_000, output=100_000))
    lines = [("gpt-5-2025-08-07, input", 0.625, 1_000_000), ("gpt-5-2025-08-07, output", 0.5, 100_000)]
    found = report(capsys, "--correct", "--yes", write(tmp_path / "costs.json", costs(lines)), code=0)
    assert found["appended"] is True
    with tallystick.open(read_only=True) as ledger:
        (corrected,) = ledger.read()
        (correction,) = ledger.corrections(entry.call_id)
    assert str(corrected.amount) == "$1.125"
    assert corrected.tier is None
    assert "batch or flex" in correction.reason


def test_another_price_is_named_corrected_and_then_matches(capsys, tmp_path):
    for _ in range(3):
        call(usage=Usage(input=1_000_000, output=100_000))
    lines = [("gpt-5-2025-08-07, input", 3.3, 3_000_000), ("gpt-5-2025-08-07, output", 3.0, 300_000)]
    path = write(tmp_path / "costs.json", costs(lines))
    found = report(capsys, path, code=1)
    assert of(found, "input")["cause"] == "price"
    assert of(found, "input")["why"] == "billed at $1.10 per 1M tokens; ours is $3.75"
    assert of(found, "output")["state"] == "matched"
    found = report(capsys, path, "--correct", "--yes", code=0)
    assert len(found["corrections"]) == 3
    assert found["corrections"][0]["before"] == {"usd": "2.25"}
    assert found["corrections"][0]["after"] == {"usd": "2.1"}
    assert str(tallystick.spent().cost) == "$6.30"
    assert report(capsys, path, "--correct", "--yes", code=0)["corrections"] == []


def test_an_unpriced_model_gets_its_price_from_the_bill(capsys, tmp_path):
    call("house-model-9", usage=Usage(input=2_000_000, output=500_000))
    lines = [("house-model-9, input", 3, 2_000_000), ("house-model-9, output", "2.5", 500_000)]
    path = write(tmp_path / "costs.json", costs(lines))
    found = report(capsys, path, code=1)
    assert "1 calls have no price here" in of(found, "input")["why"]
    report(capsys, path, "--correct", "--yes", code=0)
    assert str(tallystick.spent().cost) == "$5.50"


def test_a_context_window_is_named(capsys, tmp_path):
    call("claude-sonnet-4-5", "anthropic", usage=Usage(input=300_000, output=1_000))
    row = {"currency": "USD", "model": "claude-sonnet-4-5-20250929", "cost_type": "tokens", "service_tier": "standard"}
    page = {
        "data": [
            {
                "starting_at": "2026-10-01T00:00:00Z",
                "ending_at": "2026-10-02T00:00:00Z",
                "results": [
                    {**row, "amount": "90", "token_type": "uncached_input_tokens"},
                    {**row, "amount": "1.5", "token_type": "output_tokens"},
                ],
            }
        ],
        "has_more": False,
    }
    path = write(tmp_path / "costs.json", page)
    found = report(capsys, path, code=1)
    assert {row["cause"] for row in found["rows"]} == {"context window"}
    report(capsys, path, "--correct", "--yes", code=0)


def test_an_amount_that_no_price_explains_is_shown_and_not_corrected(capsys, tmp_path):
    call(usage=Usage(input=1_234_567, output=1))
    lines = [("gpt-5-2025-08-07, input", 1.7777777, 1_234_567), ("gpt-5-2025-08-07, output", 0.00001, 1)]
    text = tally(capsys, "reconcile", write(tmp_path / "c.json", costs(lines)), "--correct", "--yes", code=1)
    assert "nothing to correct" in text
    assert "no one price explains" in text


def test_a_bill_may_give_quantities_of_some_lines_only(capsys, tmp_path):
    call(usage=Usage(input=1_000_000, output=100_000))
    call("gpt-5-mini", usage=Usage(input=1_000_000))
    lines = [
        ("gpt-5-2025-08-07, input", 1.25, 1_000_000),
        ("gpt-5-2025-08-07, output", 1, None),
        ("gpt-5-mini-2025-08-07, input", 0.25, None),
    ]
    found = report(capsys, write(tmp_path / "c.json", costs(lines)), code=0)
    assert of(found, "input", "gpt-5-mini")["quantity"] is None


def test_an_empty_day_in_the_report_is_a_day(capsys, tmp_path):
    call(usage=Usage(input=10))
    empty = {"data": [{"starting_at": "2026-10-01T00:00:00Z", "ending_at": "2026-10-02T00:00:00Z", "results": []}]}
    assert report(capsys, write(tmp_path / "a.json", empty), code=0)["rows"] == []
    call("claude-sonnet-4-5", "anthropic", usage=Usage(input=10))
    found = report(capsys, tmp_path / "a.json", code=4)
    assert {row["state"] for row in found["rows"]} == {"missing there"}


def test_a_price_without_quantities_is_only_guessed(capsys, tmp_path):
    for _ in range(11):
        call(usage=Usage(input=1_000_000))
    path = write(tmp_path / "c.json", costs([("gpt-5-2025-08-07, input", 12.1, None)]))
    found = report(capsys, path, "--correct", "--yes", code=1)
    assert of(found, "input")["why"].startswith("$1.10 per 1M tokens, if the quantities agree")
    assert found["corrections"] == []
    # One call more here than there gives no price that anybody would have set.
    path = write(tmp_path / "d.json", costs([("gpt-5-2025-08-07, input", 12.5, None)]))
    assert "no one price explains" in of(report(capsys, path, code=1), "input")["why"]


def test_a_fee_is_named_corrected_and_then_matches(capsys, tmp_path):
    for number in range(20):
        counts = {
            "input": 7_500,
            "cache_write_1h": 500,
            "cache_write_5m": 2_500,
            "cache_read": 100_000,
            "output": 2_600,
        }
        call("claude-sonnet-4-5", "anthropic", usage=Usage({**counts, "fee:web_search": int(number < 7)}))
    bill = json.loads((DATA / "anthropic_cost_report.json").read_text())
    bill["data"][0]["results"][5]["amount"] = "8.4"
    both = (DATA / "anthropic_usage_report_messages.json", write(tmp_path / "c.json", bill))
    found = report(capsys, *both, code=1)
    row = of(found, "fee:web_search")
    assert (row["cause"], row["why"]) == ("fee", "billed at $0.012 per call; ours is $0.07")
    found = report(capsys, *both, "--correct", "--yes", code=0)
    assert len(found["corrections"]) == 7


def test_nothing_billed_is_not_a_price_of_zero(capsys, tmp_path):
    call(usage=Usage(input=1_000, cache_write=1_000_000))
    lines = [("gpt-5-2025-08-07, input", 0.00125, 1_000)]
    found = report(capsys, write(tmp_path / "c.json", costs(lines)), "--correct", "--yes", code=1)
    assert found["corrections"] == []
    assert "bills nothing" in of(found, "cache_write")["why"]


def test_calls_that_only_the_report_has_are_never_made_up(capsys, tmp_path):
    call(usage=Usage(input=10, output=1))
    page = usage([{"input": 30, "output": 3, "calls": 3}])
    found = report(capsys, write(tmp_path / "u.json", page), "--correct", "--yes", code=1)
    assert {row["why"] for row in found["rows"]} == {"2 more calls there"}
    assert found["corrections"] == []


def test_tokens_in_other_classes_are_named(capsys, tmp_path):
    call(usage=Usage(input=100, output=1))
    found = report(capsys, write(tmp_path / "u.json", usage([{"input": 40, "cached": 60, "output": 1}])), code=1)
    assert of(found, "input")["cause"] == "token class"


def test_calls_of_unknown_usage_are_named(capsys, tmp_path):
    call(usage=Usage(input=10, output=1))
    tallystick.record(None, "gpt-5", provider="openai", at=AT)
    found = report(capsys, write(tmp_path / "u.json", usage([{"input": 30, "output": 3, "calls": 2}])), code=1)
    assert of(found, "input")["why"] == "calls here: 1 of unknown usage"


def test_asking_and_saying_no_changes_nothing(capsys, tmp_path, monkeypatch):
    call(usage=Usage(input=1_000_000))
    path = write(tmp_path / "c.json", costs([("gpt-5-2025-08-07, input", 1.1, 1_000_000)]))
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    text = tally(capsys, "reconcile", path, "--correct", code=1)
    assert "Append 1 correction to the ledger?" in text
    assert text.count("OpenAI costs") - text.count("with OpenAI costs") == 1
    assert "Nothing was appended" in text
    assert str(tallystick.spent().cost) == "$1.25"


def test_a_project_that_only_one_side_knows_is_not_compared(capsys, tmp_path):
    call(usage=Usage(input=1_000_000))
    path = write(tmp_path / "c.json", costs([("gpt-5-2025-08-07, input", 1.25, 1_000_000)], project="proj_x"))
    found = report(capsys, path, code=0)
    assert found["rows"][0]["project"] is None


def test_a_project_that_both_know_is_compared(capsys, tmp_path):
    call(usage=Usage(input=1_000_000), project="one")
    call(usage=Usage(input=2_000_000), project="two")
    one = costs([("gpt-5-2025-08-07, input", 1.25, 1_000_000)], project="one")
    two = costs([("gpt-5-2025-08-07, input", 1.25, 1_000_000)], project="two")
    one["data"][0]["results"] += two["data"][0]["results"]
    found = report(capsys, write(tmp_path / "c.json", one), code=1)
    assert {row["project"]: row["state"] for row in found["rows"]} == {"one": "matched", "two": "different"}


def test_pages_in_several_files_lines_and_lists(capsys, tmp_path):
    call(usage=Usage(input=10, output=1))
    call(usage=Usage(input=20, output=2), at=AT + timedelta(days=1))
    first = usage([{"input": 10, "output": 1}], has_more=True, next_page="page_2")
    second = usage([{"input": 20, "output": 2}], start=DAY + 86400)
    a, b = write(tmp_path / "a.json", first), write(tmp_path / "b.json", second)
    report(capsys, a, b, code=0)
    report(capsys, write(tmp_path / "lines.jsonl", f"{json.dumps(first)}\n{json.dumps(second)}\n"), code=0)
    report(capsys, write(tmp_path / "list.json", [first, second]), code=0)
    alone = report(capsys, a, code=4)
    assert alone["complete"] is False
    assert "has_more" in " ".join(alone["notes"])
    # The same page twice is counted once.
    twice = report(capsys, a, b, b, code=0)
    assert "more than once" in " ".join(twice["notes"])


def test_refused_and_not_owed_calls_are_not_compared(capsys, tmp_path):
    import msgspec

    entry = call(usage=Usage(input=10, output=1))
    with tallystick.open() as ledger:
        free = msgspec.structs.replace(entry, call_id="free", owed=False)
        refused = msgspec.structs.replace(entry, call_id="refused", status="refused")
        ledger.append([free, refused])
    report(capsys, write(tmp_path / "u.json", usage([{"input": 10, "output": 1}])), code=0)


def test_embeddings_are_not_missing_in_a_report_of_completions(capsys, tmp_path):
    import msgspec

    entry = call(usage=Usage(input=10, output=1))
    with tallystick.open() as ledger:
        ledger.append(
            [msgspec.structs.replace(entry, call_id="e", model="text-embedding-3-small", api="openai.embeddings")]
        )
    report(capsys, write(tmp_path / "u.json", usage([{"input": 10, "output": 1}])), code=0)


def test_openrouter_activity_as_json_and_csv(capsys, tmp_path):
    for number in range(120):
        one = Usage(input=300_000, output=20_000, reasoning=2_300) if number == 0 else Usage()
        call("anthropic/claude-sonnet-4.5", "openrouter", usage=one)
    found = report(capsys, DATA / "openrouter_activity.json", code=1)
    assert of(found, "prompt")["state"] == "matched"
    assert of(found, "calls")["state"] == "matched"
    ours = of(found, "total")["amount"]["ledger"]["usd"]
    (row,) = json.loads((DATA / "openrouter_activity.json").read_text())["data"]
    row["usage"] = ours
    path = write(tmp_path / "a.csv", f"{','.join(row)}\n{','.join(map(str, row.values()))}\n")
    report(capsys, path, code=0)


def test_a_day_begins_where_the_option_says(capsys, tmp_path):
    call("anthropic/claude-sonnet-4.5", "openrouter", usage=Usage(input=5, output=1), at=AT.replace(hour=23))
    text = "date,model,usage,requests,prompt_tokens,completion_tokens\n2026-10-02,anthropic/claude-sonnet-4.5,0.00003,1,5,1\n"
    path = write(tmp_path / "a.csv", text)
    report(capsys, path, code=4)
    report(capsys, path, "--tz", "Europe/Berlin", code=0)


def test_a_generation_corrects_its_own_call(capsys, tmp_path):
    import msgspec

    entry = call("anthropic/claude-sonnet-4.5", "openrouter", usage=Usage(input=1012, output=200))
    lower = msgspec.structs.replace(
        entry, call_id="cut", provider_response_id="gen-1790900000-abc", quality="lower_bound", status="cut",
        started_at=datetime(2026, 10, 2, 1, 33, 19, tzinfo=UTC),
    )  # fmt: skip
    with tallystick.open() as ledger:
        ledger.append([lower])
    found = report(capsys, DATA / "openrouter_generation.json", code=1)
    assert of(found, "completion")["quantity"]["difference"] == 255
    report(capsys, DATA / "openrouter_generation.json", "--correct", "--yes", code=0)
    with tallystick.open(read_only=True) as ledger:
        (fixed,) = [one for one in ledger.read() if one.call_id == "cut"]
    assert fixed.quality == "exact"
    assert fixed.usage == Usage(input=1012, output=455)
    assert str(fixed.amount) == str(fixed.reported_cost) == "$0.009861"
    assert fixed.cost.basis == "reported"


def test_a_csv_of_generations(capsys, tmp_path):
    import msgspec

    entry = call(
        "anthropic/claude-sonnet-4.5", "openrouter", usage=Usage(input=1000, cache_read=12, output=400, reasoning=55)
    )
    with tallystick.open() as ledger:
        ledger.append([msgspec.structs.replace(entry, call_id="g", provider_response_id="gen-1")])
    header = "generation_id,created_at,cost_total,tokens_prompt,tokens_completion,tokens_reasoning,tokens_cached,model_permaslug"
    row = f"gen-1,2026-10-01 12:00:00.5,{entry.amount.plain()},1012,455,55,12,anthropic/claude-4.5-sonnet-20250929"
    path = tmp_path / "activity.csv"
    path.write_bytes(b"\xef\xbb\xbf" + f"{header}\r\n{row}\r\n".encode())
    found = report(capsys, path, code=0)
    assert {row["call"] for row in found["rows"]} == {"gen-1"}


def test_another_provider_may_speak_the_same_form(capsys, tmp_path):
    call("gpt-5", "azure", usage=Usage(input=10, output=1))
    path = write(tmp_path / "u.json", usage([{"input": 10, "output": 1}]))
    report(capsys, path, "--provider", "azure", code=0)


def test_floats_are_read_by_their_text(capsys, tmp_path):
    call(usage=Usage(input=240_000))
    path = write(
        tmp_path / "c.json",
        json.dumps(costs([("gpt-5-2025-08-07, input", 0, 240_000)])).replace(
            '"value": 0', '"value": 0.30000000000000004'
        ),
    )
    found = report(capsys, path, "--tolerance", "0", code=0)
    assert found["total"]["amount"]["report"] == {"usd": "0.3"}


def test_rounding_within_the_tolerance_is_said(capsys, tmp_path):
    call(usage=Usage(input=240_000))
    path = write(tmp_path / "c.json", costs([("gpt-5-2025-08-07, input", 0.29, 240_000)]))
    assert report(capsys, path, "--tolerance", "0.02", code=0)["rows"][0]["cause"] == "rounding"
    report(capsys, path, code=1)
