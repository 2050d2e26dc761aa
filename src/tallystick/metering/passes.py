"""Passes: the leaves of calls that nothing holds up, as no budget concerns them or only soft ones do; and what they
share with those for which money is held."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from tallystick.errors import UnpricedError
from tallystick.ledger.entry import Entry
from tallystick.ledger.hold import Settlement
from tallystick.ledger.promise import Promise
from tallystick.metering.bench import ADMITTED
from tallystick.metering.claims import Account, settlement
from tallystick.metering.desk import Desk, nobody
from tallystick.metering.leave import Admitted, Denied, Keep
from tallystick.wire.facts import RequestFacts

if TYPE_CHECKING:
    from tallystick.ledger.ledger import Ledger, Receipt

Answer = Admitted | Denied

_T = TypeVar("_T")


def done(value: _T) -> Future[_T]:
    """A future that is done."""
    future: Future[_T] = Promise()
    future.set_result(value)
    return future


class FreeLeave:
    """The leave of a call that no budget concerns."""

    __slots__ = ("_ledger",)

    covered: int | None = None
    hold_id: str | None = None

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def ask(self) -> Future[Answer]:
        """Done at once."""
        return ADMITTED

    def grow(self, output: int) -> Future[int]:
        """Nothing limits it."""
        return done(output)

    def settle(self, entry: Entry, keep: Keep | None = None) -> Future[Receipt]:  # noqa: ARG002 - see Basket
        """Enters the call."""
        return self._ledger.submit([entry])

    def release(self) -> Future[None]:
        """Nothing is held."""
        return done(None)


class CountedLeave:
    """The leave of a call that soft or paused budgets count."""

    __slots__ = ("_accounts", "_desk")

    covered: int | None = None
    hold_id: str | None = None

    def __init__(self, desk: Desk, accounts: tuple[Account, ...]) -> None:
        self._desk = desk
        self._accounts = accounts

    def ask(self) -> Future[Answer]:
        """Done at once."""
        return ADMITTED

    def grow(self, output: int) -> Future[int]:
        """Nothing limits it."""
        return done(output)

    def settle(self, entry: Entry, keep: Keep | None = None) -> Future[Receipt]:
        """Enters the call and charges the budgets."""
        return charged(self._desk, entry, self._accounts, settlement(entry, self._accounts), keep)

    def release(self) -> Future[None]:
        """Nothing is held."""
        return done(None)


def charged(
    desk: Desk, entry: Entry, accounts: tuple[Account, ...], taken: Settlement, keep: Keep | None
) -> Future[Receipt]:
    """Enters a call and charges its accounts; whoever watches thresholds is told afterwards."""
    receipt = desk.ledger.settle(entry, taken, later=keep is not None and keep(entry, taken))
    if desk.notice is not nobody:
        receipt.add_done_callback(lambda _future: desk.notice(accounts))
    return receipt


def unpriced(facts: RequestFacts, why: UnpricedError, accounts: tuple[Account, ...]) -> Denied:
    """The refusal of a call whose cost nobody knows, under a budget that has to keep to dollars."""
    names = ", ".join(one.budget.budget_id for one in accounts if one.budget.unit == "usd")
    todo = (
        why.todo or f"Set a rate: tally rates set {facts.model} --input USD --output USD (dollars per million tokens)."
    )
    message = f"Budget {names} limits dollars, and what this call costs is unknown. {why.what} {todo}"
    return Denied(message=message, code="unpriced_model")
