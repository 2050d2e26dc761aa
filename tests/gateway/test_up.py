"""`tally up` as a process: from the first line it prints to the last call it serves."""

import json
import os
import signal
import stat
import subprocess
import threading
import time

import openai
import pytest
from gateway_desk import environment, post, request, tally, up

from tallystick.simulator import Answer

HELLO = [{"role": "user", "content": "Hello, how are you today?"}]
CHAT = {"model": "gpt-4o", "messages": HELLO}
PATH = "/openai/v1/chat/completions"


def port_of(told):
    return int(told["url"].rpartition(":")[2])


def entries(folder):
    return [json.loads(line) for line in tally(folder, "log", "--json", "--limit", "1000")[1].splitlines()]


def until(holds, seconds=15):
    for _ in range(seconds * 20):
        found = holds()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def children(process):
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in found.stdout.split()]


def test_it_needs_nothing_and_says_what_to_export(simulate, tmp_path):
    sim = simulate()
    with up(tmp_path, env={"TALLY_UPSTREAM_OPENAI": sim.openai_url}) as (told, process):
        assert told["urls"] == {
            "openai": f"{told['url']}/openai/v1",
            "anthropic": f"{told['url']}/anthropic",
            "gemini": f"{told['url']}/gemini",
        }
        with openai.OpenAI(base_url=told["urls"]["openai"], api_key="sk-own") as client:
            assert client.chat.completions.create(**CHAT).choices[0].message.content == sim.calls[0].text
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    [entry] = entries(tmp_path)
    assert (entry["source"], entry["status"], entry["usage"]) == ("gateway", "ok", dict(sim.calls[0].usage))
    ledger = tmp_path / "tallystick" / "ledger.db"
    assert told["ledger"] == str(ledger)
    assert stat.S_IMODE(ledger.stat().st_mode) == 0o600


def test_beyond_loopback_nothing_starts_without_a_token(tmp_path):
    code, _, told = tally(tmp_path, "up", "--host", "0.0.0.0", "--port", "0")
    assert (code, "a token is needed" in told) == (2, True)
    place = tmp_path / "token"
    place.write_text("a-token-of-thirty-two-characters\n")
    place.chmod(0o644)
    code, _, told = tally(tmp_path, "up", "--host", "0.0.0.0", "--port", "0", "--token-file", str(place))
    assert (code, "chmod 600" in told) == (2, True)
    place.chmod(0o600)
    with up(tmp_path, "--host", "0.0.0.0", "--token-file", str(place)) as (told, _):
        assert post(port_of(told), PATH, CHAT)[0] == 401


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("[gateway]\nprot = 1\n", "Did you mean 'port'?"),
        ("[gateway]\nport = 'x'\n", "port in [gateway]"),
        ("[gateway]\nport = true\n", "port in [gateway]"),
        ("[gateway]\nport = 70000\n", "from 0 to 65,535"),
        ("[gateway]\nhosts = [1]\n", "a list of names"),
        ("[gateway]\nread_timeout = 0\n", "seconds above 0"),
        ("[gateway]\ntoken = 'sk-open'\n", "A secret stands in the configuration"),
        ("[gateway]\ntoken = 'env:NOT_SET'\n", "NOT_SET is not set"),
        ("[gateway]\nca = '/no/such/file'\n", "cannot be read"),
        ("[gateway]\nsecrets = '/no/such/file'\n", "cannot be read"),
        ("[upstreams.vllm]\nprovider = 'vllm'\n", "has no url"),
        ("[upstreams.openai]\nurk = 'x'\n", "Did you mean 'url'?"),
        ("[upstreams.openai]\nurl = 1\n", "must be text"),
        ("[upstreams.openai]\nauth = 'magic'\n", "is one of"),
        ("[upstreams.openai]\nurl = 'ftp://x'\n", "makes no sense"),
        ("[upstreams.openai]\nurl = 'https://u:p@x'\n", "holds a password"),
        ("[upstreams.metrics]\nurl = 'https://x'\n", "cannot be named"),
        ("upstreams = 3\n", "must be a table"),
        ("[upstreams]\nopenai = 'x'\n", "must be a table"),
        ("gateway = 3\n", "[gateway]"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_starts(tmp_path, config, says):
    place = tmp_path / "tally.toml"
    place.write_text(config)
    code, out, told = tally(tmp_path, "up", "--port", "0", env={"TALLY_CONFIG": str(place)})
    assert (code, out) == (2, "")
    assert says in told
    assert "sk-open" not in told


def test_a_port_that_is_taken(tmp_path):
    with up(tmp_path) as (told, _):
        code, _, said = tally(tmp_path, "up", "--port", str(port_of(told)))
    assert (code, "--port" in said) == (2, True)


def test_a_gateway_that_only_reads_relays_nothing(simulate, tmp_path):
    sim = simulate()
    assert tally(tmp_path, "keys", "create")[0] == 0
    with up(tmp_path, "--read-only", "--upstream", f"openai={sim.openai_url}") as (told, _):
        assert post(port_of(told), PATH, CHAT)[0] == 503
        assert request(port_of(told), "GET /healthz HTTP/1.1\nhost: localhost\nconnection: close\n")[0] == 200
    assert sim.calls == []


def test_calls_in_flight_end_before_the_process_does(simulate, tmp_path):
    sim = simulate(Answer(output_tokens=30, chunk_ms=40))
    with up(tmp_path, "--upstream", f"openai={sim.openai_url}") as (told, process):
        with openai.OpenAI(base_url=told["urls"]["openai"], api_key="x", max_retries=0) as client:
            stream = client.chat.completions.create(**CHAT, stream=True)
            pieces = [next(iter(stream))]
            process.terminate()
            pieces += list(stream)
        assert pieces[-1].choices[0].finish_reason is not None
        assert process.wait(20) == 0
    [entry] = entries(tmp_path)
    assert (entry["quality"], entry["usage"]["output"]) == ("exact", 30)


def test_secrets_and_upstreams_are_taken_in_while_it_serves(simulate, tmp_path):
    sim = simulate()
    place, secrets = tmp_path / "tally.toml", tmp_path / "secrets.env"
    secrets.write_text("# ours\nexport OPENAI_API_KEY='sk-first'\n")
    secrets.chmod(0o600)
    place.write_text(f"[gateway]\nsecrets = '{secrets}'\n[upstreams.openai]\nurl = '{sim.openai_url}'\n")
    env = {"TALLY_CONFIG": str(place)}
    with up(tmp_path, env=env) as (told, process):
        key = tally(tmp_path, "keys", "create", env=env)[1].strip()

        def sent(name="openai"):
            post(port_of(told), f"/{name}/v1/chat/completions", CHAT, f"authorization: Bearer {key}\n")
            return sim.calls[-1].headers["authorization"] if sim.calls else None

        assert sent() == "Bearer sk-first"
        secrets.write_text("openai=sk-second\n")
        until(lambda: sent() == "Bearer sk-second")
        place.write_text(place.read_text() + f"[upstreams.mine]\nurl = '{sim.openai_url}'\nauth = 'none'\n")
        process.send_signal(signal.SIGHUP)
        until(lambda: post(port_of(told), "/mine/v1/chat/completions", CHAT)[0] == 200)
        place.write_text("[gateway\n")
        process.send_signal(signal.SIGHUP)
        time.sleep(1.5)
        assert sent() == "Bearer sk-second"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="workers share a socket by inheriting it")
