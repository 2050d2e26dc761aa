"""Book in PostgreSQL: what one transaction of one process writes, and what it does when the server goes away.

Most batches hold new calls only: they claim their ids, which several processes can do at once, and are copied in. A
batch with anything else (a repeated id, a correction, a call that another source saw) is written by a `Leaf`, which
reads what is known first and has the ledger to itself for that moment. What moves accounts has them to itself from its
first look at them to its commit; all such work of all processes is done one batch after the other.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import psycopg

from tallystick.errors import InputError, LedgerCorrupt, LedgerError, LedgerUnavailable, TallyError
from tallystick.ledger.book import first_hash, link_hash
from tallystick.ledger.entry import Correction, Entry
from tallystick.ledger.holds_line import AskJob, HoldTask
from tallystick.ledger.joining import response_key
from tallystick.ledger.ledger import Receipt
from tallystick.ledger.postgres_batch import Batch, Doubt, Outcome
from tallystick.ledger.postgres_holds import Counter, HoldsSheet
from tallystick.ledger.postgres_leaf import Leaf, Sheet
from tallystick.ledger.postgres_link import Clash, Connection, ConnectionLost, Link, numbered, query, stale
from tallystick.ledger.postgres_pool import rolled_back
from tallystick.ledger.postgres_rows import add_moves, arrays, line, plain
from tallystick.ledger.postgres_shelf import check_charges
from tallystick.ledger.postgres_words import PostgresWords
from tallystick.ledger.rollups import Calendar, month_number
from tallystick.ledger.rows import from_us
from tallystick.ledger.writer import Job, SettleJob, Task

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5
_FIRST_MONTH: Final = 2015 * 12
_LAST_MONTH: Final = 2100 * 12 - 1

_LOOK: Final = 0.1
"""A connection that was used less than so many seconds ago is taken to be there."""

_KNOWN: Final = "TLY01"
# Who asked for a number of a word switched this off.
_SYNCED: Final = "SET LOCAL synchronous_commit TO on"

Statement = tuple[str, Sequence[Any]]
"""A statement with its values."""

T = TypeVar("T")


class Book:
    """Writes batches. `counter` decides about holds, `clock` gives seconds since 1970 UTC; while the server is away, or
    somebody in the way, a batch is tried again for about `timeout` seconds."""

    def __init__(
        self,
        link: Link,
        counter: Counter,
        clock: Callable[[], float],
        timeout: float,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._link = link
        self._counter = counter
        self._clock = clock
        self._timeout = timeout
        self._pause = pause
        self._connection: Connection | None = None
        self._words: PostgresWords | None = None
        self._calendar = Calendar("UTC")
        self._months: set[int] = set()
        self._writer_id = secrets.token_hex(8)
        self._batch_no = 0
        self._hash = first_hash(self._writer_id)
        self._doubt: Doubt | None = None
        self._used = 0.0

    def commit(self, tasks: Sequence[Task[Any]]) -> list[Task[Any]]:
        """Does the tasks in one transaction, and sets the receipt or the error of each that is done; returns those,
        and the asks of earlier ones that are decided now."""
        jobs = [task for task in tasks if isinstance(task, Job)]
        batch = Batch(jobs, [task for task in tasks if isinstance(task, HoldTask | AskJob)])
        # A look at the line is repeated soon enough.
        patience = self._timeout if tasks else 0.0
        waited, step = 0.0, _FIRST_PAUSE
        now_us = int(self._clock() * 1_000_000)
        while True:
            earlier = self._doubt
            try:
                with self._link.explained():
                    decided = self._attempt(batch, now_us)
            except (ConnectionLost, Clash) as error:
                self._settle_doubt(error, earlier)
                if waited < patience:
                    self._pause(step)
                    waited, step = waited + step, min(step * 2, _LONGEST_PAUSE)
                    continue
                return self._failed(tasks, _unsure(error) if self._doubt else error)
            except TallyError as error:
                self._settle_doubt(error, earlier)
                return self._failed(tasks, _unsure(error) if self._doubt else error)
            return _told(batch, decided)

    def holding(self, work: Callable[[HoldsSheet], T]) -> T:
        """Works on holds in a transaction of its own, outside of the queue. Raises TallyError."""
        batch, earlier = Batch([], []), self._doubt
        try:
            with self._link.explained():
                connection, words = self._ready()
                now_us = int(self._clock() * 1_000_000)
                with self._transaction(connection, words), self._counting(connection, batch, now_us) as holds:
                    if holds is None:
                        raise LedgerUnavailable("The ledger is closed.")
                    found = work(holds)
                    self._commit(connection, Doubt(None, batch, []), [], holds)
        except LedgerError as error:
            self._settle_doubt(error, earlier)
            raise (_unsure(error) if self._doubt else error) from None
        return found

    def leave(self) -> None:
        """The owner goes, and its open holds are nobody's. It is no matter if that cannot be written: soon it has not
        been seen for too long."""
        self._counter.heart.stop()
        connection = self._connection
        if connection is not None and not stale(connection):
            with contextlib.suppress(psycopg.Error):
                connection.execute(query("drop_owners"), ([self._counter.owner_id],))

    def close(self) -> None:
        """Lets go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _failed(self, tasks: Sequence[Task[Any]], error: TallyError) -> list[Task[Any]]:
        for task in tasks:
            task.receipt, task.error = None, error
        return [*tasks, *self._counter.given_up(error)]

    def _settle_doubt(self, error: TallyError, earlier: Doubt | None) -> None:
        """A server that says why it refused a commit has not made it; only one that went away leaves a doubt. What it
        says on the way to the next attempt is no word on the one before, whose doubt stays."""
        if isinstance(error, ConnectionLost):
            if self._connection is not None:
                # What the server says before it hangs up may arrive before the end itself.
                self._connection.close()
        elif self._doubt is not earlier:
            self._doubt = None

    def _attempt(self, batch: Batch, now_us: int) -> list[Task[Any]]:
        """Writes the batch; returns the asks that are decided."""
        connection, words = self._ready()
        if self._doubt is not None:
            doubt, made = self._doubt, self._was_made(connection, self._doubt)
            self._doubt = None
            if made and doubt.batch is batch:
                batch.outcomes = doubt.outcomes
        if batch.outcomes is not None and not batch.others:
            return []
        words.begun()
        jobs = batch.jobs if batch.outcomes is None else []
        self._learn(jobs, words)
        sheets = [self._sheet(job, words, now_us) for job in jobs]
        self._make_months(connection, sheets)
        if all(sheet.error is None and None not in sheet.lines for sheet in sheets):
            decided = self._write_quickly(connection, words, (batch, sheets), now_us)
            if decided is not None:
                return decided
        with self._transaction(connection, words), self._counting(connection, batch, now_us) as holds:
            leaf, outcomes = self._write_carefully((connection, words), jobs, sheets, holds, now_us)
            if holds is not None:
                holds.work(batch.others)
            link = self._finish(connection, leaf)
            last: list[Statement] = [] if link is None else [(_SYNCED, ())]
            return self._commit(connection, Doubt(link, batch, outcomes), last, holds)

    def _ready(self) -> tuple[Connection, PostgresWords]:
        connection, words = self._connection, self._words
        if connection is None or words is None or self._gone(connection):
            self.close()
            self._connection = connection = self._link.connect()
            row = connection.execute(query("get_state"), ("ledger", "zone")).fetchone()
            if row is None:
                raise LedgerCorrupt("The ledger has lost its own settings.", todo="Restore it from a backup.")
            self._calendar = Calendar(row[0])
            # Numbers of words are given for good, but a server put back from a backup may have forgotten some.
            self._words = words = PostgresWords(connection)
            self._months.clear()
            self._counter.forget()
        return connection, words

    def _gone(self, connection: Connection) -> bool:
        """Whether the server has hung up, as far as is known. Looking costs as much as a small statement, and who has
        only just been answered will hear of it soon enough."""
        now = time.monotonic()
        used, self._used = self._used, now
        return connection.closed or (now > used + _LOOK and stale(connection))

    def _was_made(self, connection: Connection, doubt: Doubt) -> bool:
        if doubt.link is None:
            # It is harmless to do it again.
            return False
        values = self._writer_id, self._batch_no, doubt.link
        made = connection.execute(query("batch_written"), values).fetchone() is not None
        if made:
            self._written(doubt.link)
        return made

    def _learn(self, jobs: Sequence[Job], words: PostgresWords) -> None:
        runs = {item.run_id for job in jobs for item in job.items if isinstance(item, Entry)}
        words.learn_runs({run for run in runs if run is not None and run.isprintable()})

    def _sheet(self, job: Job, words: PostgresWords, now_us: int) -> Sheet:
        """What a job writes; a fault in it is its own, and no other job's."""
        try:
            with self._link.explained():
                for item in job.items:
                    if isinstance(item, Correction):
                        plain(item.correction_id)
                        plain(item.corrects)
                if isinstance(job, SettleJob):
                    check_charges(job.call_id, job.settlement.charges)
                lines = [line(item, words, now_us) if isinstance(item, Entry) else None for item in job.items]
        except InputError as error:
            return Sheet(job.items, [], error)
        return Sheet(job.items, lines)

    def _make_months(self, connection: Connection, sheets: Sequence[Sheet]) -> None:
        for started_us in {one.started_us for sheet in sheets for one in sheet.lines if one is not None}:
            month = month_number(from_us(started_us).date())
            if month not in self._months and _FIRST_MONTH <= month <= _LAST_MONTH:
                connection.execute(query("add_month"), (month,))
                self._months.add(month)

    @contextlib.contextmanager
    def _transaction(self, connection: Connection, words: PostgresWords) -> Iterator[None]:
        connection.execute("BEGIN")
        try:
            yield
        finally:
            if not connection.closed and connection.info.transaction_status:
                rolled_back(connection)
                words.rolled_back()

    @contextlib.contextmanager
    def _counting(self, connection: Connection, batch: Batch, now_us: int) -> Iterator[HoldsSheet | None]:
        """The work on holds of a transaction that has begun; None when there is none to do."""
        if not batch.counted:
            yield None
            return
        holds = self._counter.sheet(connection, batch.holds(), batch.ranges(), now_us)
        try:
            yield holds
        finally:
            if not holds.done:
                holds.undone(unsure=self._doubt is not None)

    def _write_quickly(
        self, connection: Connection, words: PostgresWords, work: tuple[Batch, Sequence[Sheet]], now_us: int
    ) -> list[Task[Any]] | None:
        """Writes sheets that hold only new entries, of calls nobody has seen, in one statement, with what else there
        is to do; None where that was not so, and nothing was written."""
        batch, sheets = work
        doubt, last = self._statements(batch, sheets)
        try:
            if not batch.counted:
                return self._commit(connection, doubt, last, None)
            decided = self._guessed(connection, doubt, last, now_us)
            if decided is not None:
                return decided
            with self._transaction(connection, words), self._counting(connection, batch, now_us) as holds:
                if holds is None or not _settled(doubt.jobs, holds):
                    return None
                holds.work(batch.others)
                return self._commit(connection, doubt, last, holds)
        except psycopg.DatabaseError as error:
            if error.sqlstate == _KNOWN:
                self._doubt = None
                return None
            raise

    def _guessed(
        self, connection: Connection, doubt: Doubt, last: list[Statement], now_us: int
    ) -> list[Task[Any]] | None:
        """Does all that there is to do in one statement, from what is known of holds and accounts; None where that was
        not possible, and nothing was written."""
        others = doubt.batch.others
        changed = [task.hold_id for task in others if isinstance(task, HoldTask)]
        new = [*others, *doubt.jobs]
        holds = self._counter.guess(
            connection, changed, [task for task in new if isinstance(task, AskJob | SettleJob)], now_us
        )
        if holds is None:
            return None
        try:
            if _settled(doubt.jobs, holds):
                holds.work(others)
                if not holds.hopeless:
                    return self._commit_guess(connection, doubt, last, holds)
        except psycopg.errors.UniqueViolation:
            # There was such a hold.
            self._doubt = None
        finally:
            if not holds.done:
                holds.undone(unsure=self._doubt is not None)
        return None

    def _commit_guess(
        self, connection: Connection, doubt: Doubt, last: list[Statement], holds: HoldsSheet
    ) -> list[Task[Any]] | None:
        writes = holds.writes(always=bool(last))
        if writes is None:
            row = connection.execute(query("turn")).fetchone()
            found, numbers = (None, None) if row is None or row[0] != holds.turn else (row[0], None)
        else:
            self._doubt = doubt
            if last:
                cursor = psycopg.RawCursor(connection)
                row = cursor.execute(numbered("write_holds_and_calls"), (*last[0][1], *writes)).fetchone()
            else:
                row = connection.execute(query("write_holds"), writes).fetchone()
            self._doubt = None
            found, numbers = (None, None) if row is None else row[:2]
        if found is None:
            self._counter.missed()
            return None
        return self._done(doubt, holds, found, numbers)

    def _statements(self, batch: Batch, sheets: Sequence[Sheet]) -> tuple[Doubt, list[Statement]]:
        outcomes: list[Outcome] = [Receipt(written=len(sheet.lines)) for sheet in sheets]
        lines = [one for sheet in sheets for one in sheet.lines if one is not None]
        if not lines:
            return Doubt(None, batch, outcomes), []
        items = [item for sheet in sheets for item in sheet.items if isinstance(item, Entry)]
        link = link_hash(self._hash, [one.chained for one in lines], [])
        values = self._writer_id, self._batch_no, link, *arrays(lines, list(map(response_key, items)), self._calendar)
        return Doubt(link, batch, outcomes), [(query("write_calls"), values)]

    def _commit(
        self, connection: Connection, doubt: Doubt, last: list[Statement], holds: HoldsSheet | None
    ) -> list[Task[Any]]:
        """Runs the `last` statements and commits, all at once, as others may wait; returns the asks that are decided.
        Without work on holds a single statement is a transaction of its own."""
        writes = None if holds is None else holds.writes(always=False)
        turn = numbers = None
        if last or writes is not None:
            self._doubt = doubt
            if holds is None and not connection.info.transaction_status:
                for statement, values in last:
                    connection.execute(statement, values)
            else:
                turn, numbers = _ended(connection, last, writes)
            self._doubt = None
        return self._done(doubt, holds, turn, numbers)

    def _done(self, doubt: Doubt, holds: HoldsSheet | None, turn: int | None, numbers: str | None) -> list[Task[Any]]:
        """The transaction stands."""
        if doubt.link is not None:
            self._written(doubt.link)
        if doubt.batch.outcomes is None:
            doubt.batch.outcomes = doubt.outcomes
        return [] if holds is None else holds.committed(turn, numbers)

    def _write_carefully(
        self,
        at: tuple[Connection, PostgresWords],
        jobs: Sequence[Job],
        sheets: Sequence[Sheet],
        holds: HoldsSheet | None,
        now_us: int,
    ) -> tuple[Leaf, list[Outcome]]:
        """Writes each sheet item by item, all or nothing of it, and moves the accounts it concerns."""
        connection, words = at
        connection.execute(query("lock_writing"))
        leaf = Leaf(connection, words, _number(connection, "next_batch"), now_us)
        leaf.read(sheets)
        outcomes: list[Outcome] = []
        for job, sheet in zip(jobs, sheets, strict=True):
            settled = job if isinstance(job, SettleJob) and sheet.error is None else None
            try:
                new = (
                    holds is not None and settled is not None and holds.till.check(settled.call_id, settled.settlement)
                )
                outcomes.append(leaf.enter(sheet))
            except TallyError as error:
                outcomes.append(error)
                continue
            if holds is not None:
                if settled is not None and new:
                    holds.till.settle(settled.call_id, settled.settlement)
                for call_id, difference in leaf.costs:
                    holds.till.correct(call_id, difference)
        return leaf, outcomes

    def _finish(self, connection: Connection, leaf: Leaf) -> bytes | None:
        """Writes what the batch adds to the ledger and its sums, and its link of the chain, which it returns; None when
        there is nothing."""
        entries, corrections = leaf.entered, leaf.corrected
        if not entries and not corrections:
            return None
        batch = leaf.batch
        leaf.write()
        add_moves(connection, batch, leaf.moves, self._calendar)
        link = link_hash(self._hash, [one.line.chained for one in entries], corrections)
        values = batch, self._writer_id, self._batch_no, len(entries), link
        connection.execute(query("add_batch"), values)
        return link

    def _written(self, link: bytes) -> None:
        self._batch_no, self._hash = self._batch_no + 1, link


