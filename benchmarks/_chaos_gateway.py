"""Rounds of benchmarks/chaos.py through `tally up --workers 4`, whose workers are killed (-9) at random moments.

Clients of three processes call with openai's client and note each call whose answer they have got whole. Each killed
worker is started anew by the one that watches over them; the database, if there is one, may be restarted, or crash. At
the end the gateway is told to stop (SIGTERM) while calls are in flight: those must end as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import httpx
import openai

from _chaos_client import MODEL, STOP, TEXT, Notes
from _chaos_desk import TEAM, Found, Truth, Watch, at_work, buried, check, end, put_budgets
from _gateway_stand import Up, later
from tallystick.ledger.opening import open_ledger

TROUBLES = {"sqlite": ("kill", "many"), "postgres": ("kill", "restart", "crash", "many")}
WORKERS = 4
CLIENTS = 3
THREADS = 4
PAUSE = 0.05
"""Seconds that a caller waits after a fault, as nobody tries again without one."""

BEFORE = 0.3
"""Calls that were begun so many seconds before the gateway is told to stop must come to their end."""


@dataclass(frozen=True)
class Plot:
    """What a round plays: the ledger's place and folder, the trouble (`many`: two workers die at a time), and what
    restarts its database at a random moment (None: nothing does)."""

    place: str
    folder: Path
    trouble: str
    seed: int
    seconds: float
    again: Callable[[], object] | None = None
    workers: int = WORKERS


@dataclass(frozen=True)
class Task:
    """What a process of clients is to do."""

    url: str
    folder: str
    number: int
    seed: int


class Caller:
    """One thread's calls through the gateway, on connections of its own."""

    def __init__(self, task: Task, notes: Notes, number: int) -> None:
        self._notes = notes
        self._random = random.Random(f"{task.seed}/{task.number}/{number}")
        self._call = ""
        hooks: dict[str, list[Callable[..., Any]]] = {"response": [self._heard]}
        http = httpx.Client(event_hooks=hooks, timeout=30, trust_env=False)
        self._client = openai.OpenAI(api_key="none", base_url=task.url, max_retries=0, http_client=http)

    def _heard(self, response: httpx.Response) -> None:
        self._call = response.headers.get("x-tally-call", "")

    def run(self, stop: threading.Event) -> None:
        """Calls until it is told to stop."""
        turn = 0
        with self._client:
            while not stop.is_set():
                turn += 1
                self._call, begun = "", time.time()
                try:
                    self._one(turn, begun)
                except openai.APIStatusError as error:
                    self._notes.add("status", str(error.status_code))
                except (openai.APIError, httpx.HTTPError, OSError):
                    # A connection that broke: before the head of an answer, or within it.
                    self._notes.add("broken", f"{begun:.3f}", f"{time.time():.3f}", self._call or "-")
                    stop.wait(PAUSE)

    def _one(self, turn: int, begun: float) -> None:
        choice = self._random.randrange(6)
        request: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": f"{TEXT} {turn}"}]}
        if choice % 2:
            request["max_tokens"] = 60
        if self._random.random() < 0.7:
            request["extra_headers"] = {"x-tally-team": TEAM}
        create = self._client.chat.completions.create
        if choice < 3:
            known = create(**request).id
            self._done(known, begun)
            return
        left = choice == 5 and self._random.random() < 0.3
        with create(**request, stream=True) as stream:
            number, known = 0, ""
            for chunk in stream:
                known, number = chunk.id, number + 1
                if left and number > 3:
                    return
        self._done(known, begun)

    def _done(self, known: str, begun: float) -> None:
        self._notes.add("done", known, self._call or "-", f"{begun:.3f}", f"{time.time():.3f}")


