"""What each way of capturing calls records of what was served, and what it costs the caller.

    python benchmarks/capture.py [--rounds 15] [--json FILE] [--docs FILE] [--profile] [--part truth|cost]

Beside us: the OpenTelemetry instrumentation for OpenAI, OpenInference's, and LiteLLM's own callback, each in an
environment of its own under build/peers (`make bench-capture` makes them). The simulator knows what was served. CPU is
that of the whole process, all threads, with the bare SDK as the floor, in interleaved rounds.
"""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import tallystick
from _timing import machine, median, table
from tallystick.core.money import Money
from tallystick.core.usage import INPUT_KINDS, OUTPUT_KINDS
from tallystick.simulator import Answer, Simulator

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "build" / "peers"
PYTHONS = {
    "bare": Path(sys.executable),
    "tallystick": Path(sys.executable),
    "otel": PEERS / "otel" / "bin" / "python",
    "openinference": PEERS / "openinference" / "bin" / "python",
    "litellm": PEERS / "litellm-callback" / "bin" / "python",
}
LONG = Answer(output_tokens=160, chunk_tokens=4, chunk_ms=4)
ANSWERS = {
    "non-stream": Answer(output_tokens=40, input_tokens=100, cached_tokens=30, reasoning_tokens=6),
    "stream with include_usage": Answer(output_tokens=40, input_tokens=100, cached_tokens=30, reasoning_tokens=6),
    "stream without include_usage": Answer(output_tokens=40, input_tokens=100, cached_tokens=30, reasoning_tokens=6),
    "closed early": LONG,
    "break, forgotten": LONG,
    "async cancelled": LONG,
    "connection cut": Answer(output_tokens=100, cut_after=20),
    "retry after 500": Answer(output_tokens=20, status=500, failures=1),
    "429 until failure": Answer(status=429),
    "usage missing": Answer(output_tokens=30, usage="missing"),
    "flex tier": Answer(output_tokens=40, service_tier="flex"),
    "gzip stream": Answer(output_tokens=40, encoding="gzip"),
    "embeddings": Answer(),
    "Responses": Answer(output_tokens=40, input_tokens=100, cached_tokens=30, reasoning_tokens=6),
    "Responses, stream": Answer(output_tokens=40, input_tokens=100, cached_tokens=30, reasoning_tokens=6),
    "Responses, closed early": LONG,
    "Responses, tool fees": Answer(output_tokens=30, input_tokens=50, tools={"web_search": 2, "file_search": 1}),
}
CHUNKS = 200
VERSION = importlib.metadata.version("openai")
SERVER = f"""
import sys
from tallystick.simulator import Answer, Simulator
with Simulator(Answer(output_tokens={CHUNKS - 2}), typed=False, keep=0) as sim:
    print(sim.openai_url, flush=True)
    sys.stdin.read()
"""


class Worker:
    """A process that works off commands."""

    def __init__(self, kind):
        environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        if kind not in ("bare", "tallystick"):
            environment.pop("PYTHONPATH")
        self.process = subprocess.Popen(
            [PYTHONS[kind], "-W", "ignore", Path(__file__).with_name("_capture_worker.py"), kind],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
        )  # fmt: skip

    def ask(self, **command):
        """Gives the process a command and waits for its answer."""
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("ANSWER"):
                return json.loads(line[6:])
        raise SystemExit(f"A worker ended: {self.process.args}")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.process.stdout.close()


def served(calls):
    """What was served in truth: tokens in and out, and its cost."""
    used = [call for call in calls if call.usage is not None]
    cost = sum((_cost(call) for call in used), Money(0))
    return {
        "input": sum(call.usage.get(kind, 0) for call in used for kind in INPUT_KINDS),
        "output": sum(call.usage.get(kind, 0) for call in used for kind in OUTPUT_KINDS),
        "usd": cost.plain(),
    }


def _cost(call):
    tier = json.loads(call.body).get("service_tier")
    context = {"service_tier": tier} if tier else {}
    return tallystick.price(call.usage, model=call.model, provider="openai", context=context).amount


def truth(kinds):
    """For each case what each kind has recorded, and what was served."""
    rows = []
    with ExitStack() as stack:
        workers = {kind: stack.enter_context(Worker(kind)) for kind in kinds}
        for name, answer in ANSWERS.items():
            row = {"case": name}
            for kind, worker in workers.items():
                with Simulator(answer, typed=False) as sim:
                    found = worker.ask(do="case", case=name, url=sim.openai_url)
                    row[kind] = found["rows"]
                    calls = sim.wait(1, 2.0)
                    if kind == "tallystick":
                        row["served"] = served(calls)
            rows.append(row)
            print(f"  {name}", file=sys.stderr, flush=True)
    return rows


def words(rows):
    """What was recorded of a case, in one cell."""
    if not rows:
        return "nothing"
    known = [row for row in rows if row["input"] is not None or row["output"] is not None]
    tokens = f"{sum(row['input'] or 0 for row in known)} / {sum(row['output'] or 0 for row in known)}"
    if not known:
        tokens = "no tokens"
    costs = [row["usd"] for row in rows if row["usd"] is not None]
    money = f", ${sum((Money.usd(cost) for cost in costs), Money(0)).plain()}" if costs else ""
    bound = " at least" if any(row["word"] == "lower_bound" for row in rows) else ""
    return tokens + money + bound


