"""Shelf: where a transaction in SQLite finds holds and accounts, and writes what it changed."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any, Final

import msgspec

from tallystick.errors import LedgerCorrupt
from tallystick.ledger.accounts import Figures, Key, Place, Rules
from tallystick.ledger.hold import HOLD_STATES, Claim
from tallystick.ledger.holds import Part, Record
from tallystick.ledger.sql import queries

KEPT_US: Final = 86_400_000_000
"""The accounts of a rolling budget are kept for at least so many microseconds after they left its window."""

MAX_KNOWN: Final = 20_000
"""So many accounts and open holds are remembered between transactions."""

STATE_CODES: Final = {state: code for code, state in enumerate(HOLD_STATES)}
_PARTS: Final = msgspec.json.Decoder(tuple[Part, ...]).decode
_ENCODE: Final = msgspec.json.Encoder().encode
_TOGETHER: Final = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
_ROW: Final = re.compile(r"VALUES (\([?, ]+\))")
_SIZES: Final = (1, 8, 32, 128)
_MOST_RELEASED: Final = _SIZES[-1]
_RELEASE: Final = {
    size: f"UPDATE hold SET state = {STATE_CODES['released']} WHERE hold_id IN ({', '.join('?' * size)})"  # noqa: S608
    for size in _SIZES
}


class Known:
    """What a connection knows without reading as long as nobody else has written: accounts, open holds, the budgets,
    and the asks of `others` that wait. `version` is the data_version it is good for."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.figures: dict[Key, tuple[int, ...]] = {}
        self.records: dict[str, Record] = {}
        self.rules: Rules | None = None
        self.others: list[tuple[int, frozenset[Place]]] | None = None

    @property
    def full(self) -> bool:
        """Whether it is time to forget."""
        return len(self.figures) + len(self.records) > MAX_KNOWN


class SqliteShelf:
    """A Shelf for one transaction: reads what is asked for once, and writes what was changed at the end."""

    def __init__(self, connection: sqlite3.Connection, rules: Rules, known: Known) -> None:
        self._connection = connection
        self._sql = queries()
        self.rules = rules
        self._known = known
        self._figures: dict[Key, Figures] = {}
        self._before: dict[Key, tuple[int, ...]] = {}
        self._records: dict[str, Record | None] = {}
        self._changed: dict[str, Record] = {}
        self._released: list[str] = []
        self._new: set[str] = set()
        self._over: set[Key] = set()

    def figures(self, key: Key) -> Figures:
        """The account, made if it is not there."""
        figures = self._figures.get(key)
        if figures is None:
            row = self._known.figures.get(key)
            if row is None:
                row = self._connection.execute(self._sql["account"], key).fetchone()
            if row is None and key[2] < self._floor(key[0], key[1]):
                self._over.add(key)
            figures = Figures() if row is None else Figures.of(row)
            self._figures[key] = figures
            self._before[key] = () if row is None else figures.row()
        return figures

    def window(self, claim: Claim) -> Iterator[Figures]:
        """The accounts of a rolling budget from `claim.since` to its period."""
        first = claim.since or ""
        ends = claim.budget_id, claim.value, first, claim.period
        periods = {row[0] for row in self._connection.execute(self._sql["window"], ends)}
        periods |= {
            period
            for budget_id, value, period in self._figures
            if (budget_id, value) == (claim.budget_id, claim.value) and first <= period <= claim.period
        }
        for period in periods:
            yield self.figures((claim.budget_id, claim.value, period))

    def record(self, hold_id: str) -> Record | None:
        """A hold."""
        if hold_id not in self._records:
            record = self._known.records.get(hold_id)
            if record is None:
                row = self._connection.execute(self._sql["hold_record"], (hold_id,)).fetchone()
                record = None if row is None else record_of(row)
            self._records[hold_id] = record
        return self._records[hold_id]

    @property
    def certain(self) -> bool:
        """Whether nothing was assumed."""
        return not self._new

    def assume_new(self, hold_ids: Iterable[str]) -> None:
        """Does not look whether there are such holds; if there are, `write` finds out and raises IntegrityError."""
        new = [one for one in hold_ids if one not in self._records and one not in self._known.records]
        self._records.update(dict.fromkeys(new))
        self._new.update(new)

    def keep(self, record: Record) -> None:
        """Stores a new or changed hold."""
        hold_id = record.hold_id
        if record.state == "released" and hold_id not in self._changed:
            self._released.append(hold_id)
        elif hold_id in self._changed and self._changed[hold_id].state == "released":
            self._released.remove(hold_id)
        self._records[hold_id] = self._changed[hold_id] = record

    def seed(self, key: Key, amount: int) -> None:
        """Gives an account that is not there yet something to begin with."""
        self.figures(key)
        if not self._before[key]:
            self._figures[key] = Figures(amount)

    def roll(self, claim: Claim, now_us: int) -> None:
        """A rolling budget has been claimed from: if that began a new period, those that left its window long ago are
        dropped."""
        key = claim.budget_id, claim.value, claim.period
        if claim.since is None or self._before.get(key):
            return
        row = self._connection.execute(self._sql["rolled"], key[:2]).fetchone()
        floor, left_at, at_us = ("", claim.since, now_us) if row is None else row
        if now_us - at_us >= KEPT_US:
            self._connection.execute(self._sql["drop_accounts"], (*key[:2], left_at))
            floor, left_at, at_us = left_at, claim.since, now_us
            dropped = {
                one for one in self._known.figures.keys() | self._figures if one[:2] == key[:2] and one[2] < floor
            }
            for one in dropped:
                self._known.figures.pop(one, None)
            self._over |= dropped
        elif row is not None:
            return
        self._connection.execute(self._sql["keep_rolled"], (*key[:2], floor, left_at, at_us))

    def write(self) -> None:
        """Writes what was changed."""
        accounts = [
            (*_texts(figures), *key) for key, figures in self._figures.items() if self._worth(key, figures.row())
        ]
        _write(self._connection, self._sql["keep_account"], accounts)
        given_back = set(self._released)
        new = [row_of(one) for name, one in self._changed.items() if name in self._new]
        old = [row_of(one) for name, one in self._changed.items() if name not in self._new and name not in given_back]
        _write(self._connection, self._sql["add_hold"], new)
        _write(self._connection, self._sql["keep_hold"], old)
        for first in range(0, len(self._released), _MOST_RELEASED):
            ids = self._released[first : first + _MOST_RELEASED]
            size = next(size for size in _SIZES if size >= len(ids))
            # To write one of them twice is no matter.
            self._connection.execute(_RELEASE[size], ids + ids[-1:] * (size - len(ids)))

    def learnt(self) -> None:
        """The transaction stands: what it found and wrote is known to the next one."""
        known = self._known
        for key, figures in self._figures.items():
            row = figures.row()
            if (self._before[key] or any(row)) and key not in self._over:
                known.figures[key] = row
        for hold_id, record in self._changed.items():
            if record.state == "open":
                known.records[hold_id] = record
            else:
                known.records.pop(hold_id, None)

    def _floor(self, budget_id: str, value: str) -> str:
        row = self._connection.execute(self._sql["rolled"], (budget_id, value)).fetchone()
        return "" if row is None else str(row[0])

    def _worth(self, key: Key, row: tuple[int, ...]) -> bool:
        before = self._before[key]
        if key in self._over:
            return False
        return row != before if before else any(row)


