"""Rows as PostgreSQL takes them: what is written for many entries at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, Final
from uuid import UUID

import msgspec

from tallystick.errors import InputError
from tallystick.ledger.entry import SOURCES, Entry
from tallystick.ledger.postgres_link import Connection, query
from tallystick.ledger.rollups import Calendar
from tallystick.ledger.rows import SOURCE_CODE, encode, timing
from tallystick.ledger.words import Words

SEQ_BITS: Final = 24
"""A seq is its batch's id and, in so many bits below, its place in the batch."""

_WIDTH: Final = 20
_STANDING: Final = slice(5, 19)


class Line(msgspec.Struct, frozen=True, gc=False):
    """A call as columns: `columns` are those of `copy_entries` up to body, `rare` its usage of kinds without one."""

    columns: tuple[Any, ...]
    rare: dict[str, int] | None

    @property
    def call_id(self) -> str:
        """The call's own id."""
        call_id: str = self.columns[0]
        return call_id

    @property
    def started_us(self) -> int:
        """When the call began."""
        us: int = self.columns[1]
        return us

    @property
    def recorded_us(self) -> int:
        """When it was recorded."""
        us: int = self.columns[2]
        return us

    @property
    def source(self) -> str:
        """Who saw the call."""
        return SOURCES[self.columns[4]]

    @property
    def standing(self) -> tuple[int, ...]:
        """The columns that a correction moves, label first."""
        return self.columns[_STANDING]

    @property
    def chained(self) -> tuple[Any, ...]:
        """What goes into the hash chain: call_id, started_us, recorded_us, run, body."""
        return (*self.columns[:4], self.columns[-1])

    def amended(self, standing: tuple[int, ...], rare: dict[str, int] | None) -> Line:
        """The same call, standing otherwise."""
        return Line((*self.columns[:5], *standing, self.columns[-1]), rare)


class Kept(msgspec.Struct, frozen=True, gc=False):
    """One row of `entry`: see the migration for `amended`, `repeated`, `holder` and `joined_us`."""

    seq: int
    line: Line
    amended: int = 0
    repeated: int = 0
    holder: int | None = None
    joined_us: int | None = None

    @property
    def started_us(self) -> int:
        """When the call began."""
        return self.line.started_us

    @property
    def copied(self) -> tuple[Any, ...]:
        """The values of `copy_entries`."""
        return (*self.line.columns, self.seq, self.amended, self.repeated, self.holder, self.joined_us)


class Moved(msgspec.Struct, frozen=True, gc=False):
    """What a call, standing as in `line`, adds to the rollups (sign 1), or no longer adds (-1)."""

    sign: int
    line: Line


def line(entry: Entry, words: Words, now_us: int) -> Line:
    """The columns of an entry. Raises InputError for what a ledger cannot keep."""
    plain(entry.call_id)
    row = encode(entry, words, now_us)
    *head, body = row.chained
    return Line((*head, SOURCE_CODE[entry.source], *row.standing, body), row.rare)


def plain(text: str) -> str:
    """The text itself, if PostgreSQL can keep it. Raises InputError."""
    if "\0" in text or (not text.isascii() and _has_surrogates(text)):
        raise InputError(
            f"PostgreSQL cannot keep the text {text!r}.", money="It was not entered.", todo="Use another id."
        )
    return text


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def arrays(lines: Sequence[Line], keys: Sequence[str | None], calendar: Calendar) -> list[str]:
    """The arrays of `write_calls`, written out: psycopg would take longer over them than the server."""
    call_ids, *columns_of_numbers, bodies = zip(*[one.columns for one in lines], strict=True)
    started, runs = columns_of_numbers[0], columns_of_numbers[2]
    places = list(map(calendar.place, started))
    found = [texts(call_ids), *map(numbers, columns_of_numbers)]
    # A call of no run has no number there.
    found[3] = _some_numbers(runs)
    found.append(_array([f'"\\\\x{body.hex()}"' for body in bodies]))
    found += [numbers([place[1] for place in places]), numbers([place[2] for place in places])]
    found += map(_some_numbers, zip(*map(timing, bodies), strict=True))
    hashed = [(key, place) for place, key in enumerate(keys, 1) if key is not None]
    found += [_array([response_id(key).hex for key, _ in hashed]), numbers([place for _, place in hashed])]
    kinds = [(place, *pair) for place, one in enumerate(lines, 1) for pair in (one.rare or {}).items()]
    found += [numbers([kind[0] for kind in kinds]), texts([kind[1] for kind in kinds])]
    return [*found, numbers([kind[2] for kind in kinds])]


def numbers(values: Iterable[int]) -> str:
    """An array of whole numbers, written out."""
    return _array(map(str, values))


def texts(values: Iterable[str | None]) -> str:
    """An array of texts, written out."""
    return _array(
        ["NULL" if one is None else '"' + one.replace("\\", "\\\\").replace('"', '\\"') + '"' for one in values]
    )


def _some_numbers(values: Iterable[int | None]) -> str:
    return _array(["NULL" if one is None else str(one) for one in values])


def _array(values: Iterable[str]) -> str:
    return "{" + ",".join(values) + "}"


def kept(columns: Sequence[Any], rare: dict[str, int] | None) -> Kept:
    """The row whose `copied` are these columns."""
    seq, amended, repeated, holder, joined_us = columns[_WIDTH:]
    return Kept(seq, Line(tuple(columns[:_WIDTH]), rare), amended, repeated, holder, joined_us)


def response_id(key: str) -> UUID:
    """128 bits for provider and id: no two responses share them."""
    return UUID(bytes=blake2b(key.encode(errors="surrogatepass"), digest_size=16).digest())


def add_entries(connection: Connection, rows: Sequence[Kept]) -> None:
    """Writes new entries and their rare kinds."""
    if not rows:
        return
    with connection.cursor().copy(query("copy_entries")) as copy:
        write = copy.write_row
        for one in rows:
            write(one.copied)
    _add_kinds(connection, rows)


def change_entries(connection: Connection, rows: Sequence[Kept]) -> None:
    """Writes what has changed about entries that were there: how they stand, and whom they were joined into."""
    if not rows:
        return
    values = [(one.started_us, one.seq, *one.line.standing, one.amended, one.holder, one.joined_us) for one in rows]
    connection.execute(query("change_entries"), columns(values))
    connection.execute(query("drop_kinds"), ([one.seq for one in rows],))
    _add_kinds(connection, rows)


def add_moves(connection: Connection, batch: int, moves: Sequence[Moved], calendar: Calendar) -> None:
    """Writes what a batch adds to the rollups."""
    if not moves:
        return
    kinds: list[tuple[Any, ...]] = []
    with connection.cursor().copy(query("copy_moves")) as copy:
        write = copy.write_row
        for move in moves:
            _, started_us, _, run, source, label, *standing, body = move.line.columns
            quarter, day, month = calendar.place(started_us)
            write((batch, quarter, day, month, label, run, source, move.sign, *standing, *timing(body)))
            if move.line.rare:
                at = batch, day, label, source, standing[0], standing[1]
                kinds += [(*at, kind, move.sign * count) for kind, count in move.line.rare.items()]
    if kinds:
        connection.execute(query("add_move_kinds"), columns(kinds))


def columns(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    """Rows turned into columns, as `unnest` takes them."""
    return [list(column) for column in zip(*rows, strict=True)]


def _add_kinds(connection: Connection, rows: Sequence[Kept]) -> None:
    kinds = [(one.seq, one.started_us, kind, count) for one in rows for kind, count in (one.line.rare or {}).items()]
    if kinds:
        connection.execute(query("add_kinds"), columns(kinds))
