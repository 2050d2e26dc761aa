"""tally live: calls in flight of every process on the ledger, what runs spend meanwhile, and what killed ones leave.

`UPDATE_SNAPSHOTS=1 pytest tests/cli_live/test_live_flights.py` keeps new pictures.
"""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import openai
import pytest
from livedesk import TALLY, drawn, environment, said

import tallystick
from tallystick import front
from tallystick.capture.process import make_meter
from tallystick.core.usage import Usage
from tallystick.ledger.entry import Entry
from tallystick.ledger.intents import Intents
from tallystick.ledger.query import Query
from tallystick.ledger.sqlite import SqliteLedger
from tallystick.simulator import Answer

HERE = Path(__file__).parent
NOW = datetime(2026, 11, 21, 12, 34, 56, tzinfo=UTC)
HELLO = [{"role": "user", "content": "Hello, how are you today?"}]
DRIVER = """
import sys
from datetime import UTC, datetime
from tallystick import front
front.now = lambda: datetime(2026, 11, 21, 12, 34, 56, tzinfo=UTC)
from tallystick.cli import run
sys.exit(run(sys.argv[1:]))
"""
BEGINNER = """
import sys
import openai
import tallystick
client = tallystick.track(openai.OpenAI(base_url=sys.argv[1], api_key="none"), provider="openai")
with tallystick.run("doomed"):
    hello = [{"role": "user", "content": "Hello"}]
    for chunk in client.chat.completions.create(model="gpt-4o", messages=hello, stream=True):
        print("chunk", flush=True)
"""


def words_of(number, model="gpt-4o", run=""):
    return (f"01a20000-0000-7000-8000-{number:012d}", ("openai", "openai.chat", model, run))


def begin(intents, number, seconds, model="gpt-4o", run=""):
    """A call that began so many seconds before NOW."""
    call_id, words = words_of(number, model, run)
    return intents.open(call_id, int((NOW - timedelta(seconds=seconds)).timestamp() * 1_000_000), words)


def live(home, *options):
    done = said([*TALLY, "live", *options], home)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def flying(home):
    """A ledger with a run in it, three calls in flight, and one of a process that is gone."""
    usage = Usage(input=1200, cache_read=800, output=300)
    cost = front.price(usage, "gpt-4o", at=NOW)
    with SqliteLedger(home / "ledger.db") as ledger:
        ledger.append([
            Entry(call_id=f"call-{number}", started_at=NOW - timedelta(minutes=number + 1), provider="openai",
                  model="gpt-4o", usage=usage, cost=cost, run_id=run)
            for number, run in enumerate(("research-deb4c444bdbb", "research-deb4c444bdbb", "nightly-0011223344ff"))
        ])  # fmt: skip
    folder = home / "ledger.db.flight"
    child = os.fork()
    if child == 0:
        begin(Intents(folder, lambda: "gone"), 9, 700, run="lost-5566778899aa").move(0, 10, 5, 10**9)
        os._exit(0)
    os.waitpid(child, 0)
    intents = Intents(folder, lambda: "here")
    begin(intents, 1, 12.34, run="research-deb4c444bdbb").move(0, 9000, 412, 5_120_000_000)
    begin(intents, 2, 3.2, "claude-sonnet-5", "writer-aabbccddeeff").move(0, 2000, 35, 350_000_000)
    begin(intents, 3, 0.4, "a-model-with-a-rather-long-name-2026-11-21")
    yield intents
    intents.close()


@pytest.mark.parametrize("columns", [60, 80, 140])
@pytest.mark.parametrize("colour", [True, False], ids=["colour", "plain"])
def test_what_a_terminal_shows(home, flying, columns, colour):
    more = {} if colour else {"NO_COLOR": "1"}
    shown, code = drawn([sys.executable, "-c", DRIVER, "live", "--once"], home, columns, **more)
    assert code == 0, shown
    assert ("\x1b[" in shown) == colour
    kept = HERE / "snapshots" / f"live-{columns}-{'colour' if colour else 'plain'}.txt"
    shown = shown.replace("\x1b", "␛")
    if os.environ.get("UPDATE_SNAPSHOTS"):
        kept.write_text(shown)
    assert shown == kept.read_text()
    assert max(len(line) for line in re.sub(r"␛\[[0-9;]*m", "", shown).splitlines()) <= columns


def test_calls_in_flight_as_json(home, flying):
    done = said([sys.executable, "-c", DRIVER, "live", "--json"], home)
    found = json.loads(done.stdout)
    assert [(one["model"], one["run"], one["age_s"], one["output"]) for one in found["in_flight"][:2]] == [
        ("gpt-4o", "research-deb4c444bdbb", 12.34, 412), ("claude-sonnet-5", "writer-aabbccddeeff", 3.2, 35),
    ]  # fmt: skip
    assert found["in_flight"][0]["cost"] == {"usd": "0.00512"}
    assert [one["run"] for one in found["left_behind"]] == ["lost-5566778899aa"]
    assert [(run["run"], run["in_flight"], run["total"]["calls"]) for run in found["runs"]] == [
        ("research-deb4c444bdbb", 1, 2), ("writer-aabbccddeeff", 1, 0), ("nightly-0011223344ff", 0, 1),
    ]  # fmt: skip


