"""Basket: finished calls on their way to the ledger, many at once.

They lie in their slots, which outlive a killed process. So nobody waits for the ledger, and its writer is woken once
for all that have ended within `LATER` seconds, not for each.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final, NamedTuple

from tallystick.errors import TallyError
from tallystick.ledger.entry import Entry
from tallystick.ledger.ledger import Receipt
from tallystick.ledger.writer import LATER
from tallystick.metering.finished import Finished, pack
from tallystick.metering.leave import Leave

if TYPE_CHECKING:
    from tallystick.ledger.hold import Settlement
    from tallystick.ledger.intents import Slot
    from tallystick.metering.bench import Bench

MOST: Final = 1024
"""With more calls than this in their slots the ledger has fallen behind, and callers wait for it again."""


class _Kept(NamedTuple):
    entry: Entry
    leave: Leave
    slot: Slot


class Basket:
    """The finished calls of one event loop. `later` calls something after so many seconds, on the thread that makes
    the basket."""

    def __init__(self, bench: Bench, later: Callable[[float, Callable[[], object]], object]) -> None:
        from tallystick.metering.passes import FreeLeave

        self._bench = bench
        self._later = later
        self._thread = threading.get_ident()
        self._waiting: deque[_Kept] = deque()
        self._due = False
        self._free = frozenset((type(bench.plain_leave), FreeLeave))

    def take(self, entry: Entry, leave: Leave, slot: Slot) -> bool:
        """Keeps the entry of a call that no budget concerns, safe from a killed process once this returns; False for
        others, and where there is no room."""
        if type(leave) not in self._free or threading.get_ident() != self._thread or not self.keeps(slot, entry, None):
            return False
        self._waiting.append(_Kept(entry, leave, slot))
        if not self._due:
            self._due = True
            self._later(LATER, self.hand_over)
        return True

    def keeps(self, slot: Slot, entry: Entry, settlement: Settlement | None) -> bool:
        """Whether a slot keeps all that is to be written at a call's end, so that its caller need not wait for the
        ledger. It is to be freed when the ledger has it."""
        intents = self._bench.intents
        if intents is None or intents.used > MOST:
            return False
        record = pack(Finished(entry, settlement))
        return record is not None and slot.finish(record)

    def hand_over(self) -> None:
        """Gives the ledger all that waits."""
        self._due = False
        plain: list[_Kept] = []
        waiting = self._waiting
        while waiting:
            plain.append(waiting.popleft())
        if len(plain) == 1:
            self._settle(plain[0])
        elif plain:
            self._submit(plain)

    def _submit(self, many: list[_Kept]) -> None:
        """Enters calls that no budget concerns in one go; where that fails, each by itself."""
        try:
            written = self._bench.ledger.submit([kept.entry for kept in many])
        except TallyError:
            for kept in many:
                self._settle(kept)
            return

        def heard(result: Future[Receipt]) -> None:
            failed = result.exception() is not None
            for kept in many:
                if failed:
                    self._settle(kept)
                else:
                    kept.slot.free()

        written.add_done_callback(heard)

    def _settle(self, kept: _Kept) -> None:
        try:
            written = kept.leave.settle(kept.entry)
        except TallyError as error:
            if self._bench.miss(kept.entry, error, kept.slot):
                kept.slot.free()
            return

        def heard(result: Future[Receipt]) -> None:
            error = result.exception()
            if error is None or self._bench.miss(kept.entry, error, kept.slot):
                kept.slot.free()

        written.add_done_callback(heard)
