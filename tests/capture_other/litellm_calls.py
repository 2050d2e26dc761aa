"""What test_litellm.py runs with an interpreter that has LiteLLM; prints what the ledger says, as JSON."""

import asyncio
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import litellm
from litellm import completion as taken_before
from other_calls import HELLO, entries

from tallystick import instrument, run
from tallystick.capture.litellm import name_calls
from tallystick.ledger.memory import MemoryLedger
from tallystick.metering.run import current


def options(url, name, **more):
    return {
        "model": "openai/gpt-4o",
        "messages": HELLO,
        "api_base": f"{url}/v1",
        "api_key": "none",
        "user": f"user {name}",
        "metadata": {"agent": f"agent {name}", "generation_name": "draft", "tags": ["colour:blue", "plain"]},
        **more,
    }


async def tasks(url):
    async def one(number):
        if number % 2:
            await litellm.acompletion(**options(url, f"async {number}"))
        else:
            stream = await litellm.acompletion(**options(url, f"async {number}", stream=True))
            async for _ in stream:
                pass
        return current.get() is None

    left = await asyncio.gather(*(one(number) for number in range(30)))
    claude = options(url, "claude", model="anthropic/claude-sonnet-4-5", api_base=url)
    await litellm.acompletion(**claude)
    return all(left)


def main(url):
    ledger = MemoryLedger()
    undo = name_calls()
    clean = []
    with instrument(ledger=ledger):
        litellm.completion(**options(url, "plain"))
        clean.append(current.get() is None)
        for _ in litellm.completion(**options(url, "stream", stream=True)):
            clean.append(current.get() is None)
        with run("mine", user="ada"):
            taken_before(**options(url, "inside"))
        clean.append(current.get() is None)
        with ThreadPoolExecutor(10) as pool:
            list(pool.map(lambda number: litellm.completion(**options(url, f"thread {number}")), range(30)))
        clean.append(asyncio.run(tasks(url)))
        undo()
        litellm.completion(**options(url, "unnamed"))
    rows = [
        {"tags": dict(entry.tags), "step": entry.step, "usage": dict(entry.usage), "id": entry.provider_response_id}
        for entry in entries(ledger)
    ]
    print("LEDGER" + json.dumps({"rows": rows, "clean": all(clean)}))


main(sys.argv[1])
