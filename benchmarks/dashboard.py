"""How long the dashboard's pages take in a real browser, beside an empty page of the same server.

    python benchmarks/dashboard.py [--ledger FILE | --entries 200000]

`tally up --read-only` serves the ledger and Chromium (that of tests/pages) opens every view and makes the clicks that
people make. Each figure is the best of three loads by the page's own clock: first contentful paint, the answer's last
byte, DOMContentLoaded and load, all since the click. Server is the processor time that the server took for it. What a
page transfers is counted once with nothing kept in the browser (cold) and once again (warm). A ledger of an older
version is migrated when it is opened: give a copy.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from _timing import machine
from reports import entries, fill

ROOT = Path(__file__).resolve().parents[1]
TARGET_MS = 300
COLD, WARM = 300_000, 50_000
ROUNDS = 3
EMPTY = "/calls?since=1990-01-01&until=1990-01-02"
CLICKS = (
    "/", "/spend", "/spend?period=7d", "/spend?period=year", "/spend?by=team&period=90d", "/spend?by=user",
    "/spend?by=user&period=year", "/spend?team=team-1&model=model-2&by=key&period=year", "/spend?user=user-1",
    "/runs", "/runs?order=cost", "RUN", "/calls", "/calls?team=team-1", "/calls?user=user-4000&period=year",
    "/tokens", "/tokens?period=year", "/tokens?user=user-1", "/models", "/models?period=year", "/models?user=user-1",
    "/budgets", "/quality", "/quality?period=year", "/rates", "/rates?model=model-1",
)  # fmt: skip
TIMES = (
    "(() => { const one = performance.getEntriesByType('navigation')[0];"
    " const paint = performance.getEntriesByName('first-contentful-paint')[0];"
    " return paint && one.loadEventEnd ? [paint.startTime, one.responseEnd, one.domContentLoadedEventEnd,"
    " one.loadEventEnd] : null })()"
)
SENT = "performance.getEntries().reduce((sum, one) => sum + (one.transferSize || 0), 0)"


def worked(pid: int) -> float:
    """Milliseconds of processor time that a process has taken, to 10 ms."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def loaded(page: Any, url: str, pid: int) -> tuple[list[float], float]:
    """The times of one load by the page's clock, and the server's processor time."""
    before = worked(pid)
    page.goto(url)
    times = page.until(TIMES)
    return times, worked(pid) - before


def measured(browser: Any, url: str, pid: int) -> tuple[list[float], float, int, int]:
    """The best times of a page and of the server, and the bytes of a cold and of a warm load."""
    with browser.page() as page:
        times, server = loaded(page, url, pid)
        cold = int(page.run(SENT))
        rounds = [(times, server), *(loaded(page, url, pid) for _ in range(ROUNDS - 1))]
        warm = int(page.run(SENT))
    return (
        [min(column) for column in zip(*(one for one, _ in rounds), strict=True)],
        min(s for _, s in rounds),
        cold,
        warm,
    )


@contextmanager
def ledger(given: argparse.Namespace, folder: Path) -> Iterator[Path]:
    """The ledger to look at: a given one, or one that is made."""
    if given.ledger:
        yield given.ledger
        return
    place = folder / "ledger.db"
    print(f"Filling a ledger with {given.entries:,} calls ...", flush=True)
    fill(place, entries(given.entries), given.entries)
    yield place


def main() -> None:
    """Prints the table; exit code 1 where a page misses a target."""
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("--ledger", type=Path, help="a ledger's file")
    told.add_argument("--entries", type=int, default=200_000, help="how many calls to make, without --ledger")
    given = told.parse_args()
    sys.path[:0] = [str(ROOT / "tests" / "pages"), str(ROOT / "tests" / "gateway")]
    rig, desk = importlib.import_module("pages_rig"), importlib.import_module("gateway_desk")
    if reason := rig.missing():
        sys.exit(reason)
    print(machine(), f"load {os.getloadavg()[0]:.1f}", datetime.now(UTC).strftime("%Y-%m-%d"), sep=", ")
    with tempfile.TemporaryDirectory() as name, ledger(given, Path(name)) as place:
        folder = Path(name)
        env = {"TALLY_LEDGER": str(place)}
        with desk.up(folder, "--read-only", env=env) as (started, process):
            browser = rig.Browser(folder / "browser")
            try:
                missed = shown(browser, started["url"], process.pid)
            finally:
                browser.close()
    sys.exit(1 if missed else 0)


def shown(browser: Any, url: str, pid: int) -> int:
    """Measures and prints every page; how many miss a target."""
    run = _a_run(url)
    clicks = [f"/runs/{quote(run, safe='')}" if click == "RUN" else click for click in CLICKS if click != "RUN" or run]
    print(
        f"{'page':<52}{'paint':>7}{'answer':>8}{'DOM':>7}{'load':>7}{'server':>8}{'cold':>10}{'warm':>10}   ms, bytes"
    )
    missed = 0
    for click in ("/healthz", EMPTY, *clicks):
        times, server, cold, warm = measured(browser, url + click, pid)
        ok = max(times[0], times[3]) <= TARGET_MS and cold <= COLD and warm <= WARM
        missed += not ok
        figures = "".join(f"{one:>7.0f}" if place != 1 else f"{one:>8.0f}" for place, one in enumerate(times))
        print(
            f"{click[:51]:<52}{figures}{server:>8.0f}{cold:>10,}{warm:>10,}   {'met' if ok else 'NOT MET'}", flush=True
        )
    print(f"Targets: paint and load <= {TARGET_MS} ms, cold <= {COLD:,} and warm <= {WARM:,} bytes. {missed} not met.")
    return missed


def _a_run(url: str) -> str:
    """The name of a run, from the page that lists them."""
    import json
    import urllib.request

    with urllib.request.urlopen(f"{url}/runs?format=json&period=year", timeout=60) as answer:
        rows = json.load(answer)["rows"]
    return rows[0]["run"] if rows else ""


if __name__ == "__main__":
    main()
