"""What a ledger entry costs, beside the floors: rows put into bare SQLite, and the disk's own sync.

    python benchmarks/ledger.py [--entries 20000] [--rounds 5]

"minimal" is a table of five columns with one index; "our rows" are the ledger's own rows and indexes, made beforehand.
"no sums" is the ledger without its rollups, so that the difference is what they cost. Rounds are interleaved, so that
a slow moment of the machine meets all of them; figures are medians.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from threading import Thread
from unittest.mock import patch

from _timing import machine
from tallystick.core.attribution import Tags
from tallystick.core.pricing import price
from tallystick.core.rates import Rate, RateCard
from tallystick.core.usage import Usage
from tallystick.ledger.entry import Entry
from tallystick.ledger.ids import new_call_id
from tallystick.ledger.rollups import Sums
from tallystick.ledger.rows import Row, encode
from tallystick.ledger.sql import queries
from tallystick.ledger.sqlite import SqliteLedger
from tallystick.ledger.store import connect, create
from tallystick.ledger.words import Words

BATCH = 100
CROWD = 64
START = datetime(2026, 11, 21, 9, tzinfo=UTC)
Measure = tuple[float, float]


def cards() -> list[RateCard]:
    """Rates of 21 models at three providers."""
    return [
        RateCard(
            provider=provider,
            model=f"model-{number}",
            rates={
                kind: Rate(Decimal(usd) * (number + 1) / 10)
                for kind, usd in (("input", "2.5"), ("cache_read", "0.25"), ("output", "10"), ("reasoning", "10"))
            },
        )
        for number, provider in zip(range(21), itertools.cycle(("openai", "anthropic", "google")))
    ]


def workload(count: int, keys: int, seed: int = 7) -> list[Entry]:
    """Calls of `keys` virtual keys in teams and projects, a quarter as many users per key, and agent runs of 20 calls;
    popular models and keys come more often."""
    chance = random.Random(seed)
    rates = cards()
    attributions = [
        Tags(
            key=f"key-{key}", team=f"team-{key % 7}", project=f"project-{key % 11}", user=f"user-{user}", agent="coder"
        )
        for key in range(keys)
        for user in range(key, key + 4)
    ]
    found = []
    for number in range(count):
        card = rates[min(int(chance.expovariate(0.4)), 20)]
        usage = Usage(
            input=chance.randrange(50, 9000), cache_read=chance.randrange(1, 90000), output=chance.randrange(1, 2000),
            reasoning=chance.randrange(1, 4000),
        )  # fmt: skip
        at = START + timedelta(milliseconds=40 * number)
        found.append(
            Entry(
                call_id=new_call_id(),
                started_at=at,
                settled_at=at + timedelta(seconds=2),
                provider=card.provider,
                model=card.model,
                maker=card.provider,
                api="openai.responses",
                requested_model=card.model,
                usage=usage,
                cost=price(usage, card, at=at),
                http_status=200,
                source="gateway",
                tags=attributions[min(int(chance.expovariate(8 / len(attributions))), len(attributions) - 1)],
                run_id=f"run-{number // 400 * 20 + chance.randrange(20)}",
                provider_response_id=f"resp_{chance.getrandbits(128):032x}",
                latency_us=2_000_000,
                ttft_us=350_000,
                request_bytes=12_000,
                response_bytes=3_000,
            )
        )
    return found


def batches(entries: list[Entry]) -> Iterator[list[Entry]]:
    """The entries, a hundred at a time."""
    for first in range(0, len(entries), BATCH):
        yield entries[first : first + BATCH]


def timed(work: Callable[[], None], count: int) -> Measure:
    """Entries a second and microseconds of CPU per entry, all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return count / wall, cpu / count * 1e6


def ledger_round(entries: list[Entry], folder: Path, *, durable: bool) -> Measure:
    """Our ledger. The first half of the entries warms it up: models, keys and users are known from then on."""
    half = len(entries) // 2
    with SqliteLedger(folder / "ledger.db", clock=START.timestamp) as ledger:
        ledger.append(entries[:half], durable=True)

        def work() -> None:
            for batch in batches(entries[half:]):
                ledger.append(batch, durable=durable)
            ledger.flush()

        return timed(work, len(entries) - half)


def no_sums_round(entries: list[Entry], folder: Path) -> Measure:
    """Our ledger with nothing to add up: every call adds the same nothing to no rollup."""
    nothing = (1, 0, None, 0, 0, (0,) * 13, None)
    with (
        patch.object(Row, "move", lambda *_: nothing),
        patch.object(Sums, "add", lambda *_: None),
        patch.object(Sums, "write", lambda *_: None),
    ):
        return ledger_round(entries, folder, durable=False)


