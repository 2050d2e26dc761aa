"""Quality: what we do not know, in calls, and in money where that can be bounded."""

from __future__ import annotations

from typing import Final

from tallystick.dashboard.asked import Asked
from tallystick.dashboard.reading import ask_first
from tallystick.dashboard.room import Column, Link, Page, Room, View
from tallystick.insight.board_quality import Quality, look_quality
from tallystick.ledger.entry import Entry
from tallystick.ledger.query import Total

_MODELS: Final = (
    Column("model", "Model"),
    Column("provider", "Provider"),
    Column("unpriced", "No price", "count"),
    Column("unknown", "Usage unknown", "count"),
    Column("lower_bound", "At least", "count"),
    Column("estimated", "Estimated", "count"),
    Column("calls", "Of calls", "count"),
    Column("tokens", "Tokens", "tokens"),
    Column("cost", "Known cost", "cost"),
)
_LAST: Final = (
    Column("at", "When", "time"),
    Column("model", "Model"),
    Column("quality", "Usage"),
    Column("status", "Ended"),
    Column("by", "Stopped by"),
    Column("cost", "Known cost", "money"),
)


def show(room: Room, asked: Asked) -> Page:
    """What the figures of the period leave out, guess, or count from below."""
    if (question := ask_first(room, asked)) is not None:
        return question
    read = asked.get("read") == "1"
    found = look_quality(room.ledger, asked.query(), room.flights, room.now, read=read)
    return Page(
        template="quality.html",
        data={
            "found": found,
            "share": found.exact / found.sent if found.sent else None,
            "model_columns": _MODELS,
            "models": [_model(asked, row) for row in found.models],
            "last_columns": _LAST,
            "last": [_entry(entry) for entry in found.last],
        },
        rows=[_row(row) for row in found.models],
        more={"total": _row(found.total), "other": _more(found)},
    )


def _model(asked: Asked, row: Total) -> dict[str, object]:
    model, provider = str(row.group["model"]), str(row.group["provider"])
    return {
        **_row(row),
        "model": Link(model, asked.to("/rates", model=model, provider=provider)),
        "tokens": sum(row.usage.values()),
        "cost": row,
    }


def _row(row: Total) -> dict[str, object]:
    return {
        "provider": row.group.get("provider"),
        "model": row.group.get("model"),
        "calls": row.calls,
        "unpriced": row.unpriced,
        "unknown": row.unknown,
        "lower_bound": row.lower_bound,
        "estimated": row.estimated,
        "cost": row.cost,
    }


def _entry(entry: Entry) -> dict[str, object]:
    return {
        "at": entry.started_at,
        "model": Link(entry.model, f"/calls/{entry.call_id}"),
        "quality": entry.quality.replace("_", " "),
        "status": entry.status,
        "by": entry.stopped_by,
        "cost": entry.amount,
    }


def _more(found: Quality) -> dict[str, object]:
    return {
        "repeated": None if found.repeated is None else found.repeated.calls,
        "calls_to_read": found.unread,
        "joined": found.joined,
        "suspect_calls": found.suspect.calls,
        "suspect_most": found.suspect.most,
        "left_behind": found.left_behind,
        "missed": found.missed,
    }


VIEW: Final = View(path="/quality", title="Quality", symbol="quality", show=show, own=frozenset({"read"}))
