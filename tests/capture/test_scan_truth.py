"""Trees of logs whose truth is known; the same however they come to be read."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logdesk import PROJECT, Desk, claude, codex, codex_head, tokens

from logtrees import make_tree
from tallystick.core.attribution import Tags
from tallystick.ledger.query import Query
from tallystick.ledger.sqlite import SqliteLedger

WRITES = ("cache_write", "cache_write_5m", "cache_write_1h")


def found(ledger):
    """Calls and tokens by tool and day, in the words of the generator."""
    calls, days = Counter(), {}
    for entry in ledger.read():
        tool, usage = entry.tags["tool"], entry.usage
        calls[tool] += 1
        day = days.setdefault((tool, f"{entry.started_at:%Y-%m-%d}"), Counter())
        day["input"] += usage.get("input", 0)
        day["cache_read"] += usage.get("cache_read", 0)
        day["cache_write"] += sum(usage.get(kind, 0) for kind in WRITES)
        day["output"] += usage.get("output", 0) + usage.get("reasoning", 0)
        day["reasoning"] += usage.get("reasoning", 0)
    return calls, {key: Counter({kind: count for kind, count in day.items() if count}) for key, day in days.items()}


@pytest.mark.parametrize("seed", range(6))
def test_totals_are_exact_by_tool_day_and_kind(desk, seed):
    truth = make_tree(desk.home, seed, 0.6, padding=60)
    desk.scan()
    assert found(desk.ledger) == (truth.calls, dict(truth.days))


def snapshot(ledger):
    """Everything that the entries say but when they were written."""
    return {
        entry.call_id: {
            name: value for name, value in entry.to_json().items() if name not in ("recorded_at", "settled_at")
        }
        for entry in ledger.read()
    }


@pytest.mark.parametrize("seed", [3, 4])
def test_any_growth_of_the_files_gives_the_same_ledger(new_desk, seed):
    whole = new_desk()
    truth = make_tree(whole.home, seed, 0.3, padding=30)
    whole.scan()
    growing, rng = new_desk(), random.Random(seed)
    files = {path: path.read_bytes() for path in whole.home.rglob("*.json*")}
    written = dict.fromkeys(files, 0)
    shutil.copytree(whole.home / ".local", growing.home / ".local", dirs_exist_ok=True)
    for step in range(8):
        for path, data in files.items():
            end = len(data) if step == 7 else min(len(data), written[path] + rng.randrange(len(data) // 3 + 2))
            place = growing.home / path.relative_to(whole.home)
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("ab" if ".local" not in str(path) else "r+b") as file:
                if ".local" not in str(path):
                    file.write(data[written[path] : end])
            written[path] = end
        growing.scan()
    assert found(growing.ledger) == (truth.calls, dict(truth.days))


LINES = [claude(f"m{number % 4}", output, second=number) for number, output in enumerate((1, 9, 3, 300, 2, 8, 40, 5))]
TOTALS = [tokens(100 * n, 20 * n, 30 * n, 5 * n) for n in range(1, 6)]
ROLLOUT = [
    *codex_head(),
    *[codex(n, total, tokens(100, 20, 30, 5)) for n, total in enumerate(TOTALS, 1)],
    codex(9, TOTALS[-1], TOTALS[0]),
]


@settings(max_examples=40)
@given(cuts=st.lists(st.integers(0, 4000), max_size=4), name=st.sampled_from(["claude", "codex"]))
def test_any_cut_of_a_file_gives_the_same_calls(cuts, name):
    lines, file = (LINES, f"{PROJECT}/s.jsonl") if name == "claude" else (ROLLOUT, ".codex/sessions/r.jsonl")
    data = "".join(json.dumps(line) + "\n" for line in lines)
    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        whole, parts = Desk(Path(one)), Desk(Path(other))
        whole.write(file, data, end="")
        whole.scan()
        places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        for begin, end in pairwise(places):
            parts.append(file, data[begin:end], end="")
            parts.scan()
        assert snapshot(parts.ledger) == snapshot(whole.ledger)


@settings(max_examples=30)
@given(
    order=st.permutations(range(8)),
    files=st.lists(st.sampled_from("abc"), min_size=8, max_size=8),
    scans=st.sets(st.integers(0, 7)),
)
def test_any_order_of_lines_and_files_gives_the_same_usage(order, files, scans):
    with TemporaryDirectory() as home:
        desk = Desk(Path(home))
        for step, (number, file) in enumerate(zip(order, files, strict=True)):
            desk.append(f"{PROJECT}/{file}.jsonl", LINES[number])
            if step in scans:
                desk.scan()
        desk.scan()
    assert {entry.provider_response_id: entry.usage["output"] for entry in desk.entries()} == {
        "m0": 2,
        "m1": 9,
        "m2": 40,
        "m3": 300,
    }


SCAN = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from logdesk import NOW, Desk
from tallystick.ledger.sqlite import SqliteLedger
import tallystick.capture.logs.writing as writing
writing.BATCH = 25
print("ready", flush=True)
with SqliteLedger({ledger!r}) as ledger:
    Desk(Path({home!r}), ledger).scan()
print("done", flush=True)
"""


@pytest.mark.parametrize("seed", range(5))
def test_a_scan_that_is_killed_again_and_again_gives_the_same_ledger(tmp_path, seed):
    home, path = tmp_path / "home", tmp_path / "ledger.db"
    truth = make_tree(home, seed, 2, padding=60)
    rng = random.Random(seed)
    script = SCAN.format(paths=sys.path, ledger=str(path), home=str(home))
    kills = 0
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 0.12))
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += process.returncode == -signal.SIGKILL
        process.stdout.close()
    assert kills
    with SqliteLedger(path) as ledger:
        Desk(home, ledger).scan()
        assert found(ledger) == (truth.calls, dict(truth.days))
        assert ledger.verify() == []
        again = Desk(home, ledger).scan()
        assert [tool.read for tool in again.tools] == [0, 0, 0, 0]
        total = ledger.total(Query(), by=("tool",))
        assert {one.group["tool"]: one.calls for one in total} == dict(truth.calls)


def test_the_ledgers_totals_are_those_of_its_entries(tmp_path):
    home = tmp_path / "home"
    truth = make_tree(home, 9, 0.2, padding=30)
    with SqliteLedger(tmp_path / "ledger.db") as ledger:
        Desk(home, ledger).scan()
        for tool in truth.calls:
            assert ledger.total(Query(tags=Tags(tool=tool)))[0].calls == truth.calls[tool]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_memory_does_not_grow_with_a_file(tmp_path):
    home = tmp_path / "home"
    folder = home / PROJECT
    folder.mkdir(parents=True)
    with (folder / "s.jsonl").open("wb") as file:
        for _ in range(40):
            file.write(b'{"type":"user","text":"' + b"x" * (1 << 20) + b'"}\n')
        file.write(b'{"output_tokens":"' + b"x" * (60 << 20))
        file.write(b'"}\n' + json.dumps(claude()).encode() + b"\n")
    script = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from pathlib import Path\nfrom logdesk import Desk\n"
        f"desk = Desk(Path({str(home)!r}))\ntool = desk.tool()\n"
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print(tool.calls, tool.refused[0].count, int(peak.split()[1]) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    calls, long_lines, megabytes = map(int, done.stdout.split())
    assert (calls, long_lines) == (1, 1)
    assert megabytes < 150
