"""Accounts: what each budget has taken so far, as mutable figures while a transaction is at work on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, Protocol

from tallystick.ledger.budget import Budget, Budgets
from tallystick.ledger.hold import Account, Balance, Claim

Key = tuple[str, str, str]
"""budget_id, value, period."""

Place = tuple[str, str, str]
"""Where asks queue: budget_id, value and period; for a rolling budget the period is empty, as all share a window."""

ROLLING_PLACE: Final = ""


class Figures:
    """The figures of one account; `seed` is the part of `settled` that it began with."""

    __slots__ = ("held", "overdraft", "seed", "settled", "suspect", "unlearned")

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.settled = seed
        self.suspect = 0
        self.held = 0
        self.unlearned = 0
        self.overdraft = 0

    def row(self) -> tuple[int, int, int, int, int, int]:
        """seed, settled, suspect, held, unlearned, overdraft."""
        return self.seed, self.settled, self.suspect, self.held, self.unlearned, self.overdraft

    @classmethod
    def of(cls, row: Sequence[str | int]) -> Figures:
        """The inverse of `row`, from numbers or decimal text."""
        figures = cls(int(row[0]))
        figures.settled = int(row[1])
        figures.suspect = int(row[2])
        figures.held = int(row[3])
        figures.unlearned = int(row[4])
        figures.overdraft = int(row[5])
        return figures

    def balance(self, limit: int | None) -> Balance:
        """The figures beside a limit."""
        return Balance(
            limit=limit,
            settled=self.settled,
            suspect=self.suspect,
            held=self.held,
            unlearned=self.unlearned,
            overdraft=self.overdraft,
        )


class Rules:
    """The budgets of one version, by id; `retired` are those that were dropped, whose accounts go on counting."""

    def __init__(self, version: int, budgets: Sequence[Budget], retired: Sequence[Budget] = ()) -> None:
        self.version = version
        self.standing = {budget.budget_id: budget for budget in budgets}
        self.retired = {budget.budget_id: budget for budget in retired}

    def listed(self) -> Budgets:
        """The budgets that stand, by id."""
        return Budgets(self.version, tuple([self.standing[name] for name in sorted(self.standing)]))

    def enforced(self, budget_id: str, at: datetime) -> int | None:
        """The limit that an ask has to keep; None where nothing limits."""
        budget = self.standing.get(budget_id)
        return None if budget is None or budget.paused or not budget.hard else budget.limit_at(at)

    def shown(self, budget_id: str, at: datetime) -> int | None:
        """The limit for people, that of a soft budget too."""
        budget = self.standing.get(budget_id)
        return None if budget is None or budget.paused else budget.limit_at(at)

    def in_money(self, budget_id: str) -> bool:
        """Whether a budget, standing or dropped, counts US dollars."""
        budget = self.standing.get(budget_id) or self.retired.get(budget_id)
        return budget is not None and budget.unit == "usd"


class Accounts(Protocol):
    """Where a transaction finds accounts."""

    def figures(self, key: Key) -> Figures:
        """The account, made if it is not there; changing it is noted."""
        ...

    def window(self, claim: Claim) -> Iterator[Figures]:
        """The accounts of a rolling budget from `claim.since` to its period."""
        ...


class Sums(dict[Key, Figures]):
    """Accounts that are only added up."""

    def figures(self, key: Key) -> Figures:
        """The account, made if it is not there."""
        return self.setdefault(key, Figures())

    def window(self, claim: Claim) -> Iterator[Figures]:
        """Not asked for by who only adds up."""
        raise NotImplementedError(claim)


def place(claim: Claim) -> Place:
    """Where an ask with this claim queues."""
    return claim.budget_id, claim.value, ROLLING_PLACE if claim.since is not None else claim.period


def balance(accounts: Accounts, claim: Claim, limit: int | None) -> Balance:
    """How the account of a claim stands, over its whole window if it is a rolling one."""
    if claim.since is None:
        return accounts.figures((claim.budget_id, claim.value, claim.period)).balance(limit)
    total = Figures()
    for figures in accounts.window(claim):
        total.settled += figures.settled
        total.suspect += figures.suspect
        total.held += figures.held
        total.unlearned += figures.unlearned
        total.overdraft += figures.overdraft
    return total.balance(limit)


def shown(key: Key, figures: Figures, rules: Rules, at: datetime) -> Account:
    """An account for people."""
    budget_id, value, period = key
    return Account(budget_id=budget_id, value=value, period=period, balance=figures.balance(rules.shown(budget_id, at)))
