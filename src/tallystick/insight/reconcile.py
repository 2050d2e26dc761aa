"""Reconcile: a provider's own report against the ledger, place by place.

Each place is matched, missing here, missing there, different, or still open. Quantities are compared before money, and
each difference gets the cause that could be found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tallystick.core.money import Money
from tallystick.core.rates import Rate
from tallystick.insight.halves import Cell, Guessed, Halves, Place, card_of
from tallystick.insight.provider_reports.figures import CALLS, TOTAL, Statement
from tallystick.insight.residuals import Candidate, Trial, candidates, rate_words, round_price
from tallystick.ledger.entry import rfc3339

if TYPE_CHECKING:
    from tallystick.catalog.catalog import Catalog
    from tallystick.ledger.ledger import Ledger

MATCHED: Final = "matched"
MISSING_HERE: Final = "missing here"
MISSING_THERE: Final = "missing there"
DIFFERENT: Final = "different"
OPEN: Final = "open"
STATES: Final = (MATCHED, OPEN, MISSING_HERE, MISSING_THERE, DIFFERENT)

LATE: Final = timedelta(hours=72)
"""So long after its end a bucket may still grow. Providers' data lag by 24 to 48 hours."""

TOLERANCE: Final = Money.usd("0.000001")
"""Amounts this close are the same: reports round."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison. `there` and `here` are tokens or calls, `there_usd` and `here_usd` money; None where the report
    does not state it. `cause` is one word or two for the difference, `why` says it in full; both empty when it matched
    exactly."""

    place: Place
    provider: str
    state: str
    cause: str = ""
    why: str = ""
    there: int | None = None
    here: int | None = None
    there_usd: Money | None = None
    here_usd: Money | None = None

    @property
    def difference(self) -> int | None:
        """Theirs minus ours, in tokens or calls."""
        return None if self.there is None or self.here is None else self.there - self.here

    @property
    def difference_usd(self) -> Money | None:
        """Theirs minus ours, in dollars."""
        return None if self.there_usd is None or self.here_usd is None else self.there_usd - self.here_usd

    def to_json(self) -> dict[str, Any]:
        """The row as plain JSON values; theirs is `report`, ours is `ledger`."""
        place = self.place
        amounts = (self.there_usd, self.here_usd, self.difference_usd)
        return {
            "start": rfc3339(place.start),
            "end": rfc3339(place.end),
            "provider": self.provider,
            "call": place.call,
            "model": place.model,
            "project": place.project,
            "key": place.key,
            "kind": place.kind,
            "state": self.state,
            "cause": self.cause or None,
            "why": self.why or None,
            "quantity": _three(self.there, self.here, self.difference),
            "amount": _three(*(None if amount is None else amount.to_json() for amount in amounts)),
        }


class Fix(msgspec.Struct, frozen=True):
    """What would make a group of calls agree: all of them priced another way, or some token classes at other rates."""

    way: Candidate | None = None
    prices: Mapping[str, Rate] = {}


class Reconciliation(msgspec.Struct, frozen=True, kw_only=True):
    """All comparisons of one run. `notes` say what was left out; `fixes` hold what could be corrected, by the place of
    the group. `complete` is False when the report says that more pages follow."""

    titles: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    complete: bool = True
    halves: tuple[Halves, ...] = ()
    fixes: tuple[Mapping[Place, Fix], ...] = ()

    @property
    def exit_code(self) -> int:
        """0 when all matched, 1 when anything is different, 4 when the rest is only open or missing."""
        states = self.states
        if states[DIFFERENT]:
            return 1
        return 0 if states[MATCHED] == len(self.rows) and self.complete else 4

    @property
    def states(self) -> dict[str, int]:
        """How many rows are in each state."""
        return {state: sum(row.state == state for row in self.rows) for state in STATES}

    @property
    def there_usd(self) -> Money:
        """What the report charges, over all rows with money."""
        return sum((row.there_usd for row in self.rows if row.there_usd is not None), Money())

    @property
    def here_usd(self) -> Money:
        """What the ledger holds for the same rows."""
        return sum((row.here_usd for row in self.rows if row.here_usd is not None), Money())

    def quantities(self) -> dict[str, tuple[int, int]]:
        """Theirs and ours by token class, over all rows with quantities."""
        sums: dict[str, tuple[int, int]] = {}
        for row in self.rows:
            if row.there is not None and row.here is not None:
                there, here = sums.get(row.place.kind, (0, 0))
                sums[row.place.kind] = there + row.there, here + row.here
        return sums

    def to_json(self) -> dict[str, Any]:
        """The comparison as plain JSON values."""
        there, here = self.there_usd, self.here_usd
        return {
            "reports": list(self.titles),
            "states": self.states,
            "complete": self.complete,
            "total": {
                "amount": _three(there.to_json(), here.to_json(), (there - here).to_json()),
                "quantity": {kind: _three(one, other, one - other) for kind, (one, other) in self.quantities().items()},
            },
            "rows": [row.to_json() for row in self.rows],
            "notes": list(self.notes),
            "exit_code": self.exit_code,
        }


