"""The provider of `gateway.py`: canned bytes on raw connections, plain and over TLS.

The prompt says what is wanted: `want:whole`, `want:burst:400` (400 chunks, all at once) or `want:paced:200` (200 chunks,
one each 5 ms). Nothing is parsed but that and the length of the request. Each answer has an id of its own, as every provider's has.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import json
import re
import secrets
import ssl
import sys
from collections.abc import Iterator
from typing import Final

import uvloop

PACE: Final = 0.005
"""Seconds between the chunks of a paced stream."""

MODEL: Final = "gpt-4o"
WORDS: Final = ("The", " answer", " is", " made", " of", " words", " that", " a", " model", " might", " say", " here")
_ID: Final = b"Bq2dV7nX4sK1tLw0ZyHc"
_HEAD: Final = {"id": f"chatcmpl-{_ID.decode()}", "created": 1_750_000_000, "model": MODEL}
_WANT: Final = re.compile(rb"want:(whole|burst|paced)(?::(\d+))?")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_LINES: Final = b"\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"


def usage(chunks: int) -> dict[str, object]:
    """What the provider says was used."""
    return {
        "prompt_tokens": 250, "completion_tokens": chunks, "total_tokens": 250 + chunks,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }  # fmt: skip


@functools.cache
def whole() -> bytes:
    """An answer in one piece."""
    message = {"role": "assistant", "content": "".join(WORDS[n % len(WORDS)] for n in range(20)), "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    value = {**_HEAD, "object": "chat.completion", "choices": [choice], "usage": usage(20), "service_tier": "default"}
    body = json.dumps(value).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def _chunk(value: object) -> bytes:
    text = f"data: {value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(text), text)


@functools.cache
def stream(chunks: int) -> tuple[bytes, ...]:
    """A streamed answer: so many chunks of text, each with its frame, and what stands before and behind them."""

    def part(delta: dict[str, str], finish: str | None) -> dict[str, object]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**_HEAD, "object": "chat.completion.chunk", "choices": [choice], "usage": None}

    first = b"HTTP/1.1 200 OK" + _LINES + _chunk(part({"role": "assistant", "content": ""}, None))
    words = [_chunk(part({"content": WORDS[n % len(WORDS)]}, None)) for n in range(chunks)]
    words[0] = first + words[0]
    ending = {**_HEAD, "object": "chat.completion.chunk", "choices": [], "usage": usage(chunks)}
    words[-1] += _chunk(part({}, "stop")) + _chunk(ending) + _chunk("[DONE]") + b"0\r\n\r\n"
    return tuple(words)


@functools.cache
def burst(chunks: int) -> bytes:
    """The same in one piece."""
    return b"".join(stream(chunks))


class Provider(asyncio.Protocol):
    """One connection of a gateway; one request after the other."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.heard = b""
        self.need = 0
        self.numbers = itertools.count(secrets.randbits(48))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Connected."""
        self.transport = transport
        # What is written at once shall not wait for whoever reads it.
        transport.set_write_buffer_limits(high=2**24)

    def data_received(self, data: bytes) -> None:
        """More of a request."""
        self.heard += data
        if not self.need:
            end = self.heard.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _LENGTH.search(self.heard, 0, end)
            self.need = end + 4 + int(length[1]) if length else -1
        # A body without a length ends with an empty chunk, which no canned prompt holds.
        if len(self.heard) >= self.need if self.need > 0 else self.heard.endswith(b"0\r\n\r\n"):
            request, self.heard, self.need = self.heard, b"", 0
            self.answer(request)

    def answer(self, request: bytes) -> None:
        """Writes what the prompt wants."""
        want = _WANT.search(request)
        name = b"%020x" % next(self.numbers)
        if want is None or want[1] == b"whole":
            self.transport.write(whole().replace(_ID, name, 1))
        elif want[1] == b"burst":
            self.transport.write(burst(int(want[2])).replace(_ID, name))
        else:
            self.pace((part.replace(_ID, name) for part in stream(int(want[2]))), self.loop.time())

    def pace(self, parts: Iterator[bytes], due: float) -> None:
        """Writes a chunk, and says when the next one is due: 5 ms after this one was, not after it was written."""
        part = next(parts, None)
        if part is None or self.transport.is_closing():
            return
        self.transport.write(part)
        self.loop.call_at(due + PACE, self.pace, parts, due + PACE)


async def serve(certificate: str, key: str) -> None:
    """Serves on two free ports, the plain one and the one over TLS, and prints them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    loop = asyncio.get_running_loop()
    plain = await loop.create_server(Provider, "127.0.0.1", 0, backlog=1024)
    safe = await loop.create_server(Provider, "127.0.0.1", 0, backlog=1024, ssl=context)
    print(*(server.sockets[0].getsockname()[1] for server in (plain, safe)), flush=True)
    whole()
    gc.freeze()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(*sys.argv[1:3]))
