"""Sheets: the rollups as they lie in the file, many sums to a row.

A sheet holds the sums of one axis in one period: for each value, its counters packed as in `sums`. It is cut into rows
of neighbouring values, since a row for each value would cost SQLite more to find and to hand over than its seventeen
counters cost to add up, in writing as well as in reading.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from tallystick.errors import LedgerCorrupt, LedgerError
from tallystick.ledger.sql import queries
from tallystick.ledger.sums import added

SLOT: Final = 0
DAY: Final = 1
MONTH: Final = 2

CUBE: Final = 0
"""The axis whose values are dimensions: provider x model x maker x key x team x project."""

CELLS: Final = -1
"""The axis whose values are cells: a label with the codes of source, status and quality, see `cell`."""

RUNS: Final = -2
"""The axis whose values are runs. It has no months: a run is seldom longer than a day."""

_CODE_BITS: Final = 7
CODES: Final = 1 << _CODE_BITS
"""A cell is so many times its label, and the codes."""

_STATUSES: Final = 5
_QUALITIES: Final = 4
_ROW_BITS: Final = 6
_CELL_ROW_BITS: Final = 8 + _CODE_BITS
_DECODE: Final = msgspec.msgpack.Decoder(dict[int, bytes]).decode
_ENCODE: Final = msgspec.msgpack.Encoder().encode
_READ: Final = "SELECT period, body FROM sheet WHERE grain = ? AND axis = ? AND period >= ? AND period < ?"

Place = tuple[int, int, int]
"""A sheet: grain (SLOT, DAY or MONTH), axis, and period."""

Sheets = dict[Place, dict[int, int]]
"""The packed sums of some sheets, by value."""

Body = dict[int, bytes]
"""A row of a sheet: counters by value, as `number` reads them."""


def cell(label: int, source: int, status: int, quality: int) -> int:
    """The number of a label with the codes of a source, a status and a quality."""
    return label << _CODE_BITS | (source * _STATUSES + status) * _QUALITIES + quality


def parts(number: int) -> tuple[int, int, int, int]:
    """The label, source, status and quality of a cell."""
    rest, quality = divmod(number % CODES, _QUALITIES)
    return number >> _CODE_BITS, *divmod(rest, _STATUSES), quality


def written(total: int) -> bytes:
    """Packed counters in as few bytes as they need."""
    return total.to_bytes((total.bit_length() + 8) >> 3, "little", signed=True)


def number(body: bytes) -> int:
    """The packed counters of `written`."""
    return int.from_bytes(body, "little", signed=True)


def read(
    connection: sqlite3.Connection, place: tuple[int, int], span: tuple[int, int], value: int | None = None
) -> Iterator[tuple[int, Body]]:
    """The rows of the sheets of a grain and axis, with their period, from the first period to before the last; only
    what holds `value` if one is given. Raises LedgerCorrupt."""
    statement, more = (_READ, ()) if value is None else (f"{_READ} AND part = ?", (value >> _bits(place[1]),))
    for period, body in connection.execute(statement, (*place, *span, *more)):
        found = _decoded(body)
        if value is None:
            yield period, found
        elif value in found:
            yield period, {value: found[value]}


def add(connection: sqlite3.Connection, sheets: Mapping[Place, Mapping[int, int]]) -> None:
    """Adds to the sheets of the file, within the caller's transaction. Raises LedgerError where a counter would leave
    64 bits."""
    sql = queries()
    put, drop = [], []
    for (grain, axis, period), sums in sorted(sheets.items()):
        bits = _bits(axis)
        rows: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for value, total in sums.items():
            if total:
                rows[value >> bits].append((value, total))
        for part, more in rows.items():
            key = grain, axis, period, part
            row = connection.execute(sql["sheet_row"], key).fetchone()
            kept = {} if row is None else _decoded(row[0])
            for value, total in more:
                before = kept.get(value)
                whole = total if before is None else added(number(before), total)
                if whole is None:
                    raise LedgerError(
                        "A sum in the ledger would pass what it can count.",
                        money="Nothing of this was entered; what was there before is intact.",
                        todo="Check the usage of these calls.",
                    )
                if whole:
                    kept[value] = written(whole)
                else:
                    del kept[value]
            if kept:
                put.append((*key, _ENCODE(kept)))
            else:
                drop.append(key)
    connection.executemany(sql["put_sheet_row"], put)
    connection.executemany(sql["drop_sheet_row"], drop)


def everything(connection: sqlite3.Connection) -> Sheets:
    """All sums in the file."""
    found: Sheets = {}
    for *place, body in connection.execute("SELECT grain, axis, period, body FROM sheet"):
        sums = found.setdefault((place[0], place[1], place[2]), {})
        sums.update({value: number(counters) for value, counters in _decoded(body).items()})
    return found


def _bits(axis: int) -> int:
    return _CELL_ROW_BITS if axis == CELLS else _ROW_BITS


def _decoded(body: bytes) -> Body:
    try:
        return _DECODE(body)
    except (msgspec.DecodeError, ValueError) as error:
        raise LedgerCorrupt(
            f"The ledger is damaged: some of its sums cannot be read: {error}.",
            money="Its totals cannot be trusted.",
            todo="Restore it from a backup.",
        ) from None
