"""How much a gateway costs: processor time for each request and each streamed chunk, added delay, memory, time to ready.

Ours writes every call into its ledger; the floor is a relay that does nothing but pass bytes. Peers are measured where
their virtual environments are (build/peers/tensorzero, build/peers/litellm). All have the same simulated provider; the
rounds are interleaved. Where there are two processors the gateways have one of them, provider and clients the other;
processor time is that of the process and all its threads, as the scheduler counts it in nanoseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "build" / "peers"
HELLO = [{"role": "user", "content": "Hello, how are you today?"}]
PAGE = os.sysconf("SC_PAGE_SIZE")
UP = "from tallystick.cli.up import command; command()"

FLOOR = """
import asyncio, httptools, sys, uvloop
port, target = int(sys.argv[1]), int(sys.argv[2])
class Up(asyncio.Protocol):
    def __init__(self, down): self.down = down
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data): self.parser.feed_data(data); self.down.transport.write(data)
    def connection_lost(self, exc): self.down.transport.close()
    def on_message_complete(self): self.down.up = self
class Down(asyncio.Protocol):
    up = None
    def connection_made(self, transport):
        self.transport, self.parser, self.parts = transport, httptools.HttpRequestParser(self), []
    def data_received(self, data): self.parts.append(data); self.parser.feed_data(data)
    def on_message_complete(self): asyncio.ensure_future(self.send(b"".join(self.parts))); self.parts = []
    async def send(self, data):
        if self.up is None:
            _, self.up = await loop.create_connection(lambda: Up(self), "127.0.0.1", target)
        self.up.parser = httptools.HttpResponseParser(self.up)
        self.up.transport.write(data.replace(b"/openai/v1", b"/v1", 1))
async def main():
    global loop
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Down, "127.0.0.1", port)
    await server.serve_forever()
uvloop.run(main())
"""

TENSORZERO = """
import sys, time
from tensorzero import tensorzero
gateway = tensorzero._start_http_gateway(
    config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
)
print(gateway.base_url, flush=True)
time.sleep(3600)
"""


class Server:
    """One gateway under measurement: a process, and where it takes a chat."""

    def __init__(self, name, process, port, path, model="gpt-4o"):
        self.name = name
        self.process = process
        self.port = port
        self.path = path
        self.model = model
        self.ready = 0.0

    def cpu(self):
        """Seconds of processor time so far, children included."""
        return sum(_cpu(pid) for pid in family(self.process.pid))

    def rss(self):
        """Resident memory in bytes."""
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE for pid in family(self.process.pid))


def _cpu(pid):
    found = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found += int((task / "schedstat").read_text().split()[0])
    return found / 1e9


@contextlib.contextmanager
def on_core(number):
    """What is started inside runs on one processor, if there are several."""
    before = os.sched_getaffinity(0)
    cores = sorted(before)
    os.sched_setaffinity(0, {cores[number]} if len(cores) > 1 else before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def family(pid):
    """A process and its children."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def free_port():
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def launch(words, stack, **options):
    """Starts a process that is ended with the benchmark."""
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, **options
    )

    def end():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)

    stack.callback(end)
    return process


