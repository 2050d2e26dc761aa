"""Thresholds: told once a period, to a real receiver and a real command, whatever goes wrong in between."""

import http.server
import json
import sys
import threading
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from tallystick.config import Alerts
from tallystick.core.cost import Cost
from tallystick.core.money import Money
from tallystick.core.usage import Usage
from tallystick.errors import ConfigError
from tallystick.ledger.entry import Entry
from tallystick.ledger.memory import MemoryLedger
from tallystick.metering.admission import BudgetAdmission
from tallystick.metering.alerts import Alerter, secret
from tallystick.metering.budgets import put
from tallystick.metering.leave import Who
from tallystick.metering.outbox import Outbox
from tallystick.metering.rules import make_budget
from tallystick.wire.facts import request_facts

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Receiver:
    """A webhook on this machine; `status` is what it answers."""

    def __init__(self):
        receiver, self.heard, self.status = self, [], 200

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.heard.append((self.headers["idempotency-key"], json.loads(body)))
                self.send_response(receiver.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_words):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def ledger():
    with MemoryLedger() as made:
        yield made


def _seconds(clock):
    return clock[0].timestamp()


def spent(ledger, number, usd="0.06", at=NOW):
    entry = Entry(
        call_id=f"c{number}", started_at=at, provider="openai", model="m", usage=Usage(input=1),
        cost=Cost((), Money.usd(usd).pico), source="client",
    )  # fmt: skip
    ledger.append([entry])


def budget(ledger, **rule):
    return put(ledger, make_budget("b", {"limit": "$0.10/day", "alerts": [50, 100], **rule}), NOW)


def test_each_threshold_is_told_once(ledger, receiver):
    spent(ledger, 1)
    found = budget(ledger)
    alerter = Alerter(ledger, Alerts(webhooks=(receiver.url,)), clock=NOW.timestamp)
    assert alerter.look([found]) == 1
    assert alerter.look([found]) == 0
    assert alerter.deliver() == (1, 0)
    assert alerter.deliver() == (0, 0)
    ((key, body),) = receiver.heard
    assert body["id"] == key
    assert body["threshold"] == 50
    assert body["text"] == (
        "Budget b has spent $0.06 of $0.10: 50 % of its limit is passed. It resets at 2026-11-23 00:00 UTC."
    )
    tomorrow = NOW + timedelta(days=1)
    spent(ledger, 2, at=tomorrow)
    later = Alerter(ledger, Alerts(webhooks=(receiver.url,)), clock=tomorrow.timestamp)
    assert later.look([found]) == 0  # nothing was charged to tomorrow's account


def test_what_fails_is_tried_again_with_the_same_key(ledger, receiver):
    spent(ledger, 1, "0.10")
    found = budget(ledger)
    told = Alerts(webhooks=(receiver.url, "env:NOWHERE"), slack=("env:SLACK",))
    receiver.status = 500
    clock = [NOW]
    alerter = Alerter(ledger, told, clock=lambda: _seconds(clock), env={"SLACK": receiver.url})
    assert alerter.look([found]) == 2
    assert alerter.deliver() == (0, 2)
    assert alerter.faults == 6
    assert alerter.deliver() == (0, 2)  # not due yet
    assert len(receiver.heard) == 4
    receiver.status = 200
    clock[0] += timedelta(minutes=1)
    assert alerter.deliver() == (0, 2)  # one target has no address, the others have got it
    again = Alerter(
        ledger, Alerts(webhooks=(receiver.url, receiver.url), slack=told.slack), clock=lambda: _seconds(clock)
    )
    assert again.deliver(at_once=True) == (2, 0)
    assert len(receiver.heard) == 10
    assert len({key for key, _ in receiver.heard}) == 2
    assert {"text"} in [set(body) for _, body in receiver.heard]


def test_a_notice_is_given_up_and_forgotten_in_time(ledger, receiver):
    spent(ledger, 1)
    found = budget(ledger)
    clock = [NOW]
    alerter = Alerter(ledger, Alerts(webhooks=("env:NOWHERE",)), clock=lambda: _seconds(clock), env={})
    alerter.look([found])
    clock[0] += timedelta(days=8)
    assert alerter.deliver() == (1, 0)
    clock[0] += timedelta(days=8)
    assert Outbox(ledger).waiting(clock[0]) == []
    assert ledger.states("outbox") == {}
    ledger.state("outbox", "odd", "{")
    assert Outbox(ledger).waiting(clock[0]) == []
    assert ledger.states("outbox") == {}


def test_a_command_gets_words_and_json_and_no_shell(ledger, tmp_path):
    spent(ledger, 1)
    found = budget(ledger, each=["user"])
    program = "import sys; open(sys.argv[1], 'w').write(sys.argv[2] + '\\n' + sys.stdin.read())"
    target = tmp_path / "told; touch x"
    alerter = Alerter(ledger, Alerts(command=(sys.executable, "-c", program, str(target))), clock=NOW.timestamp)
    alerter.look([found])
    assert alerter.deliver() == (1, 0)
    words, body = target.read_text().splitlines()
    assert words.startswith("Budget b (user=(absent)) has spent $0.06 of $0.10")
    assert json.loads(body)["value"] == "user=(absent)"


def test_secrets(tmp_path):
    (tmp_path / "hook").write_text("https://hook.example\n")
    assert secret(f"file:{tmp_path / 'hook'}", {}) == "https://hook.example"
    assert secret("env:HOOK", {"HOOK": "x"}) == "x"
    assert secret("https://plain.example", {}) == "https://plain.example"
    for text in ("env:HOOK", f"file:{tmp_path / 'none'}"):
        with pytest.raises(ConfigError):
            secret(text, {})


def test_calls_set_it_off(ledger, receiver):
    ledger.put_budget(make_budget("b", {"limit": "2 calls", "alerts": [50, 100]}))
    ledger.put_budget(make_budget("fast", {"limit": "9 calls/1m", "alerts": [10]}))
    admission = BudgetAdmission(ledger, lambda: None, alerts=Alerts(webhooks=(receiver.url,)))
    made = request_facts("POST", "https://api.openai.com/v1/chat/completions", {}, b'{"model":"m","messages":[]}')
    for number in range(2):
        admission.desk.catalog = _Nothing
        at = datetime.now(UTC)
        leave = admission.leave(f"call-{number}", made, Who(), at)
        leave.ask().result(timeout=10)
        leave.settle(
            Entry(
                call_id=f"call-{number}",
                started_at=at,
                provider="openai",
                model="m",
                usage=Usage(input=1),
                source="client",
            )
        ).result(timeout=10)
    admission.close()
    assert sorted((body["budget"], body["threshold"]) for _, body in receiver.heard) == [
        ("b", 50),
        ("b", 100),
        ("fast", 10),
    ]


class _Nothing:
    """A catalogue of no models."""

    def find(self, model, **_how):
        from tallystick.errors import UnknownModelError

        raise UnknownModelError(model)

    def resolve(self, model, _provider):
        self.find(model)


def test_notices_survive_as_they_are(ledger):
    spent(ledger, 1)
    found = budget(ledger)
    Alerter(ledger, Alerts(command=("false",)), clock=NOW.timestamp).look([found])
    (notice,) = Outbox(ledger).waiting(NOW)
    assert msgspec.json.decode(msgspec.json.encode(notice), type=type(notice)) == notice
    assert not Outbox(ledger).add(notice)
