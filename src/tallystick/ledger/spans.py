"""Spans: which days and months of the ledger's time zone make up the time that a question is about."""

from __future__ import annotations

from calendar import monthrange
from datetime import datetime
from typing import Final

from tallystick.core.periods import Period
from tallystick.ledger.rollups import day_number, day_of, local_day, month_number
from tallystick.ledger.sheets import DAY, MONTH

BEFORE_ALL: Final = -(2**62)
AFTER_ALL: Final = 2**62

Span = tuple[int, int]
"""Days or months from the first to before the last."""

Stretch = tuple[int, int, Span]
"""What to add (sign 1) or to take away (-1): sign, grain, and its span."""


def days_asked(bounds: tuple[datetime | None, datetime | None], per: Period | None, zone: str) -> Span | None:
    """The days between two instants (None: since or for ever), if they are whole days that a split by `per` leaves
    whole."""
    if per is not None and per.unit not in ("lifetime", "day", "week", "month", "year"):
        return None
    if per is not None and per.unit != "lifetime" and per.tz != zone:
        return None
    edges = []
    for instant, default in zip(bounds, (BEFORE_ALL, AFTER_ALL), strict=True):
        if instant is None:
            edges.append(default)
            continue
        if Period("day", zone).bounds(instant)[0] != instant:
            return None
        edges.append(day_number(local_day(instant, zone)))
    return edges[0], edges[1]


def plan(days: Span, per: Period | None) -> list[Stretch]:
    """How to add up some days from the fewest sheets: whole months, and the days at the edges; or, where that is less,
    the whole month at an edge without the days outside."""
    if days[0] >= days[1]:
        return []
    if per is not None and (per.unit not in ("lifetime", "month", "year") or per.anchor != 1):
        return [(1, DAY, days)]
    first, last = BEFORE_ALL, AFTER_ALL
    edges: list[Stretch] = []
    if days[0] != BEFORE_ALL:
        first, begin, end = _month(days[0])
        if days[0] - begin < end - days[0]:
            edges.append((-1, DAY, (begin, days[0])))
        else:
            first += 1
            edges.append((1, DAY, (days[0], end)))
    if days[1] != AFTER_ALL:
        last, begin, end = _month(days[1])
        if end - days[1] < days[1] - begin:
            last += 1
            edges.append((-1, DAY, (days[1], end)))
        else:
            edges.append((1, DAY, (begin, days[1])))
    if first > last or _length(edges) > days[1] - days[0]:
        return [(1, DAY, days)]
    return [(1, MONTH, (first, last)), *[edge for edge in edges if edge[2][0] < edge[2][1]]]


def _length(edges: list[Stretch]) -> int:
    return sum(last - first for _, _, (first, last) in edges)


def _month(day: int) -> tuple[int, int, int]:
    """The month of a day, its first day, and the day after its last."""
    date = day_of(day)
    begin = day_number(date.replace(day=1))
    return month_number(date), begin, begin + monthrange(date.year, date.month)[1]
