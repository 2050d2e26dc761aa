"""When things break: the ledger, our own code, the process. The call goes on, and nothing is lost."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tallystick.defaults import catalog
from tallystick.errors import LedgerUnavailable
from tallystick.ledger.ids import new_call_id
from tallystick.ledger.intents import Intents, leftovers, read_flights
from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.sqlite import SqliteLedger
from tallystick.metering.meter import Meter
from tallystick.metering.repair import Repaired, repair
from tallystick.metering.spool import Spool, spool_folders

URL = "https://api.openai.com/v1/chat/completions"
REQUEST = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}).encode()
STREAM = json.dumps({"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}).encode()
ANSWER = json.dumps(
    {
        "id": "c-1",
        "model": "gpt-4o",
        "choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }
).encode()
WIRE = Path(__file__).parents[1] / "data" / "wire"
NOW = datetime(2026, 11, 22, tzinfo=UTC)


class Broken:
    """A ledger on a full disk: it refuses at once, or some time later."""

    def __init__(self, later):
        self.later = later

    def submit(self, items, *, durable=False):
        error = LedgerUnavailable("The disk is full.")
        if not self.later:
            raise error
        future = Future()
        future.set_exception(error)
        return future


def run_call(meter, request=REQUEST, answer=ANSWER, kind="application/json", step=10**9):
    call = meter.call("POST", URL, {"content-type": "application/json"}, request)
    call.ask().result()
    call.outgoing()
    call.answered(200, {"content-type": kind})
    out = b"".join(call.feed(answer[at : at + step]) for at in range(0, len(answer), step)) + call.close()
    return call, out


@pytest.mark.parametrize("later", [False, True])
def test_a_ledger_that_takes_nothing_is_told_once_and_the_entries_are_kept(tmp_path, caplog, later):
    ledger_file = tmp_path / "ledger.db"
    folders = spool_folders(ledger_file, None)
    meter = Meter(Broken(later), catalog, spool=Spool(folders))
    with caplog.at_level(logging.WARNING, logger="tallystick"):
        calls = [run_call(meter)[0] for _ in range(3)]
    assert all(call.settled.result().written == 0 for call in calls)
    assert meter.missed == 3
    assert len(caplog.records) == 1
    assert "tally ledger repair" in caplog.text
    [file] = folders[0].iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert folders[0].stat().st_mode & 0o777 == 0o700
    with file.open("ab") as handle:
        handle.write(b'{"broken\n')
    with SqliteLedger(ledger_file) as ledger:
        assert repair(ledger, ledger_file, folders, catalog, NOW) == Repaired(spooled=3, unread=1)
        assert {entry.call_id for entry in ledger.read()} == {call.call_id for call in calls}
        assert {entry.usage["output"] for entry in ledger.read()} == {10}
        # The file with the broken line stays; what was read from it is known by now.
        assert repair(ledger, ledger_file, folders, catalog, NOW) == Repaired(known=3, unread=1)


def test_without_any_place_for_it_an_entry_is_lost_but_counted(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    meter = Meter(Broken(False), catalog, spool=Spool((blocked / "spool",)))
    assert run_call(meter)[1] == ANSWER
    assert meter.missed == 1


@pytest.mark.parametrize("seam", ["ids", "catalog", "reader", "take", "close"])
def test_wherever_metering_breaks_the_bytes_pass(monkeypatch, seam):
    def broken(*args, **options):
        raise ZeroDivisionError(seam)

    body = (WIRE / "chat_with_usage.sse").read_bytes()
    with MemoryLedger() as ledger:
        options = {"ids": broken} if seam == "ids" else {}
        meter = Meter(ledger, broken if seam == "catalog" else catalog, stream_usage=False, **options)
        if seam == "reader":
            monkeypatch.setattr("tallystick.metering.callmeter.reader_for", broken)
        elif seam in ("take", "close"):
            monkeypatch.setattr(f"tallystick.metering.callmeter.Reader.{seam}", broken)
        call = meter.call("POST", URL, {}, STREAM)
        if seam == "ids":
            assert call is None
            assert meter.faults.counts == {"call": 1}
            return
        call.ask()
        assert call.outgoing() is None
        assert call.answered(200, {"content-type": "text/event-stream"}) is None
        out = b"".join(call.feed(body[at : at + 100]) for at in range(0, len(body), 100)) + call.close()
        call.settled.result()
        assert out == body
        assert meter.faults.total >= 1
        entries = list(ledger.read())
        assert [entry.quality for entry in entries] == ([] if seam == "catalog" else ["unknown"])


def test_calls_in_flight_can_be_seen_and_go_when_they_are_written(tmp_path):
    folder = tmp_path / "ledger.db.flight"
    intents = Intents(folder, new_call_id)
    with MemoryLedger() as ledger:
        meter = Meter(ledger, catalog, intents=intents, ticks=iter(range(10**6)).__next__)
        call = meter.call("POST", URL, {}, STREAM)
        assert read_flights(folder) == []
        call.ask()
        body = (WIRE / "chat_with_usage.sse").read_bytes()
        call.answered(200, {"content-type": "text/event-stream"})
        call.feed(body[:1500])
        [flight] = read_flights(folder)
        assert (flight.call_id, flight.model, flight.provider, flight.alive) == (call.call_id, "gpt-4o", "openai", True)
        assert flight.response_bytes > 0
        assert flight.pico > 0
        with leftovers(folder) as found:
            assert found == []
        call.feed(body[1500:])
        call.close()
        assert read_flights(folder) == []
        many = [meter.call("POST", URL, {}, REQUEST) for _ in range(300)]
        for one in many:
            one.ask()
        assert len(read_flights(folder)) == 300
        meter.close()
        assert list(folder.iterdir()) == []


def test_without_a_place_for_intents_calls_go_on(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with MemoryLedger() as ledger:
        meter = Meter(ledger, catalog, intents=Intents(blocked / "flight", new_call_id))
        run_call(meter)
        assert len(list(ledger.read())) == 1
        assert meter.faults.counts == {}


CHILD = """
import sys, time
from pathlib import Path
from tallystick.capture.process import make_meter
from tallystick.defaults import open_ledger
place = Path(sys.argv[1])
meter = make_meter(open_ledger(place), place)
body = Path(sys.argv[2]).read_bytes()
request = b'{"model": "gpt-4o", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'
def start():
    call = meter.call("POST", "https://api.openai.com/v1/chat/completions", {}, request)
    call.ask(); call.outgoing(); call.answered(200, {"content-type": "text/event-stream"})
    return call
