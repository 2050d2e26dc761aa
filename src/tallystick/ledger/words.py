"""Words: what many calls share is written once and pointed at by number.

`Words` gives numbers while writing, `Names` gives the words back while reading.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Hashable
from typing import Any, Final

import msgspec

from tallystick.core.attribution import Tags
from tallystick.core.cost import Cost, PricedKind
from tallystick.errors import LedgerCorrupt
from tallystick.ledger.entry import Entry
from tallystick.ledger.sql import queries

CUBE_TAGS: Final = ("key", "team", "project")
"""The tags that are part of the day and month rollups."""

SLOT_AXES: Final = ("provider", "model", "tag:key", "tag:team", "tag:project", "status", "source")
"""What has a rollup by quarters of an hour of its own."""

_MAX_KEPT: Final = 50_000


class Label(msgspec.Struct, frozen=True, gc=False):
    """What many calls share, and the rollup rows they add to: (axis, value) by quarter hours and by days."""

    id: int
    dimension: int
    slots: tuple[tuple[int, int], ...]
    days: tuple[tuple[int, int], ...]


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
    """What many costs share."""

    basis: str
    rate_ids: tuple[str, ...]
    catalogue: str | None
    notes: tuple[str, ...]


class _Priced(msgspec.Struct, frozen=True, array_like=True):
    """A PricedKind with its exact price as text, as it may be longer than 64 bits."""

    kind: PricedKind
    numerator: str
    denominator: str


class Words:
    """Numbers for words, on the connection that writes. Only for use within a transaction.

    `priced_numbers` gives those of priced kinds by the id of the object. Numbers given in a transaction that is rolled
    back must be forgotten: `rolled_back`.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._kept: dict[Hashable, Any] = {}
        self._fresh: list[Hashable] = []
        # Priced kinds are compiled once per rate card, so the object itself is the quickest key. It is kept alive here,
        # or another could take its place in memory.
        self.priced_numbers: dict[int, tuple[PricedKind, int]] = {}
        self._sql = queries()

    def begun(self) -> None:
        """A transaction has begun."""
        self._fresh.clear()
        if len(self._kept) > _MAX_KEPT:
            self._kept.clear()
        if len(self.priced_numbers) > _MAX_KEPT:
            self.priced_numbers.clear()

    def rolled_back(self) -> None:
        """Forgets the numbers that were given since the transaction began."""
        for key in self._fresh:
            self._kept.pop(key, None)
        self._fresh.clear()
        self.priced_numbers.clear()

    def word(self, text: str) -> int:
        """The number of a text."""
        number: int | None = self._kept.get(text)
        if number is None:
            number = self._number("word_id", "add_word", (text,))
            self._keep(text, number)
        return number

    def label(self, entry: Entry) -> Label:
        """The label of an entry."""
        key = (
            entry.provider, entry.model, entry.maker, entry.api, entry.requested_model, entry.tier, entry.region,
            entry.context, entry.tags,
        )  # fmt: skip
        label: Label | None = self._kept.get(key)
        return self._keep(key, self._new_label(entry)) if label is None else label

    def run(self, run_id: str) -> int:
        """The number of a run."""
        key = ("run", run_id)
        number: int | None = self._kept.get(key)
        if number is None:
            number = self._number("run_row", "add_run_row", (run_id,))
            self._keep(key, number)
        return number

    def head(self, cost: Cost) -> int:
        """The number of what a cost shares with others."""
        key = ("head", cost.basis, cost.rate_ids, cost.catalogue, cost.notes)
        number: int | None = self._kept.get(key)
        if number is not None:
            return number
        head = Head(cost.basis, cost.rate_ids, cost.catalogue, cost.notes)
        number = self.word(msgspec.json.encode(head).decode())
        self._keep(key, number)
        return number

    def priced(self, priced: PricedKind | None) -> int | None:
        """The number of a priced kind; None for None."""
        if priced is None:
            return None
        known = self.priced_numbers.get(id(priced))
        if known is not None:
            return known[1]
        bare = msgspec.structs.replace(priced, numerator=0, denominator=1)
        text = msgspec.json.encode(_Priced(bare, str(priced.numerator), str(priced.denominator))).decode()
        number = self.word(text)
        self.priced_numbers[id(priced)] = priced, number
        return number

    def status_slot(self, status: str) -> tuple[int, int]:
        """The quarter-hour axis and value of a status."""
        return self.word("slot:status"), self.word(status)

    def source_slot(self, source: str) -> tuple[int, int]:
        """The quarter-hour axis and value of a source."""
        return self.word("slot:source"), self.word(source)

    def _keep(self, key: Hashable, value: Any) -> Any:
        self._kept[key] = value
        self._fresh.append(key)
        return value

    def _number(self, find: str, add: str, values: tuple[str, ...]) -> int:
        row = self._connection.execute(self._sql[find], values).fetchone()
        if row is None:
            row = self._connection.execute(self._sql[add], values).fetchone()
        number: int = row[0]
        return number

    def _new_label(self, entry: Entry) -> Label:
        tags = {name: entry.tags[name] for name in entry.tags}
        parts = (entry.provider, entry.model, *[tags.get(name, "") for name in CUBE_TAGS])
        dimension = self._number("dimension_id", "add_dimension", parts)
        identity = msgspec.json.encode(
            Identity(
                entry.provider, entry.model, entry.maker, entry.api, entry.requested_model, entry.tier, entry.region,
                dict(entry.context), tags,
            )
        ).decode()  # fmt: skip
        row = self._connection.execute(self._sql["label_id"], (identity,)).fetchone()
        if row is None:
            texts = (entry.provider, entry.model, entry.maker, msgspec.json.encode(tags).decode())
            row = self._connection.execute(self._sql["add_label"], (identity, dimension, *texts)).fetchone()
        slots = tuple([(self.word(f"slot:{axis}"), self.word(part)) for axis, part in zip(SLOT_AXES, parts)])  # noqa: B905
        days = tuple(
            [(self.word(f"day:{name}"), self.word(tag)) for name, tag in tags.items() if name not in CUBE_TAGS]
        )
        return Label(row[0], dimension, slots, days)


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
        identity = msgspec.json.decode(self._text("label_identity", number), type=Identity)
        return self._keep(("label", number), (identity, Tags(identity.context), Tags(identity.tags)))  # type: ignore[no-any-return]

    def head(self, number: int) -> Head:
        """What a cost shares with others."""
        found: Head | None = self._kept.get(("head", number))
        if found is not None:
            return found
        return self._keep(("head", number), msgspec.json.decode(self.word(number), type=Head))  # type: ignore[no-any-return]

    def priced(self, number: int) -> PricedKind:
        """A priced kind."""
        found: PricedKind | None = self._kept.get(("priced", number))
        if found is not None:
            return found
        stored = msgspec.json.decode(self.word(number), type=_Priced)
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
            raise LedgerCorrupt(
                f"The ledger is damaged: what its entries call {query} {number} is missing.",
                money="Its totals cannot be trusted.",
                todo="Restore it from a backup.",
            )
        text: str = row[0]
        return text