def test_a_real_stream_is_seen_from_another_process(home, simulate):
    sim = simulate(Answer(output_tokens=400, chunk_ms=15))
    place = home / "ledger.db"
    with SqliteLedger(place) as ledger:
        meter = make_meter(ledger, place)
        client = tallystick.track(
            openai.OpenAI(base_url=sim.openai_url, api_key="none"), meter=meter, provider="openai"
        )
        with client, tallystick.run("research", user="ada") as run:
            stream = client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
            for number, _chunk in enumerate(stream):
                if number == 40:
                    during = json.loads(live(home, "--json"))
        after = json.loads(live(home, "--json"))
        meter.close()
    (call,) = sim.calls
    (flight,) = during["in_flight"]
    assert (flight["model"], flight["run"]) == ("gpt-4o", run.run_id)
    assert 0 < flight["output"] < 400
    assert flight["cost"] != {"usd": "0"}
    assert (during["runs"][0]["run"], during["runs"][0]["in_flight"]) == (run.run_id, 1)
    assert after["in_flight"] == after["left_behind"] == []
    (spent,) = after["runs"]
    assert spent["total"]["usage"] == dict(call.usage)
    assert spent["total"]["cost"] == front.price(call.usage, "gpt-4o").amount.to_json()


def test_what_a_killed_process_leaves(home, simulate):
    sim = simulate(Answer(output_tokens=500, chunk_ms=20))
    words = [sys.executable, "-c", BEGINNER, sim.openai_url]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment(home), text=True) as process:
        for _ in range(10):
            assert process.stdout.readline() == "chunk\n"
        alive = live(home, "--once")
        process.send_signal(signal.SIGKILL)
    assert "1 call in flight" in alive
    assert re.search(r"gpt-4o +doomed-[0-9a-f]{12} +\d+\.\d s", alive)
    left = live(home, "--once")
    assert "1 call left behind by a killed process: tally ledger repair" in left
    assert "in flight" not in left
    assert [one["run"][:7] for one in json.loads(live(home, "--json"))["left_behind"]] == ["doomed-"]


def frames_of(home, columns, wanted, on_frame):
    """The frames of `tally live` on a terminal until `wanted` are there, then Ctrl-C; and the exit code."""
    pid, ours = pty.fork()
    if pid == 0:
        words = [*TALLY, "live", "--every", "0.5"]
        os.execvpe(words[0], words, environment(home))
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    shown, seen, deadline = b"", 0, time.monotonic() + 90
    while seen < wanted and time.monotonic() < deadline:
        shown += os.read(ours, 65536)
        while seen < shown.count(b"burn"):
            seen += 1
            on_frame(seen)
    os.write(ours, b"\x03")
    try:
        while True:
            shown += os.read(ours, 65536)
    except OSError:
        pass
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(ours)
    return shown.decode(), code


def test_it_moves(home):
    """From a ledger that is not there yet to a call in flight, its answer growing, and its entry."""
    place = home / "ledger.db"
    intents = Intents(home / "ledger.db.flight", lambda: "here")
    held = {}

    def on_frame(number):
        now = int(time.time() * 1_000_000)
        if number == 1:
            call_id, words = words_of(1, run="research-1")
            held["slot"] = intents.open(call_id, now, words)
        elif number < 7:
            held["slot"].move(now, 100 * number, 11 * number, 10**9 * number)
        elif number == 7:
            usage = Usage(input=100, output=77)
            with SqliteLedger(place) as ledger:
                ledger.append([Entry(call_id=words_of(1)[0], started_at=datetime.now(UTC), provider="openai",
                                     model="gpt-4o", usage=usage, cost=front.price(usage, "gpt-4o"), run_id="research-1")])  # fmt: skip
            held["slot"].free()

    shown, code = frames_of(home, 100, 14, on_frame)
    intents.close()
    assert code == 0, shown
    assert "Traceback" not in shown
    tokens = {int(found) for found in re.findall(r"1 call in flight, about (\d+) tokens", shown)}
    assert len(tokens) > 2
    assert tokens <= {11 * number for number in range(7)}
    last = shown.rpartition("burn")[2]
    assert "in flight" not in last
    assert str(front.price(Usage(input=100, output=77), "gpt-4o").amount) in last
    with SqliteLedger(place, read_only=True) as ledger:
        assert len(list(ledger.read(Query()))) == 1
