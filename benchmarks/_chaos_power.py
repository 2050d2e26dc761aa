"""Power cuts: what is left of a ledger when everything is gone that was written and not synced.

Started by benchmarks/chaos.py. With arguments it is one of the processes that write: it makes, grows and settles holds,
and notes what it was told is safe. Without the ledger's knowledge `_power_loss.c` keeps an image of each file as it was
when it was last synced. After a kill the image is put in the place of the ledger, with some of the blocks that had not
been synced, or none, or all of them: a disk may have written any of them.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tallystick.core.cost import Cost
from tallystick.core.usage import Usage
from tallystick.ledger.budget import Budget
from tallystick.ledger.entry import Entry
from tallystick.ledger.hold import Ask, Charge, Claim, Granted, Settlement
from tallystick.ledger.ids import new_call_id
from tallystick.ledger.query import Query
from tallystick.ledger.sqlite import SqliteLedger

HERE = Path(__file__).parent
NAME = "ledger.db"
BLOCK = 512
PROCESSES = 3
PERIOD = "lifetime"
LIMIT = 4 * 10**12
COST = 2 * 10**9
CARELESS = "CHAOS_CARELESS"
SAFE = ("held", "grown", "settled")
"""What a process was told is safe from a power cut; `entered` is safe from a killed process only."""


def ask(hold_id: str) -> Ask:
    """A hold that can grow."""
    claim = Claim(budget_id="power", value="", period=PERIOD, base=COST // 2, per_output=10**6)
    until = datetime.now(UTC) + timedelta(hours=1)
    return Ask(hold_id=hold_id, claims=(claim,), output=500, least=1, payload="0" * 24, version=1, expires_at=until)


def write(ledger: SqliteLedger, notes: int, seed: str) -> None:
    """Makes holds, for ever."""
    chance = random.Random(seed)
    while True:
        hold_id = new_call_id()
        granted = ledger.authorise(ask(hold_id), wait=1.0).result()
        if not isinstance(granted, Granted):
            return
        os.write(notes, f"held {hold_id} {granted.output}\n".encode())
        if chance.random() < 0.5:
            covered = ledger.extend(hold_id, 1000).result()
            os.write(notes, f"grown {hold_id} {covered}\n".encode())
        durable = chance.random() < 0.3
        if chance.random() < 0.7:
            now = datetime.now(UTC)
            entry = Entry(
                call_id=hold_id, started_at=now, provider="p", model="m", usage=Usage(input=10, output=5),
                cost=Cost((), COST // 4), hold_id=hold_id,
            )  # fmt: skip
            charge = Charge(budget_id="power", value="", period=PERIOD, amount=COST // 4)
            ledger.settle(entry, Settlement(charges=(charge,)), durable=durable).result()
            os.write(notes, f"{'settled' if durable else 'entered'} {hold_id} 0\n".encode())


def writer(place: str, notes: str, seed: str) -> None:
    """One process that writes, with four threads."""
    handle = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if CARELESS in os.environ:
        # Shows that a ledger which does not sync is found out.
        SqliteLedger._sync = lambda _ledger: None  # type: ignore[method-assign]
    with SqliteLedger(place) as ledger:
        threads = [
            threading.Thread(target=write, args=(ledger, handle, f"{seed}/{number}"), daemon=True)
            for number in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def build(folder: Path) -> Path | None:
    """The library that keeps the image; None where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    made = folder / "power_loss.so"
    command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(made), str(HERE / "_power_loss.c"), "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    return made


