"""Answers: totals from the smallest rollup that knows them, else from the entries."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, time, timedelta
from itertools import groupby
from typing import Any, Final

import msgspec

from tallystick.core.periods import Period
from tallystick.core.periods import zone as zone_of
from tallystick.ledger.entry import QUALITIES, SOURCES, STATUSES
from tallystick.ledger.pending import batches
from tallystick.ledger.query import DIMENSIONS, Query, Totals
from tallystick.ledger.reading import conditions
from tallystick.ledger.rollups import DAY, MONTH, SLOT_US, Calendar, Place, day_number, day_of, local_day, month_number
from tallystick.ledger.rows import EPOCH, Move, from_us, to_us
from tallystick.ledger.sums import FIELDS, MAIN_KINDS, pack, weigh
from tallystick.ledger.words import CUBE_TAGS, SLOT_AXES, Names

_SUMS: Final = ", ".join(f"sum({name})" for name in FIELDS)
_CUBE_AXES: Final = ("provider", "model", "maker", *[f"tag:{name}" for name in CUBE_TAGS])
_QUARTER: Final = timedelta(minutes=15)
_BEFORE_ALL: Final = -(2**62)
_AFTER_ALL: Final = 2**62
_CODES: Final = {"status": STATUSES, "quality": QUALITIES, "source": SOURCES}

_ENTRY_SUMS: Final = ", ".join(
    (
        "count(*)", "sum(status = 4)", "sum(unpriced)",
        "sum(quality = 1 AND status <> 4)", "sum(quality = 2 AND status <> 4)", "sum(quality = 3 AND status <> 4)",
        "sum(cost_micro * owed)", "sum(cost_pico * owed)",
        "sum(cost_micro * (1 - owed))", "sum(cost_pico * (1 - owed))",
        *[f"sum({kind})" for kind in MAIN_KINDS],
    )
)  # fmt: skip

Values = tuple[int, int]


class Question(msgspec.Struct, frozen=True):
    """What a total is about: the calls, the groups with their plain names, the period, and the ledger's zone."""

    query: Query
    axes: tuple[str, ...]
    per: Period | None
    zone: str

    @classmethod
    def of(cls, query: Query, by: tuple[str, ...], per: Period | None, zone: str) -> Question:
        """The question, with tags told from dimensions."""
        return cls(query, tuple([axis_of(name) for name in by]), per, zone)

    @property
    def used(self) -> frozenset[str]:
        """All axes that group or filter."""
        return frozenset({*self.axes, *self.filters})

    @property
    def filters(self) -> dict[str, str]:
        """The filters that are axes, with their value."""
        query = self.query
        found = {name: getattr(query, name) for name in DIMENSIONS if name != "run"} | {"run": query.run_id}
        found |= {f"tag:{name}": query.tags[name] for name in query.tags}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def plain(self) -> bool:
        """Whether nothing but axes and time is asked about, so that a rollup could know."""
        query = self.query
        return query.call_id is None and query.owed is None and query.repeated is None and query.as_of is None


def axis_of(name: str) -> str:
    """`provider`, ... or `tag:NAME`."""
    return name if name in DIMENSIONS or name.startswith("tag:") else f"tag:{name}"


def answer(connection: sqlite3.Connection, names: Names, question: Question, totals: Totals) -> bool:
    """Adds to `totals` what the question is about; False when only reading the entries one by one can tell. The
    caller holds a transaction, so that all parts are of one instant."""
    if question.plain:
        for way in (_from_days, _from_cube, _from_runs, _from_slots):
            if way(connection, names, question, totals):
                return True
    return question.query.as_of is None and _from_entries(connection, names, question, totals)


def days_asked(question: Question) -> Values | None:
    """The days [first, last) in the ledger's zone that the question is about, if it is about whole days."""
    per = question.per
    if per is not None and per.unit not in ("lifetime", "day", "week", "month", "year"):
        return None
    if per is not None and per.unit != "lifetime" and per.tz != question.zone:
        return None
    edges = []
    for instant, default in ((question.query.since, _BEFORE_ALL), (question.query.until, _AFTER_ALL)):
        if instant is None:
            edges.append(default)
            continue
        day = local_day(instant, question.zone)
        if Period("day", question.zone).bounds(instant)[0] != instant:
            return None
        edges.append(day_number(day))
    return edges[0], edges[1]