def wait_for(port, seconds=60.0):
    """Returns when somebody listens at a port."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.005)
    raise SystemExit(f"Nobody listens at {port}.")


def start_simulator(stack, *words):
    """A simulated provider as a process of its own; its port."""
    port = free_port()
    launch(
           [sys.executable, "-c", "from tallystick.cli.simulate import command; command()", "--port", str(port), *words],
           stack, stdout=subprocess.DEVNULL)  # fmt: skip
    wait_for(port)
    return port


def start_ours(stack, upstream, folder):
    """`tally up` with its ledger on disk."""
    port = free_port()
    env = {**os.environ, "HOME": folder, "XDG_DATA_HOME": folder, "XDG_CONFIG_HOME": folder}
    words = ["--port", str(port), "--upstream", f"openai=http://127.0.0.1:{upstream}/v1"]
    begun = time.perf_counter()
    process = launch([sys.executable, "-c", UP, *words], stack, stdout=subprocess.PIPE, env=env)
    process.stdout.readline()
    server = Server("tallystick, ledger on", process, port, "/openai/v1/chat/completions")
    server.ready = time.perf_counter() - begun
    return server


def start_floor(stack, upstream, _folder):
    """A relay that passes bytes and does nothing else."""
    port = free_port()
    begun = time.perf_counter()
    process = launch([sys.executable, "-c", FLOOR, str(port), str(upstream)], stack, stdout=subprocess.DEVNULL)
    wait_for(port)
    server = Server("bytes only (uvloop, httptools)", process, port, "/openai/v1/chat/completions")
    server.ready = time.perf_counter() - begun
    return server


def start_tensorzero(stack, upstream, folder):
    """TensorZero's gateway (Rust) without a database."""
    python = PEERS / "tensorzero" / "bin" / "python"
    if not python.exists():
        return None
    config = Path(folder) / "tensorzero.toml"
    config.write_text(
        "[gateway]\nobservability.enabled = false\n[models.sim]\nrouting = ['sim']\n[models.sim.providers.sim]\n"
        f"type = 'openai'\nmodel_name = 'gpt-4o'\napi_base = 'http://127.0.0.1:{upstream}/v1/'\napi_key_location = 'none'\n"
    )
    begun = time.perf_counter()
    process = launch([str(python), "-c", TENSORZERO, str(config)], stack, stdout=subprocess.PIPE, text=True)
    line = next((line.strip() for line in process.stdout if line.startswith("http")), None)
    if line is None:
        return None
    # Whatever else it has to say must not fill the pipe.
    threading.Thread(target=process.stdout.read, daemon=True).start()
    server = Server("TensorZero (Rust), no database", process, urlsplit(line).port, "/openai/v1/chat/completions")
    server.model = "tensorzero::model_name::sim"
    server.ready = time.perf_counter() - begun
    return server


def start_litellm(stack, upstream, folder):
    """LiteLLM's proxy without a database."""
    program = PEERS / "litellm-proxy" / "bin" / "litellm"
    if not program.exists():
        return None
    config = Path(folder) / "litellm.yaml"
    config.write_text(
        "model_list:\n- model_name: gpt-4o\n  litellm_params:\n    model: openai/gpt-4o\n"
        f"    api_base: http://127.0.0.1:{upstream}/v1\n    api_key: none\n"
    )
    port = free_port()
    begun = time.perf_counter()
    env = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    words = [str(program), "--config", str(config), "--port", str(port), "--host", "127.0.0.1"]
    process = launch(words, stack, stdout=subprocess.DEVNULL, env=env)
    wait_for(port)
    server = Server("LiteLLM proxy, no database", process, port, "/chat/completions")
    server.ready = time.perf_counter() - begun
    return server


class Client(asyncio.Protocol):
    """A client that counts bytes and messages: one request after the other on one connection."""

    def __init__(self):
        import httptools

        self.parser = httptools.HttpResponseParser(self)
        self.status = 0

    def connection_made(self, transport):
        """Connected."""
        self.transport = transport

    def data_received(self, data):
        """More of an answer."""
        self.parser.feed_data(data)

    def connection_lost(self, _exc):
        """Closed."""
        if not self.done.done():
            self.done.set_exception(ConnectionError("the gateway closed the connection"))

    def on_message_complete(self):
        """An answer is complete."""
        if self.parser.get_status_code() != 200:
            self.done.set_exception(AssertionError(f"status {self.parser.get_status_code()}"))
        elif not self.done.done():
            self.done.set_result(None)

    async def ask(self, request):
        """One request and its whole answer; seconds."""
        self.done = asyncio.get_running_loop().create_future()
        begun = time.perf_counter()
        self.transport.write(request)
        await self.done
        return time.perf_counter() - begun


