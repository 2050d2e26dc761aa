"""Paths: where the ledger lives when nobody says otherwise."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tallystick.errors import ConfigError

FILE_NAME: Final = "ledger.db"


def default_path(env: Mapping[str, str], platform: str = sys.platform) -> Path:
    """The ledger's file in the user's data folder.

    Linux and others: `$XDG_DATA_HOME/tallystick/ledger.db`, by default under `~/.local/share`; macOS:
    `~/Library/Application Support`; Windows: `%LOCALAPPDATA%`. A relative XDG_DATA_HOME is ignored, as its
    specification says. Raises ConfigError when the environment names no home folder.
    """
    return _data_folder(env, platform) / "tallystick" / FILE_NAME


def _data_folder(env: Mapping[str, str], platform: str) -> Path:
    if platform == "win32":
        local = env.get("LOCALAPPDATA")
        return Path(local) if local else _home(env, "USERPROFILE") / "AppData" / "Local"
    if platform == "darwin":
        return _home(env, "HOME") / "Library" / "Application Support"
    xdg = env.get("XDG_DATA_HOME")
    return Path(xdg) if xdg and Path(xdg).is_absolute() else _home(env, "HOME") / ".local" / "share"


def _home(env: Mapping[str, str], name: str) -> Path:
    home = env.get(name)
    if not home:
        raise ConfigError(
            f"The environment variable {name} is not set, so there is no folder for the ledger.",
            money="No call is entered anywhere until there is one.",
            todo="Set TALLY_LEDGER to the file's path.",
        )
    return Path(home)