def _write(connection: sqlite3.Connection, statement: str, rows: Sequence[Sequence[object]]) -> None:
    """Executes an INSERT of one row for all these rows, as a rule in one step: in each a crowd of other threads comes
    to run, and a commit waits for all of them."""
    for first in range(0, len(rows), _TOGETHER[-1]):
        part = rows[first : first + _TOGETHER[-1]]
        size = next(size for size in _TOGETHER if size >= len(part))
        values = [*chain.from_iterable(part), *[None] * ((size - len(part)) * len(part[0]))]
        connection.execute(_for_rows(statement, size), values)


@cache
def _for_rows(statement: str, count: int) -> str:
    def rows(found: re.Match[str]) -> str:
        return f"SELECT * FROM (VALUES {', '.join([found[1]] * count)}) WHERE column1 IS NOT NULL"  # noqa: S608

    return _ROW.sub(rows, statement)


def record_of(row: Sequence[Any]) -> Record:
    """A hold from its row. Raises LedgerCorrupt."""
    try:
        parts = _PARTS(row[8])
    except msgspec.DecodeError as error:
        raise LedgerCorrupt(
            f"The ledger is damaged: the hold {row[0]} cannot be read: {error}.",
            money="Its accounts cannot be trusted.",
            todo="Restore it from a backup.",
        ) from None
    return Record(
        hold_id=row[0],
        state=HOLD_STATES[row[1]],
        owner=row[2],
        authorised_us=row[3],
        expires_us=row[4],
        output=row[5],
        unlearned=bool(row[6]),
        payload=row[7],
        parts=parts,
        settlement=row[9],
    )


def row_of(record: Record) -> tuple[Any, ...]:
    """The inverse of `record_of`."""
    return (
        record.hold_id,
        STATE_CODES[record.state],
        record.owner,
        record.authorised_us,
        record.expires_us,
        record.output,
        1 if record.unlearned else 0,
        record.payload,
        _ENCODE(record.parts).decode(),
        record.settlement,
    )


def _texts(figures: Figures) -> tuple[str, str, str, str, int, str]:
    seed, settled, suspect, held, unlearned, overdraft = figures.row()
    return str(seed), str(settled), str(suspect), str(held), unlearned, str(overdraft)
