"""Rollups: sums kept beside the entries, so that a total does not read every call.

Per day and month of the ledger's time zone over provider x model x key x team x project; per quarter of an hour over
one dimension at a time, for the last 62 days; per day and tag; per run. A batch is added up here first and then
written with one row per sum it touches, in the transaction that writes its entries.
"""

from __future__ import annotations

import sqlite3
from datetime import date, datetime
from typing import Final

from tallystick.core.periods import zone as zone_of
from tallystick.ledger.rows import Row, from_us
from tallystick.ledger.sql import queries
from tallystick.ledger.sums import unpack, unpack_positive
from tallystick.ledger.words import Label, Words

SLOT_US: Final = 900_000_000
"""A quarter of an hour."""

SLOT_DAYS: Final = 62
SLOTS_PER_DAY: Final = 96
DAY: Final = 1
MONTH: Final = 2
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_MAX_PLACES: Final = 20_000

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
        self._calls: dict[tuple[int, Place, str, str], tuple[Label, int]] = {}
        self._runs: dict[int, int] = {}
        self._rare: list[tuple[Row, int]] = []

    def add(self, row: Row) -> None:
        """Adds a call."""
        label, weight = row.label, row.weight
        key = label.id, self._calendar.place(row.started_us), row.status, row.source
        known = self._calls.get(key)
        self._calls[key] = (label, weight if known is None else known[1] + weight)
        run = row.run
        if run is not None:
            self._runs[run] = self._runs.get(run, 0) + weight
        if row.rare:
            self._rare.append((row, 1))
        if weight < 0 or row.standing[5] < 0:  # the money
            self._signed = True

    def remove(self, row: Row) -> None:
        """Takes a call away again: it was corrected, or turned out to be another one."""
        label, weight = row.label, row.weight
        key = label.id, self._calendar.place(row.started_us), row.status, row.source
        known = self._calls.get(key)
        self._calls[key] = (label, -weight if known is None else known[1] - weight)
        if row.run is not None:
            self._runs[row.run] = self._runs.get(row.run, 0) - weight
        if row.rare:
            self._rare.append((row, -1))
        self._signed = True

    def tables(self, words: Words) -> tuple[dict[Key, int], dict[Key, int], dict[Key, int]]:
        """The packed sums of the rows of cube, series and run."""
        cube: dict[Key, int] = {}
        series: dict[Key, int] = {}
        for (_, (slot, day, month), status, source), (label, weight) in self._calls.items():
            dimension = label.dimension
            key = DAY, day, dimension
            cube[key] = cube.get(key, 0) + weight
            key = MONTH, month, dimension
            cube[key] = cube.get(key, 0) + weight
            for axis, value in label.days:
                key = axis, day, value
                series[key] = series.get(key, 0) + weight
            if slot < self._floor:
                continue
            for axis, value in (*label.slots, words.status_slot(status), words.source_slot(source)):
                key = axis, slot, value
                series[key] = series.get(key, 0) + weight
        return cube, series, {(0, 0, run): weight for run, weight in self._runs.items()}

    def rare_kinds(self, words: Words) -> dict[tuple[str, int, int, int, str], int]:
        """The sums of kinds without a column, by the key of rollup_kind."""
        found: dict[tuple[str, int, int, int, str], int] = {}
        for row, sign in self._rare:
            for key in self._keys(row, words):
                for kind, count in row.rare.items():
                    found[(*key, kind)] = found.get((*key, kind), 0) + sign * count
        return found

    def write(self, connection: sqlite3.Connection, words: Words) -> None:
        """Adds everything to the file, within the caller's transaction, and starts from nothing again."""
        sql = queries()
        take = unpack if self._signed else unpack_positive
        cube, series, runs = self.tables(words)
        connection.executemany(sql["add_cube"], [(*key, *take(total)) for key, total in cube.items() if total])
        connection.executemany(sql["add_series"], [(*key, *take(total)) for key, total in series.items() if total])
        connection.executemany(sql["add_run"], [(key[2], *take(total)) for key, total in runs.items() if total])
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

    def _keys(self, row: Row, words: Words) -> list[tuple[str, int, int, int]]:
        slot, day, month = self._calendar.place(row.started_us)
        label = row.label
        keys = [("cube", DAY, day, label.dimension), ("cube", MONTH, month, label.dimension)]
        keys += [("series", axis, day, value) for axis, value in label.days]
        if slot >= self._floor:
            slots = (*label.slots, words.status_slot(row.status), words.source_slot(row.source))
            keys += [("series", axis, slot, value) for axis, value in slots]
        if row.run is not None:
            keys.append(("run", 0, 0, row.run))
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
