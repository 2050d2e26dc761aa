"""Purse: money of a budget for what is no call to a model: a search, a rented machine, a person's time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tallystick.core.attribution import Tags
from tallystick.core.cost import Cost
from tallystick.core.money import Money
from tallystick.core.usage import Usage
from tallystick.errors import BudgetExceeded, InputError
from tallystick.ledger.budget import Budget
from tallystick.ledger.entry import Entry
from tallystick.ledger.hold import Ask, Refused, Stale
from tallystick.metering.budgets import find_budget
from tallystick.metering.claims import Account, Bound, attributes, settlement, stretch, value_for
from tallystick.metering.desk import Desk
from tallystick.metering.leaves import EXPIRES, TRIES
from tallystick.metering.run import money

if TYPE_CHECKING:
    from tallystick.ledger.ledger import Receipt

PROVIDER = "other:own"
"""Who bills what is no call to a model, as far as the ledger is concerned."""


class Purse:
    """One budget in dollars, open for holds. Made by `BudgetAdmission.budget`. Raises InputError where there is none of
    that name, or where it counts something else."""

    def __init__(self, desk: Desk, name: str, ids: Callable[[], str]) -> None:
        budget = find_budget(desk.ledger, name)
        if budget.unit != "usd":
            raise InputError(f"The budget {name!r} counts {budget.unit}, so no money can be held in it.")
        self._desk = desk
        self._ids = ids
        self.name = name

    def hold(self, at_most: str | Money, what: str = "cost", *, tags: Mapping[str, object] | None = None) -> Hold:
        """A with-block that holds up to so much. `what` names the cost in reports; `tags` say whose it is, and which
        account of a budget that has one for each. Nothing is held before the block is entered."""
        most = money(at_most, "at_most")
        if most is None:
            raise InputError("A hold needs an amount.", todo='Write hold(at_most="$0.10").')
        return Hold(self._desk, self.name, self._ids(), most, (what, Tags(tags)))


class Hold:
    """Money held in a budget for something that is about to be bought. Entering it raises BudgetExceeded where the
    budget has not so much left; leaving it without `settle` gives everything back."""

    def __init__(self, desk: Desk, name: str, hold_id: str, most: Money, label: tuple[str, Tags]) -> None:
        self._desk = desk
        self._name = name
        self._id = hold_id
        self._most = most
        self._what, self._tags = label
        self._account: Account | None = None
        self._begun: datetime | None = None

    def __enter__(self) -> Self:
        desk = self._desk
        self._begun = desk.now()
        for _ in range(TRIES):
            version = desk.matcher(fresh=True).version
            budget = find_budget(desk.ledger, self._name)
            account = self._place(budget)
            ask = Ask(
                hold_id=self._id,
                claims=(account.claim(Bound(pico=self._most.pico, pico_per_output=0, input=0, output=0)),),
                output=0,
                least=0,
                payload=f"{self._what} {self._most.pico}",
                version=version,
                expires_at=self._begun + EXPIRES,
            )
            verdict = desk.ledger.authorise(ask, wait=desk.wait).result()
            if isinstance(verdict, Stale):
                continue
            if isinstance(verdict, Refused):
                raise _exceeded(desk, budget, account, verdict)
            self._account = account
            return self
        raise BudgetExceeded("The budgets change faster than money can be held.", money="Nothing was held.")

    def settle(self, amount: str | Money) -> Receipt:
        """What it cost in the end; entered into the ledger, and the rest given back. More than was held is allowed and
        counts. Raises InputError outside the block, or when it was settled before."""
        cost = money(amount, "amount")
        account, self._account = self._account, None
        if account is None or cost is None or self._begun is None:
            raise InputError("Nothing is held: settle once, inside the with-block.", money="Nothing was entered.")
        entry = Entry(
            call_id=self._id,
            started_at=self._begun,
            settled_at=self._desk.now(),
            provider=PROVIDER,
            model=self._what,
            usage=Usage(),
            cost=Cost((), cost.pico, "user"),
            source="client",
            tags=self._tags,
            hold_id=self._id,
        )
        receipt = self._desk.ledger.settle(entry, settlement(entry, (account,))).result()
        self._desk.notice((account,))
        return receipt

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._account is not None:
            self._account = None
            self._desk.ledger.release(self._id).result()

    def _place(self, budget: Budget) -> Account:
        bears = attributes(budget.each, self._tags, {"provider": (PROVIDER,), "model": (self._what,)})
        return Account(budget, value_for(budget, bears), stretch(budget.period, self._begun or self._desk.now()))


def _exceeded(desk: Desk, budget: Budget, account: Account, refused: Refused) -> BudgetExceeded:
    after = desk.retry_after(refused, account)
    return BudgetExceeded(desk.refusal(budget, refused, after), money="Nothing was held.")


class RunBudget:
    """The budget of one run, in dollars, for as long as the run lasts. Closing it takes the budget away; the run's
    calls stay in the ledger."""

    def __init__(self, desk: Desk, run_id: str, limit: Money) -> None:
        self._desk = desk
        self.budget = Budget(
            budget_id=f"run.{run_id}", limit=limit.pico, scope=Tags({"run": run_id}), created_at=desk.now()
        )
        desk.ledger.put_budget(self.budget)
        desk.matcher(fresh=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Takes the budget away. Closing twice is harmless."""
        if any(one.budget_id == self.budget.budget_id for one in self._desk.ledger.budgets().budgets):
            self._desk.ledger.drop_budget(self.budget.budget_id)
        self._desk.matcher(fresh=True)
