"""The provider of benchmarks/soak.py as a process of its own: answers, faults of each kind, and what truly happened.

Prints the base URLs as a line of JSON; at the end of its input it prints, by kind of call, how many there were and what
they used. The header `x-soak` names the kind of each request.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
import sys
import threading
from collections.abc import Iterator

from tallystick.simulator import Answer, Call, Request, Simulator

SLOW_MS = 1500.0


def answer(request: Request) -> Answer:
    """What the kind of a request calls for; lengths and speeds vary, the same for the same request."""
    kind = request.headers.get("x-soak", "")
    seeded = random.Random(request.body)
    plain = Answer(
        output_tokens=seeded.randrange(10, 60), chunks=8, chunk_ms=seeded.uniform(0, 10),
        first_byte_ms=seeded.uniform(0, 30),
    )  # fmt: skip
    if kind == "error":
        return Answer(status=500)
    if kind == "slow":
        return Answer(output_tokens=20, chunks=4, first_byte_ms=SLOW_MS, chunk_ms=100)
    if kind == "half":
        return Answer(output_tokens=40, chunks=8, cut_after=4, chunk_ms=5, first_byte_ms=5)
    if kind == "left":
        return Answer(output_tokens=60, chunks=12, chunk_ms=25, first_byte_ms=5)
    if kind == "gone":
        return Answer(output_tokens=20, first_byte_ms=500)
    return plain


class Truth:
    """Counts by kind: calls, tokens in and out."""

    def __init__(self) -> None:
        self.kinds: dict[str, list[int]] = {}
        self.lock = threading.Lock()

    def hear(self, call: Call) -> None:
        """Takes in one call."""
        usage = call.usage
        if usage is None:
            self.add(call.headers.get("x-soak", "?"), 0, 0)
        else:
            self.add(call.headers.get("x-soak", "?"), usage.input_tokens, usage.output_tokens)

    def add(self, kind: str, read: int, written: int) -> None:
        """Counts one."""
        with self.lock:
            sums = self.kinds.setdefault(kind, [0, 0, 0])
            for place, number in enumerate((1, read, written)):
                sums[place] += number


def resetting(listening: socket.socket, truth: Truth) -> None:
    """Takes requests and resets their connections without a word."""
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=reset, args=(connection, truth), daemon=True).start()


def reset(connection: socket.socket, truth: Truth) -> None:
    """Reads a request, and resets."""
    with connection, contextlib.suppress(OSError):
        connection.settimeout(10)
        data = b""
        while b"\r\n\r\n" not in data and (more := connection.recv(65536)):
            data += more
        if data:
            truth.add("reset", 0, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextlib.contextmanager
def resetter(truth: Truth) -> Iterator[str]:
    """The base URL of a provider that resets every connection."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        threading.Thread(target=resetting, args=(listening, truth), daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        listening.shutdown(socket.SHUT_RDWR)


def main() -> None:
    """Serves until its input ends."""
    truth = Truth()
    with resetter(truth) as broken, Simulator(answer, heard=truth.hear, keep=0, typed=False) as simulator:
        urls = {"openai": simulator.openai_url, "anthropic": simulator.anthropic_url, "broken": broken}
        print(json.dumps(urls), flush=True)
        sys.stdin.read()
        print(json.dumps(truth.kinds), flush=True)


if __name__ == "__main__":
    main()
