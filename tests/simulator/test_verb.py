"""tally simulate, run as its user runs it."""

import json
import os
import signal
import subprocess
import sys

import httpx
import pytest
from simulator_clients import CHAT

RUN = "import sys; from tallystick.cli.simulate import command; sys.exit(command(standalone_mode=False))"


def started(*options):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", RUN, "--port", "0", *options], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_and_ends_when_told(number):
    with started("--text", "hi there", "--input-tokens", "20", "--fail", "1", "--status", "503") as running:
        lines = [running.stdout.readline().strip() for _ in range(7)]
        exports = dict(line.removeprefix("export ").split("=") for line in lines[:6])
        assert lines[6].startswith("# also: http://127.0.0.1:")
        url = exports["OPENAI_BASE_URL"] + "/chat/completions"
        assert [httpx.post(url, json=CHAT).status_code for _ in range(2)] == [503, 200]
        assert running.stdout.readline() == "503 POST /v1/chat/completions gpt-4o\n"
        assert running.stdout.readline() == "200 POST /v1/chat/completions gpt-4o  20 in, 2 out\n"
        running.send_signal(number)
        rest, complaints = running.communicate(timeout=20)
    assert (running.returncode, rest, complaints) == (0, "", "")
    assert exports["ANTHROPIC_BASE_URL"] + "/v1" == exports["OPENAI_BASE_URL"]


def test_it_speaks_json_and_ends_after_so_many_calls():
    with started("--json", "--calls", "2", "--output-tokens", "5", "--cut", "2") as running:
        urls = json.loads(running.stdout.readline())["urls"]
        for _ in range(2):
            with pytest.raises(httpx.RemoteProtocolError):
                httpx.post(urls["anthropic"] + "/v1/messages", json={**CHAT, "max_tokens": 9, "stream": True})
        rest, complaints = running.communicate(timeout=20)
    calls = [json.loads(line) for line in rest.splitlines()]
    assert (running.returncode, complaints) == (0, "")
    assert [(call["number"], call["cut"], call["status"], call["usage"]["output"]) for call in calls] == [
        (1, True, 200, 5),
        (2, True, 200, 5),
    ]
