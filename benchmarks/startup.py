"""How long does `import tallystick` take, and a whole `tally price` from the shell? Beside a bare interpreter.

Wall and CPU time of whole processes, interleaved, medians. The package is byte-compiled beforehand, as an installation does.
"""

from __future__ import annotations

import compileall
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import tallystick
from _timing import machine, median, table

PRICE = "import sys; from tallystick.cli import run; sys.exit(run(['price', 'gpt-4o', '--input', '1000', '--output', '100']))"
COMMANDS = {
    "python -c pass": "pass",
    "import tallystick": "import tallystick",
    "import tallystick.front (price, catalogue)": "import tallystick; tallystick.price",
    "tally price": PRICE,
}
ROUNDS = 21


def once(code: str) -> tuple[float, float]:
    """(wall, CPU) milliseconds of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, env=os.environ)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall * 1000, (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000


def main() -> None:
    """Prints a row per command."""
    compileall.compile_dir(str(Path(tallystick.__file__).parent), quiet=2)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, code in COMMANDS.items():
            taken[name].append(once(code))
    base = median([wall for wall, _ in taken["python -c pass"]])
    rows = []
    for name, times in taken.items():
        wall = median([w for w, _ in times])
        rows.append([name, f"{wall:.0f}", f"{wall - base:.0f}", f"{median([c for _, c in times]):.0f}"])
    print(machine())
    print(table(["process", "wall ms", "over a bare python", "CPU ms"], rows))
    print("targets: import tallystick 60 ms, tally price 120 ms")


if __name__ == "__main__":
    main()
