"""Desk: what the leaves of all calls share: the ledger, the budgets as last seen, how accounts stand, call sites."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from tallystick.errors import LedgerError, TallyError
from tallystick.ledger.budget import Budget, Budgets
from tallystick.ledger.hold import Account as Standing
from tallystick.ledger.hold import Charge, Claim, Refused
from tallystick.metering.bounding import counted_input
from tallystick.metering.claims import Account, Matcher, shown_value, slot_seconds, slot_start
from tallystick.metering.sites import Sites
from tallystick.wire.facts import RequestFacts

if TYPE_CHECKING:
    from tallystick.catalog.catalog import Catalog
    from tallystick.ledger.ledger import Ledger

LOOK_SECONDS: Final = 0.25
"""Budgets and balances are read again at most this often; the ledger itself always decides by the newest."""

MANY: Final = 200
"""Accounts of one budget from which on they are read more rarely."""

_WORKERS: Final = 4


class Desk:
    """See the module. `clock` gives seconds since 1970, `monotonic` seconds that only grow; `wait` is how many seconds
    a call waits for holds in flight. `notice` is told which budgets have just been charged."""

    def __init__(
        self,
        ledger: Ledger,
        catalog: Callable[[], Catalog],
        sites: Sites,
        *,
        wait: float,
        budgets: Sequence[Budget] = (),
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ledger = ledger
        self.catalog = catalog
        self.sites = sites
        self.wait = wait
        self.monotonic = monotonic
        self.notice: Callable[[Sequence[Account]], None] = _nobody
        self.faults = 0
        self._clock = clock
        self._lock = threading.Lock()
        # What the configuration says stands in until the ledger has been read once.
        self._matcher = Matcher(Budgets(-1, tuple(budgets)))
        self._looking = threading.Lock()
        self._counting = threading.Lock()
        self.warm = False
        self._looked = False
        self._look_at = 0.0
        self._seen: dict[str, tuple[float, dict[tuple[str, str], Standing]]] = {}
        self._since: dict[str, dict[str, int]] = {}
        self._flying: dict[tuple[str, str, str], int] = {}
        self._pool: ThreadPoolExecutor | None = None

    def now(self) -> datetime:
        """The present instant, UTC."""
        return datetime.fromtimestamp(self._clock(), UTC)

    def matcher(self, *, fresh: bool = False) -> Matcher:
        """The budgets, read again when they have not been looked at for a while, or at once. A ledger that cannot be
        read leaves those that are known."""
        now = self.monotonic()
        if not self._looked:
            # Whoever comes while the first look is under way must not go by nothing.
            with self._looking:
                if not self._looked:
                    self._look()
                    self._look_at, self._looked = now + LOOK_SECONDS, True
        elif fresh or now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._look()
        return self._matcher

    def _look(self) -> None:
        try:
            listed = self.ledger.budgets()
        except LedgerError:
            self.faults += 1
        else:
            if listed.version > self._matcher.version:
                self._matcher = Matcher(listed)

    def count(self, facts: RequestFacts) -> int:
        """The prompt's tokens, counted; the first time only one thread loads the tokenizer."""
        if self.warm:
            return counted_input(facts)
        with self._counting:
            counted = counted_input(facts)
            self.warm = True
            return counted

    def run(self, work: Callable[[], None], failed: Callable[[BaseException], None]) -> None:
        """Does some work in another thread: a ledger's own thread must not be kept busy."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_WORKERS, "tally-admission")
            pool = self._pool

        def done(future: Future[None]) -> None:
            error = future.exception()
            if error is not None:
                failed(error)

        try:
            pool.submit(work).add_done_callback(done)
        except RuntimeError as error:
            failed(error)

    def later(self, seconds: float, work: Callable[[], None]) -> None:
        """Does something quick after a while."""
        timer = threading.Timer(seconds, work)
        timer.daemon = True
        timer.start()

    def close(self) -> None:
        """Waits for work under way and writes what sites have learned."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()
        try:
            self.sites.write()
        except TallyError:
            self.faults += 1

    def charged(self, charges: Sequence[Charge]) -> None:
        """This process has just charged so much; it counts here until the ledger is looked at again."""
        with self._lock:
            for charge in charges:
                values = self._since.setdefault(charge.budget_id, {})
                values[charge.value] = values.get(charge.value, 0) + charge.amount

    def flying(self, claims: Sequence[Claim], output: int, sign: int) -> None:
        """This process holds so much more (or less) of the claims' accounts."""
        with self._lock:
            for claim in claims:
                key = claim.budget_id, claim.value, "" if claim.since is not None else claim.period
                left = self._flying.get(key, 0) + sign * claim.amount(output)
                if left > 0:
                    self._flying[key] = left
                else:
                    self._flying.pop(key, None)

    def free(self, account: Account, *, fresh: bool = False) -> int | None:
        """About how much an account has left beside holds in flight; None where nobody can say. Up to LOOK_SECONDS old,
        but for what this process holds itself."""
        budget, value, stretch = account.budget, account.value, account.stretch
        found = self._standings(budget.budget_id, fresh=fresh)
        if found is None:
            return None
        if stretch.since is None:
            chosen = [found[value, stretch.period]] if (value, stretch.period) in found else []
        else:
            chosen = [
                one for key, one in found.items() if key[0] == value and stretch.since <= key[1] <= stretch.period
            ]
        spent = sum(one.balance.spent for one in chosen) + self._since.get(budget.budget_id, {}).get(value, 0)
        held = sum(one.balance.held for one in chosen)
        ours = self._flying.get((budget.budget_id, value, "" if stretch.since is not None else stretch.period), 0)
        return budget.limit_at(self.now()) - spent - max(held, ours)

    def _standings(self, budget_id: str, *, fresh: bool) -> dict[tuple[str, str], Standing] | None:
        now = self.monotonic()
        until, found = self._seen.get(budget_id, (0.0, {}))
        if fresh or now >= until:
            try:
                listed = self.ledger.accounts(budget_id)
            except LedgerError:
                self.faults += 1
                return None
            found = {(one.value, one.period): one for one in listed}
            self._since.pop(budget_id, None)
            self._seen[budget_id] = now + LOOK_SECONDS * (1 + len(found) // MANY), found
        return found

    def retry_after(self, refused: Refused, account: Account | None) -> int | None:
        """Seconds after which a rolling budget has room again for what was refused; None where waiting does not
        help, or only until a calendar period ends."""
        if account is None or account.budget.period.length is None or refused.asked > refused.limit:
            return None
        found = self._standings(refused.budget_id, fresh=True) or {}
        since, until = account.stretch.since or "", account.stretch.period
        rows = sorted(
            (period, one.balance.spent + one.balance.held)
            for (value, period), one in found.items()
            if value == refused.value and since <= period <= until
        )
        over = sum(amount for _, amount in rows) + refused.asked - refused.limit
        freed, last = 0, None
        for period, amount in rows:
            if freed >= over:
                break
            freed, last = freed + amount, period
        if last is None:
            return 1
        # A slot is out of the window when the one after it has become the window's first.
        gone = slot_start(last) + account.budget.period.length + timedelta(seconds=slot_seconds(account.budget.period))
        return max(1, -(-(gone - self.now()) // timedelta(seconds=1)))


def refusal_words(budget: Budget | None, refused: Refused, retry_after: int | None = None) -> str:
    """A refusal for people: "Budget team-a: $0.36 spent and $0.04 held of $0.40; this call may cost up to $0.04. It
    resets at 2026-11-23 00:00 UTC."."""
    shown: Callable[[int], Any] = str if budget is None else budget.shown
    verb = "cost" if budget is None or budget.unit == "usd" else "take"
    said = (
        f"Budget {refused.budget_id}{shown_value(refused.value)}: {shown(refused.spent)} spent and "
        f"{shown(refused.held)} held of {shown(refused.limit)}; this call may {verb} up to {shown(refused.asked)}."
    )
    if refused.resets_at is not None:
        return f"{said} It resets at {refused.resets_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC."
    if retry_after is not None:
        return f"{said} There is room again in {retry_after:,} s."
    return said


def _nobody(_accounts: Sequence[Account]) -> None:
    return None
