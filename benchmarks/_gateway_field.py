"""The gateways of `gateway.py`: how each is started on one core before the mock, over plain HTTP or TLS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from _gateway_load import Faulty, answer, healthy, request
from _gateway_mock import MODEL
from _gateway_stand import UP, VERB, home

ROOT: Final = Path(__file__).resolve().parents[1]
PEERS: Final = ROOT / "build" / "peers"
PATIENCE: Final = 90.0
"""Seconds that a gateway has to answer for the first time."""

GATEWAY_CORE: Final = 0
LOAD_CORE: Final = 1
LIMIT: Final = "$1000000"
CHUNKS: Final = 8

_TENSORZERO: Final = """
import sys, time
from tensorzero import tensorzero
gateway = tensorzero._start_http_gateway(
    config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
)
print(gateway.base_url, flush=True)
time.sleep(86400)
"""

_NGINX: Final = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/said;
{user}
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  tcp_nodelay on;
  keepalive_requests 100000000;
  client_max_body_size 64m;
  client_body_buffer_size 256k;
  upstream provider {{ server {place}; keepalive 128; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location = /healthz {{ return 200 "ok"; }}
    location /openai/v1/ {{
      proxy_pass {scheme}://provider/v1/;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_ssl_verify on;
      proxy_ssl_trusted_certificate {ca};
      proxy_ssl_name localhost;
      proxy_ssl_server_name on;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Place:
    """Where the mock is, as a URL without a path, the certificates that a client must trust, and a folder of one's
    own."""

    url: str
    ca: Path
    folder: Path

    @property
    def tls(self) -> bool:
        """Whether it is to be asked over TLS."""
        return self.url.startswith("https:")


@dataclass(frozen=True)
class Plan:
    """How to start a gateway: words, environment, and its port, or None where it prints its address."""

    words: list[str]
    env: dict[str, str]
    port: int | None


@dataclass(frozen=True)
class Kind:
    """A gateway by name. `plan` says how to start it, or raises Faulty with the reason why it cannot be; `health` is where
    it says that it is ready, and empty where there is no such page."""

    key: str
    title: str
    plan: Callable[[Place], Plan]
    path: str = "/openai/v1/chat/completions"
    model: str = MODEL
    health: str = "/healthz"

    def chat(self, want: str, size: int = 1000) -> bytes:
        """The bytes of a chat for it."""
        return request(self.path, self.model, want, size)


def free_port() -> int:
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def plan_nginx(place: Place) -> Plan:
    """Nginx as a plain reverse proxy."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise Faulty("not installed")
    port, parts = free_port(), urlsplit(place.url)
    user = "user root;" if os.geteuid() == 0 else ""
    text = _NGINX.format(
        folder=place.folder, user=user, place=parts.netloc, scheme=parts.scheme, port=port, ca=place.ca
    )
    config = place.folder / "nginx.conf"
    config.write_text(text)
    return Plan([program, "-e", str(place.folder / "said"), "-c", str(config)], home(place.folder), port)


def plan_tensorzero(place: Place) -> Plan:
    """TensorZero's gateway from its wheel, without a database: no limits, no logging of calls."""
    python = PEERS / "tensorzero" / "bin" / "python"
    if not python.exists():
        raise Faulty("not installed")
    config = place.folder / "tensorzero.toml"
    config.write_text(
        "[gateway]\nobservability.enabled = false\n[models.sim]\nrouting = ['sim']\n[models.sim.providers.sim]\n"
        f"type = 'openai'\nmodel_name = '{MODEL}'\napi_base = '{place.url}/v1/'\napi_key_location = 'none'\n"
    )
    env = home(place.folder) | ({"SSL_CERT_FILE": str(place.ca)} if place.tls else {})
    return Plan([str(python), "-c", _TENSORZERO, str(config)], env, None)


