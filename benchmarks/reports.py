"""How long totals take in a large ledger, beside the same question put to the entry table in plain SQL.

    python benchmarks/reports.py [--full | --entries 300000] [--ledger FILE]

A year of calls of 60 keys, 20 models, 5,000 users, in runs of 20, appended through the ledger itself in big batches.
Full mode writes 10 million and needs 6 GB and half an hour; a ledger that is kept can be asked again. The plain SQL
answers "how many calls, what did they cost, how many tokens" by the same group; it has the same indexes and is asked
once. Ours are the best of three. Percentiles come from sketches, within 1.6 % of an actual figure; groups are counted
exactly. The last line says what writing the sums costs beside writing the entries.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from unittest.mock import patch
from zoneinfo import ZoneInfo

import msgspec

from _timing import machine, table
from tallystick.core.attribution import Tags
from tallystick.core.periods import Period
from tallystick.core.pricing import price
from tallystick.core.rates import Rate, RateCard
from tallystick.core.usage import Usage
from tallystick.ledger.entry import Entry
from tallystick.ledger.ids import ENTROPY_BYTES, ticks, uuid7
from tallystick.ledger.query import Query
from tallystick.ledger.rollups import Sums
from tallystick.ledger.rows import Row, to_us
from tallystick.ledger.sqlite import SqliteLedger

END = datetime(2026, 11, 21, tzinfo=UTC)
YEAR = timedelta(days=365)
MONTH = timedelta(days=30)
BIG_BATCH = 2000
FULL = 10_000_000
KEYS, MODELS, USERS = 60, 20, 5000
DAY_US = 86_400_000_000


def entries(count: int, span: timedelta = YEAR, seed: int = 11) -> Iterator[Entry]:
    """The calls of the last `span`, in the order of time. Usage and cost come from a pool, since only their sums matter here."""
    chance = random.Random(seed)
    makers = ("openai", "anthropic", "google")
    pool: list[tuple[str, str, Usage, object]] = []
    for number in range(2000):
        model = min(int(chance.expovariate(0.2)), MODELS - 1)
        provider = makers[model % 3]
        rates = {kind: Rate(Decimal(usd) * (model + 1)) for kind, usd in (("input", "0.3"), ("output", "1.2"))}
        card = RateCard(provider=provider, model=f"model-{model}", rates=rates)
        usage = Usage(input=chance.randrange(50, 9000) + number, output=chance.randrange(1, 2000))
        pool.append((provider, card.model, usage, price(usage, card, at=END)))
    tags = [
        Tags(
            key=f"key-{user % KEYS}", team=f"team-{user % KEYS % 7}", project=f"project-{user % KEYS % 11}",
            user=f"user-{user}", agent=f"agent-{user % 13}",
        )
        for user in range(USERS)
    ]  # fmt: skip
    for number in range(count):
        provider, model, usage, cost = pool[int(chance.random() * 2000)]
        latency = int(2 ** (20 + 3 * chance.random()))
        at = END - span + span * (number / count)
        yield Entry(
            call_id=uuid7(ticks(to_us(at)), chance.randbytes(ENTROPY_BYTES)),
            started_at=at,
            settled_at=at + timedelta(seconds=2),
            recorded_at=at + timedelta(seconds=2),
            provider=provider,
            model=model,
            maker=provider,
            usage=usage,
            cost=cost,  # type: ignore[arg-type]
            source="gateway",
            tags=tags[int(chance.random() ** 2 * USERS)],
            run_id=f"run-{number // 400 * 20 + number % 20}",
            provider_response_id=f"resp_{chance.getrandbits(96):024x}",
            latency_us=latency,
            ttft_us=latency // 8,
        )


def fill(path: Path, calls: Iterator[Entry], count: int) -> float:
    """Appends the calls in big batches; CPU seconds of the appending alone."""
    taken, done, batch = 0.0, 0, []
    with SqliteLedger(path, clock=END.timestamp) as ledger:
        for call in calls:
            batch.append(call)
            done += 1
            if len(batch) == BIG_BATCH or done == count:
                started = time.process_time()
                ledger.append(batch)
                taken += time.process_time() - started
                batch = []
        started = time.process_time()
        ledger.flush()
        return taken + time.process_time() - started


def best(work: Callable[[], object], rounds: int = 3) -> float:
    """The shortest round, in milliseconds of CPU: an answer is one thread's work on pages the system has in memory, so
    on a machine with nothing else to do it is the wall time too."""
    found = []
    for _ in range(rounds):
        started = time.thread_time()
        work()
        found.append((time.thread_time() - started) * 1e3)
    return min(found)


def plain_sql(
    connection: sqlite3.Connection, axis: str | None, since: datetime, per: Period | None
) -> Callable[[], object]:
    """The same question to the entry table."""
    column = "0"
    if axis in ("provider", "model", "maker"):
        column = f"label.{axis}"
    elif axis in ("source", "status", "quality", "run"):
        column = f"entry.{axis}"
    elif axis is not None:
        column = f"json_extract(label.tags, '$.{axis}')"
    period = "0" if per is None else f"entry.started_us / {DAY_US}"
    if per is not None and per.unit == "month":
        period = "strftime('%Y-%m', entry.started_us / 1000000, 'unixepoch')"
    statement = (
        f"SELECT {column}, {period}, count(*), sum(cost_micro), sum(cost_pico), sum(input), sum(output) "
        "FROM entry JOIN label ON label.id = entry.label WHERE started_us >= ? GROUP BY 1, 2"
    )
    return lambda: connection.execute(statement, (to_us(since),)).fetchall()


class Question(msgspec.Struct, frozen=True):
    """What is asked: in words, the groups, how far back, the period, the target in milliseconds, and how: `total`,
    `top` (the 50 largest groups, and how many there are) or `spread` (percentiles)."""

    words: str
    by: tuple[str, ...]
    back: timedelta
    per: Period | None
    target: float
    how: str = "total"
    tags: dict[str, str] = {}
    zone: str = "UTC"

    def ask(self, ledger: SqliteLedger, end: datetime) -> Callable[[], int]:
        """Asks a ledger; gives the number of rows."""
        since = (end - self.back).replace(tzinfo=ZoneInfo(self.zone))
        query = Query(since=since, until=end if self.zone == "UTC" else None, tags=Tags(self.tags))
        if self.how == "top":
            return lambda: ledger.top(query, self.by).groups
        if self.how == "spread":
            return lambda: len(ledger.spread(query, self.by, self.per))
        return lambda: len(ledger.total(query, self.by, self.per))


def questions() -> Iterator[Question]:
    """All that is asked."""
    day, month, hour = Period("day"), Period("month"), Period("hour")
    for name in ("provider", "model", "key", "team", "project"):
        yield Question(f"{name} by day, 30 days", (name,), MONTH, day, 50)
        yield Question(f"{name} by month, a year", (name,), YEAR, month, 50)
        yield Question(f"{name} by day, a year", (name,), YEAR, day, 300)
    for name in ("user", "agent"):
        yield Question(f"{name}, 30 days", (name,), MONTH, None, 300)
        yield Question(f"{name}, a year", (name,), YEAR, None, 300)
        yield Question(f"{name} by month, a year", (name,), YEAR, month, 300)
        yield Question(f"top 50 by {name}, a year", (name,), YEAR, None, 300, "top")
    yield Question("agent by day, a year", ("agent",), YEAR, day, 300)
    yield Question("run, 30 days", ("run",), MONTH, None, 300)
    yield Question("top 50 by run, 30 days", ("run",), MONTH, None, 300, "top")
    yield Question("top 50 by run, a year", ("run",), YEAR, None, 2000, "top")
    yield Question("maker by day, a year", ("maker",), YEAR, day, 2000)
    yield Question("source by day, a year", ("source",), YEAR, day, 2000)
    yield Question("status, a year", ("status",), YEAR, None, 2000)
    yield Question("model and user, 30 days", ("model", "user"), MONTH, None, 2000)
    yield Question("top 50 by model and user, 30 days", ("model", "user"), MONTH, None, 2000, "top")
    yield Question("key and source, a year", ("key", "source"), YEAR, None, 2000)
    yield Question("model of one agent by day, 30 days", ("model",), MONTH, day, 2000, tags={"agent": "agent-3"})
    yield Question("model of one user, a year", ("model",), YEAR, None, 2000, tags={"user": "user-7"})
    yield Question("key by hour, 30 days", ("key",), MONTH, hour, 1000)
    for zone in ("America/New_York", "Asia/Kolkata"):
        yield Question(f"model by day of {zone}, 30 days", ("model",), MONTH, Period("day", zone), 1000, zone=zone)
    for name in ("model", "key"):
        yield Question(f"percentiles by {name}, 30 days", (name,), MONTH, None, 300, "spread")
        yield Question(f"percentiles by {name}, a year", (name,), YEAR, None, 2000, "spread")
    yield Question("percentiles by model by day, 30 days", ("model",), MONTH, day, 300, "spread")
    yield Question("percentiles of one team, 30 days", ("model",), MONTH, None, 300, "spread", {"team": "team-3"})


def ask(path: Path, end: datetime, *, bare: bool) -> str:
    """Puts all questions and gives the table; `bare` leaves out the plain SQL."""
    rows = []
    with (
        SqliteLedger(path, clock=end.timestamp, read_only=True) as ledger,
        closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection,
    ):
        for asked in questions():
            work = asked.ask(ledger, end)
            groups = work()
            ours = best(work)
            floor = not bare and len(asked.by) == 1 and not asked.tags and asked.how == "total" and asked.zone == "UTC"
            floor = floor and (asked.per is None or asked.per.unit != "hour")
            raw = best(plain_sql(connection, asked.by[0], end - asked.back, asked.per), 1) if floor else None
            mark = "met" if ours <= asked.target else "MISSED"
            plain = "-" if raw is None else f"{raw:,.0f}"
            row = asked.words, f"{groups:,}", f"{ours:,.1f}", plain, f"{asked.target:,.0f}", mark
            rows.append(row)
            print(*row, sep=" | ", file=sys.stderr, flush=True)
    return table(("question", "rows", "ledger ms", "plain SQL ms", "target ms", ""), rows)


def what_sums_cost(count: int, folder: Path) -> str:
    """CPU of appending with and without the sums, in turns, with calls as dense in time as in full mode."""
    nothing = (1, 0, None, 0, 0, (0,) * 13, None, None, None)
    calls = list(entries(count, YEAR * count / FULL))
    found: dict[str, list[float]] = {"with": [], "no spreads": [], "without": []}
    for number in range(3):
        found["with"].append(fill(folder / f"with-{number}.db", iter(calls), count))
        with patch.object(Sums, "spreads", lambda *_: {}):
            found["no spreads"].append(fill(folder / f"spreadless-{number}.db", iter(calls), count))
        with (
            patch.object(Row, "move", lambda *_: nothing),
            patch.object(Sums, "add", lambda *_: None),
            patch.object(Sums, "write", lambda *_: None),
        ):
            found["without"].append(fill(folder / f"without-{number}.db", iter(calls), count))
    whole, sums, rows = (sorted(found[name])[1] / count * 1e6 for name in found)
    return (
        f"us of CPU per entry: all {whole:.1f}; entries alone {rows:.1f}, so the sums {sums - rows:.1f} "
        f"and the spreads {whole - sums:.1f}"
    )


def main() -> None:
    """Fills a ledger, asks, and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=300_000)
    parser.add_argument("--full", action="store_true", help=f"{FULL:,} entries")
    parser.add_argument("--ledger", type=Path, help="a ledger to make and keep, or to ask if it is there already")
    parser.add_argument("--bare", action="store_true", help="only ours: without plain SQL and the cost of writing")
    parser.add_argument(
        "--end",
        type=lambda text: datetime.fromisoformat(text).replace(tzinfo=UTC),
        default=END,
        help="ask about the time before this day [default: 2026-11-21, where the calls end]",
    )
    options = parser.parse_args()
    count = FULL if options.full else options.entries
    with tempfile.TemporaryDirectory() as made:
        path = options.ledger or Path(made) / "ledger.db"
        print(f"{machine()}, SQLite {sqlite3.sqlite_version}")
        if not path.exists():
            started = time.perf_counter()
            cpu = fill(path, entries(count), count)
            took = time.perf_counter() - started
            print(f"filled in {took:,.0f} s (making the calls included), {cpu / count * 1e6:.1f} us of CPU per entry")
        with closing(sqlite3.connect(path)) as connection:
            held = connection.execute("SELECT count(*) FROM entry").fetchone()[0]
        print(f"{held:,} entries, {path.stat().st_size / 1e6:,.0f} MB", flush=True)
        print(ask(path, options.end, bare=options.bare), flush=True)
        if options.bare:
            return
        print(what_sums_cost(min(count, 40_000), Path(made)))


if __name__ == "__main__":
    main()