def crowd_round(entries: list[Entry], folder: Path, *, durable: bool) -> Measure:
    """Our ledger under many threads that each append one entry at a time and wait for it."""
    half = len(entries) // 2
    with SqliteLedger(folder / "ledger.db", clock=START.timestamp) as ledger:
        ledger.append(entries[:half], durable=True)

        def appender(mine: list[Entry]) -> None:
            for entry in mine:
                ledger.append([entry], durable=durable)

        def work() -> None:
            threads = [Thread(target=appender, args=(entries[half + number :: CROWD],)) for number in range(CROWD)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            ledger.flush()

        return timed(work, len(entries) - half)


def floor_round(entries: list[Entry], folder: Path, *, durable: bool, minimal: bool = False) -> Measure:
    """Rows with executemany and nothing else: no rollups, no thread, rows made beforehand."""
    path = folder / "floor.db"
    create(path)
    connection = connect(path, read_only=False, timeout=5)
    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    connection.execute("PRAGMA wal_autocheckpoint = 16000")
    words = Words(connection)
    connection.execute("BEGIN")
    rows = [encode(entry, words, 0).stored for entry in entries]
    connection.execute(
        "CREATE TABLE plain (id INTEGER PRIMARY KEY, at INTEGER, label INTEGER, cost INTEGER, body BLOB)"
    )
    connection.execute("CREATE INDEX plain_at ON plain (at)")
    connection.execute("COMMIT")
    statement = queries()["add_entry"]
    if minimal:
        statement = "INSERT INTO plain (at, label, cost, body) VALUES (?, ?, ?, ?)"
        rows = [(row[1], row[5], row[10] * 1_000_000 + row[11], row[19]) for row in rows]
    half = len(rows) // 2
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(statement, rows[:half])
    connection.execute("COMMIT")

    def work() -> None:
        for first in range(half, len(rows), BATCH):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(statement, rows[first : first + BATCH])
            connection.execute("COMMIT")

    result = timed(work, len(rows) - half)
    connection.close()
    return result


def sync_p50(folder: Path) -> float:
    """Milliseconds of one fdatasync after 64 KB, the median of 50."""
    path, found = folder / "sync", []
    with path.open("wb", buffering=0) as file:
        for _ in range(50):
            file.write(os.urandom(65536))
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            found.append((time.perf_counter() - start) * 1e3)
    return statistics.median(found)


def main() -> None:
    """Runs the rounds and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    few, many = workload(options.entries, 6), workload(options.entries, 60)
    cases: dict[str, Callable[[Path], Measure]] = {
        "ledger, 6 keys": lambda folder: ledger_round(few, folder, durable=False),
        "ledger, 60 keys": lambda folder: ledger_round(many, folder, durable=False),
        "ledger, 60 keys, no sums": lambda folder: no_sums_round(many, folder),
        "ledger, 60 keys, durable": lambda folder: ledger_round(many, folder, durable=True),
        f"{CROWD} threads, single entries": lambda folder: crowd_round(many, folder, durable=False),
        f"{CROWD} threads, durable": lambda folder: crowd_round(many, folder, durable=True),
        "SQLite, minimal": lambda folder: floor_round(many, folder, durable=False, minimal=True),
        "SQLite, minimal, durable": lambda folder: floor_round(many, folder, durable=True, minimal=True),
        "SQLite, our rows": lambda folder: floor_round(many, folder, durable=False),
        "SQLite, our rows, durable": lambda folder: floor_round(many, folder, durable=True),
    }
    found: dict[str, list[Measure]] = {name: [] for name in cases}
    syncs = []
    for _ in range(options.rounds):
        for name, case in cases.items():
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(case(Path(folder)))
        with tempfile.TemporaryDirectory() as folder:
            syncs.append(sync_p50(Path(folder)))
    print(f"{machine()}, SQLite {sqlite3.sqlite_version}; {options.entries // 2} entries, {options.rounds} rounds")
    print(f"One submitter with batches of {BATCH}, or {CROWD} threads with one entry each at a time")
    print(f"{'':<32}{'entries/s':>12}{'us CPU/entry':>14}")
    for name, results in found.items():
        rate, cpu = (statistics.median(column) for column in zip(*results, strict=True))
        print(f"{name:<32}{rate:>12,.0f}{cpu:>14.1f}")
    print(f"{'fdatasync p50':<32}{statistics.median(syncs):>12.2f} ms")


if __name__ == "__main__":
    main()
