"""Words: what many calls share is written once and pointed at by number.

`Words` gives numbers while writing, `Names` gives the words back while reading.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Hashable
from operator import attrgetter
from typing import Any, Final

import msgspec

from tallystick.core.attribution import Tags
from tallystick.core.cost import Cost, Form, PricedKind
from tallystick.errors import LedgerCorrupt
from tallystick.ledger.entry import QUALITIES, SOURCES, STATUSES, Entry
from tallystick.ledger.sql import queries

CUBE_TAGS: Final = ("key", "team", "project")
"""The tags that are part of the day and month rollups."""

SLOT_AXES: Final = ("provider", "model", "tag:key", "tag:team", "tag:project", "status", "source")
"""What has a rollup by quarters of an hour of its own."""

_MAX_KEPT: Final = 50_000
_MAX_NEAR: Final = 5000
_UNKNOWN: Final = -1
_TABLES: Final = ("word", "dimension", "label")
_PLAIN: Final = attrgetter("provider", "model", "maker", "api", "requested_model", "tier", "region")
_SLOT_CODES: Final = (("source", SOURCES), ("status", STATUSES))
_DAY_CODES: Final = (*_SLOT_CODES, ("quality", QUALITIES))

Rows = tuple[tuple[int, int], ...]
"""Rows of a rollup, as (axis, value)."""


class Label(msgspec.Struct, frozen=True, gc=False):
    """The rollup rows that calls of one label add to: (axis, value) by quarter hours and by days."""

    dimension: int
    slots: Rows
    days: Rows


class _Shared(msgspec.Struct, frozen=True, gc=False):
    """The part of a label that all labels of one dimension have in common."""

    slots: Rows
    days: Rows


class Identity(msgspec.Struct, frozen=True, array_like=True):
    """What is behind a label's number."""

    provider: str
    model: str
    maker: str | None
    api: str | None
    requested_model: str | None
    tier: str | None
    region: str | None
    context: dict[str, str]
    tags: dict[str, str]


class Head(msgspec.Struct, frozen=True, array_like=True):
    """What many costs share: all but the figures. `priced` are numbers of words."""

    basis: str
    rate_ids: tuple[str, ...]
    catalogue: str | None
    notes: tuple[str, ...]
    kinds: tuple[str, ...]
    priced: tuple[int | None, ...]


class _Priced(msgspec.Struct, frozen=True, array_like=True):
    """A PricedKind with its exact price as text, as it may be longer than 64 bits."""

    kind: PricedKind
    numerator: str
    denominator: str


_QUERIES: Final = {
    "word": ("word_id", "add_word"),
    "dimension": ("dimension_id", "add_dimension"),
    "label": ("label_id", "add_label"),
    "run": ("run_row", "add_run_row"),
}
_ADD: Final = {
    "word": "INSERT INTO word (id, text) VALUES (?, ?)",
    "dimension": "INSERT INTO dimension (id, provider, model, maker, key, team, project) VALUES (?, ?, ?, ?, ?, ?, ?)",
    "label": "INSERT INTO label (id, identity, dimension, provider, model, maker, tags) VALUES (?, ?, ?, ?, ?, ?, ?)",
    "run": "INSERT INTO run (id, run_id) VALUES (?, ?)",
}

# Made here, as two threads that make msgspec look into a type for the first time can crash the interpreter.
_identity: Final = msgspec.json.Decoder(Identity).decode
_head: Final = msgspec.json.Decoder(Head).decode
_priced: Final = msgspec.json.Decoder(_Priced).decode


