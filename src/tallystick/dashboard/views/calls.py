"""Calls: a list of them, newest first; and each on a page of its own: its cost line by line, what corrected it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from tallystick.core.cost import Line, describe_rate
from tallystick.core.money import Money
from tallystick.dashboard.asked import Asked
from tallystick.dashboard.room import Missing, Page, Room, View
from tallystick.insight.api_rows import correction_json
from tallystick.insight.board_calls import MOST, SIZE, CallPage, call_page
from tallystick.insight.board_now import Seen, call
from tallystick.insight.flights import age, flight_json
from tallystick.ledger.entry import Entry

PICKS: Final = {
    "status": (
        ("", "All"),
        ("error", "Failed"),
        ("refused", "Refused"),
        ("cut", "Cut off"),
        ("cancelled", "Cancelled"),
    ),
    "quality": (("", "Any usage"), ("estimated", "Estimated"), ("lower_bound", "At least"), ("unknown", "Unknown")),
}
"""What the list is narrowed to at a click."""


def show(room: Room, asked: Asked) -> Page:
    """The calls of the period, newest first."""
    most = SIZE if asked.format == "html" else MOST
    found = call_page(room.ledger, asked.query(), room.now, asked.get("cursor"), most)
    return Page(
        template="calls.html",
        data={"found": found, "picks": PICKS, "first": asked.get("cursor") == "", "earlier": _earlier(asked, found)},
        rows=[call_row(entry) for entry in found.rows],
        more={"cursor": found.cursor},
        # Further pages are of calls that were there already.
        live=0.0 if asked.get("cursor") else None,
    )


def _earlier(asked: Asked, found: CallPage) -> str:
    return "" if found.cursor is None else asked.url(cursor=found.cursor)


def call_row(entry: Entry) -> dict[str, Any]:
    """A call as a row of CSV and JSON."""
    usage = entry.usage
    return {
        "started_at": entry.started_at,
        "call_id": entry.call_id,
        "provider": entry.provider,
        "model": entry.model,
        "run": entry.run_id,
        "step": entry.step,
        "status": entry.status,
        "quality": entry.quality,
        "input_tokens": None if usage is None else usage.input_tokens,
        "output_tokens": None if usage is None else usage.output_tokens,
        "cost": entry.amount,
        "owed": entry.owed,
        "latency_ms": None if entry.latency_us is None else entry.latency_us // 1000,
    }


def item(room: Room, asked: Asked, name: str) -> Page:
    """One call, settled or in flight."""
    del asked
    found = call(room.ledger, room.flights, name)
    if found is None:
        raise Missing(f"There is no call {name[:80]!r}.", todo="The page Calls lists those that are there.")
    entry, flight = found.entry, found.flight
    more: dict[str, Any] = {
        "call": None if entry is None else entry.to_json(),
        "in_flight": None if flight is None else flight_json(flight, room.now),
        "corrections": [correction_json(one) for one in found.corrections],
        "joined": [one.to_json() for one in found.joined],
    }
    lines = () if entry is None or entry.cost is None else entry.cost.lines
    data = {
        "found": found,
        "entry": entry,
        "lines": [(line, describe_rate(line), line.amount) for line in lines],
        "corrections": [(one, _changes(one.fields)) for one in found.corrections],
        "money": Money,
        "facts": [] if entry is None else _facts(entry),
        "flight_age": None if flight is None else age(flight, room.now),
        "flight_from": None if flight is None else datetime.fromtimestamp(flight.started_us / 1_000_000, UTC),
        "unpriced_usage": _unpriced(found),
    }
    return Page(
        template="call.html",
        data=data,
        rows=[_record(line) for line in lines],
        more=more,
        title="Call",
        live=None if entry is None else 0.0,
    )


def _facts(entry: Entry) -> list[tuple[str, str]]:
    """What is known of a call beside its cost; what is not known is left out."""
    found: list[tuple[str, object]] = [
        ("call", entry.call_id),
        ("attempt of", entry.attempt_of),
        ("provider", entry.provider),
        ("model asked for", entry.requested_model if entry.requested_model != entry.model else None),
        ("maker", entry.maker if entry.maker != entry.provider else None),
        ("interface", entry.api),
        ("tier", entry.tier),
        ("region", entry.region),
        ("seen by", entry.source),
        ("HTTP status", entry.http_status),
        ("stopped by", entry.stopped_by),
        ("step", entry.step),
        ("provider's id", entry.provider_response_id),
        ("trace", entry.trace_id),
        ("request", None if entry.request_bytes is None else f"{entry.request_bytes:,} bytes"),
        ("response", None if entry.response_bytes is None else f"{entry.response_bytes:,} bytes"),
        *((name, value) for name, value in entry.context.items()),
    ]
    return [(name, str(value)) for name, value in found if value is not None]


def _unpriced(found: Seen) -> list[tuple[str, int]]:
    """The usage of a call that nothing priced."""
    entry = found.entry
    return [] if entry is None or entry.cost is not None or entry.usage is None else list(entry.usage.items())


def _changes(fields: dict[str, Any]) -> list[tuple[str, str]]:
    """What a correction gives anew, in words."""
    found = []
    for name, value in fields.items():
        told = value.get("amount", value) if name == "cost" and isinstance(value, dict) else value
        told = told.get("usd", told) if isinstance(told, dict) else told
        found.append((name, "unknown" if told is None else str(told)))
    return found


def _record(line: Line) -> dict[str, Any]:
    """A line of a cost as a row of CSV."""
    return {
        "kind": line.kind,
        "quantity": line.quantity,
        "unit": line.unit,
        "rate": line.rate,
        "per": line.per,
        "amount": line.amount,
        "source": line.source,
        "note": line.note or None,
    }


VIEW = View(
    path="/calls",
    title="Calls",
    symbol="calls",
    show=show,
    item=item,
    own=frozenset({"cursor"}),
    live=2.0,
)
