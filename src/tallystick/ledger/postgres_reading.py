"""Reading from PostgreSQL: the calls that fit a query, page by page, so that no reader holds a snapshot for long."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from tallystick.ledger.entry import Correction, Entry
from tallystick.ledger.jsonform import amend
from tallystick.ledger.postgres_leaf import read_correction
from tallystick.ledger.postgres_link import Connection, query
from tallystick.ledger.postgres_words import PostgresNames
from tallystick.ledger.progress import Progress, stretches
from tallystick.ledger.query import Query
from tallystick.ledger.rows import QUALITY_CODE, SOURCE_CODE, STATUS_CODE, decode, to_us

PAGE: Final = 1000

_COLUMNS: Final = (
    "entry.seq, entry.amended, entry.label, entry.call_id, entry.started_us, entry.recorded_us, entry.run, entry.body"
)
_OLDEST: Final = "(entry.started_us, entry.seq) > (%s, %s)", "ORDER BY entry.started_us, entry.seq LIMIT %s"
_NEWEST: Final = "(entry.started_us, entry.seq) < (%s, %s)", "ORDER BY entry.started_us DESC, entry.seq DESC LIMIT %s"
_BEFORE_ALL: Final = -(2**63)
_AFTER_ALL: Final = 2**63 - 1

Snapshot = Callable[[], AbstractContextManager[tuple[Connection, PostgresNames]]]
"""Lends a connection, for one page."""


def conditions(asked: Query) -> tuple[str, list[Any]]:
    """The WHERE of a query over entry as it stands, and its values."""
    clauses = ["entry.joined_us IS NULL"]
    values: list[Any] = []
    codes = (
        ("entry.status = %s", asked.status, STATUS_CODE),
        ("entry.quality = %s", asked.quality, QUALITY_CODE),
        ("entry.source = %s", asked.source, SOURCE_CODE),
    )
    for clause, word, code in codes:
        if word is not None:
            clauses.append(clause)
            values.append(code[word])
    flags = (("entry.owed = %s", asked.owed), ("entry.repeated = %s", asked.repeated))
    for clause, flag in flags:
        if flag is not None:
            clauses.append(clause)
            values.append(int(flag))
    parts = ("provider", asked.provider), ("model", asked.model), ("maker", asked.maker)
    named = [(f"label.{name} = %s", [text]) for name, text in parts if text is not None]
    named += [("label.tags ->> %s = %s", [name, text]) for name, text in asked.tags.items()]
    if named:
        inner = " AND ".join(clause for clause, _ in named)
        clauses.append(f"entry.label IN (SELECT label.id FROM label WHERE {inner})")  # noqa: S608 - constants above
        values += [value for _, given in named for value in given]
    plain, lasting = _lasting(asked)
    return " AND ".join(clauses + plain), values + lasting


def entries(snapshot: Snapshot, asked: Query) -> Iterator[Entry]:
    """The entries that fit, with their corrections applied."""
    where, values = conditions(asked) if asked.as_of is None else _past_conditions(asked)
    after, order = _NEWEST if asked.newest_first else _OLDEST
    edge = _AFTER_ALL if asked.newest_first else _BEFORE_ALL
    statement = f"SELECT {_COLUMNS} FROM entry WHERE {where} AND {after} {order}"  # noqa: S608 - constants above
    position, left = (edge, edge), asked.limit
    while left is None or left > 0:
        size = PAGE if left is None or asked.as_of is not None else min(PAGE, left)
        with snapshot() as (connection, names):
            rows = connection.execute(statement, (*values, *position, size)).fetchall()
            page = _standing(rows, asked, connection, names)
        for entry in page:
            yield entry
            if left is not None:
                left -= 1
                if not left:
                    return
        if len(rows) < size:
            return
        position = rows[-1][4], rows[-1][0]


def slices(connection: Connection, asked: Query, progress: Progress | None) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Cuts a reading of all entries that fit into stretches of time, for the sake of who watches: what to add to the
    WHERE, and its values."""
    if progress is None or asked.call_id is not None or asked.run_id is not None:
        yield "", ()
        return
    known = connection.execute("SELECT min(started_us), max(started_us) FROM entry").fetchone()
    if known is None or known[0] is None:
        return
    first = known[0] if asked.since is None else max(known[0], to_us(asked.since))
    last = known[1] + 1 if asked.until is None else min(known[1] + 1, to_us(asked.until))
    for bounds in stretches(first, last, progress):
        yield " AND entry.started_us >= %s AND entry.started_us < %s", bounds


def corrections_of(connection: Connection, call_ids: Sequence[str]) -> dict[str, list[Correction]]:
    """The corrections of calls, in their order."""
    found: dict[str, list[Correction]] = {}
    for row in connection.execute(query("corrections_of"), (call_ids,)).fetchall():
        found.setdefault(row[3], []).append(read_correction(*row))
    return found


def _past_conditions(asked: Query) -> tuple[str, list[Any]]:
    """Like `conditions`, for a past instant: only by what no correction can move; the rest is left to `_standing`."""
    at = to_us(asked.as_of) if asked.as_of is not None else _AFTER_ALL
    clauses, values = _lasting(asked)
    clauses += ["entry.recorded_us <= %s", "(entry.joined_us IS NULL OR entry.joined_us > %s)"]
    values += [at, at]
    if asked.repeated is not None:
        clauses.append("entry.repeated = %s")
        values.append(int(asked.repeated))
    return " AND ".join(clauses), values


def _lasting(asked: Query) -> tuple[list[str], list[Any]]:
    found = (
        ("entry.started_us >= %s", None if asked.since is None else to_us(asked.since)),
        ("entry.started_us < %s", None if asked.until is None else to_us(asked.until)),
        (
            "(entry.started_us, entry.seq) = (SELECT call.started_us, call.seq FROM call WHERE call.call_id = %s)",
            asked.call_id,
        ),
        ("entry.run = (SELECT run.id FROM run WHERE run.run_id = %s)", asked.run_id),
    )
    kept = [(clause, value) for clause, value in found if value is not None]
    return [clause for clause, _ in kept], [value for _, value in kept]


def _standing(
    rows: Sequence[tuple[Any, ...]], asked: Query, connection: Connection, names: PostgresNames
) -> list[Entry]:
    names.learn((row[2] for row in rows), (row[6] for row in rows))
    amended = [row[3] for row in rows if row[1]]
    corrections = corrections_of(connection, amended) if amended else {}
    found = []
    for row in rows:
        entry = decode(row[3:], names)
        if row[1]:
            known = corrections.get(entry.call_id, [])
            if asked.as_of is not None:
                known = [one for one in known if one.recorded_at <= asked.as_of]
            entry = amend(entry, known)
        if asked.as_of is None or asked.matches(entry):
            found.append(entry)
    return found
