"""Chooser: which answer a request gets from a script."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from tallystick.simulator.answer import Answer, Script
from tallystick.simulator.request import Request


class Chooser:
    """Which answer a request gets. Belongs to the server's thread."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._place = 0
        self._failing: dict[bytes, tuple[Answer, int]] = {}

    def answer(self, request: Request) -> tuple[Answer, bool]:
        """The answer, and whether this attempt fails with its error status."""
        known = self._failing.pop(_mark(request), None) if self._failing else None
        if known is None:
            answer = self._next(request)
            left = answer.failures or 0
        else:
            answer, left = known
        if answer.status == 200:
            return answer, False
        if answer.failures is None:
            return answer, True
        if left:
            self._failing[_mark(request)] = (answer, left - 1)
        return answer, left > 0

    def _next(self, request: Request) -> Answer:
        script = self._script
        if isinstance(script, Answer):
            return script
        if not isinstance(script, Sequence):
            return script(request)
        if self._place >= len(script):
            return Answer(status=400, message=f"The script has no answer after its {len(script)}.")
        self._place += 1
        return script[self._place - 1]


def _mark(request: Request) -> bytes:
    """The same for a request that is sent again."""
    return blake2b(request.path.encode() + b"\0" + request.body, digest_size=16).digest()
