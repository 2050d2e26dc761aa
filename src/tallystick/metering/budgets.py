"""Budgets at work: putting them into the ledger with what was spent before, changing them, and what a refusal says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from tallystick.config import Config
from tallystick.core.money import Money
from tallystick.errors import InputError
from tallystick.ledger.budget import Budget
from tallystick.ledger.entry import Entry
from tallystick.ledger.hold import Seed
from tallystick.ledger.query import Query, Total
from tallystick.metering.claims import ABSENT, Attributes, amount_of, attributes, stretch, value_for
from tallystick.metering.rules import budgets_of
from tallystick.metering.sites import ensure_key

if TYPE_CHECKING:
    from tallystick.ledger.ledger import Ledger

COUNTING: Final = ("client", "gateway")
"""The sources whose calls every budget counts."""

_OWN: Final = ("raised_by", "raised_until", "paused", "created_at")
"""What a new rule leaves as it was."""


def find_budget(ledger: Ledger, name: str) -> Budget:
    """The budget of a name. Raises InputError that names the others."""
    listed = {one.budget_id: one for one in ledger.budgets().budgets}
    if name not in listed:
        known = f"There are: {', '.join(list(listed)[:20])}." if listed else "There is none yet: tally budget add."
        raise InputError(f"There is no budget {name[:80]!r}.", money="Nothing was changed.", todo=known)
    return listed[name]


def put(ledger: Ledger, budget: Budget, now: datetime) -> Budget:
    """Adds a budget, or gives one another rule; what it has used stays. A new one, or one with a new period, begins
    with what the ledger's calls have spent in its scope in the present period. Raises InputError for another scope or
    unit, as what was used is known by the old one only."""
    standing = {one.budget_id: one for one in ledger.budgets().budgets}
    before = standing.get(budget.budget_id)
    if before is not None:
        budget = msgspec.structs.replace(budget, **{name: getattr(before, name) for name in _OWN})
        if before == budget:
            return budget
        if (before.scope, before.each, before.unit) != (budget.scope, budget.each, budget.unit):
            raise InputError(
                f"The budget {budget.budget_id!r} has another scope or unit, and what it has used is known by that.",
                money="Nothing was changed.",
                todo="Add one with another name, and remove this one.",
            )
    ensure_key(ledger)
    same = before is not None and before.period == budget.period
    ledger.put_budget(budget, () if same else tuple(seeds(ledger, budget, now)))
    return budget


def apply(ledger: Ledger, config: Config, now: datetime) -> tuple[Budget, ...]:
    """Puts the budgets of a configuration into the ledger; unchanged ones are left alone. Raises ConfigError or
    InputError; budgets before the wrong one then stand."""
    return tuple([put(ledger, budget, now) for budget in budgets_of(config, now)])


def seeds(ledger: Ledger, budget: Budget, now: datetime) -> Iterator[Seed]:
    """What the calls in the ledger have spent in a budget's scope in the period around `now`, by account."""
    found: dict[tuple[str, str], int] = {}
    if budget.period.length is not None or "step" in (*budget.scope, *budget.each):
        for entry in _entries(ledger, budget, now):
            key = value_for(budget, _bears(budget, entry)), stretch(budget.period, entry.started_at).period
            found[key] = found.get(key, 0) + amount_of(entry, budget.unit)
    else:
        period = stretch(budget.period, now).period
        for total in _totals(ledger, budget, now):
            group = {name: (value or ABSENT,) for name, value in total.group.items()}
            key = value_for(budget, group), period
            found[key] = found.get(key, 0) + _amount(total, budget.unit)
    for (value, period), amount in found.items():
        if amount > 0:
            yield Seed(value=value, period=period, settled=amount)


def _queries(budget: Budget, now: datetime) -> Iterator[Query]:
    scope = budget.scope
    tags = {
        name.removeprefix("tag:"): value
        for name, value in scope.items()
        if name not in ("provider", "model", "run", "step")
    }
    since = budget.period.bounds(now)[0]
    for source in (*COUNTING, *budget.sources):
        query = Query(
            since=since,
            source=source,
            run_id=scope.get("run"),
            provider=scope.get("provider"),
            model=scope.get("model"),
        )
        yield msgspec.structs.replace(query, tags=query.tags.overlay(tags))


def _totals(ledger: Ledger, budget: Budget, now: datetime) -> Iterator[Total]:
    for query in _queries(budget, now):
        yield from ledger.total(query, budget.each)


def _entries(ledger: Ledger, budget: Budget, now: datetime) -> Iterator[Entry]:
    step = budget.scope.get("step")
    for query in _queries(budget, now):
        for entry in ledger.read(query):
            if step is None or entry.step == step:
                yield entry


