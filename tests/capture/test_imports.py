"""Tables and exports of other tools."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from logdesk import NOW

from tallystick.capture.imports.exports import import_export
from tallystick.capture.imports.tables import import_table
from tallystick.catalog.catalog import Catalog
from tallystick.core.money import Money
from tallystick.core.usage import Usage
from tallystick.errors import InputError
from tallystick.ledger.memory import MemoryLedger

COLUMNS = {"model": "model", "at": "when", "input": "in", "output": "out"}


class Shop:
    def __init__(self, folder):
        self.folder = folder
        self.ledger = MemoryLedger()

    def file(self, text, name="calls.csv"):
        path = self.folder / name
        path.write_text(text)
        return path

    def table(self, text, columns=COLUMNS, name="calls.csv"):
        return import_table(self.file(text, name), columns, self.ledger, Catalog.bundled(), NOW)

    def export(self, rows, name="export.json"):
        text = rows if isinstance(rows, str) else json.dumps(rows, indent=1)
        return import_export(self.file(text, name), self.ledger, Catalog.bundled(), NOW)

    @property
    def entries(self):
        return list(self.ledger.read())


@pytest.fixture
def shop(tmp_path):
    return Shop(tmp_path)


def test_a_csv_file(shop):
    done = shop.table("when,model,in,out\n2026-11-01T10:00:00Z,gpt-4o,1000,100\n2026-11-01,gpt-4o,,5\n")
    assert (done.rows, done.written.new, done.refused) == (2, 2, {})
    later, first = shop.entries[::-1][0], shop.entries[0]
    assert (first.usage, later.usage) == (Usage(output=5), Usage(input=1000, output=100))
    assert (later.amount, later.source, later.owed, dict(later.tags)) == (
        Money.usd("0.0035"),
        "import",
        True,
        {"tool": "table"},
    )
    assert later.started_at == datetime(2026, 11, 1, 10, tzinfo=UTC)


def test_the_same_file_again_and_a_longer_one(shop):
    text = "when,model,in,out\n2026-11-01,gpt-4o,1,2\n2026-11-01,gpt-4o,1,2\n"
    assert shop.table(text).written.new == 2
    assert shop.table(text).written.known == 2
    done = shop.table(text + "2026-11-01,gpt-4o,1,2\n").written
    assert (done.new, done.known) == (1, 2)


def test_every_column_that_there_can_be(shop):
    row = {
        "m": "gpt-4o", "t": 1_790_000_000_000, "p": "openai", "id": "chatcmpl-1", "s": "s1", "cost": "$0.01",
        "usage": {"prompt": 100, "completion": 50, "details": {"cached": 40, "reasoning": 20}}, "who": "ada", "gone": None,
    }  # fmt: skip
    columns = {
        "model": "m", "at": "t", "provider": "p", "id": "id", "session": "s", "cost": "cost", "prompt": "usage.prompt",
        "completion": "usage.completion", "cached": "usage.details.cached", "reasoning": "usage.details.reasoning",
        "tag:user": "who", "tag:none": "gone", "fee:web_search": "searches",
    }  # fmt: skip
    shop.table(json.dumps(row) + "\n\n" + json.dumps(row | {"id": None, "searches": 2}) + "\n", columns, "calls.jsonl")
    first, second = sorted(shop.entries, key=lambda entry: entry.provider_response_id or "", reverse=True)
    assert first.usage == Usage(input=60, cache_read=40, output=30, reasoning=20)
    assert second.usage["fee:web_search"] == 2
    assert (first.amount, first.cost.basis, first.reported_cost) == (Money.usd("0.01"), "reported", Money.usd("0.01"))
    assert (first.provider_response_id, first.run_id, first.provider) == ("chatcmpl-1", "s1", "openai")
    assert dict(first.tags) == {"tool": "table", "session": "s1", "user": "ada"}


def test_rows_that_make_no_sense_are_counted_and_named(shop):
    rows = [
        "2026-11-01,gpt-4o,1,2", "2026-11-01,,1,2", "soon,gpt-4o,1,2", "1970-01-01,gpt-4o,1,2", "99999999999999999,gpt-4o,1,2",
        "2026-11-01,gpt-4o,-1,2", "2026-11-01,gpt-4o,1.5,2", "2026-11-01,gpt-4o,x,2", "2026-11-01,gpt-4o,1e400,2",
    ]  # fmt: skip
    done = shop.table("when,model,in,out\n" + "\n".join(rows))
    assert done.refused == {
        "rows without a model": (1, "row 2"), "rows whose time makes no sense": (3, "row 3"), "rows whose counts make no sense": (4, "row 6"),
    }  # fmt: skip
    assert len(shop.entries) == 1
    done = shop.table('{"model": "gpt-4o", "cost": "much"}\n{\n[1]\n', {"model": "model", "cost": "cost"}, "x.jsonl")
    assert {why: count for why, (count, _) in done.refused.items()} == {
        "rows whose cost makes no sense": 1,
        "rows without a model": 2,
    }


def test_without_counts_the_usage_is_unknown(shop):
    shop.table("model\ngpt-4o\n", {"model": "model"})
    assert (shop.entries[0].usage, shop.entries[0].quality, shop.entries[0].started_at) == (None, "unknown", NOW)


@pytest.mark.parametrize(
    ("columns", "words"),
    [({"input": "in"}, "which column names the model"), ({"model": "m", "inptu": "x"}, "'inptu' is nothing")],
)
def test_a_map_that_makes_no_sense(shop, columns, words):
    with pytest.raises(InputError, match=words):
        shop.table("m\nx\n", columns)


def test_files_that_cannot_be_read(shop):
    with pytest.raises(InputError, match="cannot be read"):
        import_table(shop.folder / "none.csv", COLUMNS, shop.ledger, Catalog.bundled(), NOW)
    with pytest.raises(InputError, match="no export of"):
        shop.export([{"a": 1}])
    with pytest.raises(InputError, match="no export of"):
        shop.export("")


def test_spend_logs_of_litellm(shop):
    usage = {
        "cache_read_input_tokens": 400,
        "cache_creation_input_tokens": 100,
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    row = {
        "request_id": "chatcmpl-9", "call_type": "acompletion", "spend": 0.5, "prompt_tokens": 1000, "completion_tokens": 50,
        "total_tokens": 1050, "startTime": "2026-11-01 10:00:00.000", "model": "claude-sonnet-4-5", "custom_llm_provider": "anthropic",
        "user": "ada", "team_id": "", "metadata": json.dumps({"usage_object": usage}), "cache_hit": "False", "session_id": "s1",
    }  # fmt: skip
    done = shop.export(
        [row, row | {"request_id": "x", "cache_hit": "True"}, row | {"request_id": "y", "metadata": "{"}]
    )
    assert (done.rows, done.written.new, done.stated) == (3, 2, Money.usd(1))
    entry = next(entry for entry in shop.entries if entry.provider_response_id == "chatcmpl-9")
    assert entry.usage == Usage(input=500, cache_read=400, cache_write=100, output=45, reasoning=5)
    assert dict(entry.tags) == {"tool": "litellm", "user": "ada", "session": "s1"}
    assert entry.cost.basis == "list"
    assert done.to_json()["stated"] == {"usd": "1"}


def test_observations_of_langfuse(shop):
    row = {
        "id": "o1", "type": "GENERATION", "startTime": "2026-11-01T10:00:00Z", "model": "gpt-4o", "traceId": "t1", "userId": "ada",
        "usageDetails": {"input": 60, "input_cached_tokens": 40, "output": 30, "output_reasoning_tokens": 20, "total": 150},
        "costDetails": {"total": 0.001},
    }  # fmt: skip
    snake = {
        "id": "o2",
        "type": "GENERATION",
        "start_time": "2026-11-01 10:00:00.123",
        "provided_model_name": "gpt-4o",
        "usage_details": '{"input": 5, "output": 6}',
        "total_cost": "0.002",
    }
    rows = [row, row | {"type": "SPAN", "id": "o3"}, snake, row | {"id": "o4", "usageDetails": {"odd": 1}}]
    done = shop.export("\n".join(map(json.dumps, rows)), "observations.jsonl")
    assert (done.written.new, done.stated) == (2, Money.usd("0.003"))
    assert done.refused == {"rows with the unknown usage detail 'odd'": (1, "row 4")}
    usages = sorted(entry.usage.tokens for entry in shop.entries)
    assert usages == [11, 150]
    assert {entry.run_id for entry in shop.entries} == {"t1", None}


def test_activity_of_openrouter(shop):
    row = {
        "date": "2026-10-01", "model": "anthropic/claude-sonnet-4.5", "model_permaslug": "anthropic/claude-4.5-sonnet-20250929",
        "endpoint_id": "ep-1", "provider_name": "Anthropic", "usage": 1.2345, "byok_usage_inference": 0.0, "requests": 120,
        "prompt_tokens": 300000, "completion_tokens": 22300, "reasoning_tokens": 0,
    }  # fmt: skip
    done = shop.export({"data": [row, row | {"date": "2026-10-02", "reasoning_tokens": 300}]})
    assert (done.written.new, done.stated) == (2, None)
    first, second = shop.entries
    assert (first.provider, first.amount, first.cost.basis) == ("openrouter", Money.usd("1.2345"), "reported")
    assert (first.tags["calls"], first.tags["endpoint"]) == ("120", "Anthropic")
    assert second.usage == Usage(input=300000, output=22000, reasoning=300)
    assert shop.export({"data": [row]}).written.known == 1


def test_an_empty_export_is_none(shop):
    with pytest.raises(InputError):
        shop.export("\n")
    assert Path(shop.folder / "export.json").exists()
