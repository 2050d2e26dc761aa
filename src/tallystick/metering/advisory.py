"""Advisory: budgets that are only as honest as who calls, because a caller sets a tag of their scope by a header.

A virtual key fixes tags, and lists those that its bearer may fill in. Whoever may fill in a tag that a budget goes by
can leave the budget, or be counted in it, at will.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from tallystick.errors import LedgerError
from tallystick.ledger.budget import Budget

if TYPE_CHECKING:
    from tallystick.ledger.ledger import Ledger

KEYS: Final = "keys"
"""The part of the ledger's state that holds the virtual keys, by their id."""

FRESH_SECONDS: Final = 1.0
"""Refusals go by what the keys said at most so long ago."""


class _Open(msgspec.Struct, frozen=True):
    """What a virtual key leaves open."""

    open: tuple[str, ...] = ()
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


_decode: Final = msgspec.json.Decoder(_Open).decode
# Made here, because two threads that need a type for the first time at once bring msgspec down.


def open_tags(ledger: Ledger, now: datetime) -> frozenset[str]:
    """The tags that bearers of virtual keys in force set themselves. Raises LedgerError."""
    found: set[str] = set()
    for text in ledger.states(KEYS).values():
        try:
            key = _decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if key.revoked_at is None and (key.expires_at is None or now < key.expires_at):
            found.update(key.open)
    return frozenset(found)


def advisory(budget: Budget, opened: Iterable[str]) -> tuple[str, ...]:
    """The tags of a budget's scope (those of which it has one account for each value included) that callers set
    themselves; none for a budget that nobody can get around."""
    names = set(opened)
    return tuple([name for name in (*budget.scope, *budget.each) if name.removeprefix("tag:") in names])


def advice(names: tuple[str, ...]) -> str:
    """What is said of an advisory budget: "advisory: callers set project themselves"; empty for any other."""
    shown = " and ".join([name.removeprefix("tag:") for name in names])
    return f"advisory: callers set {shown} themselves" if shown else ""


class Openness:
    """The open tags of a ledger, looked up at most every `FRESH_SECONDS`. `ticks` gives seconds that only grow, `now`
    the present instant. A ledger that cannot be read leaves those that are known."""

    def __init__(self, ledger: Ledger, ticks: Callable[[], float], now: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._ticks = ticks
        self._now = now
        self._until = float("-inf")
        self._known: frozenset[str] = frozenset()

    def remark(self, budget: Budget | None) -> str:
        """What a refusal by a budget has to add, with a space before it; mostly nothing. May read the ledger."""
        if budget is None or not (budget.scope or budget.each):
            return ""
        if self._ticks() >= self._until:
            self._until = self._ticks() + FRESH_SECONDS
            try:
                self._known = open_tags(self._ledger, self._now())
            except LedgerError:
                self._until = float("-inf")
        said = advice(advisory(budget, self._known))
        return f" It is {said}." if said else ""
