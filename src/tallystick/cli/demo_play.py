"""The play of `tally demo`: an agent's run against the simulated provider, and what that provider truly served."""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tallystick import front
from tallystick.capture.scopes import run as make_run
from tallystick.cli.demo_clients import Clients
from tallystick.cli.demo_scene import Scene, script, together
from tallystick.core.money import Money
from tallystick.core.usage import Usage
from tallystick.simulator import Simulator

if TYPE_CHECKING:
    from tallystick.ledger.entry import Entry
    from tallystick.metering.meter import Meter
    from tallystick.metering.run import Run
    from tallystick.simulator import Answer, Call, Request

ROOT: Final = "research"
PATIENCE: Final = 3.0
"""Seconds that importing SDKs may take, on a machine that is busy with something else, before the rest do without."""

TAIL: Final = 200
"""Characters of an answer that are kept for showing."""


class Row:
    """A run of the play, as it is shown: its depth in the tree, and the calls it is making, by model, with the end of
    what they have said so far."""

    def __init__(self, name: str, depth: int, run: Run) -> None:
        self.name = name
        self.depth = depth
        self.run = run
        self.inner: list[Row] = []
        self.saying: dict[str, str] = {}

    @property
    def ids(self) -> set[str]:
        """The ids of the run and of those nested in it."""
        return {self.run.run_id}.union(*(row.ids for row in self.inner))


class Play:
    """Plays the scenes. `rows` are the runs in the order of the tree, `names` the client of each provider, `late` the
    providers whose SDK was not waited for, `loading` the one whose SDK is being imported, `failed` how many calls
    raised; `truth` is what the provider served, once all is over. `done` is called when a scene has ended."""

    def __init__(self, meter: Meter, *, fast: bool = False, plain: bool = False) -> None:
        self.question, self.scenes = script()
        self.rows: list[Row] = []
        self.loading: str | None = None
        self.names: dict[str, str] = {}
        self.late: list[str] = []
        self.truth: Sequence[Call] = ()
        self.began = 0.0
        self.seconds = 0.0
        self.failed = 0
        self.done: Callable[[], None] = lambda: None
        self._meter = meter
        self._fast = fast
        self.plain = plain

    @property
    def attempts(self) -> int:
        """How many requests reach the provider in the whole play."""
        return sum(1 + scene.fails for scene in self.scenes)

    def go(self) -> None:
        """Plays it from beginning to end. Returns when everything is in the ledger."""
        simulator = Simulator(self._said, typed=False)
        with simulator, ExitStack() as stack:
            clients = Clients(self._meter, simulator, plain=self.plain, patience=math.inf if self._fast else PATIENCE)
            self.names, self.late = clients.names, clients.late
            self.began = time.monotonic()
            # A run that somebody watches counts its tokens while they come.
            root = stack.enter_context(make_run(ROOT, on_update=lambda _run: None, demo="true", user="ada"))
            self.rows.append(Row(ROOT, 0, root))
            for group in together(self.scenes):
                self._group(group, clients)
            self.truth = simulator.wait(self.attempts)
            self.seconds = time.monotonic() - self.began

    def _said(self, request: Request) -> Answer:
        asked = request.body
        scene = next(scene for scene in self.scenes if scene.asks.encode() in asked)
        return scene.answer(fast=self._fast)

    def _group(self, group: Sequence[Scene], clients: Clients) -> None:
        path = group[0].run
        for scene in group:
            self.loading = None if self.plain or scene.provider in clients.names else scene.provider
            clients.prepare(scene.provider)
        self.loading = None
        with ExitStack() as stack:
            row = self.rows[0]
            for name in path:
                row = self._row(row, name, group[0].max_cost)
                stack.enter_context(row.run)
            others = [
                threading.Thread(target=row.run.wrap(functools.partial(self._scene, row, scene, clients)))
                for scene in group[1:]
            ]
            for other in others:
                other.start()
            self._scene(row, group[0], clients)
            for other in others:
                other.join()

    def _row(self, above: Row, name: str, max_cost: str | None) -> Row:
        found = next((row for row in above.inner if row.name == name), None)
        if found is None:
            found = Row(name, above.depth + 1, make_run(name, max_cost=max_cost, on_update=lambda _run: None))
            above.inner.append(found)
            place = self.rows.index(above) + 1
            while place < len(self.rows) and self.rows[place].depth > above.depth:
                place += 1
            self.rows.insert(place, found)
        return found

    def _scene(self, row: Row, scene: Scene, clients: Clients) -> None:
        with row.run.step(scene.step):
            try:
                said = row.saying[scene.asks] = ""
                for piece in clients.ask(scene):
                    said = (said + piece)[-TAIL:]
                    row.saying[scene.asks] = said
            except clients.errors:
                # A call that breaks off is part of the play; what became of it is in the ledger.
                self.failed += 1
        row.saying.pop(scene.asks, None)
        self.done()


class Verdict(msgspec.Struct, frozen=True):
    """The ledger against the provider's own truth. `served` is what the provider says of the answers that ran to their
    end, `entered` what the ledger says of the same ones, each with its cost; `delivered` are the tokens that the broken
    answers truly brought, `counted` those the ledger counted for them, `whole` what the provider wrote of the ones that
    were cut, and `stopped` the tokens counted there."""

    answers: int
    served: Usage
    served_cost: Money
    entered: Usage
    entered_cost: Money
    delivered: int
    counted: int
    whole: int
    stopped: int

    @property
    def equal(self) -> bool:
        """Whether they agree: to the token and the picodollar where an answer ended, to the token where it broke."""
        return (
            self.answers > 0
            and self.served == self.entered
            and self.served_cost == self.entered_cost
            and self.delivered == self.counted
            and self.stopped <= self.whole
        )

    def to_json(self) -> dict[str, Any]:
        """The verdict as plain JSON values."""
        return {
            "equal": self.equal,
            "answers": self.answers,
            "served": {"usage": dict(self.served), "cost": self.served_cost.to_json()},
            "entered": {"usage": dict(self.entered), "cost": self.entered_cost.to_json()},
            "broken": {"delivered": self.delivered, "counted": self.counted},
            "cut": {"written": self.whole, "counted": self.stopped},
        }


def judge(entries: Sequence[Entry], truth: Sequence[Call]) -> Verdict:
    """Compares what the ledger holds with what was served. The provider's counts are priced apart, call by call."""
    served = entered = Usage()
    served_cost = entered_cost = Money(0)
    answers = delivered = counted = whole = stopped = 0
    calls = {call.response_id: call for call in truth if call.response_id is not None}
    for entry in entries:
        call = _of(entry, calls)
        if call is None or call.usage is None:
            continue
        used = entry.usage or Usage()
        if entry.status == "ok":
            answers += 1
            served, entered = served + call.usage, entered + used
            priced = front.price(call.usage, entry.model, provider=entry.provider, at=entry.started_at)
            served_cost += priced.amount or Money(0)
            entered_cost += entry.amount or Money(0)
            continue
        brought = front.count(call.delivered, entry.model).tokens
        if entry.status == "cut":
            whole, stopped = whole + brought, stopped + used.output_tokens
        else:
            delivered, counted = delivered + brought, counted + used.output_tokens
    return Verdict(answers, served, served_cost, entered, entered_cost, delivered, counted, whole, stopped)


def _of(entry: Entry, calls: dict[str, Call]) -> Call | None:
    said = entry.provider_response_id
    # Providers put their own marks before an id.
    return next((call for name, call in calls.items() if said is not None and said.endswith(name)), None)