def _months(question: Question, days: Values) -> Values | None:
    """The months that make up the days, if they do."""
    per = question.per
    if per is not None and (per.unit not in ("lifetime", "month", "year") or per.anchor != 1):
        return None
    edges = []
    for number in days:
        if number in (_BEFORE_ALL, _AFTER_ALL):
            edges.append(number)
        elif day_of(number).day == 1:
            edges.append(month_number(day_of(number)))
        else:
            return None
    return edges[0], edges[1]


def _from_cube(connection: sqlite3.Connection, known: Names, question: Question, totals: Totals) -> bool:
    days = days_asked(question)
    if days is None or not question.used.issubset(_CUBE_AXES):
        return False
    months = _months(question, days)
    grain, (first, last) = (DAY, days) if months is None else (MONTH, months)
    where = "grain = ? AND period >= ? AND period < ?"
    values: list[Any] = [grain, first, last]
    kind_values: list[Any] = [grain, first, last]
    kind_where = "rollup = 'cube' AND a = ? AND b >= ? AND b < ?"
    names = [_column(axis) for axis in question.axes]
    clauses = [f"{_column(axis)} = ?" for axis in question.filters]
    inner = " AND ".join(clauses)
    if clauses:
        where += f" AND dimension IN (SELECT id FROM dimension WHERE {inner})"  # noqa: S608 - names of columns
        kind_where += f" AND c IN (SELECT id FROM dimension WHERE {inner})"  # noqa: S608 - names of columns
        values += question.filters.values()
        kind_values += question.filters.values()
    dimensions = _dimensions(connection, names)
    start = _starts(totals, lambda period: _local_start(grain, period, question.zone))
    period = "period" if question.per is not None else "0"
    for number, dimension, *fields in connection.execute(
        f"SELECT {period}, dimension, {_SUMS} FROM cube WHERE {where} GROUP BY 1, 2",  # noqa: S608 - constants
        values,
    ):
        totals.add(start(number), dimensions(dimension), pack(fields))
    for number, dimension, kind, count in connection.execute(
        f"SELECT b, c, kind, quantity FROM rollup_kind WHERE {kind_where}",  # noqa: S608 - constants
        kind_values,
    ):
        totals.add_rare(start(number), dimensions(dimension), kind, count)
    part = 1 if grain == DAY else 2
    for place, group, move in _recent(connection, known, question):
        if first <= place[part] < last:
            _add_move(totals, start(place[part]), group, move)
    return True


def _from_days(connection: sqlite3.Connection, names: Names, question: Question, totals: Totals) -> bool:
    days, used = days_asked(question), question.used
    axis = next(iter(used), "source")
    if days is None or len(used) > 1 or axis == "run":
        return False
    tag = axis.startswith("tag:")
    word = f"day:{axis.removeprefix('tag:')}" if tag else f"day={axis}"
    start = _starts(totals, lambda day: _local_start(DAY, day, question.zone))
    whole = msgspec.structs.replace(question, per=None)
    for span in _spans(connection, days, start) if totals.split else [days]:
        for _, value, total, kinds in _series(connection, names, whole, word, span):
            group = (value or None,) if question.axes else ()
            totals.add(start(span[0]), group, total)
            for kind, count in kinds.items():
                totals.add_rare(start(span[0]), group, kind, count)
    for place, recent, move in _recent(connection, names, question):
        if days[0] <= place[1] < days[1] and not (tag and recent == (None,)):
            _add_move(totals, start(place[1]), recent, move)
    if tag and question.axes:
        # Calls without the tag have no row: they are all calls less those with it.
        rest = Totals((), question.per)
        _from_days(connection, names, msgspec.structs.replace(question, axes=()), rest)
        totals.add_difference(rest, (None,))
    return True


def _spans(
    connection: sqlite3.Connection, days: Values, start: Callable[[int], datetime | None]
) -> Iterator[tuple[int, int]]:
    """The days that have calls, as stretches [first, last) of one period each."""
    found = connection.execute(
        "SELECT DISTINCT period FROM series WHERE axis = (SELECT id FROM word WHERE text = 'day=source') "
        "AND period >= ? AND period < ? ORDER BY period",
        days,
    )
    for _, stretch in groupby([row[0] for row in found], key=start):
        numbers = list(stretch)
        yield numbers[0], numbers[-1] + 1


