"""The command line, called as a user does, with a home of its own (see the fixture in tests/conftest.py)."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

SOURCE = Path(__file__).resolve().parents[2] / "src"


@dataclass
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def tally(monkeypatch):
    """Runs a command in this process, through the same door that the installed script takes."""
    from tallystick.cli import cli, run

    monkeypatch.setenv("COLUMNS", "200")

    def call(*words, stdin=None):
        runner = CliRunner()
        with runner.isolation(input=stdin) as streams:
            code = run([str(word) for word in words])
            streams[0].flush()
            out, err = streams[0].getvalue().decode(), streams[1].getvalue().decode()
        assert "Traceback" not in err, err
        return Said(code, out, err)

    assert cli is not None
    return call


@pytest.fixture
def shell(tmp_path):
    """Runs a command in a process of its own."""

    def call(*words, stdin=None, env=(), stdout=subprocess.PIPE):
        done = subprocess.run(
            [sys.executable, "-m", "tallystick.cli", *(word if isinstance(word, bytes) else str(word) for word in words)],
            input=stdin, stdout=stdout, stderr=subprocess.PIPE, cwd=tmp_path, check=False,
            env={**os.environ, "PYTHONPATH": str(SOURCE), **dict(env)},
        )  # fmt: skip
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return Said(done.returncode, (done.stdout or b"").decode(), done.stderr.decode())

    return call


@pytest.fixture
def terminal(tmp_path):
    """Runs a command in a real terminal of the given width; what it drew."""
    import fcntl
    import pty
    import struct
    import termios

    def call(*words, columns=80, env=()):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        surroundings = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
        with subprocess.Popen(
            [sys.executable, "-m", "tallystick.cli", *words],
            stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path,
            env={**surroundings, "PYTHONPATH": str(SOURCE), "TERM": "xterm", **dict(env)},
        ):  # fmt: skip
            os.close(theirs)
            drawn = b""
            while True:
                try:
                    data = os.read(ours, 65536)
                except OSError:
                    break
                if not data:
                    break
                drawn += data
        os.close(ours)
        return drawn.decode()

    return call
