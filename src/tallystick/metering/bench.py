"""Bench: what the calls of one meter share: the ledger and the rates, the clocks, what went wrong, and what one call
leaves behind for a later one (a failed attempt for its retry, a background response for the request that fetches it).
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from tallystick.catalog.catalog import Catalog
from tallystick.errors import TallyError
from tallystick.ledger.entry import Entry
from tallystick.ledger.intents import Intents, Slot
from tallystick.ledger.ledger import Ledger, Receipt
from tallystick.ledger.promise import Promise
from tallystick.metering.entropy import call_id
from tallystick.metering.faults import LOG, Faults
from tallystick.metering.leave import Admission, Admitted, Denied, Keep, Leave
from tallystick.metering.spool import Spool

if TYPE_CHECKING:
    from tallystick.ledger.hold import Settlement
    from tallystick.metering.live import Live

_T = TypeVar("_T")

RETRIES: Final = 256
"""Failed attempts that are remembered, so that the next attempt can name the first."""


class Keeping(Protocol):
    """What keeps the entries of finished calls until the ledger has them. See `Basket`."""

    def take(self, entry: Entry, leave: Leave, slot: Slot) -> bool:
        """Keeps the entry of a call that no budget concerns, and hands it over later; False where it does not."""
        ...

    def keeps(self, slot: Slot, entry: Entry, settlement: Settlement | None) -> bool:
        """Whether a slot keeps all that is to be written at a call's end."""
        ...

    def hand_over(self) -> None:
        """Gives the ledger all that waits."""
        ...


class _Once:
    """Whether what a call ends with was asked to be kept, and is."""

    __slots__ = ("_keep", "kept")

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self.kept = False

    def __call__(self, entry: Entry, settlement: Settlement | None) -> bool:
        self.kept = self._keep(entry, settlement)
        return self.kept


class PlainLeave:
    """Leave where there are no budgets: the call may go, and its entry goes to the ledger."""

    __slots__ = ("_ledger",)
    covered = hold_id = None

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def ask(self) -> Future[Admitted | Denied]:
        """Always admitted."""
        return ADMITTED

    def grow(self, output: int) -> Future[int]:
        """Nothing limits the call."""
        return done(output)

    def settle(self, entry: Entry, keep: Keep | None = None) -> Future[Receipt]:  # noqa: ARG002 - see Basket
        """Enters the call."""
        return self._ledger.submit([entry])

    def release(self) -> Future[None]:
        """Nothing is held."""
        return done(None)


def done(value: _T) -> Future[_T]:
    """A future that has its result."""
    future: Future[_T] = Promise()
    future.set_result(value)
    return future


ADMITTED: Final[Future[Admitted | Denied]] = done(Admitted())
"""The answer where nothing limits a call."""

KEPT: Final[Future[Receipt]] = done(Receipt())
"""What a call is told whose entry is safe and not yet in the ledger, or will be made later."""


class Bench:
    """What the calls of one meter share. See `Meter` for the arguments. `open` are the calls that have not settled, by
    where they are in memory."""

    def __init__(
        self,
        ledger: Ledger,
        catalog: Callable[[], Catalog],
        *,
        admission: Admission | None = None,
        intents: Intents | None = None,
        spool: Spool | None = None,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
        ids: Callable[[], str] = call_id,
        source: str = "client",
        on_fault: Callable[[str, Exception], object] | None = None,
    ) -> None:
        self.ledger = ledger
        self.catalog = catalog
        self.admission = admission
        self.intents = intents
        self.clock = clock
        self.ticks = ticks
        self.ids = ids
        self.source = source
        self.faults = Faults(on_fault)
        self.plain_leave: Leave = PlainLeave(ledger)
        self.refusing: set[str] = set()
        self.missed = 0
        self.basket: Keeping | None = None
        self.open: dict[int, weakref.ref[Any]] = {}
        self._spool = spool
        self._lock = threading.Lock()
        self._attempts: OrderedDict[object, str] = OrderedDict()
        self._parked: dict[str, Any] = {}

    def now(self) -> datetime:
        """The present instant, UTC."""
        return datetime.fromtimestamp(self.clock(), UTC)

    def enter(self, entry: Entry, leave: Leave, live: Live | None) -> Future[Receipt]:
        """Hands the entry of a call that has ended to the ledger, and frees what showed it. The future never raises,
        and nobody can cancel it: a caller who goes away must not undo an entry."""
        slot = None if live is None else live.slot
        basket = None if slot is None else self.basket
        if basket is None or slot is None:
            keep = None
        elif basket.take(entry, leave, slot):
            return KEPT
        else:
            keep = _Once(partial(basket.keeps, slot))
        try:
            written = leave.settle(entry, keep)
        except TallyError as error:
            return self.unwritten(entry, error, live)
        future: Future[Receipt] = KEPT
        if keep is None or not keep.kept:
            future = Promise()
            future.set_running_or_notify_cancel()

        def heard(result: Future[Receipt]) -> None:
            error = result.exception()
            safe = error is None or self.miss(entry, error, slot)
            if live is not None and safe:
                live.free()
            if future is not KEPT:
                future.set_result(Receipt() if error is not None else result.result())

        written.add_done_callback(heard)
        return future

    def unwritten(self, entry: Entry | None, error: Exception, live: Live | None) -> Future[Receipt]:
        """A call has ended that the ledger could not be asked to enter; None: it has no entry."""
        safe = entry is None or self.miss(entry, error, None if live is None else live.slot)
        if live is not None and safe:
            live.free()
        return KEPT

    def miss(self, entry: Entry, error: BaseException, slot: Slot | None = None) -> bool:
        """An entry that the ledger could not take: it goes into the spool, and is counted; said once. Whether its slot
        may be freed: where the spool cannot be written either, one that keeps the entry goes on keeping it."""
        with self._lock:
            self.missed += 1
            first = self.missed == 1
        spooled = self._spool is not None and self._spool.add(entry)
        stays = not spooled and slot is not None and slot.finished
        if first:
            where = "They are lost"
            if spooled and self._spool is not None:
                where = f"Calls are kept in {self._spool.place}"
            elif stays and self.intents is not None:
                where = f"Calls are kept in {self.intents.folder}"
            todo = "; bring them in with: tally ledger repair" if spooled or stays else ""
            LOG.warning("the ledger takes no entries: %s %s until it does%s.", error, where, todo)
        return not stays

    def remember_attempt(self, key: object, call_id: str) -> None:
        """An attempt has failed; the first of its kind is what later ones point at."""
        with self._lock:
            self._attempts.setdefault(key, call_id)
            self._attempts.move_to_end(key)
            while len(self._attempts) > RETRIES:
                self._attempts.popitem(last=False)

    def first_attempt(self, key: object) -> str | None:
        """The call that an attempt repeats, if it is remembered."""
        with self._lock:
            return self._attempts.get(key)

    def park(self, response_id: str, plan: Any) -> None:
        """A background response has begun: its call settles when it is fetched."""
        with self._lock:
            self._parked.setdefault(response_id, plan)

    def parked(self, response_id: str) -> Any:
        """The plan of the call that a background response belongs to; None where there is none to settle."""
        return self._parked.get(response_id)

    def unpark(self, response_id: str) -> Any:
        """Takes a background response out, for the one who settles it; None where another one has."""
        with self._lock:
            return self._parked.pop(response_id, None)

    def waiting(self) -> list[Any]:
        """Takes out all background responses that nobody has fetched."""
        with self._lock:
            left, self._parked = list(self._parked.values()), {}
        return left
