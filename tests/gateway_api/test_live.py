"""The stream of events: calls of any process as they happen, to listeners that keep up."""

import asyncio
import json
import subprocess
import sys
import threading
import time

from apidesk import NOW, Served, call, until

from tallystick.gateway.api.desk import Desk
from tallystick.gateway.api.live import Live
from tallystick.ledger.intents import Intents
from tallystick.ledger.memory import MemoryLedger

OTHER_PROCESS = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from tallystick.core.cost import Cost
from tallystick.core.usage import Usage
from tallystick.ledger.entry import Entry
from tallystick.ledger.intents import Intents
from tallystick.ledger.sqlite import SqliteLedger
intents = Intents(Path(sys.argv[2]), lambda: "other-1")
slot = intents.open("call-far", int(time.time() * 1e6), ("openai", "openai.chat", "model-a", "elsewhere"))
slot.move(0, 100, 7, 56_000_000)
input()
with SqliteLedger(Path(sys.argv[1])) as ledger:
    at = datetime(2020, 1, 1, tzinfo=UTC)
    ledger.append([Entry(call_id="call-far", started_at=at, provider="openai", model="model-a", source="client",
                         usage=Usage(input=1), cost=Cost((), 5))])
slot.free()
intents.close()
"""


class Ear:
    """Listens in a thread."""

    def __init__(self, served):
        self.held = served.connect()
        self.held.request("GET", "/tally/v1/live")
        self.answer = self.held.getresponse()
        self.heard = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._listen)
        self.thread.start()

    def _listen(self):
        kind = None
        try:
            while line := self.answer.readline():
                if line.startswith(b"event: "):
                    kind = line[7:].strip().decode()
                elif line.startswith(b"data: "):
                    self.heard.append((kind, json.loads(line[6:])))
        except (OSError, ValueError, AttributeError):
            pass
        self.ended.set()

    def of(self, kind):
        return [value for one, value in self.heard if one == kind]

    def close(self):
        if self.held.sock is not None:
            self.held.sock.shutdown(2)
        self.thread.join(20)
        self.answer.close()
        self.held.close()


def test_calls_are_told_as_they_happen_and_nobody_looks_when_nobody_listens(served, ledger):
    assert not served.rooms.live.watching
    ear = Ear(served)
    try:
        assert ear.answer.headers["content-type"] == "text/event-stream"
        assert until(lambda: ear.of("heartbeat"))
        (hello,) = ear.of("hello")
        assert hello["schema"] == 1
        assert len(hello["last"]) == 10
        assert hello["minute"]["calls"] == 12
        ledger.append([call(700 + number, ago=-1) for number in range(3)])
        assert until(lambda: len(ear.of("call")) == 3)
        assert [row["call_id"] for row in ear.of("call")] == ["call-700", "call-701", "call-702"]
        assert until(lambda: ear.of("spend")[-1]["minute"]["calls"] == 15)
        assert served.rooms.live.watching
    finally:
        ear.close()
    assert until(lambda: served.rooms.live.listeners == 0)
    assert until(lambda: not served.rooms.live.watching)


def test_two_listeners_share_one_look_and_hear_the_same(served, ledger):
    ears = [Ear(served), Ear(served)]
    try:
        assert until(lambda: served.rooms.live.listeners == 2)
        assert until(lambda: all(ear.of("hello") for ear in ears))
        assert until(lambda: ears[0].of("heartbeat"))
        ledger.append([call(710, ago=-1)])
        assert until(lambda: all(ear.of("call") for ear in ears))
        assert ears[0].of("call") == ears[1].of("call")
    finally:
        for ear in ears:
            ear.close()


def test_a_call_of_another_process_is_seen_in_flight_and_ended(served, ledger, tmp_path):
    ledger.flush()
    ear = Ear(served)
    words = [sys.executable, "-c", OTHER_PROCESS, str(tmp_path / "ledger.db"), str(tmp_path / "ledger.db.flight")]
    other = subprocess.Popen(words, stdin=subprocess.PIPE, env={"PYTHONPATH": "src"}, text=True)
    try:
        assert until(lambda: any(one["count"] for one in ear.of("flights")))
        flying = next(one for one in ear.of("flights") if one["count"])
        assert flying["in_flight"][0]["call_id"] == "call-far"
        assert flying["cost"] == {"usd": "0.000056"}
        other.communicate("\n", timeout=30)
        assert other.returncode == 0
        # It began before everything that is known, and is found all the same.
        assert until(lambda: [row["call_id"] for row in ear.of("call")] == ["call-far"])
        assert until(lambda: ear.of("flights")[-1]["count"] == 0)
    finally:
        ear.close()
        other.kill()
        other.wait()


def test_the_server_ends_while_somebody_listens(ledger, tmp_path):
    with Served(ledger, tmp_path / "flights") as served:
        ear = Ear(served)
        assert until(lambda: ear.of("hello"))
    assert ear.ended.wait(20)
    ear.close()


def test_a_listener_that_does_not_keep_up_is_let_go():
    async def play():
        ledger = MemoryLedger()
        room = Live(Desk(ledger, None, lambda: NOW), pause=0.01, waiting=3)
        sent, stuck = [], asyncio.Event()

        async def receive():
            await asyncio.Event().wait()

        async def send(message):
            sent.append(message)
            if message["type"] == "http.response.body":
                stuck.set()
                await asyncio.Event().wait()

        serving = asyncio.create_task(room({"type": "http"}, receive, send))
        await stuck.wait()
        number = 0
        while not serving.done():
            ledger.append([call(number, ago=-number)])
            number += 1
            await asyncio.sleep(0.02)
            assert number < 500
        await serving
        assert room.listeners == 0
        await room._watching
        ledger.close()
        return sent

    sent = asyncio.run(play())
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]


def test_trouble_with_the_ledger_is_told_and_the_stream_goes_on(served, ledger):
    ear = Ear(served)
    try:
        assert until(lambda: ear.of("heartbeat"))
        ledger.close()
        assert until(lambda: ear.of("trouble"))
        assert not ear.ended.is_set()
        status, _, body = served.ask("GET", "/tally/v1/live")
        assert (status, b"LedgerUnavailable" in body) == (503, True)
    finally:
        ear.close()


def test_a_slot_that_moves_is_told_again(served, tmp_path):
    intents = Intents(tmp_path / "ledger.db.flight", lambda: "tests-2")
    slot = intents.open("call-901", int(time.time() * 1e6), ("openai", "openai.chat", "model-a", ""))
    ear = Ear(served)
    try:
        assert until(lambda: ear.of("hello"))
        slot.move(0, 10, 3, 1_000_000)
        assert until(lambda: any(one["output"] == 3 for one in ear.of("flights")))
        slot.move(0, 20, 9, 2_000_000)
        assert until(lambda: any(one["output"] == 9 for one in ear.of("flights")))
    finally:
        ear.close()
        slot.free()
        intents.close()
