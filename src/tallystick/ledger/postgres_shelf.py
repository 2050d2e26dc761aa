"""Shelf in PostgreSQL: where a transaction finds holds and accounts, mostly read at once, and what it changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from tallystick.errors import InputError
from tallystick.ledger.accounts import Figures, Key, Rules
from tallystick.ledger.hold import Ask, Charge, Claim, Seed
from tallystick.ledger.holds import Record
from tallystick.ledger.holds_shelf import KEPT_US, Known, record_of, row_of
from tallystick.ledger.postgres_link import Connection, query
from tallystick.ledger.postgres_rows import numbers, plain, texts

_SHORT: Final = 200
MAX_NAME: Final = 800
"""An id, and each part of an account's name, has at most so many bytes, as an index takes no more of them."""

Range = tuple[str, str, str, str]
"""The accounts of a budget and value from one period to another."""

_KEPT: Final = frozenset({0, 1, 2, 4, 5, 8, 9})
"""The columns of a hold that change, by their place in its row."""

_NONE_NEW: Final = (None,) * 10
_NONE_CHANGED: Final = (None,) * len(_KEPT)
NO_CHANGES: Final = (*_NONE_NEW, *_NONE_CHANGED, None, None)
"""What `PostgresShelf.changes` stands for where there is nothing to write."""

_ENCODE: Final = msgspec.json.Encoder().encode
_HOLDS: Final = msgspec.json.Decoder(list[tuple[str, int, str, int, int, int, int, str, str, str | None]] | None).decode
_ACCOUNTS: Final = msgspec.json.Decoder(list[tuple[str, ...]] | None).decode


class PostgresShelf:
    """A Shelf for one transaction. `read` takes in what was fetched at once; what else is not `known` is looked up when
    it is asked for."""

    def __init__(self, connection: Connection, rules: Rules, known: Known) -> None:
        self._connection = connection
        self.rules = rules
        self._known = known
        self._rows: dict[Key, Sequence[Any]] = {}
        self._looked: set[Range] = set()
        self._figures: dict[Key, Figures] = {}
        self._before: dict[Key, tuple[int, ...]] = {}
        self._records: dict[str, Record | None] = {}
        self._changed: dict[str, Record] = {}
        self._new: set[str] = set()
        self._given_back: set[str] = set()
        self._over: set[Key] = set()

    def read(self, wanted: Iterable[str], ranges: Iterable[Range], holds: str | None, accounts: str | None) -> None:
        """Takes in what `open_holds` found of these holds and accounts."""
        self._records = dict.fromkeys(wanted)
        self._looked.update(ranges)
        for row in _HOLDS(holds or "null") or ():
            record = self._records[row[0]] = record_of(row)
            for part in record.parts:
                self._looked.add((part.budget_id, part.value, part.since or part.period, part.period))
        for budget_id, value, period, *row in _ACCOUNTS(accounts or "null") or ():
            self._rows[budget_id, value, period] = row
        # Where a stretch was read, its last period was.
        self._looked.update([(budget_id, value, last, last) for budget_id, value, _, last in self._looked])

    def figures(self, key: Key) -> Figures:
        """The account, made if it is not there."""
        figures = self._figures.get(key)
        if figures is None:
            row = self._rows.get(key) or self._known.figures.get(key)
            if row is None and (*key, key[2]) not in self._looked:
                row = self._connection.execute(query("account"), key).fetchone()
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
        periods = {
            period
            for budget_id, value, period in (*self._rows, *self._figures)
            if (budget_id, value) == ends[:2] and first <= period <= claim.period
        }
        if ends not in self._looked:
            periods |= {row[0] for row in self._connection.execute(query("window"), ends).fetchall()}
            self._looked.add(ends)
        for period in periods:
            yield self.figures((claim.budget_id, claim.value, period))

    def record(self, hold_id: str) -> Record | None:
        """A hold."""
        if hold_id not in self._records and hold_id in self._known.records:
            self._records[hold_id] = self._known.records[hold_id]
        if hold_id not in self._records:
            row = self._connection.execute(query("hold_record"), (hold_id,)).fetchone() if kept(hold_id) else None
            self._records[hold_id] = None if row is None else record_of(row)
        return self._records[hold_id]

    def assume_new(self, hold_ids: Iterable[str]) -> None:
        """Does not look whether there are such holds; if there are, writing them fails."""
        for hold_id in hold_ids:
            if hold_id not in self._known.records:
                self._records.setdefault(hold_id, None)

    def keep(self, record: Record) -> None:
        """Stores a new or changed hold."""
        if self.record(record.hold_id) is None:
            self._new.add(record.hold_id)
        hold_id = record.hold_id
        if record.state == "released" and hold_id not in self._changed:
            self._given_back.add(hold_id)
        else:
            self._given_back.discard(hold_id)
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
        row = self._connection.execute(query("rolled"), key[:2]).fetchone()
        floor, left_at, at_us = ("", claim.since, now_us) if row is None else row
        if now_us - at_us >= KEPT_US:
            self._connection.execute(query("drop_accounts"), (*key[:2], left_at))
            floor, left_at, at_us = left_at, claim.since, now_us
            self._over |= {
                one
                for one in (*self._rows, *self._figures, *self._known.figures)
                if one[:2] == key[:2] and one[2] < floor
            }
        elif row is not None:
            return
        self._connection.execute(query("keep_rolled"), (*key[:2], floor, left_at, at_us))

    @property
    def freed(self) -> bool:
        """Whether some hold has come to an end, so that others may have a chance."""
        return any(record.state != "open" for record in self._changed.values())

    def changes(self) -> tuple[str | None, ...] | None:
        """The holds that are new, those that have changed, those given back and the accounts, as `write_holds` takes
        them; None when nothing was changed."""
        accounts = [
            (*key, *map(str, figures.row()))
            for key, figures in self._figures.items()
            if self._worth(key, figures.row())
        ]
        new, old, given_back = [], [], []
        for name, one in self._changed.items():
            if name in self._new:
                new.append(row_of(one))
            elif name in self._given_back:
                given_back.append(name)
            else:
                old.append(row_of(one))
        if not (self._changed or accounts):
            return None
        places = zip(*old, strict=True) if old else ()
        kept_ones = [values for number, values in enumerate(places) if number in _KEPT]
        return (
            *(map(_array, zip(*new, strict=True)) if new else _NONE_NEW),
            *(map(_array, kept_ones) if old else _NONE_CHANGED),
            texts(given_back) if given_back else None,
            listed(accounts),
        )

    def learnt(self) -> None:
        """The transaction stands: what it found and wrote is known to the next one."""
        known = self._known
        for key, figures in self._figures.items():
            row = figures.row()
            if (self._before[key] or any(row)) and key not in self._over:
                known.figures[key] = row
        for key in self._over:
            known.figures.pop(key, None)
        for hold_id, record in self._changed.items():
            if record.state == "open":
                known.records[hold_id] = record
            else:
                known.records.pop(hold_id, None)

    def _floor(self, budget_id: str, value: str) -> str:
        row = self._connection.execute(query("rolled"), (budget_id, value)).fetchone()
        return "" if row is None else str(row[0])

    def _worth(self, key: Key, row: tuple[int, ...]) -> bool:
        before = self._before[key]
        if key in self._over:
            return False
        return row != before if before else any(row)