def reconcile(
    statements: Sequence[Statement],
    ledger: Ledger,
    catalog: Catalog,
    *,
    now: datetime,
    tolerance: Money = TOLERANCE,
) -> Reconciliation:
    """Lays the statements against the ledger. Statements of one provider are compared together, so that its usage and
    its costs make one row. `now` decides which buckets are still open. Raises InputError for buckets that overlap,
    LedgerError when the ledger cannot be read."""
    groups: dict[tuple[str, bool], list[Statement]] = {}
    for one in statements:
        by_call = any(figure.call is not None for figure in one.figures)
        groups.setdefault((one.provider, by_call), []).append(one)
    rows: list[Row] = []
    halves_of, fixes_of = [], []
    notes = [f"{one.title}: {note}" for one in statements for note in one.notes]
    for members in groups.values():
        halves = Halves(members, catalog)
        halves.lay(ledger)
        found, fixes = _Comparison(halves, catalog, now, tolerance.pico).run(ledger)
        rows += found
        halves_of.append(halves)
        fixes_of.append(fixes)
        notes += _left_out(halves)
    return Reconciliation(
        titles=tuple(one.title for one in statements),
        rows=tuple(rows),
        notes=tuple(notes),
        complete=all(one.complete for one in statements),
        halves=tuple(halves_of),
        fixes=tuple(fixes_of),
    )


