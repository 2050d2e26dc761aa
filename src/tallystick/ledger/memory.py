"""MemoryLedger: a ledger in plain Python that forgets everything when it is closed. For tests, ours and yours."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Final, Self, TypeVar

import msgspec

from tallystick.core.money import Money
from tallystick.core.periods import Period
from tallystick.core.periods import zone as check_zone
from tallystick.errors import ConflictError, InputError, LedgerUnavailable, TallyError
from tallystick.ledger.budget import Budget, Budgets
from tallystick.ledger.entry import Correction, Entry
from tallystick.ledger.hold import Account, Ask, Charge, Granted, Hold, Refused, Seed, Settlement, Stale
from tallystick.ledger.holds_line import AskJob
from tallystick.ledger.holds_memory import MemoryHolds
from tallystick.ledger.joining import JOIN, REPEAT, REPLACE, response_key, verdict
from tallystick.ledger.jsonform import amend, check_correction, checked
from tallystick.ledger.ledger import EVERYTHING, KEEP, Item, Receipt
from tallystick.ledger.percentiles import Gathered
from tallystick.ledger.progress import Progress, watched
from tallystick.ledger.query import Order, Query, Top, Total, Totals, grouping
from tallystick.ledger.sketches import Spread

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

T = TypeVar("T")


class _Kept(msgspec.Struct, frozen=True):
    """One entry with what the ledger knows about it."""

    entry: Entry
    holder: str | None = None
    joined_at: datetime | None = None
    repeated: bool = False


class _Book(msgspec.Struct):
    """All that a ledger holds; an append works on a copy and swaps it in when all went well."""

    calls: dict[str, _Kept]
    holders: dict[str, str]
    corrections: dict[str, Correction]
    amended: dict[str, tuple[Correction, ...]]

    def copy(self) -> _Book:
        return _Book(dict(self.calls), dict(self.holders), dict(self.corrections), dict(self.amended))


class MemoryLedger:
    """A Ledger in memory. `zone` is the time zone of its days, `clock` gives seconds since 1970 UTC."""

    def __init__(self, zone: str = "UTC", clock: Callable[[], float] = time.time) -> None:
        check_zone(zone)
        self._zone = zone
        self._clock = clock
        self._book = _Book({}, {}, {}, {})
        self._state: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()
        self._holds = MemoryHolds(clock, self._lock)
        self._closed = False

    @property
    def zone(self) -> str:
        """The time zone of the ledger's days and months, an IANA name."""
        return self._zone

    def append(self, items: Sequence[Item], *, durable: bool = False) -> Receipt:  # noqa: ARG002 - nothing is durable
        """Adds all items or none. See `Ledger.append`."""
        with self._lock:
            receipt = self._append(items)
        self._holds.tell()
        return receipt

    def submit(self, items: Sequence[Item], *, durable: bool = False) -> Future[Receipt]:
        """Appends at once; the future is already done. See `Ledger.submit`."""
        future: Future[Receipt] = Future()
        try:
            future.set_result(self.append(items, durable=durable))
        except TallyError as error:
            future.set_exception(error)
        return future

    def read(self, query: Query = EVERYTHING) -> Iterator[Entry]:
        """The calls that fit. See `Ledger.read`."""
        with self._lock:
            self._open()
            found = list(self._matching(query))
        found.sort(key=lambda entry: entry.started_at)
        if query.newest_first:
            # Reversed after a stable sort: of two calls of one instant the later appended comes first.
            found.reverse()
        return iter(found[: query.limit])

    def total(
        self,
        query: Query = EVERYTHING,
        by: Sequence[str] = (),
        per: Period | None = None,
        progress: Progress | None = None,
    ) -> list[Total]:
        """Sums over the calls that fit. See `Ledger.total`."""
        return self._totals(query, tuple(by), per, progress).rows()

    def top(self, query: Query = EVERYTHING, by: Sequence[str] = (), order: Order = "cost", most: int = 50) -> Top:
        """The largest groups. See `Ledger.top`."""
        return self._totals(query, tuple(by), None, None).top(order, most)

    def spread(
        self,
        query: Query = EVERYTHING,
        by: Sequence[str] = (),
        per: Period | None = None,
        progress: Progress | None = None,
    ) -> list[Spread]:
        """Percentiles over the calls that fit. See `Ledger.spread`."""
        found = Gathered(grouping(tuple(by), query), per)
        for entry in watched(self.read(query), query, progress):
            found.add_entry(entry)
        return found.rows()

    def _totals(self, query: Query, by: tuple[str, ...], per: Period | None, progress: Progress | None) -> Totals:
        totals = Totals(grouping(by, query), per)
        for entry in watched(self.read(query), query, progress):
            totals.add_entry(entry)
        return totals

    def corrections(self, call_id: str) -> tuple[Correction, ...]:
        """The corrections of a call, in their order."""
        self._open()
        return self._book.amended.get(call_id, ())

    def joined(self, call_id: str) -> tuple[Entry, ...]:
        """The entries of other sources that were joined into a call."""
        self._open()
        kept = self._book.calls.values()
        return tuple([one.entry for one in kept if one.holder == call_id and one.joined_at is not None])

    def state(self, namespace: str, key: str, value: str | msgspec.UnsetType | None = KEEP) -> str | None:
        """Text kept beside the calls. See `Ledger.state`."""
        with self._lock:
            self._open()
            if isinstance(value, str):
                self._state[namespace, key] = value
            elif value is None:
                self._state.pop((namespace, key), None)
            return self._state.get((namespace, key))

    def states(self, namespace: str) -> dict[str, str]:
        """All keys of a namespace with their text, by key."""
        with self._lock:
            self._open()
            return {key: text for (space, key), text in sorted(self._state.items()) if space == namespace}

    def authorise(
        self,
        ask: Ask,
        *,
        wait: float = 0.0,
        ample: bool = False,  # noqa: ARG002 - nothing lies about
    ) -> Future[Granted | Refused | Stale]:
        """Sets money aside. See `Ledger.authorise`."""
        job = AskJob(ask, wait)
        try:
            with self._lock:
                self._open()
                self._holds.ask(job)
        except TallyError as error:
            job.error = error
            job.finish()
        self._holds.tell()
        return job.future

    def extend(self, hold_id: str, output: int) -> Future[int]:
        """Lets a hold cover more. See `Ledger.extend`."""
        return self._now(lambda: self._holds.till.extend(hold_id, output))

    def settle(
        self,
        entry: Entry,
        settlement: Settlement,
        *,
        durable: bool = False,  # noqa: ARG002 - nothing is durable
        later: bool = False,  # noqa: ARG002 - it costs nothing to do it now
    ) -> Future[Receipt]:
        """Enters a call and ends its hold. See `Ledger.settle`."""

        def both() -> Receipt:
            new = self._holds.till.check(entry.call_id, settlement)
            receipt = self._append([entry])
            if new:
                self._holds.settled(entry.call_id, settlement)
            return receipt

        return self._now(both)

    def release(self, hold_id: str) -> Future[None]:
        """Gives a hold back. See `Ledger.release`."""
        return self._now(lambda: self._holds.release(hold_id))

    def resolve(self, hold_id: str, charges: Sequence[Charge] | None) -> None:
        """An operator's word on a suspect hold. See `Ledger.resolve`."""
        self._now(lambda: self._holds.resolve(hold_id, charges)).result()

    def expire(self) -> list[str]:
        """Makes overdue holds suspect. See `Ledger.expire`."""
        return self._now(self._holds.expire).result()

    def holds(self, state: str | None = None, budget_id: str | None = None) -> list[Hold]:
        """The holds. See `Ledger.holds`."""
        return self._now(lambda: self._holds.holds(state, budget_id)).result()

    def accounts(self, budget_id: str | None = None) -> list[Account]:
        """The accounts. See `Ledger.accounts`."""
        return self._now(lambda: self._holds.accounts(budget_id)).result()

    def budgets(self) -> Budgets:
        """The budgets. See `Ledger.budgets`."""
        return self._now(self._holds.budgets).result()

    def put_budget(self, budget: Budget, seeds: Sequence[Seed] = ()) -> Budgets:
        """Adds or changes a budget. See `Ledger.put_budget`."""
        return self._now(lambda: self._holds.put_budget(budget, seeds)).result()

    def drop_budget(self, budget_id: str) -> Budgets:
        """Takes a budget away. See `Ledger.drop_budget`."""
        return self._now(lambda: self._holds.drop_budget(budget_id)).result()

    def flush(self) -> None:
        """Nothing is ever pending in memory."""
        self._open()

    def verify(self) -> list[str]:
        """Recomputes the accounts of budgets. See `Ledger.verify`."""
        return self._now(self._holds.verify).result()

    def close(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._closed = True
            self._book = _Book({}, {}, {}, {})
            self._holds.close(closed())
        self._holds.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        if self._closed:
            raise closed()

    def _append(self, items: Sequence[Item]) -> Receipt:
        self._open()
        book = self._book.copy()
        now = EPOCH + timedelta(microseconds=int(self._clock() * 1_000_000))
        outcome = _Outcome(book)
        for item in items:
            if isinstance(item, Correction):
                outcome.correct(item)
            else:
                outcome.enter(item, now)
        self._book = book
        if outcome.moves:
            for call_id, difference in outcome.moves:
                self._holds.till.correct(call_id, difference)
            self._holds.look()
        return outcome.receipt()

    def _now(self, action: Callable[[], T]) -> Future[T]:
        """Does something with the lock held; the future is done."""
        future: Future[T] = Future()
        try:
            with self._lock:
                self._open()
                found = action()
        except TallyError as error:
            future.set_exception(error)
        else:
            future.set_result(found)
        self._holds.tell()
        return future

    def _matching(self, query: Query) -> Iterator[Entry]:
        at = query.as_of
        for kept in self._book.calls.values():
            entry, amended = kept.entry, self._book.amended.get(kept.entry.call_id, ())
            joined = kept.joined_at is not None
            if at is not None:
                if entry.recorded_at is None or entry.recorded_at > at:
                    continue
                amended = tuple([one for one in amended if one.recorded_at <= at])
                joined = kept.joined_at is not None and kept.joined_at <= at
            if joined or (query.repeated is not None and kept.repeated != query.repeated):
                continue
            entry = amend(entry, amended)
            if query.matches(entry):
                yield entry


class _Outcome:
    """One append at work on its copy of the book."""

    def __init__(self, book: _Book) -> None:
        self._book = book
        self._written = 0
        self._known = 0
        self._joined: dict[str, str] = {}
        self._repeated: list[str] = []
        self.moves: list[tuple[str, int]] = []

    def receipt(self) -> Receipt:
        return Receipt(written=self._written, known=self._known, joined=self._joined, repeated=tuple(self._repeated))

    def enter(self, entry: Entry, now: datetime) -> None:
        checked(entry)
        known = self._book.calls.get(entry.call_id)
        if known is not None:
            if msgspec.structs.replace(entry, recorded_at=known.entry.recorded_at) != known.entry:
                raise conflict(entry.call_id)
            self._known += 1
            return
        if entry.recorded_at is None:
            entry = msgspec.structs.replace(entry, recorded_at=now)
        key = response_key(entry)
        holder = None if key is None else self._book.holders.get(key)
        if key is None or holder is None:
            self._keep(_Kept(entry), key)
            return
        standing = self._book.calls[holder].entry
        found = verdict(standing.source, entry.source)
        if found == REPEAT:
            self._keep(_Kept(entry, holder, repeated=True), None)
            self._repeated.append(entry.call_id)
        elif found == JOIN:
            self._book.calls[entry.call_id] = _Kept(entry, holder, _later(entry, standing))
            self._joined[entry.call_id] = holder
        elif found == REPLACE:
            self._replace(entry, holder, key)

    def correct(self, correction: Correction) -> None:
        check_correction(correction)
        known = self._book.corrections.get(correction.correction_id)
        if known is not None:
            if known != correction:
                raise conflict(correction.correction_id)
            self._known += 1
            return
        kept = self._book.calls.get(correction.corrects)
        if kept is None:
            raise unknown_call(correction.corrects)
        amended = (*self._book.amended.get(correction.corrects, ()), correction)
        self.moves.append(
            (correction.corrects, cost_moved(amend(kept.entry, amended[:-1]), amend(kept.entry, amended)))
        )
        self._book.corrections[correction.correction_id] = correction
        self._book.amended[correction.corrects] = amended
        self._written += 1

    def _keep(self, kept: _Kept, key: str | None) -> None:
        self._book.calls[kept.entry.call_id] = kept
        self._written += 1
        if key is not None:
            self._book.holders[key] = kept.entry.call_id

    def _replace(self, entry: Entry, holder: str, key: str) -> None:
        for call_id, kept in list(self._book.calls.items()):
            if holder not in (call_id, kept.holder):
                continue
            joined_at = kept.joined_at or _later(kept.entry, entry)
            self._book.calls[call_id] = _Kept(kept.entry, entry.call_id, joined_at, kept.repeated)
            if call_id in self._joined:
                self._joined[call_id] = entry.call_id
        self._keep(_Kept(entry), key)


def cost_moved(before: Entry, after: Entry) -> int:
    """By how many picodollars a correction moves the cost of a call; where it is unknown it counts as nothing."""
    known = [Money(0) if one.amount is None else one.amount for one in (before, after)]
    return (known[1] - known[0]).pico


def closed() -> LedgerUnavailable:
    """The ledger has been closed."""
    return LedgerUnavailable("The ledger is closed.", money="Nothing was entered.", todo="Open it again.")


def conflict(identity: str) -> ConflictError:
    """One id, two contents."""
    return ConflictError(
        f"{identity} is in the ledger already, with another content.",
        money="The first one stands; nothing of this append was entered.",
        todo="Append a correction, or use a new id.",
    )


def unknown_call(call_id: str) -> InputError:
    """A correction of a call that is not there."""
    return InputError(
        f"The ledger has no call {call_id}, so it cannot be corrected.",
        money="Nothing of this append was entered.",
        todo="Enter the call first, or check its id.",
    )


def _later(first: Entry, second: Entry) -> datetime:
    return max(at for at in (first.recorded_at, second.recorded_at) if at is not None)
