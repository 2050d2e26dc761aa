"""Places: where the logs of each tool lie below a home folder, and which files there are logs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tallystick.capture.logs.files import LogFile

_FOLDERS: Final = ("sessions", "archived_sessions")
_CHAT: Final = re.compile(r"(^|/)chats/.+\.jsonl?$")
_DATABASE: Final = re.compile(r"opencode[^/]*\.db$")
_MESSAGE: Final = re.compile(r"storage/message/[^/]+/[^/]+\.json$")


def alone(file: LogFile) -> str:  # noqa: ARG001 - every tool is asked alike
    """What has to be looked at besides a file to see whether it has changed: nothing."""
    return ""


def claude_roots(env: Mapping[str, str], home: Path) -> list[Path]:
    """The folders of transcripts: `projects` in each folder of $CLAUDE_CONFIG_DIR, or in the two usual ones."""
    named = [part.strip() for part in env.get("CLAUDE_CONFIG_DIR", "").split(",") if part.strip()]
    if named:
        return [Path(part).expanduser() / "projects" for part in named]
    return [home / ".config" / "claude" / "projects", home / ".claude" / "projects"]


def claude_wanted(name: str) -> bool:
    """Transcripts are .jsonl files at any depth: sessions, and below them their sub-agents."""
    return name.endswith(".jsonl")


def codex_roots(env: Mapping[str, str], home: Path) -> list[Path]:
    """The folders of rollouts below $CODEX_HOME or ~/.codex."""
    base = Path(env["CODEX_HOME"]).expanduser() if env.get("CODEX_HOME") else home / ".codex"
    return [base / folder for folder in _FOLDERS]


def codex_wanted(name: str) -> bool:
    """Rollouts are .jsonl files at any depth."""
    return name.endswith(".jsonl")


def gemini_roots(env: Mapping[str, str], home: Path) -> list[Path]:
    """The folder of chats below $GEMINI_CLI_HOME or ~/.gemini."""
    base = Path(env["GEMINI_CLI_HOME"]).expanduser() if env.get("GEMINI_CLI_HOME") else home / ".gemini"
    return [base / "tmp"]


def gemini_wanted(name: str) -> bool:
    """Chats lie in a folder `chats` of each project."""
    return _CHAT.search(name) is not None


def opencode_roots(env: Mapping[str, str], home: Path) -> list[Path]:
    """The data folder: $OPENCODE_DATA_DIR, or below $XDG_DATA_HOME or ~/.local/share."""
    if env.get("OPENCODE_DATA_DIR"):
        return [Path(env["OPENCODE_DATA_DIR"]).expanduser()]
    data = Path(env["XDG_DATA_HOME"]) if env.get("XDG_DATA_HOME") else home / ".local" / "share"
    return [data / "opencode"]


def opencode_wanted(name: str) -> bool:
    """Databases in the folder itself, and a file per message."""
    return _DATABASE.fullmatch(name) is not None or _MESSAGE.fullmatch(name) is not None


def beside(file: LogFile) -> str:
    """What has to be looked at besides a file: the log beside a database, where what is new may stand; empty for other
    files."""
    if not file.name.endswith(".db"):
        return ""
    try:
        status = Path(f"{file.path}-wal").stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"