def main(task: Task) -> None:
    """Makes calls until there is a file `stop` in the folder."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    folder = Path(task.folder)
    notes = Notes(folder / f"{task.number}-{os.getpid()}.notes")
    halt = threading.Event()
    threads = [
        threading.Thread(target=Caller(task, notes, number).run, args=(halt,), daemon=True) for number in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    while folder.exists() and not (folder / STOP).exists():
        time.sleep(0.02)
    halt.set()
    for thread in threads:
        thread.join(40)
    notes.add("ended")


def start(tasks: Sequence[Task]) -> list[ForkServerProcess]:
    """Starts a process for each task, from one that has loaded everything."""
    context = multiprocessing.get_context("forkserver")
    started = [context.Process(target=main, args=(task,), daemon=True) for task in tasks]
    for process in started:
        process.start()
    return started


def disturb(gateway: Up, chance: random.Random, seconds: float, at_once: int, log: Notes) -> int:
    """Kills workers at random moments for so many seconds, and notes when; how many."""
    killed, until = 0, time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, chance.uniform(0.2, 1.0)))
        for _ in range(at_once):
            pid = gateway.kill_one(chance.choice)
            log.add("killed", str(pid), f"{time.time():.3f}")
            killed += pid is not None
    return killed


def noted(log: Notes, again: Callable[[], object]) -> None:
    """Restarts the database, and notes from when to when."""
    begun = time.time()
    again()
    log.add("away", f"{begun:.3f}", f"{time.time():.3f}")


def whole_again(gateway: Up) -> list[str]:
    """Waits until all workers are back and serve; what is wrong when they do not come."""
    until = time.monotonic() + 40
    while not gateway.whole() and time.monotonic() < until:
        time.sleep(0.05)
    return [] if gateway.whole() else [f"{len(gateway.serving())} of {gateway.workers} workers are back"]


def play(plot: Plot, gateway: Up, found: Found) -> float:
    """Load and trouble, then the end of the gateway under load; the instant at which it was told to end."""
    chance = random.Random(plot.seed)
    tasks = [Task(gateway.openai, str(plot.folder), number, plot.seed) for number in range(CLIENTS)]
    started, log = start(tasks), Notes(plot.folder / "trouble.log")
    try:
        at_work(plot.folder, len(started))
        moment = chance.uniform(0.1, plot.seconds / 2)
        with contextlib.ExitStack() as stack:
            if plot.again is not None:
                stack.enter_context(later(moment, partial(noted, log, plot.again)))
            found.killed = disturb(gateway, chance, plot.seconds, 2 if plot.trouble == "many" else 1, log)
        found.wrong += whole_again(gateway)
        time.sleep(1.0 + BEFORE)
        told = time.time()
        log.add("told", f"{told:.3f}")
        code = gateway.stop()
        if code:
            found.wrong.append(f"tally up ended with {code}: {gateway.errors()[-300:]}")
        (plot.folder / STOP).touch()
        for process in started:
            process.join(60)
        found.wrong += [f"a client ended with {process.exitcode}" for process in started if process.exitcode]
    finally:
        for process in started:
            end(process, signal.SIGKILL)
            process.join()
    return told


def notes_of(folder: Path) -> tuple[dict[str, str], list[tuple[float, float, str]], list[int]]:
    """The finished calls (the provider's id and ours), those that broke off (begun, ended, our id), and the statuses of
    errors."""
    done: dict[str, str] = {}
    broken, statuses = [], []
    for place in folder.glob("*.notes"):
        for line in place.read_text().splitlines():
            words = line.split()
            if words[0] == "done":
                done[words[1]] = words[2]
            elif words[0] == "broken":
                broken.append((float(words[1]), float(words[2]), words[3]))
            elif words[0] == "status":
                statuses.append(int(words[1]))
    return done, broken, statuses


def run_round(plot: Plot, upstreams: dict[str, str], truth: Truth) -> Found:
    """One round: load, trouble, the end, repair and check."""
    with open_ledger(plot.place) as ledger:
        put_budgets(ledger, "$1.00")
    before = Found()
    home = plot.folder / "home"
    home.mkdir()
    with Up(home, plot.place, upstreams, workers=plot.workers) as gateway:
        with Watch(plot.place) as watch:
            told = play(plot, gateway, before)
        repairs = [gateway.verb("ledger", "repair", "--json") for _ in range(2)]
    done, broken, statuses = notes_of(plot.folder)
    with open_ledger(plot.place) as ledger:
        buried(ledger)
        found = check(ledger, done, truth)
    found.add(before)
    found.polls, found.broken = watch.polls, sum(begun < told for begun, _, _ in broken)
    found.wrong += watch.wrong
    found.wrong += [f"a repair ended with {code}: {trouble}" for code, _, trouble in repairs if code]
    mended = [said for code, said, _ in repairs if not code]
    found.wrong += _repaired(found, mended)
    late = [one for one in broken if one[0] < told - BEFORE and one[1] > told]
    found.wrong += [
        f"the call {ours} of {begun:.1f} broke off when the gateway was told to end" for begun, _, ours in late
    ]
    odd = [status for status in statuses if status not in {429, 502, 503, 504}]
    found.wrong += [f"a call was answered with {status}" for status in odd]
    return found


def _repaired(found: Found, said: Sequence[str]) -> list[str]:
    """Takes in what the two repairs have done; what is wrong with it."""
    import json

    told = [json.loads(one) for one in said]
    if len(told) < 2:
        return []
    found.repaired, found.spooled = told[0]["cut"], told[0]["spooled"]
    wrong = [] if not (told[1]["cut"] or told[1]["spooled"]) else [f"a second repair found {told[1]}"]
    return wrong + ([f"{told[0]['unread']} lines of the spool cannot be read"] if told[0]["unread"] else [])
