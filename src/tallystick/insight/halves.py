"""Halves: the provider's figures and the ledger's calls, laid out over the same places so that they can be compared."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from tallystick.errors import InputError, UnpricedError
from tallystick.insight.provider_reports.figures import CALLS, TOTAL, Figure, Statement, tier_name
from tallystick.ledger.query import Query

if TYPE_CHECKING:
    from tallystick.catalog.catalog import Catalog, Found
    from tallystick.ledger.entry import Entry
    from tallystick.ledger.ledger import Ledger

_PROJECT_TAGS = ("project", "project_id", "workspace", "workspace_id")
_KEY_TAGS = ("key", "key_id", "api_key_id")
_CALL_MARGIN = timedelta(days=1)


class Place(NamedTuple):
    """What one comparison is about: a bucket of time (or a single call), and within it a model, project, key and token
    class. None means: all of them together."""

    start: datetime
    end: datetime
    call: str | None
    model: str | None
    project: str | None
    key: str | None
    kind: str

    @property
    def group(self) -> Place:
        """The place of all token classes together."""
        return self._replace(kind="")


class Cell:
    """Both halves of one place. Quantities are tokens or calls, amounts picodollars; None where the report states none.
    The tiers hold the same quantities by tier; `unpriced` counts calls without a price."""

    __slots__ = ("here", "here_pico", "here_tiers", "there", "there_pico", "there_tiers", "unpriced")

    def __init__(self) -> None:
        self.here = 0
        self.here_pico = 0
        self.here_tiers: dict[str, int] = {}
        self.there: int | None = None
        self.there_pico: int | None = None
        self.there_tiers: dict[str, int] = {}
        self.unpriced = 0

    def take(self, other: Cell) -> None:
        """Adds another cell to this one."""
        self.here += other.here
        self.here_pico += other.here_pico
        self.unpriced += other.unpriced
        self.there = _added(self.there, other.there)
        self.there_pico = _added(self.there_pico, other.there_pico)
        for mine, others in ((self.here_tiers, other.here_tiers), (self.there_tiers, other.there_tiers)):
            for tier, number in others.items():
                mine[tier] = mine.get(tier, 0) + number


class Guessed:
    """How many of a group's calls are known here only in part."""

    __slots__ = ("calls", "estimated", "lower_bound", "unknown")

    def __init__(self) -> None:
        self.calls = self.estimated = self.lower_bound = self.unknown = 0

    @property
    def words(self) -> str:
        """`2 calls of unknown usage, 1 estimated`; empty when all are exact."""
        parts = (
            (self.unknown, "of unknown usage"),
            (self.lower_bound, "counted at least"),
            (self.estimated, "estimated"),
        )
        found = [f"{number:,} {words}" for number, words in parts if number]
        return f"calls here: {', '.join(found)}" if found else ""


