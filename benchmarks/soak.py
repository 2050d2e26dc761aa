"""Does the gateway leak? Minutes of load with clients that leave and providers that fail: memory, descriptors, entries.

    python benchmarks/soak.py [--minutes 10] [--rate 200] [--workers 1] [--store sqlite|postgres]

Of a hundred calls 10 are left by their client (6 within a stream, 4 before the answer has begun) and 5 meet a fault of
the provider (an error 500, a reset connection, a slow answer, half an answer). The provider is our simulator, in a
process of its own, and counts by kind what it has served: the ledger must have exactly these calls. Exits with 1 where
it has not, or memory or descriptors grow.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from _chaos_desk import store
from _gateway_stand import Up, descriptors, home, rss
from _timing import machine, table
from tallystick.core.attribution import Tags
from tallystick.ledger.budget import Budget
from tallystick.ledger.ledger import Ledger
from tallystick.ledger.opening import open_ledger
from tallystick.metering.budgets import put

HERE = Path(__file__).parent
LIMIT = 10**18
MEGA = 2**20
LOOKS = 20
GROWS = 0.05
"""Memory may grow by this share in the second half of a run, or by `SLACK` bytes where that is more."""

SLACK = 6 * MEGA
SPARE = 32
"""So many descriptors more than before the first call are no leak: each thread that reads has a connection of its own."""

JUDGED = 120.0
"""A run of so many seconds has loaded in its first half what is loaded on first use, such as tokenizers."""

REST = 70.0
WANTED = {
    "whole": {("ok", "exact")}, "stream": {("ok", "exact")}, "slow": {("ok", "exact")},
    "left": {("cancelled", "exact"), ("ok", "exact")}, "gone": {("cancelled", "exact"), ("ok", "exact")},
    "error": {("error", "exact")}, "reset": {("error", "unknown")},
    "half": {("error", "lower_bound"), ("error", "unknown")},
}  # fmt: skip
"""How the calls of each kind must stand in the ledger. A client may leave just after the last byte was written."""

EXACT = ("whole", "stream", "slow", "left", "gone")
"""Kinds whose usage must be the provider's to the token."""


@dataclass(frozen=True)
class Look:
    """What was seen at a moment: seconds since the start, memory in bytes and descriptors of all workers."""

    at: float
    rss: int
    descriptors: int


