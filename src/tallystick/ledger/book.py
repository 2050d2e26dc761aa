"""Book: what one transaction writes: entries, corrections, the rollups they move, and a link of the hash chain."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from tallystick.errors import LedgerError, TallyError
from tallystick.ledger.entry import SOURCES, Correction, Entry
from tallystick.ledger.joining import JOIN, REPEAT, REPLACE, response_key, verdict
from tallystick.ledger.jsonform import amend, check_correction
from tallystick.ledger.ledger import Item, Receipt
from tallystick.ledger.memory import conflict, unknown_call
from tallystick.ledger.rollups import Calendar, Sums, slot_floor
from tallystick.ledger.rows import Row, decode, encode, from_us, to_us
from tallystick.ledger.sql import queries
from tallystick.ledger.store import begin, explained
from tallystick.ledger.sums import MAX_CALLS
from tallystick.ledger.words import Names, Words
from tallystick.ledger.writer import Job

_ENCODE_SORTED: Final = msgspec.json.Encoder(order="sorted").encode


class Book:
    """Writes batches on one connection. `writer_id` names the hash chain, `clock` gives seconds since 1970 UTC."""

    def __init__(
        self, connection: sqlite3.Connection, path: Path, writer_id: str, clock: Callable[[], float], timeout: float
    ) -> None:
        self._connection = connection
        self._path = path
        self._writer_id = writer_id
        self._clock = clock
        self._timeout = timeout
        self._words = Words(connection)
        self._calendar = Calendar("UTC")
        self._batch_no = 0
        self._hash = first_hash(writer_id)

    def commit(self, jobs: list[Job]) -> None:
        """Writes the jobs in one transaction; sets the receipt or the error of each."""
        try:
            with explained(self._path):
                if not self._transact(jobs, careful=False):
                    self._transact(jobs, careful=True)
        except LedgerError as error:
            for job in jobs:
                job.receipt = None
                job.error = error

    def _transact(self, jobs: list[Job], *, careful: bool) -> bool:
        connection = self._connection
        begin(connection, self._timeout)
        self._words.begun()
        done = False
        try:
            page = self._page()
            if careful:
                for job in jobs:
                    page.write_carefully(job)
            elif not page.write_quickly(jobs):
                return False
            link = page.finish(self._writer_id, self._batch_no, self._hash)
            connection.execute("COMMIT")
            done = True
            if link is not None:
                self._batch_no, self._hash = self._batch_no + 1, link
            return True
        finally:
            if not done:
                for job in jobs:
                    job.receipt = None
                self._words.rolled_back()
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def _page(self) -> _Page:
        sql = queries()
        seq, batch, floor, zone = self._connection.execute(sql["next_ids"]).fetchone()
        if zone != self._calendar.zone:
            self._calendar = Calendar(zone)
        now_us = int(self._clock() * 1_000_000)
        wanted = slot_floor(now_us)
        if wanted > int(floor):
            floor = wanted
            self._connection.execute(sql["drop_slots"], (wanted,))
            self._connection.execute(sql["drop_slot_kinds"], (wanted,))
            self._connection.execute(sql["set_state"], ("ledger", "slot_floor", str(wanted)))
        return _Page(self._connection, self._words, Sums(self._calendar, int(floor)), (seq, batch), now_us)


class _Page:
    """One transaction at work."""

    def __init__(
        self, connection: sqlite3.Connection, words: Words, sums: Sums, first: tuple[int, int], now_us: int
    ) -> None:
        self._connection = connection
        self._words = words
        self._sums = sums
        self._seq, self._batch = first
        self._now_us = now_us
        self._names = Names(connection)
        self._sql = queries()
        self._entries: list[tuple[Any, ...]] = []
        self._corrections: list[tuple[Any, ...]] = []

    def write_quickly(self, jobs: list[Job]) -> bool:
        """Writes jobs that hold only new entries, of calls nobody has seen; says whether that was so. If not, the
        transaction is spoilt."""
        rows, kinds = [], []
        seq, batch, now_us, words, add = self._seq, self._batch, self._now_us, self._words, self._sums.add
        for job in jobs:
            for item in job.items:
                if not isinstance(item, Entry):
                    return False
                try:
                    row = encode(item, words, now_us)
                except TallyError:
                    return False
                rows.append(row.columns(seq, batch, response_key(item)))
                kinds += [(seq, kind, count) for kind, count in row.rare.items()]
                self._entries.append(chained(row))
                add(row)
                seq += 1
                if len(rows) % MAX_CALLS == 0:
                    self._sums.write(self._connection, words)
            job.receipt = Receipt(written=len(job.items))
        try:
            self._connection.executemany(self._sql["add_entry"], rows)
        except sqlite3.IntegrityError:
            # Some call or provider's id is there already.
            return False
        self._connection.executemany(self._sql["add_entry_kind"], kinds)
        return True

    def write_carefully(self, job: Job) -> None:
        """Writes one job item by item, all or nothing of it."""
        connection = self._connection
        before = self._seq, len(self._entries), len(self._corrections)
        connection.execute("SAVEPOINT job")
        try:
            job.receipt = self._write_items(job.items)
            self._sums.write(connection, self._words)
        except TallyError as error:
            job.error, job.receipt = error, None
            connection.execute("ROLLBACK TO job")
            self._words.rolled_back()
            self._names = Names(connection)
            self._sums.clear()
            self._seq = before[0]
            del self._entries[before[1] :], self._corrections[before[2] :]
        connection.execute("RELEASE job")

    def finish(self, writer_id: str, batch_no: int, previous: str) -> str | None:
        """Writes the sums and the batch's link of the chain, which it returns; None when nothing was written."""
        if not self._entries and not self._corrections:
            return None
        self._sums.write(self._connection, self._words)
        link = link_hash(previous, self._entries, self._corrections)
        self._connection.execute(self._sql["add_batch"], (self._batch, writer_id, batch_no, link))
        return link

    def _write_items(self, items: Sequence[Item]) -> Receipt:
        written = known = 0
        joined: dict[str, str] = {}
        repeated: list[str] = []
        for number, item in enumerate(items, 1):
            outcome = self._correct(item) if isinstance(item, Correction) else self._enter(item, joined)
            if outcome == REPEAT:
                repeated.append(item.call_id if isinstance(item, Entry) else "")
            written += outcome not in (JOIN, None)
            known += outcome is None
            if number % MAX_CALLS == 0:
                self._sums.write(self._connection, self._words)
        return Receipt(written=written, known=known, joined=joined, repeated=tuple(repeated))

    def _enter(self, entry: Entry, joined: dict[str, str]) -> str | None:
        row = encode(entry, self._words, self._now_us)
        known = self._one("entry_by_call", row.call_id)
        if known is not None:
            _, _, started_us, settled_us, _, run, body, _ = known
            if (started_us, settled_us, run, body) != (row.started_us, row.settled_us, row.run, row.body):
                raise conflict(row.call_id)
            return None
        key = response_key(entry)
        standing = None if key is None else self._one("entry_by_response", key)
        if standing is None:
            self._insert(row, key)
            self._sums.add(row)
            return REPLACE
        holder, source, recorded_us, holder_id = standing
        found = verdict(SOURCES[source], entry.source)
        if found == REPLACE:
            self._join_family(holder, row, joined)
            self._insert(row, key)
            self._sums.add(row)
            return found
        seq = self._insert(row, None)
        if found == JOIN:
            self._run("hold_entry", holder, max(recorded_us, row.recorded_us), seq)
            joined[row.call_id] = holder_id
        else:
            self._run("flag_repeated", holder, seq)
            self._sums.add(row)
        return found

    def _join_family(self, holder: int, row: Row, joined: dict[str, str]) -> None:
        """A better source has arrived: all that stood for the call become attributes of it."""
        for seq, *columns, known_us in self._connection.execute(self._sql["family"], (holder,)).fetchall():
            entry = decode(tuple(columns), self._names)
            joined_us = known_us
            if joined_us is None:
                standing = amend(entry, self._corrections_of(seq))
                self._sums.remove(encode(standing, self._words, self._now_us))
                joined_us = max(row.recorded_us, columns[3])
            self._run("hold_entry", self._seq, joined_us, seq)
            if entry.call_id in joined:
                joined[entry.call_id] = row.call_id

    def _correct(self, correction: Correction) -> str | None:
        check_correction(correction)
        body = _ENCODE_SORTED({"reason": correction.reason, "fields": correction.fields}).decode()
        stored = to_us(correction.recorded_at), body, correction.corrects
        known = self._one("correction_by_id", correction.correction_id)
        if known is not None:
            if known != stored:
                raise conflict(correction.correction_id)
            return None
        found = self._one("entry_by_call", correction.corrects)
        if found is None:
            raise unknown_call(correction.corrects)
        seq, *columns, joined_us = found
        entry = decode(tuple(columns), self._names)
        earlier = self._corrections_of(seq)
        before = encode(amend(entry, earlier), self._words, self._now_us)
        after = encode(amend(entry, [*earlier, correction]), self._words, self._now_us)
        if joined_us is None:
            self._sums.remove(before)
            self._sums.add(after)
        self._run("amend_entry", *after.standing, seq)
        self._run("drop_entry_kinds", seq)
        for kind, count in after.rare.items():
            self._run("add_entry_kind", seq, kind, count)
        self._run("add_correction", self._batch, correction.correction_id, seq, stored[0], body)
        self._corrections.append((correction.correction_id, correction.corrects, stored[0], body))
        return REPLACE

    def _corrections_of(self, seq: int) -> list[Correction]:
        return read_corrections(self._connection, seq)

    def _insert(self, row: Row, key: str | None) -> int:
        seq = self._seq
        self._seq += 1
        self._run("add_entry", *row.columns(seq, self._batch, key))
        for kind, count in row.rare.items():
            self._run("add_entry_kind", seq, kind, count)
        self._entries.append(chained(row))
        return seq

    def _one(self, query: str, key: str) -> Any:
        return self._connection.execute(self._sql[query], (key,)).fetchone()

    def _run(self, query: str, *values: object) -> None:
        self._connection.execute(self._sql[query], values)


def read_corrections(connection: sqlite3.Connection, seq: int) -> list[Correction]:
    """The corrections of an entry, in their order."""
    found = []
    rows = connection.execute(queries()["corrections_of"], (seq,))
    for correction_id, recorded_us, text, call_id in rows:
        body = msgspec.json.decode(text)
        found.append(
            Correction(
                correction_id=correction_id,
                corrects=call_id,
                recorded_at=from_us(recorded_us),
                reason=body["reason"],
                fields=body["fields"],
            )
        )
    return found


def chained(row: Row) -> tuple[Any, ...]:
    """What of an entry goes into the hash chain: what never changes."""
    return row.call_id, row.started_us, row.settled_us, row.recorded_us, row.run, row.body


def first_hash(writer_id: str) -> str:
    """Where a writer's hash chain begins."""
    return hashlib.sha256(writer_id.encode()).hexdigest()


def link_hash(previous: str, entries: Sequence[tuple[Any, ...]], corrections: Sequence[tuple[Any, ...]]) -> str:
    """The next link of a chain: sha256 over the last link and the batch as JSON, in the order of seq."""
    return hashlib.sha256(msgspec.json.encode((previous, entries, corrections))).hexdigest()
