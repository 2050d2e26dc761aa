"""Alerts: somebody is told when a budget passes a threshold, once a period: by webhook, in Slack, by a command."""

from __future__ import annotations

import functools
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tallystick.config import Alerts
from tallystick.errors import ConfigError, TallyError
from tallystick.ledger.budget import Budget
from tallystick.metering.budgets import standings
from tallystick.metering.claims import Account, stretch
from tallystick.metering.outbox import Notice, Outbox, notices

if TYPE_CHECKING:
    from tallystick.ledger.ledger import Ledger

LOG: Final = logging.getLogger("tallystick")
SETTLE_SECONDS: Final = 0.2
"""Charges that come within this time are looked at together."""

LOOK_SECONDS: Final = 30.0
"""How often undelivered notices are looked for while nothing else happens."""

SEND_SECONDS: Final = 10.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Alerter:
    """Looks at budgets that have been charged, and delivers notices. The thread begins with the first charge of a
    budget that has thresholds; `look` and `deliver` do the same at once. `clock` gives seconds since 1970, `env` the
    environment in which secrets are named."""

    def __init__(
        self,
        ledger: Ledger,
        told: Alerts,
        *,
        clock: Callable[[], float] = time.time,
        env: Mapping[str, str] = os.environ,
    ) -> None:
        self._ledger = ledger
        self._told = told
        self._clock = clock
        self._env = env
        self._outbox = Outbox(ledger)
        self._lock = threading.Lock()
        self._charged: dict[str, Budget] = {}
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None
        self.faults = 0

    def notice(self, accounts: Sequence[Account]) -> None:
        """These accounts have just been charged."""
        concerned = {one.budget.budget_id: one.budget for one in accounts if one.budget.alerts}
        if not concerned:
            return
        with self._lock:
            if self._closing:
                return
            self._charged |= concerned
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="tally-alerts", daemon=True)
                self._thread.start()
        self._wake.set()

    def look(self, budgets: Iterable[Budget]) -> int:
        """Enters a notice for each threshold passed; how many are new. Raises LedgerError."""
        now, new = self._now(), 0
        for budget in budgets:
            if budget.alerts and not budget.paused:
                period = _period(budget, now)
                for standing in standings(self._ledger, budget, now):
                    new += sum([self._outbox.add(notice) for notice in notices(budget, standing, period, now)])
        return new

    def deliver(self, *, at_once: bool = False) -> tuple[int, int]:
        """Delivers what is due, or (`at_once`) all that waits; how many notices are delivered, and how many still
        wait. Raises LedgerError."""
        now, sent, left = self._now(), 0, 0
        for notice in self._outbox.waiting(now):
            if notice.due is not None and notice.due > now and not at_once:
                left += 1
                continue
            after = self._send(notice, now)
            sent += after.done
            left += not after.done
        return sent, left

    def close(self) -> None:
        """Looks once more at what was charged, delivers what is due, and ends the thread."""
        with self._lock:
            thread, self._closing = self._thread, True
        if thread is not None:
            self._wake.set()
            thread.join()

    def _work(self) -> None:
        while True:
            self._wake.wait(LOOK_SECONDS)
            if not self._closing:
                time.sleep(SETTLE_SECONDS)
            self._wake.clear()
            with self._lock:
                charged, self._charged = self._charged, {}
                last = self._closing
            try:
                self.look(charged.values())
                self.deliver()
            except TallyError as error:
                self._fault(error)
            if last:
                return

    def _send(self, notice: Notice, now: datetime) -> Notice:
        """One attempt to reach everybody who has not got it yet; written down after each who has."""
        whole = True
        for target, send in self._targets():
            if target in notice.sent:
                continue
            try:
                send(notice)
            except (OSError, ValueError, TallyError, subprocess.SubprocessError) as error:
                whole = False
                self._fault(error)
            else:
                notice = msgspec.structs.replace(notice, sent=(*notice.sent, target))
                self._outbox.keep(notice)
        notice = msgspec.structs.replace(notice, done=True) if whole else notice.failed(now)
        self._outbox.keep(notice)
        return notice

    def _targets(self) -> Iterable[tuple[str, Callable[[Notice], None]]]:
        for number, address in enumerate(self._told.webhooks):
            yield f"webhook {number}", functools.partial(self._post, address, Notice.to_json)
        for number, address in enumerate(self._told.slack):
            yield f"slack {number}", functools.partial(self._post, address, _slack)
        if self._told.command:
            yield "command", self._run

    def _post(self, address: str, shape: Callable[[Notice], dict[str, Any]], notice: Notice) -> None:
        import urllib.request

        url = secret(address, self._env)
        if not url.startswith(("https://", "http://")):
            raise ConfigError("A webhook's address begins with https:// or http://.", money="Nobody was told.")
        headers = {"content-type": "application/json", "idempotency-key": notice.idempotency_key}
        request = urllib.request.Request(url, msgspec.json.encode(shape(notice)), headers)  # noqa: S310 - checked above
        with urllib.request.urlopen(request, timeout=SEND_SECONDS):  # noqa: S310 - checked above
            pass

    def _run(self, notice: Notice) -> None:
        words = [*self._told.command, notice.text]
        text = msgspec.json.encode(notice.to_json())
        # The words are the user's own, from the configuration, and no shell reads them.
        subprocess.run(words, input=text, timeout=SEND_SECONDS, check=True, stdout=subprocess.DEVNULL)  # noqa: S603

    def _fault(self, error: BaseException) -> None:
        self.faults += 1
        if self.faults == 1:
            LOG.warning("an alert was not delivered: %s. It is tried again; the budgets hold all the same.", error)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


def secret(text: str, env: Mapping[str, str]) -> str:
    """What `env:NAME` or `file:PATH` stands for, or the text itself. Raises ConfigError where it stands for nothing."""
    kind, _, name = text.partition(":")
    if kind == "env":
        if not env.get(name):
            raise ConfigError(f"The environment variable {name} is not set.", money="Nobody was told.")
        return env[name]
    if kind == "file":
        try:
            return Path(name).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, RuntimeError) as error:
            raise ConfigError(f"The file {name} cannot be read: {error}.", money="Nobody was told.") from None
    return text


def _slack(notice: Notice) -> dict[str, Any]:
    """What Slack's incoming webhooks take."""
    return {"text": notice.text}


def _period(budget: Budget, now: datetime) -> str:
    """The period that a threshold is told once in; a rolling budget's windows are laid end to end for that."""
    length = budget.period.length
    if length is None:
        return stretch(budget.period, now).period
    return f"{length // timedelta(seconds=1)}s {(now - _EPOCH) // length}"