class Halves:
    """Statements of one provider against the ledger's calls of it.

    Either all statements are of buckets, or all of single calls. Raises InputError when buckets overlap.
    """

    def __init__(self, statements: Sequence[Statement], catalog: Catalog) -> None:
        self.statements = tuple(statements)
        self.provider = statements[0].provider
        self.classes = statements[0].classes
        self.by_call = any(figure.call is not None for one in statements for figure in one.figures)
        self.counted: frozenset[str] = frozenset().union(*(one.counted for one in statements))
        self.tiered = any(one.tiered and one.counted for one in statements)
        self.cells: dict[Place, Cell] = {}
        self.guessed: dict[Place, Guessed] = {}
        self.left_out: dict[str, list[int]] = {}
        self._catalog = catalog
        self._names: dict[str, str] = {}
        self._buckets = _in_order({bucket for one in statements for bucket in one.buckets})
        self._starts = [start for start, _ in self._buckets]
        held = [(one, frozenset(one.buckets)) for one in statements]
        self._covering = {bucket: tuple(one for one, has in held if bucket in has) for bucket in self._buckets}
        self._calls = {figure.call: figure for one in statements for figure in one.figures if figure.call is not None}
        figures = [figure for one in statements for figure in one.figures]
        self.one_total = any(figure.kind == TOTAL and figure.amount is not None for figure in figures)
        self._counted_here = self.counted | {
            figure.kind for figure in figures if figure.quantity is not None and figure.kind not in self.counted
        }
        self._loose = frozenset(figure.kind for figure in figures if figure.model is None)
        self._projects, self._keys = True, True
        for one in statements:
            for figure in one.figures:
                self._add_figure(one, figure)

    def calls(self, ledger: Ledger) -> Iterable[tuple[Place, Entry, tuple[Statement, ...]]]:
        """The ledger's calls that the statements are about: the place of each, all classes together, and the
        statements that should contain it. What nobody is billed for is left out."""
        if self.by_call:
            starts = [figure.start for figure in self._calls.values()]
            query = Query(provider=self.provider, since=min(starts) - _CALL_MARGIN, until=max(starts) + _CALL_MARGIN)
        elif self._buckets:
            query = Query(provider=self.provider, since=self._buckets[0][0], until=self._buckets[-1][1])
        else:
            return
        for entry in ledger.read(query):
            if entry.status == "refused" or not entry.owed:
                continue
            place = self._place(entry)
            if place is not None:
                yield place, entry, self._statements_of(place, entry)

    def lay(self, ledger: Ledger) -> None:
        """Reads the ledger's half and folds both halves to what both of them know."""
        for place, entry, statements in self.calls(ledger):
            self._add_entry(place, entry, statements)
        self._fold()

    def folded(self, place: Place) -> Place:
        """The place where something at `place` is compared."""
        return place._replace(
            model=None if place.kind in self._loose else place.model,
            project=place.project if self._projects else None,
            key=place.key if self._keys else None,
        )

    def states_money(self, place: Place) -> bool:
        """Whether a report states what this place costs."""
        if (place.kind == TOTAL) != self.one_total or place.kind == CALLS:
            return False
        if place.call is not None:
            return True
        return any(one.money for one in self._covering[place.start, place.end])

    def states_quantity(self, place: Place) -> bool:
        """Whether a report states the quantity of this place, or would if there were any."""
        if place.call is not None:
            return place.kind in self.counted
        covering = self._covering[place.start, place.end]
        if any(place.kind in one.counted for one in covering):
            return True
        # A bill may give quantities of some of its lines only.
        cell = self.cells.get(place)
        silent = cell is not None and cell.there is None and cell.there_pico is not None
        return place.kind in self._counted_here and place.kind not in self.counted and not silent

    def call_figure(self, call: str | None) -> Figure | None:
        """What the report says of a single call; None where it says nothing of single calls."""
        return None if call is None else self._calls.get(call)

    def model_id(self, name: str) -> str:
        """The catalogue's id of a model, however it is written; an unknown name stays itself."""
        found = self._names.get(name)
        if found is None:
            try:
                found = self._catalog.resolve(name, self.provider).model
            except (UnpricedError, InputError):
                found = name.strip().lower()
            self._names[name] = found
        return found

    def _add_figure(self, statement: Statement, figure: Figure) -> None:
        model = None if figure.model is None else self.model_id(figure.model)
        place = Place(figure.start, figure.end, figure.call, model, figure.project, figure.key, figure.kind)
        cell = self.cells.setdefault(place, Cell())
        # Where a report of usage is there too, a bill's own quantities would count everything twice.
        if figure.quantity is not None and (statement.counted or figure.kind not in self.counted):
            cell.there = (cell.there or 0) + figure.quantity
            if statement.tiered and figure.quantity:
                cell.there_tiers[figure.tier] = cell.there_tiers.get(figure.tier, 0) + figure.quantity
        if figure.amount is not None:
            cell.there_pico = (cell.there_pico or 0) + figure.amount.pico

    def _place(self, entry: Entry) -> Place | None:
        call: str | None = None
        if self.by_call:
            figure = self._calls.get(entry.provider_response_id or "")
            if figure is None:
                return None
            start, end, call = figure.start, figure.end, figure.call
        else:
            found = bisect.bisect_right(self._starts, entry.started_at) - 1
            if found < 0 or entry.started_at >= self._buckets[found][1]:
                return None
            start, end = self._buckets[found]
        model = self.model_id(entry.model)
        return Place(start, end, call, model, _tag(entry, _PROJECT_TAGS), _tag(entry, _KEY_TAGS), "")

    def _statements_of(self, place: Place, entry: Entry) -> tuple[Statement, ...]:
        covering = self.statements if place.call is not None else self._covering[place.start, place.end]
        tier, ending = tier_of(entry), (entry.api or "").rpartition(".")[2]
        return tuple(one for one in covering if tier not in one.left_out and ending not in one.other_apis)

    def _add_entry(self, place: Place, entry: Entry, statements: tuple[Statement, ...]) -> None:
        tier = tier_of(entry)
        if any(tier in one.left_out for one in self.statements):
            sums = self.left_out.setdefault(tier, [0, 0])
            sums[0] += 1
            sums[1] += 0 if entry.amount is None else entry.amount.pico
        if not statements:
            return
        guessed = self.guessed.setdefault(place, Guessed())
        guessed.calls += 1
        if entry.quality in ("unknown", "lower_bound", "estimated"):
            setattr(guessed, entry.quality, getattr(guessed, entry.quality) + 1)
        for kind, number in _counts(entry, self.classes).items():
            if any(kind in one.counted or not one.counted for one in statements):
                cell = self.cells.setdefault(place._replace(kind=kind), Cell())
                cell.here += number
                cell.here_tiers[tier] = cell.here_tiers.get(tier, 0) + number
        if any(one.money for one in statements):
            self._add_money(place, entry)

    def _add_money(self, place: Place, entry: Entry) -> None:
        kinds = [TOTAL] if self.one_total else sorted({self.classes.get(kind, kind) for kind in entry.usage or ()})
        if entry.cost is None or entry.cost.pico is None:
            for kind in kinds or [TOTAL]:
                self.cells.setdefault(place._replace(kind=kind), Cell()).unpriced += 1
        for kind, pico in amounts(entry, self.classes, one_total=self.one_total).items():
            self.cells.setdefault(place._replace(kind=kind), Cell()).here_pico += pico

    def _fold(self) -> None:
        theirs = [place for place, cell in self.cells.items() if cell.there or cell.there_pico]
        self._projects = _known([place.project for place in theirs], [place.project for place in self.guessed])
        self._keys = _known([place.key for place in theirs], [place.key for place in self.guessed])
        cells: dict[Place, Cell] = {}
        for place, cell in self.cells.items():
            cells.setdefault(self.folded(place), Cell()).take(cell)
        self.cells = cells
        guessed: dict[Place, Guessed] = {}
        for place, found in self.guessed.items():
            for target in {self.folded(place), self.folded(place)._replace(model=None)}:
                sums = guessed.setdefault(target, Guessed())
                for name in Guessed.__slots__:
                    setattr(sums, name, getattr(sums, name) + getattr(found, name))
        self.guessed = guessed


