"""Live: how far a call in flight has come, shown to its run and to other processes. Estimates, until it settles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tallystick.core.usage import Usage
from tallystick.ledger.intents import Slot
from tallystick.metering.counting import Delivered
from tallystick.metering.run import Run
from tallystick.wire.facts import RequestFacts

TICK: Final = 0.05
"""Seconds between two looks at a stream in progress."""


class Live:
    """What one call shows of itself. `price` gives the picodollars of a usage, None where no rate applies; `facts` tell
    about how many tokens the request has."""

    __slots__ = ("_base", "_call_id", "_each", "_facts", "_price", "_run", "slot")

    def __init__(
        self,
        call_id: str,
        run: Run | None,
        slot: Slot | None,
        price: Callable[[Usage], int | None],
        facts: RequestFacts,
    ) -> None:
        self._call_id = call_id
        self._run = run
        self._price = price
        self._facts = facts
        self._base: int | None = None
        self._each = 0
        self.slot = slot

    def tell(self, delivered: Delivered, response_bytes: int, now: float) -> None:
        """Shows how far the call is; `now` is seconds since 1970 UTC."""
        run, slot = self._run, self.slot
        if run is None and slot is None:
            return
        if self._base is None:
            prompt = 0 if self._facts.images else self._facts.body_bytes // 4
            base = self._price(Usage(input=prompt)) or 0
            whole = self._price(Usage(input=prompt, output=1000)) or 0
            self._base, self._each = base, max(0, whole - base) // 1000
        # Counting needs the tokenizer, whose first use takes long; who watches has asked for it.
        tokens = delivered.tokens() if run is not None and run.watched else delivered.rough
        pico = self._base + tokens * self._each
        if slot is not None:
            slot.move(int(now * 1_000_000), response_bytes, tokens, pico)
        if run is not None:
            run.moved(self._call_id, pico, tokens)

    def free(self) -> None:
        """The call needs to be shown no more."""
        slot, self.slot = self.slot, None
        if slot is not None:
            slot.free()
