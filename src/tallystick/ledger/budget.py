"""Budget: how much may be spent, by whom, in which stretch of time. The rule; what is spent stands in its accounts."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from tallystick.core.attribution import Tags
from tallystick.core.money import Money
from tallystick.core.periods import Period
from tallystick.errors import InputError

UNITS: Final = ("usd", "tokens", "calls")
FAILURES: Final = ("closed", "open")
MAX_LIMIT: Final = 10**30


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """A limit with its period and scope.

    `limit` is in whole picodollars for `unit` usd, else in tokens or calls. `scope` are the tags or dimensions (key,
    team, user, agent, run, model, provider, ...) that a call must bear; `each` names tags or dimensions of which every
    value has an account of its own. A `hard` budget refuses and stops calls, a soft one only counts and warns.
    `failure` says what happens to a call when the ledger cannot be asked: `closed` refuses it, `open` lets it go.
    `sources` are those beside client and gateway whose entries move it. `raised_by` is added to the limit until
    `raised_until`. `alerts` are the percentages of the limit at which to tell somebody, once a period. `paused` limits
    nothing and goes on counting.
    """

    budget_id: str
    limit: int
    unit: str = "usd"
    period: Period = Period("lifetime")
    scope: Tags = Tags()
    each: tuple[str, ...] = ()
    hard: bool = True
    failure: str = "closed"
    sources: tuple[str, ...] = ()
    raised_by: int = 0
    raised_until: datetime | None = None
    alerts: tuple[int, ...] = ()
    paused: bool = False
    created_at: datetime | None = None

    def __post_init__(self) -> None:
        if not self.budget_id:
            raise InputError("A budget needs a name.", money="Nothing was changed.")
        if self.unit not in UNITS:
            raise InputError(f"A budget's unit cannot be {self.unit!r}.", todo=f"It is one of: {', '.join(UNITS)}.")
        if self.failure not in FAILURES:
            raise InputError(f"A budget fails open or closed, not {self.failure!r}.")
        if not 0 <= self.limit <= MAX_LIMIT or not 0 <= self.raised_by <= MAX_LIMIT:
            raise InputError(f"The limit of {self.budget_id!r} is out of range.", todo="Give an amount of 0 or more.")

    def limit_at(self, at: datetime) -> int:
        """The limit in force at an instant, temporary raise included."""
        raised = self.raised_until is not None and at < self.raised_until
        return self.limit + (self.raised_by if raised else 0)

    def shown(self, amount: int) -> str:
        """An amount of this budget for people: `$0.40`, `1,200 tokens`, `10 calls`."""
        return str(Money(amount)) if self.unit == "usd" else f"{amount:,} {self.unit}"


class Budgets(msgspec.Struct, frozen=True):
    """All budgets of a ledger. `version` grows with each change, so that claims made from older ones are noticed."""

    version: int
    budgets: tuple[Budget, ...] = ()