def plan_litellm(place: Place) -> Plan:
    """LiteLLM's proxy, without a database."""
    program = PEERS / "litellm-proxy" / "bin" / "litellm"
    if not program.exists():
        raise Faulty("not installed")
    config, port = place.folder / "litellm.yaml", free_port()
    config.write_text(
        f"model_list:\n- model_name: {MODEL}\n  litellm_params:\n    model: openai/{MODEL}\n"
        f"    api_base: {place.url}/v1\n    api_key: none\n"
    )
    # Without a master key it authenticates nobody, like the others here; it wants to be told that this is meant.
    env = home(place.folder) | {
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true", "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR", **({"SSL_CERT_FILE": str(place.ca)} if place.tls else {}),
    }  # fmt: skip
    words = [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    return Plan([*words, "--telemetry", "False"], env, port)


def plan_ours(place: Place) -> Plan:
    """`tally up` with its ledger on disk."""
    port = free_port()
    config = place.folder / "tally.toml"
    config.write_text(f"[gateway]\nca = {json.dumps(str(place.ca))}\n" if place.tls else "")
    env = home(place.folder) | {"TALLY_CONFIG": str(config), "TALLY_LEDGER": str(ledger_of(place.folder))}
    words = [sys.executable, "-c", UP, "--port", str(port), "--upstream", f"openai={place.url}/v1"]
    return Plan(words, env, port)


def plan_budget(place: Place) -> Plan:
    """The same with a hard budget that is never used up."""
    plan = plan_ours(place)
    words = [sys.executable, "-c", VERB, "budget", "add", "wide", "--limit", LIMIT]
    subprocess.run(words, env=plan.env, check=True, capture_output=True)
    return plan


def ledger_of(folder: Path) -> Path:
    """The ledger of one of ours."""
    return folder / "ledger.db"


NGINX: Final = "nginx"
TENSORZERO: Final = "tensorzero"
LITELLM: Final = "litellm"
OURS: Final = "ours"
BUDGET: Final = "budget"

KINDS: Final = (
    Kind(NGINX, "nginx", plan_nginx),
    Kind(TENSORZERO, "TensorZero", plan_tensorzero, model="tensorzero::model_name::sim", health=""),
    Kind(LITELLM, "LiteLLM proxy", plan_litellm, "/chat/completions", health="/health/liveliness"),
    Kind(OURS, "tallystick", plan_ours),
    Kind(BUDGET, "tallystick, hard budget", plan_budget),
)


@dataclass
class Running:
    """A gateway that runs, with the seconds from its start until it said that it was ready, and to its first answer."""

    kind: Kind
    process: subprocess.Popen[bytes]
    folder: Path
    port: int = 0
    ready: float = 0.0
    first: float = 0.0
    asked: int = field(default=0)
    """How many chats it was to answer."""
    failed: int = field(default=0)
    """How many loads it did not bear."""

    @classmethod
    @contextlib.contextmanager
    def of(cls, kind: Kind, place: Place) -> Iterator[Self]:
        """Starts one and ends it with the block. Raises Faulty where it cannot be or does not answer."""
        place.folder.mkdir(parents=True)
        plan = kind.plan(place)
        words = ["taskset", "-c", str(GATEWAY_CORE), *plan.words]
        with (place.folder / "said").open("ab") as said:
            begun = time.perf_counter()
            process = subprocess.Popen(
                words, env=plan.env, cwd=place.folder, stdin=subprocess.DEVNULL, stderr=said, start_new_session=True,
                stdout=said if plan.port else subprocess.PIPE,
            )  # fmt: skip
        try:
            found = cls(kind, process, place.folder, plan.port or _printed_port(process))
            found._wait(begun)
            yield found
        finally:
            _end(process)

    def _wait(self, begun: float) -> None:
        """Returns when it has said that it is ready, and has answered a chat."""
        self._until(lambda: healthy(self.port, self.kind.health), begun)
        self.ready = time.perf_counter() - begun
        self._until(lambda: answer(self.port, self.kind.chat("whole")), begun)
        self.first = time.perf_counter() - begun
        self.asked += 1

    def _until(self, work: Callable[[], Coroutine[object, object, object]], begun: float) -> None:
        """Tries something until it works."""
        sick = 0.0
        while self.process.poll() is None and time.perf_counter() < begun + PATIENCE:
            try:
                asyncio.run(work())
            except OSError:
                time.sleep(0.003)
            except Faulty as error:
                sick = sick or time.perf_counter()
                if time.perf_counter() > sick + 5:
                    raise Faulty(f"does not answer: {error}") from None
                time.sleep(0.003)
            else:
                return
        raise Faulty(f"did not start: {(self.folder / 'said').read_text(errors='replace')[-300:].strip()}")

    def check(self) -> None:
        """Asks for each kind of answer and looks whether all of it arrives. Raises Faulty where it does not."""
        for want in ("whole", f"burst:{CHUNKS}", f"paced:{CHUNKS}"):
            body = asyncio.run(answer(self.port, self.kind.chat(want)))
            self.asked += 1
            words = body.count(b'"content":')
            if b'"completion_tokens":' not in body or words < (1 if want == "whole" else CHUNKS):
                raise Faulty(f"{want}: {words} parts, {body[-200:].decode(errors='replace')}")


def _printed_port(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    stdout = process.stdout
    for line in stdout:
        if line.startswith(b"http"):
            # Whatever else it has to say must not fill the pipe.
            threading.Thread(target=stdout.read, daemon=True).start()
            return int(urlsplit(line.strip()).port or 0)
    raise Faulty("said no address")


def _end(process: subprocess.Popen[bytes]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
            break
    if process.stdout is not None:
        process.stdout.close()


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """A certificate authority of our own, and a certificate and key it has given to localhost: ca, certificate, key."""
    ca, certificate, key = folder / "ca.pem", folder / "mock.pem", folder / "mock.key"
    new = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    for words in (
        ["-subj", "/CN=bench", "-keyout", str(folder / "ca.key"), "-out", str(ca),
         "-addext", "keyUsage=critical,keyCertSign"],
        ["-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate), "-CA", str(ca),
         "-CAkey", str(folder / "ca.key"), "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth"],
    ):  # fmt: skip
        subprocess.run([*new, *words], check=True, capture_output=True)
    return ca, certificate, key


@contextlib.contextmanager
def mock(certificate: Path, key: Path) -> Iterator[tuple[int, int]]:
    """The mock on the core of the load; its plain port and the one over TLS."""
    script = Path(__file__).with_name("_gateway_mock.py")
    words = ["taskset", "-c", str(LOAD_CORE), sys.executable, str(script), str(certificate), str(key)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert process.stdout is not None
        plain, safe = (int(word) for word in process.stdout.readline().split())
        yield plain, safe
    finally:
        _end(process)
