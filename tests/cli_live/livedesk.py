"""The verbs in processes of their own, plain and in a real terminal, each with a home, a ledger and no keys."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"
KEYS = ("OPENAI_", "ANTHROPIC_", "GOOGLE_", "GEMINI_", "TALLY_")
DEMO = [
    sys.executable,
    "-c",
    "import sys; from tallystick.cli.demo import command as run; sys.exit(run.main(sys.argv[1:], standalone_mode=False))",
]
TALLY = [sys.executable, "-m", "tallystick.cli"]


def environment(home, **more):
    """Nothing of the person who runs the tests."""
    gone = ("NO_COLOR", "COLUMNS", "LINES", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(KEYS) and name not in gone}
    return {
        **kept, "PYTHONPATH": str(SOURCE), "PYTHONUTF8": "1", "HOME": str(home), "TERM": "xterm", "TZ": "UTC",
        "XDG_CONFIG_HOME": str(home / "config"), "XDG_DATA_HOME": str(home / "data"),
        "TALLY_LEDGER": str(home / "ledger.db"), **more,
    }  # fmt: skip


def said(words, home, **more):
    """What a command prints without a terminal: the finished process."""
    return subprocess.run(
        words, capture_output=True, text=True, env=environment(home, **more), cwd=home, check=False, timeout=300
    )


def screen(columns):
    """Both ends of a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    return ours, theirs


def drawn(words, home, columns, **more):
    """What a command draws on a terminal until it ends, and its exit code."""
    ours, theirs = screen(columns)
    with subprocess.Popen(
        words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(home, **more), cwd=home
    ) as process:
        os.close(theirs)
        data = b""
        while True:
            try:
                more_data = os.read(ours, 65536)
            except OSError:
                break
            if not more_data:
                break
            data += more_data
    os.close(ours)
    return data.decode().replace("\r\n", "\n"), process.returncode
