"""A process that asks for holds: `hold_process.py LEDGER NAME PAUSE ASKS WAIT`, in five threads with a pause before each.

Prints a line for each grant as soon as it is told, `waiting` when all asks are made at once (PAUSE below 0), and ends
when its standard input does.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from hold_samples import ask, claim

from tallystick.ledger.hold import Granted
from tallystick.ledger.sqlite import SqliteLedger

CALL = 40_000_000_000


def main() -> None:
    path, name, pause, asks, wait = sys.argv[1:]
    with SqliteLedger(path) as ledger:
        numbers = iter(range(int(asks)))
        lock = threading.Lock()

        def work() -> None:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                time.sleep(float(pause))
                found = ledger.authorise(ask(f"{name}-{number}", claim(CALL)), wait=float(wait)).result()
                if isinstance(found, Granted):
                    # In one write, so that threads do not mix and a killed process says all of it or nothing.
                    os.write(1, f"granted {found.hold_id}\n".encode())

        threads = [threading.Thread(target=work) for _ in range(5)]
        print("began", flush=True)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print("done", flush=True)
        sys.stdin.read()


main()
