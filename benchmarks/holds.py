"""What a durable hold costs on one hot budget, beside the floors: a bare SQLite group commit, and the disk's own sync.

    python benchmarks/holds.py [--clients 64] [--seconds 5] [--rounds 3]

Each client is a thread that asks for a hold and gives it back, again and again, on one budget; every hold is safe from
a power cut before it is told. "with settle" enters the call and settles the hold instead of giving it back. The floor is a
thread that commits one update for all that wait and an insert for each, without any of our code, with the same sync.
"""

from __future__ import annotations

import argparse
import os
import queue
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from _timing import machine, table
from tallystick.core.cost import Cost
from tallystick.core.usage import Usage
from tallystick.ledger.budget import Budget
from tallystick.ledger.entry import Entry
from tallystick.ledger.hold import Ask, Charge, Claim, Granted, Settlement
from tallystick.ledger.ids import new_call_id
from tallystick.ledger.sqlite import SqliteLedger

LIMIT = 10**24
COST = 40_000_000
START = datetime.now(UTC)
FLOOR = "floor: bare sqlite3"
NEVER = 1e9
TARGETS = {"hold": (10_000.0, 25.0)}
"""At least so many per second, and p99 in milliseconds, of what the project promises."""

Rounds = dict[str, list[tuple[float, float, float, float]]]


def ask(hold_id: str) -> Ask:
    """One call of a hot budget."""
    claim = Claim(budget_id="hot", value="", period="2026-11", base=COST // 2, per_output=1000)
    until = START + timedelta(hours=1)
    return Ask(hold_id=hold_id, claims=(claim,), output=20_000, least=1, payload="0" * 32, version=1, expires_at=until)


def entry(call_id: str) -> Entry:
    """The call."""
    usage = Usage(input=1000, output=50)
    return Entry(call_id=call_id, started_at=START, provider="p", model="m", usage=usage, cost=Cost((), COST))


def held(ledger: SqliteLedger) -> float:
    """One hold, given back; the seconds until it was granted."""
    hold_id = new_call_id()
    begun = time.perf_counter()
    granted = ledger.authorise(ask(hold_id)).result()
    taken = time.perf_counter() - begun
    assert isinstance(granted, Granted)
    ledger.release(hold_id)
    return taken


def settled(ledger: SqliteLedger) -> float:
    """One hold with its call; the seconds until it was granted."""
    hold_id = new_call_id()
    begun = time.perf_counter()
    granted = ledger.authorise(ask(hold_id)).result()
    taken = time.perf_counter() - begun
    assert isinstance(granted, Granted)
    charge = Charge(budget_id="hot", value="", period="2026-11", amount=COST)
    ledger.settle(entry(hold_id), Settlement(charges=(charge,))).result()
    return taken


def crowd(work: Callable[[], float], clients: int, seconds: float) -> tuple[float, list[float]]:
    """How many per second, and how long each took."""
    taken: list[list[float]] = [[] for _ in range(clients)]
    begun = time.perf_counter()

    def client(mine: list[float]) -> None:
        while time.perf_counter() - begun < seconds:
            mine.append(work())

    threads = [threading.Thread(target=client, args=(mine,)) for mine in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = [one for mine in taken for one in mine]
    return len(everything) / (time.perf_counter() - begun), everything


def used(work: Callable[[], float], clients: int, seconds: float) -> tuple[float, float, list[float]]:
    """What `crowd` finds, with the microseconds of CPU of each in all threads between the two."""
    begun = time.process_time()
    rate, taken = crowd(work, clients, seconds)
    return rate, (time.process_time() - begun) * 1_000_000 / len(taken), taken


class Bare:
    """SQLite and one thread that commits what waits, and syncs."""

    def __init__(self, path: Path) -> None:
        self._jobs: queue.SimpleQueue[tuple[str, Future[None]] | None] = queue.SimpleQueue()
        self._path = path
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def hold(self) -> float:
        """One hold; the seconds it took."""
        future: Future[None] = Future()
        begun = time.perf_counter()
        self._jobs.put((new_call_id(), future))
        future.result()
        return time.perf_counter() - begun

    def close(self) -> None:
        """Ends the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, held INTEGER)")
        connection.execute("CREATE TABLE hold (hold_id TEXT PRIMARY KEY, amount INTEGER) WITHOUT ROWID")
        connection.execute("INSERT INTO account VALUES (1, 0)")
        while (first := self._jobs.get()) is not None:
            jobs = [first]
            while not self._jobs.empty() and (job := self._jobs.get()) is not None:
                jobs.append(job)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE account SET held = held + ? WHERE id = 1", (COST * len(jobs),))
            connection.executemany("INSERT INTO hold VALUES (?, ?)", [(hold_id, COST) for hold_id, _ in jobs])
            connection.execute("COMMIT")
            for _, future in jobs:
                future.set_result(None)
        connection.close()


def disk_sync(folder: Path, times: int = 300) -> float:
    """The median seconds of an fdatasync after 8 KB."""
    taken = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(times):
            file.write(b"x" * 8192)
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def spread(found: Rounds, targets: Mapping[str, tuple[float, float]], floor: str) -> str:
    """A table of medians: each beside the floor of its own round, and whether it meets its target (at least so many per
    second, p99 at most so many milliseconds)."""
    rows = []
    for what, rounds in found.items():
        rate, cpu, middle, late = (statistics.median(column) for column in zip(*rounds, strict=True))
        ratio = statistics.median([one[0] / bare[0] for one, bare in zip(rounds, found[floor], strict=True)])
        verdict = ""
        if what in targets:
            least, most = targets[what]
            words = f">= {least:,.0f}/s" + (f", p99 <= {most:.0f} ms" if most < NEVER else "")
            verdict = f"{words}: {'met' if rate >= least and late <= most else 'not met'}"
        rows.append([what, f"{rate:,.0f}", f"{ratio:.2f}", f"{cpu:.0f}", f"{middle:.1f}", f"{late:.1f}", verdict])
    return table(["durable holds on one budget", "per second", "x floor", "CPU us", "p50 ms", "p99 ms", "target"], rows)


def figures(rate: float, cpu: float, taken: list[float]) -> tuple[float, float, float, float]:
    """Per second, CPU microseconds, and p50 and p99 in milliseconds."""
    marks = statistics.quantiles(taken, n=100)
    return rate, cpu, marks[49] * 1000, marks[98] * 1000


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    found: Rounds = {FLOOR: [], "hold": [], "with settle": []}
    syncs = []
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            syncs.append(disk_sync(folder))
            bare = Bare(folder / "bare.db")
            found[FLOOR].append(figures(*used(bare.hold, given.clients, given.seconds)))
            bare.close()
            for what, one in (("hold", held), ("with settle", settled)):
                with SqliteLedger(folder / f"{what}.db") as ledger:
                    ledger.put_budget(Budget(budget_id="hot", limit=LIMIT))
                    found[what].append(figures(*used(partial(one, ledger), given.clients, given.seconds)))
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}; {given.clients} clients, {given.rounds} rounds")
    print(f"the disk's fdatasync: p50 {statistics.median(syncs) * 1000:.2f} ms")
    print(spread(found, TARGETS, FLOOR))


if __name__ == "__main__":
    main()
