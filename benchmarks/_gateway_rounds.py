"""The rounds of `gateway.py`: every load on every gateway in turn, and what each of them says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from _gateway_field import KINDS, LITELLM, LOAD_CORE, Kind, Place, Running, certificates, mock
from _gateway_load import Faulty, Took, busy, drive, family, load, memory, request, resident, used
from _gateway_mock import MODEL

DIRECT: Final = "direct"
REQUEST, PACED, BURST = "CPU us per request", "CPU us per chunk, 5 ms apart", "CPU us per chunk, saturated"
P50, P99 = "added p50, ms", "added p99, ms"
RSS, READY, SHARE = "resident MB", "seconds from the start", "% of its core used"
STREAMS: Final = 64
STARTS: Final = 3
WIRES: Final = ("plain", "TLS")
REST: Final = 0.5
RETIRE: Final = 3
"""So many loads that a gateway fails, and it is asked no more."""

type_of = {"paced": PACED, "burst": BURST}


@dataclass(frozen=True)
class Scale:
    """How much is asked: rounds; requests in turn on one connection, and on each of 32; chunks of a stream; streams in
    turn on one connection when saturated."""

    rounds: int = 9
    alone: int = 600
    crowd: int = 100
    chunks: int = 200
    bursts: int = 10
    memory_rounds: int = 3
    minutes: float = 24.0
    """No round after the first begins that would not end within them."""


SHORT: Final = Scale(rounds=2, alone=250, crowd=40, chunks=100, bursts=5, memory_rounds=1)


@dataclass(frozen=True)
class Cell:
    """One load: over which wire, what is wanted, the bytes of the prompt, connections, requests on each."""

    wire: str
    want: str
    size: int
    connections: int
    each: int

    @property
    def row(self) -> str:
        """Its name in a table."""
        shown = f"{self.wire}, {self.connections} connection{'s' if self.connections > 1 else ''}"
        return f"{shown}, {self.size // 1000} kB" if self.want == "whole" else shown

    @property
    def units(self) -> int:
        """How many things its processor time is shared by: requests, or chunks."""
        number = self.connections * self.each
        return number if self.want == "whole" else number * int(self.want.partition(":")[2])

    @property
    def metric(self) -> str:
        """What its processor time is a figure of."""
        return type_of.get(self.want.partition(":")[0], REQUEST)


def cells(scale: Scale) -> list[Cell]:
    """All loads of a round."""
    found = []
    for wire in WIRES:
        for size in (1000, 20_000):
            found += [Cell(wire, "whole", size, 1, scale.alone), Cell(wire, "whole", size, 32, scale.crowd)]
        for connections, bursts in ((1, scale.bursts), (32, 2)):
            found.append(Cell(wire, f"paced:{scale.chunks}", 1000, connections, 1))
            found.append(Cell(wire, f"burst:{scale.chunks * 2}", 1000, connections, bursts))
    return found


def slower(cell: Cell) -> Cell:
    """The same for a gateway that is many times slower: fewer requests, and no more than it answers in a few seconds."""
    each = max(cell.each // (10 if cell.connections == 1 else 25), 2) if cell.want == "whole" else 1
    return Cell(cell.wire, cell.want.replace("burst:400", "burst:200"), cell.size, cell.connections, each)


@dataclass
class Figures:
    """What was measured: metric, row and gateway lead to a value for each round. `notes` say by gateway why something
    is missing; `others` is how many cores other processes kept busy in each round."""

    values: dict[tuple[str, str, str], dict[int, float]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    others: list[float] = field(default_factory=list)

    def add(self, metric: str, row: str, key: str, number: int, value: float) -> None:
        """Enters a value."""
        self.values.setdefault((metric, row, key), {})[number] = value

    def note(self, key: str, text: str) -> None:
        """Says something about a gateway, once."""
        known = self.notes.setdefault(key, [])
        if text not in known:
            known.append(text)

    def of(self, metric: str, row: str, key: str) -> list[float]:
        """The values of all rounds."""
        return list(self.values.get((metric, row, key), {}).values())

    def rows(self, metric: str) -> list[str]:
        """The rows that have values of a metric."""
        return list(dict.fromkeys(row for name, row, _ in self.values if name == metric))

    def ratios(self, metric: str, row: str, key: str, other: str) -> list[float]:
        """A gateway's value by another one's, in each round that both were in."""
        mine, theirs = (self.values.get((metric, row, name), {}) for name in (key, other))
        return [mine[number] / theirs[number] for number in mine.keys() & theirs.keys() if theirs[number] > 0]


class Course:
    """The mock, the gateways before it by wire, and what they have shown so far."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path, scale: Scale, kinds: Sequence[Kind]) -> None:
        self.stack = stack
        self.folder = folder
        self.scale = scale
        self.kinds = kinds
        self.figures = Figures()
        self.running: dict[str, dict[str, Running]] = {wire: {} for wire in WIRES}
        self.ca, certificate, key = certificates(folder)
        self.ports = dict(zip(WIRES, stack.enter_context(mock(certificate, key)), strict=True))
        self.context = ssl.create_default_context(cafile=str(self.ca))

    def start(self) -> None:
        """Starts every gateway three times: once for its time alone, then the two that stay, one for each wire."""
        for number in range(STARTS):
            wire = WIRES[number // 2]
            scheme, host = ("https", "localhost") if wire == "TLS" else ("http", "127.0.0.1")
            for kind in self.kinds:
                folder = self.folder / f"{kind.key}-{number}"
                place = Place(f"{scheme}://{host}:{self.ports[wire]}", self.ca, folder)
                say(f"start {number + 1} of {STARTS}: {kind.title}")
                try:
                    with contextlib.ExitStack() as trial:
                        found = trial.enter_context(Running.of(kind, place))
                        self.figures.add(READY, "until it says it is ready", kind.key, number, found.ready)
                        self.figures.add(READY, "to its first chat", kind.key, number, found.first)
                        if number:
                            found.check()
                            self.running[wire][kind.key] = found
                            self.stack.enter_context(trial.pop_all())
                except Faulty as error:
                    known = str(error) in self.figures.notes.get(kind.key, ())
                    self.figures.note(kind.key, f"{wire}: {error}" if number and not known else str(error))

    def warm(self) -> None:
        """Lets every gateway load what it loads on first use, and waits until it rests."""
        for running in self.each():
            say(f"warming up {running.kind.title}")
            for want, size in (("whole", 1000), ("whole", 20_000), ("burst:100", 1000)):
                cell = Cell("", want, size, 32, 6)
                self.drive(running, slower(cell) if running.kind.key == LITELLM else cell)
        before = -1.0
        while (now := self.used()) > before + 0.01:
            before = now
            time.sleep(0.5)

    def each(self) -> Iterator[Running]:
        """Every gateway that runs."""
        for found in self.running.values():
            yield from found.values()

    def used(self) -> float:
        """Processor time of everything that belongs to this benchmark."""
        return used(family(os.getpid()))

    def drive(self, running: Running, cell: Cell) -> Took:
        """One load on one gateway."""
        data = running.kind.chat(cell.want, cell.size)
        running.asked += cell.connections * cell.each
        return load(running.process.pid, running.port, data, cell.connections, cell.each)

    def round(self, number: int) -> None:
        """Every load on every gateway; who is first changes from load to load and from round to round."""
        busy_before, ours_before, begun = busy(), self.used(), time.perf_counter()
        for turn, cell in enumerate(cells(self.scale)):
            say(f"round {number + 1} of {self.scale.rounds}: {cell.row}, {cell.want}")
            bare = self.direct(cell, number)
            present = list(self.running[cell.wire].values())
            first = (turn + number) % max(len(present), 1)
            for running in present[first:] + present[:first]:
                key = running.kind.key
                if key == LITELLM and number % 2:
                    continue
                fitting = slower(cell) if key == LITELLM else cell
                try:
                    self.enter(number, fitting, key, self.drive(running, fitting), bare)
                except Faulty as error:
                    self.fails(running, cell, error)
        if number < self.scale.memory_rounds:
            self.memory(number)
        lasted = time.perf_counter() - begun
        self.figures.others.append((busy() - busy_before - (self.used() - ours_before)) / lasted)

    def fails(self, running: Running, cell: Cell, error: Faulty) -> None:
        """A load that a gateway did not bear is said, and after a few of them the gateway is left out."""
        self.figures.note(running.kind.key, f"{cell.row}, {cell.want}: {error}")
        running.failed += 1
        if running.failed >= RETIRE:
            self.running[cell.wire].pop(running.kind.key)

    def direct(self, cell: Cell, number: int) -> list[float] | None:
        """How long the mock itself takes, where added time is measured: over the same wire as the gateways ask it."""
        if cell.want != "whole" or cell.connections > 1:
            return None
        data = request("/v1/chat/completions", MODEL, cell.want, cell.size)
        context = self.context if cell.wire == "TLS" else None
        took = sorted(asyncio.run(drive(self.ports[cell.wire], data, 1, cell.each, context)))
        for metric, share in ((P50, 0.5), (P99, 0.99)):
            self.figures.add(metric, cell.row, DIRECT, number, share_of(took, share) * 1e3)
        return took

    def enter(self, number: int, cell: Cell, key: str, took: Took, bare: list[float] | None) -> None:
        """Enters what a load has shown."""
        self.figures.add(cell.metric, cell.row, key, number, took.cpu / cell.units * 1e6)
        if cell.connections > 1 and cell.metric != PACED:
            self.figures.add(SHARE, f"{cell.row}, {cell.metric[7:]}", key, number, took.cpu / took.lasted * 100)
        if bare is not None:
            for metric, share in ((P50, 0.5), (P99, 0.99)):
                added = share_of(sorted(took), share) - share_of(bare, share)
                self.figures.add(metric, cell.row, key, number, added * 1e3)
        if cell.metric == PACED and statistics.median(took) > int(cell.want.partition(":")[2]) * 0.005 * 1.2:
            self.figures.note(key, f"{cell.row}: did not keep the pace of 5 ms chunks")

    def memory(self, number: int) -> None:
        """Resident memory while 64 streams run."""
        for wire, present in self.running.items():
            for running in present.values():
                say(f"round {number + 1}: {STREAMS} streams, {wire}: {running.kind.title}")
                data = running.kind.chat(f"paced:{self.scale.chunks // 2}")
                idle = resident(running.process.pid)
                self.figures.add(RSS, f"{wire}, at rest", running.kind.key, number, idle)
                running.asked += STREAMS
                try:
                    most = memory(running.process.pid, running.port, data, STREAMS)
                except Faulty as error:
                    self.figures.note(running.kind.key, f"{STREAMS} streams: {error}")
                else:
                    self.figures.add(RSS, f"{wire}, {STREAMS} streams", running.kind.key, number, most)


def share_of(took: Sequence[float], share: float) -> float:
    """The time within which that share of sorted times lies."""
    return took[min(int(len(took) * share), len(took) - 1)]


def say(text: str) -> None:
    """Tells somebody who waits what is going on."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def run(folder: Path, scale: Scale, keys: Sequence[str]) -> tuple[Figures, dict[str, Running]]:
    """All of it: the figures, and those that ran, which have ended by then, by gateway and wire."""
    until = time.monotonic() + scale.minutes * 60
    os.sched_setaffinity(0, {LOAD_CORE})
    with contextlib.ExitStack() as stack:
        course = Course(stack, folder, scale, [kind for kind in KINDS if kind.key in keys])
        course.start()
        ran = {f"{running.kind.title}, {wire}": running for wire in WIRES for running in course.running[wire].values()}
        course.warm()
        longest = 0.0
        for number in range(scale.rounds):
            begun = time.monotonic()
            if number and begun + longest > until:
                break
            course.round(number)
            longest = max(longest, time.monotonic() - begun)
        say("")
    return course.figures, ran
