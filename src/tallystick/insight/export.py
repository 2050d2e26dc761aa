"""Export: the calls of a ledger as JSON lines, CSV or Parquet, written as they are read.

JSON lines are the entries themselves and can be read back. CSV and Parquet have one column per field and per kind of
usage, for tables and databases.
"""

from __future__ import annotations

import csv
import importlib
import io
import itertools
import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from tallystick.core.money import Money
from tallystick.core.usage import KINDS
from tallystick.errors import ConfigError
from tallystick.ledger.entry import Entry, rfc3339

BATCH: Final = 10_000
"""Calls in one row group of a Parquet file."""

_TIMES: Final = ("started_at", "settled_at", "recorded_at")
_COUNTS: Final = ("http_status", "latency_us", "ttft_us", "request_bytes", "response_bytes")
_PLAIN: Final = (
    "call_id", "attempt_of", *_TIMES, "provider", "api", "requested_model", "model", "maker", "tier", "region",
    "quality", "status", "http_status", "stopped_by", "source", "owed", "run_id", "parent_run", "step",
    "provider_response_id", "trace_id", "span_id", "latency_us", "ttft_us", "request_bytes", "response_bytes",
    "hold_id",
)  # fmt: skip
_MONEY: Final = ("cost_usd", "known_usd", "reported_usd")
COLUMNS: Final = (*_PLAIN, *_MONEY, "cost_basis", *KINDS, "fees", "tags", "usage_raw")
"""The columns of CSV and Parquet. `cost_usd` is empty where a call has no whole price, `known_usd` is what is known of
it; kinds of usage are empty where the usage is unknown; `fees` and `tags` are JSON."""

_RISKY: Final = ("=", "+", "-", "@", "\t", "\r")


def json_lines(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Each entry in its JSON form on a line of its own; `entry_from_json` reads it back."""
    for entry in entries:
        text = json.dumps(entry.to_json(), ensure_ascii=False)
        try:
            yield text.encode() + b"\n"
        except UnicodeEncodeError:
            # Half of a surrogate pair has no UTF-8; as an escape it survives.
            yield json.dumps(entry.to_json()).encode() + b"\n"


def csv_lines(entries: Iterable[Entry]) -> Iterator[bytes]:
    """A header and a line per entry. Text that a spreadsheet would take for a formula gets an apostrophe in front."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")

    def taken() -> bytes:
        text = buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
        return text.encode("utf-8", "backslashreplace")

    writer.writerow(COLUMNS)
    yield taken()
    for entry in entries:
        values = cells(entry)
        writer.writerow([_cell(values[name]) for name in COLUMNS])
        yield taken()


def parquet_file(entries: Iterable[Entry], path: Path) -> int:
    """Writes a Parquet file and returns the number of calls. Raises ConfigError where pyarrow is not installed."""
    arrow, parquet = _arrow()
    schema = _schema(arrow)
    number = 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        rest = iter(entries)
        while batch := [cells(entry) for entry in itertools.islice(rest, BATCH)]:
            number += len(batch)
            columns = [
                arrow.array([_arrow_value(row[name]) for row in batch], type=schema.field(name).type)
                for name in COLUMNS
            ]
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema))
    return number


def cells(entry: Entry) -> dict[str, Any]:
    """An entry's values by column."""
    cost, usage = entry.cost, entry.usage
    row: dict[str, Any] = {name: getattr(entry, name) for name in _PLAIN}
    row["cost_usd"] = entry.amount
    row["known_usd"] = None if cost is None else cost.known if cost.pico is None else cost.amount
    row["reported_usd"] = entry.reported_cost
    row["cost_basis"] = None if cost is None else cost.basis
    for kind in KINDS:
        row[kind] = None if usage is None else usage.get(kind, 0)
    fees = {kind: number for kind, number in (usage or {}).items() if kind not in row}
    row["fees"] = json.dumps(fees) if fees else None
    row["tags"] = json.dumps(dict(entry.tags), ensure_ascii=False) if entry.tags else None
    row["usage_raw"] = entry.usage_raw
    return row


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Money):
        return value.plain()
    if isinstance(value, str):
        return f"'{value}" if value.lstrip().startswith(_RISKY) or value.startswith(_RISKY) else value
    return rfc3339(value) if isinstance(value, datetime) else str(value)


def _arrow_value(value: object) -> object:
    if isinstance(value, Money):
        return value.to_decimal()
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _schema(arrow: Any) -> Any:
    types: dict[str, Any] = dict.fromkeys(COLUMNS, arrow.string())
    types |= dict.fromkeys(_TIMES, arrow.timestamp("us", tz="UTC"))
    types |= dict.fromkeys((*_COUNTS, *KINDS), arrow.int64())
    types |= dict.fromkeys(_MONEY, arrow.decimal128(38, 12))
    types["owed"] = arrow.bool_()
    return arrow.schema([(name, types[name]) for name in COLUMNS])


def _arrow() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError(
            "Parquet needs the package pyarrow, which is not installed.",
            todo="Install it: pip install pyarrow. CSV and JSON lines need nothing.",
        ) from None
