"""Rollups: sums kept beside the entries, so that a total does not read every call.

Per day and month of the ledger's time zone over provider x model x key x team x project; per quarter of an hour over
one dimension at a time, for the last 62 days; per day over each tag and other dimension; per run. Many batches are
added up here first and then written with one row per sum they touch; until then they are pending.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from datetime import date, datetime
from typing import Final

from tallystick.core.periods import zone as zone_of
from tallystick.ledger.rows import Move, from_us
from tallystick.ledger.sql import queries
from tallystick.ledger.sums import MAX_CALLS, Standing, unpack, unpack_positive, weigh
from tallystick.ledger.words import Words

SLOT_US: Final = 900_000_000
"""A quarter of an hour."""

SLOT_DAYS: Final = 62
SLOTS_PER_DAY: Final = 96
DAY: Final = 1
MONTH: Final = 2
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_MAX_PLACES: Final = 20_000
_HEAVY_BITS: Final = 40
_HEAVIEST: Final = 2**13
_ROOM: Final = 2**23

Place = tuple[int, int, int]
"""Where a call belongs in time: quarter of an hour since 1970 UTC; day since 1970 and month (year * 12 + month - 1) in
the ledger's time zone."""

Key = tuple[int, int, int]


class Calendar:
    """Finds the place of an instant, in one time zone."""

    def __init__(self, zone: str) -> None:
        self.zone = zone
        self._info = zone_of(zone)
        self._places: dict[int, Place | None] = {}

    def place(self, us: int) -> Place:
        """The place of an instant."""
        slot = us // SLOT_US
        place = self._places.get(slot)
        return place if place is not None else self._find(us, slot)

    def _find(self, us: int, slot: int) -> Place:
        if len(self._places) > _MAX_PLACES:
            self._places.clear()
        first, last = self._day(slot * SLOT_US), self._day((slot + 1) * SLOT_US - 1)
        if first == last:
            self._places[slot] = place = slot, day_number(first), month_number(first)
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
        self._signed = False
        self._room = _ROOM
        self._calls: dict[tuple[int, Place, int, int, int], int] = {}
        self._runs: dict[int, int] = {}
        self._rare: list[Move] = []

    def add(self, moves: Iterable[Move]) -> None:
        """Adds what calls add, or no longer add: up to MAX_CALLS, or MAX_LIGHT_CALLS of which none is heavy. Afterwards
        `full` must be looked at."""
        groups: dict[tuple[int, Place, int, int, tuple[int, ...]], list[Standing]] = defaultdict(list)
        by_run: dict[tuple[int, int, tuple[int, ...]], list[Standing]] = defaultdict(list)
        place = self._calendar.place
        for move in moves:
            standing, sign, run = move.standing, move.sign, move.run
            alike = standing[:4]
            groups[move.label, place(move.started_us), move.source, sign, alike].append(standing)
            if run is not None:
                by_run[run, sign, alike].append(standing)
            if move.rare is not None:
                self._rare.append(move)
        calls, runs = self._calls, self._runs
        for (label, at, source, sign, (status, quality, *_)), standings in groups.items():
            key = label, at, source, status, quality
            calls[key] = calls.get(key, 0) + self._weight(sign, standings)
        for (run, sign, _), standings in by_run.items():
            runs[run] = runs.get(run, 0) + self._weight(sign, standings)

    def _weight(self, sign: int, standings: list[Standing]) -> int:
        count = len(standings)
        figures: tuple[int, ...] = standings[0][4:]
        if count > 1:
            figures = tuple(map(sum, zip(*[standing[4:] for standing in standings], strict=True)))
        self._room -= (max(*figures, -figures[0]) >> _HEAVY_BITS) + 1
        if sign < 0 or figures[0] < 0:  # the money
            self._signed = True
        return sign * weigh(standings[0], figures, count)

    @property
    def full(self) -> bool:
        """Whether another MAX_CALLS calls could overflow a counter, so that it is time to `write`."""
        return self._room < MAX_CALLS * (_HEAVIEST + 1)

    def tables(self, words: Words) -> tuple[dict[Key, int], dict[Key, int], dict[Key, int]]:
        """The packed sums of the rows of cube, series and run."""
        cube: dict[Key, int] = {}
        series: dict[Key, int] = {}
        for (number, (slot, day, month), source, status, quality), weight in self._calls.items():
            label = words.rows_of(number)
            dimension = label.dimension
            key = DAY, day, dimension
            cube[key] = cube.get(key, 0) + weight
            key = MONTH, month, dimension
            cube[key] = cube.get(key, 0) + weight
            for axis, value in label.days + words.day_rows(source, status, quality):
                key = axis, day, value
                series[key] = series.get(key, 0) + weight
            if slot < self._floor:
                continue
            for axis, value in label.slots + words.slot_rows(source, status):
                key = axis, slot, value
                series[key] = series.get(key, 0) + weight
        return cube, series, {(0, 0, run): weight for run, weight in self._runs.items()}

    def rare_kinds(self, words: Words) -> dict[tuple[str, int, int, int, str], int]:
        """The sums of kinds without a column, by the key of rollup_kind."""
        found: dict[tuple[str, int, int, int, str], int] = {}
        for move in self._rare:
            for key in self._keys(move, words):
                for kind, count in (move.rare or {}).items():
                    found[(*key, kind)] = found.get((*key, kind), 0) + move.sign * count
        return found

    def write(self, connection: sqlite3.Connection, words: Words) -> None:
        """Adds everything to the file, within the caller's transaction, and starts from nothing again."""
        sql = queries()
        take = unpack if self._signed else unpack_positive
        tables = zip(("add_cube", "add_series", "add_run"), self.tables(words), strict=True)
        for name, sums in tables:
            # In the order of the keys, neighbours meet the same page of the file.
            rows = [(*key, *take(total)) for key, total in sorted(sums.items()) if total]
            connection.executemany(sql[name], [row[2:] for row in rows] if name == "add_run" else rows)
        if self._rare:
            kinds = self.rare_kinds(words)
            connection.executemany(sql["add_rollup_kind"], [(*key, count) for key, count in kinds.items() if count])
        self.clear()

    def clear(self) -> None:
        """Starts from nothing again."""
        self._calls.clear()
        self._runs.clear()
        self._rare.clear()
        self._signed = False
        self._room = _ROOM

    def _keys(self, move: Move, words: Words) -> list[tuple[str, int, int, int]]:
        slot, day, month = self._calendar.place(move.started_us)
        label, status, quality = words.rows_of(move.label), move.standing[0], move.standing[1]
        keys = [("cube", DAY, day, label.dimension), ("cube", MONTH, month, label.dimension)]
        keys += [("series", axis, day, value) for axis, value in label.days]
        keys += [("series", axis, day, value) for axis, value in words.day_rows(move.source, status, quality)]
        if slot >= self._floor:
            slots = label.slots + words.slot_rows(move.source, status)
            keys += [("series", axis, slot, value) for axis, value in slots]
        if move.run is not None:
            keys.append(("run", 0, 0, move.run))
        return keys


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


def local_day(instant: datetime, zone: str) -> date:
    """The day of an instant in a time zone."""
    return instant.astimezone(zone_of(zone)).date()