def _bears(budget: Budget, entry: Entry) -> Attributes:
    others = {
        "provider": (entry.provider,),
        "model": (entry.model,),
        "run": (entry.run_id,),
        "step": (entry.step,),
    }
    return attributes(budget.each, entry.tags, others)


def _amount(total: Total, unit: str) -> int:
    if unit == "calls":
        return total.calls - total.refused
    return total.usage.tokens if unit == "tokens" else total.cost.pico


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How one account of a budget stands in the present period, in the budget's unit. `limit` includes a temporary
    raise, `spent` what suspect holds claim; `left` is never below 0."""

    value: str
    limit: int
    spent: int = 0
    suspect: int = 0
    held: int = 0
    overdraft: int = 0
    resets_at: datetime | None = None

    @property
    def left(self) -> int:
        """What is neither spent nor held."""
        return max(0, self.limit - self.spent - self.held)

    @property
    def percent(self) -> int:
        """How much of the limit is spent, rounded down; 100 for a limit of 0."""
        return 100 * self.spent // self.limit if self.limit else 100


def standings(ledger: Ledger, budget: Budget, now: datetime) -> tuple[Standing, ...]:
    """The accounts of a budget in the present period, by value; always one where the budget has a single one."""
    present, limit = stretch(budget.period, now), budget.limit_at(now)
    found: dict[str, list[int]] = {} if budget.each else {"": [0, 0, 0, 0]}
    for account in ledger.accounts(budget.budget_id):
        if (present.since or present.period) <= account.period <= present.period:
            balance = account.balance
            figures = found.setdefault(account.value, [0, 0, 0, 0])
            for place, amount in enumerate((balance.spent, balance.suspect, balance.held, balance.overdraft)):
                figures[place] += amount
    return tuple(
        [
            Standing(
                value=value,
                limit=limit,
                spent=spent,
                suspect=suspect,
                held=held,
                overdraft=overdraft,
                resets_at=present.resets_at,
            )
            for value, (spent, suspect, held, overdraft) in sorted(found.items())
        ]
    )


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """What a refused call met: the budget (with the value of its account, where it has one for each), what was spent
    and held of its limit, what the call might have taken, and when there is room again. Amounts are Money, or whole
    numbers of `unit` tokens or calls. `queued` says that there was room, but for calls that had asked before and were
    still waiting; `advisory` says that callers set a tag of its scope themselves."""

    budget: str
    value: str
    unit: str
    spent: Money | int
    held: Money | int
    limit: Money | int
    asked: Money | int
    resets_at: datetime | None = None
    retry_after: int | None = None
    queued: bool = False
    advisory: bool = False


_AMOUNT: Final = r"-?\$[\d,]+(?:\.\d+)?|-?[\d,]+ (?:tokens|calls)"
_SENTENCE: Final = re.compile(
    rf"Budget (?P<budget>[\w.-]+)(?: \((?P<value>[^\n]{{1,600}}?)\))?: (?P<spent>{_AMOUNT}) spent and "
    rf"(?P<held>{_AMOUNT}) held of (?P<limit>{_AMOUNT}); this call may (?:cost|take) up to (?P<asked>{_AMOUNT})\."
    r"(?P<queued> Calls that asked before it are still waiting\.)?"
    r"(?: It resets at (?P<resets>\d{4}-\d\d-\d\d \d\d:\d\d) UTC\.)?(?: There is room again in (?P<after>[\d,]+) s\.)?"
    r"(?P<advisory> It is advisory:)?"
)


def refusal(error: BaseException) -> Refusal | None:
    """What a budget said when it refused a call, from the error that the provider's own SDK made of it (or from our
    BudgetExceeded); None for any other error."""
    match = _SENTENCE.search(str(error))
    if match is None:
        return None
    resets, after = match["resets"], match["after"]
    return Refusal(
        budget=match["budget"],
        value=match["value"] or "",
        unit="usd" if "$" in match["limit"] else match["limit"].rpartition(" ")[2],
        spent=_read_amount(match["spent"]),
        held=_read_amount(match["held"]),
        limit=_read_amount(match["limit"]),
        asked=_read_amount(match["asked"]),
        resets_at=None if resets is None else datetime.strptime(resets, "%Y-%m-%d %H:%M").replace(tzinfo=UTC),
        retry_after=None if after is None else int(after.replace(",", "")),
        queued=match["queued"] is not None,
        advisory=match["advisory"] is not None,
    )


def _read_amount(text: str) -> Money | int:
    return Money.parse(text) if "$" in text else int(text.partition(" ")[0].replace(",", ""))
