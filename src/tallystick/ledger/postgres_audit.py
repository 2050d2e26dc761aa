"""Audit in PostgreSQL: recomputing all that was derived from the entries, and following the hash chains."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

from tallystick.errors import LedgerCorrupt
from tallystick.ledger import postgres_spreads, spreads
from tallystick.ledger.book import first_hash, link_hash
from tallystick.ledger.joining import response_key
from tallystick.ledger.jsonform import amend
from tallystick.ledger.postgres_link import Connection, query
from tallystick.ledger.postgres_reading import corrections_of
from tallystick.ledger.postgres_rows import SEQ_BITS, Kept, kept, response_id
from tallystick.ledger.postgres_words import PostgresNames, PostgresWords
from tallystick.ledger.rollups import Calendar
from tallystick.ledger.rows import Move, decode, encode
from tallystick.ledger.sketches import MEASURES
from tallystick.ledger.sums import FIELDS, MAIN_KINDS, pack, unpack, weigh

MAX_SHOWN: Final = 20
_CHUNK: Final = 2000
_FIELDS: Final = ", ".join(FIELDS)
_SUMS: Final = ", ".join([f"sum({name})" for name in FIELDS])
_COLUMNS: Final = ", ".join(
    f"entry.{name}"
    for name in (
        "call_id", "started_us", "recorded_us", "run", "source", "label", "status", "quality", "owed", "unpriced",
        "cost_micro", "cost_pico", *MAIN_KINDS, "body", "seq", "amended", "repeated", "holder", "joined_us",
    )
)  # fmt: skip
_ENTRIES: Final = f"SELECT label.dimension, {_COLUMNS} FROM entry JOIN label ON label.id = entry.label"  # noqa: S608
_KEPT: Final = {
    "cube": f"""
        SELECT grain, period, dimension, source, status, quality, {_FIELDS} FROM cube
        WHERE grain > 0 OR period >= %(floor)s
        UNION ALL
        SELECT part.grain, part.period, dimension, source, status, quality, {_FIELDS} FROM moved
        CROSS JOIN LATERAL (VALUES (0, quarter), (1, day), (2, month)) AS part (grain, period)
        WHERE part.grain > 0 OR quarter >= %(floor)s""",  # noqa: S608 - constants
    "cell": f"""
        SELECT day, label, source, status, quality, 0, {_FIELDS} FROM cell
        UNION ALL SELECT day, label, source, status, quality, 0, {_FIELDS} FROM moved""",  # noqa: S608 - constants
    "run": f"""
        SELECT id, 0, 0, 0, 0, 0, {_FIELDS} FROM run
        UNION ALL SELECT run, 0, 0, 0, 0, 0, {_FIELDS} FROM moved WHERE run IS NOT NULL""",  # noqa: S608 - constants
}
_KINDS: Final = """
    SELECT day, label, source, status, quality, kind, sum(quantity) FROM (
        SELECT day, label, source, status, quality, kind, quantity FROM cell_kind
        UNION ALL SELECT day, label, source, status, quality, kind, quantity FROM move_kind
    ) AS part GROUP BY 1, 2, 3, 4, 5, 6"""
_UNKNOWN: Final = """
    SELECT entry.call_id FROM entry LEFT JOIN call
    ON call.call_id = entry.call_id AND call.seq = entry.seq AND call.started_us = entry.started_us
    WHERE call.call_id IS NULL ORDER BY 1 LIMIT %s"""

Key = tuple[int, ...]
Sums = dict[str, dict[Key, int]]


def differences(connection: Connection) -> list[str]:
    """What does not agree with the entries, in words; at most MAX_SHOWN of each sort. The caller holds a
    transaction."""
    found = list(_broken_links(connection))
    lost = connection.execute(_UNKNOWN, (MAX_SHOWN,)).fetchall()
    found += [f"Call {row[0]}: the index of calls does not find it." for row in lost]
    try:
        found += _wrong_sums(connection)
    except LedgerCorrupt as error:
        found.append(error.what)
    return found


def _wrong_sums(connection: Connection) -> Iterator[str]:
    settings: dict[str, str] = dict(connection.execute(query("all_state"), ("ledger",)).fetchall())
    if not {"zone", "slot_floor"} <= settings.keys():
        raise LedgerCorrupt("The ledger has lost its own settings.", todo="Restore it from a backup.")
    audit = _Audit(connection, Calendar(settings["zone"]), int(settings["slot_floor"]))
    for rows in _chunks(connection, _ENTRIES):
        audit.add(rows)
    yield from audit.problems[:MAX_SHOWN]
    for table, statement in _KEPT.items():
        stored: dict[Key, int] = {}
        grouped = f"SELECT {_keys()}, {_SUMS} FROM ({statement}) AS part ({_keys()}, {_FIELDS}) GROUP BY {_keys()}"  # noqa: S608
        for row in connection.execute(grouped, {"floor": audit.floor}).fetchall():
            stored[tuple(row[:6])] = pack(row[6:])
        yield from _compare(table, stored, audit.sums[table])
    kept = postgres_spreads.everything(connection)
    for (measure, day), dimension in islice(spreads.differing(kept, audit.spreads), MAX_SHOWN):
        yield f"The spread of {MEASURES[measure]} in day {day}, dimension {dimension}, is not what the entries give."
    kinds = {tuple(row[:6]): row[6] for row in connection.execute(_KINDS).fetchall()}
    wrong = [key for key in kinds.keys() | audit.kinds.keys() if kinds.get(key, 0) != audit.kinds.get(key, 0)]
    for key in sorted(wrong)[:MAX_SHOWN]:
        yield f"Sum {key}: kept {kinds.get(key, 0)}, the entries give {audit.kinds.get(key, 0)}."


class _Audit:
    """The sums as the entries give them."""

    def __init__(self, connection: Connection, calendar: Calendar, floor: int) -> None:
        self.floor = floor
        self.sums: Sums = {"cube": defaultdict(int), "cell": defaultdict(int), "run": defaultdict(int)}
        self.kinds: dict[Key | tuple[Any, ...], int] = defaultdict(int)
        self.problems: list[str] = []
        self.spreads: spreads.Written = {}
        self._connection = connection
        self._calendar = calendar
        self._names = PostgresNames(connection)
        self._words = PostgresWords(connection, adding=False)

    def add(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Adds some entries, and notes what about them is wrong."""
        self._names.learn((row[6] for row in rows), (row[4] for row in rows))
        found: dict[int, dict[str, int]] = {}
        for seq, kind, quantity in self._connection.execute(query("kinds_of"), ([row[21] for row in rows],)).fetchall():
            found.setdefault(seq, {})[kind] = quantity
        corrections = corrections_of(self._connection, [row[1] for row in rows if row[22]])
        keys: dict[Any, Kept] = {}
        moves: defaultdict[int, list[Move]] = defaultdict(list)
        for dimension, *columns in rows:
            one = kept(columns, found.get(columns[20]))
            entry = decode(one.line.chained, self._names)
            key = response_key(entry)
            if key is not None and one.holder is None:
                keys[response_id(key)] = one
            wanted = encode(amend(entry, corrections.get(entry.call_id, ())), self._words, 0)
            if wanted.standing != one.line.standing or (wanted.rare or {}) != (one.line.rare or {}):
                self.problems.append(f"Call {entry.call_id} does not stand as its entry and corrections say.")
            if one.joined_us is None:
                self._count(one.started_us, columns[3], columns[4], dimension, wanted.standing, wanted.rare or {})
                move = Move(1, 0, None, 0, dimension, wanted.standing[1:], None, entry.latency_us, entry.ttft_us)
                moves[self._calendar.place(one.started_us)[1]].append(move)
        spreads.change(self.spreads, spreads.changes(moves, lambda number: number))
        self._check_responses(keys)

    def _check_responses(self, keys: dict[Any, Kept]) -> None:
        statement = "SELECT hash, seq FROM response WHERE hash = ANY(%s)"
        known: dict[Any, int] = dict(self._connection.execute(statement, (list(keys),)).fetchall())
        for key, one in keys.items():
            if known.get(key) != one.seq:
                self.problems.append(f"Call {one.line.call_id}: the index of responses does not find it.")

    def _count(self, *of: Any) -> None:
        started_us, run, source, dimension, (label, *standing), rare = of
        quarter, day, month = self._calendar.place(started_us)
        codes = source, standing[0], standing[1]
        weight = weigh(tuple(standing))
        cube, cell = self.sums["cube"], self.sums["cell"]
        if quarter >= self.floor:
            cube[0, quarter, dimension, *codes] += weight
        cube[1, day, dimension, *codes] += weight
        cube[2, month, dimension, *codes] += weight
        cell[day, label, *codes, 0] += weight
        if run is not None:
            self.sums["run"][run, 0, 0, 0, 0, 0] += weight
        for kind, count in rare.items():
            self.kinds[day, label, *codes, kind] += count


