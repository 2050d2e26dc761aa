"""What a hard budget adds to the CPU of a call: the same calls with one and without, 64 callers at once.

    python benchmarks/hard_budget.py [--callers 64] [--calls 8] [--rounds 15] [--through sdk,tasks,meter] [--profile]

Both ledgers are files and both clients are tracked; only one ledger has a budget, a hard one with ample room. CPU is that
of the whole process with all threads, the writers and the wait for their last sync included. The two take turns, and
each round is compared with itself. `sdk` are threads that call through the openai client, `tasks` are tasks of one event
loop that do, `meter` is the meter alone in threads, without a client and a network, and `loop` the same in tasks.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import itertools
import pstats
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import tallystick
from _timing import machine, table
from tallystick.capture.process import make_meter
from tallystick.ledger.budget import Budget
from tallystick.ledger.ledger import Receipt
from tallystick.ledger.sqlite import SqliteLedger
from tallystick.metering.handover import awaitable
from tallystick.metering.leave import Denied
from tallystick.metering.meter import CallMeter, Meter

TARGET_US = 150
MODEL = "gpt-4o"
HELLO = [{"role": "user", "content": "Hello, how are you today?"}]
URL = "https://api.openai.com/v1/chat/completions"
BODY = (
    b'{"model":"gpt-4o","max_tokens":100,"messages":[{"role":"user","content":"Hello, how are you today? Tell me about'
    b' your day, and what there is to eat."}]}'
)
ANSWER = (
    b'{"id":"chatcmpl-%s","object":"chat.completion","created":1700000000,"model":"gpt-4o","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"Fine, thank you. And you?"},"finish_reason":"stop"}],"usage":'
    b'{"prompt_tokens":24,"completion_tokens":8,"total_tokens":32}}'
)
SENT = {"content-type": "application/json", "host": "api.openai.com"}
SERVER = """
import sys
from tallystick.simulator import Answer, Simulator
with Simulator(Answer(output_tokens=40), typed=False, keep=0) as sim:
    print(sim.openai_url, flush=True)
    sys.stdin.read()
