"""Outcome: what became of the logs that a scan found."""

from __future__ import annotations

import msgspec

from tallystick.capture.logs.files import Left


class Written(msgspec.Struct):
    """What became of the calls: new ones, corrected ones, ones that were there already, ones that a better source had
    seen."""

    new: int = 0
    corrected: int = 0
    known: int = 0
    joined: int = 0


class Refused(msgspec.Struct, frozen=True):
    """What could not be taken: why, how often, and the file where it was met first."""

    why: str
    count: int
    file: str


class Scanned(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one tool's logs. `files` were found, `read` of them had something new; `calls` are those that were
    met, and the next four say what became of them."""

    tool: str
    title: str
    folders: tuple[str, ...] = ()
    files: int = 0
    read: int = 0
    bytes: int = 0
    calls: int = 0
    written: Written
    left: tuple[Left, ...] = ()
    refused: tuple[Refused, ...] = ()


class Scan(msgspec.Struct, frozen=True):
    """What a scan found, tool by tool, and the tools that it knows but cannot read."""

    tools: tuple[Scanned, ...]
    unsupported: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing was left out."""
        return not any(tool.left or tool.refused for tool in self.tools)
