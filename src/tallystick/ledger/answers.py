"""Answers: totals from the smallest rollup that knows them, else from the entries."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, time, timedelta
from typing import Final

import msgspec

from tallystick.core.periods import Period
from tallystick.core.periods import zone as zone_of
from tallystick.ledger import sheets
from tallystick.ledger.groups import CODED, Group, Groups, cell_groups, dimensions, values_of
from tallystick.ledger.pending import batches
from tallystick.ledger.progress import Progress
from tallystick.ledger.query import DIMENSIONS, Query, Totals
from tallystick.ledger.reading import conditions, slices
from tallystick.ledger.rollups import SLOT_US, Calendar, Place, day_of, first_of
from tallystick.ledger.rows import EPOCH, from_us, to_us
from tallystick.ledger.sheets import CELLS, CODES, CUBE, DAY, RUNS, SLOT
from tallystick.ledger.spans import AFTER_ALL, Span, Stretch, days_asked, plan
from tallystick.ledger.sums import FIELDS, MAIN_KINDS, Standing, pack, weigh
from tallystick.ledger.words import CUBE_TAGS, SLOT_AXES, Names

CUBE_AXES: Final = frozenset(("provider", "model", "maker", *[f"tag:{name}" for name in CUBE_TAGS]))
"""What dimensions know."""

QUARTER: Final = timedelta(minutes=15)
_NO_WORD: Final = -(2**62)
_KINDS: Final = (
    "SELECT period, value, kind, quantity FROM sheet_kind WHERE grain = ? AND axis = ? AND period >= ? AND period < ?"
)

_ENTRY_SUM: Final = {
    "calls": "count(*)",
    "refused": "sum(status = 4)",
    "unpriced": "sum(unpriced)",
    "estimated": "sum(quality = 1 AND status <> 4)",
    "lower_bound": "sum(quality = 2 AND status <> 4)",
    "unknown": "sum(quality = 3 AND status <> 4)",
    "owed_micro": "sum(cost_micro * owed)",
    "owed_pico": "sum(cost_pico * owed)",
    "free_micro": "sum(cost_micro * (1 - owed))",
    "free_pico": "sum(cost_pico * (1 - owed))",
    **{kind: f"sum({kind})" for kind in MAIN_KINDS},
}
_ENTRY_SUMS: Final = ", ".join(_ENTRY_SUM[name] for name in FIELDS)

StartOf = Callable[[int, int], datetime | None]
"""Gives the start of the asked period for a grain and a period of it."""


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

    @property
    def days(self) -> Span | None:
        """The days [first, last) in the ledger's zone, if the question is about whole ones."""
        return days_asked((self.query.since, self.query.until), self.per, self.zone)


def axis_of(name: str) -> str:
    """`provider`, ... or `tag:NAME`."""
    return name if name in DIMENSIONS or name.startswith("tag:") else f"tag:{name}"


def answer(
    connection: sqlite3.Connection, names: Names, question: Question, totals: Totals, progress: Progress | None = None
) -> bool:
    """Adds to `totals` what the question is about; False when only reading the entries one by one can tell. The
    caller holds a transaction, so that all parts are of one instant."""
    if question.plain:
        for way in (_from_axis, _from_cube, _from_slots, _from_cells):
            if way(connection, names, question, totals):
                return True
    return question.query.as_of is None and _from_entries(connection, names, question, totals, progress)


def _from_axis(connection: sqlite3.Connection, names: Names, question: Question, totals: Totals) -> bool:
    days, used = question.days, question.used
    name = next(iter(used), "source")
    if days is None or len(used) > 1 or (name == "run" and question.filters):
        return False
    _add_axis(connection, names, question, totals, (name, days))
    if question.axes and not question.filters and (name == "run" or name.startswith("tag:")):
        # Calls without the tag, or outside any run, are not in its sheets: they are all calls less those with it.
        rest = Totals((), question.per)
        _add_axis(connection, names, msgspec.structs.replace(question, axes=()), rest, ("source", days))
        totals.add_difference(rest, (None,))
    _add_recent(connection, names, question, totals, days)
    return True


