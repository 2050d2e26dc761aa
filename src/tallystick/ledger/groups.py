"""Groups: what numbers in sums stand for: the values that a total is grouped by, for many numbers at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Final

import msgspec

from tallystick.ledger.entry import QUALITIES, SOURCES, STATUSES
from tallystick.ledger.sheets import CODES, RUNS, parts
from tallystick.ledger.words import Names, missing

CODED: Final = {"status": STATUSES, "quality": QUALITIES, "source": SOURCES}

Group = tuple[str | None, ...]

_FEW: Final = 300
_SPARSE: Final = 3
_CHUNK: Final = 200
_CODE_ORDER: Final = ("source", "status", "quality")
_COLUMNS: Final = ("provider", "model", "maker")
_TEXTS: Final = {True: "SELECT id, run_id FROM run", False: "SELECT id, text FROM word"}
_TAGS: Final = msgspec.json.Decoder(dict[str, str]).decode
_NO_TAGS: Final = "{}"


def values_of(
    connection: sqlite3.Connection, names: Names, axis: int, numbers: Collection[int]
) -> dict[int, str | None]:
    """The value behind each number of a sheet's axis: a word, or a run."""
    runs = axis == RUNS
    one = names.run if runs else names.word
    if len(numbers) < _FEW:
        return {number: one(number) or None for number in numbers}
    found = {number: text or None for number, text in _rows(connection, _TEXTS[runs], numbers)}
    return {number: found[number] if number in found else one(number) for number in numbers}


def dimensions(connection: sqlite3.Connection, columns: Collection[str], filters: dict[str, str]) -> dict[int, Group]:
    """The group of each dimension that passes the filters, both by the names of columns."""
    where = "".join(f" AND {column} = ?" for column in filters)
    listed = "".join(f", {column}" for column in columns)
    rows = connection.execute(f"SELECT id{listed} FROM dimension WHERE 1{where}", tuple(filters.values()))  # noqa: S608
    return {number: tuple([part or None for part in texts]) for number, *texts in rows}


class Groups:
    """The groups of calls, by their label, run, and the codes of source, status and quality."""

    def __init__(
        self, connection: sqlite3.Connection, names: Names, axes: tuple[str, ...], labels: Iterable[int]
    ) -> None:
        self._names = names
        self._coded = [(place, name) for place, name in enumerate(axes) if name in CODED or name == "run"]
        self._plain = (None,) * len(axes)
        labelled = len(self._coded) < len(axes)
        self._labels = _labels(connection, axes, set(labels)) if labelled else {}

    def of(self, label: int, codes: tuple[int, int, int], run: int | None) -> Group:
        """The group of a call; only what the axes need has to be right."""
        group = self._labels.get(label, self._plain)
        if not self._coded:
            return group
        values = list(group)
        for place, name in self._coded:
            values[place] = self._names.run(run) if name == "run" else CODED[name][codes[_CODE_ORDER.index(name)]]
        return tuple(values)


def cell_groups(groups: Groups, size: int, wanted: Group, cells: Iterable[int]) -> Callable[[int], Group | None]:
    """Gives the group of a cell: the first `size` values of its group, where the others are as wanted, else None."""
    codes = [parts(code)[1:] for code in range(CODES)]
    found: dict[int, Group | None] = {}
    for number in cells:
        label, code = divmod(number, CODES)
        group = groups.of(label, codes[code], None)
        found[number] = group[:size] if group[size:] == wanted else None
    return found.__getitem__


def _labels(connection: sqlite3.Connection, axes: tuple[str, ...], labels: set[int]) -> dict[int, Group]:
    """The values of each label; None for what a label does not know. Raises LedgerCorrupt."""
    tagged = any(axis.startswith("tag:") for axis in axes)
    statement = f"SELECT id, provider, model, maker, {'tags' if tagged else repr(_NO_TAGS)} FROM label"  # noqa: S608
    places = [(_COLUMNS.index(axis) if axis in _COLUMNS else None, axis.removeprefix("tag:")) for axis in axes]
    found: dict[int, Group] = {}
    for label, *texts, tags in _rows(connection, statement, labels):
        pairs: dict[str, str] = _TAGS(tags) if tagged else {}
        found[label] = tuple([pairs.get(name) if place is None else texts[place] for place, name in places])
    for label in labels - found.keys():
        raise missing("label_identity", label)
    return found


def _rows(connection: sqlite3.Connection, statement: str, numbers: Collection[int]) -> Iterator[tuple[Any, ...]]:
    """The rows with these ids, perhaps with others among them: where the ids are many and near each other, one look at
    the whole stretch is the fastest."""
    if not numbers:
        return
    first, last = min(numbers), max(numbers)
    if last - first < _SPARSE * len(numbers):
        yield from connection.execute(f"{statement} WHERE id >= ? AND id <= ?", (first, last))
        return
    ordered = sorted(numbers)
    many = f"{statement} WHERE id IN ({', '.join('?' * _CHUNK)})"
    for place in range(0, len(ordered), _CHUNK):
        some = ordered[place : place + _CHUNK]
        yield from connection.execute(many, some + some[-1:] * (_CHUNK - len(some)))