@dataclass
class Soaked:
    """What a run has shown: `wrong` in words, empty when all is well."""

    looks: list[Look] = field(default_factory=list)
    calls: int = 0
    took: float = 0.0
    before: Look = Look(0, 0, 0)
    after: Look = Look(0, 0, 0)
    rows: list[list[str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@contextlib.contextmanager
def process(script: str, folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """One of the other processes of the benchmark."""
    with subprocess.Popen(
        [sys.executable, str(HERE / script), *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=home(folder),
    ) as started:  # fmt: skip
        try:
            yield started
        finally:
            if started.poll() is None:
                started.kill()


def look(gateway: Up, begun: float) -> Look:
    """Looks at the workers."""
    pids = gateway.serving()
    return Look(time.monotonic() - begun, sum(map(rss, pids)), sum(map(descriptors, pids)))


def soak(folder: Path, place: str, *, seconds: float, rate: float, workers: int) -> Soaked:
    """One run on an empty ledger."""
    found = Soaked()
    with open_ledger(place) as ledger:
        put(ledger, Budget(budget_id="ample", limit=LIMIT, scope=Tags(team="soak")), datetime.now(UTC))
    with process("_soak_provider.py", folder) as provider:
        assert provider.stdin is not None
        assert provider.stdout is not None
        urls = json.loads(provider.stdout.readline())
        with Up(folder, place, urls, workers=workers) as gateway:
            begun = time.monotonic()
            found.before = look(gateway, begun)
            options = ("--url", gateway.url, "--rate", str(rate), "--seconds", str(seconds))
            with process("_soak_load.py", folder, *options) as load:
                while load.poll() is None:
                    time.sleep(seconds / LOOKS / 4)
                    found.looks.append(look(gateway, begun))
                assert load.stdout is not None
                told = json.loads(load.stdout.read())
            found.took = told["took"]
            at_rest(place, sum(told["counts"].values()))
            provider.stdin.close()
            truth: dict[str, list[int]] = json.loads(provider.stdout.read())
            provider.wait(30)
            # Its end has ended the gateway's idle connections to it.
            time.sleep(1.0)
            found.after = look(gateway, begun)
            code = gateway.stop()
            trouble = gateway.errors()
    found.wrong += [f"tally up ended with {code}"] if code else []
    found.wrong += [f"it said: {trouble[-300:]}"] if trouble else []
    with open_ledger(place) as ledger:
        found.rows, wrong = compared(ledger, truth, told["counts"])
        found.wrong += wrong
        found.wrong += ledger.verify()
        found.wrong += [f"an open hold of nobody: {hold.hold_id}" for hold in ledger.holds("open")]
    found.calls = sum(sums[0] for sums in truth.values())
    found.wrong += leaks(found, judged=seconds >= JUDGED)
    return found


def at_rest(place: str, calls: int) -> None:
    """Returns when answers whose clients have gone are read to their end."""
    until = time.monotonic() + REST
    with open_ledger(place) as ledger:
        before = -1
        while time.monotonic() < until:
            now = ledger.total()[0].calls
            if now >= calls or (now == before and not ledger.holds("open")):
                return
            before = now
            time.sleep(2.0)


def compared(ledger: Ledger, truth: dict[str, list[int]], client: dict[str, int]) -> tuple[list[list[str]], list[str]]:
    """The ledger beside what the provider has served, by kind, as rows; and what differs."""
    entries: Counter[str] = Counter()
    states: dict[str, Counter[tuple[str, str]]] = {}
    sums: dict[str, list[int]] = {}
    for entry in ledger.read():
        kind = entry.tags.get("kind") or "?"
        entries[kind] += 1
        states.setdefault(kind, Counter())[entry.status, entry.quality] += 1
        if entry.usage is not None:
            tokens = sums.setdefault(kind, [0, 0])
            tokens[0] += entry.usage.input_tokens
            tokens[1] += entry.usage.output_tokens
    rows, wrong = [], []
    for kind in sorted(truth.keys() | entries.keys()):
        calls, read, written = truth.get(kind, [0, 0, 0])
        said = {f"{status} {quality}": count for (status, quality), count in states.get(kind, Counter()).items()}
        outcomes = {name.partition(" ")[2]: count for name, count in client.items() if name.partition(" ")[0] == kind}
        rows.append([kind, str(calls), str(entries[kind]), _words(said), _words(outcomes)])
        if entries[kind] != calls:
            wrong.append(f"{kind}: {calls} calls were served, {entries[kind]} are in the ledger")
        odd = states.get(kind, Counter()).keys() - WANTED.get(kind, set())
        wrong += [f"{kind}: {states[kind][one]} calls are entered as {one[0]}, {one[1]}" for one in sorted(odd)]
        if kind in EXACT and sums.get(kind, [0, 0]) != [read, written]:
            wrong.append(f"{kind}: {read} and {written} tokens were served, the ledger says {sums.get(kind)}")
    return rows, wrong


def _words(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def leaks(found: Soaked, *, judged: bool) -> list[str]:
    """Whether memory or descriptors have grown: memory from the middle of the run to its end (where the run was long
    enough to be `judged`), descriptors from before the first call to after the last one."""
    wrong = []
    half, end = middle(found.looks), statistics.median([one.rss for one in found.looks[-len(found.looks) // 5 :]])
    if judged and end - half > max(SLACK, GROWS * half):
        wrong.append(f"memory grows: {half / MEGA:.1f} MB in the middle, {end / MEGA:.1f} MB at the end")
    more = found.after.descriptors - found.before.descriptors
    if more > SPARE:
        wrong.append(f"{more} descriptors more than before the first call")
    return wrong


def middle(looks: Sequence[Look]) -> float:
    """The memory in the middle of a run, in bytes."""
    fifth = max(1, len(looks) // 5)
    return statistics.median([one.rss for one in looks[2 * fifth : 3 * fifth + 1]])


def shown(found: Soaked) -> list[list[str]]:
    """Memory and descriptors over time, as rows."""
    step = max(1, len(found.looks) // LOOKS)
    chosen = [found.before, *found.looks[step - 1 :: step], found.after]
    return [[f"{one.at:.0f}", f"{one.rss / MEGA:.1f}", str(one.descriptors)] for one in chosen]


def main() -> int:
    """Prints what was seen; 1 where something leaks or is missing."""
    options = argparse.ArgumentParser()
    options.add_argument("--minutes", type=float, default=10)
    options.add_argument("--rate", type=float, default=200)
    options.add_argument("--workers", type=int, default=1)
    options.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, store(given.store, Path(name)) as (place, _):
        folder = Path(name) / "home"
        folder.mkdir()
        seconds = given.minutes * 60
        found = soak(folder, place, seconds=seconds, rate=given.rate, workers=given.workers)
    print(f"{given.store}, {given.workers} workers; {machine()}")
    print(table(("seconds", "MB resident", "descriptors"), shown(found)))
    print(
        f"{found.calls} calls in {found.took:.0f} s: {found.calls / found.took:.0f} a second of {given.rate:.0f} wanted"
    )
    print(table(("kind", "calls", "entries", "entered as", "the client saw"), found.rows))
    print("\n".join(found.wrong or ["Nothing leaks, and the ledger has every call once."]))
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
