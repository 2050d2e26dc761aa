"""Ledger: what every ledger can do, whatever it is kept in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Final, Protocol, Self

import msgspec

from tallystick.core.periods import Period
from tallystick.ledger.budget import Budget, Budgets
from tallystick.ledger.entry import Correction, Entry
from tallystick.ledger.hold import Account, Ask, Charge, Granted, Hold, Refused, Seed, Settlement, Stale
from tallystick.ledger.progress import Progress
from tallystick.ledger.query import Order, Query, Top, Total
from tallystick.ledger.sketches import Spread

Item = Entry | Correction
"""What a ledger takes in."""

KEEP: Final = msgspec.UNSET
"""As a value of `state`: leave it as it is."""

EVERYTHING: Final = Query()


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one append, item by item: the sums of `written`, `known` and `joined` is their number.

    `written` counts new entries and corrections, `known` those that were there already with the same content.
    `joined` maps a call_id to the call it turned out to be, seen by a better source; `repeated` are calls whose
    provider id the same source had given before: they count, and are flagged.
    """

    written: int = 0
    known: int = 0
    joined: dict[str, str] = {}
    repeated: tuple[str, ...] = ()


class Ledger(Protocol):
    """The book of calls. Entries and corrections are only ever added.

    Any method may raise LedgerUnavailable (locked, read-only, disk full, closed) or LedgerCorrupt; then nothing of
    that append was written.
    """

    @property
    def zone(self) -> str:
        """The time zone of the ledger's days and months, an IANA name."""
        ...

    def append(self, items: Sequence[Item], *, durable: bool = False) -> Receipt:
        """Writes all items or none, and returns when a killed process cannot lose them any more. With `durable` it
        also waits until a power cut cannot (without, that follows within 50 ms).

        Appending the same item again changes nothing. Raises ConflictError where an id stands with another content
        (the first stands), InputError for a correction of an unknown call or with fields that make no sense.
        """
        ...

    def submit(self, items: Sequence[Item], *, durable: bool = False) -> Future[Receipt]:
        """Like `append`, but returns at once; the future holds the receipt or the error."""
        ...

    def read(self, query: Query = EVERYTHING) -> Iterator[Entry]:
        """The calls that fit, oldest first (or newest), with corrections applied. Calls that were joined into
        another are left out."""
        ...

    def total(
        self,
        query: Query = EVERYTHING,
        by: Sequence[str] = (),
        per: Period | None = None,
        progress: Progress | None = None,
    ) -> list[Total]:
        """Sums over the calls that fit, by the given dimensions or tags and per calendar period. Groups without calls
        are left out; without grouping there is always one row. Where many calls have to be read one by one `progress`
        is told how far that is. Raises InputError for a grouping that makes no sense."""
        ...

    def top(self, query: Query = EVERYTHING, by: Sequence[str] = (), order: Order = "cost", most: int = 50) -> Top:
        """The `most` largest groups over the calls that fit, how many groups there are, and the sum of the others.
        Where there are tens of thousands of groups this is far quicker than all of them. Raises InputError."""
        ...

    def spread(
        self,
        query: Query = EVERYTHING,
        by: Sequence[str] = (),
        per: Period | None = None,
        progress: Progress | None = None,
    ) -> list[Spread]:
        """How cost, latency and time to first token are spread over the calls that fit: percentiles by the given
        dimensions or tags and per calendar period, each within `sketches.ERROR` of the figure of an actual call.

        By provider, model, maker, key, team and project, over whole days of the ledger's zone, they come from sketches
        kept beside the sums; anything else reads the calls and tells `progress` how far that is. Raises InputError."""
        ...

    def corrections(self, call_id: str) -> tuple[Correction, ...]:
        """The corrections of a call, in the order in which they were appended."""
        ...

    def joined(self, call_id: str) -> tuple[Entry, ...]:
        """What other sources said about a call: the entries that were joined into it."""
        ...

    def state(self, namespace: str, key: str, value: str | msgspec.UnsetType | None = KEEP) -> str | None:
        """Text kept beside the calls, by namespace and key: with `value` it is set (None: removed). Returns what is
        there afterwards."""
        ...

    def states(self, namespace: str) -> dict[str, str]:
        """All keys of a namespace with their text."""
        ...

    def authorise(self, ask: Ask, *, wait: float = 0.0, ample: bool = False) -> Future[Granted | Refused | Stale]:
        """Sets money aside in all accounts of the ask, or in none. A grant is safe from a power cut before it is told.

        An ask that would fit but for holds in flight waits for them up to `wait` seconds, and no later ask for the
        same account overtakes it, whatever process it comes from. A refusal moves no counter. Asking again for the
        same request while its hold is open gives the same grant. The future raises ConflictError where the id stands
        for another request or a call that has ended, InputError for claims that make no sense.

        `ample` says that there seemed to be room for many such calls; then what is settled with `later` need not be
        written first, and what it gives back may be missing.
        """
        ...

    def extend(self, hold_id: str, output: int) -> Future[int]:
        """Lets a hold cover an answer of `output` tokens; the result is how many it covers then: as far as there is
        room, never fewer than before, safe from a power cut. The future raises InputError for a call that has ended."""
        ...

    def settle(
        self, entry: Entry, settlement: Settlement, *, durable: bool = False, later: bool = False
    ) -> Future[Receipt]:
        """Enters a call, charges the accounts and ends its hold (whose id is the call's), all or nothing. A call
        without a hold is charged likewise. The same again changes nothing; the future raises ConflictError where
        another entry or another settlement stands. A call that comes late is settled all the same. With `later` it
        is written together with what comes next, or a few hundredths of a second later: for those who do not wait, and
        who keep the entry safe meanwhile."""
        ...

    def release(self, hold_id: str) -> Future[None]:
        """Gives back the hold of a call that was never sent; an ask still in the line is refused. Unknown or released:
        nothing happens. The future raises ConflictError for a call that was settled."""
        ...

    def resolve(self, hold_id: str, charges: Sequence[Charge] | None) -> None:
        """An operator's word on a suspect hold: so much was spent, or (None) it is given back. Where the call was
        settled as a lower bound this is about the rest. Raises InputError for a hold that is not suspect."""
        ...

    def expire(self) -> list[str]:
        """Makes open holds suspect whose time is over or whose owner is dead; returns their ids."""
        ...

    def holds(self, state: str | None = None, budget_id: str | None = None) -> list[Hold]:
        """The holds, oldest first: those in a state (open, settled, released, suspect), those of a budget."""
        ...

    def accounts(self, budget_id: str | None = None) -> list[Account]:
        """The accounts by budget, value and period; those of a dropped or paused budget have no limit."""
        ...

    def budgets(self) -> Budgets:
        """The budgets, by id, with their version."""
        ...

    def put_budget(self, budget: Budget, seeds: Sequence[Seed] = ()) -> Budgets:
        """Adds a budget or changes it; what it has used stays. `seeds` are what accounts that are not there yet begin
        with. Raises InputError for a change of unit."""
        ...

    def drop_budget(self, budget_id: str) -> Budgets:
        """Takes a budget away; its accounts stay and limit nothing. Raises InputError for one that is not there."""
        ...

    def flush(self) -> None:
        """Returns when everything submitted so far is written and safe from a power cut."""
        ...

    def verify(self) -> list[str]:
        """Recomputes everything that was derived from the entries; each difference in words, none when all is well."""
        ...

    def close(self) -> None:
        """Writes what is pending and lets go. Closing twice is harmless; any other use afterwards raises."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
