"""Spread answers: percentiles from the sketches of whole days where they know, else from the entries."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from typing import Final

from tallystick.ledger import spreads
from tallystick.ledger.answers import CUBE_AXES, QUARTER, Question, column_of, starts
from tallystick.ledger.groups import Group, Groups, dimensions
from tallystick.ledger.pending import batches
from tallystick.ledger.percentiles import Gathered
from tallystick.ledger.progress import Progress
from tallystick.ledger.query import Totals
from tallystick.ledger.reading import conditions, slices
from tallystick.ledger.rollups import SLOT_US, Calendar
from tallystick.ledger.rows import Move, from_us, timing
from tallystick.ledger.sheets import DAY
from tallystick.ledger.sketches import MEASURES
from tallystick.ledger.spans import Span
from tallystick.ledger.sums import LIMB, STATUS_CODE
from tallystick.ledger.words import Names

_REFUSED: Final = STATUS_CODE["refused"]
_COLUMNS: Final = "label, run, source, status, quality, started_us, unpriced, cost_micro, cost_pico, body"
_PAGE: Final = 5000


def answer(
    connection: sqlite3.Connection, names: Names, question: Question, found: Gathered, progress: Progress | None = None
) -> bool:
    """Adds to `found` what the question is about; False when only reading the entries one by one can tell. The caller
    holds a transaction, so that all parts are of one instant."""
    if question.query.as_of is not None:
        return False
    days = question.days
    if question.plain and days is not None and question.used <= CUBE_AXES:
        _from_sketches(connection, question, found, days)
        _add_pending(connection, names, question, found, days)
    else:
        _from_entries(connection, names, question, found, progress)
    return True


def _from_sketches(connection: sqlite3.Connection, question: Question, found: Gathered, days: Span) -> None:
    filters = {column_of(axis): value for axis, value in question.filters.items()}
    groups = dimensions(connection, [column_of(axis) for axis in question.axes], filters)
    start_of = starts(found.periods, question.zone)
    for measure in range(len(MEASURES)):
        lists = found.bodies(measure)
        for day, bodies in spreads.read(connection, measure, *days):
            start = start_of(DAY, day)
            for dimension, body in bodies.items():
                group = groups.get(dimension)
                if group is not None:
                    place = start, group
                    kept = lists.get(place)
                    if kept is None:
                        lists[place] = [body]
                    else:
                        kept.append(body)


def _add_pending(connection: sqlite3.Connection, names: Names, question: Question, found: Gathered, days: Span) -> None:
    """Adds what is pending of some days."""
    axes, filters, place = question.axes, question.filters, Calendar(question.zone).place
    moves = [
        (place(move.started_us)[1], move)
        for _, batch in batches(connection)
        for move in batch.moves
        if move.standing[0] != _REFUSED
    ]
    groups, size = Groups(connection, names, (*axes, *filters), {move.label for _, move in moves}), len(axes)
    wanted, start_of = tuple(filters.values()), starts(found.periods, question.zone)
    alike: defaultdict[tuple[int, int, int], list[Move]] = defaultdict(list)
    for day, move in moves:
        if days[0] <= day < days[1]:
            alike[day, move.label, move.sign].append(move)
    lists: defaultdict[tuple[int, datetime | None, Group, int], list[int]] = defaultdict(list)
    for (day, label, sign), some in alike.items():
        group = groups.of(label, (0, 0, 0), None)
        if group[size:] == wanted:
            at = start_of(DAY, day), group[:size], sign
            lists[0, *at] += [move.standing[4] * LIMB + move.standing[5] for move in some if not move.standing[3]]
            lists[1, *at] += [move.latency_us for move in some if move.latency_us is not None]
            lists[2, *at] += [move.ttft_us for move in some if move.ttft_us is not None]
    for (measure, start, group, sign), values in lists.items():
        found.add_all(measure, (start, group), values, sign)


def _from_entries(
    connection: sqlite3.Connection, names: Names, question: Question, found: Gathered, progress: Progress | None
) -> None:
    """Reads the calls that fit, stretch by stretch of time."""
    where, values = conditions(question.query)
    statement = f"SELECT {_COLUMNS} FROM entry WHERE {where} AND status <> {_REFUSED}"  # noqa: S608 - constants
    start_of = _instants(found.periods)
    for limit, bounds in slices(connection, question.query, progress):
        rows = connection.execute(f"{statement}{limit}", (*values, *bounds))
        while page := rows.fetchmany(_PAGE):
            groups = Groups(connection, names, question.axes, {row[0] for row in page})
            for label, run, source, status, quality, started_us, unpriced, micro, pico, body in page:
                place = start_of(started_us), groups.of(label, (source, status, quality), run)
                found.add(place, (None if unpriced else micro * LIMB + pico, *timing(body)))


def _instants(periods: Totals) -> Callable[[int], datetime | None]:
    """Gives the start of the asked period for an instant, computed once for each quarter of an hour."""
    known: dict[int, tuple[datetime | None] | None] = {}

    def start(us: int) -> datetime | None:
        slot = us // SLOT_US
        if slot not in known:
            begin = from_us(slot * SLOT_US)
            known[slot] = (periods.start_of(begin),) if not periods.split or periods.whole(begin, QUARTER) else None
        found = known[slot]
        return periods.start_of(from_us(us)) if found is None else found[0]

    return start
