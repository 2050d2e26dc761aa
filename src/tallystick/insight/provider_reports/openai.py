"""OpenAI's reports: usage of completions, and costs.

Pages of buckets; `has_more` says that a page follows. Cached and cache-written tokens are inside `input_tokens`, and
`input_uncached_tokens` is the rest; reasoning is inside output. Amounts are numbers in dollars, daily only, read by
their decimal text. Source: OpenAI's API reference, organization usage and costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from tallystick.core.usage import MAX_COUNT
from tallystick.errors import InputError
from tallystick.insight.provider_reports.figures import (
    CALLS,
    TOTAL,
    Figure,
    check_currency,
    count,
    decimal,
    dollars,
    name,
    table,
    tier_name,
)

USAGE: Final = "organization.usage.completions.result"
COSTS: Final = "organization.costs.result"
COUNTED: Final = frozenset({"input", "cache_read", "cache_write", "output", CALLS})
NOT_COMPLETIONS: Final = ("embeddings", "images", "transcriptions", "speech", "moderations")
"""Endings of APIs whose calls a report of completions does not contain."""

_CLASSES: Final = {
    "input": "input",
    "cached input": "cache_read",
    "cache write": "cache_write",
    "cache writes": "cache_write",
    "input cache write": "cache_write",
    "output": "output",
}
_TOOLS: Final = {
    "web search": "fee:web_search",
    "file search": "fee:file_search",
    "code interpreter": "fee:code_interpreter",
}
_TIERS: Final = ("batch", "flex", "priority")

Bucket = tuple[datetime, datetime]


def usage_figures(result: object, bucket: Bucket, where: str) -> tuple[list[Figure], list[str]]:
    """The figures of one result of a usage report, and what in it contradicts itself. Raises InputError."""
    row = table(result, where)

    def tokens(field: str) -> int:
        return count(row.get(field), f"{where}: {field}")

    cached, written = tokens("input_cached_tokens"), tokens("input_cache_write_tokens")
    whole = tokens("input_tokens")
    fresh = tokens("input_uncached_tokens") if "input_uncached_tokens" in row else whole - cached - written
    if fresh < 0:
        raise InputError(f"{where}: {cached + written} cached tokens are more than the {whole} of the input.")
    faults = []
    if "input_tokens" in row and fresh + cached + written != whole:
        faults.append(f"{where}: the parts of the input make {fresh + cached + written:,}, the report says {whole:,}")
    counts = {
        "input": fresh,
        "cache_read": cached,
        "cache_write": written,
        "output": tokens("output_tokens"),
        CALLS: tokens("num_model_requests"),
    }
    common = _common(row, bucket, where)
    model, tier = name(row.get("model"), f"{where}: model"), tier_name(row.get("service_tier"), batch=row.get("batch"))
    figures = [Figure(**common, kind=kind, model=model, quantity=number, tier=tier) for kind, number in counts.items()]
    return figures, faults


def cost_figures(result: object, bucket: Bucket, where: str) -> tuple[list[Figure], list[str]]:
    """The figure of one result of a costs report. Raises InputError."""
    row = table(result, where)
    amount = table(row.get("amount") or {}, f"{where}: amount")
    check_currency(amount.get("currency"), f"{where}: amount")
    kind, model, tier = line_item(name(row.get("line_item"), f"{where}: line_item"))
    figure = Figure(
        **_common(row, bucket, where),
        kind=kind,
        model=model,
        quantity=_quantity(row, where) if kind != TOTAL else None,
        amount=dollars(amount.get("value"), f"{where}: amount"),
        tier=tier,
    )
    return [figure], []


def line_item(text: str | None) -> tuple[str, str | None, str]:
    """The class, model and tier of a line item: `<model>, cached input`, `<model>, batch output`, `web search tool
    calls`. Without a line item the amount is the total; what is not understood is a class of its own."""
    if text is None:
        return TOTAL, None, ""
    model, comma, what = text.rpartition(",")
    words = what.strip().lower()
    if comma and model.strip():
        tier = next((tier for tier in _TIERS if tier in words.split()), "")
        kind = _CLASSES.get(words.replace(tier, "", 1).strip() if tier else words)
        if kind is not None:
            return kind, model.strip(), tier
    lowered = text.lower()
    tool = next((kind for tool, kind in _TOOLS.items() if tool in lowered), None)
    return tool or f"other: {text.strip()}", None, ""


def _quantity(row: Mapping[str, Any], where: str) -> int | None:
    stated = row.get("quantity")
    if stated is None or str(row.get("quantity_unit") or "tokens").lower() not in ("tokens", "calls", "requests"):
        return None
    number = decimal(stated, f"{where}: quantity")
    whole = number == number.to_integral_value() and Decimal(0) <= number < MAX_COUNT
    return int(number) if whole else None


def _common(row: Mapping[str, Any], bucket: Bucket, where: str) -> dict[str, Any]:
    return {
        "start": bucket[0],
        "end": bucket[1],
        "project": name(row.get("project_id"), f"{where}: project_id"),
        "key": name(row.get("api_key_id"), f"{where}: api_key_id"),
    }
