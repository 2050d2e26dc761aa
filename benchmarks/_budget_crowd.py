"""A process that makes many calls at once with the openai client, under a hard budget: tracked by us, or by a gateway.

Run by benchmarks/budgets.py and benchmarks/gateway_budgets.py (`--url` is then the gateway's, and there is no ledger); prints `ready`, reads the prompt from its input, and prints one JSON line: calls that came
back, calls refused with what each refusal said, errors, and how many attempts the refused ones took.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import threading
from typing import Any

import openai

import tallystick
from _budget_load import HISTORY, PHASE, prompt
from tallystick.capture.process import close_meters
from tallystick.ledger.ledger import Ledger
from tallystick.ledger.opening import open_ledger
from tallystick.metering.budgets import refusal


class Outcomes:
    """How the calls came out."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.mine = threading.local()
        self.served = self.refused = self.attempts = 0
        self.errors: list[str] = []
        self.refusals: list[dict[str, Any]] = []

    def sent(self, _request: object) -> None:
        """The client makes an attempt."""
        self.mine.attempts = getattr(self.mine, "attempts", 0) + 1

    def one(self, client: openai.OpenAI, request: dict[str, Any], mode: str) -> None:
        """Makes one call."""
        self.mine.attempts = 0
        try:
            consume(client.chat.completions.create(**request), mode)
        except openai.APIStatusError as error:
            said = refusal(error)
            with self.lock:
                if said is None and "budget" not in str(error).lower():
                    self.errors.append(f"{type(error).__name__}: {error}"[:300])
                    return
                self.refused += 1
                self.attempts += self.mine.attempts
                if said is not None:
                    figures = said.spent, said.held, said.limit, said.asked
                    self.refusals.append(
                        dict(zip(("spent", "held", "limit", "asked"), [one.pico for one in figures], strict=True))
                        | {"queued": int(said.queued)}
                    )
        except (openai.APIError, RuntimeError, OSError) as error:
            with self.lock:
                self.errors.append(f"{type(error).__name__}: {error}"[:300])
        else:
            with self.lock:
                self.served += 1


def consume(answer: Any, mode: str) -> None:
    """Reads an answer; in the mode `early` a stream is left after three chunks."""
    if mode == "chat":
        return
    with contextlib.closing(answer):
        for number, _ in enumerate(answer):
            if mode == "early" and number >= 3:
                return


def run(client: openai.OpenAI, request: dict[str, Any], mode: str, calls: int) -> Outcomes:
    """Many calls at once."""
    outcomes = Outcomes()
    barrier = threading.Barrier(max(1, calls))

    def one() -> None:
        barrier.wait()
        outcomes.one(client, request, mode)

    client._client.event_hooks["request"] = [outcomes.sent]
    threads = [threading.Thread(target=one) for _ in range(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def arguments() -> argparse.Namespace:
    """What to do."""
    options = argparse.ArgumentParser()
    options.add_argument("--ledger")
    options.add_argument("--url", required=True)
    options.add_argument("--mode", choices=["chat", "stream", "early"], default="chat")
    options.add_argument("--max-tokens", type=int, default=0)
    options.add_argument("--model", default="gpt-4-turbo")
    options.add_argument("--calls", type=int, default=100)
    options.add_argument("--history", type=int, default=0)
    options.add_argument("--delay-ms", type=float, default=60)
    return options.parse_args()


def main() -> None:
    """Makes the calls."""
    given = arguments()
    request: dict[str, Any] = {"model": given.model}
    if given.max_tokens:
        request["max_tokens"] = given.max_tokens
    if given.mode != "chat":
        request["stream"] = True
    tallystick.count(prompt(20), model="gpt-4-turbo")
    headers = {"x-delay-ms": str(given.delay_ms)}
    with contextlib.ExitStack() as stack:
        client = openai.OpenAI(api_key="none", base_url=given.url, max_retries=2, timeout=60, default_headers=headers)
        client = stack.enter_context(client)
        ledger = None if given.ledger is None else stack.enter_context(open_ledger(given.ledger))
        print("ready", flush=True)
        request["messages"] = [{"role": "user", "content": sys.stdin.read()}]
        if given.history:
            named(client, ledger, HISTORY)
            for _ in range(given.history):
                consume(client.chat.completions.create(**request), given.mode)
        named(client, ledger, "row")
        outcomes = run(client, request, given.mode, given.calls)
        close_meters()
        found = {name: getattr(outcomes, name) for name in ("served", "refused", "attempts", "errors", "refusals")}
        print(json.dumps(found), flush=True)


def named(client: openai.OpenAI, ledger: Ledger | None, phase: str) -> None:
    """Says in which phase the client's calls are made: to a meter of this process, or to a gateway in a header."""
    if ledger is not None:
        tallystick.track(client, ledger=ledger, provider="openai", **{PHASE: phase})
    else:
        client._custom_headers = {**client._custom_headers, "x-tally-tags": f"{PHASE}={phase}"}


if __name__ == "__main__":
    main()