def cut_power(folder: Path, library: Path, *, seed: int, seconds: float, careless: bool = False) -> Path:
    """Lets processes write and kills them all at a random moment; the folder of what was synced by then."""
    ledger, image = folder / "ledger", folder / "image"
    for one in (ledger, image):
        one.mkdir(parents=True)
    chance = random.Random(seed)
    environment = {
        **os.environ, "LD_PRELOAD": str(library), "POWER_FOLDER": str(ledger), "POWER_IMAGE": str(image),
        **({CARELESS: "1"} if careless else {}),
    }  # fmt: skip
    command = [sys.executable, str(Path(__file__)), str(ledger / NAME)]
    first = [*command, str(folder / "budget")]
    subprocess.run(first, env=environment, check=True, timeout=60)
    started = [
        subprocess.Popen([*command, str(folder / f"{number}.notes"), f"{seed}/{number}"], env=environment)
        for number in range(PROCESSES)
    ]
    try:
        while not any(place.stat().st_size for place in folder.glob("*.notes")):
            time.sleep(0.01)
        time.sleep(chance.uniform(0.1, seconds))
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()
    return image


def restore(ledger: Path, image: Path, target: Path, share: float, chance: random.Random) -> None:
    """What a disk may hold after the cut: each file as it was last synced, and of the blocks that were written since a
    share, chosen by chance."""
    target.mkdir()
    for name in (NAME, NAME + "-wal"):
        kept = (image / name).read_bytes() if (image / name).exists() else b""
        now = (ledger / name).read_bytes() if (ledger / name).exists() else kept
        data = bytearray(kept)
        for at in range(0, max(len(now), len(kept)), BLOCK):
            if now[at : at + BLOCK] != kept[at : at + BLOCK] and chance.random() < share:
                data.extend(bytes(max(0, at - len(data))))
                data[at : at + BLOCK] = now[at : at + BLOCK]
        (target / name).write_bytes(data)


def lost(target: Path, notes: Sequence[tuple[str, str, int]]) -> tuple[list[str], int]:
    """What the ledger that is left does not keep of what it had said is safe, and how many entries it has lost that it
    had not yet said so of."""
    wrong, unsafe = [], 0
    with SqliteLedger(target / NAME) as ledger:
        wrong += ledger.verify()
        holds = {hold.hold_id: hold for hold in ledger.holds()}
        entered = {entry.call_id for entry in ledger.read(Query())}
        for word, hold_id, output in notes:
            hold = holds.get(hold_id)
            if word == "entered":
                unsafe += hold_id not in entered
            elif hold is None or hold.output < output or (word == "settled" and hold_id not in entered):
                wrong.append(f"{word} {hold_id} {output}, but the ledger has {hold}")
        for account in ledger.accounts():
            stands = account.balance
            if stands.settled + stands.suspect + stands.held > LIMIT + stands.overdraft:
                wrong.append(f"over the limit: {stands}")
        ledger.expire()
        wrong += [f"an open hold of nobody: {hold.hold_id}" for hold in ledger.holds("open")]
        wrong += ledger.verify()
    return wrong, unsafe


def power_round(
    folder: Path, library: Path, *, seed: int, seconds: float, careless: bool = False
) -> tuple[int, int, int, list[str]]:
    """One cut, looked at as several disks would leave it: what was said to be safe, what was lost that was not, in how
    many disks, and what is wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    image = cut_power(folder, library, seed=seed, seconds=seconds, careless=careless)
    notes = []
    for place in folder.glob("*.notes"):
        for line in place.read_text().splitlines():
            word, hold_id, output = line.split()
            notes.append((word, hold_id, int(output)))
    wrong, unsafe = [], 0
    shares = (0.0, 0.1, 0.5, 0.9, 1.0)
    for number, share in enumerate(shares):
        target = folder / f"after-{number}"
        restore(folder / "ledger", image, target, share, random.Random(f"{seed}/{number}"))
        found, gone = lost(target, notes)
        wrong += [f"with {share:.0%} of what was not synced: {one}" for one in found]
        unsafe += gone
    return sum(word in SAFE for word, _, _ in notes), unsafe, len(shares), wrong


def main(arguments: Sequence[str]) -> None:
    """One process: the one that makes the ledger and its budget, or one that writes."""
    if len(arguments) == 2:
        with SqliteLedger(arguments[0]) as ledger:
            ledger.put_budget(Budget(budget_id="power", limit=LIMIT))
            ledger.flush()
    else:
        writer(arguments[0], arguments[1], arguments[2])


if __name__ == "__main__":
    main(sys.argv[1:])
