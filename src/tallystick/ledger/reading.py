"""Reading: the calls that fit a query, page by page, so that no reader holds up a writer."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final

from tallystick.ledger.book import read_corrections
from tallystick.ledger.entry import Entry
from tallystick.ledger.jsonform import amend
from tallystick.ledger.progress import Progress, stretches
from tallystick.ledger.query import Query
from tallystick.ledger.rows import QUALITY_CODE, SOURCE_CODE, STATUS_CODE, decode, to_us
from tallystick.ledger.words import Names

PAGE: Final = 500

_COLUMNS: Final = "entry.seq, entry.amended, entry.call_id, entry.started_us, entry.recorded_us, entry.run, entry.body"
_OLDEST: Final = "(entry.started_us, entry.seq) > (?, ?)", "ORDER BY entry.started_us, entry.seq LIMIT ?"
_NEWEST: Final = "(entry.started_us, entry.seq) < (?, ?)", "ORDER BY entry.started_us DESC, entry.seq DESC LIMIT ?"
_BEFORE_ALL: Final = -(2**63)
_AFTER_ALL: Final = 2**63 - 1
_TAG: Final = "EXISTS (SELECT 1 FROM json_each(label.tags) WHERE json_each.key = ? AND json_each.value = ?)"

Snapshot = Callable[[], AbstractContextManager[tuple[sqlite3.Connection, Names]]]
"""Gives the reading connection, for one page."""


def conditions(query: Query) -> tuple[str, list[Any]]:
    """The WHERE of a query over entry as it stands, and its values."""
    clauses = ["entry.joined_us IS NULL"]
    values: list[Any] = []
    codes = (
        ("entry.status = ?", query.status, STATUS_CODE),
        ("entry.quality = ?", query.quality, QUALITY_CODE),
        ("entry.source = ?", query.source, SOURCE_CODE),
    )
    for clause, word, code in codes:
        if word is not None:
            clauses.append(clause)
            values.append(code[word])
    flags = (("entry.owed = ?", query.owed), ("entry.repeated = ?", query.repeated))
    for clause, flag in flags:
        if flag is not None:
            clauses.append(clause)
            values.append(int(flag))
    parts = ("provider", query.provider), ("model", query.model), ("maker", query.maker)
    names: list[tuple[str, list[str]]] = [(f"label.{name} = ?", [text]) for name, text in parts if text is not None]
    names += [(_TAG, [name, text]) for name, text in query.tags.items()]
    if names:
        inner = " AND ".join(clause for clause, _ in names)
        clauses.append(f"entry.label IN (SELECT label.id FROM label WHERE {inner})")  # noqa: S608 - constants above
        values += [value for _, given in names for value in given]
    plain, lasting = _lasting(query)
    return " AND ".join(clauses + plain), values + lasting


def entries(snapshot: Snapshot, query: Query) -> Iterator[Entry]:
    """The entries that fit, with their corrections applied."""
    if query.as_of is None:
        where, values = conditions(query)
    else:
        where, values = _past_conditions(query)
    after, order = _NEWEST if query.newest_first else _OLDEST
    edge = _AFTER_ALL if query.newest_first else _BEFORE_ALL
    statement = f"SELECT {_COLUMNS} FROM entry WHERE {where} AND {after} {order}"  # noqa: S608 - constants above
    position, left = (edge, edge), query.limit
    while left is None or left > 0:
        with snapshot() as (connection, names):
            size = PAGE if left is None or query.as_of is not None else min(PAGE, left)
            rows = connection.execute(statement, (*values, *position, size)).fetchall()
            page = [_standing(row, query, connection, names) for row in rows]
        for entry in page:
            if entry is None:
                continue
            yield entry
            if left is not None:
                left -= 1
                if not left:
                    return
        if len(rows) < size:
            return
        position = rows[-1][3], rows[-1][0]


def slices(
    connection: sqlite3.Connection, query: Query, progress: Progress | None
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Cuts a reading of all entries that fit into stretches of time, for the sake of who watches: what to add to the
    WHERE, and its values."""
    if progress is None or query.call_id is not None or query.run_id is not None:
        yield "", ()
        return
    known = connection.execute("SELECT min(started_us), max(started_us) FROM entry").fetchone()
    if known[0] is None:
        return
    first = known[0] if query.since is None else max(known[0], to_us(query.since))
    last = known[1] + 1 if query.until is None else min(known[1] + 1, to_us(query.until))
    for bounds in stretches(first, last, progress):
        yield " AND entry.started_us >= ? AND entry.started_us < ?", bounds


def _past_conditions(query: Query) -> tuple[str, list[Any]]:
    """Like `conditions`, for a past instant: only by what no correction can move; the rest is left to `_standing`."""
    at = to_us(query.as_of) if query.as_of is not None else _AFTER_ALL
    clauses, values = _lasting(query)
    clauses += ["entry.recorded_us <= ?", "(entry.joined_us IS NULL OR entry.joined_us > ?)"]
    values += [at, at]
    if query.repeated is not None:
        clauses.append("entry.repeated = ?")
        values.append(int(query.repeated))
    return " AND ".join(clauses), values


def _lasting(query: Query) -> tuple[list[str], list[Any]]:
    found = (
        ("entry.started_us >= ?", None if query.since is None else to_us(query.since)),
        ("entry.started_us < ?", None if query.until is None else to_us(query.until)),
        ("entry.call_id = ?", query.call_id),
        ("entry.run = (SELECT run.id FROM run WHERE run.run_id = ?)", query.run_id),
    )
    kept = [(clause, value) for clause, value in found if value is not None]
    return [clause for clause, _ in kept], [value for _, value in kept]


def _standing(row: tuple[Any, ...], query: Query, connection: sqlite3.Connection, names: Names) -> Entry | None:
    seq, amended, *columns = row
    entry = decode(tuple(columns), names)
    if amended:
        corrections = read_corrections(connection, seq)
        if query.as_of is not None:
            corrections = [one for one in corrections if one.recorded_at <= query.as_of]
        entry = amend(entry, corrections)
    return entry if query.as_of is None or query.matches(entry) else None
