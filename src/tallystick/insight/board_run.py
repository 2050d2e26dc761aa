"""Board of one run: its tree of runs and steps, its calls one by one, and which of them stand out.

Sums are of whole runs, from the ledger; steps and outliers are of the calls that were read, which is all of them but
in runs of thousands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from tallystick.core.money import Money
from tallystick.insight.blocks import added
from tallystick.insight.board_runs import counted, ended, run_status, summed
from tallystick.insight.flights import Flights
from tallystick.ledger.query import Query, Total, Totals

if TYPE_CHECKING:
    from tallystick.ledger.entry import Entry
    from tallystick.ledger.intents import InFlight
    from tallystick.ledger.ledger import Ledger

READ: Final = 1_500
"""So many calls of a tree are read one by one."""

SILENCE: Final = timedelta(hours=1)
"""A run below another one is looked for up to so long after the last call of the tree."""

NEARBY: Final = 500
"""Of so many runs that happened beside the tree it is looked up whose child they are."""

ASIDE: Final = 50_000
"""Where more calls than these happened beside the tree, runs below it are not looked for."""

ORPHANS: Final = 2_000
"""Among so many of the newest calls a run is looked for that made none itself."""

NODES: Final = 100
"""So many runs of a tree are shown."""

ENOUGH: Final = 8
"""Fewer calls than these of one model say nothing about what is usual."""

SCALED: Final = 14826
"""Ten thousand times 1.4826, which makes a median absolute deviation comparable to a standard deviation."""

FACTOR: Final = 3

OUTLIER_RULE: Final = (
    f"A call stands out when its time or cost is above the median plus {FACTOR} scaled median absolute deviations "
    f"(MAD times 1.4826), and above one and a half medians, of the calls of the same model and interface in this tree, "
    f"of which there must be at least {ENOUGH}; beside it stands how many medians it is."
)
_PARTS: Final = ("status", "model")
_TICK: Final = timedelta(microseconds=1)


class RunCall(msgspec.Struct, frozen=True):
    """One call of a tree; `slow` and `dear` say by how much of the usual it stands out (None: it does not). `attempt`
    is 1, or higher for a call that was sent again."""

    entry: Entry
    attempt: int = 1
    slow: float | None = None
    dear: float | None = None

    @property
    def stands_out(self) -> bool:
        """Whether the call took or cost far more than usual."""
        return self.slow is not None or self.dear is not None

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is to be said about the call, in words."""
        return tuple(_remarks(self))

    @property
    def length_us(self) -> int:
        """How long it took, in microseconds."""
        return (ended(self.entry) - self.entry.started_at) // _TICK


class Step(msgspec.Struct, frozen=True):
    """One step of a run (`name` None: calls outside any), as far as its calls were read."""

    name: str | None
    total: Total
    calls: tuple[RunCall, ...]

    @property
    def started_at(self) -> datetime:
        """When the first call began."""
        return self.calls[0].entry.started_at

    @property
    def ended_at(self) -> datetime:
        """When the last one ended."""
        return max(ended(call.entry) for call in self.calls)


