"""LiteLLM, in an interpreter of its own: its metadata gives names to the calls that are metered below it."""

import json
import os
import subprocess
import sysconfig
from pathlib import Path

import pytest
from other_calls import used

from tallystick.simulator import Answer

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PYTHON = Path(os.environ.get("LITELLM_PYTHON", ROOT / "build" / "peers" / "litellm" / "bin" / "python"))


@pytest.mark.skipif(not PYTHON.exists(), reason="LiteLLM has no interpreter here; LITELLM_PYTHON names one")
def test_litellm_names_its_calls_and_nothing_else(simulate):
    sim = simulate(Answer(text="yes", reasoning_tokens=2))
    # LiteLLM's own packages come first; ours are only for what it lacks.
    code = (
        f"import sys; sys.path.append({sysconfig.get_path('purelib')!r}); import runpy; runpy.run_path(sys.argv.pop(1))"
    )
    done = subprocess.run(
        [PYTHON, "-c", code, HERE / "litellm_calls.py", sim.url],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{HERE}", "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "LEDGER" in done.stdout, done.stderr[-3000:]
    told = json.loads(done.stdout.partition("LEDGER")[2].splitlines()[0])
    rows = told["rows"]
    names = ["plain", "stream", "inside", *(f"thread {n}" for n in range(30)), *(f"async {n}" for n in range(30))]
    expected = {f"agent {name}": f"user {name}" for name in [*names, "claude"] if name != "inside"}
    assert {row["tags"]["agent"]: row["tags"]["user"] for row in rows if row["tags"]} == {**expected, "mine": "ada"}
    assert {(row["step"], row["tags"]["colour"]) for row in rows if row["tags"]} == {("draft", "blue")}
    assert rows[-1]["tags"] == {}
    assert told["clean"]
    assert [row["usage"] for row in rows][:2] == [used(call) for call in sim.calls[:2]]
    assert len(rows) == len(sim.calls) == len(names) + 2