def _ended(
    connection: Connection, last: Sequence[Statement], writes: Sequence[Any] | None
) -> tuple[int | None, str | None]:
    """Ends a transaction in one round trip; returns the turn and the numbers of those that are new in the line."""
    asked = None
    with connection.pipeline():
        for statement, values in last:
            connection.execute(statement, values)
        if writes is not None:
            asked = connection.execute(query("write_holds"), writes)
        connection.execute("COMMIT")
    row = None if asked is None else asked.fetchone()
    return (None, None) if row is None else (row[0], row[1])


def _settled(jobs: Iterable[Job], holds: HoldsSheet) -> bool:
    """Ends the holds of new settlements; False when some are not new, or in conflict, which needs care."""
    settling = [job for job in jobs if isinstance(job, SettleJob)]
    try:
        if not all(holds.till.check(job.call_id, job.settlement) for job in settling):
            return False
    except TallyError:
        return False
    for job in settling:
        holds.till.settle(job.call_id, job.settlement)
    return True


def _told(batch: Batch, decided: Sequence[Task[Any]]) -> list[Task[Any]]:
    """The tasks that are done, with what became of them."""
    for job, outcome in zip(batch.jobs, batch.outcomes or (), strict=True):
        if isinstance(outcome, Receipt):
            job.receipt = outcome
        else:
            job.error = outcome
    return [*batch.jobs, *[task for task in batch.others if isinstance(task, HoldTask)], *decided]


def _number(connection: Connection, name: str) -> int:
    row = connection.execute(query(name)).fetchone()
    return 0 if row is None else int(row[0])


def _unsure(error: TallyError) -> LedgerUnavailable:
    return LedgerUnavailable(
        error.what,
        money="Whether the last calls and holds were entered is not known.",
        todo="Do it again once the server is back: what is there already stays as it is.",
    )
