"""Audit: recomputing all that was derived from the entries, to compare it or to write it anew."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from tallystick.errors import LedgerCorrupt
from tallystick.ledger import spreads
from tallystick.ledger.book import first_hash, link_hash, read_corrections
from tallystick.ledger.joining import response_key
from tallystick.ledger.jsonform import amend
from tallystick.ledger.pending import batches, response_hash
from tallystick.ledger.rollups import Calendar, Sums
from tallystick.ledger.rows import Move, Row, decode, encode
from tallystick.ledger.sheets import CELLS, CUBE, RUNS, Place, Sheets, everything
from tallystick.ledger.sketches import MEASURES
from tallystick.ledger.sql import queries
from tallystick.ledger.sums import FIELDS, MAIN_KINDS, unpack
from tallystick.ledger.words import Names, Words

MAX_SHOWN: Final = 20
_CHUNK: Final = 1000
_STANDING: Final = ", ".join(("label", "status", "quality", "owed", "unpriced", "cost_micro", "cost_pico", *MAIN_KINDS))
_ENTRIES: Final = (
    "SELECT seq, call_id, started_us, recorded_us, run, body, joined_us, amended, holder, "  # noqa: S608 - constants
    f"{_STANDING} FROM entry WHERE seq > ? ORDER BY seq LIMIT {_CHUNK}"
)
_GRAINS: Final = ("quarter", "day", "month")
_AXES: Final = {CUBE: "dimensions", CELLS: "cells", RUNS: "runs"}


def differences(connection: sqlite3.Connection) -> list[str]:
    """What does not agree with the entries, in words; at most MAX_SHOWN of each sort. The caller holds a transaction,
    which is to be rolled back."""
    found = [f"The file is damaged: {row[0]}" for row in connection.execute("PRAGMA quick_check") if row[0] != "ok"]
    if found:
        return found
    found = list(_broken_links(connection))
    try:
        found += _wrong_sums(connection)
    except LedgerCorrupt as error:
        found.append(error.what)
    return found


def rebuild(connection: sqlite3.Connection, zone: str) -> None:
    """Writes all rollups anew, in another time zone; the caller holds the transaction."""
    sums, words = Sums(Calendar(zone), _floor(connection)), Words(connection)
    for _, added in batches(connection):
        keys = iter(added.keys)
        connection.executemany(queries()["add_response"], zip(keys, keys, strict=True))
    for table in ("pending", "sheet", "sheet_kind", "spread"):
        connection.execute(f"DELETE FROM {table}")  # noqa: S608 - constants
    for number, (row, _) in enumerate(_rows(connection, words, []), 1):
        sums.add([Move(*row.move(1))])
        if number % _CHUNK == 0 and sums.full:
            sums.write(connection, words)
    sums.write(connection, words)
    connection.execute(queries()["set_state"], ("ledger", "zone", zone))


def _wrong_sums(connection: sqlite3.Connection) -> Iterator[str]:
    zone = connection.execute("SELECT value FROM state WHERE namespace = 'ledger' AND key = 'zone'").fetchone()[0]
    words = _Unwritten(connection)
    calendar, floor = Calendar(zone), _floor(connection)
    sums = Sums(calendar, floor)
    problems: list[str] = []
    expected = _Expected()
    for number, (row, kinds) in enumerate(_rows(connection, words, problems), 1):
        sums.add([Move(*row.move(1))])
        if (row.rare or {}) != kinds:
            problems.append(f"Call {row.call_id}: the usage of rare kinds is {kinds}, the entry says {row.rare}.")
        if number % _CHUNK == 0:
            expected.collect(sums, words)
    expected.collect(sums, words)
    yield from problems[:MAX_SHOWN]
    kept = _Expected(everything(connection), spreads.everything(connection))
    for *key, count in connection.execute("SELECT * FROM sheet_kind"):
        kept.rare[tuple(key)] = count
    for _, added in batches(connection):
        for first in range(0, len(added.moves), _CHUNK):
            sums.add(added.moves[first : first + _CHUNK])
            kept.collect(sums, words)
    yield from _compare(kept.sheets, expected.sheets, Names(connection))
    for (measure, day), dimension in islice(spreads.differing(kept.spreads, expected.spreads), MAX_SHOWN):
        yield f"The spread of {MEASURES[measure]} in day {day}, dimension {dimension}, is not what the entries give."
    wrong = [
        key for key in kept.rare.keys() | expected.rare.keys() if kept.rare.get(key, 0) != expected.rare.get(key, 0)
    ]
    for key in sorted(wrong)[:MAX_SHOWN]:
        yield f"Sum {key}: kept {kept.rare.get(key, 0)}, the entries give {expected.rare.get(key, 0)}."


class _Unwritten(Words):
    """Words that are only looked up. What has no number gets one below those of the axes that have no word: with one of
    these its sums would be taken for theirs."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection, adding=False)
        self._below = min(_AXES)


