"""What the tests of the other transports send, and how they compare."""

import asyncio

from tallystick.ledger.query import Query

HELLO = [{"role": "user", "content": "Hello, how are you today?"}]
CHAT = {"model": "gpt-4o", "messages": HELLO}
STREAM = {**CHAT, "stream": True}
CLAUDE = {"model": "claude-sonnet-5", "max_tokens": 400, "messages": HELLO, "stream": True}
TEXT = "Streams of many words: naïve, 東京, and then a few more to fill the line up. " * 4


def entries(ledger):
    return list(ledger.read(Query()))


def used(call):
    return dict(call.usage)


async def soon(check, seconds=5.0):
    """Waits for what another thread does."""
    async with asyncio.timeout(seconds):
        while not check():  # noqa: ASYNC110 - the other thread knows of no event loop
            await asyncio.sleep(0.01)
