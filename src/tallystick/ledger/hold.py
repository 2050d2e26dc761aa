"""Hold: money set aside in the ledger before a call, and what a ledger decides about it. Nouns and one pure rule.

An account is what one budget has for one value of its scope in one period. A hold claims a part of one or more
accounts, all or nothing, and is resolved exactly once: settled, released, or, when nobody can say, suspect. Amounts are
whole numbers in the budget's unit: picodollars, tokens or calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

HOLD_STATES: Final = ("open", "settled", "released", "suspect")


class Claim(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A call's part of one account: `base` whatever the length of the answer, and `per_output` for each token of it.

    `value` is the scope's value for a budget that is one for each (`user=ada`), else empty. `period` names the stretch
    of time in a way that sorts like time; a rolling budget's account is the sum over the periods from `since` to it.
    `resets_at` is when the period ends, None for a lifetime.
    """

    budget_id: str
    value: str
    period: str
    base: int
    per_output: int = 0
    since: str | None = None
    resets_at: datetime | None = None

    def amount(self, output: int) -> int:
        """The claim for an answer of so many tokens."""
        return self.base + self.per_output * output


class Ask(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A request for a hold. `hold_id` is the call's id. `output` tokens of answer are wanted, and with fewer than
    `least` the call is of no use; where they are equal the call cannot be capped. `unlearned` says that the provider
    may count input that nobody here can see, so until it settles nobody else is capped to what seems to be left.
    `payload` is a keyed hash of the request: the same id with another payload is a conflict. `version` is that of the
    budgets the claims were made from."""

    hold_id: str
    claims: tuple[Claim, ...]
    output: int
    least: int
    payload: str
    version: int
    expires_at: datetime
    unlearned: bool = False


class Balance(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How an account stands. `limit` includes a temporary raise; None means that the budget is gone or paused and
    limits nothing. `suspect` is money of holds whose call nobody knows the end of; it counts as spent. `held` is in
    flight, `unlearned` the number of holds in flight whose input may be larger than it looks. `overdraft` is what calls
    cost beyond their holds."""

    limit: int | None
    settled: int = 0
    suspect: int = 0
    held: int = 0
    unlearned: int = 0
    overdraft: int = 0

    @property
    def spent(self) -> int:
        """What is gone and does not come back by waiting."""
        return self.settled + self.suspect


class Granted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The hold stands, safe from a power cut, and covers `output` tokens of answer; fewer than asked for means that the
    call is capped. `waited_us` is how long it queued."""

    hold_id: str
    output: int
    waited_us: int = 0


class Refused(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """No hold was made and no counter moved: the account that stood in the way, as it was. `queued` says that there
    was room, but for calls that had asked before and were still waiting."""

    budget_id: str
    value: str
    spent: int
    held: int
    limit: int
    asked: int
    resets_at: datetime | None = None
    queued: bool = False


class Wait(msgspec.Struct, frozen=True, gc=False):
    """Holds in flight may give back enough; `refusal` is the answer when they do not in time."""

    refusal: Refused


class Stale(msgspec.Struct, frozen=True, gc=False):
    """The budgets have changed since the claims were made: make them anew from version `version`."""

    version: int


class Charge(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a settled call takes from one account."""

    budget_id: str
    value: str
    period: str
    amount: int


class Seed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What was spent before a budget was made: an account of it begins with `settled`."""

    value: str
    period: str
    settled: int


class Settlement(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a call that has an entry takes from the accounts. `keep` leaves the rest of its hold as suspect: the
    call's usage is a lower bound, and what it cost beyond that is not known yet."""

    charges: tuple[Charge, ...]
    keep: bool = False


class Hold(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A hold as the ledger keeps it. `charges` are what it claims now, `settled` what was taken at the end."""

    hold_id: str
    state: str
    owner: str
    authorised_at: datetime
    expires_at: datetime
    output: int
    charges: tuple[Charge, ...]
    settled: tuple[Charge, ...] = ()


class Account(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One account with its balance."""

    budget_id: str
    value: str
    period: str
    balance: Balance


def decide(ask: Ask, balances: Sequence[Balance]) -> Granted | Refused | Wait:
    """What becomes of an ask; `balances` are those of its claims, in their order.

    Settled and suspect money does not come back, so an ask that does not fit beside it is capped to what is free, or
    refused when that is too little to be of use. One that only has to wait for holds in flight waits.
    """
    output = ask.output
    waiting: Wait | None = None
    for claim, balance in zip(ask.claims, balances, strict=True):
        limit = balance.limit
        if limit is None:
            continue
        room = limit - balance.spent
        free = room - balance.held
        if claim.amount(output) <= free:
            continue
        wanted, least = claim.amount(ask.output), claim.amount(ask.least)
        if least > room:
            return refused(claim, balance, limit, wanted)
        if wanted <= room or balance.unlearned or least > free:
            waiting = waiting or Wait(refused(claim, balance, limit, wanted))
        else:
            output = min(output, (free - claim.base) // claim.per_output)
    return waiting or Granted(hold_id=ask.hold_id, output=output)


def affordable(claims: Sequence[Claim], balances: Sequence[Balance], covered: int, wanted: int) -> int:
    """How many tokens of answer a hold can cover that covers `covered` and wants `wanted`: never fewer than now, and
    never more than every account has free beside the holds in flight (its own among them)."""
    output = max(wanted, covered)
    for claim, balance in zip(claims, balances, strict=True):
        if balance.limit is None or not claim.per_output:
            continue
        free = balance.limit - balance.spent - balance.held
        output = min(output, covered + max(free, 0) // claim.per_output)
    return max(output, covered)


def refused(claim: Claim, balance: Balance, limit: int, asked: int) -> Refused:
    """The refusal of a claim of `asked` by an account that stands so."""
    return Refused(
        budget_id=claim.budget_id,
        value=claim.value,
        spent=balance.spent,
        held=balance.held,
        limit=limit,
        asked=asked,
        resets_at=claim.resets_at,
    )
