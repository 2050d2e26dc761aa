"""How much of a hard budget can be used before it refuses? $20 at gpt-4o's rates, 40 streams at once, on a real trace.

    python benchmarks/budget_trace.py [--limit 20] [--streams 40] [--faster 100]

Arrivals and lengths are those of the Azure conversation trace (data/README.md), compressed 100 times; the provider is
our simulator, and the client is openai's with our meter. Exits with 1 where more was spent than the budget, the first
refusal came below 97 % of it, or less than 99 % was used at the end.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from _budget_load import BUDGET, HERE, PHASE, Child, Truth, dollars
from _timing import machine, table
from tallystick.core.attribution import Tags
from tallystick.core.money import Money
from tallystick.ledger.budget import Budget
from tallystick.ledger.sqlite import SqliteLedger
from tallystick.metering.budgets import put
from tallystick.simulator import Answer, Request, Simulator

MODEL, READ, WRITTEN = "gpt-4o", 2_500_000, 10_000_000
FIRST, USED = 97, 99
SECONDS = 550


def answers(request: Request) -> Answer:
    """As long as the trace says."""
    read, written = int(request.headers["x-input"]), int(request.headers["x-output"])
    return Answer(input_tokens=read, output_tokens=written, chunks=min(written, 12), chunk_ms=4)


def main() -> int:
    """Prints the figures; 1 where they are not as promised."""
    options = argparse.ArgumentParser()
    options.add_argument("--limit", default="20")
    options.add_argument("--streams", type=int, default=40)
    options.add_argument("--faster", type=float, default=100)
    given = options.parse_args()
    limit = Money.parse(given.limit).pico
    truth = Truth(MODEL, READ, WRITTEN)
    with (
        tempfile.TemporaryDirectory() as folder,
        Simulator(answers, heard=truth.hear, keep=0, typed=False) as simulator,
    ):
        place = Path(folder) / "ledger.db"
        with SqliteLedger(place) as ledger:
            put(ledger, Budget(budget_id=BUDGET, limit=limit, scope=Tags({PHASE: "row"})), datetime.now(UTC))
        more = ["--streams", str(given.streams), "--faster", str(given.faster)]
        replay = [sys.executable, str(HERE / "_budget_replay.py"), "--ledger", str(place)]
        child = Child([*replay, "--url", simulator.openai_url, *more], {})
        child.ready()
        begun = time.monotonic()
        child.go("")
        said = child.result(begun + SECONDS)
        taken = time.monotonic() - begun
        with SqliteLedger(place) as ledger:
            [account] = ledger.accounts(BUDGET)
            wrong = ledger.verify()
    balance, first = account.balance, said["first"]
    over = max(0, truth.delivered - limit)
    before = 100 * (first.get("spent", 0) + first.get("held", 0)) / limit
    used = 100 * balance.settled / limit
    rows = [
        ["calls whole / ended at a limit / refused", f"{said['served']:,} / {said['cut']:,} / {said['refused']:,}"],
        ["most streams at once", str(said["most"])],
        ["seconds", f"{taken:.0f}"],
        ["spent at the first refusal", f"{100 * first.get('spent', 0) / limit:.2f} %"],
        ["spent and held at the first refusal", f"{before:.2f} %"],
        ["used at the end", f"{dollars(balance.settled)} of {dollars(limit)}: {used:.2f} %"],
        ["kept beside it for calls that a limit ended", dollars(balance.suspect)],
        ["truly delivered", dollars(truth.delivered)],
        ["overshoot", dollars(over)],
        ["overdraft in the ledger", dollars(balance.overdraft)],
    ]
    print(f"{dollars(limit)} for {given.streams} streams at once of the trace, {machine()}")
    print(table(["", "measured"], rows))
    faults = [*wrong, *said["errors"]]
    faults += [f"{dollars(over)} overshoot"] if over or balance.spent > limit + balance.overdraft else []
    faults += ["the first refusal came too early"] if before < FIRST else []
    faults += ["too little was used"] if used < USED else []
    print("\n".join(faults or ["No overshoot, and the budget was used up."]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