def listed(values: Sequence[object]) -> str | None:
    """A JSON list, None for an empty one."""
    return _ENCODE(values).decode() if values else None


def _array(values: Sequence[Any]) -> str:
    return numbers(values) if isinstance(values[0], int) else texts(values)


def kept(text: str) -> bool:
    """Whether PostgreSQL can keep a text as an id."""
    if len(text) <= _SHORT and text.isascii() and "\0" not in text:
        return True
    try:
        return len(plain(text).encode()) <= MAX_NAME
    except InputError:
        return False


def check_ask(ask: Ask) -> None:
    """Raises InputError for an ask with a text that PostgreSQL cannot keep."""
    plain(ask.payload)
    _check((ask.hold_id, *[text for one in ask.claims for text in (one.budget_id, one.value, one.period, one.since)]))


def check_charges(hold_id: str, charges: Iterable[Charge]) -> None:
    """Raises InputError for charges with a text that PostgreSQL cannot keep."""
    _check((hold_id, *[text for one in charges for text in (one.budget_id, one.value, one.period)]))


def check_seeds(budget_id: str, seeds: Iterable[Seed]) -> None:
    """Raises InputError for a budget whose names PostgreSQL cannot keep."""
    _check((budget_id, *[text for one in seeds for text in (one.value, one.period)]))


def ranges_of(claims: Iterable[Claim]) -> Iterator[Range]:
    """The accounts that claims are about."""
    for one in claims:
        yield one.budget_id, one.value, one.period if one.since is None else one.since, one.period


def _check(texts: Iterable[str | None]) -> None:
    for text in texts:
        if text and not kept(text):
            raise InputError(
                f"PostgreSQL cannot keep the text {text[:80]!r} as a name.",
                money="No account was changed.",
                todo="Use a shorter one, of plain characters.",
            )
