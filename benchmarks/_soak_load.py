"""The load of benchmarks/soak.py as a process of its own: so many requests a second through a gateway, some of which
are left by their client. Prints one line of JSON at the end: calls by kind and how they came out for the client."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections import Counter
from typing import Any

import aiohttp

KINDS = (("left", 6.0), ("gone", 4.0), ("error", 1.25), ("reset", 1.25), ("slow", 1.25), ("half", 1.25))
"""Kinds of calls and how many of a hundred are of it: 10 are left by their client, 5 meet a fault of the provider."""

MOST = 600
"""So many calls may be under way; beyond, the load waits, and the rate is not reached."""

TEXT = "How many oak boards are two times six?"
LEFT_AFTER = 3
GONE_AFTER = 0.15


class Load:
    """The calls on their way."""

    def __init__(self, url: str, seed: int) -> None:
        self._url = url
        self._random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.late: list[float] = []

    async def run(self, rate: float, seconds: float) -> float:
        """Makes calls for so many seconds; how long it took in the end."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=60)
        tasks: set[asyncio.Task[None]] = set()
        begun = time.monotonic()
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as client:
            number = 0
            while time.monotonic() - begun < seconds:
                number += 1
                await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))
                if len(tasks) >= MOST:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                task = asyncio.create_task(self._one(client, number))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            took = time.monotonic() - begun
            if tasks:
                await asyncio.wait(tasks)
        return took

    def _kind(self) -> str:
        left = self._random.uniform(0, 100)
        for kind, share in KINDS:
            left -= share
            if left < 0:
                return kind
        return self._random.choice(("whole", "stream"))

    async def _one(self, client: aiohttp.ClientSession, number: int) -> None:
        kind = self._kind()
        try:
            outcome = await self._call(client, kind, number)
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            outcome = "broken"
        self.counts[f"{kind} {outcome}"] += 1

    async def _call(self, client: aiohttp.ClientSession, kind: str, number: int) -> str:
        stream = kind in {"stream", "left", "half"} or (kind == "slow" and number % 2 == 0)
        claude = kind != "reset" and number % 3 == 0
        value: dict[str, Any] = {"messages": [{"role": "user", "content": f"{TEXT} {number}"}], "max_tokens": 100}
        value["model"] = "claude-sonnet-5" if claude else "gpt-4o"
        if stream:
            value["stream"] = True
        name = "broken" if kind == "reset" else "anthropic" if claude else "openai"
        path = "/anthropic/v1/messages" if claude else f"/{name}/v1/chat/completions"
        headers = {"x-soak": kind, "x-tally-tags": f"kind={kind}", "authorization": "Bearer none"}
        if number % 2 and kind != "reset":
            headers["x-tally-team"] = "soak"
        if kind == "gone":
            wait = aiohttp.ClientTimeout(total=GONE_AFTER)
            async with client.post(self._url + path, json=value, headers=headers, timeout=wait) as answer:
                await answer.read()
            return str(answer.status)
        async with client.post(self._url + path, json=value, headers=headers) as answer:
            if kind != "left":
                await answer.read()
                return str(answer.status)
            pieces = 0
            async for _ in answer.content.iter_any():
                pieces += 1
                if pieces >= LEFT_AFTER:
                    break
            answer.close()
        return "left"


def main() -> None:
    """Makes the calls."""
    options = argparse.ArgumentParser()
    options.add_argument("--url", required=True)
    options.add_argument("--rate", type=float, required=True)
    options.add_argument("--seconds", type=float, required=True)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    load = Load(given.url, given.seed)
    took = asyncio.run(load.run(given.rate, given.seconds))
    print(json.dumps({"took": took, "counts": load.counts}), flush=True)


if __name__ == "__main__":
    main()