class Words:
    """Numbers for words, on the connection that writes. Only for use within a transaction. Without `adding` nothing is
    written: a word that has no number gets one below zero, for as long as this lives.

    Numbers given in a transaction that is rolled back must be forgotten: `rolled_back`.
    """

    def __init__(self, connection: sqlite3.Connection, *, adding: bool = True) -> None:
        self.connection = connection
        self._adding = adding
        self._below = 0
        self._kept: dict[Hashable, Any] = {}
        self._fresh: list[Hashable] = []
        # Priced kinds and tags are mostly the same few objects, and an object itself is the quickest key. Each is kept
        # alive beside its number, or another could take its place in memory.
        self._heads: dict[Hashable, tuple[int | None, Form]] = {}
        self._labels: dict[Hashable, tuple[int, Tags, Tags]] = {}
        self._runs: dict[str, int] = {}
        self._sql = queries()
        # Of a table whose highest number is the one in `tops` every row is in memory: a word that is not there is new,
        # and need not be looked for. Only a transaction of SQLite's keeps others from adding meanwhile.
        self._counting = adding and isinstance(connection, sqlite3.Connection)
        self._tops = dict.fromkeys((*_TABLES, "run"), 0)
        self._tops_before = self._tops.copy()
        self._highest: dict[str, int] = {}

    def begun(self) -> None:
        """A transaction has begun."""
        self._fresh.clear()
        self._highest.clear()
        if len(self._kept) > _MAX_KEPT:
            self._kept.clear()
            self._tops.update(dict.fromkeys(_TABLES, _UNKNOWN))
        if len(self._runs) > _MAX_KEPT:
            self._runs.clear()
            self._tops["run"] = _UNKNOWN
        self._tops_before = self._tops.copy()

    def rolled_back(self) -> None:
        """Forgets the numbers that were given since the transaction began."""
        for key in self._fresh:
            self._kept.pop(key, None)
        self._fresh.clear()
        self._heads.clear()
        self._labels.clear()
        self._runs.clear()
        self._highest.clear()
        self._tops = {**self._tops_before, "run": _UNKNOWN}

    def word(self, text: str) -> int:
        """The number of a text."""
        number: int | None = self._kept.get(text)
        if number is None:
            number = self._number("word", (text,))
            self._keep(text, number)
        return number

    def label(self, entry: Entry) -> int:
        """The number of an entry's label."""
        plain, context, tags = _PLAIN(entry), entry.context, entry.tags
        near = plain, id(context), id(tags)
        found = self._labels.get(near)
        if found is not None:
            return found[0]
        key = plain, context, tags
        number: int | None = self._kept.get(key)
        if number is None:
            number = self._keep(key, self._new_label(entry))
        if len(self._labels) >= _MAX_NEAR:
            self._labels.clear()
        self._labels[near] = number, context, tags
        return number

    def rows_of(self, label: int) -> Label:
        """The rollup rows that a label's calls add to."""
        found: Label | None = self._kept.get(("label", label))
        return self._keep(("label", label), self._rows_of(label)) if found is None else found

    def shape(self, kinds: tuple[str, ...]) -> int:
        """The number of the kinds of a usage."""
        number: int | None = self._kept.get(kinds)
        return self._keep(kinds, self.word(" ".join(kinds))) if number is None else number

    def run(self, run_id: str) -> int:
        """The number of a run."""
        number = self._runs.get(run_id)
        if number is None:
            number = self._runs[run_id] = self._number("run", (run_id,))
        return number

    def head(self, cost: Cost, form: Form) -> int | None:
        """The number of what a cost shares with others; `form` is that of its lines. None where the notes are about
        this very call, so that nobody shares them: see `bare_head`."""
        alike = id(form) if form.shared else (form.kinds, tuple(map(id, form.priced)), form.notes)
        near = alike, cost.basis, cost.rate_ids, cost.catalogue, cost.notes
        found = self._heads.get(near)
        if found is not None:
            return found[0]
        if cost.basis == "reported" or form.notes != tuple(["" if one is None else one.note for one in form.priced]):
            return None
        number = self._head_number(cost, form, cost.notes)
        if len(self._heads) >= _MAX_NEAR:
            self._heads.clear()
        self._heads[near] = number, form
        return number

    def bare_head(self, cost: Cost, form: Form) -> int:
        """The number of what a cost shares with others, without any notes."""
        return self._head_number(cost, form, ())

    def slot_rows(self, source: int, status: int) -> Rows:
        """The rows by quarter hours of a source and a status, given by their codes."""
        key = "slots", source, status
        rows: Rows | None = self._kept.get(key)
        return self._keep(key, self._coded("slot:", _SLOT_CODES, (source, status))) if rows is None else rows

    def day_rows(self, source: int, status: int, quality: int) -> Rows:
        """The rows by days of a source, a status and a quality, given by their codes."""
        key = "days", source, status, quality
        rows: Rows | None = self._kept.get(key)
        return self._keep(key, self._coded("day=", _DAY_CODES, (source, status, quality))) if rows is None else rows

    def _coded(self, prefix: str, axes: tuple[tuple[str, tuple[str, ...]], ...], codes: tuple[int, ...]) -> Rows:
        pairs = zip(axes, codes, strict=True)
        return tuple([(self.word(f"{prefix}{name}"), self.word(texts[code])) for (name, texts), code in pairs])

    def _head_number(self, cost: Cost, form: Form, notes: tuple[str, ...]) -> int:
        numbers = tuple([None if one is None else self._priced(one) for one in form.priced])
        head = Head(cost.basis, cost.rate_ids, cost.catalogue, notes, form.kinds, numbers)
        return self.word(msgspec.json.encode(head).decode())

    def _priced(self, priced: PricedKind) -> int:
        bare = msgspec.structs.replace(priced, numerator=0, denominator=1)
        return self.word(msgspec.json.encode(_Priced(bare, str(priced.numerator), str(priced.denominator))).decode())

    def _keep(self, key: Hashable, value: Any) -> Any:
        self._kept[key] = value
        self._fresh.append(key)
        return value

    def _number(self, table: str, key: tuple[str, ...], more: tuple[int | str | None, ...] = ()) -> int:
        """The number of a row in one of the tables of words, by its key; a new one has `more` besides."""
        number = self._next(table) if self._counting else None
        if number is not None:
            self.connection.execute(_ADD[table], (number, *key, *more))
            self._highest[table] = self._tops[table] = number
            return number
        find, add = _QUERIES[table]
        row = self.connection.execute(self._sql[find], key).fetchone()
        if row is None:
            if not self._adding:
                self._below -= 1
                return self._below
            row = self.connection.execute(self._sql[add], (*key, *more)).fetchone()
        found: int = row[0]
        return found

    def _next(self, table: str) -> int | None:
        """The number of the next row of a table of which every row is in memory, else None."""
        highest = self._highest.get(table)
        if highest is None:
            row = self.connection.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()  # noqa: S608 - constants
            highest = self._highest[table] = row[0]
        return highest + 1 if highest == self._tops[table] else None

    def _new_label(self, entry: Entry) -> int:
        tags = dict(entry.tags)
        identity = Identity(
            entry.provider, entry.model, entry.maker, entry.api, entry.requested_model, entry.tier, entry.region,
            dict(entry.context), tags,
        )  # fmt: skip
        dimension = self._dimension(identity)
        text = msgspec.json.encode(identity).decode()
        key = "identity", text
        number: int | None = self._kept.get(key)
        if number is None:
            texts = (entry.provider, entry.model, entry.maker, msgspec.json.encode(tags).decode())
            number = self._keep(key, self._number("label", (text,), (dimension, *texts)))
        # The rollups ask for them next.
        self._keep(("label", number), self._rows(identity, dimension))
        return number

    def _dimension(self, identity: Identity) -> int:
        tags = identity.tags
        parts = (identity.provider, identity.model, identity.maker or "", *[tags.get(name, "") for name in CUBE_TAGS])
        key = "dimension", parts
        number: int | None = self._kept.get(key)
        return self._keep(key, self._number("dimension", parts)) if number is None else number

    def _rows_of(self, label: int) -> Label:
        row = self.connection.execute(self._sql["label_identity"], (label,)).fetchone()
        if row is None:
            raise missing("label_identity", label)
        return self._rows(_identity(row[0]), row[1])

    def _rows(self, identity: Identity, dimension: int) -> Label:
        key = "shared", dimension
        shared: _Shared | None = self._kept.get(key)
        if shared is None:
            shared = self._keep(key, self._shared(identity))
        days = [(self.word(f"day:{name}"), self.word(tag)) for name, tag in identity.tags.items()]
        return Label(dimension, shared.slots, shared.days + tuple(days))

    def _shared(self, identity: Identity) -> _Shared:
        tags = identity.tags
        parts = (identity.provider, identity.model, *[tags.get(name, "") for name in CUBE_TAGS])
        slots = [(self.word(f"slot:{axis}"), self.word(part)) for axis, part in zip(SLOT_AXES, parts, strict=False)]
        plain = ("provider", identity.provider), ("model", identity.model), ("maker", identity.maker or "")
        return _Shared(tuple(slots), tuple([(self.word(f"day={name}"), self.word(part)) for name, part in plain]))


