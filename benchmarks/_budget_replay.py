"""A process that replays a trace as streams of the openai client, tracked by us under a hard budget.

Run by benchmarks/budget_trace.py; prints `ready`, waits for the end of its input, and prints one JSON line: calls that
ended, were ended early by us, were capped and were refused, what the first refusal said, and errors.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import queue
import sys
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import openai

import tallystick
from _budget_load import PHASE, prompt
from tallystick.capture.process import close_meters
from tallystick.ledger.opening import open_ledger
from tallystick.metering.budgets import refusal

MODEL = "gpt-4o"
DATA = Path(__file__).parent / "data" / "azure_conv.csv.gz"
ENOUGH = 400
"""After so many refusals in a row nothing more fits."""


def arrivals(faster: float) -> list[tuple[float, int, int]]:
    """Each request of the trace: seconds after the first one, tokens of prompt and of answer."""
    found = []
    with gzip.open(DATA, "rt", newline="") as file:
        for row in csv.DictReader(file):
            at = datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp()
            found.append((at, max(16, int(row["ContextTokens"])), max(1, int(row["GeneratedTokens"]))))
    return [((at - found[0][0]) / faster, read, written) for at, read, written in found]


class Replay:
    """The trace on its way."""

    def __init__(self, client: openai.OpenAI, calls: list[tuple[float, int, int]]) -> None:
        self.client = client
        self.lock = threading.Lock()
        self.waiting: queue.SimpleQueue[tuple[float, int, int] | None] = queue.SimpleQueue()
        self.calls = calls
        self.counts = {"served": 0, "cut": 0, "refused": 0}
        self.first: dict[str, int] = {}
        self.errors: list[str] = []
        self.row = 0
        self.done = threading.Event()
        self.busy = self.most = 0

    def run(self, streams: int) -> None:
        """Makes the calls as they come, so many at once."""
        threads = [threading.Thread(target=self._work) for _ in range(streams)]
        for thread in threads:
            thread.start()
        begun = time.monotonic()
        for call in self.calls:
            if self.done.wait(max(0.0, call[0] - (time.monotonic() - begun))):
                break
            while self.waiting.qsize() > streams and not self.done.is_set():
                time.sleep(0.002)
            self.waiting.put(call)
        for _ in threads:
            self.waiting.put(None)
        for thread in threads:
            thread.join()

    def _work(self) -> None:
        while (call := self.waiting.get()) is not None:
            if not self.done.is_set():
                with self.lock:
                    self.busy += 1
                    self.most = max(self.most, self.busy)
                self._one(call)
                with self.lock:
                    self.busy -= 1

    def _one(self, call: tuple[float, int, int]) -> None:
        _, read, written = call
        content = [{"role": "user", "content": prompt(read, MODEL)}]
        headers = {"x-input": str(read), "x-output": str(written)}
        finish = None
        try:
            with self.client.chat.completions.create(
                model=MODEL, messages=content, stream=True, extra_headers=headers
            ) as stream:
                for chunk in stream:
                    finish = chunk.choices[0].finish_reason if chunk.choices else finish
        except openai.APIStatusError as error:
            self._refused(error)
        except (openai.APIError, OSError, RuntimeError) as error:
            with self.lock:
                self.errors.append(f"{type(error).__name__}: {error}"[:300])
        else:
            with self.lock:
                self.row = 0
                self.counts["cut" if finish == "length" else "served"] += 1

    def _refused(self, error: openai.APIStatusError) -> None:
        said = refusal(error)
        with self.lock:
            if said is None:
                self.errors.append(str(error)[:300])
                return
            self.counts["refused"] += 1
            self.row += 1
            if not self.first:
                figures: dict[str, Any] = {name: getattr(said, name) for name in ("spent", "held", "limit", "asked")}
                self.first = {name: amount.pico for name, amount in figures.items()}
            if self.row >= ENOUGH:
                self.done.set()


def main() -> None:
    """Replays the trace."""
    options = argparse.ArgumentParser()
    options.add_argument("--ledger", required=True)
    options.add_argument("--url", required=True)
    options.add_argument("--streams", type=int, default=40)
    options.add_argument("--faster", type=float, default=100)
    given = options.parse_args()
    tallystick.count(prompt(20, MODEL), model=MODEL)
    calls = arrivals(given.faster)
    with open_ledger(given.ledger) as ledger, openai.OpenAI(api_key="none", base_url=given.url, timeout=60) as client:
        print("ready", flush=True)
        sys.stdin.read()
        tallystick.track(client, ledger=ledger, provider="openai", **{PHASE: "row"})
        replay = Replay(client, calls)
        replay.run(given.streams)
        close_meters()
    found = {**replay.counts, "first": replay.first, "errors": replay.errors, "most": replay.most}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
