"""Board of budgets: each budget as it stands, how it came there in its period, what is held and by whom, and which
thresholds were passed. Amounts are whole numbers in a budget's unit: picodollars, tokens or calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import msgspec

from tallystick.core.attribution import Tags
from tallystick.core.money import Money
from tallystick.core.periods import Period
from tallystick.insight.flights import Flights, look_flights
from tallystick.ledger.budget import Budget
from tallystick.ledger.hold import Hold
from tallystick.ledger.query import Query, Total
from tallystick.metering.advisory import advice, advisory, open_tags
from tallystick.metering.budgets import COUNTING, Standing, standings
from tallystick.metering.outbox import NAMESPACE, Notice
from tallystick.metering.rules import limit_words

if TYPE_CHECKING:
    from pathlib import Path

    from tallystick.ledger.ledger import Ledger

FULLEST: Final = 10
"""So many accounts of a budget that has one for each value are shown."""

HOLDS: Final = 100
"""So many holds are shown, the oldest first, suspect ones before those of calls in flight."""

NOTICES: Final = 20
"""So many passed thresholds are shown, the newest first."""

DRAWN: Final = 8
"""Of so many budgets, the fullest first, it is looked up how they are used up."""

MOST_READ: Final = 100_000
"""Of no more calls in a period are those of some sources and a scope picked out: the ledger keeps sums of each, but not
of both together."""

LOW: Final = 80
"""From so many per cent of its limit an account is nearly used up."""

Kept = TypeVar("Kept")

_PARTS: Final = {"day": "hour", "week": "day", "month": "day", "year": "month"}
_DIMENSIONS: Final = ("provider", "model", "run")
_decode: Final = msgspec.json.Decoder(Notice).decode


class Keep(Protocol):
    """Gives what was made for a key a little while ago, else what `make` gives now."""

    def __call__(self, key: tuple[object, ...], make: Callable[[], Kept], /) -> Kept:
        """What is kept for the key, or made."""
        ...


def anew(key: tuple[object, ...], make: Callable[[], Kept], /) -> Kept:
    """Keeps nothing."""
    del key
    return make()


class Point(msgspec.Struct, frozen=True):
    """A part of a period: from when on, and what is left of the limit at its end (None: it is still to come)."""

    start: datetime
    left: int | None


class Burn(msgspec.Struct, frozen=True):
    """How a limit is used up in its period. `projected` goes on from the last known point at the mean pace so far,
    until nothing is left, and
    `empty_at` is when nothing would be left at that pace (None: not within the period)."""

    points: tuple[Point, ...]
    projected: tuple[int | None, ...]
    empty_at: datetime | None


class BudgetView(msgspec.Struct, frozen=True, kw_only=True):
    """A budget as it stands. `fullest` are its accounts, the fullest first, of `accounts` in all; `standing` is the sum
    over them, or the one there is. `words` is the limit as people write it, `remarks` what else there is to know."""

    budget: Budget
    words: str
    scope: str
    remarks: tuple[str, ...]
    standing: Standing
    fullest: tuple[Standing, ...]
    accounts: int
    burn: Burn | None = None

    @property
    def state(self) -> str:
        """`paused`, `used up`, `nearly used up` or `open`, by its fullest account."""
        if self.budget.paused:
            return "paused"
        worst = max([one.percent for one in self.fullest], default=0)
        return "used up" if worst >= 100 else "nearly used up" if worst >= LOW else "open"


class HoldView(msgspec.Struct, frozen=True, kw_only=True):
    """A hold: `claims` are what it takes of which budget, as text; `doing` says what its call is, where it is still in
    flight."""

    call_id: str
    state: str
    owner: str
    since: datetime
    expires_at: datetime
    claims: tuple[tuple[str, str], ...]
    money: Money
    doing: str = ""


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. `held` and `suspect` are the money in open and in suspect holds; `open_calls` and `suspect_calls` how
    many there are of them."""

    budgets: tuple[BudgetView, ...]
    holds: tuple[HoldView, ...]
    notices: tuple[Notice, ...]
    held: Money = Money(0)
    suspect: Money = Money(0)
    open_calls: int = 0
    suspect_calls: int = 0


