"""Spreads in PostgreSQL: sketches of cost and time by day and dimension, folded in, read, and asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from tallystick.ledger import spreads
from tallystick.ledger.answers import CUBE_AXES, Question, column_of, starts
from tallystick.ledger.percentiles import Gathered
from tallystick.ledger.postgres_answers import entry_groups, group_of_row
from tallystick.ledger.postgres_link import Connection, query
from tallystick.ledger.postgres_reading import conditions, slices
from tallystick.ledger.progress import Progress
from tallystick.ledger.rows import Move, from_us, timing
from tallystick.ledger.sheets import DAY
from tallystick.ledger.sketches import MEASURES
from tallystick.ledger.spans import Span
from tallystick.ledger.spreads import Spreads, Written
from tallystick.ledger.sums import LIMB

_PAGE: Final = 5000


def fold(connection: Connection, batches: Sequence[int]) -> None:
    """Brings what some batches change into the sketches, within the caller's transaction."""
    changes = _changes(connection.execute(query("spread_moves"), (batches,)).fetchall())
    keys = [(*place, dimension) for place, some in changes.items() for dimension in some]
    if not keys:
        return
    columns = [list(column) for column in zip(*keys, strict=True)]
    written: Written = {}
    for measure, day, dimension, body in connection.execute(query("spread_rows_of"), columns).fetchall():
        written.setdefault((measure, day), {})[dimension] = body
    spreads.change(written, changes)
    bodies = [written[measure, day][dimension] for measure, day, dimension in keys]
    connection.execute(query("put_spread_rows"), [*columns, bodies])


def everything(connection: Connection) -> Written:
    """All sketches, and what is still to be folded in."""
    found: Written = {}
    for measure in range(len(MEASURES)):
        rows = connection.execute(query("spread_rows"), (measure, -(2**31), 2**31 - 1)).fetchall()
        for day, dimension, body in rows:
            found.setdefault((measure, day), {})[dimension] = body
    moves = connection.execute(query("spread_moves_of_days"), (-(2**31), 2**31 - 1)).fetchall()
    spreads.change(found, _changes(moves))
    return found


def answer(connection: Connection, question: Question, found: Gathered, progress: Progress | None = None) -> bool:
    """Adds to `found` what the question is about; False when only reading the entries one by one can tell. The caller
    holds a transaction, so that all parts are of one instant."""
    if question.query.as_of is not None:
        return False
    days = question.days
    if question.plain and days is not None and question.used <= CUBE_AXES:
        _from_sketches(connection, question, found, days)
    else:
        _from_entries(connection, question, found, progress)
    return True


def _from_sketches(connection: Connection, question: Question, found: Gathered, days: Span) -> None:
    columns = [column_of(axis) for axis in question.axes]
    filters = {column_of(axis): value for axis, value in question.filters.items()}
    listed = "".join(f", nullif({column}, '')" for column in columns)
    where = "".join(f" AND {column} = %s" for column in filters)
    rows = connection.execute(f"SELECT id{listed} FROM dimension WHERE true{where}", list(filters.values()))  # noqa: S608
    groups = {number: tuple(values) for number, *values in rows.fetchall()}
    start_of = starts(found.periods, question.zone)
    span = max(days[0], -(2**31)), min(days[1], 2**31 - 1)
    for measure in range(len(MEASURES)):
        lists = found.bodies(measure)
        for day, dimension, body in connection.execute(query("spread_rows"), (measure, *span)).fetchall():
            if dimension in groups:
                lists.setdefault((start_of(DAY, day), groups[dimension]), []).append(body)
    for day, dimension, sign, _, unpriced, micro, pico, *times in connection.execute(
        query("spread_moves_of_days"), span
    ).fetchall():
        if dimension in groups:
            cost = None if unpriced else micro * LIMB + pico
            found.add((start_of(DAY, day), groups[dimension]), (cost, times[0], times[1]), sign)


def _from_entries(connection: Connection, question: Question, found: Gathered, progress: Progress | None) -> None:
    """Reads the calls that fit, stretch by stretch of time."""
    where, values = conditions(question.query)
    group, keys = entry_groups(question)
    periods = found.periods
    for limit, bounds in slices(connection, question.query, progress):
        statement = f"""
            SELECT entry.started_us, entry.unpriced, entry.cost_micro, entry.cost_pico, entry.body{group}
            FROM entry JOIN label ON label.id = entry.label
            LEFT JOIN (SELECT id, run_id FROM run) AS run ON run.id = entry.run
            WHERE {where} AND entry.status <> 4{limit}"""  # noqa: S608 - constants
        with connection.cursor("tallystick_spread") as rows:
            rows.execute(statement, [*keys, *values, *bounds])
            while page := rows.fetchmany(_PAGE):
                for started_us, unpriced, micro, pico, body, *names in page:
                    start = periods.start_of(from_us(started_us)) if periods.split else None
                    cost = None if unpriced else micro * LIMB + pico
                    found.add((start, group_of_row(question, names)), (cost, *timing(body)))


def _changes(rows: Sequence[tuple[Any, ...]]) -> Spreads:
    days: defaultdict[int, list[Move]] = defaultdict(list)
    for day, dimension, sign, status, unpriced, micro, pico, *times in rows:
        standing = status, 0, 0, unpriced, micro, pico
        days[day].append(Move(sign, 0, None, 0, dimension, standing, None, times[0], times[1]))
    return spreads.changes(days, lambda dimension: dimension)
