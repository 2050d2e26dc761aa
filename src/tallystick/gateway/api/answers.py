"""Answers about calls: the calls themselves, runs, and what was spent; each made from the ledger when it is asked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

import msgspec

from tallystick.gateway.api.desk import Asked, Desk
from tallystick.gateway.api.http import Problem
from tallystick.insight.api_rows import correction_json
from tallystick.insight.flights import ended_call, flight_json, look_flights
from tallystick.insight.report import report
from tallystick.insight.runtree import run_tree
from tallystick.insight.spend import total_json
from tallystick.ledger.entry import SCHEMA, Entry
from tallystick.ledger.query import Query

Answer = Callable[[Desk, Asked], tuple[int, dict[str, Any]]]
"""Gives the HTTP status and the plain JSON values of an answer. Raises TallyError."""

_TICK: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FARTHEST: Final = 10**16
_MOST_ALIKE: Final = 100_000


def calls(desk: Desk, asked: Asked) -> tuple[int, dict[str, Any]]:
    """A page of calls."""
    limit, newest = asked.get("limit"), asked.get("order") == "newest"
    query = Query(
        since=asked.instant(desk, "since"), until=asked.instant(desk, "until"), provider=asked.get("provider"),
        model=asked.get("model"), maker=asked.get("maker"), tags=asked.tags(), run_id=asked.get("run"),
        status=asked.get("status"), quality=asked.get("quality"), source=asked.get("source"), owed=asked.get("owed"),
        newest_first=newest,
    )  # fmt: skip
    at, seen = _read_cursor(asked.get("cursor"))
    if at is not None and newest:
        query = msgspec.structs.replace(query, until=min(at + _TICK, query.until or at + _TICK))
    elif at is not None:
        query = msgspec.structs.replace(query, since=max(at, query.since or at))
    found = desk.ledger.read(msgspec.structs.replace(query, limit=limit + seen + 1))
    page: list[Entry] = []
    passed = 0
    for entry in found:
        if passed < seen and entry.started_at == at:
            passed += 1
        else:
            page.append(entry)
    more, page = len(page) > limit, page[:limit]
    rows = [entry.to_json() for entry in page]
    return 200, {"schema": SCHEMA, "calls": rows, "cursor": _cursor(page, at, seen) if more else None}


def call(desk: Desk, asked: Asked) -> tuple[int, dict[str, Any]]:
    """One call, settled or in flight."""
    call_id = asked.path["call_id"]
    # Looked at before the ledger: a call that ends in between is then found there.
    flights = look_flights(desk.flights)
    flight = next((one for one in (*flights.alive, *flights.left) if one.call_id == call_id), None)
    ended = None if flight is not None else ended_call(desk.flights, call_id)
    entry = next(desk.ledger.read(Query(call_id=call_id)), ended)
    if entry is None and flight is None:
        raise Problem(404, f"There is no call {call_id[:80]!r}.", todo="GET /tally/v1/calls lists them.")
    in_flight = None
    if entry is None and flight is not None:
        in_flight = {**flight_json(flight, desk.now()), "alive": flight.alive}
    return 200, {
        "schema": SCHEMA,
        "call": None if entry is None else entry.to_json(),
        "in_flight": in_flight,
        "joined": [] if entry is None else [one.to_json() for one in desk.ledger.joined(call_id)],
        "corrections": [] if entry is None else [correction_json(one) for one in desk.ledger.corrections(call_id)],
    }


def runs(desk: Desk, asked: Asked) -> tuple[int, dict[str, Any]]:
    """A page of runs."""
    query = Query(
        since=asked.instant(desk, "since"), until=asked.instant(desk, "until"), model=asked.get("model"),
        tags=asked.tags(),
    )  # fmt: skip
    start, limit = _read_offset(asked.get("cursor")), asked.get("limit")
    rows = desk.ledger.total(query, ("run",))
    named = [row for row in rows if row.group["run"] is not None]
    named.sort(key=lambda row: (-row.cost.pico, -row.not_owed.pico, row.group["run"] or ""))
    page = islice(named, start, start + limit)
    outside = next((row for row in rows if row.group["run"] is None), None)
    return 200, {
        "schema": SCHEMA,
        "runs": [total_json(row) for row in page],
        "outside_any_run": None if outside is None else total_json(outside),
        "cursor": str(start + limit) if len(named) > start + limit else None,
    }


def run(desk: Desk, asked: Asked) -> tuple[int, dict[str, Any]]:
    """One run as a tree."""
    run_id = asked.path["run_id"]
    found = run_tree(desk.ledger, run_id)
    if found is None:
        raise Problem(404, f"There is no run {run_id[:80]!r}.", todo="GET /tally/v1/runs lists them.")
    tree, complete = found
    return 200, {"schema": SCHEMA, "complete": complete, "run": tree.to_json()}


def spend(desk: Desk, asked: Asked) -> tuple[int, dict[str, Any]]:
    """What was spent."""
    found = report(
        desk.ledger,
        per=asked.get("per"),
        by=tuple(asked.get("by") or ()),
        since=asked.instant(desk, "since"),
        until=asked.instant(desk, "until"),
        tz=asked.get("tz"),
        model=asked.get("model"),
        tags=asked.tags(),
        breakdown=asked.get("breakdown"),
        spread=asked.get("spread"),
        catalog=desk.catalog(),
    )
    return 200, {"schema": SCHEMA, **found.to_json()}


def _cursor(page: list[Entry], at: datetime | None, seen: int) -> str:
    """Where the next page begins: the instant of the last call, and how many calls of that instant were given."""
    last = page[-1].started_at
    alike = sum(entry.started_at == last for entry in page) + (seen if last == at else 0)
    return f"{(last - _EPOCH) // _TICK}.{alike}"


def _read_cursor(text: str | None) -> tuple[datetime | None, int]:
    if text is None:
        return None, 0
    micro, _, alike = text.partition(".")
    if not (_whole(micro.removeprefix("-")) and _whole(alike)) or int(alike) > _MOST_ALIKE:
        raise _no_cursor(text)
    if abs(int(micro)) > _FARTHEST:
        raise _no_cursor(text)
    return _EPOCH + _TICK * int(micro), int(alike)


def _read_offset(text: str | None) -> int:
    if text is None:
        return 0
    if not _whole(text):
        raise _no_cursor(text)
    return int(text)


def _whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 17


def _no_cursor(text: str) -> Problem:
    return Problem(400, f"{text[:40]!r} is no cursor.", todo="Give the cursor of the answer before, as it is.")
