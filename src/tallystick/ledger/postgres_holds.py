"""Holds in PostgreSQL: where one process decides asks and keeps those that wait, and one transaction of its work."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from tallystick.errors import InputError, LedgerCorrupt, TallyError
from tallystick.ledger.accounts import Figures, Place, Rules, Sums, shown
from tallystick.ledger.budget import Budget, Budgets
from tallystick.ledger.hold import Account, Granted, Hold, Seed
from tallystick.ledger.holds import Till, from_us, move
from tallystick.ledger.holds_budgets import budget_from, budget_text, edited, known_budget, without, wrong_accounts
from tallystick.ledger.holds_line import AskJob, HoldTask, repeated, serve, withdraw
from tallystick.ledger.holds_shelf import STATE_CODES, Known, record_of
from tallystick.ledger.moving import HoldRows
from tallystick.ledger.postgres_heart import DEAD_AFTER, Heart
from tallystick.ledger.postgres_link import Connection, Link, query
from tallystick.ledger.postgres_shelf import NO_CHANGES, PostgresShelf, Range, check_ask, kept, listed, ranges_of
from tallystick.ledger.writer import SettleJob, Task

LOOK: Final = 0.05
"""So often (in seconds) a process looks at its line while it cannot hear of changes."""

CALM: Final = 0.5
"""So often it looks at it otherwise."""

SWEEP: Final = 1.0
"""Seconds between two looks for dead owners while somebody waits."""

_LOOKS: Final = 8
"""After somebody else was faster, so many transactions look first."""

_LONGEST_WAIT: Final = 1e9
_CHUNK: Final = 2000
_PLACES: Final = msgspec.json.Decoder(frozenset[Place]).decode
_OTHERS: Final = msgspec.json.Decoder(list[tuple[int, str]] | None).decode
_NUMBERS: Final = msgspec.json.Decoder(list[int]).decode
_ENCODE: Final = msgspec.json.Encoder().encode

Others = list[tuple[int, frozenset[Place]]]
"""Number and places of asks of other processes."""


class Counter:
    """Where one process decides asks and keeps those that wait; it outlives connections. `heart` shows that it lives.

    Only the thread that writes uses it, within the ledger's lock.
    """

    def __init__(self, link: Link) -> None:
        self.owner_id = secrets.token_hex(8)
        self.heart = Heart(link, self.owner_id)
        self.line: list[AskJob] = []
        self._rules: Rules | None = None
        self._swept = 0.0
        self._looked = 0.0
        self._seen = 0.0
        self._missed = 0
        self._known = Known(-1)
        self._unsure = False

    def waiting(self) -> bool:
        """Whether asks wait."""
        return bool(self.line)

    def due(self) -> bool:
        """Whether it is time to look at the line: somebody has given something back, or time has passed."""
        now = time.monotonic()
        return (
            self.heart.woken
            or now >= self._looked + (CALM if self.heart.listening else LOOK)
            or any(job.until <= now or job.future.cancelled() for job in self.line)
        )

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

    def guess(
        self, connection: Connection, changed: Iterable[str], new: Iterable[AskJob | SettleJob], now_us: int
    ) -> HoldsSheet | None:
        """Work on holds without a look at them first, from what is known: writing it fails where somebody else was
        faster. None where too little is known, or where that was the case not long ago."""
        known, new = self._known, list(new)
        self._missed = max(0, self._missed - 1)
        asks = [*self.line, *[job for job in new if isinstance(job, AskJob)]]
        if (
            self._missed
            or self._unsure
            or known.rules is None
            or known.full
            or not all(hold_id in known.records for hold_id in changed)
            or any(claim.since is not None for job in asks for claim in job.ask.claims)
        ):
            return None
        self._looked = time.monotonic()
        self.heart.woken = False
        shelf = PostgresShelf(connection, known.rules, known)
        shelf.assume_new(job.ask.hold_id for job in asks)
        shelf.assume_new(job.call_id for job in new if isinstance(job, SettleJob))
        return HoldsSheet(self, connection, shelf, (now_us, known), guess=True)

    def sheet(self, connection: Connection, wanted: Iterable[str], ranges: Iterable[Range], now_us: int) -> HoldsSheet:
        """Work on holds in a transaction that has begun: takes the lock and reads what is `wanted`, holds by id and
        accounts by range, and what the line is about."""
        self._looked = time.monotonic()
        # Before the lock: what is changed after we have read wakes us again.
        self.heart.woken = False
        ids = {job.ask.hold_id for job in self.line}.union(hold_id for hold_id in wanted if kept(hold_id))
        spans = {span for job in self.line for span in ranges_of(job.ask.claims)}
        spans.update(span for span in ranges if all(map(kept, span)))
        values = self.owner_id, _ENCODE(list(ids)).decode(), _ENCODE(list(spans)).decode()
        row = connection.execute(query("open_holds"), values).fetchone()
        turn, version, holds, accounts, others = row or (0, None, None, None, None)
        if turn != self._known.version or self._known.full:
            self._known = Known(turn)
        known = self._known
        if self._rules is None or self._rules.version != int(version or 0):
            self._rules = read_rules(connection)
        known.rules = self._rules
        known.others = [(number, _PLACES(places)) for number, places in _OTHERS(others or "null") or ()]
        shelf = PostgresShelf(connection, self._rules, known)
        shelf.read(ids, spans, holds, accounts)
        sheet = HoldsSheet(self, connection, shelf, (now_us, known), guess=False)
        if self._unsure:
            numbers = [job.number for job in self.line if job.number is not None]
            connection.execute(query("drop_other_numbers"), (self.owner_id, numbers))
            sheet.touched = True
        return sheet

    def missed(self) -> None:
        """Somebody else was faster: for a while it is better to look first."""
        self._missed = _LOOKS

    def kept(self, line: list[AskJob], *, seen: bool) -> None:
        """A transaction stands; this is the line now."""
        self.line = line
        self._unsure = False
        if seen:
            self._seen = time.monotonic()

    def forget(self) -> None:
        """The connection is another one, and perhaps what it leads to."""
        self._rules = None
        self._known = Known(-1)

    def doubt(self, *, unsure: bool) -> None:
        """A transaction was taken back; `unsure` says that it may stand all the same."""
        self._known = Known(-1)
        self._unsure = self._unsure or unsure

    def appear(self) -> bool:
        """Before holds are made: whether to write that the owner lives."""
        self.heart.start()
        return time.monotonic() > self._seen + SWEEP

    def sweep_due(self) -> bool:
        """Whether the last look for dead owners was long enough ago."""
        return time.monotonic() >= self._swept + SWEEP

    def swept(self) -> None:
        """This was a look for dead owners."""
        self._swept = time.monotonic()


class HoldsSheet:
    """One transaction's work on holds: `till` are the rules on its shelf. Nothing outside of the transaction changes
    before `committed`; `undone` takes back what was told to tasks.

    A `guess` is done from what is known, and written only if nobody has written meanwhile; it is `hopeless` where it
    turns out to need a transaction. `touched` says that something was written that is neither hold nor account.
    """

    def __init__(
        self, counter: Counter, connection: Connection, shelf: PostgresShelf, at: tuple[int, Known], *, guess: bool
    ) -> None:
        self._counter = counter
        self._connection = connection
        self._now_us, self._known = at
        self.shelf = shelf
        self.till = Till(shelf, counter.owner_id, self._now_us)
        self.guess = guess
        self.hopeless = False
        self.touched = False
        self.done = False
        self._asks: list[AskJob] = []
        self._new: list[AskJob] = []
        self._decided: list[AskJob] = []
        self._waiting: list[AskJob] = list(counter.line)
        self._beat = False

    @property
    def turn(self) -> int:
        """What it is worked from."""
        return self._known.version

    def work(self, tasks: Sequence[HoldTask | AskJob]) -> None:
        """Does the tasks: what gives back or grows first, then the line, then new asks."""
        asks: list[AskJob] = []
        moves: list[HoldTask] = []
        for task in tasks:
            if isinstance(task, AskJob):
                asks.append(task)
            else:
                moves.append(task)
        withdraw(moves, (*self._waiting, *asks))
        for one in moves:
            one.attempt(self.till)
            one.durable = False
        if tasks:
            self._beat = self._counter.appear()
        self._asks = asks
        # Where a commit was made that we did not hear of, those that wait may have their hold.
        held = [job for job in self._waiting if self.shelf.record(job.ask.hold_id) is not None]
        if held:
            self._waiting = [job for job in self._waiting if job not in held]
        self._serve([*held, *asks])

    def sweep(self) -> list[str]:
        """Makes holds suspect that are overdue or whose owner is dead, and clears the line of the dead; the ids."""
        run = self._connection.execute
        dead = [row[0] for row in run(query("dead_owners"), (self._counter.owner_id, DEAD_AFTER)).fetchall()]
        found = run(query("lost_holds"), (self._now_us, dead)).fetchall()
        dropped = {row[0] for row in run(query("drop_waiters"), (dead,)).fetchall()}
        if dead:
            run(query("drop_owners"), (dead,))
        self._counter.swept()
        if dead or dropped:
            self.touched = True
            self._known.others = [other for other in self._others if other[0] not in dropped]
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

    def adopt(self, rows: HoldRows) -> None:
        """Takes over budgets, accounts and holds of another ledger. Raises InputError where there are some already."""
        run = self._connection.execute
        if self.shelf.rules.version or run(query("any_holds")).fetchone() != (False,):
            raise InputError(
                "The target has budgets of its own already.", money="None was copied.", todo="Name an empty database."
            )
        tables = (
            ("copy_budgets", rows.budgets),
            ("copy_accounts", rows.accounts),
            ("copy_rolled", rows.rolled),
            ("copy_holds", rows.holds),
        )
        for name, lines in tables:
            with self._connection.cursor().copy(query(name)) as copy:
                for line in lines:
                    copy.write_row(line)
        if rows.version:
            run(query("set_state"), ("ledger", "budgets", str(rows.version)))
        run(query("set_state"), rows.mark)
        self.touched = True

    def _ruled(self, rules: Rules, budget: Budget, *, dropped: bool) -> Budgets:
        self._connection.execute(query("keep_budget"), (budget.budget_id, budget_text(budget), dropped))
        self._connection.execute(query("set_state"), ("ledger", "budgets", str(rules.version)))
        self.touched = True
        self.shelf.rules = rules
        return rules.listed()

    def writes(self, *, always: bool) -> tuple[Any, ...] | None:
        """What `write_holds` has to write; None when nothing was changed, unless `always`."""
        changes = self.shelf.changes()
        served = [job.number for job in self._decided if job.number is not None]
        self._new = [job for job in self._waiting if job.number is None]
        if not (always or changes or served or self._new or self.touched):
            return None
        now = time.monotonic()
        waiters = [(min(_LONGEST_WAIT, max(0.0, job.until - now)), _places(job)) for job in self._new]
        wake = bool(self._others) and bool(self.shelf.freed or served or self.touched)
        head = self._counter.owner_id, self.turn if self.guess else None, self._beat
        return *head, *(changes or NO_CHANGES), listed(served), listed(waiters), wake

    def committed(self, turn: int | None, numbers: str | None) -> list[Task[Any]]:
        """The transaction stands, it was this turn (None: nothing was written), and those that are new in the line have
        got these numbers; returns the asks that are decided."""
        self.done = True
        for job, number in zip(self._new, _NUMBERS(numbers) if numbers else (), strict=True):
            job.number = number
        if turn is not None:
            self._known.version = turn
        if self.touched:
            self._known.rules = None
        self.shelf.learnt()
        self._counter.kept(self._waiting, seen=turn is not None and self._beat)
        for job in self._decided:
            # A commit is on the disk already, so nobody waits for a sync of ours.
            job.durable = False
        return list(self._decided)

    def undone(self, *, unsure: bool) -> None:
        """The transaction was taken back, or (`unsure`) perhaps not."""
        self._counter.doubt(unsure=unsure)
        for job in (*self._counter.line, *self._asks):
            job.receipt = job.error = None

    @property
    def _others(self) -> Others:
        return self._known.others or []

    def _serve(self, asks: Sequence[AskJob]) -> None:
        fresh: list[AskJob] = []
        for job in asks:
            (fresh if job.new(self.till, check_ask) else self._decided).append(job)
        if not fresh and not self._waiting:
            return
        for job in self._waiting:
            job.withdrawn = job.withdrawn or job.future.cancelled()
        twice = repeated(fresh)
        decided, self._waiting = serve(self.till, [*self._waiting, *fresh], self._others)
        if self._waiting and self._counter.sweep_due():
            if self.guess:
                self.hopeless = True
                return
            self.sweep()
            more, self._waiting = serve(self.till, self._waiting, self._others)
            decided += more
        self._decided += decided
        for job in decided:
            for claim in job.ask.claims:
                if claim.since is not None and isinstance(job.receipt, Granted):
                    self.shelf.roll(claim, self._now_us)
        if twice:
            self._serve(twice)


def read_rules(connection: Connection, known: Rules | None = None) -> Rules:
    """The budgets as they stand; those that are `known` where nothing has changed since."""
    row = connection.execute(query("get_state"), ("ledger", "budgets")).fetchone()
    version = int(row[0]) if row else 0
    if known is not None and known.version == version:
        return known
    rows = connection.execute(query("budgets")).fetchall()
    standing = [budget_from(body) for body, dropped in rows if not dropped]
    return Rules(version, standing, [budget_from(body) for body, dropped in rows if dropped])


def read_holds(connection: Connection, state: str | None, budget_id: str | None) -> list[Hold]:
    """The holds in a state and of a budget, oldest first."""
    if state in {"open", "suspect"}:
        rows = connection.execute(query(f"{state}_holds_listed"))
    elif state is None:
        rows = connection.execute(query("all_holds"))
    else:
        rows = connection.execute(query("holds_in_state"), (STATE_CODES.get(state, -1),))
    records = (record_of(row) for row in rows if row[2])
    return [
        record.hold()
        for record in records
        if budget_id is None or any(part.budget_id == budget_id for part in record.parts)
    ]


def read_accounts(connection: Connection, rules: Rules, budget_id: str | None, now_us: int) -> list[Account]:
    """The accounts by budget, value and period."""
    at = from_us(now_us)
    if budget_id is None:
        rows = connection.execute(query("all_accounts"))
    else:
        rows = connection.execute(query("accounts_of"), (budget_id,))
    return [shown((row[0], row[1], row[2]), Figures.of(row[3:]), rules, at) for row in rows]


def account_differences(connection: Connection) -> list[str]:
    """Where accounts differ from their seeds, holds and charges, in words. The caller holds a transaction."""
    found, wanted = Sums(), Sums()
    for row in connection.execute(query("all_accounts")):
        key = row[0], row[1], row[2]
        found[key] = Figures.of(row[3:])
        wanted[key] = Figures(found[key].seed)
    try:
        with connection.cursor("tallystick_holds") as cursor:
            cursor.execute(query("all_holds"))
            while rows := cursor.fetchmany(_CHUNK):
                for row in rows:
                    move(wanted, record_of(row), 1)
    except LedgerCorrupt as error:
        return [error.what]
    floors = {row[:2]: row[2] for row in connection.execute(query("all_rolled"))}
    for key in [key for key in wanted if key[2] < floors.get(key[:2], "")]:
        del wanted[key]
    return wrong_accounts(found, wanted)


def _places(job: AskJob) -> str:
    return _ENCODE(sorted(job.places)).decode()