def tier_of(entry: Entry) -> str:
    """The tier a call was priced at: `batch`, `flex`, ...; empty for the standard one. Where a correction has said
    `standard` since, that stands above the context in which the call arrived."""
    for line in () if entry.cost is None else entry.cost.lines:
        if "batch" in line.note.split("; ") or any(name == "batch" for name, _ in line.multipliers):
            return "batch"
    batch = entry.context.get("processing") == "batch" and entry.tier != "standard"
    return tier_name(entry.tier, batch=batch)


def card_of(entry: Entry, catalog: Catalog) -> Found | None:
    """The rates that hold for a call, with what its name says of the context; None where there are none."""
    for name in (entry.requested_model or entry.model, entry.model):
        try:
            return catalog.find(name, at=entry.started_at, provider=entry.provider)
        except (UnpricedError, InputError):
            continue
    return None


def amounts(entry: Entry, classes: Mapping[str, str], *, one_total: bool) -> dict[str, int]:
    """What a call costs by token class, in picodollars; what the provider stated beyond its lines stands apart."""
    cost = entry.cost
    if cost is None:
        return {}
    if one_total:
        return {TOTAL: cost.known.pico if cost.pico is None else cost.pico}
    found: dict[str, int] = {}
    for line in cost.lines:
        kind = classes.get(line.kind, line.kind)
        found[kind] = found.get(kind, 0) + (line.pico or 0)
    rest = 0 if cost.pico is None else cost.pico - cost.known.pico
    if rest:
        found["other: reported"] = rest
    return found


def _counts(entry: Entry, classes: Mapping[str, str]) -> dict[str, int]:
    found = {CALLS: 1}
    for kind, number in (entry.usage or {}).items():
        name = classes.get(kind, kind)
        found[name] = found.get(name, 0) + number
    return found


def _known(theirs: Collection[str | None], ours: Collection[str | None]) -> bool:
    """Whether both sides name this of everything, and mean the same by it."""
    return None not in theirs and None not in ours and bool(set(theirs) & set(ours))


def _tag(entry: Entry, names: tuple[str, ...]) -> str | None:
    return next((entry.tags[name] for name in names if name in entry.tags), None)


def _added(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else one + other


def _in_order(buckets: Collection[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    ordered = sorted(buckets)
    for (_, end), (start, _) in itertools.pairwise(ordered):
        if start < end:
            raise InputError(
                f"The report's buckets overlap at {start.isoformat()}.",
                money="A call would be compared twice, so nothing was compared.",
                todo="Give reports of one bucket width, or compare them one by one.",
            )
    return ordered
