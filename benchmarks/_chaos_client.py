"""A process of benchmarks/chaos.py that makes calls until it is told to stop, or dies. It notes each finished call in a
file of its own before it goes on: that note is what the ledger is held against."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import resource
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

import tallystick
from tallystick import defaults
from tallystick.capture.process import Rates, beside_ledger
from tallystick.ledger.ids import new_call_id
from tallystick.ledger.intents import SUFFIX, Intents
from tallystick.ledger.ledger import Ledger
from tallystick.ledger.opening import in_database
from tallystick.metering.admission import BudgetAdmission
from tallystick.metering.meter import Meter
from tallystick.metering.spool import Spool, spool_folders

MODEL = "gpt-4-turbo"
STOP = "stop"
TEXT = "How many oak boards are two times six?"


@dataclass(frozen=True)
class Order:
    """What a process is to do. `folder` takes the notes; `trouble` is what befalls its ledger: `full`, `readonly`,
    `clock`, or nothing. `steps` are seconds that its clock jumps by."""

    place: str
    url: str
    folder: str
    number: int
    seed: int
    threads: int = 4
    trouble: str = ""
    steps: tuple[float, ...] = ()
    budget: str = "chaos"


class Clock:
    """Seconds since 1970, with jumps."""

    def __init__(self, steps: tuple[float, ...], random_: random.Random) -> None:
        self._steps = steps
        self._random = random_
        self.offset = 0.0

    def __call__(self) -> float:
        """The time it claims to be."""
        if self._steps and self._random.random() < 0.01:
            self.offset = self._random.choice(self._steps)
        return time.time() + self.offset


class Notes:
    """The finished calls of this process, one line each, one write each: what a killed process wrote stays."""

    def __init__(self, place: Path) -> None:
        self._handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, *words: str) -> None:
        """Writes a line."""
        os.write(self._handle, (" ".join(words) + "\n").encode())


def open_at(place: str, clock: Clock) -> Ledger:
    """The ledger, with this process's clock."""
    if in_database(place):
        from tallystick.ledger.postgres import PostgresLedger

        return PostgresLedger(place, clock=clock)  # type: ignore[return-value]
    from tallystick.ledger.sqlite import SqliteLedger

    return SqliteLedger(place, clock=clock)


def meter_at(ledger: Ledger, order: Order, clock: Clock) -> Meter:
    """The whole live path, as a process of a user has it."""
    beside = Path(order.folder) / "database" if in_database(order.place) else beside_ledger(Path(order.place))
    assert beside is not None
    rates = Rates(defaults.catalog, time.monotonic)
    return Meter(
        ledger,
        rates,
        admission=BudgetAdmission(ledger, rates, clock=clock, wait=0.5),
        intents=Intents(beside.with_name(beside.name + SUFFIX), new_call_id),
        spool=Spool(spool_folders(beside, Path(order.folder) / "data")),
        clock=clock,
    )


def befall(order: Order) -> None:
    """The trouble, once the ledger is open."""
    if order.trouble == "full":
        ledger = Path(order.place)
        largest = max(place.stat().st_size for place in ledger.parent.glob(ledger.name + "*") if place.is_file())
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 100_000, resource.RLIM_INFINITY))


def forgo() -> None:
    """Gives up all that root may do beyond others, so that a file of mode 0400 cannot be written."""
    system = ctypes.CDLL(None, use_errno=True)
    head, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if system.capset(head, none):
        raise OSError(ctypes.get_errno(), "capset")


class Caller:
    """One thread's calls."""

    def __init__(self, client: Any, order: Order, notes: Notes, number: int) -> None:
        self._client = client
        self._order = order
        self._notes = notes
        self._random = random.Random(f"{order.seed}/{order.number}/{number}")
        self._name = f"{order.number}-{number}"

    def run(self, stop: threading.Event) -> None:
        """Calls until it is told to stop."""
        turn = 0
        while not stop.is_set():
            turn += 1
            with contextlib.suppress(openai.APIError, OSError):
                self._one(turn)

    def _one(self, turn: int) -> None:
        choice = self._random.randrange(6)
        request: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": f"{TEXT} {turn}"}]}
        if choice % 2:
            request["max_tokens"] = 60
        if self._random.random() < 0.7:
            with tallystick.call(team=self._order.budget):
                self._send(request, choice)
        else:
            self._send(request, choice)

    def _send(self, request: dict[str, Any], choice: int) -> None:
        create = self._client.chat.completions.create
        if choice < 3:
            self._notes.add("done", create(**request).id)
            return
        left = choice == 5 and self._random.random() < 0.3
        with create(**request, stream=True) as stream:
            number, known = 0, ""
            for chunk in stream:
                known, number = chunk.id, number + 1
                if left and number > 3:
                    return
        self._notes.add("done", known)


def main(order: Order) -> None:
    """Makes calls until there is a file `stop` in the folder."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    clock = Clock(order.steps if order.trouble == "clock" else (), random.Random(order.seed))
    notes = Notes(Path(order.folder) / f"{order.number}-{os.getpid()}.notes")
    if order.trouble == "readonly":
        forgo()
    with contextlib.ExitStack() as stack:
        ledger = stack.enter_context(open_at(order.place, clock))  # type: ignore[arg-type]
        meter = meter_at(ledger, order, clock)
        stack.callback(meter.close)
        client = stack.enter_context(openai.OpenAI(api_key="none", base_url=order.url, max_retries=0, timeout=30))
        tallystick.track(client, meter=meter, provider="openai")
        befall(order)
        halt = threading.Event()
        callers = [Caller(client, order, notes, number) for number in range(order.threads)]
        threads = [threading.Thread(target=caller.run, args=(halt,), daemon=True) for caller in callers]
        for thread in threads:
            thread.start()
        # A file, because a process that is killed while it waits for an event leaves its lock behind.
        folder = Path(order.folder)
        while folder.exists() and not (folder / STOP).exists():
            time.sleep(0.02)
        halt.set()
        for thread in threads:
            thread.join(20)
        notes.add("faults", str(sum(meter.faults.counts.values())), "missed", str(meter.missed))
