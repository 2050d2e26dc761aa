"""tally mcp, asked by the SDK's own client over standard input and output of a real process."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

import tallystick
from tallystick.cli import run
from tallystick.core.attribution import Tags
from tallystick.core.usage import Usage
from tallystick.ledger.budget import Budget
from tallystick.metering.budgets import put

AT = datetime(2026, 10, 1, 12, tzinfo=UTC)


def asked(*questions):
    """The tools of the server, and its answers to (tool, arguments)."""
    mcp = pytest.importorskip("mcp")
    anyio = pytest.importorskip("anyio")
    place = {name: value for name, value in os.environ.items() if name.startswith(("TALLY_", "XDG_", "HOME", "PATH"))}
    command = mcp.StdioServerParameters(
        command=sys.executable,
        args=["-m", "tallystick.cli", "mcp"],
        env={**place, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    async def talk():
        async with mcp.Client(command) as client:
            tools = (await client.list_tools()).tools
            return tools, [await client.call_tool(name, given) for name, given in questions]

    return anyio.run(talk)


def value(answer):
    assert not answer.is_error, answer.content
    return json.loads(answer.content[0].text)


def test_an_agent_asks_what_it_costs():
    for user, run_id in (("ada", "research"), ("ada", "research"), ("bob", "review"), ("bob", None)):
        tallystick.record(
            Usage(input=100_000, output=1000), "gpt-5", provider="openai", at=AT, run=run_id, user=user
        )  # fmt: skip
    tallystick.record(Usage(input=1), "nobody-knows-it", at=AT, run="odd")
    tools, answers = asked(
        ("get_spend", {}),
        ("get_spend", {"since": "2026-10-01", "until": "2026-10-02", "by": ["user"], "tags": {"user": "ada"}}),
        ("get_spend", {"per": "day"}),
        ("list_runs", {"limit": 1}),
        ("estimate", {"model": "gpt-5", "text": "Hello, how are you today?", "max_output": 100}),
    )
    assert [tool.name for tool in tools] == ["get_spend", "get_budget", "estimate", "list_runs"]
    assert all(tool.annotations.read_only_hint for tool in tools)
    assert all("cost" in tool.description for tool in tools)
    everything, ada, days, runs, guess = map(value, answers)
    assert everything["total"]["cost"] == {"usd": "0.54"}
    assert everything["gaps"] == "1 call without a price"
    assert [(row["group"], row["cost"]) for row in ada["rows"]] == [({"user": "ada"}, {"usd": "0.27"})]
    assert [row["start"] for row in days["rows"]] == ["2026-10-01T00:00:00.000000Z"]
    assert [row["run"] for row in runs["runs"]] == ["research"]
    assert runs["runs_left_out"] == 2
    assert runs["outside_any_run"]["calls"] == 1
    assert guess["input"]["tokens"] == 7 or guess["input"]["tokens"] > 7
    assert guess["high"]["usd"]


def test_an_agent_asks_what_it_may_still_spend():
    tallystick.record({"input": 1000, "output": 100}, "gpt-4o", team="a")
    with tallystick.open() as ledger:
        put(
            ledger,
            Budget(budget_id="team-a", limit=10**12, scope=Tags(team="a"), sources=("manual",)),
            datetime.now(UTC),
        )
    _, answers = asked(("get_budget", {}), ("get_budget", {"name": "team-b"}))
    [budget] = value(answers[0])["budgets"]
    [account] = budget["accounts"]
    assert (budget["name"], budget["limit"], budget["hard"]) == ("team-a", {"usd": "1"}, True)
    assert (account["spent"], account["left"]) == ({"usd": "0.0035"}, {"usd": "0.9965"})
    assert answers[1].is_error
    assert "team-a" in answers[1].content[0].text


def test_mistakes_are_answered_with_a_sentence():
    tallystick.record(Usage(input=1), "gpt-5", at=AT)
    _, answers = asked(
        ("get_spend", {"since": "soon"}),
        ("get_spend", {"per": "fortnight"}),
        ("estimate", {"model": "nobody-knows-it", "text": "x"}),
        ("list_runs", {"limit": 10**9}),
        ("get_spend", {"by": "model"}),
        ("get_spend", {"tags": {"a": "\x1b[2J"}}),
        ("estimate", {"model": "gpt-5", "text": "x", "max_output": -1}),
    )
    texts = [answer.content[0].text for answer in answers]
    assert [answer.is_error for answer in answers] == [True] * 7, texts
    assert "is not a date" in texts[0]
    assert "is not a period" in texts[1]
    assert "Unknown model" in texts[2]
    assert not any("Traceback" in text for text in texts)


def test_without_a_ledger_it_says_so_and_makes_none(tmp_path):
    _, (answer,) = asked(("get_spend", {}))
    assert answer.is_error
    assert "ledger" in answer.content[0].text
    assert not Path(os.environ["TALLY_LEDGER"]).exists()


def test_without_the_extra_a_sentence_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "mcp", None)
    monkeypatch.setitem(sys.modules, "mcp.server", None)
    assert run(["mcp"]) == 2
    assert "pip install 'tallystick[mcp]'" in capsys.readouterr().err


def test_help_needs_no_sdk():
    code = "import sys; from tallystick.cli import run; run(['mcp', '--help']); sys.exit('mcp' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
