"""Leaf: a batch that touches what is known: repeated ids, corrections, calls that several sources saw.

All that the batch is about is read at once, decided in memory as `MemoryLedger` decides it, and written at once. The
caller has the ledger to itself meanwhile, so what was read stays true.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import msgspec

from tallystick.errors import TallyError
from tallystick.ledger.entry import Correction, Entry
from tallystick.ledger.joining import JOIN, REPEAT, REPLACE, response_key, verdict
from tallystick.ledger.jsonform import amend, check_correction
from tallystick.ledger.ledger import Item, Receipt
from tallystick.ledger.memory import conflict, cost_moved, unknown_call
from tallystick.ledger.postgres_link import Connection, query
from tallystick.ledger.postgres_rows import (
    SEQ_BITS,
    Kept,
    Line,
    Moved,
    add_entries,
    change_entries,
    columns,
    kept,
    response_id,
)
from tallystick.ledger.postgres_words import PostgresNames, PostgresWords
from tallystick.ledger.rows import decode, encode, from_us, to_us

_ENCODE_SORTED: Final = msgspec.json.Encoder(order="sorted").encode

Written = tuple[int, str, str]
"""A correction as it is kept: recorded_us, body, call_id."""


class Sheet(msgspec.Struct, frozen=True):
    """One append, ready to be written: its items, and beside each entry its line (None: a correction). `error` is set
    where an item cannot be kept."""

    items: Sequence[Item]
    lines: Sequence[Line | None]
    error: TallyError | None = None


class _Known(msgspec.Struct):
    """What is known of the calls that a batch is about; a copy per append, laid over the batch's own."""

    calls: ChainMap[str, Kept]
    families: ChainMap[int, tuple[str, ...]]
    holders: ChainMap[UUID, str]
    corrections: ChainMap[str, Written]
    amended: ChainMap[str, tuple[str, ...]]

    def copy(self) -> _Known:
        """What one append changes lies on top, so that it can be taken off again."""
        return _Known(*[getattr(self, name).new_child() for name in self.__struct_fields__])

    def keep(self, over: _Known) -> None:
        """Takes over what an append changed."""
        for name in self.__struct_fields__:
            getattr(self, name).update(getattr(over, name).maps[0])


