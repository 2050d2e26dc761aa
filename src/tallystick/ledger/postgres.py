"""PostgresLedger: the ledger in a PostgreSQL database, for any number of machines."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec

from tallystick.core.periods import Period
from tallystick.core.periods import zone as check_zone
from tallystick.errors import InputError, LedgerCorrupt, LedgerError, LedgerUnavailable
from tallystick.ledger.accounts import Rules
from tallystick.ledger.answers import Question
from tallystick.ledger.budget import Budget, Budgets
from tallystick.ledger.entry import Correction, Entry
from tallystick.ledger.hold import Account, Ask, Charge, Granted, Hold, Refused, Seed, Settlement, Stale
from tallystick.ledger.holds_budgets import CHANGES
from tallystick.ledger.holds_line import AskJob, Extend, Release
from tallystick.ledger.ledger import EVERYTHING, KEEP, Item, Receipt
from tallystick.ledger.memory import closed
from tallystick.ledger.moving import HoldRows
from tallystick.ledger.percentiles import Gathered
from tallystick.ledger.postgres_answers import answer
from tallystick.ledger.postgres_audit import differences
from tallystick.ledger.postgres_book import Book
from tallystick.ledger.postgres_fold import FOLD_MOVES, fold, waiting
from tallystick.ledger.postgres_holds import (
    Counter,
    HoldsSheet,
    account_differences,
    read_accounts,
    read_holds,
    read_rules,
)
from tallystick.ledger.postgres_link import Connection, Link
from tallystick.ledger.postgres_link import query as named
from tallystick.ledger.postgres_pool import Pool
from tallystick.ledger.postgres_reading import Snapshot, corrections_of, entries
from tallystick.ledger.postgres_shelf import check_charges, check_seeds
from tallystick.ledger.postgres_spreads import answer as spread_answer
from tallystick.ledger.progress import Progress, watched
from tallystick.ledger.query import Order, Query, Top, Total, Totals, grouping
from tallystick.ledger.rollups import slot_floor
from tallystick.ledger.rows import decode
from tallystick.ledger.sketches import Spread
from tallystick.ledger.writer import GroupCommit, Job, SettleJob, Task

DEFAULT_TIMEOUT: Final = 5.0
"""So many seconds an append waits for the server to come back, or for another process in the way."""

T = TypeVar("T")


class _Desk:
    """The connections of one process. A forked child gets a new one."""

    def __init__(self, link: Link, clock: Callable[[], float], timeout: float) -> None:
        self.pool = Pool(link)
        self.counter = Counter(link)
        self.book = Book(link, self.counter, clock, timeout)
        self.writing = threading.RLock()
        self.rules: Rules | None = None
        self.moved = FOLD_MOVES
        """How many moves wait, as far as is known here; at first nobody knows."""

    def close(self) -> None:
        self.pool.close()
        self.book.close()


class PostgresLedger:
    """A Ledger in the database at `url` (`postgresql://user@host/database`), in the schema `tallystick`, which is made
    if missing.

    `zone` is the time zone of the days of a new ledger (UTC); an existing one keeps its own. `clock` gives seconds
    since 1970 UTC. An append tries for about `timeout` seconds while the server is away. `read_only` changes nothing in
    the database. Threads may share one; after a fork the child's copy works on its own. Every append is on the
    server's disk before it is acknowledged. Raises LedgerUnavailable, LedgerCorrupt, InputError for an address that
    cannot be read.
    """

    def __init__(
        self,
        url: str,
        *,
        zone: str | None = None,
        clock: Callable[[], float] = time.time,
        timeout: float = DEFAULT_TIMEOUT,
        read_only: bool = False,
    ) -> None:
        if zone is not None:
            check_zone(zone)
        self._clock = clock
        self._timeout = timeout
        self._read_only = read_only
        self._closed = False
        self._beating = False
        self._link = Link(url, timeout=timeout, read_only=read_only)
        self._desk = _Desk(self._link, clock, timeout)
        self._group = self._grouped()
        with contextlib.ExitStack() as undo:
            undo.callback(self._desk.close)
            with self._reading() as connection:
                self._link.prepare(connection)
                if not read_only:
                    now_us = int(clock() * 1_000_000)
                    for key, value in (("zone", zone or "UTC"), ("slot_floor", str(slot_floor(now_us)))):
                        connection.execute(named("found_state"), (key, value))
            undo.pop_all()
        _LIVE.add(self)

    @property
    def place(self) -> str:
        """The address of the database, without the password."""
        return self._link.place

    @property
    def zone(self) -> str:
        """The time zone of the ledger's days and months, an IANA name."""
        with self._reading() as connection:
            return _zone(connection)

    def append(self, items: Sequence[Item], *, durable: bool = False) -> Receipt:
        """Writes all items or none. See `Ledger.append`."""
        return self.submit(items, durable=durable).result()

    def submit(self, items: Sequence[Item], *, durable: bool = False) -> Future[Receipt]:  # noqa: ARG002 - all are
        """Like `append`, without waiting. See `Ledger.submit`."""
        # Each commit is on the disk already, so nobody waits for a sync of ours.
        return self._queue(Job(tuple(items), durable=False))

    def read(self, query: Query = EVERYTHING) -> Iterator[Entry]:
        """The calls that fit. See `Ledger.read`."""
        return entries(self._snapshots(), query)

    def total(
        self,
        query: Query = EVERYTHING,
        by: Sequence[str] = (),
        per: Period | None = None,
        progress: Progress | None = None,
    ) -> list[Total]:
        """Sums over the calls that fit. See `Ledger.total`."""
        return self._totals(query, tuple(by), per, progress).rows()

    def top(self, query: Query = EVERYTHING, by: Sequence[str] = (), order: Order = "cost", most: int = 50) -> Top:
        """The largest groups. See `Ledger.top`."""
        return self._totals(query, tuple(by), None, None).top(order, most)

    def spread(
        self,
        query: Query = EVERYTHING,
        by: Sequence[str] = (),
        per: Period | None = None,
        progress: Progress | None = None,
    ) -> list[Spread]:
        """Percentiles over the calls that fit. See `Ledger.spread`."""
        names_by = grouping(tuple(by), query)
        found = Gathered(names_by, per)
        with self._snapshots()() as (connection, _):
            known = spread_answer(connection, Question.of(query, names_by, per, _zone(connection)), found, progress)
        if not known:
            for entry in watched(self.read(query), query, progress):
                found.add_entry(entry)
        return found.rows()

    def _totals(self, query: Query, by: tuple[str, ...], per: Period | None, progress: Progress | None) -> Totals:
        names_by = grouping(by, query)
        totals = Totals(names_by, per)
        with self._snapshots()() as (connection, _):
            known = answer(connection, Question.of(query, names_by, per, _zone(connection)), totals, progress)
        if not known:
            totals = Totals(names_by, per)
            for entry in watched(self.read(query), query, progress):
                totals.add_entry(entry)
        return totals

    def corrections(self, call_id: str) -> tuple[Correction, ...]:
        """The corrections of a call, in their order."""
        with self._reading() as connection:
            return tuple(corrections_of(connection, [call_id]).get(call_id, ()))

    def joined(self, call_id: str) -> tuple[Entry, ...]:
        """The entries of other sources that were joined into a call."""
        with self._snapshots()() as (connection, names):
            rows = connection.execute(named("joined_into"), (call_id,)).fetchall()
            return tuple([decode(row, names) for row in rows])

    def state(self, namespace: str, key: str, value: str | msgspec.UnsetType | None = KEEP) -> str | None:
        """Text kept beside the calls. See `Ledger.state`."""
        if not isinstance(value, str) and value is not None:
            with self._reading() as connection:
                row = connection.execute(named("get_state"), (namespace, key)).fetchone()
                return None if row is None else str(row[0])
        if namespace == "ledger":
            raise InputError("The namespace 'ledger' is the ledger's own.", todo="Choose another one.")
        self._writable()
        with self._reading() as connection:
            if value is None:
                connection.execute(named("drop_state"), (namespace, key))
            else:
                connection.execute(named("set_state"), (namespace, key, value))
        return value

    def states(self, namespace: str) -> dict[str, str]:
        """All keys of a namespace with their text, by key."""
        with self._reading() as connection:
            return dict(connection.execute(named("all_state"), (namespace,)).fetchall())

    def authorise(self, ask: Ask, *, wait: float = 0.0, ample: bool = False) -> Future[Granted | Refused | Stale]:
        """Sets money aside. See `Ledger.authorise`."""
        return self._queue(AskJob(ask, wait, ahead=ample))

    def extend(self, hold_id: str, output: int) -> Future[int]:
        """Lets a hold cover more. See `Ledger.extend`."""
        return self._queue(Extend(hold_id, output))

    def settle(
        self,
        entry: Entry,
        settlement: Settlement,
        *,
        durable: bool = False,  # noqa: ARG002 - all are
        later: bool = False,
    ) -> Future[Receipt]:
        """Enters a call and ends its hold. See `Ledger.settle`."""
        return self._queue(SettleJob(entry, settlement, durable=False), later=later)

    def release(self, hold_id: str) -> Future[None]:
        """Gives a hold back. See `Ledger.release`."""
        return self._queue(Release(hold_id))

    def resolve(self, hold_id: str, charges: Sequence[Charge] | None) -> None:
        """An operator's word on a suspect hold. See `Ledger.resolve`."""
        check_charges(hold_id, charges or ())
        self._holding(lambda sheet: sheet.till.resolve(hold_id, charges))

    def expire(self) -> list[str]:
        """Makes the holds of the dead and the overdue ones suspect. See `Ledger.expire`."""
        return self._holding(HoldsSheet.sweep)

    def holds(self, state: str | None = None, budget_id: str | None = None) -> list[Hold]:
        """The holds. See `Ledger.holds`."""
        with self._snapshots()() as (connection, _):
            return read_holds(connection, state, budget_id)

    def accounts(self, budget_id: str | None = None) -> list[Account]:
        """The accounts. See `Ledger.accounts`."""
        with self._snapshots()() as (connection, _):
            return read_accounts(connection, self._rules(connection), budget_id, int(self._clock() * 1_000_000))

    def budgets(self) -> Budgets:
        """The budgets. See `Ledger.budgets`."""
        with self._snapshots()() as (connection, _):
            return self._rules(connection).listed()

    def put_budget(self, budget: Budget, seeds: Sequence[Seed] = ()) -> Budgets:
        """Adds or changes a budget. See `Ledger.put_budget`."""
        check_seeds(budget.budget_id, seeds)
        budgets = self._holding(lambda sheet: sheet.put_budget(budget, seeds))
        CHANGES.note()
        return budgets

    def drop_budget(self, budget_id: str) -> Budgets:
        """Takes a budget away. See `Ledger.drop_budget`."""
        budgets = self._holding(lambda sheet: sheet.drop_budget(budget_id))
        CHANGES.note()
        return budgets

    def adopt(self, rows: HoldRows) -> None:
        """Takes over all budgets, accounts and holds of another ledger, or none. Raises InputError where there are some
        already."""
        self._holding(lambda sheet: sheet.adopt(rows))

    def flush(self) -> None:
        """Returns when everything submitted so far is safe from a power cut."""
        self._group.flush()

    def verify(self) -> list[str]:
        """Recomputes sums and hash chains from the entries; each difference in words. Reads the whole ledger, in its
        state of one instant, while others go on writing."""
        with self._snapshots()() as (connection, _):
            return differences(connection) or account_differences(connection)

    def close(self) -> None:
        """Writes what is pending and lets go of the connections."""
        if self._closed:
            return
        self._closed = True
        self._group.close()
        with self._desk.writing:
            self._desk.book.leave()
            self._desk.close()

    def waiting(self) -> bool:
        """Whether asks wait for holds in flight; for the writer."""
        return self._desk.counter.waiting()

    def due(self) -> bool:
        """Whether to look at those that wait; for the writer."""
        return self._desk.counter.due()

    def leave(self) -> list[Task[Any]]:
        """Gives up all asks that wait; for the writer."""
        return self._desk.counter.leave(closed())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _grouped(self) -> GroupCommit:
        return GroupCommit(self._commit, lambda: None, self._tidy, self)

    def _queue(self, task: Task[T], *, later: bool = False) -> Future[T]:
        self._writable()
        self._group.submit(task, later=later)
        return task.future

    def _holding(self, work: Callable[[HoldsSheet], T]) -> T:
        """Work on holds outside of the queue."""
        self._writable()
        desk = self._desk
        with desk.writing:
            found = desk.book.holding(work)
        self._group.touched()
        return found

    def _rules(self, connection: Connection) -> Rules:
        """The budgets; who asks often pays for a look at their version only."""
        rules = self._desk.rules = read_rules(connection, self._desk.rules)
        return rules

    def _writable(self) -> None:
        if self._closed:
            raise closed()
        if self._read_only:
            raise LedgerUnavailable(
                f"The ledger {self.place} was opened read-only.", money="Nothing was entered.", todo="Open it to write."
            )

    def _snapshots(self) -> Snapshot:
        if self._closed:
            raise LedgerUnavailable("The ledger is closed.", todo="Open it again.")
        return self._desk.pool.snapshot

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection]:
        if self._closed:
            raise LedgerUnavailable("The ledger is closed.", todo="Open it again.")
        with self._desk.pool.lend() as (connection, _):
            yield connection

    def _commit(self, tasks: list[Task[Any]]) -> list[Task[Any]]:
        desk = self._desk
        with desk.writing:
            done = desk.book.commit(tasks)
            desk.moved += sum(task.size for task in done if isinstance(task, Job))
            return done

    def _tidy(self) -> None:
        """Folds in what has moved, when much has. It is no matter if it cannot: what waits is counted all the same."""
        desk = self._desk
        if desk.moved < FOLD_MOVES:
            return
        desk.moved = 0
        with contextlib.suppress(LedgerError), desk.pool.lend() as (connection, _):
            found = waiting(connection)
            if found < FOLD_MOVES:
                desk.moved += found
            else:
                fold(connection, int(self._clock() * 1_000_000))

    def _before_fork(self) -> None:
        # Two processes cannot share a connection, so there must be none during a fork.
        with contextlib.suppress(LedgerUnavailable):
            self._group.flush()
        self._desk.writing.acquire()
        self._beating = self._desk.counter.heart.beating
        self._desk.counter.heart.stop()
        self._desk.close()

    def _after_fork_in_parent(self) -> None:
        self._desk.pool = Pool(self._link)
        if self._beating:
            self._desk.counter.heart.start()
        self._desk.writing.release()

    def _after_fork_in_child(self) -> None:
        self._desk = _Desk(self._link, self._clock, self._timeout)
        self._group = self._grouped()


def _zone(connection: Connection) -> str:
    row = connection.execute(named("get_state"), ("ledger", "zone")).fetchone()
    if row is None:
        raise LedgerCorrupt("The ledger has lost its own settings.", todo="Restore it from a backup.")
    return str(row[0])


_LIVE: Final[weakref.WeakSet[PostgresLedger]] = weakref.WeakSet()


def _close_all() -> None:
    for ledger in list(_LIVE):
        ledger.close()


def _open_ones() -> list[PostgresLedger]:
    return [ledger for ledger in _LIVE if not ledger._closed]  # noqa: SLF001 - of this module


def _before_fork() -> None:
    for ledger in _open_ones():
        ledger._before_fork()  # noqa: SLF001


def _after_fork_in_parent() -> None:
    for ledger in _open_ones():
        ledger._after_fork_in_parent()  # noqa: SLF001


def _after_fork_in_child() -> None:
    for ledger in _open_ones():
        ledger._after_fork_in_child()  # noqa: SLF001


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
