"""What does the ledger lose when processes die, disks fill up and clocks jump? Rounds of clients that are killed at random.

    python benchmarks/chaos.py [--rounds 50] [--seconds 3] [--seed 1] [--store sqlite|postgres] [--power 5] [--gateway]
        [--away 0] [--keep build/chaos]

In each round three processes make calls of our simulator with openai's client, four at a time each, with and without a
hard budget, streams and not; one of them is killed (-9), one is terminated, and one may meet a full disk, a file it
must not write, or a clock that jumps; the last ones stop by themselves. Each client notes a finished call before it
goes on. Then, after a repair: is every finished call in the ledger, once, at the price the provider says, and do all
accounts add up? While the clients run, the accounts are read again and again. `--power` rounds pull the plug as well:
what was written and not synced is gone. With `--gateway` the clients call through `tally up --workers 4`, whose workers
are killed (see _chaos_gateway.py). `--away` keeps a database that restarts away for so many seconds more. What a round
in which something is wrong has left is copied below the folder `--keep`. Exits with 1 where anything is missing, doubled or wrong.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import _chaos_client as clients
import _chaos_gateway as gateways
import _chaos_power as power
from _chaos_client import Order
from _chaos_desk import (
    TEAM,
    Found,
    Truth,
    Watch,
    answers,
    at_work,
    buried,
    check,
    end,
    keep_evidence,
    prepare,
    put_budgets,
    store,
)
from tallystick import defaults
from tallystick.ledger.ledger import Ledger
from tallystick.ledger.opening import in_database, open_ledger
from tallystick.metering.repair import repair
from tallystick.metering.spool import spool_folders
from tallystick.simulator import Simulator

TROUBLES = {"sqlite": ("", "clock", "full", "readonly"), "postgres": ("", "clock", "restart")}
STEPS = (0.0, -3600.0, 3600.0, 7200.0)


def processes(orders: Sequence[Order]) -> list[ForkServerProcess]:
    """Starts a process for each order, from one that has loaded everything."""
    context = multiprocessing.get_context("forkserver")
    started = [context.Process(target=clients.main, args=(order,), daemon=True) for order in orders]
    for process in started:
        process.start()
    return started


@dataclass(frozen=True)
class Stage:
    """Where a round plays: the ledger's place and folder, what befalls it, and what restarts its server."""

    place: str
    folder: Path
    trouble: str
    seed: int
    seconds: float
    restart: Callable[[], None]


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
        buried(ledger)
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


def told(number: int, kind: str, trouble: str, found: Found) -> str:
    """A round in one line."""
    return (
        f"{number:>3} {kind:<8} {trouble or 'kill':<8} {found.finished:>5} finished {found.entries:>5} entries "
        f"{found.refused:>4} refused {found.suspect:>3} suspect {found.repaired:>3} repaired {found.spooled:>3} spooled "
        f"{found.polls:>4} polls  {found.missing} missing {found.doubled} doubled {len(found.wrong)} wrong"
    )


@dataclass(frozen=True)
class Series:
    """So many rounds. `away`: seconds that a database which restarts stays away; `keep`: where what is left of a round
    goes in which something is wrong (None: nowhere)."""

    number: int
    seed: int
    seconds: float
    away: float
    keep: Path | None

    def keep_what_is_wrong(self, folder: Path, turn: int, found: Found) -> None:
        """Keeps what a round has left, if something is wrong with it."""
        if self.keep is not None and (found.wrong or found.missing or found.doubled):
            keep_evidence(folder, self.keep / f"{self.seed + turn}", found)


def rounds(kind: str, series: Series) -> Found:
    """Many rounds on one kind of ledger, each on a new one."""
    total, truth = Found(), Truth()
    troubles = [one for one in TROUBLES[kind] if one != "readonly" or os.geteuid() == 0]
    with Simulator(answers, heard=truth.hear, keep=0, typed=False) as simulator:
        for turn in range(series.number):
            trouble = troubles[turn % len(troubles)]
            with (
                tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name,
                store(kind, Path(name)) as (place, again),
            ):
                restart = partial(again, away=series.away) if trouble == "restart" else _nothing
                stage = Stage(place, Path(name), trouble, series.seed + turn, series.seconds, restart)
                found = run_round(stage, simulator.openai_url, truth)
                series.keep_what_is_wrong(Path(name), turn, found)
            show(turn + 1, kind, trouble, found)
            total.add(found)
    return total


def through(kind: str, series: Series) -> Found:
    """Many rounds through a gateway whose workers die, each on a new ledger."""
    total, truth = Found(), Truth()
    troubles = gateways.TROUBLES[kind]
    with Simulator(answers, heard=truth.hear, keep=0, typed=False) as simulator:
        for turn in range(series.number):
            trouble = troubles[turn % len(troubles)]
            with (
                tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name,
                store(kind, Path(name)) as (place, again),
            ):
                signs = {"crash": signal.SIGQUIT, "restart": signal.SIGINT}
                befalls = partial(again, signs[trouble], series.away) if trouble in signs else None
                plot = gateways.Plot(place, Path(name), trouble, series.seed + turn, series.seconds, befalls)
                found = gateways.run_round(plot, {"openai": simulator.openai_url}, truth)
                series.keep_what_is_wrong(Path(name), turn, found)
            show(turn + 1, kind, trouble, found)
            print(
                f"    {found.killed} workers killed, {found.held} finished calls are only held, {found.broken} cut off",
                flush=True,
            )
            total.add(found)
    return total


def show(number: int, kind: str, trouble: str, found: Found) -> None:
    """Prints a round, and what is wrong with it."""
    print(told(number, kind, trouble, found), flush=True)
    for one in found.wrong[:10]:
        print("   ", one, flush=True)


def _nothing() -> None:
    """What restarts a server that need not be."""


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
    options.add_argument("--gateway", action="store_true")
    options.add_argument("--away", type=float, default=0)
    options.add_argument("--keep", type=Path)
    given = options.parse_args()
    prepare()
    broken = cuts(given.power, given.seed, given.seconds / 2) if given.power else []
    play_all = through if given.gateway else rounds
    total = play_all(given.store, Series(given.rounds, given.seed, given.seconds, given.away, given.keep))
    print(told(given.rounds, given.store, "total", total))
    return 1 if total.missing or total.doubled or total.wrong or broken else 0


if __name__ == "__main__":
    sys.exit(main())
