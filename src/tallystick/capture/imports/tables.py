"""Tables: the calls of a CSV or JSONL file, by a map from our names to its columns.

    model=model  at=created_at  input=in_tokens  output=out_tokens  id=request_id  cost=usd  tag:team=team

Names: `model` (needed), `at`, `provider`, `id` (the provider's response id), `session`, `cost` (what was billed, in US
dollars), any kind of usage (they must not overlap), `prompt` and `completion` (all tokens in and out; `cached`,
`written` and `reasoning` are then taken as parts of them), and `tag:<name>`. In JSON a column may be a path:
`usage.prompt_tokens`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec

from tallystick.capture.logs.book import AHEAD, EARLIEST
from tallystick.capture.logs.entries import Clerk, clean
from tallystick.capture.logs.files import MAX_DOCUMENT
from tallystick.capture.logs.outcome import Written
from tallystick.capture.logs.writing import write
from tallystick.catalog.catalog import Catalog
from tallystick.core.money import Money
from tallystick.core.usage import Usage, is_kind
from tallystick.errors import InputError, UsageError
from tallystick.ledger.entry import Entry
from tallystick.ledger.ledger import Ledger
from tallystick.wire.logs.lines import LogCall, biller
from tallystick.wire.partition import InputDetails, OutputDetails, dollars, partition
from tallystick.wire.reading import Reading

PARTS: Final = ("prompt", "completion", "cached", "written", "reasoning")
NAMES: Final = ("model", "at", "provider", "id", "session", "cost", *PARTS)
_MAX_FIELD: Final = 1 << 20
_MILLISECONDS: Final = 10**11
_LATEST: Final = 10**14

Row = Mapping[str, Any]


class Found(msgspec.Struct, frozen=True):
    """A row, read: the call and its tags."""

    call: LogCall
    tags: Mapping[str, str] = {}


class Imported(msgspec.Struct):
    """What became of a file's rows. `refused` counts by reason those left out, with the first one's number; `stated` is
    the sum of what the file itself says the calls cost, where that is not the bill."""

    rows: int
    written: Written
    refused: dict[str, tuple[int, str]]
    stated: Money | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "schema": 1,
            "rows": self.rows,
            "new": self.written.new,
            "known": self.written.known,
            "corrected": self.written.corrected,
            "joined": self.written.joined,
            "stated": None if self.stated is None else self.stated.to_json(),
            "refused": [{"why": why, "count": count, "first": first} for why, (count, first) in self.refused.items()],
        }


def import_table(
    path: Path, columns: Mapping[str, str], ledger: Ledger, catalog: Catalog, now: datetime, *, owed: bool = True
) -> Imported:
    """Enters the calls of a CSV or JSONL file. The same file again, or a longer one, enters only what is new. Raises
    InputError for a map that makes no sense or a file that cannot be read; rows are refused one by one."""
    _check(columns)
    return enter(
        rows_of(path), lambda row: read_row(row, columns, now), clerk_of("table", catalog, now, owed=owed), ledger, now
    )


def enter(
    rows: Iterable[Row], read: Callable[[Row], Found | None], clerk: Clerk, ledger: Ledger, now: datetime
) -> Imported:
    """Enters what `read` makes of rows; None is no call. A row that is twice in a file is two calls, unless the call
    has an id of its own."""
    done = Imported(0, Written(), {})
    seen: dict[str, int] = {}

    def entries() -> Iterator[Entry]:
        for number, row in enumerate(rows, 1):
            done.rows = number
            try:
                found = read(row)
                if found is None:
                    continue
                call = found.call
                if call.response_id is None:
                    seen[call.key] = times = seen.get(call.key, 0) + 1
                    call = msgspec.structs.replace(call, key=f"{call.key} {times}")
                entry = clerk.entry(call)
                named = {name: clean(text) for name, text in found.tags.items()}
                yield msgspec.structs.replace(entry, tags=entry.tags.overlay({k: v for k, v in named.items() if v}))
            except InputError as error:
                count, first = done.refused.get(error.what, (0, f"row {number}"))
                done.refused[error.what] = count + 1, first

    done.written = write(entries(), ledger, now)
    return done


def read_row(row: Row, columns: Mapping[str, str], now: datetime) -> Found:
    """One row by a map of columns. Raises InputError, whose `what` is the same for the same kind of mistake."""
    values = {name: _value(row, column) for name, column in columns.items()}
    model = values.get("model")
    if not isinstance(model, str) or not model:
        raise InputError("rows without a model")
    counts = {name: _count(value) for name, value in values.items() if name in PARTS or is_kind(name)}
    identity = values.get("id")
    return Found(
        LogCall(
            key=str(identity or json.dumps(row, sort_keys=True, default=str)),
            at=instant(values.get("at"), now) if "at" in columns else now,
            model=model,
            usage=_reading(counts, cost_of(values.get("cost"))),
            size=0,
            provider=biller(values.get("provider")),
            session=str(values["session"]) if values.get("session") else None,
            response_id=str(identity) if identity else None,
        ),
        {name[4:]: str(value) for name, value in values.items() if name.startswith("tag:") and value not in (None, "")},
    )


def _reading(counts: Mapping[str, int | None], reported: Money | None) -> Reading:
    known = {name: count for name, count in counts.items() if count is not None}
    kinds = {
        kind: count
        for kind, count in known.items()
        if kind not in PARTS or (kind == "reasoning" and "completion" not in known)
    }
    if "prompt" not in known and "completion" not in known:
        return Reading(Usage(kinds) if kinds else None, reported=reported)
    inside = InputDetails(cached_tokens=known.get("cached", 0), cache_write_tokens=known.get("written", 0))
    made = OutputDetails(reasoning_tokens=known.get("reasoning", 0))
    usage, fault = partition(known.get("prompt", 0), known.get("completion", 0), None, inside, made)
    if usage is not None and kinds:
        usage = usage + Usage(kinds)
    return Reading(usage, reported=reported, fault=fault)


def rows_of(path: Path) -> Iterator[Row]:
    """The rows of a file: CSV with a head line, JSON objects line by line, or one JSON array (also under `data`).
    Raises InputError."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            first = file.readline(_MAX_FIELD).lstrip()
            file.seek(0)
            if first.startswith(("{", "[")):
                yield from _json_rows(file, lines=_is_json(first))
                return
            csv.field_size_limit(_MAX_FIELD)
            for row in csv.DictReader(file):
                yield {str(name): value for name, value in row.items() if name is not None}
    except (csv.Error, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}.", money="Nothing was entered.") from None


