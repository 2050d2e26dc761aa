"""What a hard budget adds to the CPU of a call: the same calls with one and without, 64 callers at once.

    python benchmarks/hard_budget.py [--callers 64] [--calls 8] [--rounds 15] [--through sdk,tasks,meter] [--profile]

Both ledgers are files and both clients are tracked; only one ledger has a budget, a hard one with ample room. CPU is that
of the whole process with all threads, the writers and the wait for their last sync included. They take turns, and each
round is compared with itself. "waiting" has no budget either, but its calls wait before they are sent for as long as
those with one do: what a client's connections cost more when its calls come in bursts is there, too. `sdk` are threads that call through the openai client, `tasks` are tasks of one event
loop that do, `meter` is the meter alone in threads, without a client and a network, and `loop` the same in tasks.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import itertools
import pstats
import queue
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
from tallystick import defaults
from tallystick.capture.process import make_meter
from tallystick.ledger.budget import Budget
from tallystick.ledger.hold import Ask, Granted, Refused, Stale
from tallystick.ledger.ids import new_call_id
from tallystick.ledger.intents import Intents
from tallystick.ledger.ledger import Receipt
from tallystick.ledger.promise import Promise
from tallystick.ledger.sqlite import SqliteLedger
from tallystick.metering.bench import PlainLeave
from tallystick.metering.handover import awaitable
from tallystick.metering.leave import Admitted, Denied
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


class Timed(SqliteLedger):
    """A ledger that notes how long asks wait, in seconds."""

    waits: list[float] | None = None

    def authorise(self, ask: Ask, *, wait: float = 0.0, ample: bool = False) -> Future[Granted | Refused | Stale]:
        """See `Ledger.authorise`."""
        future = super().authorise(ask, wait=wait, ample=ample)
        if self.waits is not None:
            begun, waits = time.perf_counter(), self.waits
            future.add_done_callback(lambda _: waits.append(time.perf_counter() - begun))
        return future


class Waiting(PlainLeave):
    """Leave that limits nothing and takes a while: all that ask within `pause` seconds wait for it together."""

    def __init__(self, ledger: SqliteLedger, pause: float) -> None:
        super().__init__(ledger)
        self.pause = pause
        self.asked: queue.SimpleQueue[Future[Admitted | Denied]] = queue.SimpleQueue()
        threading.Thread(target=self._let_go, daemon=True).start()

    def ask(self) -> Future[Admitted | Denied]:
        """Admitted, a little later."""
        future: Future[Admitted | Denied] = Promise()
        self.asked.put(future)
        return future

    def _let_go(self) -> None:
        while True:
            waiting = [self.asked.get()]
            time.sleep(self.pause)
            while not self.asked.empty():
                waiting.append(self.asked.get())
            for one in waiting:
                one.set_result(Admitted())


def waiting_meter(ledger: SqliteLedger, place: Path, pause: float) -> Meter:
    """A meter whose calls wait as long as if there were a budget."""
    intents = Intents(place.with_name(f"{place.name}.flight"), new_call_id)
    meter = Meter(ledger, defaults.catalog, intents=intents)
    meter._bench.plain_leave = Waiting(ledger, pause)
    return meter


def measure(name: str, url: str, folder: Path, given: argparse.Namespace) -> list[str]:
    """One row: the medians of all three, of the difference a budget makes, and whether that is within the target."""
    make = {"sdk": by_sdk, "tasks": by_tasks, "meter": by_meter, "loop": by_loop}[name]
    places = [folder / f"{kind}.db" for kind in ("without", "waiting", "with")]
    with SqliteLedger(places[0]) as free, SqliteLedger(places[1]) as waiting, Timed(places[2]) as limited:
        limited.put_budget(Budget(budget_id="hot", limit=10**24))
        plain, budgeted = (
            make(make_meter(one, place), url) for one, place in zip((free, limited), places[::2], strict=True)
        )
        for work, ledger in ((plain, free), (budgeted, limited)):
            work(1, 30)
            used(work, ledger, given)
        limited.waits = []
        used(budgeted, limited, given)
        pause, limited.waits = statistics.median(limited.waits), None
        waiter = make(waiting_meter(waiting, places[1], pause), url)
        used(waiter, waiting, given)
        kinds = ((plain, free), (waiter, waiting), (budgeted, limited))
        if given.profile:
            for work, _ in kinds:
                _profile(work, given)
        found: list[list[float]] = [[], [], []]
        for number in range(given.rounds):
            for which in (0, 1, 2) if number % 2 else (2, 1, 0):
                found[which].append(used(*kinds[which], given))
        assert len(limited.holds("open")) == 0
        more = [one - bare for bare, _, one in zip(*found, strict=True)]
        added = statistics.median(more)
        spread = statistics.quantiles(more, n=4)
        beyond = statistics.median(one - other for _, other, one in zip(*found, strict=True))
        return [
            name, *(f"{statistics.median(one):.0f}" for one in found), f"{added:+.0f}",
            f"{spread[0]:+.0f} to {spread[2]:+.0f}", f"{beyond:+.0f}", f"{pause * 1e3:.1f}",
            "met" if added <= TARGET_US else "not met",
        ]  # fmt: skip


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
    head = ["through", "without, CPU us", "waiting", "with", "added", "middle half", "to waiting", "wait ms",
            f"target <= {TARGET_US}"]  # fmt: skip
    print(table(head, rows))


if __name__ == "__main__":
    main()