def _keys() -> str:
    return ", ".join([f"k{number}" for number in range(6)])


def _compare(table: str, stored: dict[Key, int], wanted: dict[Key, int]) -> Iterator[str]:
    wrong = [key for key in stored.keys() | wanted.keys() if stored.get(key, 0) != wanted.get(key, 0)]
    for key in sorted(wrong)[:MAX_SHOWN]:
        parts = [
            f"{name} {one}, the entries give {other}"
            for name, one, other in zip(FIELDS, unpack(stored.get(key, 0)), unpack(wanted.get(key, 0)), strict=True)
            if one != other
        ]
        yield f"The sums in {table} {key} are wrong: {'; '.join(parts)}."


def _chunks(connection: Connection, statement: str) -> Iterator[list[tuple[Any, ...]]]:
    with connection.cursor("tallystick_audit") as cursor:
        cursor.execute(statement)
        while rows := cursor.fetchmany(_CHUNK):
            yield rows


def _broken_links(connection: Connection) -> Iterator[str]:
    """Follows the hash chain of each writer. A writer's batches have growing ids."""
    entries = _Grouped(connection, "entries", f"SELECT seq >> {SEQ_BITS}, call_id, started_us, recorded_us, run, body "  # noqa: S608
                       "FROM entry ORDER BY seq")  # fmt: skip
    corrections = _Grouped(
        connection,
        "corrections",
        "SELECT batch, correction_id, call_id, recorded_us, body FROM correction ORDER BY seq",
    )
    chains: dict[str, tuple[int, bytes]] = {}
    shown = chained = 0
    with connection.cursor("tallystick_batches") as batches:
        batches.execute("SELECT id, writer_id, batch_no, entries, batch_hash FROM batch ORDER BY id")
        for batch, writer, batch_no, count, stored in batches:
            expected_no, previous = chains.get(writer, (0, first_hash(writer)))
            rows = entries.take(batch)
            chained += len(rows)
            wrong = None
            if batch_no != expected_no:
                wrong = f"Writer {writer}: batch {expected_no} is missing."
            elif len(rows) != count or link_hash(previous, rows, corrections.take(batch)) != stored:
                wrong = f"Writer {writer}: batch {batch_no} ({count} entries) is not what was written."
            chains[writer] = batch_no + 1, stored
            if wrong is not None and shown < MAX_SHOWN:
                shown += 1
                yield wrong
    total = connection.execute("SELECT count(*) FROM entry").fetchone()
    entries.close()
    corrections.close()
    if total != (chained,):
        yield f"{total[0] if total else 0:,} entries are kept, {chained:,} were written in batches."


class _Grouped:
    """Rows of a statement in the order of their batch, given batch by batch."""

    def __init__(self, connection: Connection, name: str, statement: str) -> None:
        self._cursor = connection.cursor(f"tallystick_{name}")
        self._cursor.execute(statement)
        self._rows = iter(self._cursor)
        self._next = next(self._rows, None)

    def take(self, batch: int) -> list[tuple[Any, ...]]:
        """The rows of a batch; rows of batches before it belong to none and are passed over."""
        found = []
        while self._next is not None and self._next[0] <= batch:
            if self._next[0] == batch:
                found.append(tuple(self._next[1:]))
            self._next = next(self._rows, None)
        return found

    def close(self) -> None:
        """Ends reading."""
        self._cursor.close()
