"""Survey: which files of a tool have changed since they were read, and what is remembered of them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from tallystick.capture.logs.files import Left, LogFile, Mark, walk
from tallystick.capture.logs.tools import Tool
from tallystick.ledger.ledger import Ledger

NAMESPACE: Final = "import"
_FORMAT: Final = 1


class Memory(msgspec.Struct):
    """What is kept in the ledger of one folder: how far each file was read, and the latest responses."""

    version: int = _FORMAT
    files: dict[str, Mark] = {}
    recent: dict[str, str] = {}


class Survey:
    """The files of one tool, those that have changed among them, and what is known of them."""

    def __init__(self, tool: Tool, folders: list[Path]) -> None:
        self.tool = tool
        self.folders = folders
        self.memories: list[Memory] = []
        self.changed: list[tuple[LogFile, Memory]] = []
        self.left: list[Left] = []
        self.files = 0
        self.gone = False

    @property
    def recent(self) -> dict[str, str]:
        """The latest responses, of all folders."""
        return {key: call for memory in self.memories for key, call in memory.recent.items()}

    @property
    def to_read(self) -> int:
        """How many bytes are new."""
        return sum(new_bytes(file, memory) for file, memory in self.changed)

    def remember(self, recent: dict[str, str], ledger: Ledger) -> None:
        """Keeps in the ledger how far the files were read, and the latest responses."""
        for folder, memory in zip(self.folders, self.memories, strict=True):
            memory.recent = recent
            ledger.state(NAMESPACE, _key(self.tool, folder), msgspec.json.encode(memory).decode())


def survey_of(tool: Tool, folders: list[Path], ledger: Ledger) -> Survey:
    """Looks at all files of a tool; opens none."""
    survey = Survey(tool, folders)
    for folder in folders:
        memory = _recall(ledger.state(NAMESPACE, _key(tool, folder)))
        survey.memories.append(memory)
        present = set()
        for file in walk(folder, tool.wanted, survey.left.append):
            survey.files += 1
            present.add(file.name)
            mark = memory.files.get(file.name)
            if mark is None or not tool.still(file, mark):
                survey.changed.append((file, memory))
        for name in memory.files.keys() - present:
            del memory.files[name]
            survey.gone = True
    return survey


def new_bytes(file: LogFile, memory: Memory) -> int:
    """How many bytes of a file are new."""
    mark = memory.files.get(file.name)
    size = file.status.st_size
    return size if mark is None or mark.offset > size else size - mark.offset


def _key(tool: Tool, folder: Path) -> str:
    return f"{tool.id} {folder}"


def _recall(text: str | None) -> Memory:
    """What was kept; nothing where there is none or another version wrote it, for then all is read anew."""
    try:
        memory = Memory() if text is None else msgspec.json.decode(text, type=Memory)
    except msgspec.DecodeError:
        return Memory()
    return memory if memory.version == _FORMAT else Memory()
