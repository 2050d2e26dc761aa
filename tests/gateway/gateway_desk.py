"""What the tests of the gateway share: one that serves in this process, `tally up` as a process, raw requests."""

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import UTC, datetime

import msgspec

from tallystick.config import Config
from tallystick.defaults import catalog
from tallystick.gateway.config import settings_of
from tallystick.gateway.keys import Key, mint, save
from tallystick.gateway.serving import bind, serving
from tallystick.gateway.station import Station

NAMES = {"openai": "openai_url", "anthropic": "anthropic_url", "gemini": "gemini_url"}
RUN = (
    "import sys; from tallystick import cli; cli.MAIN.setdefault('up', ''); cli.MORE.setdefault('keys', ''); cli.main()"
)


class Running:
    """A gateway that serves on a thread of its own."""

    def __init__(self, station, port):
        self.station = station
        self.ledger = station.ledger
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.openai = f"{self.url}/openai/v1"
        self.anthropic = f"{self.url}/anthropic"
        self.gemini = f"{self.url}/gemini"

    def entries(self, number=None, seconds=5.0):
        """The calls in the ledger, once there are so many."""
        end = threading.Event()
        for _ in range(int(seconds * 100)):
            found = list(self.ledger.read())
            if number is None or len(found) >= number:
                return found
            end.wait(0.01)
        return list(self.ledger.read())

    def key(self, **fields):
        """A virtual key of this gateway's ledger."""
        key_id, token, digest = mint(os.urandom)
        save(self.ledger, Key(key_id=key_id, digest=digest, created_at=datetime.now(UTC), **fields))
        return token

    def change(self, **fields):
        """Settings that are different from now on."""
        house = self.station.gateway.house
        self.station.gateway.house = msgspec.structs.replace(
            house, settings=msgspec.structs.replace(house.settings, **fields)
        )


@contextmanager
def started(ledger, upstreams, *, env=None, gateway=None, budgets=None, config=None, **options):
    """A gateway in this process."""
    made = config or Config(gateway=gateway or {}, budgets=budgets or {})
    station = Station(ledger, catalog, lambda: (made, settings_of(made, env or {}, given=upstreams)), **options)
    listening = bind("127.0.0.1", 0)
    ready = threading.Event()
    server = serving(station.gateway, ready.set)
    thread = threading.Thread(target=lambda: server.run(sockets=[listening]))
    thread.start()
    try:
        assert ready.wait(10)
        yield Running(station, listening.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(40)
        listening.close()
    assert not thread.is_alive()
    if station.meter is not None:
        assert station.meter.faults.counts == {}
    assert station.keys.faults == 0


def request(port, head, body=b""):
    """Sends raw bytes and reads until the other side closes: status, headers by name, body as it came."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.sendall(head.encode("latin-1").replace(b"\n", b"\r\n") + b"\r\n" + body)
        received = b""
        while chunk := sock.recv(65536):
            received += chunk
    top, _, rest = received.partition(b"\r\n\r\n")
    first, *lines = top.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]), headers, rest


def post(port, path, value, extra=""):
    """A raw POST of JSON that ends its connection."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    head = f"POST {path} HTTP/1.1\nhost: 127.0.0.1:{port}\ncontent-type: application/json\nconnection: close\n"
    return request(port, f"{head}{extra}content-length: {len(body)}\n", body)


@contextmanager
def up(folder, *words, env=None, **options):
    """`tally up` as a process of its own; gives what it announced and the process."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, "up", "--port", "0", "--json", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(folder, env),
        **options,
    )
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield json.loads(line), process
    finally:
        process.terminate()
        process.communicate(timeout=60)


def environment(folder, more=None):
    """The environment of a user with an empty home, without keys and proxies."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith(("_API_KEY", "_PROXY", "_proxy"))}
    kept = {name: value for name, value in kept.items() if not name.startswith("TALLY_")}
    return {**kept, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder), **(more or {})}


def tally(folder, *words, env=None):
    """Runs another verb in the same home."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words],
        check=False,
        capture_output=True,
        text=True,
        env=environment(folder, env),
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr
