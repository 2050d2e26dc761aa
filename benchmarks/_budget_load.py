"""The load of the budget benchmarks: calls of a known price, a provider that says what they truly cost, processes that
make them all at once, and what the ledger then says."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tallystick.core.attribution import Tags
from tallystick.core.money import Money
from tallystick.ledger.budget import Budget
from tallystick.ledger.ledger import Ledger
from tallystick.metering.budgets import put
from tallystick.simulator import Answer, Call, Request
from tallystick.tokens import count_messages, count_text

HERE: Final = Path(__file__).parent
MODEL: Final = "gpt-4-turbo"
INPUT: Final = 10_000_000
OUTPUT: Final = 30_000_000
"""Picodollars per token: $10 and $30 per million."""

CALL: Final = 1000 * INPUT + 1000 * OUTPUT
LIMIT: Final = 10 * CALL
BUDGET: Final = "bench"
HISTORY: Final = "before"
PHASE: Final = "phase"
SECONDS: Final = 120
_RANKS: Final = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"


def prompt(tokens: int, model: str = MODEL) -> str:
    """A text that is so many tokens as the only message of a chat."""
    base = count_messages([{"role": "user", "content": "oak"}], model).high
    return "oak" + " oak" * (tokens - base)


def messages(text: str) -> list[dict[str, str]]:
    """A chat of one message."""
    return [{"role": "user", "content": text}]


def usual(request: Request) -> Answer:
    """1,000 tokens of answer to 1,000 tokens of prompt, however many of them are visible; how fast, and in how many
    pieces, the headers say."""
    delay = float(request.headers.get("x-delay-ms", "60"))
    return Answer(input_tokens=1000, output_tokens=1000, first_byte_ms=delay, chunks=40, chunk_ms=10)


class Truth:
    """What was served: `spent` is everything generated, `delivered` what was handed over of it, both in picodollars;
    `served` counts the calls. `read` and `written` are picodollars per token."""

    def __init__(self, model: str = MODEL, read: int = INPUT, written: int = OUTPUT) -> None:
        self.model, self.read, self.written = model, read, written
        self.lock = threading.Lock()
        self.spent = self.delivered = self.served = 0
        self.half: Callable[[], None] | None = None

    def hear(self, call: Call) -> None:
        """Takes in one call; calls `half` back when half of the budget is spent."""
        if call.status != 200 or call.usage is None:
            return
        read = call.usage.input_tokens * self.read
        whole = not call.stream or call.delivered == call.text
        tokens = call.usage.output_tokens if whole else count_text(call.delivered, self.model).high
        with self.lock:
            self.served += 1
            self.spent += read + call.usage.output_tokens * self.written
            self.delivered += read + tokens * self.written
            half, ripe = self.half, 2 * self.spent >= LIMIT
            self.half = None if ripe else half
        if ripe and half is not None:
            half()

    def clear(self) -> None:
        """Forgets what was served so far."""
        with self.lock:
            self.spent = self.delivered = self.served = 0


def put_budgets(ledger: Ledger) -> None:
    """The budget of the row, and an ample one for the calls before it."""
    now = datetime.now(UTC)
    put(ledger, Budget(budget_id=BUDGET, limit=LIMIT, scope=Tags({PHASE: "row"})), now)
    put(ledger, Budget(budget_id=HISTORY, limit=1000 * LIMIT, scope=Tags({PHASE: HISTORY})), now)


def our_tokenizers(folder: Path) -> dict[str, str]:
    """An environment in which tiktoken finds its ranks without a network."""
    folder.mkdir(parents=True, exist_ok=True)
    for packed in (HERE.parent / "src" / "tallystick" / "tokens" / "ranks").glob("*.tiktoken.gz"):
        url = _RANKS.format(packed.name.partition(".")[0])
        name = hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()
        (folder / name).write_bytes(gzip.decompress(packed.read_bytes()))
    return {"TIKTOKEN_CACHE_DIR": str(folder), "DATA_GYM_CACHE_DIR": str(folder)}


class Child:
    """One process that makes calls. It says `ready`, makes them when it is given the prompt, and says how they came
    out in one line of JSON; a killed one says nothing."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.killed = False
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )

    def ready(self) -> None:
        """Waits until it has loaded everything."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line.strip() != "ready":
            raise RuntimeError(f"A process of the benchmark said {line!r} instead of being ready.")

    def go(self, text: str) -> None:
        """Gives it the prompt."""
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.close()

    def kill(self) -> None:
        """Ends it as a crash would (SIGKILL)."""
        self.killed = True
        self._process.kill()

    def result(self, until: float) -> dict[str, Any]:
        """What it says; nothing for one that was killed."""
        timer = threading.Timer(max(1.0, until - time.monotonic()), self._process.kill)
        timer.start()
        try:
            assert self._process.stdout is not None
            said = self._process.stdout.read()
            self._process.wait()
        finally:
            timer.cancel()
            self._process.stdout.close()
        lines = said.strip().splitlines()
        if not lines and self.killed:
            return {}
        if not lines:
            raise RuntimeError("A process of the benchmark came to no end.")
        found: dict[str, Any] = json.loads(lines[-1])
        return found


def crowd(children: Sequence[Child], text: str) -> list[dict[str, Any]]:
    """Lets processes make their calls at once; what those say that live."""
    for child in children:
        child.ready()
    for child in children:
        child.go(text)
    until = time.monotonic() + SECONDS
    return [said for child in children if (said := child.result(until))]


def ours(place: str, url: str, *options: str) -> Child:
    """A process of ours."""
    command = [sys.executable, str(HERE / "_budget_crowd.py"), "--ledger", place, "--url", url, *options]
    return Child(command, {})


def dollars(pico: int) -> str:
    """Picodollars for people, to the cent or as exact as they are."""
    return str(Money(pico))