def look_budgets(ledger: Ledger, now: datetime, flights: Path | None = None, keep: Keep = anew) -> Board:
    """The board of a ledger's budgets. `keep` may keep for a while what the parts of a period came to that are over,
    or nearly so. Raises LedgerError."""
    standing = ledger.budgets().budgets
    opened = open_tags(ledger, now)
    views = sorted((_view(ledger, one, now, opened) for one in standing), key=_urgency)
    sums = _Sums(ledger, keep)
    drawn = [_burn(sums, one.budget, one.standing, now) for one in views[:DRAWN]]
    views[:DRAWN] = [msgspec.structs.replace(one, burn=found) for one, found in zip(views[:DRAWN], drawn, strict=True)]
    known = {one.budget_id: one for one in standing}
    suspect, held = ledger.holds("suspect"), ledger.holds("open")
    flying = look_flights(flights)
    ordered = [*_by_age(suspect), *_by_age(held)][:HOLDS]
    return Board(
        budgets=tuple(views),
        holds=tuple([_hold(one, known, flying) for one in ordered]),
        notices=tuple(sorted(_notices(ledger), key=lambda one: one.at, reverse=True)[:NOTICES]),
        held=_money(held, known),
        suspect=_money(suspect, known),
        open_calls=len(held),
        suspect_calls=len(suspect),
    )


def burn(ledger: Ledger, budget: Budget, standing: Standing, now: datetime) -> Burn | None:
    """How a budget with a single account is used up in the present period; None where that cannot be drawn: for a
    rolling period or a lifetime, for one account for each value, for steps, and where it would take long. Raises
    LedgerError."""
    return _burn(_Sums(ledger, anew), budget, standing, now)


def _burn(sums: _Sums, budget: Budget, standing: Standing, now: datetime) -> Burn | None:
    begin, end = budget.period.bounds(now)
    part = _PARTS.get(budget.period.unit)
    if part is None or begin is None or end is None or budget.each or "step" in budget.scope:
        return None
    per = Period(part, budget.period.tz)
    spent = sums.spent(budget, begin, per)
    if spent is None:
        return None
    starts = list(_starts(per, begin, end))
    past = [start for start in starts if start <= now]
    left, lefts = standing.limit, []
    for start in past:
        left -= spent.get(start, 0)
        lefts.append(left)
    if lefts:
        # The account knows more than its calls: what suspect holds claim, and what was charged beside them.
        lefts[-1] = standing.limit - standing.spent
    points = [Point(start, lefts[place] if place < len(lefts) else None) for place, start in enumerate(starts)]
    return Burn(tuple(points), *_projected(standing, starts, (begin, end), now))


def _projected(
    standing: Standing, starts: Sequence[datetime], bounds: tuple[datetime, datetime], now: datetime
) -> tuple[tuple[int | None, ...], datetime | None]:
    begin, end = bounds
    passed = (now - begin) / timedelta(seconds=1)
    if standing.spent <= 0 or passed <= 0:
        return (), None
    known = sum(start <= now for start in starts)
    ends = [*starts[1:], end]
    rest: list[int | None] = [None] * (known - 1)
    rest.append(standing.limit - standing.spent)
    pace = [(at - begin) / timedelta(seconds=1) / passed for at in ends[known:]]
    for share in pace:
        left = standing.limit - round(standing.spent * share)
        # Below nothing there is nothing to draw.
        rest.append(None if rest[-1] is None or rest[-1] <= 0 else max(left, 0))
    until_empty = passed * standing.limit / standing.spent
    within = passed < until_empty < (end - begin) / timedelta(seconds=1)
    return tuple(rest), begin + timedelta(seconds=until_empty) if within else None


def _view(ledger: Ledger, budget: Budget, now: datetime, opened: frozenset[str]) -> BudgetView:
    found = standings(ledger, budget, now)
    fullest = sorted(found, key=lambda one: (-one.percent, -one.spent, one.value))
    whole = found[0] if len(found) == 1 else _sum(budget, found, now)
    return BudgetView(
        budget=budget,
        words=limit_words(budget),
        scope=scope_words(budget),
        remarks=tuple(_remarks(budget, whole, now, opened)),
        standing=whole,
        fullest=tuple(fullest[:FULLEST]),
        accounts=len(found),
    )


def scope_words(budget: Budget) -> str:
    """Whose calls a budget counts: `team=a, one for each user`; `every call` without a scope."""
    parts = [f"{name}={value}" for name, value in budget.scope.items()]
    parts += [f"one for each {' and '.join(budget.each)}"] if budget.each else []
    return ", ".join(parts) or "every call"


def _sum(budget: Budget, found: Sequence[Standing], now: datetime) -> Standing:
    return Standing(
        value="",
        limit=budget.limit_at(now) * max(len(found), 1),
        spent=sum(one.spent for one in found),
        suspect=sum(one.suspect for one in found),
        held=sum(one.held for one in found),
        overdraft=sum(one.overdraft for one in found),
        resets_at=found[0].resets_at if found else budget.period.bounds(now)[1] if not budget.period.length else None,
    )


def _remarks(budget: Budget, whole: Standing, now: datetime, opened: frozenset[str]) -> Iterator[str]:
    if budget.raised_until is not None and now < budget.raised_until:
        yield f"raised by {budget.shown(budget.raised_by)} until {budget.raised_until:%Y-%m-%d %H:%M} UTC"
    if not budget.hard:
        yield "soft: counts and tells, refuses nothing"
    elif budget.failure == "open":
        yield "lets calls go while the ledger cannot be asked"
    if whole.overdraft:
        yield f"{budget.shown(whole.overdraft)} beyond what was held"
    if whole.suspect:
        yield f"{budget.shown(whole.suspect)} suspect"
    said = advice(advisory(budget, opened))
    if said:
        yield said


