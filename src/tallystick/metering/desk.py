"""Desk: what the leaves of all calls share: the ledger, the budgets as last seen, how accounts stand, call sites."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from tallystick.errors import LedgerError, TallyError
from tallystick.ledger.budget import Budget, Budgets
from tallystick.ledger.hold import Account as Standing
from tallystick.ledger.hold import Charge, Claim, Refused
from tallystick.ledger.holds_budgets import CHANGES
from tallystick.metering.advisory import Openness
from tallystick.metering.bounding import counted_input
from tallystick.metering.claims import Account, Matcher, Stretch, shown_value, slot_seconds, slot_start
from tallystick.metering.sites import Sites
from tallystick.wire.facts import RequestFacts

if TYPE_CHECKING:
    from tallystick.catalog.catalog import Catalog
    from tallystick.ledger.ledger import Ledger

LOOK_SECONDS: Final = 0.25
"""Budgets and balances are read again at most this often; the ledger itself always decides by the newest."""

MANY: Final = 200
"""Accounts of one budget from which on they are read more rarely."""

MANY_MODELS: Final = 1000
"""So many names of models are remembered with their tokenizers."""

_WORKERS: Final = 4
_KEY_BYTES: Final = 32
_PAYLOAD_BYTES: Final = 12


class _Seen:
    """The accounts of one budget as they were read last: `sums` of what is spent and held by value and period, over the
    whole window of a rolling budget."""

    __slots__ = ("standings", "sums", "until")

    def __init__(self, standings: dict[tuple[str, str], Standing], now: float) -> None:
        self.standings = standings
        self.until = now + LOOK_SECONDS * (1 + len(standings) // MANY)
        self.sums: dict[tuple[str, str], tuple[int, int]] = {}

    def add_up(self, value: str, stretch: Stretch) -> tuple[int, int]:
        """Makes a sum."""
        first = stretch.period if stretch.since is None else stretch.since
        chosen = [
            one.balance for key, one in self.standings.items() if key[0] == value and first <= key[1] <= stretch.period
        ]
        found = sum(one.spent for one in chosen), sum(one.held for one in chosen)
        self.sums[value, stretch.period] = found
        return found


class Desk:
    """See the module. `clock` gives seconds since 1970, `monotonic` seconds that only grow; `wait` is how many seconds
    a call waits for holds in flight, `random` gives bytes. `notice` is told which budgets have just been charged."""

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
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.ledger = ledger
        self.catalog = catalog
        self.sites = sites
        self.wait = wait
        self.monotonic = monotonic
        self._key = random(_KEY_BYTES)
        self.notice: Callable[[Sequence[Account]], None] = nobody
        self.faults = 0
        self._clock = clock
        self._lock = threading.Lock()
        # What the configuration says stands in until the ledger has been read once.
        self._matcher = Matcher(Budgets(-1, tuple(budgets)))
        self._looking = threading.Lock()
        self._counting = threading.Lock()
        self._tokenizers: dict[str | None, str] = {}
        self._loaded: set[str] = set()
        self._looked = False
        self._changes = CHANGES.number
        self._look_at = 0.0
        self._seen: dict[str, _Seen] = {}
        self._since: dict[str, dict[str, int]] = {}
        self._flying: dict[tuple[str, str, str], int] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._openness = Openness(ledger, monotonic, self.now)

    def refusal(self, budget: Budget | None, refused: Refused, retry_after: int | None) -> str:
        """A refusal for people, with what they should know of the budget. May read the ledger."""
        return refusal_words(budget, refused, retry_after) + self._openness.remark(budget)

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
        elif fresh or now >= self._look_at or CHANGES.number != self._changes:
            self._look_at = now + LOOK_SECONDS
            self._look()
        return self._matcher

    def _look(self) -> None:
        # Noted before: what changes while we read is looked at again.
        changes = CHANGES.number
        try:
            listed = self.ledger.budgets()
        except LedgerError:
            self.faults += 1
        else:
            self._changes = changes
            if listed.version > self._matcher.version:
                self._matcher = Matcher(listed)

    def warm(self, facts: RequestFacts) -> bool:
        """Whether the tokenizer of a request's model is loaded, so that to count takes no longer than the text."""
        return self._tokenizer(facts.model) in self._loaded

    def count(self, facts: RequestFacts) -> int:
        """The prompt's tokens, counted; the first time only one thread loads the tokenizer."""
        name = self._tokenizer(facts.model)
        if name not in self._loaded:
            with self._counting:
                if name not in self._loaded:
                    counted = counted_input(facts)
                    self._loaded.add(name)
                    return counted
        return counted_input(facts)

    def _tokenizer(self, model: str | None) -> str:
        """What has to be loaded for a model."""
        name = self._tokenizers.get(model)
        if name is None:
            from tallystick.tokens.encodings import encoding_for

            if len(self._tokenizers) >= MANY_MODELS:
                self._tokenizers.clear()
            name = self._tokenizers[model] = encoding_for(model or "") or "estimate"
        return name

    def payload(self, facts: RequestFacts) -> str:
        """A keyed hash of a request. The ids of calls are of this process, and so is the key: nobody else asks for the
        same hold."""
        path = facts.path.encode("utf-8", "surrogatepass")
        found = blake2b(len(path).to_bytes(8, "big") + path, digest_size=_PAYLOAD_BYTES, key=self._key)
        found.update(facts.body)
        return found.hexdigest()

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
        spent, held = found.sums.get((value, stretch.period)) or found.add_up(value, stretch)
        since = self._since.get(budget.budget_id)
        if since is not None:
            spent += since.get(value, 0)
        ours = self._flying.get((budget.budget_id, value, "" if stretch.since is not None else stretch.period), 0)
        limit = budget.limit if budget.raised_until is None else budget.limit_at(self.now())
        return limit - spent - max(held, ours)

    def _standings(self, budget_id: str, *, fresh: bool) -> _Seen | None:
        now = self.monotonic()
        seen = self._seen.get(budget_id)
        if seen is not None:
            if now < seen.until and not fresh:
                return seen
            # One looks, and the others go by what was seen before.
            seen.until = now + LOOK_SECONDS
        try:
            listed = self.ledger.accounts(budget_id)
        except LedgerError:
            self.faults += 1
            return None
        self._since.pop(budget_id, None)
        seen = self._seen[budget_id] = _Seen({(one.value, one.period): one for one in listed}, now)
        return seen

    def retry_after(self, refused: Refused, account: Account | None) -> int | None:
        """Seconds after which a rolling budget has room again for what was refused; None where waiting does not
        help, or only until a calendar period ends."""
        if account is None or account.budget.period.length is None or refused.asked > refused.limit:
            return None
        seen = self._standings(refused.budget_id, fresh=True)
        found = {} if seen is None else seen.standings
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
    if refused.queued:
        said += " Calls that asked before it are still waiting."
    if refused.resets_at is not None:
        return f"{said} It resets at {refused.resets_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC."
    if retry_after is not None:
        return f"{said} There is room again in {retry_after:,} s."
    return said


def nobody(_accounts: Sequence[Account]) -> None:
    """Is told, and does nothing."""
