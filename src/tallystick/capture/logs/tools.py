"""Tools: the coding agents whose logs can be read, and those that are known by their folder only."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, cast

import msgspec

from tallystick.capture.logs import places
from tallystick.capture.logs.files import LogFile, Mark

if TYPE_CHECKING:
    from tallystick.capture.logs.book import Book
    from tallystick.wire.logs.lines import LogCall
    from tallystick.wire.reading import Reading


class Reader(Protocol):
    """What a tool's module offers."""

    def read(self, file: LogFile, mark: Mark | None, book: Book) -> Mark:
        """Reads what is new in a file into the book, and returns how far."""

    def reading_of(self, call: LogCall) -> Reading:
        """What a call's usage says."""


class Tool(msgspec.Struct, frozen=True):
    """A coding agent whose logs can be read. `id` is its tag, `title` its name, `api` how its usage is read, `biller`
    who bills where neither its log nor the catalogue says so, `beside` what to look at besides a file, `module` what
    reads its files."""

    id: str
    title: str
    api: str
    biller: str | None
    roots: Callable[[Mapping[str, str], Path], list[Path]]
    wanted: Callable[[str], bool]
    beside: Callable[[LogFile], str]
    module: str

    def reader(self) -> Reader:
        """What reads its files. Most scans find nothing new and need none, so it is imported here."""
        return cast("Reader", importlib.import_module(f"tallystick.capture.logs.{self.module}"))


TOOLS: Final = (
    Tool(
        "claude-code", "Claude Code", "log.claude_code", "anthropic", places.claude_roots, places.claude_wanted,
        places.alone, "claude_code",
    ),
    Tool(
        "codex", "Codex CLI", "log.codex", "openai", places.codex_roots, places.codex_wanted, places.alone, "codex",
    ),
    Tool(
        "gemini-cli", "Gemini CLI", "log.gemini_cli", "google", places.gemini_roots, places.gemini_wanted,
        places.alone, "gemini_cli",
    ),
    Tool(
        "opencode", "OpenCode", "log.opencode", None, places.opencode_roots, places.opencode_wanted,
        places.beside, "opencode",
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
