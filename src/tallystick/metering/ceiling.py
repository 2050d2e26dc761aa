"""Ceiling: how much answer a call may bring under the limits of its run, and of the with-block around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tallystick.core.money import Money
from tallystick.core.usage import OUTPUT_KINDS, Usage
from tallystick.metering.counting import prompt_tokens
from tallystick.metering.leave import Denied
from tallystick.metering.run import Run, Scope
from tallystick.wire.facts import RequestFacts

FIRST: Final = 1024
"""Tokens of answer that are set aside at first; more as the answer grows."""

LEAST: Final = 16
"""With fewer tokens of answer than this a call is of no use."""

_TEXT: Final = (".chat", ".messages", ".responses", ".generateContent", ".converse", ".invoke")
"""Ends of the names of APIs whose answers are text, with a maximum that can be set."""

_AMPLE: Final = 2**40


def limited(scope: Scope | None) -> bool:
    """Whether any limit stands around a call."""
    return scope is not None and (scope.most is not None or (scope.run is not None and scope.run.left() is not None))


class Ceiling:
    """One call's share of what is left. `covered` is the tokens of answer that are paid for; `cap` is what the maximum
    of an answer that cannot be stopped in the middle has to be set to, None where it can stay. `price` gives the
    picodollars of a usage, None where no rate applies."""

    def __init__(self, call_id: str, facts: RequestFacts, scope: Scope, price: Callable[[Usage], int | None]) -> None:
        self._call_id = call_id
        self._facts = facts
        self._run: Run | None = scope.run
        self._most = scope.most
        self._price = price
        self._base = 0
        self._each = 0
        self._reserved = 0
        self._text = facts.api.endswith(_TEXT)
        self.covered = 0
        self.cap: int | None = None

    def open(self) -> Denied | None:
        """Sets aside what the call needs at least; a refusal where there is not so much."""
        left = self._left()
        if left is None:
            self.covered = _AMPLE
            return None
        denied = self._rates(left)
        if denied is not None:
            return denied
        wanted = self._wanted(FIRST)
        if not self._each:
            self.covered = _AMPLE if self._base <= left and left > 0 else 0
        elif self._reserve(wanted) and not self._facts.stream and self.covered < wanted and self._text:
            self.cap = max(1, self.covered // self._facts.answers)
        if self.covered < LEAST:
            shown = Money(max(0, left))
            return Denied(
                message=f"max_cost: {shown} is left, and this call needs at least "
                f"{Money(self._base + LEAST * self._each)}. It was not sent.",
                code="max_cost",
            )
        return None

    def grow(self, tokens: int) -> int:
        """Sets aside more, for at least so many tokens of answer where that can be paid; returns what is covered."""
        if self._reserve(max(tokens, 2 * self.covered)) or self._reserve(tokens):
            return self.covered
        left = self._left()
        if left is not None and self._each:
            self._reserve((left - self._base) // self._each)
        return self.covered

    def stated(self, usage: Usage) -> None:
        """The provider has said what the prompt used: from here on it is known."""
        base = self._price(Usage({kind: count for kind, count in usage.items() if kind not in OUTPUT_KINDS}))
        if base is None or base == self._base:
            return
        tokens, self.covered, self._base = self.covered, 0, base
        self._reserve(tokens)

    def _wanted(self, usual: int) -> int:
        """What to set aside at first. An answer that cannot be stopped in the middle gets all it may have."""
        asked = self._facts.max_output
        if self._facts.stream:
            return usual if asked is None else min(usual, asked * self._facts.answers)
        return 4 * usual if asked is None else asked * self._facts.answers

    def _left(self) -> int | None:
        """What is left for this call, what it holds already included."""
        ours = None if self._run is None else self._run.left()
        if ours is not None:
            ours += self._reserved
        return self._most if ours is None else ours if self._most is None else min(ours, self._most)

    def _rates(self, left: int) -> Denied | None:
        """The price of the prompt and of a token of answer. The body's length bounds the prompt for free; it is counted
        only when that bound would decide."""
        prompt = self._facts.body_bytes
        base = self._price(Usage(input=prompt))
        if base is not None and (4 * base > left or self._facts.images):
            prompt = prompt_tokens(self._facts, most=True)
            base = self._price(Usage(input=prompt))
        if not self._text:
            # What pictures, sound and vectors cost is known when they are there.
            self._base = base or 0
            return None
        whole = self._price(Usage(input=prompt, output=1000))
        if base is None or whole is None:
            return Denied(
                message=f"max_cost cannot be kept: {self._facts.model} has no rate. Set one: "
                f"tally rates set {self._facts.model} --input USD --output USD. The call was not sent.",
                code="unpriced_model",
            )
        self._base, self._each = base, -(-(whole - base) // 1000)
        return None

    def _reserve(self, tokens: int) -> bool:
        """Sets aside the price of so many tokens, or as many as `LEAST` where less is left."""
        for count in (tokens, tokens // 4, tokens // 16, LEAST):
            if count <= self.covered:
                return False
            pico = self._base + count * self._each
            if (self._most is None or pico <= self._most) and (
                self._run is None or self._run.reserve(self._call_id, pico)
            ):
                self.covered, self._reserved = count, pico
                return True
        return False