"""

Work = Callable[[int, int], None]
"""Makes calls: so many callers, so many calls each."""


def threads(call: Callable[[], None]) -> Work:
    """Calls by threads."""

    def repeat(calls: int) -> None:
        for _ in range(calls):
            call()

    def work(callers: int, calls: int) -> None:
        crowd = [threading.Thread(target=repeat, args=(calls,)) for _ in range(callers)]
        for one in crowd:
            one.start()
        for one in crowd:
            one.join()

    return work


NUMBERS = itertools.count()


def begun(meter: Meter) -> CallMeter:
    """A call that is about to be sent."""
    metered = meter.call("POST", URL, SENT, BODY)
    assert metered is not None
    return metered


def ended(metered: CallMeter) -> Future[Receipt]:
    """A call that was admitted, answered in full."""
    metered.outgoing()
    answer = ANSWER % str(next(NUMBERS)).encode()
    metered.answered(200, {"content-type": "application/json", "content-length": str(len(answer))})
    metered.feed(answer)
    metered.close()
    assert metered.settled is not None
    return metered.settled


def by_meter(meter: Meter, _url: str) -> Work:
    """The meter alone, by threads."""

    def call() -> None:
        metered = begun(meter)
        assert not isinstance(metered.ask().result(), Denied)
        ended(metered).result()

    return threads(call)


def by_loop(meter: Meter, _url: str) -> Work:
    """The meter alone, by tasks of one event loop, as in a gateway: nobody waits for an entry."""
    loop = asyncio.new_event_loop()
    meter.gather(loop.call_later)

    async def caller(calls: int) -> None:
        for _ in range(calls):
            metered = begun(meter)
            asked = metered.ask()
            assert not isinstance(asked.result() if asked.done() else await awaitable(asked), Denied)
            # The provider's answer takes its time.
            await asyncio.sleep(0)
            settled = ended(metered)
            if not settled.done():
                await awaitable(settled)

    async def crowd(callers: int, calls: int) -> None:
        await asyncio.gather(*[caller(calls) for _ in range(callers)])

    return lambda callers, calls: loop.run_until_complete(crowd(callers, calls))


def by_sdk(meter: Meter, url: str) -> Work:
    """Threads with the openai client."""
    import openai

    client: Any = tallystick.track(openai.OpenAI(base_url=url, api_key="none"), meter=meter, provider="openai")
    return threads(lambda: client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=100))


def by_tasks(meter: Meter, url: str) -> Work:
    """Tasks with the openai client, on one event loop."""
    import openai

    loop = asyncio.new_event_loop()
    client: Any = tallystick.track(openai.AsyncOpenAI(base_url=url, api_key="none"), meter=meter, provider="openai")

    async def caller(calls: int) -> None:
        for _ in range(calls):
            await client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=100)

    async def crowd(callers: int, calls: int) -> None:
        await asyncio.gather(*[caller(calls) for _ in range(callers)])

    return lambda callers, calls: loop.run_until_complete(crowd(callers, calls))


@contextmanager
def server() -> Iterator[str]:
    """A provider in a process of its own."""
    command = [sys.executable, "-c", SERVER]
    path = {"PYTHONPATH": str(Path(__file__).parents[1] / "src"), "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=path) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        assert process.stdin is not None
        process.stdin.close()


def used(work: Work, ledger: SqliteLedger, given: argparse.Namespace) -> float:
    """CPU microseconds per call."""
    gc.collect()
    callers, calls = int(given.callers), int(given.calls)
    begun = time.process_time()
    work(callers, calls)
    ledger.flush()
    return (time.process_time() - begun) * 1e6 / (callers * calls)


def _alone(work: Work, calls: int, profile: cProfile.Profile) -> None:
    profile.disable()
    before = threading.Thread.run

    def run(self: threading.Thread) -> None:
        profile.enable()
        try:
            before(self)
        finally:
            profile.disable()

    threading.Thread.run = run  # type: ignore[method-assign]
    try:
        work(1, calls)
    finally:
        threading.Thread.run = before  # type: ignore[method-assign]


def measure(name: str, url: str, folder: Path, given: argparse.Namespace) -> list[str]:
    """One row: the medians of both, of their difference, and whether that is within the target."""
    makers = {"sdk": by_sdk, "tasks": by_tasks, "meter": by_meter, "loop": by_loop}
    with SqliteLedger(folder / "without.db") as free, SqliteLedger(folder / "with.db") as limited:
        limited.put_budget(Budget(budget_id="hot", limit=10**24))
        pairs = []
        for place, ledger in (("without.db", free), ("with.db", limited)):
            meter = make_meter(ledger, folder / place)
            pairs.append((makers[name](meter, url), ledger))
        for work, ledger in pairs:
            work(1, 30)
            used(work, ledger, given)
        if given.profile:
            for work, _ in pairs:
                _profile(work, given)
        found: list[list[float]] = [[], []]
        for number in range(given.rounds):
            for which in (0, 1) if number % 2 else (1, 0):
                found[which].append(used(*pairs[which], given))
        assert len(limited.holds("open")) == 0
        more = [budgeted - bare for bare, budgeted in zip(*found, strict=True)]
        added = statistics.median(more)
        spread = statistics.quantiles(more, n=4)
        told = f"{spread[0]:+.0f} to {spread[2]:+.0f}"
        verdict = "met" if added <= TARGET_US else "not met"
        return [name, *(f"{statistics.median(one):.0f}" for one in found), f"{added:+.0f}", told, verdict]


def _profile(work: Work, given: argparse.Namespace) -> None:
    profile = cProfile.Profile()
    _alone(work, given.calls * 40, profile)
    pstats.Stats(profile).sort_stats("tottime").print_stats(40)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--calls", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--through", default="sdk,tasks,meter,loop")
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    rows = []
    with server() as url:
        for name in given.through.split(","):
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measure(name, url, Path(folder), given))
    print(f"{machine()}; {given.callers} callers, {given.rounds} rounds of {given.callers * given.calls} calls each")
    head = ["through", "without, CPU us", "with", "added", "middle half", f"target <= {TARGET_US}"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
