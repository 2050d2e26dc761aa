"""What the tests of the gateway's own rooms stand on: calls, and a server in a thread."""

import http.client
import json
import threading
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal as D
from urllib.parse import quote, urlencode

from tallystick.catalog.catalog import Catalog
from tallystick.config import user_card
from tallystick.core.attribution import Tags
from tallystick.core.cost import Cost
from tallystick.core.usage import Usage
from tallystick.gateway.api.rooms import OwnRooms
from tallystick.gateway.app import Gateway, House
from tallystick.gateway.config import Settings
from tallystick.gateway.serving import bind, serving
from tallystick.ledger.entry import Correction, Entry

NOW = datetime(2026, 11, 21, 12, 34, 56, tzinfo=UTC)
JSON = {"content-type": "application/json"}


def catalog():
    return Catalog.bundled().with_user(
        [
            user_card("model-a", {"input": D(2), "output": D(8), "cache_read": D("0.5")}, provider="openai"),
            user_card("model-b", {"input": D(1), "output": D(4)}, provider="anthropic"),
        ]
    )


def call(number, *, ago=0, pico=1_000_000_000, **fields):
    values = {
        "call_id": f"call-{number:03d}",
        "started_at": NOW - timedelta(seconds=ago),
        "settled_at": NOW - timedelta(seconds=ago) + timedelta(milliseconds=800),
        "provider": "openai",
        "model": "model-a",
        "usage": Usage(input=100, cache_read=40, output=10, reasoning=5),
        "cost": None if pico is None else Cost((), pico),
        "source": "client",
        "latency_us": 800_000,
        "ttft_us": 120_000,
        **fields,
    }
    if isinstance(values.get("tags"), dict):
        values["tags"] = Tags(values["tags"])
    return Entry(**values)


def filled(ledger):
    """Forty calls: two models, two teams, a run with steps and a run below it, one unpriced, one refused."""
    entries = [
        call(number, ago=60 * number, tags={"team": "a" if number % 2 else "b", "user": f"u{number}"})
        for number in range(30)
    ]
    entries += [call(30 + n, ago=5 + n, run_id="research", step=("plan", "write")[n % 2]) for n in range(4)]
    entries += [
        call(40 + n, ago=3, run_id="look/up", parent_run="research", provider="anthropic", model="model-b")
        for n in range(3)
    ]
    entries.append(call(50, ago=2, run_id="deep", parent_run="look/up"))
    entries.append(call(51, ago=1, pico=None, model="model-unheard-of"))
    entries.append(call(52, ago=1, status="refused", http_status=429, usage=None, quality="unknown", pico=None))
    ledger.append(entries)
    fix = Correction(
        correction_id="fix-1",
        corrects="call-001",
        recorded_at=NOW,
        reason="a rate was wrong",
        fields={"tags": {"team": "c"}},
    )
    ledger.append([fix])


class Served:
    """The rooms behind the gateway's fence, on a port of this machine."""

    def __init__(self, ledger, flights, **more):
        self.rooms = OwnRooms(ledger, catalog, flights=flights, **{"now": lambda: NOW, **more})
        settings = Settings(upstreams={})
        self.gateway = Gateway(House(settings=settings, relay=None, mounts=self.rooms.mounts))
        self.socket = bind("127.0.0.1", 0)
        self.port = self.socket.getsockname()[1]
        self.server = None
        self.problems = []

    def __enter__(self):
        started = threading.Event()
        self.server = serving(self.gateway, started.set)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        assert started.wait(30)
        return self

    def _run(self):
        self.server.run(sockets=[self.socket])

    def __exit__(self, *_):
        self.rooms.close()
        self.server.should_exit = True
        self.thread.join(60)
        self.socket.close()
        assert not self.thread.is_alive()

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def ask(self, method, path, body=None, headers=None, **query):
        """The status, the headers and the raw body of an answer."""
        text = path + (f"?{urlencode(query, doseq=True)}" if query else "")
        held = self.connect()
        try:
            held.request(method, text, body, headers or {})
            answer = held.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            held.close()

    def get(self, path, **query):
        """The status and the decoded body of a question."""
        status, headers, body = self.ask("GET", f"/tally/v1{path}", **query)
        assert headers["content-type"] == "application/json"
        return status, json.loads(body)

    def send(self, method, path, value, **headers):
        status, _, body = self.ask(method, f"/tally/v1{path}", json.dumps(value), {**JSON, **headers})
        return status, json.loads(body)


def spelt(text):
    """A word of a path."""
    return quote(text, safe="")


def until(condition, seconds=20.0):
    """Waits until something is so; its value, or the last one that is false."""
    end = time.monotonic() + seconds
    found = condition()
    while not found and time.monotonic() < end:
        time.sleep(0.02)
        found = condition()
    return found