class Node(msgspec.Struct, frozen=True):
    """One run of the tree: `direct` is the sum of its own calls, `inclusive` with all runs below it. Of its calls
    `read` were read; `flights` are those in flight."""

    run_id: str
    depth: int
    direct: Total
    inclusive: Total
    statuses: dict[str, int]
    models: tuple[str, ...]
    steps: tuple[Step, ...]
    below: tuple[Node, ...] = ()
    parent: str | None = None
    flights: tuple[InFlight, ...] = ()
    left: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def read(self) -> int:
        """How many calls of it were read."""
        return sum(len(step.calls) for step in self.steps)

    @property
    def status(self) -> str:
        """How it stands, in words."""
        return run_status(self.statuses, len(self.flights), self.left)

    def walk(self) -> Iterator[Node]:
        """This run and all below it, each before those below it."""
        yield self
        for node in self.below:
            yield from node.walk()


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """A run with all below it. `calls` are those that were read, in the order of time, out of `of`; `gaps` say in words
    what may be missing from the tree."""

    root: Node
    calls: tuple[RunCall, ...]
    of: int
    newest: bool = False
    gaps: tuple[str, ...] = ()
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All runs of the tree."""
        return tuple(self.root.walk())

    @property
    def flights(self) -> tuple[InFlight, ...]:
        """All its calls in flight."""
        return tuple(flight for node in self.nodes for flight in node.flights)

    @property
    def flying(self) -> Money:
        """What the calls in flight have come to so far, an estimate."""
        return Money(sum(flight.pico for flight in self.flights))

    @property
    def retries(self) -> tuple[RunCall, ...]:
        """The calls that were sent again."""
        return tuple(call for call in self.calls if call.attempt > 1)

    @property
    def outliers(self) -> tuple[RunCall, ...]:
        """The calls that stand out."""
        return tuple(call for call in self.calls if call.stands_out)


class _Found(msgspec.Struct):
    """A run that belongs to the tree, before its calls are judged."""

    run_id: str
    parent: str | None
    total: Total
    parts: list[Total]
    entries: list[Entry]
    started_at: datetime | None
    ended_at: datetime | None


def run_view(
    ledger: Ledger, run_id: str, flights: Flights | None = None, *, newest: bool = False, near: str = ""
) -> RunView | None:
    """The tree below a run; None where neither a call nor a flight bears it. Runs below it are those whose first call
    names it, or one below it, as their parent, and that have calls from its first one until an hour after the last one
    of the tree. Where there are more calls than can be read, those from the beginning are, or with `newest` those up to
    the end. A run that made no call itself is found by those below it: among the newest calls, or by `near`, the name
    of one of them. Raises LedgerError."""
    flying = flights or Flights()
    root = _own(ledger, run_id)
    found, gaps = {run_id: root}, list[str]()
    if root.started_at is None:
        below = _orphans(ledger, run_id, near)
        if not below and not any(one.run_id == run_id for one in (*flying.alive, *flying.left)):
            return None
        found |= {run: _own(ledger, run) for run in below}
        begins = [one.started_at for one in found.values() if one.started_at is not None]
        if begins:
            gaps.append(
                "the run made no call itself; those below it were looked for from an hour before the first found"
            )
            gaps += _grow(ledger, found, min(begins) - SILENCE)
    else:
        gaps += _grow(ledger, found, root.started_at)
    if len(found) > NODES:
        gaps.append(f"only {NODES} of {len(found):,} runs are shown, those that began first")
        kept = [run_id, *[run for run in _by_begin(found) if run != run_id][: NODES - 1]]
        found = {run: found[run] for run in kept}
    left = READ
    for one in [root, *[found[run] for run in _by_begin(found) if run != run_id]]:
        one.entries = _calls(ledger, one.run_id, left, newest)
        left -= len(one.entries)
    calls = _judged([entry for one in found.values() for entry in one.entries])
    root_node = _node(root, found, {call.entry.call_id: call for call in calls}, flying, 0)
    begins = [one.started_at for one in found.values() if one.started_at is not None]
    ends = [one.ended_at for one in found.values() if one.ended_at is not None]
    return RunView(
        root=root_node,
        calls=calls,
        of=root_node.inclusive.calls,
        newest=newest,
        gaps=tuple(gaps),
        started_at=min(begins, default=None),
        ended_at=max(ends, default=None),
    )


def _own(ledger: Ledger, run_id: str) -> _Found:
    parts = ledger.total(Query(run_id=run_id), _PARTS)
    first = next(ledger.read(Query(run_id=run_id, limit=1)), None)
    last = next(ledger.read(Query(run_id=run_id, limit=1, newest_first=True)), None)
    return _Found(
        run_id,
        None if first is None else first.parent_run,
        summed(parts, {"run": run_id}),
        parts,
        [],
        None if first is None else first.started_at,
        None if last is None else ended(last),
    )


def _by_begin(found: dict[str, _Found]) -> list[str]:
    began = {run: one.started_at.timestamp() if one.started_at else 0.0 for run, one in found.items()}
    return sorted(found, key=lambda run: (began[run], run))


def _calls(ledger: Ledger, run_id: str, most: int, newest: bool) -> list[Entry]:
    if most <= 0:
        return []
    entries = list(ledger.read(Query(run_id=run_id, limit=most, newest_first=newest)))
    return entries[::-1] if newest else entries


def _grow(ledger: Ledger, found: dict[str, _Found], since: datetime) -> list[str]:
    """Adds the runs below, and gives what may be missing."""
    parents: dict[str, str | None] = {}
    until = _end(found)
    while True:
        stretch = Query(since=since, until=until + SILENCE)
        beside = ledger.total(stretch)[0].calls
        if beside > ASIDE:
            return [f"{beside:,} calls happened beside it, too many to look for runs below it"]
        for row in ledger.total(stretch, ("run",)):
            run = row.group["run"]
            if run is None or run in parents:
                continue
            if len(parents) >= NEARBY:
                return [f"more than {NEARBY:,} runs happened beside it; some below it may be missing"]
            first = next(ledger.read(Query(run_id=run, limit=1)), None)
            parents[run] = None if first is None else first.parent_run
        fresh = _below(found, parents)
        for run in fresh:
            found[run] = _own(ledger, run)
        if len(found) > NODES or _end(found) <= until:
            return []
        until = _end(found)


def _below(found: dict[str, _Found], parents: dict[str, str | None]) -> list[str]:
    """The runs not found yet whose parents lead to a run of the tree."""
    tree, fresh = set(found), list[str]()
    while more := [run for run, parent in parents.items() if parent in tree and run not in tree]:
        tree.update(more)
        fresh += more
    return fresh


def _end(found: dict[str, _Found]) -> datetime:
    return max(one.ended_at for one in found.values() if one.ended_at is not None)


def _orphans(ledger: Ledger, run_id: str, near: str) -> list[str]:
    first = next(ledger.read(Query(run_id=near, limit=1)), None) if near else None
    if first is not None and first.parent_run == run_id and near != run_id:
        return [near]
    newest = ledger.read(Query(limit=ORPHANS, newest_first=True))
    runs = [entry.run_id for entry in newest if entry.parent_run == run_id and entry.run_id not in (None, run_id)]
    return [str(run) for run in dict.fromkeys(runs)]


def _node(one: _Found, found: dict[str, _Found], calls: dict[str, RunCall], flights: Flights, depth: int) -> Node:
    children = [found[run] for run in _by_begin(found) if found[run].parent == one.run_id and run != one.run_id]
    # A tree that names itself as its own parent further down would have no end.
    rest = {run: other for run, other in found.items() if run != one.run_id}
    below = tuple([_node(child, rest, calls, flights, depth + 1) for child in children])
    inclusive = one.total
    for node in below:
        inclusive = added(inclusive, node.inclusive)
    return Node(
        one.run_id,
        depth,
        one.total,
        inclusive,
        counted(one.parts),
        tuple(dict.fromkeys(str(part.group["model"]) for part in one.parts)),
        tuple(_steps(one.entries, calls)),
        below,
        one.parent,
        tuple([flight for flight in flights.alive if flight.run_id == one.run_id]),
        sum(flight.run_id == one.run_id for flight in flights.left),
        one.started_at,
        one.ended_at,
    )


def _steps(entries: Iterable[Entry], calls: dict[str, RunCall]) -> Iterator[Step]:
    by_name: dict[str | None, list[RunCall]] = {}
    for entry in entries:
        by_name.setdefault(entry.step, []).append(calls[entry.call_id])
    for name, some in by_name.items():
        totals = Totals((), None)
        for call in some:
            totals.add_entry(call.entry)
        yield Step(name, totals.rows()[0], tuple(some))


def _judged(entries: Sequence[Entry]) -> tuple[RunCall, ...]:
    """The calls in the order of time, with what stands out."""
    times: dict[tuple[str, str, str | None], list[int]] = {}
    costs: dict[tuple[str, str, str | None], list[int]] = {}
    for entry in entries:
        if entry.status == "refused":
            continue
        site = entry.provider, entry.model, entry.api
        if entry.latency_us is not None:
            times.setdefault(site, []).append(entry.latency_us)
        if entry.cost is not None and entry.cost.pico is not None:
            costs.setdefault(site, []).append(entry.cost.pico)
    usual = [{site: _usual(values) for site, values in found.items()} for found in (times, costs)]
    attempts: dict[str, int] = {}
    judged = []
    for entry in sorted(entries, key=lambda entry: (entry.started_at, entry.call_id)):
        site, attempt = (entry.provider, entry.model, entry.api), 1
        if entry.attempt_of is not None:
            attempt = attempts[entry.attempt_of] = attempts.get(entry.attempt_of, 1) + 1
        pico = None if entry.cost is None else entry.cost.pico
        slow, dear = (
            _beyond(value, found.get(site)) for value, found in zip((entry.latency_us, pico), usual, strict=True)
        )
        judged.append(RunCall(entry, attempt, slow, dear))
    return tuple(judged)


def _usual(values: list[int]) -> tuple[int, int] | None:
    """The median, and the threshold above which a value stands out; None where there are too few."""
    if len(values) < ENOUGH:
        return None
    middle = _median(values)
    spread = _median([abs(value - middle) for value in values])
    return middle, max(middle + FACTOR * SCALED * spread // 10_000, middle * 3 // 2)


def _median(values: list[int]) -> int:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) // 2


def _beyond(value: int | None, usual: tuple[int, int] | None) -> float | None:
    """How many times the median a value is that stands out."""
    if value is None or usual is None or value <= usual[1]:
        return None
    return value / max(usual[0], 1)


def _remarks(call: RunCall) -> Iterator[str]:
    entry = call.entry
    if call.attempt > 1:
        yield f"attempt {call.attempt}"
    words = {
        "error": f"failed{'' if entry.http_status is None else f' ({entry.http_status})'}",
        "cancelled": "cancelled by the caller",
        "cut": f"cut off{f' by {entry.stopped_by}' if entry.stopped_by else ''}",
        "refused": f"refused{f' by {entry.stopped_by}' if entry.stopped_by else ''}",
    }
    if entry.status in words:
        yield words[entry.status]
    if entry.status != "refused":
        if entry.cost is None or entry.cost.pico is None:
            yield "without a price"
        qualities = {"estimated": "estimated", "lower_bound": "counted at least", "unknown": "usage unknown"}
        if entry.quality in qualities:
            yield qualities[entry.quality]
    if call.slow is not None:
        yield f"slow {call.slow:.1f}\u00d7"
    if call.dear is not None:
        yield f"dear {call.dear:.1f}\u00d7"