def costs(kinds, rounds):
    """CPU microseconds per streamed chunk and per non-stream call, by kind and callers."""
    found = {}
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    url = server.stdout.readline().strip()
    with ExitStack() as stack:
        workers = {kind: stack.enter_context(Worker(kind)) for kind in kinds}
        plans = [
            ("chunks", 3, 1, rounds), ("calls", 25, 1, rounds), ("calls", 1, 64, rounds),
            ("chunks", 1, 64, max(3, rounds // 4)),
        ]  # fmt: skip
        for what, times, callers, turns in plans:
            per = times * callers * (CHUNKS if what == "chunks" else 1)
            taken = {kind: [] for kind in kinds}
            for number in range(turns + 1):
                # The one that goes first changes from round to round.
                for kind in [*kinds[number % len(kinds) :], *kinds[: number % len(kinds)]]:
                    cpu = workers[kind].ask(do=what, times=times, callers=callers, url=url)["cpu"]
                    if number:
                        taken[kind].append(cpu / per * 1e6)
            for kind in kinds:
                # Each round is compared with the floor of the same round: a slow minute of the machine hits both.
                pairs = list(zip(taken[kind], taken["bare"], strict=True))
                more, ratio = (
                    median([one - floor for one, floor in pairs]),
                    median([one / floor for one, floor in pairs]),
                )
                found[what, callers, kind] = {"us": median(taken[kind]), "more": more, "ratio": ratio}
                print(f"  {what} x {callers} {kind}: {found[what, callers, kind]}", file=sys.stderr, flush=True)
    server.stdin.close()
    server.wait(10)
    server.stdout.close()
    return found


def cost_table(found, kinds):
    rows = []
    for what, callers in [("chunks", 1), ("chunks", 64), ("calls", 1), ("calls", 64)]:
        for kind in kinds:
            one = found[what, callers, kind]
            name = "streamed chunk" if what == "chunks" else "non-stream call"
            rows.append([name, str(callers), kind, f"{one['us']:.1f}", f"{one['more']:+.1f}", f"{one['ratio']:.3f}x"])
    return ["per", "callers", "kind", "CPU us", "beyond bare", "ratio"], rows


def truth_table(rows, kinds):
    body = []
    for row in rows:
        true = row["served"]
        body.append(
            [row["case"], f"{true['input']} / {true['output']}, ${true['usd']}", *(words(row[kind]) for kind in kinds)]
        )
    return ["case", "served (in / out)", *kinds], body


def markdown(head, rows):
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def into_docs(place, name, text):
    """Puts a table between its two marks in a page."""
    page = place.read_text(encoding="utf-8")
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, _, rest = page.partition(start)
    place.write_text(before + start + text + "\n" + end + rest.partition(end)[2], encoding="utf-8")


def profile():
    """The dearest functions of ours, from cProfile: shares, not times, are what it can say."""
    with Worker("tallystick") as worker, Simulator(Answer(output_tokens=CHUNKS - 2), typed=False, keep=0) as sim:
        for what, times in (("chunks", 10), ("calls", 100)):
            rows = worker.ask(do="profile", what=what, times=times, url=sim.openai_url)["rows"]
            whole = sum(row[2] for row in rows)
            ours = [row for row in rows if row[4]]
            share = sum(row[2] for row in ours) / whole
            print(f"\n{what}: our own functions take {share:.1%} of the profiled time of the calling thread")
            body = [[f"{row[2] / whole:.2%}", f"{row[3] / whole:.2%}", str(row[1]), row[0]] for row in ours[:16]]
            print(table(["own", "with callees", "calls", "function"], body))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--docs", type=Path)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--part", choices=["truth", "cost"])
    asked = parser.parse_args()
    have = [kind for kind, python in PYTHONS.items() if python.exists()]
    print(machine())
    result = {"machine": machine()}
    if asked.part != "cost":
        kinds = [kind for kind in have if kind != "bare"]
        rows = truth(kinds)
        head, body = truth_table(rows, kinds)
        print(table(head, body))
        result["truth"] = rows
        if asked.docs:
            into_docs(asked.docs, "what each records", markdown(head, body))
    if asked.part != "truth":
        kinds = [kind for kind in have if kind != "litellm"]
        found = costs(kinds, asked.rounds)
        head, body = cost_table(found, kinds)
        print(table(head, body))
        result["cost"] = [{"what": key[0], "callers": key[1], "kind": key[2], **value} for key, value in found.items()]
        if asked.docs:
            busy = f"{machine()}, load {os.getloadavg()[1]:.1f} in the five minutes before, bare SDK openai {VERSION}"
            into_docs(asked.docs, "what it costs", f"{busy}.\n\n{markdown(head, body)}")
    if asked.profile:
        profile()
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
