"""Line: the asks that have to wait for holds in flight, first come first served for each account."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tallystick.errors import TallyError
from tallystick.ledger.accounts import Place, place
from tallystick.ledger.hold import Ask, Granted, Refused, Stale, Wait
from tallystick.ledger.holds import Till
from tallystick.ledger.writer import Task

Verdict = Granted | Refused | Stale


class AskJob(Task[Verdict]):
    """One ask and how it stands. `number` is its place in the line, None as long as it has none; `until` and `begun`
    are instants of `time.monotonic`. A grant is `durable`: it is told when a power cut cannot undo it."""

    __slots__ = ("_places", "ahead", "ask", "begun", "number", "queued", "until", "withdrawn")

    def __init__(self, ask: Ask, wait: float, *, ahead: bool = False) -> None:
        super().__init__(durable=True)
        self.ahead = ahead
        self.ask = ask
        self.begun = time.monotonic()
        self.until = self.begun + wait
        self.number: int | None = None
        self._places: frozenset[Place] | None = None
        self.queued = False
        self.withdrawn = False

    @property
    def places(self) -> frozenset[Place]:
        """Where it queues."""
        if self._places is None:
            self._places = frozenset(map(place, self.ask.claims))
        return self._places

    def new(self, till: Till, check: Callable[[Ask], None] | None = None) -> bool:
        """Whether it asks for a hold that is not there. If not, or where `check` does not like it, it knows now what it
        is told."""
        try:
            if check is not None:
                check(self.ask)
            self.receipt, self.error = till.standing(self.ask), None
        except TallyError as error:
            self.receipt, self.error = None, error
        return self.receipt is None and self.error is None

    @property
    def waited_us(self) -> int:
        """Microseconds since it was asked; 0 for one that never stood in the line."""
        return int((time.monotonic() - self.begun) * 1_000_000) if self.queued else 0


class HoldTask(Task[Any]):
    """Something to do with one hold that needs no waiting."""

    __slots__ = ("hold_id",)

    def __init__(self, hold_id: str, *, durable: bool) -> None:
        super().__init__(durable=durable)
        self.hold_id = hold_id

    def attempt(self, till: Till) -> None:
        """Does it, or notes the error."""
        self.receipt = self.error = None
        try:
            self.receipt = self.act(till)
        except TallyError as error:
            self.error = error

    def act(self, till: Till) -> object:
        """What it comes to; never None. Raises TallyError."""
        raise NotImplementedError


class Extend(HoldTask):
    """Lets a hold cover an answer of `output` tokens."""

    __slots__ = ("output",)

    def __init__(self, hold_id: str, output: int) -> None:
        super().__init__(hold_id, durable=True)
        self.output = output

    def act(self, till: Till) -> int:
        """How many tokens are covered."""
        return till.extend(self.hold_id, self.output)


class Release(HoldTask):
    """Gives a hold back."""

    __slots__ = ()

    def __init__(self, hold_id: str) -> None:
        super().__init__(hold_id, durable=False)

    def act(self, till: Till) -> bool:
        """Done."""
        till.release(self.hold_id)
        return True

    @property
    def told(self) -> object:
        """A release has nothing to tell."""
        return None


def withdraw(moves: Iterable[HoldTask], asks: Iterable[AskJob]) -> None:
    """Notes which asks are given back before they have come to anything."""
    released = {move.hold_id for move in moves if isinstance(move, Release)}
    if released:
        for job in asks:
            job.withdrawn = job.withdrawn or job.ask.hold_id in released


def repeated(fresh: list[AskJob]) -> list[AskJob]:
    """Takes those out that ask for a hold another one of this batch asks for."""
    if len({job.ask.hold_id for job in fresh}) == len(fresh):
        return []
    seen: set[str] = set()
    twice = []
    for job in list(fresh):
        if job.ask.hold_id in seen:
            fresh.remove(job)
            twice.append(job)
        seen.add(job.ask.hold_id)
    return twice


def serve(
    till: Till, asks: Sequence[AskJob], others: Iterable[tuple[int, frozenset[Place]]] = ()
) -> tuple[list[AskJob], list[AskJob]]:
    """Decides asks, those with a number in its order and the others after them; `others` are numbers and places of
    asks of other processes. An ask does not overtake an earlier one for the same account. Returns those that have
    their verdict and those that (still) wait."""
    decided: list[AskJob] = []
    waiting: list[AskJob] = []
    taken: set[Place] = set()
    ahead = sorted(others, key=lambda other: other[0], reverse=True)
    for job in asks:
        while ahead and (job.number is None or ahead[-1][0] < job.number):
            taken |= ahead.pop()[1]
        blocked = bool(taken) and not taken.isdisjoint(job.places)
        verdict: Verdict | None = None
        if not (blocked or job.withdrawn):
            verdict = till.whole(job.ask)
            if verdict is not None and not job.queued:
                job.receipt, job.durable = verdict, True
                decided.append(job)
                continue
        if verdict is None:
            verdict = _verdict(till, job, blocked=blocked)
            if isinstance(verdict, Granted):
                till.grant(job.ask, verdict)
        if verdict is None:
            waiting.append(job)
            job.queued = True
            taken |= job.places
            continue
        if isinstance(verdict, Granted):
            if job.queued:
                verdict = Granted(hold_id=verdict.hold_id, output=verdict.output, waited_us=job.waited_us)
            job.durable = True
        else:
            job.durable = False
        job.receipt = verdict
        decided.append(job)
    return decided, waiting


def _verdict(till: Till, job: AskJob, *, blocked: bool) -> Verdict | None:
    """None: it has to wait."""
    found = till.consider(job.ask)
    if isinstance(found, Granted):
        if not (blocked or job.withdrawn):
            return found
    elif not isinstance(found, Wait):
        return found
    if not job.withdrawn and time.monotonic() < job.until:
        return None
    return found.refusal if isinstance(found, Wait) else till.refusal(job.ask)
