"""`tally up` as a process of its own, for the benchmarks that crowd it, kill its workers and watch its memory."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Self

UP: Final = "from tallystick.cli.up import command; command(prog_name='tally up')"
VERB: Final = "from tallystick.cli import main; main()"
PATIENCE: Final = 60.0
_TICK: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_QUIET: Final = 0.3


def home(folder: Path) -> dict[str, str]:
    """The environment of a user with an empty home in a folder, without proxies and settings of ours."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith("TALLY_")
    }
    return {**kept, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}


class Up:
    """A gateway on a free port of this machine, with its ledger at `place`, before `upstreams` (names and base URLs).
    `words` are further options of `tally up`. What it says of faults is kept in the file `errors` of its folder."""

    def __init__(
        self, folder: Path, place: str, upstreams: dict[str, str], *, workers: int = 1, words: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self.place = place
        self.workers = workers
        self.env = {**home(folder), "TALLY_LEDGER": place}
        given = [word for name, url in upstreams.items() for word in ("--upstream", f"{name}={url}")]
        options = ["--port", "0", "--json", "--ledger", place, "--workers", str(workers), *given, *words]
        self._errors = (folder / "errors").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-c", UP, *options], stdout=subprocess.PIPE, stderr=self._errors, text=True, env=self.env
        )
        self.url = ""
        self._began = 0.0
        self._code: int | None = None

    def __enter__(self) -> Self:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.stop()
            raise RuntimeError(f"tally up said nothing. {self.errors()}")
        self.url = json.loads(line)["url"]
        self.settle()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def openai(self) -> str:
        """The base URL for the client of OpenAI."""
        return f"{self.url}/openai/v1"

    @property
    def anthropic(self) -> str:
        """The base URL for the client of Anthropic."""
        return f"{self.url}/anthropic"

    @property
    def port(self) -> int:
        """The port it listens at."""
        return int(self.url.rpartition(":")[2])

    def serving(self) -> list[int]:
        """The processes that serve: the workers, or the only one."""
        return [self.process.pid] if self.workers == 1 else children(self.process.pid)

    def settle(self) -> None:
        """Returns when all workers have loaded what they need and wait for calls."""
        until = time.monotonic() + PATIENCE
        before: dict[int, float] = {}
        while time.monotonic() < until:
            now = {pid: cpu(pid) for pid in self.serving()}
            if len(now) == self.workers and now == before and min(now.values()) > 0.1 and self._answers():
                self._began = min(now.values())
                return
            before = now
            time.sleep(_QUIET)
        raise RuntimeError(f"The workers do not come to rest. {self.errors()}")

    def whole(self) -> bool:
        """Whether all workers live and have done as much as it took the first ones to begin."""
        now = [cpu(pid) for pid in self.serving()]
        return len(now) == self.workers and min(now) >= self._began

    def _answers(self) -> bool:
        # No proxy of the environment stands between us and ourselves.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with contextlib.suppress(OSError), opener.open(f"{self.url}/healthz", timeout=10) as answer:
            return bool(answer.status == 200)
        return False

    def kill_one(self, choose: Callable[[Sequence[int]], int] = lambda pids: pids[0]) -> int | None:
        """Ends a worker as a crash would; its process id."""
        pids = self.serving()
        if not pids:
            return None
        pid = choose(pids)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return pid

    def stop(self, sign: int = signal.SIGTERM, seconds: float = PATIENCE) -> int:
        """Tells it to end, and waits until it has; its exit code. Doing it again is harmless."""
        if self._code is None:
            left = self.serving() if self.process.poll() is None else []
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(sign)
            try:
                self._code = self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                for pid in (*left, self.process.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self._code = self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()
            self._errors.close()
        return self._code

    def verb(self, *words: str) -> tuple[int, str, str]:
        """Runs another verb on the same ledger: its exit code, what it said, and what it said of trouble."""
        done = subprocess.run(
            [sys.executable, "-c", VERB, *words], check=False, capture_output=True, text=True, env=self.env, timeout=120
        )
        return done.returncode, done.stdout, done.stderr

    def errors(self) -> str:
        """The end of what it said of trouble."""
        return (self.folder / "errors").read_text(errors="replace")[-2000:]


def children(pid: int) -> list[int]:
    """The processes that a process has started and that live."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(word) for word in (task / "children").read_text().split()]
    return [one for one in found if _state(one) not in {"Z", ""}]


def _state(pid: int) -> str:
    fields = _stat(pid)
    return fields[0] if fields else ""


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def cpu(pid: int) -> float:
    """Seconds of processor time that a process has used; 0 for one that is gone."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICK if fields else 0.0


def rss(pid: int) -> int:
    """Resident memory of a process in bytes; 0 for one that is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def descriptors(pid: int) -> int:
    """How many files and sockets a process has open; 0 for one that is gone."""
    try:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return 0


@contextlib.contextmanager
def later(seconds: float, work: Callable[[], object]) -> Iterator[None]:
    """Does something after a while, on another thread; not at all once the block has ended."""
    timer = threading.Timer(seconds, work)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