class Names:
    """Words for numbers, on a connection that reads. What a number means never changes, so it is kept."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._kept: dict[tuple[str, int], Any] = {}
        self._sql = queries()

    def word(self, number: int) -> str:
        """The text of a number."""
        found: str | None = self._kept.get(("word", number))
        return self._keep(("word", number), self._text("word_text", number)) if found is None else found

    def run(self, number: int | None) -> str | None:
        """The id of a run's number."""
        if number is None:
            return None
        found: str | None = self._kept.get(("run", number))
        return self._keep(("run", number), self._text("run_name", number)) if found is None else found

    def label(self, number: int) -> tuple[Identity, Tags, Tags]:
        """What is behind a label: its words, and context and tags as values."""
        found: tuple[Identity, Tags, Tags] | None = self._kept.get(("label", number))
        if found is not None:
            return found
        identity = _identity(self._text("label_identity", number))
        return self._keep(("label", number), (identity, Tags(identity.context), Tags(identity.tags)))  # type: ignore[no-any-return]

    def head(self, number: int) -> tuple[Head, Form]:
        """What a cost shares with others, and the form of its lines where they have no notes of their own."""
        found: tuple[Head, Form] | None = self._kept.get(("head", number))
        if found is not None:
            return found
        head = _head(self.word(number))
        priced = tuple([None if one is None else self.priced(one) for one in head.priced])
        form = Form(head.kinds, priced, tuple(["" if one is None else one.note for one in priced]), shared=True)
        return self._keep(("head", number), (head, form))  # type: ignore[no-any-return]

    def shape(self, number: int) -> tuple[str, ...]:
        """The kinds of a usage."""
        found: tuple[str, ...] | None = self._kept.get(("shape", number))
        return self._keep(("shape", number), tuple(self.word(number).split())) if found is None else found

    def priced(self, number: int) -> PricedKind:
        """A priced kind."""
        found: PricedKind | None = self._kept.get(("priced", number))
        if found is not None:
            return found
        stored = _priced(self.word(number))
        whole = msgspec.structs.replace(
            stored.kind, numerator=int(stored.numerator), denominator=int(stored.denominator)
        )
        return self._keep(("priced", number), whole)  # type: ignore[no-any-return]

    def _keep(self, key: tuple[str, int], value: Any) -> Any:
        if len(self._kept) > _MAX_KEPT:
            self._kept.clear()
        self._kept[key] = value
        return value

    def _text(self, query: str, number: int) -> str:
        row = self._connection.execute(self._sql[query], (number,)).fetchone()
        if row is None:
            raise missing(query, number)
        text: str = row[0]
        return text


def missing(query: str, number: int) -> LedgerCorrupt:
    """The error for a number that stands for nothing."""
    return LedgerCorrupt(
        f"The ledger is damaged: what its entries call {query} {number} is missing.",
        money="Its totals cannot be trusted.",
        todo="Restore it from a backup.",
    )
