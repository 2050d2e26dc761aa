"""The load of `gateway.py`: raw connections that ask and count, and what a family of processes has used meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import httptools

from _gateway_mock import PACE
from _gateway_stand import children, rss

SETTLE: Final = 0.12
"""Seconds after the last answer that still count: what a gateway leaves for later is work too."""

_FILLER: Final = "Please consider the following paragraph of an ordinary report and say what follows from it. "


class Faulty(Exception):
    """A gateway that did not answer as it should."""


class Refused(Faulty):
    """Another status than 200."""


def request(path: str, model: str, want: str, size: int) -> bytes:
    """The bytes of a chat whose prompt has so many bytes and wants an answer of that kind."""
    text = (f"want:{want} " + _FILLER * (size // len(_FILLER) + 1))[:size]
    value: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": text}]}
    if want != "whole":
        value |= {"stream": True, "stream_options": {"include_usage": True}}
    body = json.dumps(value).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\naccept: */*\r\n"
    return f"{head}authorization: Bearer none\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class Client(asyncio.Protocol):
    """One connection: one request after the other. With `keep`, the body of the last answer stays in `body`."""

    def __init__(self, *, keep: bool = False) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.body = b""
        if keep:
            self.on_body: Callable[[bytes], None] = self._keep
        # The parser looks only now for what is to be called.
        self.parser = httptools.HttpResponseParser(self)

    def _keep(self, data: bytes) -> None:
        self.body += data

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Connected."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """More of an answer."""
        self.parser.feed_data(data)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Closed."""
        if not self.done.done():
            self.done.set_exception(Faulty("the connection was closed"))

    def on_message_complete(self) -> None:
        """An answer is complete."""
        if self.done.done():
            return
        status = self.parser.get_status_code()
        if status == 200:
            self.done.set_result(None)
        else:
            self.done.set_exception(Refused(f"status {status} {self.body[:300].decode(errors='replace')}"))

    async def ask(self, data: bytes) -> float:
        """One request and its whole answer; seconds."""
        self.done = asyncio.get_running_loop().create_future()
        self.body = b""
        begun = time.perf_counter()
        self.transport.write(data)
        await self.done
        return time.perf_counter() - begun


async def drive(port: int, data: bytes, connections: int, each: int, tls: ssl.SSLContext | None = None) -> list[float]:
    """So many requests on each of so many connections; the seconds of each. The connections begin spread over one pace
    of the mock, so that paced streams do not march in step."""
    loop = asyncio.get_running_loop()

    async def one(number: int) -> list[float]:
        host = None if tls is None else "localhost"
        transport, client = await loop.create_connection(Client, "127.0.0.1", port, ssl=tls, server_hostname=host)
        await asyncio.sleep(PACE * number / connections)
        try:
            return [await client.ask(data) for _ in range(each)]
        finally:
            if not client.done.done():
                client.done.cancel()
            transport.close()

    found = await asyncio.gather(*(one(number) for number in range(connections)))
    return [seconds for part in found for seconds in part]


async def answer(port: int, data: bytes) -> bytes:
    """The body of one answer, on a connection of its own."""
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_connection(lambda: Client(keep=True), "127.0.0.1", port)
    try:
        await client.ask(data)
        return client.body
    finally:
        transport.close()


async def healthy(port: int, path: str) -> None:
    """Asks for a page of health; a gateway that has none may say so. Raises OSError while nobody listens, Refused for
    another status than 200."""
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_connection(Client, "127.0.0.1", port)
    try:
        with contextlib.nullcontext() if path else contextlib.suppress(Refused):
            await client.ask(f"GET {path or '/'} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: */*\r\n\r\n".encode())
    finally:
        transport.close()


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    return [pid, *(one for child in children(pid) for one in family(child))]


def used(pids: Sequence[int]) -> float:
    """Seconds of processor time of these processes, threads that have ended included. The kernel's clock of a process
    says the same as utime + stime in /proc/PID/stat, in nanoseconds where that counts hundredths of a second."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += time.clock_gettime_ns((~pid << 3) | 2)
    return total / 1e9


def resident(pid: int) -> float:
    """Resident memory of a family of processes, in MB."""
    return sum(rss(one) for one in family(pid)) / 2**20


def busy() -> float:
    """Seconds for which the cores of this machine have been at work since it was started, on whatever."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


class Took(list[float]):
    """The seconds of each request of one load, with the processor time of the gateway and how long it all lasted."""

    cpu: float = 0.0
    lasted: float = 0.0


def load(pid: int, port: int, data: bytes, connections: int, each: int) -> Took:
    """Drives a gateway and says what it used, with what it did after the last answer."""
    pids = family(pid)
    before, begun = used(pids), time.perf_counter()
    took = Took(asyncio.run(drive(port, data, connections, each)))
    took.lasted = time.perf_counter() - begun
    time.sleep(SETTLE)
    took.cpu = used(pids) - before
    return took


def memory(pid: int, port: int, data: bytes, streams: int) -> float:
    """The most resident memory, in MB, while so many streams run at the same time."""

    async def both() -> float:
        most = resident(pid)
        task = asyncio.ensure_future(drive(port, data, streams, 1))
        while not task.done():
            await asyncio.wait([task], timeout=0.05)
            most = max(most, resident(pid))
        await task
        return most

    return asyncio.run(both())
