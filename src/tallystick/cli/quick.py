"""What the command line answers without click, rich or the catalogue, as it is asked all the time."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

UNUSABLE = 6


def statusline(now: datetime | None = None, *, strict: bool = False) -> int:
    """Prints the status line, and an empty one where the ledger cannot be used: a prompt must not break because of it.
    With `strict` that is said, with exit code 6."""
    import sqlite3

    from tallystick.insight.statusline import status_line

    try:
        line, fault = status_line(place(os.environ), now or datetime.now(UTC)), ""
    except (OSError, ValueError, KeyError, sqlite3.Error) as error:
        # ConfigError and an unknown time zone are among these.
        line, fault = "", str(error)
    try:
        print(line)
        sys.stdout.flush()
    except (OSError, ValueError):
        return 0
    if strict and fault:
        print(f"tally: the ledger cannot be used: {ascii(fault)[1:-1]}", file=sys.stderr)
        return UNUSABLE
    return 0


def place(env: Mapping[str, str]) -> str:
    """The file of the ledger in force, as the front door would find it, without reading a configuration that does not
    name one. Raises ConfigError, OSError, or ValueError for a configuration that is not TOML."""
    named = env.get("TALLY_LEDGER") or _configured(env)
    if named:
        return os.path.expanduser(named)  # noqa: PTH111 - as the front door does
    from tallystick.ledger.paths import default_path

    return str(default_path(env))


def _configured(env: Mapping[str, str]) -> str | None:
    """What the configuration in force names as the ledger."""
    base = env.get("APPDATA" if os.name == "nt" else "XDG_CONFIG_HOME", "")
    home = env.get("USERPROFILE" if os.name == "nt" else "HOME")
    folder = base if os.path.isabs(base) else os.path.join(home, ".config") if home else None  # noqa: PTH117, PTH118
    own = [os.path.join(folder, "tallystick", "config.toml")] if folder else []  # noqa: PTH118
    for path in [env["TALLY_CONFIG"]] if env.get("TALLY_CONFIG") else ["tally.toml", *own]:
        try:
            with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib takes longer to import than this to run
                text = file.read()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            continue
        if "ledger" not in text:
            return None
        import tomllib

        ledger = tomllib.loads(text).get("ledger")
        return ledger if isinstance(ledger, str) else None
    return None
