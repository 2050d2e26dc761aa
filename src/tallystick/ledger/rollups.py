"""Rollups: sums kept beside the entries, so that a total does not read every call.

Per day and month of the ledger's time zone over provider x model x key x team x project, over each tag and other
dimension, and over cells (what calls share, with source, status and quality), which answer whatever else is asked; per
day over runs; per quarter of an hour over one dimension at a time, for the last 62 days. Many batches are added up here
first and then written into the sheets they touch; until then they are pending.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from datetime import date, datetime
from typing import Final

from tallystick.core.periods import zone as zone_of
from tallystick.ledger import sheets, spreads
from tallystick.ledger.rows import Move, from_us
from tallystick.ledger.sheets import CELLS, CODES, CUBE, DAY, MONTH, RUNS, SLOT, Sheets, cell, parts
from tallystick.ledger.spreads import Spreads
from tallystick.ledger.sql import queries
from tallystick.ledger.sums import MAX_CALLS, Standing, weigh
from tallystick.ledger.words import CUBE_TAGS, Label, Words

SLOT_US: Final = 900_000_000
"""A quarter of an hour."""

SLOT_DAYS: Final = 62
SLOTS_PER_DAY: Final = 96
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_MAX_PLACES: Final = 20_000
_HEAVY_BITS: Final = 40
_HEAVIEST: Final = 2**13
_ROOM: Final = 2**23
_MANY: Final = 100_000
_SHARED: Final = ("day=provider", "day=model", "day=maker", *[f"day:{name}" for name in CUBE_TAGS])

Place = tuple[int, int, int]
"""Where a call belongs in time: quarter of an hour since 1970 UTC; day since 1970 and month (year * 12 + month - 1) in
the ledger's time zone."""


class Calendar:
    """Finds the place of an instant, in one time zone."""

    def __init__(self, zone: str) -> None:
        self.zone = zone
        self._info = zone_of(zone)
        self.places: dict[int, Place] = {}

    def place(self, us: int) -> Place:
        """The place of an instant. Those of whole quarters of an hour are kept in `places`."""
        slot = us // SLOT_US
        place = self.places.get(slot)
        return place if place is not None else self._find(us, slot)

    def _find(self, us: int, slot: int) -> Place:
        if len(self.places) > _MAX_PLACES:
            self.places.clear()
        first, last = self._day(slot * SLOT_US), self._day((slot + 1) * SLOT_US - 1)
        if first == last:
            self.places[slot] = place = slot, day_number(first), month_number(first)
            return place
        # Some zones once had offsets that are no multiple of a quarter, so midnight falls inside one.
        day = self._day(us)
        return slot, day_number(day), month_number(day)

    def _day(self, us: int) -> date:
        return from_us(us).astimezone(self._info).date()


