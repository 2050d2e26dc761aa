"""Growing: keeps what is held for a stream ahead of what it has made, and says when it can hold no more."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from typing import Final

from tallystick.metering.handover import awaitable
from tallystick.metering.leave import Leave

GROW_WAIT: Final = 5.0
"""Seconds that a stream waits for its hold to grow before it is cut: a pause costs less than the rest of an answer."""


class Growth:
    """The hold of one stream. `longest` is the longest answer in tokens that the request allows, None where it says
    nothing.

    `pause` is what whoever moves the bytes waits for before it reads on, None mostly; one that cannot wait in its own
    way goes on, and waits inside the next piece.
    """

    __slots__ = ("_asked", "_leave", "_longest", "pause")

    def __init__(self, leave: Leave, longest: int | None) -> None:
        self._leave = leave
        self._longest = longest
        self._asked: Future[int] | None = None
        self.pause: Future[int] | None = None

    def exceeds(self, made: int, wanted: int, least: int) -> bool:
        """Whether the stream has to end: it has made `made` tokens at the most and `least` at the least, and with the
        next piece they would be `wanted`. From four fifths of what is held it asks for more."""
        held = self._leave.covered
        if held is None or wanted <= held * 4 // 5:
            return False
        if self._longest is not None and self._longest <= held:
            # The provider itself ends the answer within what is held; one whose tokens can only be estimated here may
            # look longer than it is.
            return least > held
        asked = self._asked
        if asked is None or asked.done():
            asked = self._asked = self._leave.grow(max(2 * held, wanted))
        if wanted <= held:
            return False
        if made <= held and self.pause is None and not asked.done():
            self.pause = asked
            return False
        self.pause = None
        try:
            held = asked.result(GROW_WAIT)
        except Late:
            held = self._leave.covered or 0
        return wanted > held


async def grown(pause: Future[int]) -> None:
    """Waits for a hold to grow, without blocking the loop; whether it did is for the next piece to find out."""
    waiting = awaitable(pause)
    waiting.add_done_callback(lambda future: future.cancelled() or future.exception())
    await asyncio.wait([waiting], timeout=GROW_WAIT)