def _json_rows(file: TextIO, *, lines: bool) -> Iterator[Row]:
    """Objects line by line, or a document over several lines."""
    if lines:
        for line in file:
            if line.strip():
                yield from _objects(line)
        return
    text = file.read(MAX_DOCUMENT)
    if file.read(1):
        raise InputError(f"{file.name} is one JSON document larger than 64 MB.", todo="Write an object per line.")
    yield from _objects(text)


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _objects(text: str) -> Iterator[Row]:
    try:
        value = json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError):
        yield {}
        return
    value = value.get("data", value) if isinstance(value, dict) and isinstance(value.get("data"), list) else value
    for row in value if isinstance(value, list) else [value]:
        yield row if isinstance(row, dict) else {}


def instant(value: object, now: datetime) -> datetime:
    """The time that a cell states: RFC 3339, or seconds or milliseconds since 1970; without a zone it is UTC. Raises
    InputError."""
    try:
        if isinstance(value, int | Decimal) or (isinstance(value, str) and value.isdigit()):
            number = Decimal(value)
            if not 0 <= number < _LATEST:
                raise InputError("rows whose time makes no sense")
            found = datetime.fromtimestamp(float(number / 1000 if number > _MILLISECONDS else number), UTC)
        else:
            found = datetime.fromisoformat(str(value).strip().removesuffix(" UTC"))
    except ValueError:
        raise InputError("rows whose time makes no sense") from None
    found = found.replace(tzinfo=UTC) if found.tzinfo is None else found
    if not EARLIEST <= found <= now + AHEAD:
        raise InputError("rows whose time makes no sense")
    return found.astimezone(UTC)


def cost_of(value: object) -> Money | None:
    """An amount of US dollars in a cell; None for an empty one. Raises InputError."""
    if value in (None, ""):
        return None
    try:
        return dollars(Decimal(str(value).strip().removeprefix("$")))
    except (InvalidOperation, UsageError):
        raise InputError("rows whose cost makes no sense") from None


def _count(value: object) -> int | None:
    if value in (None, ""):
        return None
    try:
        number = Decimal(str(value).replace(",", ""))
    except InvalidOperation:
        raise InputError("rows whose counts make no sense") from None
    if not number.is_finite() or number != number.to_integral_value() or not 0 <= number < 2**53:
        raise InputError("rows whose counts make no sense")
    return int(number)


def _value(row: Row, column: str) -> Any:
    if column in row:
        return row[column]
    found: Any = row
    for name in column.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _check(columns: Mapping[str, str]) -> None:
    for name in columns:
        if name not in NAMES and not is_kind(name) and not (name.startswith("tag:") and len(name) > len("tag:")):
            raise InputError(
                f"{name!r} is nothing that a column can be.",
                todo=f"Names: {', '.join(NAMES)}, a kind of usage such as input or cache_read, or tag:<name>.",
            )
    if "model" not in columns:
        raise InputError("The map does not say which column names the model.", todo="Add model=COLUMN.")


def clerk_of(tool: str, catalog: Catalog, now: datetime, *, owed: bool) -> Clerk:
    """Who writes the entries of an import."""
    return Clerk(
        tool,
        catalog,
        now,
        api="tally.usage",
        biller=None,
        reading_of=lambda call: call.usage,
        owed=owed,
        source="import",
    )