done = start(); done.feed(body); done.close(); done.settled.result()
half = start()
for at in range(0, 1200, 50):
    half.feed(body[at:at + 50]); time.sleep(0.005)
time.sleep(0.06); half.feed(body[1200:1300])
assert not half.ended
print("ready", flush=True)
time.sleep(60)
"""


def test_after_a_kill_every_call_has_its_entry_or_its_intent(tmp_path):
    place = tmp_path / "ledger.db"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(place), str(WIRE / "chat_with_usage.sse")],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert child.stdout.readline() == "ready\n"
    folder = place.with_name("ledger.db.flight")
    assert [flight.alive for flight in read_flights(folder)] == [True]
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert [flight.alive for flight in read_flights(folder)] == [False]
    with SqliteLedger(place) as ledger:
        [finished] = ledger.read()
        assert (finished.status, finished.quality) == ("ok", "exact")
        assert repair(ledger, place, spool_folders(place, None), catalog, NOW) == Repaired(cut=1)
        _, cut = ledger.read()
        assert (cut.status, cut.stopped_by) == ("cut", "killed")
        assert cut.quality in ("lower_bound", "unknown")
        assert repair(ledger, place, spool_folders(place, None), catalog, NOW) == Repaired()
        assert ledger.verify() == []
    assert list(folder.iterdir()) == []


def test_a_read_only_folder_does_not_stop_a_call(tmp_path, monkeypatch):
    if os.geteuid() == 0:
        monkeypatch.setattr(os, "open", _refusing(os.open))
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    meter = Meter(Broken(False), catalog, spool=Spool((folder / "a",)))
    assert run_call(meter)[1] == ANSWER
    assert meter.missed == 1


def _refusing(real):
    def refuse(path, flags, *more):
        if "locked" in str(path):
            raise OSError(errno.EROFS, "read-only")
        return real(path, flags, *more)

    return refuse


def test_a_clock_that_goes_backwards_gives_no_negative_times():
    seconds = iter([100.0, 50.0, 20.0, 10.0, 5.0, *([1.0] * 100)])
    with MemoryLedger() as ledger:
        meter = Meter(ledger, catalog, clock=lambda: next(seconds), ticks=time.monotonic)
        run_call(meter)
        [entry] = ledger.read()
    assert entry.latency_us >= 0
