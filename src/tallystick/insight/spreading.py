"""Spreading: how cost and time are spread over calls, as rows of a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any, Final

from tallystick.core.money import Money
from tallystick.insight.spend import about
from tallystick.insight.words import Column, time_words
from tallystick.ledger.entry import rfc3339
from tallystick.ledger.sketches import ERROR, Percentiles, Spread

PRECISION: Final = f"Each percentile is within {ceil(ERROR * 1000) / 10} % of the figure of an actual call."

_SHOWN: Final = ("p50", "p95")
_MS: Final = 1_000
_SECOND: Final = 1_000_000


def duration_words(us: int) -> str:
    """A time in microseconds, to three digits: `740 us`, `12.3 ms`, `4.56 s`."""
    for unit, name in ((_SECOND, "s"), (_MS, "ms")):
        if us >= unit:
            whole = us / unit
            return f"{whole:,.{max(0, 3 - len(str(int(whole))))}f} {name}"
    return f"{us} us"


def spread_table(
    spreads: Sequence[Spread], by: Sequence[str], split: str | None, tz: str
) -> tuple[list[Column], list[list[str]]]:
    """Headings and cells: median and 95th percentile of cost, latency and time to first token for each group."""
    names = [*([] if split is None else [split]), *by] or ["calls"]
    heads = [f"{measure} {share}" for measure in ("cost", "latency", "first token") for share in _SHOWN]
    columns: list[Column] = [*((name, "left") for name in names), *((head, "right") for head in heads)]
    cells = []
    for row in spreads:
        when = [] if split is None or row.start is None else [time_words(row.start, split, tz)]
        labels = [*when, *(row.group.get(name) or "(none)" for name in by)] or ["all"]
        costs = ["", ""] if row.cost is None else [str(about(getattr(row.cost, share))) for share in _SHOWN]
        times = [
            "" if one is None else duration_words(getattr(one, share))
            for one in (row.latency_us, row.ttft_us)
            for share in _SHOWN
        ]
        cells.append([*labels, *costs, *times])
    return columns, cells


def spread_json(row: Spread) -> dict[str, Any]:
    """A spread as plain JSON values; a measure of which nothing is known is null."""
    return {
        "group": row.group,
        "start": None if row.start is None else rfc3339(row.start),
        "end": None if row.end is None else rfc3339(row.end),
        "cost": _percentiles(row.cost),
        "latency_us": _percentiles(row.latency_us),
        "ttft_us": _percentiles(row.ttft_us),
        "error": float(ERROR),
    }


def _percentiles(one: Percentiles[Money] | Percentiles[int] | None) -> dict[str, Any] | None:
    if one is None:
        return None
    found: dict[str, Any] = {"calls": one.calls}
    for share in ("p50", "p90", "p95", "p99"):
        value = getattr(one, share)
        found[share] = value.to_json() if isinstance(value, Money) else value
    return found