def _urgency(view: BudgetView) -> tuple[bool, int, str]:
    worst = max([one.percent for one in view.fullest], default=0)
    return view.budget.paused, -worst, view.budget.budget_id


class _Sums:
    """What calls came to by the parts of a period, for several budgets; each question is asked once."""

    def __init__(self, ledger: Ledger, keep: Keep) -> None:
        self._ledger = ledger
        self._keep = keep
        self._known: dict[tuple[Query, Period | None], list[Total]] = {}

    def spent(self, budget: Budget, begin: datetime, per: Period) -> dict[datetime, int] | None:
        """What the calls that a budget counts came to by parts of its period; None where that would take too long."""

        def make() -> dict[datetime, int] | None:
            totals = self._totals(budget, begin, per)
            if totals is None:
                return None
            found: dict[datetime, int] = {}
            for total in totals:
                if total.start is not None:
                    start = max(total.start, begin)
                    found[start] = found.get(start, 0) + _amount(total, budget.unit)
            return found

        return self._keep(("spent", budget, begin), make)

    def _totals(self, budget: Budget, since: datetime, per: Period) -> list[Total] | None:
        scope, counting = budget.scope, {*COUNTING, *budget.sources}
        query = Query(
            since=since,
            provider=scope.get("provider"),
            model=scope.get("model"),
            run_id=scope.get("run"),
            tags=Tags({name.removeprefix("tag:"): value for name, value in scope.items() if name not in _DIMENSIONS}),
        )
        # Nearly every ledger has calls of no other source, ever: asked once, that answers for all budgets.
        if not self._others(Query(), counting) or not self._others(Query(since=since), counting):
            return self._total(query, per)
        if scope and sum(total.calls for total in self._by_source(Query(since=since))) > MOST_READ:
            return None
        picked = [msgspec.structs.replace(query, source=source) for source in sorted(counting)]
        return [total for one in picked for total in self._total(one, per)]

    def _others(self, query: Query, counting: set[str]) -> bool:
        return any(total.group["source"] not in counting for total in self._by_source(query))

    def _by_source(self, query: Query) -> list[Total]:
        return self._asked((query, None), lambda: self._ledger.total(query, ("source",)))

    def _total(self, query: Query, per: Period) -> list[Total]:
        return self._asked((query, per), lambda: self._ledger.total(query, per=per))

    def _asked(self, key: tuple[Query, Period | None], make: Callable[[], list[Total]]) -> list[Total]:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]


def _starts(per: Period, begin: datetime, end: datetime) -> Iterator[datetime]:
    at: datetime | None = begin
    while at is not None and at < end:
        yield at
        at = per.bounds(at)[1]


def _amount(total: Total, unit: str) -> int:
    if unit == "calls":
        return total.calls - total.refused
    return total.usage.tokens if unit == "tokens" else total.cost.pico


def _by_age(holds: Sequence[Hold]) -> list[Hold]:
    return sorted(holds, key=lambda one: one.authorised_at)


def _hold(hold: Hold, known: Mapping[str, Budget], flying: Flights) -> HoldView:
    claims = []
    for one in hold.charges:
        budget = known.get(one.budget_id)
        amount = str(Money(one.amount)) if budget is None else budget.shown(one.amount)
        claims.append((f"{one.budget_id} ({one.value})" if one.value else one.budget_id, amount))
    flight = next((one for one in (*flying.alive, *flying.left) if one.call_id == hold.hold_id), None)
    doing = "" if flight is None else " · ".join(part for part in (flight.model, flight.run_id) if part)
    return HoldView(
        call_id=hold.hold_id,
        state=hold.state,
        owner=hold.owner,
        since=hold.authorised_at.astimezone(UTC),
        expires_at=hold.expires_at.astimezone(UTC),
        claims=tuple(claims),
        money=_most(hold, known),
        doing=doing,
    )


def _most(hold: Hold, known: Mapping[str, Budget]) -> Money:
    """The money that a hold sets aside: the largest of its claims, which are all for the same call."""
    amounts = [one.amount for one in hold.charges if one.budget_id in known and known[one.budget_id].unit == "usd"]
    return Money(max(amounts, default=0))


def _money(holds: Sequence[Hold], known: Mapping[str, Budget]) -> Money:
    return sum((_most(one, known) for one in holds), Money(0))


def _notices(ledger: Ledger) -> Iterator[Notice]:
    for text in ledger.states(NAMESPACE).values():
        try:
            yield _decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
