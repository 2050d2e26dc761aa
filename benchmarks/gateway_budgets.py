"""Can a budget be overspent through the gateway? A hundred calls at once on a budget of ten, one worker and four.

    python benchmarks/gateway_budgets.py [--loads NAME,...] [--workers 1,4] [--stores sqlite,postgres] [--rounds 1]

The load is that of benchmarks/budgets.py: $0.40, and calls of $0.04. A real client of OpenAI's makes them over as many
connections as it likes, through `tally up`; the provider is our simulator. Exits with 1 where a promise is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from _budget_load import BUDGET, HERE, LIMIT, Child, Truth, crowd, prompt
from _budget_load import put_budgets as budgets_into
from _budget_load import usual as answers
from _gateway_stand import Up
from _timing import machine, table
from budgets import CALLS, LOADS, Load, Row, broken, database, outcome
from tallystick.errors import LedgerError
from tallystick.ledger.opening import open_ledger
from tallystick.simulator import Simulator

ROWS = ("one", "stream", "early", "open", "learned", "openstream", "learnedstream", "hidden", "unknown")
KILLED = "killed"
TWO = "two"
HEAD = (
    "load", "ledger", "workers", "admitted", "truly spent", "delivered of it", "it says", "refused", "attempts each",
    "errors",
)  # fmt: skip
REST = 30.0
"""Seconds that answers may go on after their clients have gone."""


def named(name: str) -> Load:
    """A row by its name; in the row `killed` a worker dies when half of the budget is spent, in the row `two` there are
    two gateways, as on two machines."""
    more = {
        KILLED: Load("a worker killed at half", exact=True, processes=4),
        TWO: Load("two gateways on one database", store="postgres", exact=True),
    }
    return more.get(name) or LOADS[name]


def caller(url: str, *options: str) -> Child:
    """A process that calls through a gateway."""
    return Child([sys.executable, str(HERE / "_budget_crowd.py"), "--url", url, *options], {})


def measure(load: Load, place: str, upstream: str, truth: Truth, folder: Path, workers: int) -> Row:
    """One row on an empty ledger, through a gateway of its own."""
    with open_ledger(place) as ledger:
        budgets_into(ledger)
    with contextlib.ExitStack() as stack:
        gateways = []
        for number in range(2 if load.store == "postgres" else 1):
            home = folder / f"machine-{number}"
            home.mkdir()
            gateways.append(stack.enter_context(Up(home, place, {"openai": upstream}, workers=workers)))
        gateway = gateways[0]
        if load.history:
            before = caller(gateway.openai, *load.options, "--calls", "0", "--history", str(load.history))
            crowd([before], prompt(load.visible))
        truth.clear()
        if load.processes > 1:
            truth.half = gateway.kill_one
        share = str(CALLS // len(gateways))
        callers = [caller(one.openai, *load.options, "--calls", share) for one in gateways]
        said = crowd(callers, prompt(load.visible))
        truth.half = None
        at_rest(place)
        code = max(one.stop() for one in gateways)
        faults = "".join(one.errors() for one in gateways)
    row = outcome(place, said, truth)
    if load.processes > 1:
        # Whoever was connected to the dead worker tries again, as its SDK does.
        row.attempts, row.errors = row.refused, []
    elif row.admitted != truth.served:
        row.wrong.append(f"{row.admitted} holds were granted, and {truth.served} calls reached the provider")
    if code:
        row.wrong.append(f"tally up ended with {code}")
    if faults:
        row.wrong.append(f"it said: {faults[-300:]}")
    return row


def at_rest(place: str) -> None:
    """Returns when no call is in flight any more."""
    until = time.monotonic() + REST
    with open_ledger(place) as ledger:
        while time.monotonic() < until:
            ledger.expire()
            if not ledger.holds("open", BUDGET):
                return
            time.sleep(0.1)


def rows(loads: list[str], stores: list[str], workers: list[int], rounds: int) -> Iterator[tuple[list[str], list[str]]]:
    """Every row as cells, with what is wrong with it."""
    truth = Truth()
    with Simulator(answers, heard=truth.hear, keep=0, typed=False) as simulator:
        for name in loads:
            load = named(name)
            for kind in stores:
                for number in workers:
                    if (name == KILLED and number == 1) or (name == TWO and kind != "postgres"):
                        continue
                    for _ in range(rounds):
                        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made:
                            folder = Path(made)
                            row = one(load, kind, simulator.openai_url, truth, folder, number)
                        where = f"{load.name}, {kind}, {number}"
                        wrong = [f"{where}: {one}" for one in broken(load, row)]
                        yield [load.name, kind, str(number), *row.cells()], wrong


def one(load: Load, kind: str, upstream: str, truth: Truth, folder: Path, workers: int) -> Row:
    """One row on one kind of ledger."""
    if kind == "sqlite":
        return measure(load, str(folder / "ledger.db"), upstream, truth, folder, workers)
    with database(folder / "database") as url:
        return measure(load, url, upstream, truth, folder, workers)


def main() -> int:
    """Prints the table; 1 where a promise is broken."""
    options = argparse.ArgumentParser()
    options.add_argument("--loads", default=",".join((*ROWS, KILLED, TWO)))
    options.add_argument("--stores", default="sqlite,postgres")
    options.add_argument("--workers", default="1,4")
    options.add_argument("--rounds", type=int, default=1)
    given = options.parse_args()
    cells, faults = [], []
    numbers = [int(word) for word in given.workers.split(",")]
    for found, wrong in rows(given.loads.split(","), given.stores.split(","), numbers, given.rounds):
        cells.append(found)
        faults += wrong
        print("  ".join(found), *wrong, sep="\n   ", file=sys.stderr)
    print(f"{CALLS} calls at once through tally up, ${LIMIT / 10**12:.2f} for ten of $0.04; {machine()}")
    print(table(HEAD, cells))
    print(
        "admitted: holds granted; refused: calls that a budget refused; attempts each: HTTP attempts for one of these."
    )
    print("\n".join(faults or ["Every promise held."]))
    return 1 if faults else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LedgerError as error:
        sys.exit(str(error))
