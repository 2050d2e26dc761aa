"""Admission: who gives leave to calls. It finds the budgets that concern a call and hands out the leave that fits."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from tallystick.config import Alerts, Config
from tallystick.core.models import provider_id
from tallystick.core.money import Money
from tallystick.errors import LedgerError, TallyError
from tallystick.ledger.budget import Budget
from tallystick.ledger.ids import new_call_id
from tallystick.metering.alerts import Alerter
from tallystick.metering.budgets import apply
from tallystick.metering.claims import Attributes, attributes
from tallystick.metering.desk import Desk
from tallystick.metering.leave import Leave, Who
from tallystick.metering.leaves import Call, HeldLeave, hard
from tallystick.metering.passes import CountedLeave, FreeLeave
from tallystick.metering.purse import Purse, RunBudget
from tallystick.metering.rules import budgets_of
from tallystick.metering.sites import Sites
from tallystick.wire.facts import RequestFacts

if TYPE_CHECKING:
    from tallystick.catalog.catalog import Catalog
    from tallystick.ledger.ledger import Ledger

WAIT: Final = 2.0
"""Seconds that a call waits for holds in flight."""


class BudgetAdmission:
    """Gives leave by the budgets of a ledger. One per process and ledger; threads and loops may share it.

    `wait` is how many seconds a call waits for holds in flight (0: refused at once). `budgets` stand in as long as the
    ledger has never been readable; `alerts` says who is told of thresholds. `clock` gives seconds since 1970,
    `monotonic` seconds that only grow, `random` bytes, `ids` our own ids. Close it to keep what was learned.
    """

    def __init__(
        self,
        ledger: Ledger,
        catalog: Callable[[], Catalog],
        *,
        wait: float = WAIT,
        budgets: Sequence[Budget] = (),
        alerts: Alerts | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[int], bytes] = os.urandom,
        ids: Callable[[], str] = new_call_id,
    ) -> None:
        sites = Sites(ledger, clock, random)
        self.desk = Desk(
            ledger, catalog, sites, wait=wait, budgets=budgets, clock=clock, monotonic=monotonic, random=random
        )
        self._ids = ids
        self._alerter = Alerter(ledger, alerts, clock=clock) if alerts else None
        if self._alerter is not None:
            self.desk.notice = self._alerter.notice
        self._free = FreeLeave(ledger)

    @property
    def faults(self) -> int:
        """How often the ledger could not be asked."""
        return self.desk.faults

    def leave(self, call_id: str, facts: RequestFacts, who: Who, at: datetime) -> Leave:
        """The leave of one call, made before it is sent. Never raises."""
        matcher = self.desk.matcher()
        if not matcher:
            return self._free

        def bears(names: frozenset[str]) -> Attributes:
            return self._bears(names, facts, who)

        accounts = matcher.concerned(bears(matcher.names), at)
        if not accounts:
            return self._free
        if not hard(accounts):
            return CountedLeave(self.desk, accounts)
        call = Call(call_id=call_id, facts=facts, who=who, at=at, bears=bears)
        return HeldLeave(self.desk, call, matcher.version, accounts)

    def budget(self, name: str) -> Purse:
        """A budget in dollars, to hold money in for what is no call to a model. Raises InputError."""
        return Purse(self.desk, name, self._ids)

    def run_budget(self, run_id: str, limit: Money) -> RunBudget:
        """Limits a run, and the runs directly inside it, to so many dollars until it is closed. Raises LedgerError."""
        return RunBudget(self.desk, run_id, limit)

    def refresh(self) -> None:
        """Looks at the budgets anew: for those who have just changed them."""
        self.desk.matcher(fresh=True)

    def close(self) -> None:
        """Waits for work under way and writes what call sites have learned."""
        if self._alerter is not None:
            self._alerter.close()
        self.desk.close()

    def _bears(self, names: frozenset[str], facts: RequestFacts, who: Who) -> Attributes:
        models = (self._listed(facts), facts.model) if "model" in names else ()
        others = {
            "provider": (facts.provider,),
            "model": models,
            "run": (who.run_id, who.parent_run),
            "step": (who.step,),
        }
        return attributes(names, who.tags, others)

    def _listed(self, facts: RequestFacts) -> str | None:
        """The model's name in the catalogue, where it is known."""
        if facts.model is None:
            return None
        try:
            return self.desk.catalog().resolve(facts.model, provider_id(facts.provider)).model
        except TallyError:
            return None


def open_admission(
    ledger: Ledger, config: Config, catalog: Callable[[], Catalog], *, clock: Callable[[], float] = time.time
) -> BudgetAdmission:
    """The admission that a configuration asks for, with its budgets put into the ledger. Raises ConfigError or
    InputError for budgets that make no sense; a ledger that cannot be written leaves them to stand in."""
    now = datetime.fromtimestamp(clock(), UTC)
    budgets = budgets_of(config, now)
    admission = BudgetAdmission(
        ledger, catalog, wait=config.admission_wait, budgets=budgets, alerts=config.alerts, clock=clock
    )
    if budgets:
        try:
            apply(ledger, config, now)
        except LedgerError:
            admission.desk.faults += 1
    return admission