def _from_slots(connection: sqlite3.Connection, names: Names, question: Question, totals: Totals) -> bool:
    used, query = question.used, question.query
    if len(used) > 1 or not used.issubset(SLOT_AXES) or query.since is None:
        return False
    first, rest = divmod(to_us(query.since), SLOT_US)
    last, tail = divmod(to_us(query.until), SLOT_US) if query.until is not None else (_AFTER_ALL, 0)
    floor = connection.execute("SELECT value FROM state WHERE namespace = 'ledger' AND key = 'slot_floor'").fetchone()
    if rest or tail or first < int(floor[0]):
        return False
    axis = next(iter(used), "provider")
    rows = list(_series(connection, names, question, f"slot:{axis}", (first, last)))
    recent = [one for one in _recent(connection, names, question) if first <= one[0][0] < last]
    slots = {period for period, *_ in rows} | {place[0] for place, *_ in recent}
    if question.per is not None and not all(totals.whole(_slot_start(slot), _QUARTER) for slot in slots):
        return False
    start = _starts(totals, _slot_start)
    for period, value, total, kinds in rows:
        group = (value or None,) if question.axes else ()
        totals.add(start(period), group, total)
        for kind, count in kinds.items():
            totals.add_rare(start(period), group, kind, count)
    for place, pending, move in recent:
        _add_move(totals, start(place[0]), pending, move)
    return True


def _from_runs(connection: sqlite3.Connection, names: Names, question: Question, totals: Totals) -> bool:
    query = question.query
    timeless = query.since is None and query.until is None and question.per is None
    if not timeless or question.used != {"run"}:
        return False
    one = query.run_id
    where, values = ("WHERE run_id = ?", (one,)) if one is not None else ("", ())
    by_number: dict[int, str] = {}
    for number, run_id, *fields in connection.execute(f"SELECT * FROM run {where}", values):  # noqa: S608 - constants
        by_number[number] = run_id
        totals.add(None, (run_id,) if question.axes else (), pack(fields))
    for number, kind, count in connection.execute(
        "SELECT c, kind, quantity FROM rollup_kind WHERE rollup = 'run' AND a = 0 AND b = 0"
    ):
        if number in by_number:
            totals.add_rare(None, (by_number[number],) if question.axes else (), kind, count)
    for _, group, move in _recent(connection, names, question):
        if move.run is not None:
            _add_move(totals, None, group, move)
    if one is None:
        rest = Totals((), None)
        _from_days(connection, names, msgspec.structs.replace(question, axes=()), rest)
        totals.add_difference(rest, (None,))
    return True


def _from_entries(connection: sqlite3.Connection, names: Names, question: Question, totals: Totals) -> bool:
    where, values = conditions(question.query)
    axes = question.axes
    needs = [
        "entry.label" if any(axis in ("provider", "model", "maker") or axis[:4] == "tag:" for axis in axes) else "0",
        "entry.run" if "run" in axes else "0",
        *[f"entry.{name}" if name in axes else "0" for name in _CODES],
        f"entry.started_us / {SLOT_US} - (entry.started_us % {SLOT_US} < 0)" if question.per is not None else "0",
    ]
    keys, size = ", ".join(needs), len(needs)
    groups = ", ".join(str(position + 1) for position in range(size))
    rows = connection.execute(
        f"SELECT {keys}, {_ENTRY_SUMS} FROM entry WHERE {where} GROUP BY {groups}",  # noqa: S608 - constants
        values,
    ).fetchall()
    if question.per is not None and not all(
        totals.whole(_slot_start(slot), _QUARTER) for slot in {row[5] for row in rows}
    ):
        return False
    start = _starts(totals, _slot_start)
    for row in rows:
        totals.add(start(row[5]), _group(axes, row, names), pack(row[size:]))
    kinds = connection.execute(
        f"SELECT {keys}, kind, sum(quantity) FROM entry_kind JOIN entry ON entry.seq = entry_kind.seq "  # noqa: S608
        f"WHERE {where} GROUP BY {groups}, kind",
        values,
    )
    for row in kinds:
        totals.add_rare(start(row[5]), _group(axes, row, names), row[size], row[size + 1])
    return True


