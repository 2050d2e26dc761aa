"""OpenRouter's reports: activity (a day by model), as JSON or CSV, and single generations.

Cached tokens are inside the prompt, reasoning inside the completion. `usage` is what OpenRouter charges in dollars;
with a key of one's own the upstream provider bills the rest (`byok_usage_inference`). Native token counts are those
that are billed. Source: OpenRouter's API reference, activity and generation; the columns of the activity page's CSV.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from tallystick.core.usage import Usage
from tallystick.errors import InputError
from tallystick.insight.provider_reports.figures import CALLS, TOTAL, Figure, count, dollars, instant, name, shown

COUNTED: Final = frozenset({"prompt", "completion", CALLS})
COUNTED_CALL: Final = frozenset({"prompt", "completion"})
_COLUMNS: Final = {
    "generation_id": "id",
    "cost_total": "total_cost",
    "tokens_prompt": "native_tokens_prompt",
    "tokens_completion": "native_tokens_completion",
    "tokens_reasoning": "native_tokens_reasoning",
    "tokens_cached": "native_tokens_cached",
}
"""Columns of the CSV of single generations, and the fields of the generation API that say the same."""


def is_activity(row: Mapping[str, Any]) -> bool:
    """Whether a row is one of an activity report."""
    return "date" in row and "usage" in row and "model" in row


def is_generation(row: Mapping[str, Any]) -> bool:
    """Whether a row is a generation, from the API or from the CSV of generations."""
    return ("id" in row or "generation_id" in row) and ("total_cost" in row or "cost_total" in row)


def activity_figures(row: Mapping[str, Any], zone: ZoneInfo, where: str) -> list[Figure]:
    """The figures of a day and model. Raises InputError."""
    stated = str(row["date"]).strip()
    try:
        day = date.fromisoformat(stated[:10])
        start = datetime.combine(day, time(), zone).astimezone(UTC)
        end = datetime.combine(day + timedelta(days=1), time(), zone).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InputError(f"{where}: date must be a day such as 2026-10-01, not {shown(row['date'])}.") from None
    model = name(row["model"], f"{where}: model")
    figures = {
        "prompt": count(row.get("prompt_tokens"), f"{where}: prompt_tokens"),
        "completion": count(row.get("completion_tokens"), f"{where}: completion_tokens"),
        CALLS: count(row.get("requests"), f"{where}: requests"),
    }
    money = dollars(row["usage"], f"{where}: usage")
    return [
        *(Figure(start=start, end=end, kind=kind, model=model, quantity=number) for kind, number in figures.items()),
        Figure(start=start, end=end, kind=TOTAL, model=model, amount=money),
    ]


def generation_figures(row: Mapping[str, Any], where: str) -> list[Figure]:
    """The figures of one call. Raises InputError."""
    stated = {_COLUMNS.get(field, field): value for field, value in row.items()}
    identity = name(stated.get("id"), f"{where}: id")
    if identity is None:
        raise InputError(f"{where} has no id, so it is nobody's call.")
    start = instant(stated.get("created_at"), f"{where}: created_at")
    model = name(stated.get("model") or stated.get("model_permaslug"), f"{where}: model")
    counts = {
        field: count(stated.get(f"native_tokens_{field}"), f"{where}: native_tokens_{field}")
        for field in ("prompt", "cached", "completion", "reasoning")
    }
    if counts["cached"] > counts["prompt"] or counts["reasoning"] > counts["completion"]:
        raise InputError(f"{where}: the parts of its tokens are more than the whole.")
    usage = Usage(
        input=counts["prompt"] - counts["cached"],
        cache_read=counts["cached"],
        output=counts["completion"] - counts["reasoning"],
        reasoning=counts["reasoning"],
    )
    amount = dollars(stated.get("total_cost"), f"{where}: total_cost")
    end = start + timedelta(microseconds=1)
    common: dict[str, Any] = {"start": start, "end": end, "model": model, "call": identity}
    return [
        *(Figure(**common, kind=kind, quantity=counts[kind]) for kind in ("prompt", "completion")),
        Figure(**common, kind=TOTAL, amount=amount, usage=usage),
    ]