def _add_axis(
    connection: sqlite3.Connection, names: Names, question: Question, totals: Totals, asked: tuple[str, Span]
) -> None:
    """Adds the sheets of one axis over some days."""
    name, days = asked
    tag = name.startswith("tag:")
    axis = RUNS if name == "run" else _word(connection, f"day:{name[4:]}" if tag else f"day={name}")
    wanted = question.filters.get(name)
    value = None if wanted is None else _word(connection, wanted)
    stretches = [(1, DAY, days)] if axis == RUNS else plan(days, question.per)
    added = _added(connection, axis, stretches, value, starts(totals, question.zone))
    kinds = list(_rare(connection, axis, stretches, value, starts(totals, question.zone)))
    groups: dict[int, Group] = {}
    if question.axes:
        numbers = {number for sums in added.values() for number in sums} | {one[1] for one in kinds}
        groups = {number: (text,) for number, text in values_of(connection, names, axis, numbers).items()}
    for start, sums in added.items():
        if question.axes:
            totals.sums(start).update([(groups[number], total) for number, total in sums.items()])
        else:
            totals.add(start, (), sum(sums.values()))
    for start, number, kind, count in kinds:
        totals.add_rare(start, groups.get(number, ()), kind, count)


def _from_cube(connection: sqlite3.Connection, names: Names, question: Question, totals: Totals) -> bool:
    days = question.days
    if days is None or not question.used.issubset(CUBE_AXES):
        return False
    filters = {column_of(axis): value for axis, value in question.filters.items()}
    groups = dimensions(connection, [column_of(axis) for axis in question.axes], filters)
    _enter(connection, question, totals, (CUBE, days), lambda _: groups.get)
    _add_recent(connection, names, question, totals, days)
    return True


