"""tally demo: what it shows is what was served, with SDKs and without, in a terminal and outside one."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from livedesk import DEMO, TALLY, drawn, environment, said

from tallystick.capture.process import make_meter
from tallystick.cli.demo_clients import Clients
from tallystick.cli.demo_scene import Scene
from tallystick.cli.demo_screen import tree
from tallystick.core.money import Money
from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.query import Query
from tallystick.ledger.sqlite import SqliteLedger
from tallystick.simulator import Answer

CALLS = 8
BLIND = """
import sys
for name in ("openai", "anthropic", "google.genai", "httpx", "httpx2", "requests", "urllib3", "aiohttp"):
    sys.modules[name] = None
from tallystick.cli.demo import command
sys.exit(command.main(sys.argv[1:], "tally demo", standalone_mode=False))
"""


def usd(value):
    return Money.usd(value["usd"])


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    """The demo told as JSON, with the SDKs and with the standard library."""
    told = {}
    for name, options in (("sdk", []), ("plain", ["--plain"])):
        done = said([*DEMO, "--fast", "--json", *options], tmp_path_factory.mktemp(name))
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        told[name] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize("kind", ["sdk", "plain"])
def test_the_ledger_says_what_was_served(stories, kind):
    story = stories[kind]
    verdict, calls = story["verdict"], story["calls"]
    ended = [call for call in calls if call["status"] == "ok"]
    assert verdict["equal"] is True
    assert verdict["answers"] == len(ended) == 5
    assert verdict["served"] == verdict["entered"]
    for name in ("input", "cache_read", "output"):
        assert verdict["served"]["usage"][name] == sum(call["usage"].get(name, 0) for call in ended) > 0
    assert usd(verdict["served"]["cost"]) == sum((usd(call["cost"]["amount"]) for call in ended), Money(0))
    assert verdict["broken"]["delivered"] == verdict["broken"]["counted"] > 0
    assert 0 < verdict["cut"]["counted"] <= verdict["cut"]["written"]


@pytest.mark.parametrize("kind", ["sdk", "plain"])
def test_runs_hold_what_is_inside_them(stories, kind):
    story = stories[kind]
    runs, calls = {run["name"]: run for run in story["runs"]}, story["calls"]
    root = runs["research"]
    assert runs["reader"]["parent"] == runs["searcher"]["run"]
    assert runs["searcher"]["parent"] == root["run"]
    assert root["calls"] == len(calls) == CALLS
    assert usd(root["cost"]) == sum((usd(call["cost"]["amount"]) for call in calls), Money(0))
    for name, run in runs.items():
        inner = [other for other in runs.values() if other["parent"] == run["run"]]
        own = [call for call in calls if call["run_id"] == run["run"]]
        assert run["calls"] == len(own) + sum(other["calls"] for other in inner), name
        assert all(call["parent_run"] == run["parent"] for call in own), name


@pytest.mark.parametrize("kind", ["sdk", "plain"])
def test_what_goes_wrong_on_the_way(stories, kind):
    calls = stories[kind]["calls"]
    first, second = calls[:2]
    assert (first["status"], first["http_status"], first["cost"]["amount"]["usd"]) == ("error", 500, "0")
    assert second["attempt_of"] == first["call_id"]
    (cut,) = [call for call in calls if call["status"] == "cut"]
    assert cut["stopped_by"] == "max_cost"
    assert Money(0) < usd(cut["cost"]["amount"]) <= Money.usd("0.0008")
    (broken,) = [call for call in calls if call["status"] == "error" and call["http_status"] == 200]
    assert broken["quality"] == "lower_bound"
    assert {call["tags"]["demo"] for call in calls} == {"true"}


def test_sdks_and_the_standard_library_come_to_the_same(stories):
    sdk, plain = stories["sdk"], stories["plain"]
    assert {name.split()[0] for name in sdk["clients"].values()} == {"openai", "anthropic", "google-genai"}
    assert set(plain["clients"].values()) == {"standard library"}
    assert sdk["verdict"] == plain["verdict"]


def test_without_a_terminal_a_line_for_each_call(home):
    done = said([*DEMO, "--fast"], home)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert (
        len([line for line in lines if re.match(r"(planner|searcher|reader|writer|critic) .* in.* out, \$", line)])
        == CALLS
    )
    assert any(line.startswith("planner") and "[error, 500]" in line for line in lines)
    text = " ".join(done.stdout.split())
    assert "equal to the token and to the picodollar" in text
    assert "max_cost $0.0008 was reached" in text
    assert "What next:" in text
    assert not (home / "ledger.db").exists()
    assert list(home.rglob("*.db*")) == []


def test_on_a_plain_install_it_says_what_to_install(home):
    done = said([sys.executable, "-c", BLIND, "--fast"], home)
    assert done.returncode == 0, done.stderr
    assert "(standard library)" in done.stdout
    assert "pip install openai" in done.stdout
    assert "equal to the token" in " ".join(done.stdout.split())


def test_keep_writes_into_the_ledger_in_force(home):
    done = said([*DEMO, "--fast", "--plain", "--keep", "--json"], home)
    assert done.returncode == 0, done.stderr
    story = json.loads(done.stdout)
    assert story["ledger"] == str(home / "ledger.db")
    report = json.loads(said([*TALLY, "report", "--tag", "demo=true", "--json"], home).stdout)
    assert report["total"]["calls"] == CALLS
    assert report["total"]["cost"] == story["runs"][0]["cost"]
    with SqliteLedger(home / "ledger.db", read_only=True) as ledger:
        assert {entry.call_id for entry in ledger.read(Query())} == {call["call_id"] for call in story["calls"]}
        assert ledger.verify() == []


def test_in_a_terminal_the_cost_moves(home):
    shown, code = drawn([*DEMO, "--plain"], home, 80)
    assert code == 0, shown
    assert "Traceback" not in shown
    frames = shown.split("An agent looks into")
    costs = [float(found[1]) for frame in frames if (found := re.search(r"research +\d.*\$([0-9.]+)", frame))]
    assert len(frames) > 20
    assert len(set(costs)) > 10  # while the answers come, and not only when they have ended
    assert any("1+" in frame for frame in frames)
    assert "└─ reader" in shown
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frames[-1])
    assert "equal to the token" in " ".join(last.split())
    assert max(len(line) for line in last.splitlines()) <= 80


def test_an_interrupt_leaves_nothing_behind(home):
    words = [*DEMO, "--plain", "--keep"]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(home), text=True
    ) as run:
        line = run.stdout.readline()
        assert line.startswith("An agent")
        assert run.stdout.readline().startswith("planner")
        os.kill(run.pid, signal.SIGINT)
        run.communicate(timeout=60)
    with SqliteLedger(home / "ledger.db", read_only=True) as ledger:
        entries = list(ledger.read(Query()))
    assert 1 <= len(entries) < CALLS
    assert list((home / "ledger.db.flight").glob("*")) == []


def test_imports_that_take_long_are_not_waited_for(simulate):
    with MemoryLedger() as ledger:
        meter = make_meter(ledger)
        clients = Clients(meter, simulate(Answer(text="Yes.")), patience=0.0)
        scene = Scene(run=("one",), step="s", provider="openai", model="gpt-4o", stream=True, asks="Well?", says="")
        clients.prepare("openai")
        assert clients.late == ["openai"]
        assert clients.names == {"openai": "standard library"}
        assert "".join(clients.ask(scene)) == "Yes."
        meter.close()
        (entry,) = ledger.read(Query())
    assert entry.usage["output"] == 2


@pytest.mark.parametrize(
    ("depths", "shown"),
    [
        ([0, 1, 2, 1], ["", "├─ ", "│  └─ ", "└─ "]),
        ([0, 1, 2, 2], ["", "└─ ", "   ├─ ", "   └─ "]),
        ([0, 1, 1, 2, 3, 2, 1], ["", "├─ ", "├─ ", "│  ├─ ", "│  │  └─ ", "│  └─ ", "└─ "]),
    ],
)
def test_guides_show_the_nesting(depths, shown):
    assert [guide.replace("`-", "└─").replace("|-", "├─").replace("|", "│") for guide in tree(depths)] == shown
