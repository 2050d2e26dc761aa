"""Holds in SQLite: a transaction's shelf, and the counter where one process decides asks and keeps those that wait."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from tallystick.errors import LedgerCorrupt, TallyError
from tallystick.ledger.accounts import Figures, Place, Rules, Sums, shown
from tallystick.ledger.budget import Budget, Budgets
from tallystick.ledger.hold import Account, Granted, Hold, Seed
from tallystick.ledger.holds import Till, from_us, move
from tallystick.ledger.holds_budgets import budget_from, budget_text, edited, known_budget, without, wrong_accounts
from tallystick.ledger.holds_line import AskJob, HoldTask, repeated, serve, withdraw
from tallystick.ledger.holds_shelf import STATE_CODES, Known, SqliteShelf, record_of
from tallystick.ledger.owners import Owner
from tallystick.ledger.sql import queries
from tallystick.ledger.store import get_state
from tallystick.ledger.writer import Task

SWEEP: Final = 0.1
"""Seconds between two looks for dead owners while somebody waits."""

GRACE_US: Final = 1_000_000
"""An ask whose time is over by so many microseconds is no longer in anybody's way."""

_PLACES: Final = msgspec.json.Decoder(frozenset[Place]).decode
_ENCODE: Final = msgspec.json.Encoder().encode


class Counter:
    """Where one process decides asks and keeps those that wait; it outlives connections. `owner` makes the holds.

    Only the thread that writes uses it, within the ledger's lock.
    """

    def __init__(self, path: Path) -> None:
        self.owner = Owner(path)
        self.line: list[AskJob] = []
        self.seen = -1
        self._rules: Rules | None = None
        self._known = Known(-1)
        self._swept = 0.0

    def waiting(self) -> bool:
        """Whether asks wait."""
        return bool(self.line)

    def late(self) -> bool:
        """Whether it is time to look at the line, whatever has changed."""
        now = time.monotonic()
        return now >= self._swept + SWEEP or any(job.until <= now or job.future.cancelled() for job in self.line)

    def leave(self, error: TallyError) -> list[Task[Any]]:
        """Gives up all asks that wait."""
        line: list[Task[Any]] = list(self.line)
        self.line = []
        for task in line:
            task.error = error
        return line

    def given_up(self, error: TallyError) -> list[Task[Any]]:
        """The ledger cannot be written: those that have waited long enough hear of it, the others wait on."""
        now = time.monotonic()
        over = [job for job in self.line if job.until <= now]
        self.line = [job for job in self.line if job.until > now]
        for job in over:
            job.error = error
        return list(over)

    def sheet(self, connection: sqlite3.Connection, now_us: int) -> HoldsSheet:
        """A transaction's work on holds."""
        if self.seen != self._known.version or self._known.full:
            self._known = Known(self.seen)
        known = self._known
        if known.rules is None:
            known.rules = self._rules = read_rules(connection, self._rules)
        return HoldsSheet(self, connection, known, now_us)

    def forget(self) -> None:
        """What is known may be wrong: something was written aside, or not written after all."""
        self._known = Known(-1)

    def sweep_due(self) -> bool:
        """Whether the last look for dead owners was long enough ago; if so, this is the next one."""
        now = time.monotonic()
        if now < self._swept + SWEEP:
            return False
        self._swept = now
        return True