def _from_cells(connection: sqlite3.Connection, names: Names, question: Question, totals: Totals) -> bool:
    days, axes, filters = question.days, question.axes, question.filters
    if days is None or "run" in question.used:
        return False

    def group_of(cells: set[int]) -> Callable[[int], Group | None]:
        groups = Groups(connection, names, (*axes, *filters), {number // CODES for number in cells})
        return cell_groups(groups, len(axes), tuple(filters.values()), cells)

    _enter(connection, question, totals, (CELLS, days), group_of)
    _add_recent(connection, names, question, totals, days)
    return True


def _enter(
    connection: sqlite3.Connection,
    question: Question,
    totals: Totals,
    sheet: tuple[int, Span],
    grouping: Callable[[set[int]], Callable[[int], Group | None]],
) -> None:
    """Adds the sheets of an axis over some days, whose values `grouping` gives groups; None leaves them out."""
    axis, days = sheet
    stretches, start_of = plan(days, question.per), starts(totals, question.zone)
    added = _added(connection, axis, stretches, None, start_of)
    kinds = list(_rare(connection, axis, stretches, None, start_of))
    group_of = grouping({number for sums in added.values() for number in sums} | {one[1] for one in kinds})
    for start, found in added.items():
        sums = totals.sums(start)
        for number, total in found.items():
            group = group_of(number)
            if group is not None:
                sums[group] = sums.get(group, 0) + total
    for start, number, kind, count in kinds:
        group = group_of(number)
        if group is not None:
            totals.add_rare(start, group, kind, count)


def _from_slots(connection: sqlite3.Connection, names: Names, question: Question, totals: Totals) -> bool:
    used, query = question.used, question.query
    if len(used) > 1 or not used.issubset(SLOT_AXES) or query.since is None:
        return False
    first, rest = divmod(to_us(query.since), SLOT_US)
    last, tail = divmod(to_us(query.until), SLOT_US) if query.until is not None else (AFTER_ALL, 0)
    floor = connection.execute("SELECT value FROM state WHERE namespace = 'ledger' AND key = 'slot_floor'").fetchone()
    if rest or tail or first < int(floor[0]):
        return False
    name = next(iter(used), "provider")
    axis, wanted, grouped = _word(connection, f"slot:{name}"), question.filters.get(name), bool(question.axes)
    value = None if wanted is None else _word(connection, wanted)
    span, starts = (first, last), dict[int, datetime | None]()
    group: Group
    parted = False

    def start_of(slot: int) -> datetime | None:
        nonlocal parted
        if slot not in starts:
            begin = _slot_start(slot)
            parted = parted or (totals.split and not totals.whole(begin, QUARTER))
            starts[slot] = totals.start_of(begin)
        return starts[slot]

    for period, body in sheets.read(connection, (SLOT, axis), span, value):
        for number, counters in body.items():
            group = (names.word(number) or None,) if grouped else ()
            totals.add(start_of(period), group, sheets.number(counters))
    for period, number, kind, count in _kinds(connection, (SLOT, axis), span, value):
        group = (names.word(number) or None,) if grouped else ()
        totals.add_rare(start_of(period), group, kind, count)
    _recent(
        connection, names, question, totals, lambda place: (start_of(place[0]),) if first <= place[0] < last else None
    )
    if parted:
        totals.clear()
    return not parted


def _from_entries(
    connection: sqlite3.Connection, names: Names, question: Question, totals: Totals, progress: Progress | None
) -> bool:
    """Adds up the entries, stretch by stretch of time."""
    where, values = conditions(question.query)
    axes = question.axes
    needs = [
        "entry.label" if any(axis in ("provider", "model", "maker") or axis[:4] == "tag:" for axis in axes) else "0",
        "entry.run" if "run" in axes else "0",
        *[f"entry.{name}" if name in axes else "0" for name in ("source", "status", "quality")],
        f"entry.started_us / {SLOT_US} - (entry.started_us % {SLOT_US} < 0)" if totals.split else "0",
    ]
    keys, size = ", ".join(needs), len(needs)
    grouped = ", ".join(str(position + 1) for position in range(size))
    sums = f"SELECT {keys}, {_ENTRY_SUMS} FROM entry WHERE {where}"  # noqa: S608 - constants
    kinds = (
        f"SELECT {keys}, kind, sum(quantity) FROM entry_kind JOIN entry ON entry.seq = entry_kind.seq "  # noqa: S608
        f"WHERE {where}"
    )
    begun: dict[int, datetime | None] = {}
    for limit, bounds in slices(connection, question.query, progress):
        given = (*values, *bounds)
        rows = connection.execute(f"{sums}{limit} GROUP BY {grouped}", given).fetchall()
        for slot in {row[5] for row in rows} - begun.keys():
            if totals.split and not totals.whole(_slot_start(slot), QUARTER):
                return False
            begun[slot] = totals.start_of(_slot_start(slot)) if totals.split else None
        groups = Groups(connection, names, axes, {row[0] for row in rows})
        for row in rows:
            totals.add(begun[row[5]], groups.of(row[0], row[2:5], row[1]), pack(row[size:]))
        for row in connection.execute(f"{kinds}{limit} GROUP BY {grouped}, kind", given):
            totals.add_rare(begun[row[5]], groups.of(row[0], row[2:5], row[1]), row[size], row[size + 1])
    return True


def _added(
    connection: sqlite3.Connection, axis: int, stretches: list[Stretch], value: int | None, start_of: StartOf
) -> dict[datetime | None, dict[int, int]]:
    """The packed sums of an axis over stretches of time, by start of the asked period and by value."""
    found: dict[datetime | None, dict[int, int]] = {}
    number = int.from_bytes
    for sign, grain, span in stretches:
        for period, body in sheets.read(connection, (grain, axis), span, value):
            sums = found.setdefault(start_of(grain, period), {})
            known = sums.get
            if sign > 0:
                for one, counters in body.items():
                    sums[one] = known(one, 0) + number(counters, "little", signed=True)
            else:
                for one, counters in body.items():
                    sums[one] = known(one, 0) - number(counters, "little", signed=True)
    return found


def _rare(
    connection: sqlite3.Connection, axis: int, stretches: list[Stretch], value: int | None, start_of: StartOf
) -> Iterator[tuple[datetime | None, int, str, int]]:
    """The usage of kinds without a counter over stretches of time: start of the asked period, value, kind, count."""
    for sign, grain, span in stretches:
        for period, one, kind, count in _kinds(connection, (grain, axis), span, value):
            yield start_of(grain, period), one, kind, sign * count


def _kinds(
    connection: sqlite3.Connection, place: tuple[int, int], span: Span, value: int | None
) -> Iterator[tuple[int, int, str, int]]:
    statement, more = (_KINDS, ()) if value is None else (f"{_KINDS} AND value = ?", (value,))
    yield from connection.execute(statement, (*place, *span, *more))


def _add_recent(connection: sqlite3.Connection, names: Names, question: Question, totals: Totals, days: Span) -> None:
    """Adds what is pending of some days."""
    start_of = starts(totals, question.zone)

    def when(place: Place) -> tuple[datetime | None] | None:
        return (start_of(DAY, place[1]),) if days[0] <= place[1] < days[1] else None

    _recent(connection, names, question, totals, when)


def _recent(
    connection: sqlite3.Connection,
    names: Names,
    question: Question,
    totals: Totals,
    when: Callable[[Place], tuple[datetime | None] | None],
) -> None:
    """Adds what is pending and passes the filters; `when` gives the start of the asked period for a place in time, None
    where that is not asked about."""
    axes, filters, place = question.axes, question.filters, Calendar(question.zone).place
    wanted, either, by_run = tuple(filters.values()), (*axes, *filters), "run" in question.used
    coded = by_run or not question.used.isdisjoint(CODED)
    moves = [move for _, batch in batches(connection) for move in batch.moves]
    named = Groups(connection, names, either, [move.label for move in moves])
    groups: dict[object, Group | None] = {}
    starts: dict[Place, tuple[datetime | None] | None] = {}
    alike: defaultdict[tuple[datetime | None, Group, int, Standing], list[Standing]] = defaultdict(list)
    for move in moves:
        at = place(move.started_us)
        if at not in starts:
            starts[at] = when(at)
        start = starts[at]
        if start is None:
            continue
        standing, label = move.standing, move.label
        key = (label, standing[0], standing[1], move.source, move.run if by_run else None) if coded else label
        if key not in groups:
            values = named.of(label, (move.source, standing[0], standing[1]), move.run)
            groups[key] = values[: len(axes)] if values[len(axes) :] == wanted else None
        group = groups[key]
        if group is None:
            continue
        alike[start[0], group, move.sign, standing[:4]].append(standing[4:])
        if move.rare is not None:
            for kind, count in move.rare.items():
                totals.add_rare(start[0], group, kind, move.sign * count)
    for (first, group, sign, kept), figures in alike.items():
        whole = figures[0] if len(figures) == 1 else tuple(map(sum, zip(*figures, strict=True)))
        totals.add(first, group, sign * weigh(kept, whole, len(figures)))


def _word(connection: sqlite3.Connection, text: str) -> int:
    """The number of a text; one that nothing has if there is none."""
    row = connection.execute("SELECT id FROM word WHERE text = ?", (text,)).fetchone()
    return _NO_WORD if row is None else row[0]


def column_of(axis: str) -> str:
    """The column of the table of dimensions for an axis."""
    return axis.removeprefix("tag:")


def starts(totals: Totals, zone: str) -> StartOf:
    """Gives the start of the asked period for a day or month of the ledger's zone, computed once for each."""
    known: dict[Span, datetime | None] = {}

    def start(grain: int, period: int) -> datetime | None:
        if (grain, period) not in known:
            instant = _local_start(grain, period, zone)
            known[grain, period] = totals.start_of(instant) if totals.split else None
        return known[grain, period]

    return start


def _local_start(grain: int, period: int, zone: str) -> datetime:
    """An instant that is surely within a day or month of the ledger's zone: its noon, or that of its first day."""
    day = day_of(period) if grain == DAY else first_of(period)
    return datetime.combine(day, time(12), tzinfo=zone_of(zone)).astimezone(UTC)


def _slot_start(slot: int) -> datetime:
    return from_us(slot * SLOT_US) if slot else EPOCH