def test_workers_share_the_port_and_a_dead_one_is_replaced(simulate, tmp_path):
    sim = simulate(Answer(output_tokens=5))
    with up(tmp_path, "--workers", "2", "--upstream", f"openai={sim.openai_url}") as (told, process):
        port = port_of(told)
        first = until(lambda: len(found := children(process)) == 2 and found)
        assert post(port, PATH, CHAT)[0] == 200
        os.kill(first[0], signal.SIGKILL)
        until(lambda: len(found := children(process)) == 2 and first[0] not in found)
        results = []
        threads = [threading.Thread(target=lambda: results.append(post(port, PATH, CHAT)[0])) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [200] * 40
        process.send_signal(signal.SIGHUP)
        process.terminate()
        assert process.wait(40) == 0
        assert children(process) == []
    assert len(entries(tmp_path)) == 41
    assert tally(tmp_path, "ledger", "verify")[0] == 0


def test_workers_that_cannot_live_are_not_started_for_ever(tmp_path):
    from tallystick.gateway import serving

    listening = serving.bind("127.0.0.1", 0)
    with listening:
        assert serving.supervise(["false"], listening, 4) == 1
    assert serving.is_loopback("localhost")
    assert not serving.is_loopback("example.org")
    assert environment(tmp_path)["HOME"] == str(tmp_path)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("limit", [None, "$5/day"])
def test_what_a_stream_cost_is_there_as_soon_as_it_has_ended(simulate, tmp_path, workers, limit):
    sim = simulate(Answer(output_tokens=5))
    if limit is not None:
        assert tally(tmp_path, "budget", "add", "all", "--limit", limit)[0] == 0
    with up(tmp_path, "--workers", str(workers), "--upstream", f"openai={sim.openai_url}") as (told, _):
        for _ in range(6):
            body = {**CHAT, "stream": True, "max_tokens": 20}
            status, headers, _ = post(port_of(told), PATH, body, "authorization: Bearer sk-own\n")
            assert status == 200
            # Asked on a connection of its own, so that another worker may answer.
            get = f"GET /tally/v1/calls/{headers['x-tally-call']} HTTP/1.1\nhost: 127.0.0.1:{port_of(told)}\n"
            status, _, body = request(port_of(told), f"{get}connection: close\n")
            assert status == 200
            call = json.loads(body)["call"]
            assert (call["status"], call["quality"]) == ("ok", "exact")
            assert float(call["cost"]["amount"]["usd"]) > 0
