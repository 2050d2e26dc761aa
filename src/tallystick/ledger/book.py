"""Book: what one transaction writes: entries, corrections, the rollups they move, and a link of the hash chain."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from tallystick.errors import LedgerError, TallyError
from tallystick.ledger.entry import SOURCES, Correction, Entry
from tallystick.ledger.holds import Till
from tallystick.ledger.holds_line import AskJob, HoldTask
from tallystick.ledger.holds_sqlite import Counter, HoldsSheet
from tallystick.ledger.joining import JOIN, REPEAT, REPLACE, response_key, verdict
from tallystick.ledger.jsonform import amend, check_correction
from tallystick.ledger.ledger import Item, Receipt
from tallystick.ledger.memory import conflict, cost_moved, unknown_call
from tallystick.ledger.pending import FOLD_CALLS, Batch, Pending, response_hash
from tallystick.ledger.rollups import Calendar, Sums, slot_floor
from tallystick.ledger.rows import Move, Row, decode, encode, from_us, to_us
from tallystick.ledger.sql import queries
from tallystick.ledger.store import begin, explained, write_rows
from tallystick.ledger.sums import HEAVY, MAX_CALLS, MAX_LIGHT_CALLS, Standing
from tallystick.ledger.words import Names, Words, missing
from tallystick.ledger.writer import Job, SettleJob, Task

_ENCODE_SORTED: Final = msgspec.json.Encoder(order="sorted").encode


class Book:
    """Writes batches on one connection; each book has a hash chain of its own. `counter` decides about holds, `clock`
    gives seconds since 1970 UTC."""

    def __init__(
        self, connection: sqlite3.Connection, path: Path, counter: Counter, clock: Callable[[], float], timeout: float
    ) -> None:
        self._connection = connection
        self._path = path
        self._counter = counter
        # What was learnt through another connection cannot be checked through this one.
        counter.forget()
        counter.seen = -1
        self._writer_id = os.urandom(8).hex()
        self._clock = clock
        self._timeout = timeout
        self._words = Words(connection)
        self._pending = Pending(connection)
        self._calendar = Calendar("UTC")
        self._batch_no = 0
        self._hash = first_hash(self._writer_id)

    def commit(self, tasks: Sequence[Task[Any]]) -> list[Task[Any]]:
        """Does the tasks in one transaction, and sets the receipt or the error of each that is done; returns those,
        and the asks of earlier ones that are decided now."""
        jobs: list[Job] = []
        others: list[HoldTask | AskJob] = []
        done: list[Task[Any]] = []
        for task in tasks:
            if isinstance(task, AskJob):
                others.append(task)
                continue
            if isinstance(task, Job):
                jobs.append(task)
            elif isinstance(task, HoldTask):
                others.append(task)
            done.append(task)
        try:
            with explained(self._path):
                found = self._transact(jobs, others, careful=False)
                if found is None:
                    found = self._transact(jobs, others, careful=True)
        except LedgerError as error:
            for task in tasks:
                task.receipt, task.error = None, error
            return [*tasks, *self._counter.given_up(error)]
        return done + (found or [])

    def _transact(
        self, jobs: Sequence[Job], others: Sequence[HoldTask | AskJob], *, careful: bool
    ) -> list[Task[Any]] | None:
        """Returns the asks that are decided; None when jobs have to be written with care and nothing was."""
        connection = self._connection
        begin(connection, self._timeout)
        self._words.begun()
        self._counter.seen = connection.execute("PRAGMA data_version").fetchone()[0]
        now_us = int(self._clock() * 1_000_000)
        holds: HoldsSheet | None = None
        done = False
        try:
            if others or not jobs or careful or any(isinstance(job, SettleJob) for job in jobs):
                holds = self._counter.sheet(connection, now_us)
            page = self._page(now_us) if jobs else None
            if page is not None and not self._write_jobs(page, jobs, holds, careful=careful):
                return None
            decided: list[Task[Any]] = []
            if holds is not None:
                holds.work(others, careful=careful)
                if not holds.write():
                    return None
            link = None if page is None else page.finish(self._writer_id, self._batch_no, self._hash)
            connection.execute("COMMIT")
            done = True
            if link is not None:
                self._batch_no, self._hash = self._batch_no + 1, link
            if holds is not None:
                decided = holds.committed()
            return decided
        finally:
            if not done:
                for job in jobs:
                    job.receipt = job.error = None
                if holds is not None:
                    holds.undone()
                self._words.rolled_back()
                self._pending.forget()
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def _write_jobs(self, page: _Page, jobs: Sequence[Job], holds: HoldsSheet | None, *, careful: bool) -> bool:
        """Writes entries and settles their holds; False when that needs care."""
        if careful and holds is not None:
            for job in jobs:
                page.write_carefully(job, holds.till)
            return True
        settled = [job for job in jobs if isinstance(job, SettleJob)]
        if holds is not None:
            try:
                if not all(holds.till.check(job.call_id, job.settlement) for job in settled):
                    return False
            except TallyError:
                return False
        if not page.write_quickly(jobs):
            return False
        if holds is not None:
            for job in settled:
                holds.till.settle(job.call_id, job.settlement)
        return True

    def _page(self, now_us: int) -> _Page:
        sql = queries()
        seq, batch, floor, zone, *pending = self._connection.execute(sql["next_ids"]).fetchone()
        if zone != self._calendar.zone:
            self._calendar = Calendar(zone)
        self._pending.begun(*pending)
        wanted = slot_floor(now_us)
        if wanted > int(floor):
            floor = wanted
            self._connection.execute(sql["drop_slots"], (wanted,))
            self._connection.execute(sql["drop_slot_kinds"], (wanted,))
            self._connection.execute(sql["set_state"], ("ledger", "slot_floor", str(wanted)))
        return _Page(self._words, self._pending, Sums(self._calendar, int(floor)), (seq, batch), now_us)


class _Page:
    """One transaction at work."""

    def __init__(self, words: Words, pending: Pending, sums: Sums, first: tuple[int, int], now_us: int) -> None:
        self._connection = words.connection
        self._words = words
        self._pending = pending
        self._sums = sums
        self._first, self._batch = first
        self._seq = self._first
        self._now_us = now_us
        self._names = Names(self._connection)
        self._sql = queries()
        self._entries: list[tuple[Any, ...]] = []
        self._corrections: list[tuple[Any, ...]] = []
        self._moves: list[Move] = []
        self._keys: list[int] = []
        self._own_keys: dict[int, list[int]] = {}
        self._moved: list[tuple[str, int]] = []

    def write_quickly(self, jobs: Sequence[Job]) -> bool:
        """Writes jobs that hold only new entries, of calls nobody has seen; says whether that was so. If not, the
        transaction is spoilt."""
        rows: list[Row] = []
        hashes: dict[int, int] = {}
        keyed = 0
        seq, now_us, words = self._seq, self._now_us, self._words
        add = rows.append
        for job in jobs:
            for item in job.items:
                if not isinstance(item, Entry):
                    return False
                try:
                    add(encode(item, words, now_us))
                except TallyError:
                    return False
                key = response_key(item)
                if key is not None:
                    hashes[response_hash(key)] = seq
                    keyed += 1
                seq += 1
            job.receipt = Receipt(written=len(job.items))
        if len(hashes) < keyed or self._pending.known(list(hashes)):
            return False
        stored = [row.stored for row in rows]
        try:
            write_rows(self._connection, self._sql["add_entry"], stored)
        except sqlite3.IntegrityError:
            # Some call is there already.
            return False
        kinds = [
            (place, kind, count)
            for place, row in enumerate(rows, self._seq)
            if row.rare is not None
            for kind, count in row.rare.items()
        ]
        self._connection.executemany(self._sql["add_entry_kind"], kinds)
        self._entries = [row.chained for row in rows]
        self._moves = [Move(*row.move(1)) for row in rows]
        self._keys = [number for pair in hashes.items() for number in pair]
        self._seq = seq
        return True

    def write_carefully(self, job: Job, till: Till) -> None:
        """Writes one job item by item, all or nothing of it, and moves the accounts it concerns."""
        connection = self._connection
        before = self._seq, len(self._entries), len(self._corrections), len(self._moves), len(self._keys)
        self._moved = []
        connection.execute("SAVEPOINT job")
        try:
            new = isinstance(job, SettleJob) and till.check(job.call_id, job.settlement)
            job.receipt = self._write_items(job.items)
        except TallyError as error:
            job.error, job.receipt = error, None
            connection.execute("ROLLBACK TO job")
            self._words.rolled_back()
            self._names = Names(connection)
            self._seq = before[0]
            del self._entries[before[1] :], self._corrections[before[2] :]
            for hashed in self._keys[before[4] :: 2]:
                self._own_keys[hashed].pop()
            del self._moves[before[3] :], self._keys[before[4] :]
        else:
            if isinstance(job, SettleJob) and new:
                till.settle(job.call_id, job.settlement)
            for call_id, difference in self._moved:
                till.correct(call_id, difference)
        connection.execute("RELEASE job")

    def finish(self, writer_id: str, batch_no: int, previous: bytes) -> bytes | None:
        """Writes what the batch adds to the sums, and its link of the chain, which it returns; None when nothing was
        written."""
        if not self._entries and not self._corrections:
            return None
        link = link_hash(previous, self._entries, self._corrections)
        values = self._batch, writer_id, batch_no, self._first, len(self._entries), link
        self._connection.execute(self._sql["add_batch"], values)
        calls = self._pending.calls + len(self._moves)
        standings = [move.standing for move in self._moves]
        weighty = bool(standings) and _weighty(standings)
        if calls >= FOLD_CALLS or weighty:
            self._fold(MAX_CALLS if weighty else MAX_LIGHT_CALLS)
        else:
            self._pending.write(self._batch, self._moves, self._keys)
        return link

    def _fold(self, size: int) -> None:
        """Brings all that is pending, and this batch, into the rollups and the index of responses; so many calls can be
        added up at once."""
        pairs: list[tuple[int, int]] = []
        moves: list[Move] = []
        for added in (*self._pending.take(), Batch(self._moves, self._keys)):
            moves += added.moves
            keys = iter(added.keys)
            pairs += zip(keys, keys, strict=True)
        for first in range(0, len(moves), size):
            self._sums.add(moves[first : first + size])
            if self._sums.full:
                self._sums.write(self._connection, self._words)
        self._sums.write(self._connection, self._words)
        pairs.sort()
        self._connection.executemany(self._sql["add_response"], pairs)

    def _write_items(self, items: Sequence[Item]) -> Receipt:
        written = known = 0
        joined: dict[str, str] = {}
        repeated: list[str] = []
        for item in items:
            outcome = self._correct(item) if isinstance(item, Correction) else self._enter(item, joined)
            if outcome == REPEAT:
                repeated.append(item.call_id if isinstance(item, Entry) else "")
            written += outcome not in (JOIN, None)
            known += outcome is None
        return Receipt(written=written, known=known, joined=joined, repeated=tuple(repeated))

    def _enter(self, entry: Entry, joined: dict[str, str]) -> str | None:
        row = encode(entry, self._words, self._now_us)
        known = self._one("entry_by_call", row.call_id)
        if known is not None:
            _, call_id, started_us, _, run, body, _ = known
            if (call_id, started_us, run, body) != (*row.chained[:2], *row.chained[3:]):
                raise conflict(row.call_id)
            return None
        key = response_key(entry)
        standing = None if key is None else self._standing(key)
        if standing is None:
            self._insert(row, key)
            self._moves.append(Move(*row.move(1)))
            return REPLACE
        holder, source, recorded_us, holder_id = standing
        found = verdict(SOURCES[source], entry.source)
        if found == REPLACE:
            self._join_family(holder, row, joined)
            self._insert(row, key)
            self._moves.append(Move(*row.move(1)))
            return found
        seq = self._insert(row, None)
        if found == JOIN:
            self._run("hold_entry", holder, max(recorded_us, row.recorded_us), seq)
            joined[row.call_id] = holder_id
        else:
            self._run("flag_repeated", holder, seq)
            self._moves.append(Move(*row.move(1)))
        return found

    def _standing(self, key: str) -> tuple[int, int, int, str] | None:
        """The entry that stands for a response: seq, source, recorded_us, call_id."""
        hashed = response_hash(key)
        for seq in self._pending.seqs(hashed) + self._own_keys.get(hashed, []):
            found = self._one("entry_by_seq", seq)
            if found is None:
                raise missing("entry_by_seq", seq)
            *columns, source, holder = found
            if holder is None and response_key(decode(tuple(columns), self._names)) == key:
                return seq, source, columns[2], columns[0]
        return None

    def _join_family(self, holder: int, row: Row, joined: dict[str, str]) -> None:
        """A better source has arrived: all that stood for the call become attributes of it."""
        for seq, *columns, known_us in self._connection.execute(self._sql["family"], (holder,)).fetchall():
            entry = decode(tuple(columns), self._names)
            joined_us = known_us
            if joined_us is None:
                standing = amend(entry, self._corrections_of(seq))
                self._moves.append(Move(*encode(standing, self._words, self._now_us).move(-1)))
                joined_us = max(row.recorded_us, columns[2])
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
        was, now = amend(entry, earlier), amend(entry, [*earlier, correction])
        before, after = (encode(one, self._words, self._now_us) for one in (was, now))
        self._moved.append((correction.corrects, cost_moved(was, now)))
        if joined_us is None:
            self._moves += [Move(*before.move(-1)), Move(*after.move(1))]
        self._run("amend_entry", *after.standing, seq)
        self._run("drop_entry_kinds", seq)
        for kind, count in (after.rare or {}).items():
            self._run("add_entry_kind", seq, kind, count)
        self._run("add_correction", self._batch, correction.correction_id, seq, stored[0], body)
        self._corrections.append((correction.correction_id, correction.corrects, stored[0], body))
        return REPLACE

    def _corrections_of(self, seq: int) -> list[Correction]:
        return read_corrections(self._connection, seq)

    def _insert(self, row: Row, key: str | None) -> int:
        seq = self._seq
        self._seq += 1
        self._run("add_entry", *row.stored)
        for kind, count in (row.rare or {}).items():
            self._run("add_entry_kind", seq, kind, count)
        if key is not None:
            hashed = response_hash(key)
            self._keys += [hashed, seq]
            self._own_keys.setdefault(hashed, []).append(seq)
        self._entries.append(row.chained)
        return seq

    def _one(self, query: str, key: str | int) -> Any:
        return self._connection.execute(self._sql[query], (key,)).fetchone()

    def _run(self, query: str, *values: object) -> None:
        self._connection.execute(self._sql[query], values)


def _weighty(standings: Sequence[Standing]) -> bool:
    """Whether a few thousand calls like the largest of these could overflow a sum. Only a cost can be below nothing;
    where none is, all of a call together is at least its largest figure, and much quicker to find."""
    least = min([standing[4] for standing in standings])
    if least < 0:
        return least <= -HEAVY or max(map(max, standings)) >= HEAVY
    return max(map(sum, standings)) >= HEAVY


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


def first_hash(writer_id: str) -> bytes:
    """Where a writer's hash chain begins."""
    return hashlib.sha256(writer_id.encode()).digest()


def link_hash(previous: bytes, entries: Sequence[tuple[Any, ...]], corrections: Sequence[tuple[Any, ...]]) -> bytes:
    """The next link of a chain: sha256 over the last link and the batch as MessagePack, in the order of seq. Of an
    entry call_id, started_us, recorded_us, run and body, which never change."""
    return hashlib.sha256(msgspec.msgpack.encode((previous, entries, corrections))).digest()
