"""Answers from PostgreSQL: totals from the smallest rollup that knows them, else from the entries.

A rollup has what was folded into it; what has moved since is added in the same statement.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final

import msgspec

from tallystick.core.periods import Period
from tallystick.core.periods import zone as zone_of
from tallystick.ledger.answers import Question
from tallystick.ledger.entry import QUALITIES, SOURCES, STATUSES
from tallystick.ledger.postgres_link import Connection, query
from tallystick.ledger.postgres_reading import conditions, slices
from tallystick.ledger.progress import Progress
from tallystick.ledger.query import Totals
from tallystick.ledger.rollups import SLOT_US, day_number, day_of, local_day, month_number
from tallystick.ledger.rows import from_us, to_us
from tallystick.ledger.sums import FIELDS, MAIN_KINDS, pack
from tallystick.ledger.words import CUBE_TAGS

_CODES: Final = {"status": STATUSES, "quality": QUALITIES, "source": SOURCES}
_PARTS: Final = ("provider", "model", "maker", *[f"tag:{name}" for name in CUBE_TAGS])
_CUBE_AXES: Final = frozenset({*_PARTS, *_CODES})
_QUARTER: Final = timedelta(minutes=15)
_AFTER_ALL: Final = 2**62
_QUARTERS, _DAYS, _MONTHS = 0, 1, 2
_WHOLE: Final = ("day", "week", "month", "year")
_PERIODS: Final = ("quarter", "day", "month")
_FIELDS: Final = ", ".join(FIELDS)
_SUMS: Final = ", ".join([f"sum({name})" for name in FIELDS])
_OF_ENTRIES: Final = {
    "calls": "count(*)",
    "refused": "count(*) FILTER (WHERE status = 4)",
    "unpriced": "sum(unpriced)",
    "estimated": "count(*) FILTER (WHERE quality = 1 AND status <> 4)",
    "lower_bound": "count(*) FILTER (WHERE quality = 2 AND status <> 4)",
    "unknown": "count(*) FILTER (WHERE quality = 3 AND status <> 4)",
    "owed_micro": "sum(cost_micro * owed)",
    "owed_pico": "sum(cost_pico * owed)",
    "free_micro": "sum(cost_micro * (1 - owed))",
    "free_pico": "sum(cost_pico * (1 - owed))",
} | {kind: f"sum(entry.{kind})" for kind in MAIN_KINDS}
_ENTRY_SUMS: Final = ", ".join([_OF_ENTRIES[name] for name in FIELDS])

Clause = tuple[str, list[Any]]
Axis = Callable[[str], Clause]
"""Gives the expression for an axis, and its values."""


def answer(connection: Connection, question: Question, totals: Totals, progress: Progress | None = None) -> bool:
    """Adds to `totals` what the question is about; False when only reading the entries one by one can tell. The
    caller holds a transaction, so that all parts are of one instant."""
    if question.plain:
        for way in (_from_days, _from_runs, _from_quarters):
            if way(connection, question, totals):
                return True
    return question.query.as_of is None and _from_entries(connection, question, totals, progress)


def _from_days(connection: Connection, question: Question, totals: Totals) -> bool:
    days = _whole_days(question)
    if days is None or "run" in question.used:
        return False
    if question.used <= _CUBE_AXES:
        months = _months(question, days)
        grain, span = (_DAYS, days) if months is None else (_MONTHS, months)
        _add_cube(connection, question, totals, (grain, *span))
    else:
        _add_cells(connection, question, totals, days)
    where, values = _where(question, _label_axis)
    group, keys = _groups(question, _label_axis)
    period = "day" if totals.split else "0"
    statement = f"""
        SELECT {period}{group}, kind, sum(quantity) FROM (
            SELECT day, label, source, status, quality, kind, quantity FROM cell_kind WHERE day >= %s AND day < %s
            UNION ALL
            SELECT day, label, source, status, quality, kind, quantity FROM move_kind WHERE day >= %s AND day < %s
        ) AS part JOIN label ON label.id = part.label {where} GROUP BY {_positions(question, 2)}"""  # noqa: S608
    start = _starts(totals, lambda day: _local_start(_DAYS, day, question.zone))
    for number, *names, kind, count in _rows(connection, statement, [*keys, *days, *days, *values]):
        totals.add_rare(start(number), group_of_row(question, names), kind, count)
    return True


def _add_cube(connection: Connection, question: Question, totals: Totals, at: tuple[int, int, int]) -> None:
    """Adds from the cube: a grain, and the periods from the first to before the last."""
    grain, first, last = at
    where, values = _where(question, _dimension_axis)
    group, keys = _groups(question, _dimension_axis)
    period = "part.period" if totals.split else "0"
    moved = _PERIODS[grain]
    statement = f"""
        SELECT {period}{group}, {_SUMS} FROM (
            SELECT period, dimension, source, status, quality, {_FIELDS} FROM cube
            WHERE grain = %s AND period >= %s AND period < %s
            UNION ALL
            SELECT {moved}, dimension, source, status, quality, {_FIELDS} FROM moved
            WHERE {moved} >= %s AND {moved} < %s
        ) AS part JOIN dimension ON dimension.id = part.dimension {where}
        GROUP BY {_positions(question, 1)}"""  # noqa: S608 - constants
    given = [*keys, grain, first, last, first, last, *values]
    _add(totals, question, _rows(connection, statement, given), lambda number: _start(grain, number, question.zone))


def _add_cells(connection: Connection, question: Question, totals: Totals, days: tuple[int, int]) -> None:
    where, values = _where(question, _label_axis)
    group, keys = _groups(question, _label_axis)
    period = "part.day" if totals.split else "0"
    statement = f"""
        SELECT {period}{group}, {_SUMS} FROM (
            SELECT day, label, source, status, quality, {_FIELDS} FROM cell WHERE day >= %s AND day < %s
            UNION ALL
            SELECT day, label, source, status, quality, {_FIELDS} FROM moved WHERE day >= %s AND day < %s
        ) AS part JOIN label ON label.id = part.label {where}
        GROUP BY {_positions(question, 1)}"""  # noqa: S608 - constants
    given = [*keys, *days, *days, *values]
    _add(totals, question, _rows(connection, statement, given), lambda day: _start(_DAYS, day, question.zone))


def _from_runs(connection: Connection, question: Question, totals: Totals) -> bool:
    asked = question.query
    if asked.since is not None or asked.until is not None or totals.split or question.used != {"run"}:
        return False
    one = asked.run_id is not None
    kept, moved = (
        ("run_id = %s", "run = (SELECT id FROM run WHERE run_id = %s)") if one else ("true", "run IS NOT NULL")
    )
    statement = f"""
        SELECT 0, run.run_id, {_SUMS} FROM (
            SELECT id, {_FIELDS} FROM run WHERE {kept} UNION ALL SELECT run, {_FIELDS} FROM moved WHERE {moved}
        ) AS part JOIN (SELECT id, run_id FROM run) AS run ON run.id = part.id GROUP BY 2"""  # noqa: S608 - constants
    for _, run_id, *fields in _rows(connection, statement, [asked.run_id] * 2 if one else []):
        totals.add(None, (run_id,) if question.axes else (), pack(fields))
    _add_entry_kinds(connection, question, totals)
    if not one:
        # Calls of no run: all calls less those of a run.
        rest = Totals((), None)
        _from_days(connection, msgspec.structs.replace(question, axes=()), rest)
        totals.add_difference(rest, (None,))
    return True


def _from_quarters(connection: Connection, question: Question, totals: Totals) -> bool:
    asked = question.query
    if asked.since is None or not question.used <= _CUBE_AXES:
        return False
    first, rest = divmod(to_us(asked.since), SLOT_US)
    last, tail = divmod(to_us(asked.until), SLOT_US) if asked.until is not None else (_AFTER_ALL, 0)
    floor = connection.execute(query("get_state"), ("ledger", "slot_floor")).fetchone()
    if rest or tail or floor is None or first < int(floor[0]):
        return False
    if totals.split and not _aligned(connection, totals, (first, last)):
        return False
    _add_cube(connection, question, totals, (_QUARTERS, first, last))
    _add_entry_kinds(connection, question, totals)
    return True


def _aligned(connection: Connection, totals: Totals, span: tuple[int, int]) -> bool:
    """Whether each quarter of an hour that has calls lies within one of the asked periods."""
    found = _rows(
        connection,
        "SELECT DISTINCT period FROM cube WHERE grain = 0 AND period >= %s AND period < %s "
        "UNION SELECT quarter FROM move WHERE quarter >= %s AND quarter < %s",
        [*span, *span],
    )
    return all(totals.whole(from_us(row[0] * SLOT_US), _QUARTER) for row in found)


def _from_entries(connection: Connection, question: Question, totals: Totals, progress: Progress | None = None) -> bool:
    """Adds up the entries, stretch by stretch of time."""
    where, values = conditions(question.query)
    group, keys = _groups(question, _entry_axis)
    quarter = _quarter_of() if totals.split else "0"
    for limit, bounds in slices(connection, question.query, progress):
        statement = f"""
            SELECT {quarter}{group}, {_ENTRY_SUMS}
            FROM entry JOIN label ON label.id = entry.label
            LEFT JOIN (SELECT id, run_id FROM run) AS run ON run.id = entry.run
            WHERE {where}{limit} GROUP BY {_positions(question, 1)}"""  # noqa: S608 - constants
        rows = _rows(connection, statement, [*keys, *values, *bounds])
        if totals.split and not all(totals.whole(from_us(row[0] * SLOT_US), _QUARTER) for row in rows):
            return False
        _add(totals, question, rows, lambda number: from_us(number * SLOT_US))
    _add_entry_kinds(connection, question, totals)
    return True


def _add_entry_kinds(connection: Connection, question: Question, totals: Totals) -> None:
    """Adds usage of kinds without a counter, from the entries. All quarters lie within one period."""
    where, values = conditions(question.query)
    group, keys = _groups(question, _entry_axis)
    quarter = _quarter_of() if totals.split else "0"
    statement = f"""
        SELECT {quarter}{group}, kind, sum(quantity)
        FROM entry_kind JOIN entry ON entry.started_us = entry_kind.started_us AND entry.seq = entry_kind.seq
        JOIN label ON label.id = entry.label
        LEFT JOIN (SELECT id, run_id FROM run) AS run ON run.id = entry.run
        WHERE {where} GROUP BY {_positions(question, 2)}"""  # noqa: S608 - constants
    start = _starts(totals, lambda number: from_us(number * SLOT_US))
    for number, *names, kind, count in _rows(connection, statement, [*keys, *values]):
        totals.add_rare(start(number), group_of_row(question, names), kind, count)


def _add(totals: Totals, question: Question, rows: list[tuple[Any, ...]], instant: Callable[[int], datetime]) -> None:
    start, size = _starts(totals, instant), 1 + len(question.axes)
    for row in rows:
        totals.add(start(row[0]), group_of_row(question, row[1:size]), pack(row[size:]))


def _whole_days(question: Question) -> tuple[int, int] | None:
    """The days from the first to before the last that the question is about, if it is about whole days of the ledger's
    zone."""
    per = question.per
    if per is not None and per.unit != "lifetime" and (per.unit not in _WHOLE or per.tz != question.zone):
        return None
    edges = []
    for instant, default in ((question.query.since, -_AFTER_ALL), (question.query.until, _AFTER_ALL)):
        if instant is not None and Period("day", question.zone).bounds(instant)[0] != instant:
            return None
        edges.append(default if instant is None else day_number(local_day(instant, question.zone)))
    return edges[0], edges[1]


def _months(question: Question, days: tuple[int, int]) -> tuple[int, int] | None:
    """The months that make up the days, if they do."""
    per = question.per
    if per is not None and (per.unit not in ("lifetime", "month", "year") or per.anchor != 1):
        return None
    edges = []
    for number in days:
        if abs(number) >= _AFTER_ALL:
            edges.append(number)
        elif day_of(number).day == 1:
            edges.append(month_number(day_of(number)))
        else:
            return None
    return edges[0], edges[1]


def _groups(question: Question, axis: Axis) -> Clause:
    """What is selected to group by, each with a comma before it."""
    found = [axis(name) for name in question.axes]
    return "".join([f", {text}" for text, _ in found]), [value for _, values in found for value in values]


def entry_groups(question: Question) -> Clause:
    """What is selected of entries, their labels and runs to group by, each with a comma before it; and its values."""
    return _groups(question, _entry_axis)


def _positions(question: Question, more: int) -> str:
    """The columns to group by: period, axes, and the kind where there are two `more`."""
    return ", ".join([str(number + 1) for number in range(len(question.axes) + more)])


def _where(question: Question, axis: Axis) -> Clause:
    clauses, given = [], []
    for name, wanted in question.filters.items():
        text, values = axis(name)
        clauses.append(f"{text} = %s")
        given += [*values, _CODES[name].index(wanted) if name in _CODES else wanted]
    return f"WHERE {' AND '.join(clauses)}" if clauses else "", given


def _dimension_axis(name: str) -> Clause:
    return (f"part.{name}" if name in _CODES else f"nullif(dimension.{name.removeprefix('tag:')}, '')"), []


def _label_axis(name: str) -> Clause:
    if name in _CODES:
        return f"part.{name}", []
    return _entry_axis(name)


def _entry_axis(name: str) -> Clause:
    if name == "run":
        return "run.run_id", []
    if name in _CODES:
        return f"entry.{name}", []
    return ("label.tags ->> %s", [name[4:]]) if name.startswith("tag:") else (f"label.{name}", [])


def group_of_row(question: Question, values: Any) -> tuple[str | None, ...]:
    """The group of a row, from the values that it was selected by."""
    pairs = zip(question.axes, values, strict=True)
    return tuple([_CODES[axis][value] if axis in _CODES else value for axis, value in pairs])


def _quarter_of() -> str:
    return f"entry.started_us / {SLOT_US} - (entry.started_us %% {SLOT_US} < 0)::integer"


def _rows(connection: Connection, statement: str, values: list[Any]) -> list[tuple[Any, ...]]:
    return connection.execute(statement, values).fetchall()


def _starts(totals: Totals, instant: Callable[[int], datetime]) -> Callable[[int], datetime | None]:
    """Gives the start of the asked period for a rollup's period, computed once for each."""
    known: dict[int, datetime | None] = {}

    def start(number: int) -> datetime | None:
        if number not in known:
            known[number] = totals.start_of(instant(number)) if totals.split else None
        return known[number]

    return start


def _start(grain: int, period: int, zone: str) -> datetime:
    return from_us(period * SLOT_US) if grain == _QUARTERS else _local_start(grain, period, zone)


def _local_start(grain: int, period: int, zone: str) -> datetime:
    """An instant that is surely within a day or month of the ledger's zone: its noon, or that of its first day."""
    day = day_of(period) if grain == _DAYS else day_of(0).replace(year=period // 12, month=period % 12 + 1)
    return datetime.combine(day, time(12), tzinfo=zone_of(zone)).astimezone(UTC)
