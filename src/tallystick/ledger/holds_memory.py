"""Holds in memory: accounts, holds, budgets and the line of a ledger that forgets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

from tallystick.errors import TallyError
from tallystick.ledger.accounts import Figures, Key, Rules, shown
from tallystick.ledger.budget import Budget, Budgets
from tallystick.ledger.hold import Account, Charge, Claim, Hold, Seed, Settlement
from tallystick.ledger.holds import Record, Till, from_us, move
from tallystick.ledger.holds_budgets import CHANGES, edited, known_budget, without, wrong_accounts
from tallystick.ledger.holds_line import AskJob, serve

_OWNER = "memory"


class MemoryShelf:
    """A Shelf of dictionaries."""

    def __init__(self) -> None:
        self.rules = Rules(0, ())
        self.kept: dict[Key, Figures] = {}
        self.records: dict[str, Record] = {}

    def figures(self, key: Key) -> Figures:
        """The account, made if it is not there."""
        return self.kept.setdefault(key, Figures())

    def window(self, claim: Claim) -> Iterator[Figures]:
        """The accounts of a rolling budget from `claim.since` to its period."""
        for (budget_id, value, period), figures in self.kept.items():
            if (budget_id, value) == (claim.budget_id, claim.value) and (claim.since or "") <= period <= claim.period:
                yield figures

    def record(self, hold_id: str) -> Record | None:
        """A hold."""
        return self.records.get(hold_id)

    def keep(self, record: Record) -> None:
        """Stores a new or changed hold."""
        self.records[record.hold_id] = record


class MemoryHolds:
    """All that a MemoryLedger knows about holds; whoever calls a method has the ledger's lock `lock`. Futures are
    resolved by `tell`, without the lock, as their callbacks may come back to the ledger."""

    def __init__(self, clock: Callable[[], float], lock: threading.Lock) -> None:
        self._clock = clock
        self._lock = lock
        self._shelf = MemoryShelf()
        self._line: list[AskJob] = []
        self._numbers = 0
        self._decided: list[AskJob] = []

    @property
    def till(self) -> Till:
        """The rules at this instant."""
        return Till(self._shelf, _OWNER, self._now_us())

    def ask(self, job: AskJob) -> None:
        """Takes in an ask: it is decided, or put into the line. Raises ConflictError."""
        standing = self.till.standing(job.ask)
        if standing is not None:
            job.receipt = standing
            self._decided.append(job)
            return
        self._numbers += 1
        job.number = self._numbers
        self._line.append(job)
        self.look()
        if job in self._line:
            timer = threading.Timer(max(0.0, job.until - time.monotonic()), self._late)
            timer.daemon = True
            timer.start()
            job.future.add_done_callback(lambda _: timer.cancel())

    def look(self) -> None:
        """Looks at the line again, as something has changed."""
        for job in self._line:
            job.withdrawn = job.withdrawn or job.future.cancelled()
        decided, self._line = serve(self.till, self._line)
        self._decided += decided

    def tell(self) -> None:
        """Resolves the futures of what has been decided; to be called without the lock."""
        with self._lock:
            decided, self._decided = self._decided, []
        for job in decided:
            job.finish()

    def release(self, hold_id: str) -> None:
        """See `Ledger.release`."""
        for job in self._line:
            job.withdrawn = job.withdrawn or job.ask.hold_id == hold_id
        self.till.release(hold_id)
        self.look()

    def settled(self, hold_id: str, settlement: Settlement) -> None:
        """Ends a hold whose call has been entered."""
        self.till.settle(hold_id, settlement)
        self.look()

    def resolve(self, hold_id: str, charges: Sequence[Charge] | None) -> None:
        """See `Ledger.resolve`."""
        self.till.resolve(hold_id, charges)
        self.look()

    def expire(self) -> list[str]:
        """See `Ledger.expire`. Nobody outlives a ledger in memory, so only time makes a hold suspect."""
        now_us, till = self._now_us(), self.till
        late = [one for one in self._shelf.records.values() if one.state == "open" and one.expires_us <= now_us]
        for record in late:
            till.suspect(record)
        self.look()
        return [record.hold_id for record in late]

    def holds(self, state: str | None, budget_id: str | None) -> list[Hold]:
        """See `Ledger.holds`."""
        return [
            record.hold()
            for record in self._shelf.records.values()
            if record.owner
            and state in (None, record.state)
            and (budget_id is None or any(part.budget_id == budget_id for part in record.parts))
        ]

    def accounts(self, budget_id: str | None) -> list[Account]:
        """See `Ledger.accounts`."""
        at = from_us(self._now_us())
        kept = self._shelf.kept
        return [shown(key, kept[key], self._shelf.rules, at) for key in sorted(kept) if budget_id in (None, key[0])]

    def budgets(self) -> Budgets:
        """See `Ledger.budgets`."""
        return self._shelf.rules.listed()

    def put_budget(self, budget: Budget, seeds: Sequence[Seed]) -> Budgets:
        """See `Ledger.put_budget`."""
        rules = edited(self._shelf.rules, budget)
        for seed in seeds:
            self._shelf.kept.setdefault((budget.budget_id, seed.value, seed.period), Figures(seed.settled))
        self._shelf.rules = rules
        CHANGES.note()
        self.look()
        return rules.listed()

    def drop_budget(self, budget_id: str) -> Budgets:
        """See `Ledger.drop_budget`."""
        rules = self._shelf.rules
        self._shelf.rules = without(rules, known_budget(rules, budget_id))
        CHANGES.note()
        self.look()
        return self._shelf.rules.listed()

    def verify(self) -> list[str]:
        """Recomputes the accounts from seeds and holds; each difference in words."""
        wanted = MemoryShelf()
        for key, figures in self._shelf.kept.items():
            wanted.kept[key] = Figures(figures.seed)
        for record in self._shelf.records.values():
            move(wanted, record, 1)
        return wrong_accounts(self._shelf.kept, wanted.kept)

    def close(self, error: TallyError) -> None:
        """Tells everybody in the line that it is over."""
        for job in self._line:
            job.error = error
        self._decided += self._line
        self._line = []

    def _late(self) -> None:
        with self._lock:
            self.look()
        self.tell()

    def _now_us(self) -> int:
        return int(self._clock() * 1_000_000)
