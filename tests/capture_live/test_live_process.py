"""The meter of a process: made at the first call, closed at exit, not shared with a forked child."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

import tallystick
from tallystick.capture.process import close_meters, default_meter
from tallystick.errors import LedgerUnavailable
from tallystick.metering.spool import read_spool

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}

SCRIPT = """
import os, sys
import httpx
import tallystick
from tallystick.simulator import Simulator, Answer
tallystick.instrument()
with Simulator(Answer(chunk_ms=5, output_tokens=200)) as sim:
    url = sim.openai_url + "/chat/completions"
    chat = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
    client = httpx.Client(timeout=60)
    with tallystick.run("script", user="ada") as run:
        client.post(url, json=chat)
    if hasattr(os, "fork"):
        child = os.fork()
        if not child:
            httpx.post(url, json=chat, timeout=60)
            from tallystick.capture.process import close_meters
            close_meters()
            os._exit(0)
        os.waitpid(child, 0)
    opened = client.send(client.build_request("POST", url, json={**chat, "stream": True}), stream=True)
    next(opened.iter_raw())
    print(run.calls, flush=True)
    if sys.argv[1] == "kill":
        os._exit(0)
    sys.exit(0)
"""


def script(how):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, how], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_at_exit_everything_is_in_the_ledger():
    script("exit")
    with tallystick.open() as ledger:
        entries = list(ledger.read())
        assert ledger.verify() == []
    assert [(entry.status, entry.tags.get("user")) for entry in entries] == [
        ("ok", "ada"), ("ok", None), ("cancelled", None),
    ]  # fmt: skip
    assert entries[-1].quality == "lower_bound"
    assert not list(Path(os.environ["TALLY_LEDGER"] + ".flight").iterdir())


def test_a_process_that_stops_dead_leaves_the_open_call_as_an_intent():
    script("kill")
    from tallystick.ledger.intents import read_flights

    [flight] = read_flights(Path(os.environ["TALLY_LEDGER"] + ".flight"))
    assert (flight.model, flight.alive) == ("gpt-4o", False)


def test_a_ledger_that_cannot_be_opened_stops_no_call(monkeypatch, tmp_path, caplog):
    file = tmp_path / "ledger.db"
    file.write_text("This is no ledger.")
    monkeypatch.setenv("TALLY_LEDGER", str(file))
    answer = {"model": "gpt-4o", "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}
    try:
        with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=answer))) as client:
            tallystick.track(client)
            reply = client.post("https://api.openai.com/v1/chat/completions", json=CHAT)
        assert reply.json() == answer
        assert default_meter().missed == 1
        [kept] = (tmp_path / "ledger.db.spool").iterdir()
        [entry], unread = read_spool(kept.read_bytes())
        assert (dict(entry.usage), unread) == ({"input": 3, "output": 4}, 0)
        assert "repair" in caplog.text
    finally:
        close_meters()


def test_the_snippet_of_the_design():
    """With a client of the caller's own in place of the provider."""
    answer = {"id": "x", "model": "gpt-5", "usage": {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}}

    def provider(request):
        assert json.loads(request.content)["model"] == "gpt-5"
        return httpx.Response(200, json=answer)

    try:
        with httpx.Client(transport=httpx.MockTransport(provider)) as client:
            assert tallystick.track(client) is client
            with tallystick.run("research", user="ada", budget="$0.50") as run:
                client.post("https://api.openai.com/v1/responses", json={"model": "gpt-5", "input": "..."})
        assert str(run.cost) == "$0.00225"
        assert dict(run.usage) == {"input": 1000, "output": 100}
        assert run.calls == 1
    finally:
        close_meters()
    assert tallystick.spent(user="ada").cost == run.cost


def test_a_closed_ledger_of_the_callers_own_is_noticed(caplog):
    from tallystick.ledger.memory import MemoryLedger

    ledger = MemoryLedger()
    ledger.close()
    with pytest.raises(LedgerUnavailable):
        list(ledger.read())
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json={"model": "gpt-4o"}))) as client:
        tallystick.track(client, ledger=ledger)
        assert client.post("https://api.openai.com/v1/chat/completions", json=CHAT).status_code == 200
    assert "They are lost" in caplog.text
    close_meters()


def test_two_hundred_threads_over_real_connections_never_mix_their_calls(simulate, ledger, meter):
    sim = simulate()
    with httpx.Client(limits=httpx.Limits(max_connections=64), timeout=60) as client:
        tallystick.track(client, meter=meter, provider="openai")

        def work(number):
            with tallystick.run(f"worker-{number}", number=str(number)):
                for stream in (False, True):
                    text = "word " * (number + 1)
                    chat = {"model": "gpt-4o", "stream": stream, "messages": [{"role": "user", "content": text}]}
                    client.post(f"{sim.openai_url}/chat/completions", json=chat)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    served = {call.response_id: json.loads(call.body)["messages"][0]["content"].count("word") for call in sim.calls}
    entries = list(ledger.read())
    assert len(entries) == 400
    for entry in entries:
        asked = next(n for identity, n in served.items() if entry.provider_response_id.endswith(identity))
        assert int(entry.tags["number"]) + 1 == asked
        assert entry.quality == "exact"