def _recent(
    connection: sqlite3.Connection, names: Names, question: Question
) -> Iterator[tuple[Place, tuple[str | None, ...], Move]]:
    """What is pending and passes the filters: its place in time, its group, and what it adds."""
    calendar, axes, filters = Calendar(question.zone), question.axes, question.filters
    wanted, either = tuple(filters.values()), (*axes, *filters)
    groups: dict[tuple[int, int, int, int, int | None], tuple[str | None, ...] | None] = {}
    for _, added in batches(connection):
        for move in added.moves:
            status, quality = move.standing[:2]
            key = move.label, status, quality, move.source, move.run
            if key not in groups:
                values = _group(either, (move.label, move.run, status, quality, move.source), names)
                groups[key] = values[: len(axes)] if values[len(axes) :] == wanted else None
            group = groups[key]
            if group is not None:
                yield calendar.place(move.started_us), group, move


def _add_move(totals: Totals, start: datetime | None, group: tuple[str | None, ...], move: Move) -> None:
    totals.add(start, group, move.sign * weigh(move.standing))
    for kind, count in (move.rare or {}).items():
        totals.add_rare(start, group, kind, move.sign * count)


def _group(axes: tuple[str, ...], row: tuple[Any, ...], names: Names) -> tuple[str | None, ...]:
    label, run, status, quality, source = row[:5]
    codes = {"status": status, "quality": quality, "source": source}
    found: list[str | None] = []
    for axis in axes:
        if axis == "run":
            found.append(names.run(run))
        elif axis in codes:
            found.append(_CODES[axis][codes[axis]])
        elif axis.startswith("tag:"):
            found.append(names.label(label)[2].get(axis[4:]))
        else:
            found.append(getattr(names.label(label)[0], axis))
    return tuple(found)


def _series(
    connection: sqlite3.Connection, names: Names, question: Question, axis: str, span: Values
) -> Iterator[tuple[int, str, int, dict[str, int]]]:
    """The sums of an axis by period and value: period, value, packed counters, kinds without a counter."""
    where = "axis = (SELECT id FROM word WHERE text = ?) AND period >= ? AND period < ?"
    kind_where = "rollup = 'series' AND a = (SELECT id FROM word WHERE text = ?) AND b >= ? AND b < ?"
    values: list[Any] = [axis, *span]
    for value in question.filters.values():
        where += " AND value = (SELECT id FROM word WHERE text = ?)"
        kind_where += " AND c = (SELECT id FROM word WHERE text = ?)"
        values.append(value)
    period, other = ("period", "b") if question.per is not None else ("0", "0")
    kinds: dict[tuple[int, int], dict[str, int]] = {}
    for number, value, kind, count in connection.execute(
        f"SELECT {other}, c, kind, sum(quantity) FROM rollup_kind WHERE {kind_where} GROUP BY 1, 2, 3",  # noqa: S608
        values,
    ):
        kinds.setdefault((number, value), {})[kind] = count
    for number, value, *fields in connection.execute(
        f"SELECT {period}, value, {_SUMS} FROM series WHERE {where} GROUP BY 1, 2",  # noqa: S608 - constants
        values,
    ):
        yield number, names.word(value), pack(fields), kinds.get((number, value), {})


def _dimensions(connection: sqlite3.Connection, columns: list[str]) -> Callable[[int], tuple[str | None, ...]]:
    """Gives the group of a dimension's number."""
    if not columns:
        return lambda _: ()
    rows = connection.execute(f"SELECT id, {', '.join(columns)} FROM dimension")  # noqa: S608 - names of columns
    found = {number: tuple([part or None for part in parts]) for number, *parts in rows}
    return found.__getitem__


def _column(axis: str) -> str:
    return axis.removeprefix("tag:")


def _starts(totals: Totals, instant: Callable[[int], datetime]) -> Callable[[int], datetime | None]:
    """Gives the start of the asked period for a rollup's period, computed once for each."""
    known: dict[int, datetime | None] = {}

    def start(number: int) -> datetime | None:
        if number not in known:
            known[number] = totals.start_of(instant(number)) if totals.split else None
        return known[number]

    return start


def _local_start(grain: int, period: int, zone: str) -> datetime:
    """An instant that is surely within a day or month of the ledger's zone: its noon, or that of its first day."""
    day = day_of(period) if grain == DAY else day_of(0).replace(year=period // 12, month=period % 12 + 1)
    return datetime.combine(day, time(12), tzinfo=zone_of(zone)).astimezone(UTC)


def _slot_start(slot: int) -> datetime:
    return from_us(slot * SLOT_US) if slot else EPOCH
