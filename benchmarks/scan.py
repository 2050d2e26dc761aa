"""How fast and how right `tally scan` is, beside ccusage in the same run.

    python benchmarks/scan.py [--megabytes 500] [--rounds 3]

Makes a tree of logs whose truth is known (benchmarks/logtrees.py), scans it into a new ledger, scans it again, and lets
ccusage report the same tree, turn by turn. CPU seconds and peak memory are those of the processes themselves. Then both
are compared with the truth, by tool, day and kind. Where npm is missing only our side is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from logtrees import Truth, make_tree

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
VERSION = "20.0.24"
NAMES = {"claude": "claude-code", "codex": "codex", "gemini": "gemini-cli", "opencode": "opencode"}
REASONS = {
    "codex": "ccusage takes a new sub-agent's first count for a copy of its parent's where it is repeated within a second",
    "opencode": "ccusage counts the messages that a fork copied again",
}


def tree(megabytes: float, seed: int) -> tuple[Path, Truth]:
    """The tree and its truth, made once."""
    home = BUILD / f"logs-{seed}-{megabytes:g}"
    kept = home.with_suffix(".truth")
    if kept.exists():
        return home, pickle.loads(kept.read_bytes())
    shutil.rmtree(home, ignore_errors=True)
    # ccusage 20.0.24 aborts on a rollout that ends in half a line, so there are none here.
    truth = make_tree(home, seed, megabytes, halves=False)
    truth.days = dict(truth.days)  # type: ignore[assignment]
    kept.write_bytes(pickle.dumps(truth))
    return home, truth


def peer() -> Path | None:
    """The program of ccusage, installed below build/ where npm is there."""
    place = BUILD / "peers" / "ccusage"
    if shutil.which("npm") and not (place / "node_modules" / "ccusage").exists():
        place.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(place), f"ccusage@{VERSION}"]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return None
    return next(iter((place / "node_modules" / "@ccusage").glob("*/bin/ccusage")), None)


def run(command: list[str], env: dict[str, str]) -> tuple[float, float, float, str]:
    """CPU seconds, seconds, peak megabytes and output of a command."""
    with tempfile.TemporaryFile() as out:
        begun = time.monotonic()
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, env={**os.environ, **env})
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read().decode()
    if process.returncode not in (0, 4):
        text = ""
    return usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024, text


def ours(ledger: Path) -> dict[tuple[str, str], Counter[str]]:
    """What our ledger says, by tool and day (UTC), in the generator's words."""
    sys.path.insert(0, str(ROOT / "src"))
    from tallystick.ledger.sqlite import SqliteLedger

    days: dict[tuple[str, str], Counter[str]] = {}
    with SqliteLedger(ledger, read_only=True) as book:
        for entry in book.read():
            day = days.setdefault((entry.tags["tool"], f"{entry.started_at:%Y-%m-%d}"), Counter())
            usage = entry.usage or {}
            day["input"] += usage.get("input", 0)
            day["cache_read"] += usage.get("cache_read", 0)
            day["cache_write"] += sum(usage.get(f"cache_write{ttl}", 0) for ttl in ("", "_5m", "_1h"))
            day["output"] += usage.get("output", 0) + usage.get("reasoning", 0)
            day["usd"] += entry.cost.pico if entry.cost and entry.cost.pico else 0
    return days


def theirs(program: Path, env: dict[str, str]) -> dict[tuple[str, str], Counter[str]]:
    """What ccusage's `daily --json` says of each tool, in the same words."""
    days: dict[tuple[str, str], Counter[str]] = {}
    for name, tool in NAMES.items():
        text = run([str(program), name, "daily", "--json", "--offline", "--timezone", "UTC"], env)[3]
        for row in json.loads(text or '{"daily": []}')["daily"]:
            thoughts = row["totalTokens"] - sum(
                row[f"{kind}Tokens"] for kind in ("input", "cacheRead", "cacheCreation", "output")
            )
            days[tool, row.get("date") or row["period"]] = Counter(
                input=row["inputTokens"], cache_read=row["cacheReadTokens"], cache_write=row["cacheCreationTokens"],
                output=row["outputTokens"] + thoughts, usd=round(row.get("totalCost", row.get("costUSD", 0)) * 1e12),
            )  # fmt: skip
    return days


def compare(truth: Truth, sides: dict[str, dict[tuple[str, str], Counter[str]]]) -> None:
    """Each side against the truth, then the money of the two against each other."""
    kinds = ("input", "cache_read", "cache_write", "output")
    print(
        f"\n{'tool':<12} {'side':<11} {'days':>5} {'fields':>7} {'wrong':>6} {'tokens beside the truth':>24} {'USD':>14}"
    )
    for tool in NAMES.values():
        for side, days in sides.items():
            wrong, off, fields = 0, 0, 0
            named = [key for key in truth.days if key[0] == tool]
            for key in named:
                for kind in kinds:
                    difference = days.get(key, Counter())[kind] - truth.days[key][kind]
                    fields += 1
                    wrong += difference != 0
                    off += difference
            usd = sum(days.get(key, Counter())["usd"] for key in named) / 1e12
            print(f"{tool:<12} {side:<11} {len(named):>5} {fields:>7} {wrong:>6} {off:>24,} {usd:>14,.4f}")
            if wrong and side == "ccusage":
                print(f"             why: {REASONS.get(tool, 'not explained yet')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=500)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    home, truth = tree(options.megabytes, options.seed)
    program = peer()
    figures: dict[str, list[tuple[float, float, float]]] = {}
    tally = [sys.executable, "-m", "tallystick.cli", "scan", "--json", "--home", str(home)]
    env = {"HOME": str(home), "CLAUDE_CONFIG_DIR": str(home / ".claude"), "CODEX_HOME": str(home / ".codex")}
    with tempfile.TemporaryDirectory() as scratch:
        ledger = Path(scratch) / "ledger.db"
        mine = {
            "PYTHONPATH": str(ROOT / "src"),
            "TALLY_LEDGER": str(ledger),
            "PYTHONPYCACHEPREFIX": f"{scratch}/pyc",
            "PYTHONDONTWRITEBYTECODE": "",
        }
        run([sys.executable, "-m", "tallystick.cli", "--help"], mine)
        for _ in range(options.rounds + 1):
            for old in Path(scratch).glob("ledger.db*"):
                old.unlink()
            figures.setdefault("tally scan, first", []).append(run(tally, mine)[:3])
            figures.setdefault("tally scan, again", []).append(run(tally, mine)[:3])
            if program is not None:
                figures.setdefault(f"ccusage {VERSION}", []).append(
                    run([str(program), "daily", "--json", "--offline"], env)[:3]
                )
        sides = {"tallystick": ours(ledger)}
    size = sum(path.stat().st_size for path in home.rglob("*") if path.is_file())
    print(
        f"{platform.machine()}, Python {platform.python_version()}; {size / 1e6:,.0f} MB, {sum(truth.calls.values()):,} calls; medians of {options.rounds}"
    )
    print(f"{'':<24} {'CPU s':>7} {'s':>7} {'peak MB':>8}")
    for name, rows in figures.items():
        cpu, wall, peak = (statistics.median(column) for column in zip(*rows[1:], strict=True))
        print(f"{name:<24} {cpu:>7.2f} {wall:>7.2f} {peak:>8.0f}")
    if program is not None:
        sides["ccusage"] = theirs(program, env)
    compare(truth, sides)


if __name__ == "__main__":
    main()
