"""Exports of LiteLLM (spend logs), Langfuse (observations) and OpenRouter (activity), told apart by their columns.

What LiteLLM and Langfuse say a call cost is their own reckoning, not a bill: calls are priced anew, and their sum is
shown beside ours. What OpenRouter says is the bill.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any, Final

import msgspec

from tallystick.capture.imports.tables import Found, Imported, Row, clerk_of, cost_of, enter, read_row, rows_of
from tallystick.catalog.catalog import Catalog
from tallystick.core.money import Money
from tallystick.errors import InputError
from tallystick.ledger.ledger import Ledger

_LITELLM: Final = {
    "model": "model", "provider": "custom_llm_provider", "at": "startTime", "id": "request_id",
    "prompt": "prompt_tokens", "completion": "completion_tokens", "session": "session_id",
    "tag:user": "user", "tag:team": "team_id", "tag:end_user": "end_user",
}  # fmt: skip
_LANGFUSE_KINDS: Final = {
    "input": "input", "output": "output", "input_cached_tokens": "cache_read", "cache_read_input_tokens": "cache_read",
    "input_cache_read": "cache_read", "cache_creation_input_tokens": "cache_write",
    "input_cache_creation": "cache_write",
    "output_reasoning_tokens": "reasoning", "output_reasoning": "reasoning",
    "input_audio_tokens": "audio_input", "output_audio_tokens": "audio_output",
}  # fmt: skip
_OPENROUTER: Final = {
    "model": "model", "at": "date", "prompt": "prompt_tokens", "completion": "completion_tokens", "cost": "usage",
    "tag:endpoint": "provider_name", "tag:calls": "requests",
}  # fmt: skip


def import_export(path: Path, ledger: Ledger, catalog: Catalog, now: datetime, *, owed: bool = True) -> Imported:
    """Enters the calls of an export. Raises InputError for a file that is none of those known."""
    rows = rows_of(path)
    first = next(rows, None)
    name, read = _reader(set(first or ()), now)
    stated = _Sum(read)
    clerk = clerk_of(name, catalog, now, owed=owed)
    done = enter(chain([first or {}], rows), stated.read, clerk, ledger, now)
    done.stated = stated.total
    return done


class _Sum:
    """Adds up what the rows say they cost."""

    def __init__(self, read: Callable[[Row], tuple[Found | None, Money | None]]) -> None:
        self._read = read
        self.total: Money | None = None

    def read(self, row: Row) -> Found | None:
        found, cost = self._read(row)
        if cost is not None:
            self.total = cost if self.total is None else Money(self.total.pico + cost.pico)
        return found


def _reader(columns: set[str], now: datetime) -> tuple[str, Callable[[Row], tuple[Found | None, Money | None]]]:
    if {"request_id", "spend", "prompt_tokens"} <= columns:
        return "litellm", lambda row: _litellm(row, now)
    if {"date", "usage", "requests", "prompt_tokens"} <= columns:
        return "openrouter", lambda row: _openrouter(row, now)
    if columns & {"usageDetails", "usage_details"} and columns & {"startTime", "start_time"}:
        return "langfuse", lambda row: _langfuse(row, now)
    raise InputError(
        "This file is no export of LiteLLM's spend logs, Langfuse's observations or OpenRouter's activity.",
        money="Nothing was entered.",
        todo="Name its columns instead: tally scan --csv FILE --map model=... --map input=...",
    )


def _litellm(row: Row, now: datetime) -> tuple[Found | None, Money | None]:
    """A row of LiteLLM_SpendLogs: prompt tokens include cached ones; how many stands in its metadata."""
    if str(row.get("cache_hit", "")).lower() == "true":
        return None, None
    usage = _object(_object(row.get("metadata")).get("usage_object"))
    details, made = _object(usage.get("prompt_tokens_details")), _object(usage.get("completion_tokens_details"))
    extra = {
        "cached": usage.get("cache_read_input_tokens") or details.get("cached_tokens"),
        "written": usage.get("cache_creation_input_tokens"),
        "reasoning": made.get("reasoning_tokens"),
    }
    return read_row({**row, **extra}, {**_LITELLM, **{name: name for name in extra}}, now), cost_of(row.get("spend"))


def _openrouter(row: Row, now: datetime) -> tuple[Found | None, Money | None]:
    """A row of the activity export: one day's calls of one model and endpoint, and the bill for them."""
    plain = {**row, "reasoning": row.get("reasoning_tokens")}
    columns = (
        _OPENROUTER
        if Decimal(str(row.get("reasoning_tokens") or 0)) == 0
        else {**_OPENROUTER, "reasoning": "reasoning"}
    )
    found = read_row(plain, columns, now)
    key = " ".join(str(row.get(name, "")) for name in ("date", "model_permaslug", "model", "endpoint_id"))
    call = msgspec.structs.replace(found.call, key=key, provider="openrouter", quality="exact")
    return Found(call, found.tags), None


def _langfuse(row: Row, now: datetime) -> tuple[Found | None, Money | None]:
    """An observation: only generations are calls. Its usage details are parts that do not overlap, beside a total."""
    kind = str(row.get("type") or "GENERATION").upper()
    if kind != "GENERATION":
        return None, None
    plain = {name: row.get(name) if row.get(name) is not None else row.get(other) for name, other in _SPELLINGS}
    details = _object(plain["usageDetails"])
    counts: dict[str, Any] = {}
    for name, count in details.items():
        ours = _LANGFUSE_KINDS.get(name)
        if ours is None and name != "total":
            raise InputError(f"rows with the unknown usage detail {str(name)[:40]!r}")
        if ours is not None:
            counts[ours] = int(counts.get(ours, 0)) + int(count or 0)
    columns = {"model": "model", "at": "startTime", "session": "traceId", "tag:user": "userId", "tag:name": "name"}
    found = read_row({**plain, **counts}, {**columns, **{name: name for name in counts}}, now)
    call = msgspec.structs.replace(found.call, key=str(plain["id"] or found.call.key))
    costs = _object(plain["costDetails"])
    return Found(call, found.tags), cost_of(costs.get("total") or plain["totalCost"])


_SPELLINGS: Final = (
    ("id", "id"), ("model", "provided_model_name"), ("startTime", "start_time"), ("traceId", "trace_id"),
    ("userId", "user_id"), ("name", "name"), ("usageDetails", "usage_details"), ("costDetails", "cost_details"),
    ("totalCost", "total_cost"),
)  # fmt: skip


def _object(value: object) -> Mapping[str, Any]:
    """A cell that holds an object, or its JSON text; anything else is empty."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, Mapping) else {}
