"""Claims: which accounts a call concerns, what it may take from them, and what it took in the end."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from tallystick.core.money import Money
from tallystick.core.periods import Period
from tallystick.ledger.budget import Budget, Budgets
from tallystick.ledger.entry import Entry
from tallystick.ledger.hold import Charge, Claim, Settlement

ABSENT: Final = "(absent)"
"""Stands for the value of a call that does not bear a name that a budget has one account for each value of: such calls
share an account, so that leaving the name out is no way around the limit."""

SLOTS: Final = 60
"""A rolling budget adds up its window in so many slots, each at least a second long; the oldest counts whole."""

MAX_KNOWN: Final = 10_000
"""So many accounts are known without looking for their period."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
_LATEST: Final = datetime.max.replace(tzinfo=UTC)

Attributes = Mapping[str, tuple[str, ...]]
"""What a call bears, by name; a model may go by more than one name, and a nested run belongs to its parent, too."""


class Stretch(msgspec.Struct, frozen=True):
    """A period as accounts name it. `since` is the first slot of a rolling window, `resets_at` when a calendar period
    ends."""

    period: str
    since: str | None = None
    resets_at: datetime | None = None


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """The most a call can take: picodollars (None: no rate) and tokens before its answer, and for each token of it.
    `output` tokens of answer are wanted."""

    pico: int | None
    pico_per_output: int
    input: int
    output: int


class Account(msgspec.Struct, frozen=True):
    """One account that a call concerns, with its budget."""

    budget: Budget
    value: str
    stretch: Stretch

    def claim(self, bound: Bound) -> Claim:
        """What the call may take from it."""
        unit = self.budget.unit
        base = 1 if unit == "calls" else bound.input if unit == "tokens" else bound.pico or 0
        per_output = 0 if unit == "calls" else 1 if unit == "tokens" else bound.pico_per_output
        return Claim(
            budget_id=self.budget.budget_id,
            value=self.value,
            period=self.stretch.period,
            base=base,
            per_output=per_output,
            since=self.stretch.since,
            resets_at=self.stretch.resets_at,
        )

    def charge(self, entry: Entry) -> Charge:
        """What the call took from it."""
        budget = self.budget
        amount = amount_of(entry, budget.unit)
        return Charge(budget_id=budget.budget_id, value=self.value, period=self.stretch.period, amount=amount)


class Spell(msgspec.Struct, frozen=True, kw_only=True):
    """An account, and from when until when it is the one that a call concerns."""

    begin: datetime
    end: datetime
    account: Account


class Matcher:
    """The budgets of one version, found by what a call bears without looking at each."""

    def __init__(self, budgets: Budgets) -> None:
        self.version = budgets.version
        self.budgets = {budget.budget_id: budget for budget in budgets.budgets}
        scoped = {name for budget in budgets.budgets for name in (*budget.scope, *budget.each)}
        self.names = frozenset(scoped)
        """What budgets name of a call; nothing else of it has to be known."""
        self._everywhere: list[Budget] = []
        self._known: dict[tuple[str, str], Spell] = {}
        self._by_pair: dict[tuple[str, str], list[Budget]] = {}
        for budget in budgets.budgets:
            # Of several names the one that parts calls most is the last in this order.
            pairs = sorted(budget.scope.items(), key=lambda pair: (_SPREAD.get(pair[0], 1), pair[0]))
            if pairs:
                self._by_pair.setdefault(pairs[-1], []).append(budget)
            else:
                self._everywhere.append(budget)

    def __bool__(self) -> bool:
        return bool(self.budgets)

    def concerned(self, bears: Attributes, at: datetime) -> tuple[Account, ...]:
        """The accounts of a call made at an instant; a call belongs to the period of its authorisation."""
        near = list(self._everywhere)
        if self._by_pair:
            for name, values in bears.items():
                for value in values:
                    near += self._by_pair.get((name, value), ())
        return tuple(
            [
                self._account(budget, value_for(budget, bears) if budget.each else "", at)
                for budget in near
                if not budget.scope or all(value in bears.get(name, ()) for name, value in budget.scope.items())
            ]
        )

    def _account(self, budget: Budget, value: str, at: datetime) -> Account:
        """The account, as it was found for the last call unless its period has changed since."""
        key = budget.budget_id, value
        spell = self._known.get(key)
        if spell is None or not spell.begin <= at < spell.end:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            begin, end = spell_of(budget.period, at)
            account = Account(budget, value, stretch(budget.period, at))
            spell = self._known[key] = Spell(begin=begin, end=end, account=account)
        return spell.account