class Leaf:
    """One batch at work, within a transaction that nobody else writes beside. `batch` is its id."""

    def __init__(self, connection: Connection, words: PostgresWords, batch: int, now_us: int) -> None:
        self.batch = batch
        self._connection = connection
        self._words = words
        self._names = PostgresNames(connection)
        self._first = self._seq = batch << SEQ_BITS
        self._now_us = now_us
        self._known = _Known(ChainMap(), ChainMap(), ChainMap(), ChainMap(), ChainMap())
        self._before: dict[str, Kept] = {}
        self._moves: list[Moved] = []
        self._written: list[tuple[str, str, int, str]] = []
        self._costs: list[tuple[str, int]] = []

    @property
    def costs(self) -> list[tuple[str, int]]:
        """The calls that the last append has corrected, and by how many picodollars."""
        return self._costs

    @property
    def moves(self) -> list[Moved]:
        """What the batch adds to the rollups."""
        return self._moves

    @property
    def entered(self) -> list[Kept]:
        """The new entries, in the order of seq."""
        found = [one for one in self._known.calls.values() if one.seq >= self._first]
        return sorted(found, key=lambda one: one.seq)

    @property
    def corrected(self) -> list[tuple[str, str, int, str]]:
        """The new corrections: correction_id, call_id, recorded_us, body."""
        return self._written

    def read(self, sheets: Sequence[Sheet]) -> None:
        """Reads all that the sheets are about."""
        items = [item for sheet in sheets if sheet.error is None for item in sheet.items]
        wanted = {item.call_id if isinstance(item, Entry) else item.corrects for item in items}
        keys = [key for item in items if isinstance(item, Entry) and (key := response_key(item)) is not None]
        fixes = [item.correction_id for item in items if isinstance(item, Correction)]
        rows = self._fetch("entries_by_call", list(wanted))
        standing = self._fetch("entries_by_response", [response_id(key) for key in keys])
        holders: dict[int, UUID] = {row[21]: row[0] for row in standing}
        rows += [row[1:] for row in standing]
        rows += self._fetch("entries_by_holder", list(holders))
        kinds: dict[int, dict[str, int]] = {}
        for seq, kind, quantity in self._fetch("kinds_of", list({row[20] for row in rows})):
            kinds.setdefault(seq, {})[kind] = quantity
        known = self._known
        for row in sorted({row[20]: row for row in rows}.values(), key=lambda row: row[20]):
            one = kept(row, kinds.get(row[20]))
            known.calls[row[0]] = self._before[row[0]] = one
            if one.holder in holders and one.holder is not None:
                self._join_to(one.holder, row[0])
            if one.seq in holders:
                known.holders[holders[one.seq]] = row[0]
        bound = [call_id for call_id, one in self._before.items() if one.amended]
        for identity, *written in self._fetch("corrections_of", bound):
            known.corrections[identity] = written[0], written[1], written[2]
            known.amended[written[2]] = (*known.amended.get(written[2], ()), identity)
        for identity, *written in self._fetch("corrections_by_id", fixes):
            known.corrections[identity] = written[0], written[1], written[2]

    def enter(self, sheet: Sheet) -> Receipt:
        """Enters one append, all or nothing of it. Raises TallyError."""
        if sheet.error is not None:
            raise sheet.error
        self._costs = []
        whole, seq, moves, written = self._known, self._seq, len(self._moves), len(self._written)
        self._known = whole.copy()
        try:
            receipt = self._enter_items(sheet)
        except TallyError:
            self._known, self._seq = whole, seq
            del self._moves[moves:], self._written[written:]
            raise
        whole.keep(self._known)
        self._known = whole
        return receipt

    def write(self) -> None:
        """Writes what has become of the calls, and their ids."""
        connection, entered = self._connection, self.entered
        if entered:
            calls = [(one.line.call_id, one.seq, one.started_us) for one in entered]
            connection.execute(query("add_calls"), columns(calls))
        before = self._before
        add_entries(connection, entered)
        calls_now = self._known.calls
        change_entries(connection, [calls_now[name] for name, one in before.items() if calls_now[name] is not one])
        standing = [(key, calls_now[name]) for key, name in self._known.holders.items()]
        changed = [(key, one.seq, one.started_us) for key, one in standing if one.seq >= self._first]
        if changed:
            connection.execute(query("set_responses"), columns(changed))
        for identity, call_id, recorded_us, body in self._written:
            connection.execute(query("add_correction"), (self.batch, identity, call_id, recorded_us, body))

    def _fetch(self, name: str, keys: Sequence[object]) -> list[tuple[Any, ...]]:
        return self._connection.execute(query(name), (keys,)).fetchall() if keys else []

    def _enter_items(self, sheet: Sheet) -> Receipt:
        written = known = 0
        joined: dict[str, str] = {}
        repeated: list[str] = []
        for item, line in zip(sheet.items, sheet.lines, strict=True):
            if isinstance(item, Correction):
                outcome = self._correct(item)
            elif line is not None:
                outcome = self._enter(item, line, joined)
                if outcome == REPEAT:
                    repeated.append(item.call_id)
            written += outcome not in (JOIN, None)
            known += outcome is None
        return Receipt(written=written, known=known, joined=joined, repeated=tuple(repeated))

    def _enter(self, entry: Entry, line: Line, joined: dict[str, str]) -> str | None:
        known = self._known.calls.get(line.call_id)
        if known is not None:
            before, after = known.line.chained, line.chained
            if (before[:2], before[3:]) != (after[:2], after[3:]):
                raise conflict(line.call_id)
            return None
        key = response_key(entry)
        hashed = None if key is None else response_id(key)
        holder = None if hashed is None else self._known.holders.get(hashed)
        if holder is None:
            return self._stand(line, hashed)
        standing = self._known.calls[holder]
        found = verdict(standing.line.source, entry.source)
        if found == REPLACE:
            self._join_family(standing, line, joined)
            return self._stand(line, hashed)
        if found == JOIN:
            joined_us = max(standing.line.recorded_us, line.recorded_us)
            self._join_to(standing.seq, line.call_id)
            self._put(Kept(self._next(), line, holder=standing.seq, joined_us=joined_us))
            joined[line.call_id] = holder
        else:
            self._join_to(standing.seq, line.call_id)
            self._put(Kept(self._next(), line, repeated=1, holder=standing.seq))
            self._moves.append(Moved(1, line))
        return found

    def _stand(self, line: Line, hashed: UUID | None) -> str:
        self._put(Kept(self._next(), line))
        self._moves.append(Moved(1, line))
        if hashed is not None:
            self._known.holders[hashed] = line.call_id
        return REPLACE

    def _join_family(self, standing: Kept, line: Line, joined: dict[str, str]) -> None:
        """A better source has arrived: all that stood for the call become attributes of it."""
        calls = self._known.calls
        for one in [standing, *[calls[name] for name in self._known.families.get(standing.seq, ())]]:
            self._join_to(self._seq, one.line.call_id)
            joined_us = one.joined_us
            if joined_us is None:
                self._moves.append(Moved(-1, one.line))
                joined_us = max(line.recorded_us, one.line.recorded_us)
            self._put(msgspec.structs.replace(one, holder=self._seq, joined_us=joined_us))
            if one.line.call_id in joined:
                joined[one.line.call_id] = line.call_id

    def _correct(self, correction: Correction) -> str | None:
        check_correction(correction)
        body = _ENCODE_SORTED({"reason": correction.reason, "fields": correction.fields}).decode()
        stored = to_us(correction.recorded_at), body, correction.corrects
        known = self._known.corrections.get(correction.correction_id)
        if known is not None:
            if known != stored:
                raise conflict(correction.correction_id)
            return None
        one = self._known.calls.get(correction.corrects)
        if one is None:
            raise unknown_call(correction.corrects)
        earlier = self._known.amended.get(correction.corrects, ())
        corrections = [read_correction(name, *self._known.corrections[name]) for name in earlier]
        arrived = decode(one.line.chained, self._names)
        whole = amend(arrived, [*corrections, correction])
        self._costs.append((correction.corrects, cost_moved(amend(arrived, corrections), whole)))
        after = encode(whole, self._words, self._now_us)
        line = one.line.amended(after.standing, after.rare)
        if one.joined_us is None:
            self._moves += [Moved(-1, one.line), Moved(1, line)]
        self._put(msgspec.structs.replace(one, line=line, amended=1))
        self._known.corrections[correction.correction_id] = stored
        self._known.amended[correction.corrects] = (*earlier, correction.correction_id)
        self._written.append((correction.correction_id, correction.corrects, stored[0], body))
        return REPLACE

    def _put(self, one: Kept) -> None:
        self._known.calls[one.line.call_id] = one

    def _join_to(self, holder: int, call_id: str) -> None:
        families = self._known.families
        families[holder] = (*families.get(holder, ()), call_id)

    def _next(self) -> int:
        self._seq += 1
        return self._seq - 1


def read_correction(identity: str, recorded_us: int, text: str, call_id: str) -> Correction:
    """A correction from its row."""
    body = msgspec.json.decode(text)
    return Correction(
        correction_id=identity,
        corrects=call_id,
        recorded_at=from_us(recorded_us),
        reason=body["reason"],
        fields=body["fields"],
    )
