"""Spend: what was spent over time, stacked by whatever name, beside the period before; each name leads to its calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tallystick.core.money import Money
from tallystick.dashboard.asked import Asked
from tallystick.dashboard.figures import change, moment
from tallystick.dashboard.reading import ask_first
from tallystick.dashboard.room import Column, Link, Page, Room, View
from tallystick.errors import InputError
from tallystick.insight.board_spend import Board, Row, Stack, board, per_day
from tallystick.insight.spend import known_cost, total_json
from tallystick.ledger.query import Total

BY: Final = ("model", "provider", "team", "user", "agent", "key", "project")
"""What spend is grouped by at a click; any tag beside them by its name."""

ROWS: Final = 40
NOBODY: Final = "(none)"

_THEN: Final = {
    "provider": "model",
    "maker": "model",
    "model": "team",
    "team": "model",
    "key": "model",
    "project": "model",
}
"""What a name is looked into by, once it has been picked: what the ledger keeps sums of together."""

_LONG: Final = {"hour": "%a %-d %b, %H:00", "day": "%a %-d %b", "week": "week of %-d %b", "month": "%B %Y"}
_SHORT: Final = {"hour": "%H:00", "day": "%-d %b", "week": "%-d %b", "month": "%b"}
_SORTS: Final = ("name", "cost", "before", "delta", "calls", "tokens")


def show(room: Room, asked: Asked) -> Page:
    """What was spent."""
    if (question := ask_first(room, asked)) is not None:
        return question
    if asked.get("unit") not in ("", *_LONG):
        raise InputError(f"Time cannot be split by {asked.get('unit')[:40]!r}.", todo=f"One of {', '.join(_LONG)}.")
    if asked.sort.removeprefix("-") not in _SORTS:
        raise InputError(f"Spend cannot be sorted by {asked.sort[:40]!r}.", todo=f"One of {', '.join(_SORTS)}.")
    unit = asked.get("unit") or asked.unit
    before = asked.query_before() if asked.compare else None
    read = asked.get("read") == "1"
    # A page shows a few of the groups, the most expensive first; a program gets all of them.
    whole = asked.format != "html"
    most = asked.page * ROWS if asked.sort == "-cost" and not whole else None
    queries = asked.query(), before
    found = board(room.ledger, queries, asked.group, asked.per(unit), asked.end, read=read, most=most)
    rows = _sorted(found.rows, asked.sort)
    count = found.count or len(rows)
    first = (asked.page - 1) * ROWS
    shown = rows[first : first + ROWS]
    slots = {stack.name: place for place, stack in enumerate(found.stacks, 1) if not stack.rest}
    data = {
        "found": found,
        "unit": unit,
        "units": _units(asked, unit),
        "by": BY,
        "chart": _chart(found, asked, unit),
        "legend": _legend(found, asked),
        "columns": _columns(asked, compared=found.before is not None),
        "rows": [_cells(row, found.total, asked, slots) for row in shown],
        "foot": _foot(found),
        "more": count > first + ROWS,
        "growth": None if found.before is None else change(found.total.cost, found.before.cost),
        "mean": per_day(found.total.cost, asked.since, asked.end),
    }
    more = {
        "by": asked.by,
        "per": unit,
        "total": total_json(found.total),
        "before": None if found.before is None else total_json(found.before),
        "calls_to_read": found.unread,
        "periods": list(found.periods),
        "series": [
            {"name": _name(one, asked.by), "cost": [known_cost(total) for total in one.sums]} for one in found.stacks
        ],
    }
    return Page(template="spend.html", data=data, rows=[_record(row, asked.by) for row in rows if whole], more=more)


def _units(asked: Asked, unit: str) -> list[str]:
    """By what time can be split so that there is something to see, and not too much."""
    if asked.since is None:
        return ["week", "month"]
    days = (asked.end - asked.since).total_seconds() / 86400
    fits = {"hour": days <= 14, "day": 1 < days <= 370, "week": days > 13, "month": days > 45}
    return [name for name, fit in fits.items() if fit or name == unit]


def _sorted(rows: Sequence[Row], sort: str) -> list[Row]:
    def key(row: Row) -> Any:
        name = sort.removeprefix("-")
        if name == "name":
            return row.name or ""
        if name == "delta":
            return change(row.total.cost, row.before.cost) or 0.0
        amounts = {"cost": row.total.cost.pico, "before": row.before.cost.pico, "calls": row.total.calls}
        return amounts.get(name, row.total.usage.tokens)

    if sort == "-cost":
        return list(rows)
    return sorted(rows, key=key, reverse=sort.startswith("-"))


def _columns(asked: Asked, *, compared: bool) -> list[Column]:
    earlier = [
        Column("before", "Before", "cost", sort=True, note="The same length of time, right before"),
        Column("delta", "Change", "delta", sort=True),
    ]
    return [
        Column("name", asked.by.removeprefix("tag.").capitalize(), sort=True),
        Column("cost", "Cost", "cost", sort=True),
        Column("share", "Share", "share"),
        *(earlier if compared else []),
        Column("calls", "Calls", "count", sort=True),
        Column("tokens", "Tokens", "tokens", sort=True),
        Column("each", "Per call", "money"),
    ]


def _cells(row: Row, whole: Total, asked: Asked, slots: dict[str | None, int]) -> dict[str, Any]:
    by = asked.by
    href = "" if row.name is None else asked.url(**{by: row.name, "by": _THEN.get(by, by), "read": None})
    known = known_cost(row.total)
    sent = row.total.calls - row.total.refused
    return {
        "name": Link(NOBODY if row.name is None else row.name, href, slots.get(row.name, 0)),
        "cost": row.total,
        "share": None if known is None or not whole.cost else known.pico / whole.cost.pico,
        "before": row.before if row.before.calls else None,
        "delta": change(row.total.cost, row.before.cost),
        "calls": _calls(row, asked),
        "tokens": row.total.usage.tokens,
        "each": None if known is None or not sent else _mean(row.total, sent),
    }


def _calls(row: Row, asked: Asked) -> Link | int:
    """How many calls, leading to them."""
    calls = row.total.calls
    if row.name is None or not calls:
        return calls
    return Link(f"{calls:,}", asked.to("/calls", **{asked.by: row.name}), note="These calls, one by one")


def _mean(total: Total, sent: int) -> Money:
    return Money(round(total.cost.pico / sent))


def _foot(found: Board) -> dict[str, Any]:
    sent = found.total.calls - found.total.refused
    foot = {
        "name": "total",
        "cost": found.total,
        "calls": found.total.calls,
        "tokens": found.total.usage.tokens,
        "each": _mean(found.total, sent) if sent and known_cost(found.total) is not None else None,
    }
    if found.before is not None:
        foot |= {"before": found.before, "delta": change(found.total.cost, found.before.cost)}
    return foot


def _record(row: Row, by: str) -> dict[str, Any]:
    """A group as a row of CSV and JSON."""
    return {
        by: row.name,
        "calls": row.total.calls,
        "cost": known_cost(row.total),
        "at_least": bool(row.total.unpriced or row.total.lower_bound),
        "not_owed": row.total.not_owed,
        "before": known_cost(row.before) if row.before.calls else None,
        "input_tokens": row.total.usage.input_tokens,
        "output_tokens": row.total.usage.output_tokens,
        "unpriced": row.total.unpriced,
        "estimated": row.total.estimated,
        "lower_bound": row.total.lower_bound,
        "unknown": row.total.unknown,
    }


def _name(stack: Stack, by: str) -> str:
    if stack.rest:
        return f"{stack.rest:,} other" if stack.rest == 1 else f"{stack.rest:,} others"
    return f"no {by.removeprefix('tag.')}" if stack.name is None else stack.name


def _legend(found: Board, asked: Asked) -> list[Link]:
    if found.unread:
        return []
    links = []
    for place, one in enumerate(found.stacks, 1):
        picks = one.name is not None and not one.rest
        href = asked.url(**{asked.by: one.name, "by": _THEN.get(asked.by, asked.by)}) if picks else ""
        links.append(Link(_name(one, asked.by), href, 0 if one.rest else place))
    return links


def _chart(found: Board, asked: Asked, unit: str) -> Any:
    from tallystick.dashboard.svg import Series, bars

    series = [
        Series(
            name="spent" if found.unread else _name(one, asked.by),
            values=tuple([_pico(total) for total in one.sums]),
            slot=0 if one.rest else place,
        )
        for place, one in enumerate(found.stacks, 1)
    ]
    previous = [_pico(total) for total in found.previous]
    return bars(
        series,
        [moment(start, asked.tz, _LONG[unit]) for start in found.periods],
        short=[moment(start, asked.tz, _SHORT[unit]) for start in found.periods],
        title=f"Spend per {unit} by {asked.by}",
        previous=previous if previous and any(previous) else None,
    )


def _pico(total: Total) -> int | None:
    known = known_cost(total)
    return None if known is None else known.pico


VIEW = View(
    path="/spend",
    title="Spend",
    symbol="spend",
    show=show,
    own=frozenset({"unit", "read"}),
    defaults={"by": "model", "sort": "-cost", "period": "30d"},
    live=5,
)