_SPREAD: Final = {"provider": 0, "model": 0, "run": 3, "key": 2, "user": 2}


def attributes(
    names: Iterable[str],
    tags: Mapping[str, str],
    others: Mapping[str, Iterable[str | None]],
) -> Attributes:
    """What a call bears of these names: `others` (provider, model, run, step) are not tags, and a tag is known by its
    own name and as `tag:NAME`."""
    found: dict[str, tuple[str, ...]] = {}
    for name in names:
        if name in others:
            kept = tuple(dict.fromkeys([value for value in others[name] if value]))
        else:
            value = tags.get(name.removeprefix("tag:"))
            kept = () if value is None else (value,)
        if kept:
            found[name] = kept
    return found


def value_for(budget: Budget, bears: Attributes) -> str:
    """The value of a budget that is one for each: `user=ada`, `team=a,user=(absent)`; empty for any other."""
    if not budget.each:
        return ""
    return ",".join([f"{name}={_escaped(bears.get(name, (ABSENT,))[0])}" for name in budget.each])


def _escaped(value: str) -> str:
    # A comma within a value must not read as two names.
    return value.replace("%", "%25").replace(",", "%2C")


def stretch(period: Period, at: datetime) -> Stretch:
    """The period that an instant belongs to, as accounts name it: by its rule and its start, so that a budget whose
    rule is changed does not go on with figures of another one."""
    if period.length is not None:
        slot = slot_seconds(period)
        number = (at - _EPOCH) // timedelta(seconds=slot)
        first = (at - period.length - _EPOCH) // timedelta(seconds=slot)
        return Stretch(_slot_name(slot, number), _slot_name(slot, first))
    if period.unit == "lifetime":
        return Stretch("lifetime")
    zone = "" if period.tz == "UTC" else f"@{period.tz}"
    anchor = "" if period.anchor == 1 else f"+{period.anchor}"
    return Stretch(f"{period.unit}{anchor}{zone} {period.key(at)}", None, period.bounds(at)[1])


def spell_of(period: Period, at: datetime) -> tuple[datetime, datetime]:
    """From when until when `stretch` gives what it gives at an instant."""
    if period.length is None:
        begin, end = period.bounds(at)
        return begin or _EARLIEST, end or _LATEST
    slot = timedelta(seconds=slot_seconds(period))
    last, first = (_EPOCH + (at - ago - _EPOCH) // slot * slot + ago for ago in (timedelta(0), period.length))
    return max(last, first), min(last, first) + slot


def slot_seconds(period: Period) -> int:
    """The length of a rolling period's slot, in whole seconds."""
    return 1 if period.length is None else max(1, math.ceil(period.length.total_seconds() / SLOTS))


def _slot_name(seconds: int, number: int) -> str:
    begin = _EPOCH + timedelta(seconds=number * seconds)
    return f"{seconds}s {begin:%Y-%m-%dT%H:%M:%SZ}"


def slot_start(name: str) -> datetime:
    """The instant at which a slot begins, from its account's period."""
    return datetime.fromisoformat(name.split(" ", 1)[1])


def amount_of(entry: Entry, unit: str) -> int:
    """What a call takes from a budget in its unit: what it cost (of a cost that is not fully known, the known part;
    nothing for what a subscription covers), all its tokens in and out, or 1. A refused call takes nothing."""
    if entry.status == "refused":
        return 0
    if unit == "calls":
        return 1
    if unit == "tokens":
        return 0 if entry.usage is None else entry.usage.tokens
    cost = entry.cost
    if cost is None or not entry.owed:
        return 0
    return max(0, cost.known.pico if cost.pico is None else cost.pico)


def settlement(entry: Entry, accounts: Sequence[Account]) -> Settlement:
    """What a call with an entry takes from its accounts. The rest of its hold is kept as suspect where the call may
    have cost more than anybody knows."""
    charges = tuple([account.charge(entry) for account in accounts]) if entry.status != "refused" else ()
    unknown = entry.quality == "unknown" and entry.status in ("ok", "cancelled", "cut")
    unpriced = entry.usage is not None and (entry.cost is None or entry.cost.pico is None)
    keep = entry.status != "refused" and (entry.quality == "lower_bound" or unknown or unpriced)
    return Settlement(charges=charges, keep=keep)


def shown_value(value: str) -> str:
    """A value for people, after a budget's name: ` (user=ada)`."""
    return f" ({value})" if value else ""


def money_words(budget: Budget | None, amount: int) -> str:
    """An amount in a budget's unit, for people."""
    return str(Money(amount)) if budget is None else budget.shown(amount)