class HoldsSheet:
    """One transaction's work on holds: `till` are the rules on its shelf. Nothing outside of the transaction changes
    before `committed`; `undone` takes back what was told to tasks."""

    def __init__(self, counter: Counter, connection: sqlite3.Connection, known: Known, now_us: int) -> None:
        self._counter = counter
        self._known = known
        self._connection = connection
        self._sql = queries()
        self._now_us = now_us
        self.shelf = SqliteShelf(connection, known.rules or Rules(0, ()), known)
        self.till = Till(self.shelf, counter.owner.owner_id, now_us)
        self._asks: list[AskJob] = []
        self._numbered: list[AskJob] = []
        self._decided: list[AskJob] = []
        self._waiting: list[AskJob] = list(counter.line)
        self.buried: list[str] = []

    def work(self, tasks: Sequence[HoldTask | AskJob], *, careful: bool) -> None:
        """Does the tasks: what gives back or grows first, then the line, then new asks. Without care asks are taken to
        be for new holds."""
        asks: list[AskJob] = []
        moves: list[HoldTask] = []
        for task in tasks:
            if isinstance(task, AskJob):
                asks.append(task)
            else:
                moves.append(task)
        if not careful:
            self.shelf.assume_new([job.ask.hold_id for job in asks])
        withdraw(moves, (*self._waiting, *asks))
        for one in moves:
            one.attempt(self.till)
        if asks:
            self._counter.owner.appear()
        self._asks = asks
        self._serve(asks)

    def sweep(self) -> list[str]:
        """Makes holds suspect that are overdue or whose owner is dead, and clears the line of the dead; the ids."""
        owners = [row[0] for row in self._connection.execute(self._sql["hold_owners"]).fetchall()]
        dead = [owner for owner in owners if not self._counter.owner.alive(owner)]
        found = self._connection.execute(self._sql["overdue_holds"], (self._now_us,)).fetchall()
        for owner in dead:
            found += self._connection.execute(self._sql["holds_of_owner"], (owner,)).fetchall()
            self._connection.execute(self._sql["drop_waiters_of"], (owner,))
        self._connection.execute(self._sql["drop_late_waiters"], (self._now_us - GRACE_US,))
        self._known.others = None
        self.buried += dead
        gone = []
        for (hold_id,) in found:
            record = self.shelf.record(hold_id)
            if record is not None and record.state == "open":
                self.till.suspect(record)
                gone.append(hold_id)
        return gone

    def put_budget(self, budget: Budget, seeds: Sequence[Seed]) -> Budgets:
        """See `Ledger.put_budget`."""
        rules = edited(self.shelf.rules, budget)
        for seed in seeds:
            self.shelf.seed((budget.budget_id, seed.value, seed.period), seed.settled)
        return self._ruled(rules, budget, dropped=False)

    def drop_budget(self, budget_id: str) -> Budgets:
        """See `Ledger.drop_budget`."""
        budget = known_budget(self.shelf.rules, budget_id)
        return self._ruled(without(self.shelf.rules, budget), budget, dropped=True)

    def _ruled(self, rules: Rules, budget: Budget, *, dropped: bool) -> Budgets:
        self._connection.execute(self._sql["keep_budget"], (budget.budget_id, budget_text(budget), int(dropped)))
        self._connection.execute(self._sql["set_state"], ("ledger", "budgets", str(rules.version)))
        self.shelf.rules = rules
        return rules.listed()

    def write(self) -> bool:
        """Writes what was changed; False when a hold that was taken to be new is not, which needs care."""
        try:
            self.shelf.write()
        except sqlite3.IntegrityError:
            if self.shelf.certain:
                raise
            return False
        over = [(job.number,) for job in self._decided if job.number is not None]
        if over:
            self._connection.executemany(self._sql["drop_waiter"], over)
        for job in self._waiting:
            if job.number is None:
                until = self._now_us + int(1_000_000 * max(0.0, job.until - time.monotonic()))
                values = self._counter.owner.owner_id, until, _ENCODE(sorted(job.places)).decode()
                job.number = self._connection.execute(self._sql["add_waiter"], values).fetchone()[0]
                self._numbered.append(job)
        return True

    def committed(self) -> list[Task[Any]]:
        """The transaction stands: the asks that are decided."""
        self.shelf.learnt()
        self._counter.line = self._waiting
        for owner in self.buried:
            self._counter.owner.bury(owner)
        return list(self._decided)

    def undone(self) -> None:
        """The transaction was taken back."""
        self._counter.forget()
        for job in self._numbered:
            job.number = None
        for job in (*self._counter.line, *self._asks):
            job.receipt = job.error = None

    def _serve(self, asks: Sequence[AskJob]) -> None:
        fresh: list[AskJob] = []
        for job in asks:
            (fresh if job.new(self.till) else self._decided).append(job)
        if not fresh and not self._waiting:
            return
        for job in self._waiting:
            job.withdrawn = job.withdrawn or job.future.cancelled()
        twice = repeated(fresh)
        decided, self._waiting = serve(self.till, [*self._waiting, *fresh], self._others())
        if self._waiting and self._counter.sweep_due():
            self.sweep()
            more, self._waiting = serve(self.till, self._waiting, self._others())
            decided += more
        self._decided += decided
        for job in decided:
            for claim in job.ask.claims:
                if claim.since is not None and isinstance(job.receipt, Granted):
                    self.shelf.roll(claim, self._now_us)
        if twice:
            self._serve(twice)

    def _others(self) -> list[tuple[int, frozenset[Place]]]:
        if self._known.others is None:
            rows = self._connection.execute(self._sql["other_waiters"], (self._counter.owner.owner_id,))
            self._known.others = [(number, _PLACES(places)) for number, places in rows]
        return self._known.others


def read_rules(connection: sqlite3.Connection, known: Rules | None = None) -> Rules:
    """The budgets as they stand; those that are `known` where nothing has changed since."""
    version = int(get_state(connection, "ledger", "budgets") or 0)
    if known is not None and known.version == version:
        return known
    rows = connection.execute(queries()["budgets"]).fetchall()
    standing = [budget_from(body) for body, dropped in rows if not dropped]
    return Rules(version, standing, [budget_from(body) for body, dropped in rows if dropped])


def read_holds(connection: sqlite3.Connection, state: str | None, budget_id: str | None) -> list[Hold]:
    """The holds in a state and of a budget, oldest first."""
    sql = queries()
    if state in {"open", "suspect"}:
        rows = connection.execute(sql[f"{state}_holds"])
    elif state is None:
        rows = connection.execute(sql["all_holds"])
    else:
        rows = connection.execute(sql["holds_in_state"], (STATE_CODES.get(state, -1),))
    records = (record_of(row) for row in rows if row[2])
    return [
        record.hold()
        for record in records
        if budget_id is None or any(part.budget_id == budget_id for part in record.parts)
    ]


def read_accounts(connection: sqlite3.Connection, rules: Rules, budget_id: str | None, now_us: int) -> list[Account]:
    """The accounts by budget, value and period."""
    at = from_us(now_us)
    return [
        shown((row[0], row[1], row[2]), Figures.of(row[3:]), rules, at)
        for row in connection.execute(queries()["accounts"])
        if budget_id in (None, row[0])
    ]


def account_differences(connection: sqlite3.Connection) -> list[str]:
    """Where accounts differ from their seeds, holds and charges, in words."""
    kept, wanted = Sums(), Sums()
    for row in connection.execute(queries()["accounts"]):
        key = row[0], row[1], row[2]
        kept[key] = Figures.of(row[3:])
        wanted[key] = Figures(kept[key].seed)
    try:
        for row in connection.execute(queries()["all_holds"]):
            move(wanted, record_of(row), 1)
    except LedgerCorrupt as error:
        return [error.what]
    floors = {row[:2]: row[2] for row in connection.execute(queries()["all_rolled"])}
    for key in [key for key in wanted if key[2] < floors.get(key[:2], "")]:
        del wanted[key]
    return wrong_accounts(kept, wanted)
