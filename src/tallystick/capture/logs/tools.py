"""Tools: the coding agents whose logs can be read, and those that are known by their folder only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from tallystick.capture.logs import claude_code, codex, gemini_cli, opencode
from tallystick.capture.logs.book import Book
from tallystick.capture.logs.files import LogFile, Mark
from tallystick.wire.logs import claude_code as claude_lines
from tallystick.wire.logs import codex as codex_lines
from tallystick.wire.logs import gemini_cli as gemini_messages
from tallystick.wire.logs import opencode as opencode_messages
from tallystick.wire.logs.lines import LogCall
from tallystick.wire.reading import Reading


class Tool(msgspec.Struct, frozen=True):
    """A coding agent whose logs can be read. `id` is its tag, `title` its name, `api` how its usage is read, `biller`
    who bills where neither its log nor the catalogue says so."""

    id: str
    title: str
    api: str
    biller: str | None
    roots: Callable[[Mapping[str, str], Path], list[Path]]
    wanted: Callable[[str], bool]
    still: Callable[[LogFile, Mark], bool]
    read: Callable[[LogFile, Mark | None, Book], Mark]
    reading_of: Callable[[LogCall], Reading]


def _still(file: LogFile, mark: Mark) -> bool:
    return mark.still(file.status)


TOOLS: Final = (
    Tool(
        "claude-code", "Claude Code", "log.claude_code", "anthropic", claude_code.roots, claude_code.wanted, _still,
        claude_code.read, claude_lines.reading_of,
    ),
    Tool(
        "codex", "Codex CLI", "log.codex", "openai", codex.roots, codex.wanted, _still, codex.read,
        codex_lines.reading_of,
    ),
    Tool(
        "gemini-cli", "Gemini CLI", "log.gemini_cli", "google", gemini_cli.roots, gemini_cli.wanted, _still,
        gemini_cli.read, gemini_messages.reading_of,
    ),
    Tool(
        "opencode", "OpenCode", "log.opencode", None, opencode.roots, opencode.wanted, opencode.still, opencode.read,
        opencode_messages.reading_of,
    ),
)  # fmt: skip
"""What can be read."""

_EDITORS: Final = (
    ".config/Code/User/globalStorage",
    "Library/Application Support/Code/User/globalStorage",
    "AppData/Roaming/Code/User/globalStorage",
    ".vscode-server/data/User/globalStorage",
)

UNSUPPORTED: Final[Mapping[str, tuple[str, ...]]] = {
    "Amp": (".local/share/amp/threads",),
    "Antigravity CLI": (".gemini/antigravity-cli/conversations",),
    "Augment": (".augment/sessions",),
    "Cline": tuple(f"{folder}/saoudrizwan.claude-dev" for folder in _EDITORS),
    "Copilot CLI": (".copilot/session-state", ".copilot/otel"),
    "Crush": (".local/share/crush",),
    "Droid": (".factory/sessions",),
    "Goose": (".local/share/goose/sessions",),
    "Grok": (".grok/sessions",),
    "Kilo Code": (*(f"{folder}/kilocode.kilo-code" for folder in _EDITORS), ".local/share/kilo"),
    "Kimi CLI": (".kimi/sessions",),
    "Kiro": (".kiro/sessions",),
    "Pi": (".pi/agent/sessions",),
    "Qwen Code": (".qwen/projects", ".qwen/tmp"),
    "Roo Code": tuple(f"{folder}/rooveterinaryinc.roo-cline" for folder in _EDITORS),
    "Zed": (".local/share/zed/threads",),
}
"""Tools that are known by their folder below the home folder, but cannot be read yet."""


def unsupported(home: Path) -> list[str]:
    """The tools whose folder is there, but whose logs cannot be read."""
    return [name for name, folders in UNSUPPORTED.items() if any((home / folder).is_dir() for folder in folders)]
