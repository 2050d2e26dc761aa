"""What a gateway costs beside others: nginx as the floor, TensorZero, LiteLLM's proxy, and ours with its ledger on, without
and with a hard budget.

Every gateway runs on one core, the same mock and the load on another; all take turns in every round. A request and a
chunk cost the processor time of the gateway's whole family of processes, with all it does after its last answer; a
chunk's share of its request is in it. `python benchmarks/gateway.py --short` takes three minutes, all of it at most 25.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import uvloop

from _gateway_field import BUDGET, KINDS, OURS, ROOT
from _gateway_rounds import SHORT, WIRES, Scale, run
from _gateway_tables import PARTS, as_json, entered, missing, part, targets
from _timing import machine

QUIET = 0.1
"""Cores that others may keep busy before the figures are doubtful."""


def main() -> int:
    """Measures, prints the tables, writes the file; 1 where a call is missing in a ledger of ours."""
    known = [kind.key for kind in KINDS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer rounds of fewer requests: about three minutes")
    parser.add_argument("--rounds", type=int, help="another number of rounds")
    parser.add_argument("--only", default=",".join(known), help=f"some of {','.join(known)}")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gateways.json", help="the file of all values")
    options = parser.parse_args()
    if (os.cpu_count() or 1) < 2:
        raise SystemExit("A gateway and its load need a core each; this machine has one.")
    scale = SHORT if options.short else Scale()
    if options.rounds:
        scale = replace(scale, rounds=options.rounds)
    keys = [key for key in known if key in options.only.split(",")]
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    out = options.out.resolve()
    out.parent.mkdir(exist_ok=True)
    begun = time.monotonic()
    # Not in memory, where nothing would have to be written to a disk.
    with tempfile.TemporaryDirectory(dir=out.parent, ignore_cleanup_errors=True) as folder:
        figures, ran = run(Path(folder), scale, keys)
        ledgers = list(entered(ran))
    minutes = (time.monotonic() - begun) / 60
    others = statistics.median(figures.others)
    rounds = len(figures.others)
    print(f"{machine()}; {rounds} rounds, {minutes:.1f} minutes; medians (least-most)")
    for metric in PARTS:
        print(f"\n{part(figures, metric, keys)}")
    print(f"\n{targets(figures)}\n")
    print(*missing(figures), *(text for text, _ in ledgers), sep="\n")
    doubt = "; these figures are doubtful" if others > QUIET else ""
    print(f"Other processes kept {others:.2f} cores busy{doubt}.")
    value = {"machine": machine(), "short": options.short, "rounds": rounds, "minutes": minutes}
    out.write_text(json.dumps(value | as_json(figures), indent=1))
    ours = len(WIRES) * len({OURS, BUDGET}.intersection(keys))
    return 0 if len(ledgers) == ours and all(whole for _, whole in ledgers) else 1


if __name__ == "__main__":
    sys.exit(main())