class _Expected:
    """Sums by sheet, of rare kinds, and sketches."""

    def __init__(self, sheets: Sheets | None = None, written: spreads.Written | None = None) -> None:
        self.sheets: Sheets = {} if sheets is None else sheets
        self.spreads: spreads.Written = {} if written is None else written
        self.rare: dict[tuple[Any, ...], int] = {}

    def collect(self, sums: Sums, words: Words) -> None:
        """Adds what `sums` holds, and empties it."""
        for place, found in sums.sheets(words).items():
            sheet = self.sheets.setdefault(place, {})
            for value, total in found.items():
                sheet[value] = sheet.get(value, 0) + total
        for kind_key, count in sums.rare_kinds(words).items():
            self.rare[kind_key] = self.rare.get(kind_key, 0) + count
        spreads.change(self.spreads, sums.spreads(words))
        sums.clear()


def _compare(kept: Sheets, wanted: Sheets, names: Names) -> Iterator[str]:
    shown = 0
    for place in sorted(kept.keys() | wanted.keys()):
        stored, right = kept.get(place, {}), wanted.get(place, {})
        for value in sorted(stored.keys() | right.keys()):
            one, other = stored.get(value, 0), right.get(value, 0)
            if one == other:
                continue
            parts = [
                f"{name} {left}, the entries give {correct}"
                for name, left, correct in zip(FIELDS, unpack(one), unpack(other), strict=True)
                if left != correct
            ]
            yield f"The sums of {_sheet_name(place, names)}, value {value}, are wrong: {'; '.join(parts)}."
            shown += 1
            if shown == MAX_SHOWN:
                return


def _sheet_name(place: Place, names: Names) -> str:
    grain, axis, period = place
    name = f"axis {axis}" if axis < min(_AXES) else _AXES.get(axis) or names.word(axis)
    return f"{name} in {_GRAINS[grain]} {period}"


def _rows(connection: sqlite3.Connection, words: Words, problems: list[str]) -> Iterator[tuple[Row, dict[str, int]]]:
    """The rows that count, as they should stand, with the rare kinds that are kept; notes calls that stand wrong or
    that their response's id would not find."""
    names, last = Names(connection), -(2**62)
    waiting = {seq for _, added in batches(connection) for seq in added.keys[1::2]}
    while rows := connection.execute(_ENTRIES, (last,)).fetchall():
        last = rows[-1][0]
        stored = connection.execute(
            "SELECT seq, kind, quantity FROM entry_kind WHERE seq >= ? AND seq <= ?", (rows[0][0], last)
        )
        kinds: dict[int, dict[str, int]] = {}
        for seq, kind, quantity in stored:
            kinds.setdefault(seq, {})[kind] = quantity
        for row in rows:
            entry = decode(row[1:6], names)
            key = response_key(entry)
            if key is not None and row[8] is None and row[0] not in waiting and not _indexed(connection, key, row[0]):
                problems.append(f"Call {row[1]}: the index of responses does not find it.")
            if row[7]:
                entry = amend(entry, read_corrections(connection, row[0]))
            wanted = encode(entry, words, 0)
            if wanted.standing != row[9:]:
                problems.append(f"Call {row[1]} stands as {row[9:]}, its entry and corrections give {wanted.standing}.")
            if row[6] is None:
                yield wanted, kinds.get(row[0], {})


def _indexed(connection: sqlite3.Connection, key: str, seq: int) -> bool:
    found = connection.execute("SELECT 1 FROM response WHERE hash = ? AND seq = ?", (response_hash(key), seq))
    return found.fetchone() is not None


def _broken_links(connection: sqlite3.Connection) -> Iterator[str]:
    """Follows the hash chain of each writer."""
    shown = chained = 0
    writer, expected_no, previous = "", 0, b""
    links = connection.execute("SELECT * FROM batch ORDER BY writer_id, batch_no")
    for batch, writer_id, batch_no, first, count, stored in links:
        if writer_id != writer:
            writer, expected_no, previous = writer_id, 0, first_hash(writer_id)
        entries = connection.execute(
            "SELECT call_id, started_us, recorded_us, run, body FROM entry WHERE seq >= ? AND seq < ? ORDER BY seq",
            (first, first + count),
        ).fetchall()
        chained += len(entries)
        corrections = connection.execute(
            "SELECT correction_id, call_id, correction.recorded_us, correction.body FROM correction "
            "JOIN entry ON entry.seq = correction.entry WHERE correction.batch = ? ORDER BY correction.seq",
            (batch,),
        ).fetchall()
        if batch_no != expected_no:
            yield f"Writer {writer_id}: batch {expected_no} is missing."
        elif link_hash(previous, entries, corrections) != stored:
            yield f"Writer {writer_id}: batch {batch_no} ({count} entries) is not what was written."
        else:
            shown -= 1
        shown += 1
        if shown == MAX_SHOWN:
            return
        expected_no, previous = batch_no + 1, stored
    total = connection.execute("SELECT count(*) FROM entry").fetchone()[0]
    if chained != total:
        yield f"{total:,} entries are kept, {chained:,} were written in batches."


def _floor(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT value FROM state WHERE namespace = 'ledger' AND key = 'slot_floor'").fetchone()
    if row is None:
        raise LedgerCorrupt("The ledger has lost its own settings.", todo="Restore it from a backup.")
    return int(row[0])