async def drive(port, request, connections, each):
    """So many requests on so many connections; the seconds of each."""
    loop = asyncio.get_running_loop()

    async def one():
        transport, client = await loop.create_connection(Client, "127.0.0.1", port)
        found = [await client.ask(request) for _ in range(each)]
        client.done = loop.create_future()
        client.done.set_result(None)
        transport.close()
        return found

    return [seconds for part in await asyncio.gather(*(one() for _ in range(connections))) for seconds in part]


def request_for(server, *, stream, size=0):
    """The bytes of a chat; `size` is about that of its prompt."""
    value = {
        "model": server.model,
        "messages": HELLO if not size else [{"role": "user", "content": "ab " * (size // 3)}],
    }
    if stream:
        value |= {"stream": True, "stream_options": {"include_usage": True}}
    body = json.dumps(value).encode()
    head = f"POST {server.path} HTTP/1.1\r\nhost: 127.0.0.1:{server.port}\r\ncontent-type: application/json\r\n"
    return f"{head}authorization: Bearer none\r\naccept: */*\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def microseconds(server, connections, each, *, stream, per, size=0):
    """Processor time in microseconds for each of `per` things per request."""
    before = server.cpu()
    asyncio.run(drive(server.port, request_for(server, stream=stream, size=size), connections, each))
    return (server.cpu() - before) / (connections * each * per) * 1e6


STARTS = (start_ours, start_floor, start_tensorzero, start_litellm)


def main():
    """Measures and prints a table."""
    import uvloop

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--tokens", type=int, default=200, help="chunks of a stream")
    parser.add_argument("--delay", type=float, default=10.0, help="milliseconds between chunks")
    parser.add_argument("--size", type=int, default=0, help="bytes of a prompt")
    parser.add_argument("--only", help="part of a name")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        with on_core(1):
            plain = start_simulator(stack, "--output-tokens", "20")
            paced = start_simulator(stack, "--output-tokens", str(options.tokens), "--chunk-delay", str(options.delay))
        rows = {}
        for name, port in (("whole", plain), ("paced", paced)):
            place = Path(folder) / name
            place.mkdir()
            for start in STARTS:
                if options.only and options.only not in start.__name__:
                    continue
                with on_core(0):
                    server = start(stack, port, str(place))
                if server is not None:
                    rows.setdefault(server.name, {})[name] = server
        stack.enter_context(on_core(1))
        direct = Server("direct", None, plain, "/v1/chat/completions")
        figures = {name: {"request": [], "chunk": [], "p50": [], "p99": []} for name in rows}
        for pair in rows.values():
            for server in pair.values():
                asyncio.run(drive(server.port, request_for(server, stream=server is pair["paced"]), 4, 10))
        for _ in range(options.rounds):
            bare = sorted(asyncio.run(drive(direct.port, request_for(direct, stream=False), 1, 500)))
            for name, pair in rows.items():
                found = figures[name]
                found["request"].append(
                    microseconds(pair["whole"], 8, options.requests // 8, stream=False, per=1, size=options.size)
                )
                found["chunk"].append(microseconds(pair["paced"], 16, 2, stream=True, per=options.tokens))
                took = sorted(asyncio.run(drive(pair["whole"].port, request_for(pair["whole"], stream=False), 1, 500)))
                found["p50"].append((took[250] - bare[250]) * 1e6)
                found["p99"].append((took[495] - bare[495]) * 1e6)
        print(
            f"{'':<32}{'us CPU/request':>15}{'us CPU/chunk':>14}{'added p50 us':>14}{'added p99 us':>14}{'MB':>8}{'ready s':>9}"
        )
        for name, found in figures.items():
            middle = {key: statistics.median(values) for key, values in found.items()}
            server = rows[name]["whole"]
            print(
                f"{name:<32}{middle['request']:>15.1f}{middle['chunk']:>14.1f}{middle['p50']:>14.0f}"
                f"{middle['p99']:>14.0f}{server.rss() / 2**20:>8.0f}{server.ready:>9.2f}"
            )


if __name__ == "__main__":
    main()
