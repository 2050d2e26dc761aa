"""One budget, several processes: they share the ledger and what each has learned, and nobody gets past the limit."""

import subprocess
import sys
from pathlib import Path

from tallystick.ledger.sqlite import SqliteLedger
from tallystick.metering.rules import make_budget

SOURCE = Path(__file__).resolve().parents[2] / "src"

PROCESS = """
import sys, json, time, threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from tallystick.catalog.catalog import Catalog
from tallystick.config import user_card
from tallystick.core.usage import Usage
from tallystick.ledger.ids import new_call_id
from tallystick.ledger.sqlite import SqliteLedger
from tallystick.metering.admission import BudgetAdmission
from tallystick.metering.leave import Admitted, Who
from tallystick.metering.rating import Call
from tallystick.metering.recording import entry_for
from tallystick.wire.facts import request_facts

catalog = Catalog.bundled().with_user([user_card("m-1", {"input": Decimal(20), "output": Decimal(20)})])
catalog.find("m-1", at=datetime.now(UTC))
ledger = SqliteLedger(sys.argv[1])
admission = BudgetAdmission(ledger, lambda: catalog, wait=20.0)
body = {"model": "m-1", "max_tokens": 1000, "messages": [{"role": "user", "content": "word " * 600}]}
facts = request_facts("POST", "https://api.openai.com/v1/chat/completions", {}, json.dumps(body).encode())

def one(_):
    call_id, at = new_call_id(), datetime.now(UTC)
    leave = admission.leave(call_id, facts, Who(), at)
    if not isinstance(leave.ask().result(), Admitted):
        return 0
    call = Call(model="m-1", at=at, provider="openai", api="openai.chat")
    entry = entry_for(Usage(input=1000, output=1000), call, catalog, call_id=call_id, recorded_at=at, source="client")
    leave.settle(entry).result()
    return 1

print("ready", flush=True)
sys.stdin.readline()
with ThreadPoolExecutor(20) as pool:
    print(sum(pool.map(one, range(20))), flush=True)
admission.close()
ledger.close()
"""


def test_three_processes_admit_ten_calls_together(tmp_path):
    path = tmp_path / "ledger.db"
    with SqliteLedger(path) as ledger:
        ledger.put_budget(make_budget("b", {"limit": "$0.40"}))
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(path)], env={"PYTHONPATH": str(SOURCE), "PATH": ""}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for _ in range(3)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    admitted = [int(worker.communicate()[0]) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    with SqliteLedger(path) as ledger:
        (account,) = ledger.accounts("b")
        assert ledger.verify() == []
    # Each process may have had one call under way before anybody knew of the 400 tokens that the provider adds.
    assert 10 <= sum(admitted) <= 11
    assert account.balance.settled <= 40 * 10**10 + account.balance.overdraft
    assert account.balance.overdraft <= 3 * 400 * 20 * 10**6
