"""Outbox: what has to be said about budgets, kept in the ledger until it has been delivered, so that a crash loses
nothing and says nothing twice that it knows it has said."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tallystick.ledger.entry import rfc3339
from tallystick.metering.claims import money_words, shown_value

if TYPE_CHECKING:
    from tallystick.ledger.budget import Budget
    from tallystick.ledger.ledger import Ledger
    from tallystick.metering.budgets import Standing

NAMESPACE: Final = "outbox"
FIRST_RETRY: Final = timedelta(seconds=5)
LONGEST_RETRY: Final = timedelta(hours=1)
KEPT: Final = timedelta(days=7)
"""How long a notice is tried, and remembered beyond the period it is about."""


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """A threshold that an account has passed. `key` says which one, in which period: one notice for each. `sent` are
    the targets that have it, `tries` how often something went wrong, `due` when to try again."""

    key: str
    budget: str
    value: str
    threshold: int
    text: str
    spent: str
    limit: str
    at: datetime
    until: datetime | None = None
    sent: tuple[str, ...] = ()
    tries: int = 0
    due: datetime | None = None
    done: bool = False

    @property
    def idempotency_key(self) -> str:
        """The same for each attempt to deliver this notice, and for no other."""
        return hashlib.sha256(self.key.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def to_json(self) -> dict[str, Any]:
        """What a webhook receives."""
        return {
            "schema": 1,
            "id": self.idempotency_key,
            "budget": self.budget,
            "value": self.value,
            "threshold": self.threshold,
            "spent": self.spent,
            "limit": self.limit,
            "at": rfc3339(self.at),
            "text": self.text,
        }

    def failed(self, now: datetime) -> Notice:
        """The notice after an attempt that did not reach everybody."""
        pause = min(FIRST_RETRY * 2 ** min(self.tries, 20), LONGEST_RETRY)
        over = now - self.at > KEPT
        return msgspec.structs.replace(self, tries=self.tries + 1, due=now + pause, done=over)


_decode: Final = msgspec.json.Decoder(Notice).decode


def notices(budget: Budget, standing: Standing, period: str, now: datetime) -> Iterator[Notice]:
    """A notice for each threshold that an account has passed in a period."""
    for threshold in budget.alerts:
        if standing.limit and 100 * standing.spent >= threshold * standing.limit:
            spent, limit = money_words(budget, standing.spent), money_words(budget, standing.limit)
            who = f"{budget.budget_id}{shown_value(standing.value)}"
            text = f"Budget {who} has spent {spent} of {limit}: {threshold} % of its limit is passed."
            if standing.resets_at is not None:
                text += f" It resets at {standing.resets_at:%Y-%m-%d %H:%M} UTC."
            yield Notice(
                key=f"{budget.budget_id}/{standing.value}/{period}/{threshold}",
                budget=budget.budget_id,
                value=standing.value,
                threshold=threshold,
                text=text,
                spent=spent,
                limit=limit,
                at=now,
                until=standing.resets_at,
            )


class Outbox:
    """The notices of a ledger. Every method may raise LedgerError."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def add(self, notice: Notice) -> bool:
        """Puts a notice in, unless the same threshold of the same period is there already; whether it was new."""
        if self._ledger.state(NAMESPACE, notice.key) is not None:
            return False
        self.keep(notice)
        return True

    def keep(self, notice: Notice) -> None:
        """Writes what has become of a notice."""
        self._ledger.state(NAMESPACE, notice.key, msgspec.json.encode(notice).decode())

    def waiting(self, now: datetime) -> list[Notice]:
        """The notices that are not delivered yet, oldest first. Delivered ones of periods long past are dropped."""
        found = []
        for key, text in self._ledger.states(NAMESPACE).items():
            try:
                notice = _decode(text)
            except (msgspec.DecodeError, UnicodeDecodeError):
                self._ledger.state(NAMESPACE, key, None)
                continue
            if not notice.done:
                found.append(notice)
            elif notice.until is not None and now - notice.until > KEPT:
                self._ledger.state(NAMESPACE, key, None)
        return sorted(found, key=lambda one: one.at)
