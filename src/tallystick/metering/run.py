"""Run: one task of an agent, with its tags, its limit and what it has cost so far; and the scope a call is made in."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar

import msgspec

from tallystick.core.attribution import Tags
from tallystick.core.money import Money
from tallystick.core.usage import Usage
from tallystick.errors import InputError
from tallystick.ledger.budget import Budget
from tallystick.ledger.entry import Entry
from tallystick.metering.leave import Who

UPDATE_SECONDS: Final = 0.05
"""A run in progress is reported at most this often."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Scope(msgspec.Struct, frozen=True, eq=False):
    """Where a call is made: the innermost run, the tags and step in force, and the most one call may cost, in
    picodollars. `outer` is the scope around it."""

    who: Who
    run: Run | None = None
    most: int | None = None
    outer: Scope | None = None


current: Final[ContextVar[Scope | None]] = ContextVar("tallystick_scope", default=None)
"""The scope of this thread or task."""


def leave_scope(scope: Scope) -> None:
    """Goes back to what was around a scope. Blocks that are not left in their order leave nothing behind."""
    inner = current.get()
    while inner is not None and inner is not scope:
        inner = inner.outer
    if inner is not None:
        current.set(scope.outer)


class Block:
    """A with-block, plain or async, that puts a scope around the calls made in it. It may be entered again, and in
    several threads or tasks at once."""

    def __init__(self, tags: Mapping[str, object], *, most: int | None = None, step: str | None = None) -> None:
        self._tags = Tags(tags)
        self._most = most
        self._step = step

    def scope(self, outer: Scope | None) -> Scope:
        """The scope inside, given the one outside."""
        who = Who() if outer is None else outer.who
        inner = msgspec.structs.replace(who, tags=who.tags.overlay(self._tags), step=self._step or who.step)
        limits = [most for most in (self._most, None if outer is None else outer.most) if most is not None]
        return Scope(inner, None if outer is None else outer.run, min(limits, default=None), outer)

    def __enter__(self) -> Self:
        current.set(self.scope(current.get()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        scope = current.get()
        if scope is not None:
            leave_scope(scope)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


class Part(msgspec.Struct):
    """What a call in flight has come to so far, in picodollars and tokens; an estimate until it settles."""

    pico: int = 0
    output: int = 0


class Run:
    """One task: all calls made inside its with-block, in whatever thread or task enters it.

    A run inside another one carries its tags, and what it costs counts for both. `max_cost` stops a call in mid-answer
    when the run has no more to spend; calls of the run in flight at the same time share what is left. `budget` limits
    the run in the same way, and is also there for the ledger's own budgets (`Run.budget`) where there are any. The tag
    `agent` is the run's name unless another is given. Made by `tallystick.run`.
    """

    def __init__(
        self,
        name: str,
        *,
        run_id: str,
        max_cost: Money | None = None,
        budget: Money | None = None,
        on_update: Callable[[Run], object] | None = None,
        tags: Mapping[str, object] | None = None,
    ) -> None:
        if not name or not isinstance(name, str):
            raise InputError("A run needs a name.", todo='Name the task: tallystick.run("research").')
        self.name = name
        self.run_id = run_id
        limits = [limit for limit in (max_cost, budget) if limit is not None]
        self.max_cost = min(limits, default=None)
        self.budget = None
        if budget is not None:
            self.budget = Budget(budget_id=f"run:{run_id}", limit=budget.pico, scope=Tags(run=run_id))
        self.parent: Run | None = None
        self._tags = Tags({"agent": name} | dict(tags or {}))
        self._callbacks = [] if on_update is None else [on_update]
        self._lock = threading.Lock()
        self._parts: dict[str, Part] = {}
        self._reserved: dict[str, int] = {}
        self._pico = 0
        self._kinds: dict[str, int] = {}
        self._calls = self._refused = self._unpriced = self._guessed = 0
        self._told = 0.0

    @property
    def calls(self) -> int:
        """How many calls have ended; those in flight come on top. Each attempt of a client is a call."""
        return self._calls

    @property
    def refused(self) -> int:
        """How many calls were refused and never sent."""
        return self._refused

    @property
    def in_flight(self) -> int:
        """How many calls have begun and not ended."""
        return len(self._parts)

    @property
    def unpriced(self) -> int:
        """How many calls have no price, or stated no usage: their cost is unknown and in no sum."""
        return self._unpriced

    @property
    def cost(self) -> Money | None:
        """What the calls cost, those in flight with what they came to so far; None as soon as one has no price, for
        then nobody can say (`known` is what can be said)."""
        return None if self._unpriced else self.known

    @property
    def known(self) -> Money:
        """What the calls with a price cost, those in flight with what they came to so far."""
        with self._lock:
            return Money(self._pico + sum(part.pico for part in self._parts.values()))

    @property
    def usage(self) -> Usage:
        """What the ended calls consumed, by kind."""
        with self._lock:
            return Usage(self._kinds)

    @property
    def gaps(self) -> str:
        """What the cost leaves out or guesses, in words; empty when it is settled, priced and exact."""
        parts = (
            (self._unpriced, "without a price"),
            (self._guessed, "counted at least"),
            (self.in_flight, "in flight"),
        )
        return ", ".join(f"{count:,} {'call' if count == 1 else 'calls'} {words}" for count, words in parts if count)

    def __str__(self) -> str:
        """`research: $0.0035, 3 calls`, with what that leaves out."""
        cost = str(self.known) if self.cost is not None else f"at least {self.known}"
        gaps = f" ({self.gaps})" if self.gaps else ""
        return f"{self.name}: {cost}, {self._calls:,} {'call' if self._calls == 1 else 'calls'}{gaps}"

    def on_update(self, callback: Callable[[Run], object]) -> None:
        """Calls back with the run when a call of it settles, and while one streams at most every 50 ms; in the thread
        that makes the call, so be quick."""
        self._callbacks.append(callback)

    @property
    def watched(self) -> bool:
        """Whether anybody wants to know of progress."""
        return bool(self._callbacks) or (self.parent is not None and self.parent.watched)

    def step(self, name: str) -> Block:
        """A with-block that names a step of the run; the calls made in it carry the name."""
        return Block({}, step=name)

    def wrap(self, function: Callable[_P, _T]) -> Callable[_P, _T]:
        """The function, run inside this run wherever it is called: for threads, which do not inherit the run."""

        @functools.wraps(function)
        def inside(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            with self:
                return function(*args, **kwargs)

        return inside

    def __enter__(self) -> Self:
        outer = current.get()
        if self.parent is None and outer is not None and outer.run is not self:
            self.parent = outer.run
        around = Who() if outer is None else outer.who
        # In another thread the run is entered afresh: its parent's tags come from the parent, not from the thread.
        parent = self.parent
        tags = around.tags if parent is None else parent.tags_inside.overlay(around.tags)
        who = msgspec.structs.replace(
            around,
            tags=tags.overlay(self._tags),
            run_id=self.run_id,
            parent_run=None if parent is None else parent.run_id,
            step=None,
        )
        current.set(Scope(who, self, None if outer is None else outer.most, outer))
        return self

    @property
    def tags_inside(self) -> Tags:
        """The tags that calls in this run carry, those of the runs around it among them."""
        return self._tags if self.parent is None else self.parent.tags_inside.overlay(self._tags)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        scope = current.get()
        while scope is not None and scope.run is not self:
            scope = scope.outer
        if scope is not None:
            leave_scope(scope)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    # What follows is for the meter.

    def left(self) -> int | None:
        """Picodollars that this run and those around it have left beside what their calls in flight may cost; None
        without a limit."""
        own = None
        if self.max_cost is not None:
            with self._lock:
                own = self.max_cost.pico - self._pico - sum(self._reserved.values())
        outer = None if self.parent is None else self.parent.left()
        return own if outer is None else outer if own is None else min(own, outer)

    def reserve(self, call_id: str, pico: int) -> bool:
        """Sets aside what a call in flight may cost, in place of what it had set aside before; False, and nothing is
        changed, where there is not so much left."""
        with self._lock:
            before = self._reserved.get(call_id, 0)
            if self.max_cost is not None:
                free = self.max_cost.pico - self._pico - sum(self._reserved.values()) + before
                if pico > free:
                    return False
            self._reserved[call_id] = pico
        if self.parent is not None and not self.parent.reserve(call_id, pico):
            with self._lock:
                self._reserved[call_id] = before
            return False
        return True

    def began(self, call_id: str) -> None:
        """A call begins."""
        self._parts[call_id] = Part()
        if self.parent is not None:
            self.parent.began(call_id)

    def moved(self, call_id: str, pico: int, output: int) -> None:
        """A call in flight has come so far."""
        run: Run | None = self
        while run is not None:
            part = run._parts.get(call_id)  # noqa: SLF001 - of its own kind
            if part is not None:
                part.pico, part.output = pico, output
            run = run.parent
        self._tell(settled=False)

    def ended(self, call_id: str, entry: Entry | None) -> None:
        """A call has ended with this entry; None: it was never sent, or will be settled later."""
        with self._lock:
            self._parts.pop(call_id, None)
            self._reserved.pop(call_id, None)
            if entry is not None:
                self._add(entry)
        if self.parent is not None:
            self.parent.ended(call_id, entry)
        if entry is not None:
            self._tell(settled=True)

    def _add(self, entry: Entry) -> None:
        if entry.status == "refused":
            self._refused += 1
            return
        self._calls += 1
        cost = entry.cost
        if cost is None or cost.pico is None:
            self._unpriced += 1
        self._guessed += entry.quality in ("lower_bound", "estimated")
        if cost is not None:
            self._pico += cost.known.pico if cost.pico is None else cost.pico
        for kind, count in (entry.usage or {}).items():
            self._kinds[kind] = self._kinds.get(kind, 0) + count

    def _tell(self, *, settled: bool) -> None:
        if not self._callbacks:
            return
        now = time.monotonic()
        if not settled and now - self._told < UPDATE_SECONDS:
            return
        self._told = now
        for callback in self._callbacks:
            callback(self)


def money(amount: Any, name: str) -> Money | None:
    """An amount as people give it: Money, "$0.50", a Decimal, whole dollars. Raises InputError."""
    if amount is None or isinstance(amount, Money):
        found: Money | None = amount
    else:
        found = Money.usd(amount)
    if found is not None and found.pico < 0:
        raise InputError(f"{name} is {found}; a limit is 0 or more.")
    return found
