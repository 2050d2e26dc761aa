"""What people see: the verbs in a real terminal of several widths, with and without colour, against kept pictures.

`UPDATE_SNAPSHOTS=1 pytest tests/report/test_terminal.py` keeps new ones.
"""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from datetime import timedelta
from pathlib import Path

import pytest
from report_samples import NOW, RATES, call

from tallystick.catalog.catalog import Catalog
from tallystick.config import parse_config
from tallystick.core.pricing import price
from tallystick.core.usage import Usage
from tallystick.ledger.sqlite import SqliteLedger

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src"
DRIVER = """
import sys
from datetime import UTC, datetime
from tallystick import front
front.now = lambda: datetime(2026, 11, 21, 12, 34, 56, tzinfo=UTC)
from tallystick.cli import run
for number, line in enumerate(sys.argv[1:]):
    print(("" if number == 0 else "\\n") + "$ tally " + line)
    code = run(line.split())
    if code:
        print("exit code", code)
"""
COMMANDS = (
    "report",
    "report --per month --by user --breakdown",
    "report --per run --since 7d",
    "daily --since 2026-11-20",
    "blocks --since 2d --tz Europe/Berlin",
    "top -n 2",
    "live --once",
)


def fill(path):
    """Six weeks of calls: two models, a subscription, runs, and one of each thing that is not exact."""
    entries = []
    book = Catalog.bundled().with_user(parse_config(RATES).rates)
    for day in range(42):
        for part in range(2):
            at = NOW - timedelta(days=day, hours=3 * part, minutes=day % 7)
            usage = Usage(input=1000 + day, cache_read=40_000 * part, output=200)
            model = "model-a" if part else "model-b"
            cost = price(usage, book.find(model, at=at).card, at=at)
            tags = {"user": "ada" if day % 3 else "bob", "project": "a-rather-long-name-of-a-project"}
            fields = {"model": model, "cost": cost, "usage": usage, "run_id": f"run-{day}", "tags": tags}
            entries.append(call(f"{day}-{part}", at, **fields, owed=part == 0))
    entries += [
        call("unpriced", NOW - timedelta(minutes=4), None, model="a-model-that-nobody-has-a-price-for-yet"),
        call("unknown", NOW - timedelta(hours=1), None, usage=None, quality="unknown"),
        call("cut", NOW - timedelta(hours=2), quality="lower_bound", status="cut"),
        call("guess", NOW - timedelta(minutes=9), 3 * 10**9, quality="estimated", tags={"user": "数据"}),
    ]
    with SqliteLedger(path) as ledger:
        ledger.append(entries)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    place = tmp_path_factory.mktemp("terminal")
    fill(place / "ledger.db")
    (place / "tally.toml").write_text(RATES)
    return place


def environment(home, **more):
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    return {
        **kept,
        "PYTHONPATH": str(SOURCE),
        "TALLY_LEDGER": str(home / "ledger.db"),
        "TALLY_CONFIG": str(home / "tally.toml"),
        "TERM": "xterm",
        "PYTHONUTF8": "1",
        **more,
    }


def screen(columns):
    """Both ends of a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    return ours, theirs


def read_all(ours):
    drawn = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:
            return drawn.decode()
        if not data:
            return drawn.decode()
        drawn += data


@pytest.mark.parametrize("columns", [60, 80, 140])
@pytest.mark.parametrize("colour", [True, False], ids=["colour", "plain"])
def test_what_a_terminal_shows(home, columns, colour):
    ours, theirs = screen(columns)
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, *COMMANDS],
        stdin=theirs, stdout=theirs, stderr=theirs,
        env=environment(home, **({} if colour else {"NO_COLOR": "1"})),
    ):  # fmt: skip
        os.close(theirs)
        drawn = read_all(ours)
    os.close(ours)
    drawn = drawn.replace("\r\n", "\n")
    assert "Traceback" not in drawn
    assert ("\x1b[" in drawn) == colour
    kept = HERE / "snapshots" / f"terminal-{columns}-{'colour' if colour else 'plain'}.txt"
    shown = drawn.replace("\x1b", "␛")
    if os.environ.get("UPDATE_SNAPSHOTS"):
        kept.write_text(shown)
    assert shown == kept.read_text()


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_nothing_is_wider_than_the_terminal(columns):
    from tallystick.cli.tables import cell_width

    text = (HERE / "snapshots" / f"terminal-{columns}-plain.txt").read_text()
    # A table that cannot be narrowed any more becomes lists; sentences wrap where the terminal wraps them.
    rules = [line for line in text.splitlines() if line and set(line) == {"-"}]
    assert all(cell_width(line) <= columns for line in rules)


def test_live_refreshes_in_place_until_interrupted(home):
    """The keys go through a real terminal: Ctrl-C reaches the command as a person's would."""
    pid, ours = pty.fork()
    if pid == 0:
        words = [sys.executable, "-m", "tallystick.cli", "live", "--every", "0.2"]
        os.execvpe(words[0], words, environment(home))
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    drawn, frames, deadline = b"", 0, time.monotonic() + 60
    while frames < 3 and time.monotonic() < deadline:
        drawn += os.read(ours, 65536)
        frames = drawn.count(b"burn")
    os.write(ours, b"\x03")
    try:
        while True:
            drawn += os.read(ours, 65536)
    except OSError:
        pass
    _, status = os.waitpid(pid, 0)
    os.close(ours)
    assert frames >= 3, drawn.decode()
    assert os.waitstatus_to_exitcode(status) == 0, drawn.decode()
    assert b"Traceback" not in drawn
    assert b"\x1b[1A" in drawn  # the cursor goes back up, over the last frame
    assert signal.SIGINT
