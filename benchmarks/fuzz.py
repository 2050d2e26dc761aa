"""Mutated requests against a whole `tally up`: no failure of ours, no traceback, no hang, and the ledger still adds up.

    python benchmarks/fuzz.py [--requests 100000] [--seed 7] [--clients 32]

The gateway stands before the simulator, with one hard budget and one virtual key. Requests begin as good ones to every
kind of route (providers, interface, pages, metrics, spans) and are then damaged: bytes, headers, lengths, framing, paths,
JSON. Where no answer comes at once the sending side is ended, so that whatever is missing will never come: an answer or a
closed connection has to follow.
Exit code 1 for a 500, a traceback, a request without an end, a dead gateway or a ledger that does not verify.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from tallystick.simulator import Simulator

HANG = 30.0
PATIENCE = 0.25
TEXT = {"openai": "/openai/v1/chat/completions", "anthropic": "/anthropic/v1/messages"}
STRANGE = (
    b"\x00", b"\r\n", b"\n", b"\xff\xfe", b"%00", b"%2e%2e%2f", b"//", b"..", b"{" * 300, b"[" * 300, b"1e999", b"-1", b"9" * 40,
    b'"', b"\\u0000", b"\\ud800", b"null", b"true", b"tly_" + b"x" * 40, b"<script>", b"chunked", b"\t", b" ", b":", b"A" * 5000,
)  # fmt: skip


def good(rng: random.Random, key: str) -> list[bytes]:
    """A request that makes sense, as [request line, headers..., body]."""
    chat = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi " * rng.randrange(1, 40)}]}
    if rng.random() < 0.4:
        chat["stream"] = True
    if rng.random() < 0.5:
        chat["max_tokens"] = rng.randrange(1, 50)
    claude = {**chat, "model": "claude-haiku-4-5", "max_tokens": 20}
    gemini = {"contents": [{"parts": [{"text": "Hi"}]}]}
    budget = {"name": f"b{rng.randrange(5)}", "limit": "$5/day", "scope": {"team": "none"}}
    span = {
        "resourceSpans": [
            {"scopeSpans": [{"spans": [{"traceId": "0" * 31 + "1", "spanId": "0" * 15 + "1", "name": "chat"}]}]}
        ]
    }
    method, path, body = rng.choice(
        [
            ("POST", "/openai/v1/chat/completions", chat), ("POST", "/openai/v1/responses", {"model": "gpt-4o", "input": "Hi"}),
            ("POST", "/openai/v1/embeddings", {"model": "text-embedding-3-small", "input": "Hi"}),
            ("POST", "/anthropic/v1/messages", claude), ("POST", "/gemini/v1beta/models/gemini-2.5-flash:generateContent", gemini),
            ("GET", "/openai/v1/models", None), ("GET", "/tally/v1/calls?limit=5", None), ("GET", "/tally/v1/spend?by=model", None),
            ("POST", "/tally/v1/budgets", budget), ("POST", "/tally/v1/estimate", {"model": "gpt-4o", "text": "Hi"}),
            ("GET", "/metrics", None), ("POST", "/v1/traces", span), ("GET", "/healthz", None), ("GET", "/", None),
            ("GET", "/spend?by=user&period=7d", None), ("GET", "/runs", None), ("GET", "/budgets", None), ("GET", "/static/tally.css", None),
        ]
    )  # fmt: skip
    data = b"" if body is None else json.dumps(body).encode()
    lines = [
        f"{method} {path} HTTP/1.1".encode(),
        b"host: 127.0.0.1",
        b"authorization: Bearer sk-mine",
        b"connection: close",
    ]
    if rng.random() < 0.2:
        lines[2] = b"authorization: Bearer " + key.encode()
    if rng.random() < 0.3:
        lines.append(b"x-tally-tags: team=a,user=u1")
    if body is not None:
        lines += [b"content-type: application/json", b"content-length: %d" % len(data)]
    return [*lines, data]


def damaged(rng: random.Random, parts: list[bytes]) -> bytes:
    """The request with up to four things wrong."""
    for _ in range(rng.randrange(5)):
        place = rng.choice((0, len(parts) - 1, rng.randrange(len(parts))))
        part = parts[place]
        at = rng.randrange(len(part) + 1)
        kind = rng.randrange(9)
        if kind == 0:
            part = part[:at] + rng.choice(STRANGE) + part[at:]
        elif kind == 1:
            part = part[:at]
        elif kind == 2 and part:
            part = part[: at - 1] + bytes([rng.randrange(256)]) + part[at:]
        elif kind == 3:
            parts.insert(1, rng.choice(parts[1:-1]))
        elif kind == 4 and len(parts) > 3:
            del parts[rng.randrange(1, len(parts) - 1)]
            continue
        elif kind == 5:
            parts.insert(
                1, b"transfer-encoding: " + rng.choice((b"chunked", b"gzip, chunked", b"identity", b"chunked, chunked"))
            )
            if rng.random() < 0.5:
                parts[-1] = b"%x\r\n%s\r\n0\r\n\r\n" % (len(parts[-1]), parts[-1])
            continue
        elif kind == 6:
            parts.insert(1, rng.choice((b"content-encoding: gzip", b"content-encoding: br", b"expect: 100-continue", b"upgrade: websocket",
                                        b"origin: http://evil.example", b"sec-fetch-site: cross-site", b"x-tally-run: " + b"r" * 300,
                                        b"host: evil.example", b"range: bytes=0-", b"content-length: -1", b"content-length: 99999999999")))  # fmt: skip
            continue
        elif kind == 7:
            words = part.split(b"/")
            rng.shuffle(words)
            part = b"/".join(words)
        elif kind == 8:
            part = part * rng.randrange(2, 30)
        parts[min(place, len(parts) - 1)] = part
    return b"\r\n".join(parts[:-1]) + b"\r\n\r\n" + parts[-1]


def sent(port: int, data: bytes) -> int | None:
    """The status of the answer; 0 for a connection that was closed without one; None where nothing ends."""
    end = time.monotonic() + HANG
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
            sock.sendall(data)
            head, open_ended = b"", True
            while time.monotonic() < end:
                try:
                    rest = sock.recv(65536)
                except TimeoutError:
                    if not open_ended:
                        return None
                    # It keeps the connection, or waits for more of the request: there is no more.
                    sock.shutdown(socket.SHUT_WR)
                    sock.settimeout(HANG)
                    open_ended = False
                    continue
                if not rest:
                    break
                head = head or rest
            else:
                return None
    except TimeoutError:
        return None
    except OSError:
        return 0
    return int(head[9:12]) if head.startswith(b"HTTP/1.1 ") else 0


class Attack:
    """Requests from several threads, each with a seed of its own."""

    def __init__(self, port: int, key: str, count: int, seed: int) -> None:
        self.port, self.key, self.left, self.seed = port, key, count, seed
        self.statuses: Counter[int] = Counter()
        self.bad: list[tuple[str, bytes]] = []
        self.lock = threading.Lock()

    def run(self, number: int) -> None:
        """Sends until there are none left, or too much is wrong."""
        rng = random.Random(f"{self.seed}-{number}")
        while True:
            with self.lock:
                if self.left <= 0 or len(self.bad) >= 10:
                    return
                self.left -= 1
            data = damaged(rng, good(rng, self.key))
            status = sent(self.port, data)
            with self.lock:
                self.statuses[status or 0] += 1
                if status is None or status == 500:
                    self.bad.append(("500" if status else "no end", data))


def resident(pid: int) -> int:
    """Resident memory of a process, bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    parser = argparse.ArgumentParser(description="Mutated requests against tally up.")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--clients", type=int, default=32)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Simulator() as simulator:
        env = {
            **os.environ,
            "TALLY_LEDGER": f"{folder}/ledger.db",
            "TALLY_CONFIG": f"{folder}/none.toml",
            "HOME": folder,
            "OPENAI_API_KEY": "sk-x",
        }
        Path(env["TALLY_CONFIG"]).write_text("")
        tally = (
            [sys.executable, "-m", "tallystick.cli"]
            if Path(sys.executable).with_name("tally").exists() is False
            else [str(Path(sys.executable).with_name("tally"))]
        )
        run = lambda *words: subprocess.run([*tally, *words], env=env, capture_output=True, text=True, check=True)  # noqa: E731
        run("budget", "add", "team-a", "--limit", "$1000/day", "--scope", "team=a")
        key = json.loads(run("keys", "create", "--team", "a", "--json").stdout)
        token = next(value for value in key.values() if isinstance(value, str) and value.startswith("tly_"))
        errors = Path(folder, "stderr")
        with errors.open("wb") as log:
            gateway = subprocess.Popen(
                [*tally, "up", "--port", "0", "--json", "--upstream", f"openai={simulator.openai_url}", "--upstream",
                 f"anthropic={simulator.anthropic_url}", "--upstream", f"gemini={simulator.gemini_url}"],
                env=env, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
            assert gateway.stdout is not None
            port = int(json.loads(gateway.stdout.readline())["url"].rpartition(":")[2])
            attack = Attack(port, token, options.requests, options.seed)
            begun = time.monotonic()
            before = resident(gateway.pid)
            threads = [threading.Thread(target=attack.run, args=(number,)) for number in range(options.clients)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            spent = time.monotonic() - begun
            alive = (
                gateway.poll() is None
                and sent(port, b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n") == 200
            )
            after = resident(gateway.pid) if alive else 0
            gateway.send_signal(signal.SIGTERM)
            ended = gateway.wait(60)
        said = errors.read_text(errors="replace")
        verified = subprocess.run([*tally, "ledger", "verify"], env=env, capture_output=True, text=True, check=False)
    answered = ", ".join(f"{status or 'closed'}: {count:,}" for status, count in sorted(attack.statuses.items()))
    print(f"{sum(attack.statuses.values()):,} requests in {spent:.0f} s; {answered}")
    print(
        f"resident {before / 1e6:.0f} MB before, {after / 1e6:.0f} MB after; ended with {ended}; verify: {verified.stdout.strip().splitlines()[-1:]}"
    )
    for what, data in attack.bad:
        print(what, data[:600])
    trace = "Traceback" in said
    if trace:
        print(said[-4000:])
    return int(bool(attack.bad) or trace or not alive or ended != 0 or verified.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
