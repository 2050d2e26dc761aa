"""Spreads: the sketches of cost and time as they lie in the file, by day and dimension."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from tallystick.errors import LedgerCorrupt
from tallystick.ledger import sketches
from tallystick.ledger.rows import Move
from tallystick.ledger.sketches import MEASURES
from tallystick.ledger.sql import queries
from tallystick.ledger.sums import LIMB, STATUS_CODE

_PART_BITS: Final = 7
_REFUSED: Final = STATUS_CODE["refused"]
_DECODE: Final = msgspec.msgpack.Decoder(dict[int, bytes]).decode
_ENCODE: Final = msgspec.msgpack.Encoder().encode

Day = tuple[int, int]
"""A measure by its place in MEASURES, and a day in the ledger's time zone, since 1970."""

Change = tuple[Sequence[int], Sequence[int]]
"""The codes that come into a sketch, and those that leave it."""

Spreads = dict[Day, dict[int, Change]]
"""What calls change in sketches, by dimension."""

Written = dict[Day, dict[int, bytes]]
"""Written sketches, by dimension."""


def changes(days: Mapping[int, Sequence[Move]], dimension_of: Callable[[int], int]) -> Spreads:
    """What the moves of some days change; `dimension_of` gives the dimension of a label."""
    found: Spreads = {}
    dimensions = _Dimensions(dimension_of)
    for day, moves in days.items():
        sent = [move for move in moves if move.standing[0] != _REFUSED]
        come, gone = sent, []
        if any(move.sign < 0 for move in sent):
            come, gone = [move for move in sent if move.sign > 0], [move for move in sent if move.sign < 0]
        more, less = _listed(come, dimensions), _listed(gone, dimensions)
        for measure in range(len(MEASURES)):
            put, taken = more[measure], less[measure]
            known = put if not taken else {**put, **taken}
            if known:
                found[measure, day] = {one: (put.get(one, ()), taken.get(one, ())) for one in known}
    return found


class _Dimensions(dict[int, int]):
    """The dimension of each label."""

    def __init__(self, find: Callable[[int], int]) -> None:
        self._find = find

    def __missing__(self, label: int) -> int:
        self[label] = dimension = self._find(label)
        return dimension


def _listed(moves: Sequence[Move], dimensions: _Dimensions) -> list[dict[int, list[int]]]:
    """The codes of each measure by dimension. Each call comes here once, hence a loop for each step."""
    if not moves:
        return [{} for _ in MEASURES]
    spent = [(move.label, move.standing) for move in moves if not move.standing[3]]
    timed = [(move.label, move.latency_us) for move in moves if move.latency_us is not None]
    begun = [(move.label, move.ttft_us) for move in moves if move.ttft_us is not None]
    found: list[dict[int, list[int]]] = []
    for labels, values in (
        ([label for label, _ in spent], [standing[4] * LIMB + standing[5] for _, standing in spent]),
        ([label for label, _ in timed], [value for _, value in timed]),
        ([label for label, _ in begun], [value for _, value in begun]),
    ):
        lists: defaultdict[int, list[int]] = defaultdict(list)
        for label, code in zip(labels, sketches.codes(values), strict=True):
            lists[dimensions[label]].append(code)
        found.append(lists)
    return found


def write(connection: sqlite3.Connection, spreads: Mapping[Day, Mapping[int, Change]]) -> None:
    """Changes the sketches in the file, within the caller's transaction. Raises LedgerCorrupt."""
    sql, put = queries(), []
    for place, dimensions in sorted(spreads.items()):
        parts: defaultdict[int, list[int]] = defaultdict(list)
        for dimension in dimensions:
            parts[dimension >> _PART_BITS].append(dimension)
        for part, some in parts.items():
            row = connection.execute(sql["spread_row"], (*place, part)).fetchone()
            kept = {} if row is None else _decoded(row[0])
            for dimension in some:
                kept[dimension] = sketches.added(kept.get(dimension, b""), *dimensions[dimension])
            put.append((*place, part, _ENCODE(kept)))
    connection.executemany(sql["put_spread_row"], put)


def read(connection: sqlite3.Connection, measure: int, first: int, last: int) -> Iterator[tuple[int, dict[int, bytes]]]:
    """The written sketches of a measure, by day and then by dimension, from the first day to before the last. Raises
    LedgerCorrupt."""
    for day, body in connection.execute(queries()["spread_rows"], (measure, first, last)):
        yield day, _decoded(body)


def everything(connection: sqlite3.Connection) -> Written:
    """All sketches in the file."""
    found: Written = {}
    for measure in range(len(MEASURES)):
        for day, bodies in read(connection, measure, -(2**62), 2**62):
            found.setdefault((measure, day), {}).update(bodies)
    return found


def change(written: Written, spreads: Mapping[Day, Mapping[int, Change]]) -> None:
    """Changes sketches in memory."""
    for place, dimensions in spreads.items():
        kept = written.setdefault(place, {})
        for dimension, (more, less) in dimensions.items():
            kept[dimension] = sketches.added(kept.get(dimension, b""), more, less)


def differing(kept: Written, wanted: Written) -> Iterator[tuple[Day, int]]:
    """The places and dimensions whose sketches do not say the same."""
    for place in sorted(kept.keys() | wanted.keys()):
        one, other = kept.get(place, {}), wanted.get(place, {})
        for dimension in sorted(one.keys() | other.keys()):
            left, right = one.get(dimension, b""), other.get(dimension, b"")
            if left != right and sketches.counted([left]) != sketches.counted([right]):
                yield place, dimension


def _decoded(body: bytes) -> dict[int, bytes]:
    try:
        return _DECODE(body)
    except (msgspec.DecodeError, ValueError) as error:
        raise LedgerCorrupt(
            f"The ledger is damaged: some of its spreads cannot be read: {error}.",
            money="Its totals are not touched, its percentiles cannot be trusted.",
            todo="Restore it from a backup.",
        ) from None