class Sums:
    """What a number of calls add to the rollups, in memory."""

    def __init__(self, calendar: Calendar, slot_floor: int) -> None:
        self._calendar = calendar
        self._floor = slot_floor
        self._room = _ROOM
        self._calls: dict[Place, dict[int, int]] = {}
        self._runs: dict[tuple[int, int], int] = {}
        self._rare: list[Move] = []
        self._spread: defaultdict[int, list[Move]] = defaultdict(list)
        self._kept = 0

    def add(self, moves: Iterable[Move]) -> None:
        """Adds what calls add, or no longer add: up to MAX_CALLS, or MAX_LIGHT_CALLS of which none is heavy. Afterwards
        `full` must be looked at."""
        groups: dict[tuple[Place, int, int, int, int | None, tuple[int, ...]], list[Standing]] = defaultdict(list)
        place, places, spread = self._calendar.place, self._calendar.places, self._spread
        for move in moves:
            standing, started_us = move.standing, move.started_us
            at = places.get(started_us // SLOT_US) or place(started_us)
            groups[at, move.label, move.source, move.sign, move.run, standing[:4]].append(standing)
            if move.rare is not None:
                self._rare.append(move)
            spread[at[1]].append(move)
        self._kept = sum(map(len, spread.values()))
        calls, runs = self._calls, self._runs
        for (at, label, source, sign, run, (status, quality, *_)), standings in groups.items():
            weight = self._weight(sign, standings)
            cells = calls.setdefault(at, {})
            number = cell(label, source, status, quality)
            cells[number] = cells.get(number, 0) + weight
            if run is not None:
                runs[at[1], run] = runs.get((at[1], run), 0) + weight

    def _weight(self, sign: int, standings: list[Standing]) -> int:
        count = len(standings)
        figures: tuple[int, ...] = standings[0][4:]
        if count > 1:
            figures = tuple(map(sum, zip(*[standing[4:] for standing in standings], strict=True)))
        self._room -= (max(*figures, -figures[0]) >> _HEAVY_BITS) + 1
        return sign * weigh(standings[0], figures, count)

    @property
    def full(self) -> bool:
        """Whether another MAX_CALLS calls could overflow a counter, or calls take much memory, so that it is time to
        `write`."""
        return self._room < MAX_CALLS * (_HEAVIEST + 1) or self._kept >= _MANY

    def sheets(self, words: Words) -> Sheets:
        """The packed sums, by sheet and value."""
        found: Sheets = {}
        days: dict[tuple[int, int], list[dict[int, int]]] = defaultdict(list)
        for (slot, day, month), cells in self._calls.items():
            days[day, month].append(cells)
            if slot >= self._floor:
                _Spread(words, cells).slots(found, slot)
        for (day, month), parts_of_day in days.items():
            _Spread(words, merged(parts_of_day)).days(found, day, month)
        for (day, run), weight in self._runs.items():
            runs = found.setdefault((DAY, RUNS, day), {})
            runs[run] = runs.get(run, 0) + weight
        return found

    def spreads(self, words: Words) -> Spreads:
        """What the calls change in sketches."""
        return spreads.changes(self._spread, lambda label: words.rows_of(label).dimension)

    def rare_kinds(self, words: Words) -> dict[tuple[int, int, int, int, str], int]:
        """The sums of kinds without a counter, by the key of sheet_kind."""
        found: dict[tuple[int, int, int, int, str], int] = {}
        for move in self._rare:
            for key in self._keys(move, words):
                for kind, count in (move.rare or {}).items():
                    found[(*key, kind)] = found.get((*key, kind), 0) + move.sign * count
        return found

    def write(self, connection: sqlite3.Connection, words: Words) -> None:
        """Adds everything to the file, within the caller's transaction, and starts from nothing again."""
        sheets.add(connection, self.sheets(words))
        spreads.write(connection, self.spreads(words))
        if self._rare:
            kinds = self.rare_kinds(words)
            rows = [(*key, count) for key, count in kinds.items() if count]
            connection.executemany(queries()["add_sheet_kind"], rows)
        self.clear()

    def clear(self) -> None:
        """Starts from nothing again."""
        self._calls.clear()
        self._runs.clear()
        self._rare.clear()
        self._spread.clear()
        self._kept = 0
        self._room = _ROOM

    def _keys(self, move: Move, words: Words) -> list[tuple[int, int, int, int]]:
        slot, day, month = self._calendar.place(move.started_us)
        label, status, quality = words.rows_of(move.label), move.standing[0], move.standing[1]
        values = [(CUBE, label.dimension), (CELLS, cell(move.label, move.source, status, quality)), *label.days]
        values += words.day_rows(move.source, status, quality)
        keys = [(DAY, axis, day, value) for axis, value in values] + [
            (MONTH, axis, month, value) for axis, value in values
        ]
        if slot >= self._floor:
            slots = label.slots + words.slot_rows(move.source, status)
            keys += [(SLOT, axis, slot, value) for axis, value in slots]
        if move.run is not None:
            keys.append((DAY, RUNS, day, move.run))
        return keys


class _Spread:
    """What the cells of one stretch of time add to the other axes. Most calls have a cell of their own, but few
    dimensions: what depends on the dimension alone is spread from there."""

    def __init__(self, words: Words, cells: dict[int, int]) -> None:
        self._words = words
        self._cells = cells
        labels: dict[int, int] = {}
        codes: dict[int, int] = {}
        for number, weight in cells.items():
            label, code = divmod(number, CODES)
            labels[label] = labels.get(label, 0) + weight
            codes[code] = codes.get(code, 0) + weight
        self._labels = [(words.rows_of(label), weight) for label, weight in labels.items()]
        self._codes = [(parts(code)[1:], weight) for code, weight in codes.items()]
        self._dimensions: dict[int, int] = {}
        self._one_of: dict[int, Label] = {}
        for shared, weight in self._labels:
            dimension = shared.dimension
            self._dimensions[dimension] = self._dimensions.get(dimension, 0) + weight
            self._one_of[dimension] = shared

    def slots(self, found: Sheets, slot: int) -> None:
        """Adds to the sheets of a quarter of an hour."""
        for dimension, weight in self._dimensions.items():
            _enter(found, SLOT, slot, self._one_of[dimension].slots, weight)
        for (source, status, _), weight in self._codes:
            _enter(found, SLOT, slot, self._words.slot_rows(source, status), weight)

    def days(self, found: Sheets, day: int, month: int) -> None:
        """Adds to the sheets of a day and of its month."""
        sheets_of: dict[int, dict[int, int]] = {CELLS: self._cells, CUBE: self._dimensions}
        shared = frozenset(map(self._words.word, _SHARED))
        for label, weight in self._labels:
            for axis, value in label.days:
                if axis not in shared:
                    sums = sheets_of.get(axis)
                    if sums is None:
                        sums = sheets_of[axis] = {}
                    sums[value] = sums.get(value, 0) + weight
        rest: Sheets = {}
        for dimension, weight in self._dimensions.items():
            _enter(rest, DAY, day, [row for row in self._one_of[dimension].days if row[0] in shared], weight)
        for codes, weight in self._codes:
            _enter(rest, DAY, day, self._words.day_rows(*codes), weight)
        sheets_of |= {axis: sums for (_, axis, _), sums in rest.items()}
        for axis, sums in sheets_of.items():
            found[DAY, axis, day] = sums
            whole = found.get((MONTH, axis, month))
            found[MONTH, axis, month] = merged([sums] if whole is None else [whole, sums])


def _enter(found: Sheets, grain: int, period: int, rows: Iterable[tuple[int, int]], weight: int) -> None:
    for axis, value in rows:
        place = grain, axis, period
        sums = found.get(place)
        if sums is None:
            found[place] = {value: weight}
        else:
            sums[value] = sums.get(value, 0) + weight


def merged(many: list[dict[int, int]]) -> dict[int, int]:
    """The sums of several stretches of time."""
    if len(many) == 1:
        return many[0]
    whole = dict(many[0])
    for sums in many[1:]:
        for value, weight in sums.items():
            whole[value] = whole.get(value, 0) + weight
    return whole


def slot_floor(now_us: int) -> int:
    """The first quarter of an hour that still has rows of its own: midnight UTC, 62 days ago."""
    day = now_us // SLOT_US // SLOTS_PER_DAY
    return (day - SLOT_DAYS) * SLOTS_PER_DAY


def day_number(day: date) -> int:
    """Days since 1970."""
    return day.toordinal() - _EPOCH_DAY


def month_number(day: date) -> int:
    """Months since the year 0."""
    return day.year * 12 + day.month - 1


def day_of(number: int) -> date:
    """The day of a day number."""
    return date.fromordinal(number + _EPOCH_DAY)


def first_of(month: int) -> date:
    """The first day of a month number."""
    return date(month // 12, month % 12 + 1, 1)


def local_day(instant: datetime, zone: str) -> date:
    """The day of an instant in a time zone."""
    return instant.astimezone(zone_of(zone)).date()
