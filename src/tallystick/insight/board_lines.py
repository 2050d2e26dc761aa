"""Lines of a run's picture: its runs, steps and calls under each other, each where it was in time; few enough to be
looked at, however many calls there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from tallystick.core.money import Money
from tallystick.insight.board_run import Node, RunCall, RunView, Step
from tallystick.insight.board_runs import ended
from tallystick.ledger.query import Total

if TYPE_CHECKING:
    from tallystick.ledger.intents import InFlight

CALLS: Final = 200
"""So many calls are shown one by one; of longer runs those of each step that stand out most."""

EACH: Final = 8
"""So many calls of a step stand for a longer run."""

STEPS: Final = 100
"""So many steps of one run are shown."""

FLIGHTS: Final = 50
_TICK: Final = timedelta(microseconds=1)


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line. `kind` is run, step, call, flight or more. `start` and `length` are shares of the whole time, from 0
    to 1, and `first` the share until the first word (None: unknown). `total` is the direct sum and `inclusive` that
    with all runs below. `hidden` calls or steps are left out at a line `more`."""

    kind: str
    depth: int
    run_id: str
    step: str | None = None
    start: float = 0.0
    length: float = 0.0
    first: float | None = None
    duration: timedelta | None = None
    total: Total | None = None
    inclusive: Total | None = None
    node: Node | None = None
    call: RunCall | None = None
    flight: InFlight | None = None
    hidden: int = 0
    of_steps: bool = False

    @property
    def flying(self) -> Money:
        """What a call in flight has come to so far, an estimate."""
        return Money(0 if self.flight is None else self.flight.pico)


class _Clock(msgspec.Struct, frozen=True):
    """Turns instants into shares of the time that is shown."""

    begin: datetime
    end: datetime

    def share(self, first: datetime, last: datetime) -> tuple[float, float]:
        """Where a stretch begins, and how long it is."""
        whole = max((self.end - self.begin) / _TICK, 1.0)
        start = min(max((first - self.begin) / _TICK / whole, 0.0), 1.0)
        return start, min(max((last - first) / _TICK / whole, 0.0), 1.0 - start)


def lines(view: RunView, now: datetime) -> tuple[Line, ...]:
    """The lines of a run, from top to bottom. Calls in flight reach to `now`."""
    flying = [_began(flight) for flight in view.flights]
    begin = min([one for one in (view.started_at, *flying) if one is not None], default=now)
    end = max([one for one in (view.ended_at, *([now] if flying else [])) if one is not None], default=now)
    steps = sum(min(len(node.steps), STEPS) for node in view.nodes)
    each = CALLS if len(view.calls) <= CALLS else min(EACH, max(2, CALLS // max(steps, 1)))
    return tuple(_of_node(view.root, _Clock(begin, end), now, each))


def _of_node(node: Node, clock: _Clock, now: datetime, each: int) -> Iterator[Line]:
    begin, end = _bounds(node, now)
    start, length = (0.0, 0.0) if begin is None or end is None else clock.share(begin, end)
    yield Line(
        kind="run",
        depth=node.depth,
        run_id=node.run_id,
        start=start,
        length=length,
        duration=None if begin is None or end is None else end - begin,
        total=node.direct,
        inclusive=node.inclusive if node.below else None,
        node=node,
    )
    plain = len(node.steps) == 1 and node.steps[0].name is None
    for step in node.steps[:STEPS]:
        if not plain:
            yield _of_step(node, step, clock)
        yield from _of_calls(node, step, node.depth + (1 if plain else 2), (clock, each))
    if len(node.steps) > STEPS:
        yield Line(
            kind="more", depth=node.depth + 1, run_id=node.run_id, hidden=len(node.steps) - STEPS, of_steps=True
        )  # fmt: skip
    if node.direct.calls > node.read:
        yield Line(kind="more", depth=node.depth + 1, run_id=node.run_id, hidden=node.direct.calls - node.read)
    for flight in node.flights[:FLIGHTS]:
        first = _began(flight)
        start, length = clock.share(first, now)
        yield Line(
            kind="flight", depth=node.depth + 1, run_id=node.run_id, start=start, length=length,
            duration=now - first, flight=flight,
        )  # fmt: skip
    for child in node.below:
        yield from _of_node(child, clock, now, each)


def _of_step(node: Node, step: Step, clock: _Clock) -> Line:
    start, length = clock.share(step.started_at, step.ended_at)
    return Line(
        kind="step",
        depth=node.depth + 1,
        run_id=node.run_id,
        step=step.name,
        start=start,
        length=length,
        duration=step.ended_at - step.started_at,
        total=step.total,
    )


def _of_calls(node: Node, step: Step, depth: int, drawing: tuple[_Clock, int]) -> Iterator[Line]:
    clock, each = drawing
    for call in notable(step.calls, each):
        entry = call.entry
        start, length = clock.share(entry.started_at, ended(entry))
        word = None if entry.ttft_us is None else timedelta(microseconds=entry.ttft_us)
        yield Line(
            kind="call",
            depth=depth,
            run_id=node.run_id,
            step=step.name,
            start=start,
            length=length,
            first=None if word is None else clock.share(entry.started_at, entry.started_at + word)[1],
            duration=ended(entry) - entry.started_at,
            call=call,
        )
    if len(step.calls) > each:
        hidden = len(step.calls) - each
        yield Line(kind="more", depth=depth, run_id=node.run_id, step=step.name, hidden=hidden)


def notable(calls: Sequence[RunCall], most: int) -> list[RunCall]:
    """So many of the calls, in their order: those that stand out or went wrong first, then those that cost most."""
    if len(calls) <= most:
        return list(calls)
    ranked = sorted(range(len(calls)), key=lambda place: _weight(calls[place]), reverse=True)
    return [calls[place] for place in sorted(ranked[:most])]


def _weight(call: RunCall) -> tuple[bool, bool, int]:
    cost = call.entry.cost
    pico = 0 if cost is None or cost.pico is None else cost.pico
    return call.stands_out, call.entry.status != "ok" or call.attempt > 1, pico


def _bounds(node: Node, now: datetime) -> tuple[datetime | None, datetime | None]:
    """From a run's first call to its last, with those below it."""
    begins, ends = [], []
    for one in node.walk():
        begins += [at for at in (one.started_at, *map(_began, one.flights)) if at is not None]
        ends += [at for at in (one.ended_at, now if one.flights else None) if at is not None]
    return min(begins, default=None), max(ends, default=None)


def _began(flight: InFlight) -> datetime:
    return datetime.fromtimestamp(flight.started_us / 1_000_000, UTC)