class _Comparison:
    """The comparison of one provider's halves."""

    def __init__(self, halves: Halves, catalog: Catalog, now: datetime, tolerance: int) -> None:
        self._halves = halves
        self._catalog = catalog
        self._now = now
        self._tolerance = tolerance
        self._cells = {
            place: cell
            for place, cell in halves.cells.items()
            if (halves.states_quantity(place) and (cell.here or cell.there))
            or (halves.states_money(place) and (cell.here_pico or cell.there_pico or cell.unpriced))
        }
        self._there: set[Place] = set()
        for place, cell in self._cells.items():
            if cell.there or cell.there_pico:
                self._there |= {place.group, place.group._replace(model=None)}
        self._fixes: dict[Place, Fix] = {}

    def run(self, ledger: Ledger) -> tuple[list[Row], dict[Place, Fix]]:
        """The rows, in the order of time, model and class, and what could be corrected."""
        groups: dict[Place, dict[Place, Cell]] = {}
        for place, cell in self._cells.items():
            groups.setdefault(place.group, {})[place] = cell
        wrong = {
            group: cells
            for group, cells in groups.items()
            if group.model is not None and any(self._state(place, cell) == DIFFERENT for place, cell in cells.items())
        }
        trials = self._trials(ledger, wrong)
        rows: list[Row] = []
        for group in sorted(groups, key=_order):
            whole = self._whole_cause(groups[group], trials.get(group))
            if whole is not None:
                self._fixes[group] = Fix(whole)
            for place, cell in sorted(groups[group].items(), key=lambda item: _order(item[0])):
                rows.append(self._row(place, cell, groups[group], whole))
        return rows, self._fixes

    def _row(self, place: Place, cell: Cell, group: dict[Place, Cell], whole: Candidate | None) -> Row:
        state = self._state(place, cell)
        cause, why = "", ""
        if state == OPEN:
            cause, why = "late data", "the bucket ended less than 72 hours ago and may still grow"
        elif state == MISSING_HERE:
            cause, why = self._missing_here(place)
        elif state == MISSING_THERE:
            cause, why = "calls", "the ledger holds calls that the report does not"
        elif state == DIFFERENT:
            cause, why = self._cause(place, cell, group, whole)
        elif self._money(place, cell):
            cause, why = "rounding", "the amounts agree within the tolerance"
        counted, priced = self._halves.states_quantity(place), self._halves.states_money(place)
        return Row(
            place=place,
            provider=self._halves.provider,
            state=state,
            cause=cause,
            why=why,
            there=(cell.there or 0) if counted else None,
            here=cell.here if counted else None,
            there_usd=Money(cell.there_pico or 0) if priced else None,
            here_usd=Money(cell.here_pico) if priced else None,
        )

    def _state(self, place: Place, cell: Cell) -> str:
        counted = not self._quantity(place, cell) and not self._tiers(place, cell)
        if counted and not self._cell_unpriced(place, cell) and abs(self._money(place, cell)) <= self._tolerance:
            return MATCHED
        if self._now < place.end + LATE:
            return OPEN
        if not self._calls(place).calls:
            return MISSING_HERE
        if place.group not in self._there:
            return MISSING_THERE
        return DIFFERENT

    def _cause(self, place: Place, cell: Cell, group: dict[Place, Cell], whole: Candidate | None) -> tuple[str, str]:
        """The name of a difference and its words; notes a fix where there is one."""
        calls = self._calls(place)
        if self._quantity(place, cell):
            if place.call is not None:
                self._fixes.setdefault(place.group, Fix())
            return self._quantity_cause(place, group, calls)
        if whole is not None:
            return whole.cause, whole.words
        if self._tiers(place, cell):
            return "tier", self._tier_words(cell)
        quantity = cell.there if self._halves.states_quantity(place) else cell.here
        cause = "fee" if place.kind.startswith("fee:") else "price"
        pico = cell.there_pico or 0
        rate = round_price(pico, quantity or 0, place.kind, self._tolerance) if quantity == cell.here else None
        ours = f"{cell.unpriced:,} calls have no price here" if cell.unpriced else f"ours is {Money(cell.here_pico)}"
        if place.kind == TOTAL:
            self._fixes.setdefault(place.group, Fix())
            return cause, f"the provider charged another amount; {ours}"
        if pico == 0:
            return cause, f"the report bills nothing for this; {ours}"
        if rate is None or (place.model is None and cause != "fee"):
            return cause, f"no one price explains the amount: several rates, a credit or a rounded figure; {ours}"
        if not self._halves.states_quantity(place):
            return cause, f"{rate_words(rate, place.kind)}, if the quantities agree (give the usage, too); {ours}"
        fix = self._fixes.get(place.group, Fix())
        self._fixes[place.group] = Fix(fix.way, {**fix.prices, place.kind: rate})
        return cause, f"billed at {rate_words(rate, place.kind)}; {ours}"

    def _quantity_cause(self, place: Place, group: dict[Place, Cell], calls: Guessed) -> tuple[str, str]:
        if calls.words:
            return "usage", calls.words
        counted = {other.kind: cell for other, cell in group.items() if self._halves.states_quantity(other)}
        more = {kind: (cell.there or 0) - cell.here for kind, cell in counted.items()}
        tokens = [number for kind, number in more.items() if kind != CALLS and not kind.startswith("fee:")]
        if any(tokens) and sum(tokens) == 0:
            return "token class", "the tokens are the same in all, but fall into other classes"
        if number := more.get(CALLS, 0):
            side = "there" if number > 0 else "here"
            return "calls", f"{abs(number):,} more {'call' if abs(number) == 1 else 'calls'} {side}"
        if place.kind.startswith("fee:"):
            return "fee", "the numbers of tool calls differ"
        return "usage", "the quantities differ"

    def _missing_here(self, place: Place) -> tuple[str, str]:
        if place.kind.startswith(("fee:", "other:")):
            return "fee", "the ledger holds nothing of this kind"
        return "calls", "the report holds calls that the ledger does not"

    def _whole_cause(self, cells: dict[Place, Cell], trial: Trial | None) -> Candidate | None:
        """The one way of pricing that explains a whole group, if its quantities agree."""
        if trial is None or any(self._quantity(place, cell) for place, cell in cells.items()):
            return None
        tiers = {tier for cell in cells.values() for tier in cell.there_tiers}
        moved = any(self._tiers(place, cell) for place, cell in cells.items())
        wanted = {place.kind: cell.there_pico or 0 for place, cell in cells.items() if self._halves.states_money(place)}
        if not moved and not wanted:
            return None
        ways = trial.matching(wanted, self._tolerance)
        if self._halves.tiered and tiers:
            # The report says which tier it was: no other tier can be the cause.
            ways = [way for way in ways if way.tier is None or tiers == {way.tier}]
        if moved:
            ways = [way for way in ways if way.cause == "tier"]
        if not ways:
            return None
        same = [way for way in ways if way.cause == ways[0].cause]
        if len(same) == 1 or ways[0].cause != "tier":
            return ways[0]
        names = " or ".join(way.tier or "standard" for way in same)
        return msgspec.structs.replace(same[0], words=f"billed at the {names} tier, which cost the same", tier=None)

    def _trials(self, ledger: Ledger, wrong: Mapping[Place, dict[Place, Cell]]) -> dict[Place, Trial]:
        trials: dict[Place, Trial] = {}
        if not wrong:
            return trials
        for place, entry, statements in self._halves.calls(ledger):
            group = self._halves.folded(place)
            if group not in wrong or not statements or group.model is None:
                continue
            found = card_of(entry, self._catalog)
            if found is None:
                continue
            if group not in trials:
                trials[group] = Trial(candidates(found, self._catalog))
            trials[group].add(entry, found, self._halves.classes)
        return trials

    def _quantity(self, place: Place, cell: Cell) -> int:
        return (cell.there or 0) - cell.here if self._halves.states_quantity(place) else 0

    def _money(self, place: Place, cell: Cell) -> int:
        return (cell.there_pico or 0) - cell.here_pico if self._halves.states_money(place) else 0

    def _cell_unpriced(self, place: Place, cell: Cell) -> bool:
        return bool(cell.unpriced) and self._halves.states_money(place)

    def _tiers(self, place: Place, cell: Cell) -> bool:
        if not self._halves.tiered or place.call is not None or not self._halves.states_quantity(place):
            return False
        here = {tier: number for tier, number in cell.here_tiers.items() if number}
        return bool(cell.there_tiers) and cell.there_tiers != here

    def _tier_words(self, cell: Cell) -> str:
        parts = []
        for tier in sorted(cell.there_tiers.keys() | cell.here_tiers.keys()):
            there, here = cell.there_tiers.get(tier, 0), cell.here_tiers.get(tier, 0)
            if there != here:
                parts.append(f"{tier or 'standard'} {there:,} there, {here:,} here")
        return "; ".join(parts)

    def _calls(self, place: Place) -> Guessed:
        return self._halves.guessed.get(place.group, Guessed())


def _left_out(halves: Halves) -> Iterator[str]:
    for tier, (number, pico) in sorted(halves.left_out.items()):
        yield (
            f"{number:,} {tier} calls of {Money(pico)} are not in the provider's costs, which leave that tier out; "
            "their money was not compared"
        )


def _order(place: Place) -> tuple[object, ...]:
    names = (place.model or "", place.project or "", place.key or "", place.kind)
    return place.start, place.call or "", place.model is None, *names


def _three(report: object, ledger: object, difference: object) -> dict[str, object] | None:
    return None if report is None else {"report": report, "ledger": ledger, "difference": difference}
