"""Survey: which files of a tool have changed since they were read, and what is remembered of them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from tallystick.capture.logs.files import Left, LogFile, Mark, Stamp, walk
from tallystick.capture.logs.tools import Tool
from tallystick.ledger.ledger import Ledger

NAMESPACE: Final = "import"
_FORMAT: Final = 2
_MEMORY: Final = " (marks)"


class Stamps(msgspec.Struct, gc=False):
    """What is kept in the ledger of one folder to see which files have changed: small, as every scan reads it."""

    version: int = _FORMAT
    files: dict[str, Stamp] = {}


class Memory(msgspec.Struct, gc=False):
    """What is kept in the ledger of one folder to go on reading: how far each file was read, and the latest responses.
    Only read when something has changed."""

    version: int = _FORMAT
    files: dict[str, Mark] = {}
    recent: dict[str, str] = {}


K = TypeVar("K", Stamps, Memory)


class Folder:
    """One folder of logs, and what is known of it."""

    def __init__(self, tool: Tool, path: Path, ledger: Ledger) -> None:
        self.path = path
        self._key = f"{tool.id} {path}"
        self._ledger = ledger
        self._known = _recalled(ledger.state(NAMESPACE, self._key), Stamps).files
        self._stamps: dict[str, Stamp] = {}
        self._present: set[str] = set()

    @functools.cached_property
    def memory(self) -> Memory:
        """How far its files were read."""
        return _recalled(self._ledger.state(NAMESPACE, self._key + _MEMORY), Memory)

    def stamp(self, file: LogFile, beside: str) -> bool:
        """Notes what a file is now; returns whether it has changed since it was read."""
        name, status = file.name, file.status
        stamp = Stamp(status.st_ino, status.st_size, status.st_mtime_ns, beside)
        self._stamps[name] = stamp
        self._present.add(name)
        return stamp != self._known.get(name)

    def unread(self, file: LogFile) -> None:
        """A file that has changed could not be read: the next scan is to try it again."""
        del self._stamps[file.name]

    @property
    def gone(self) -> bool:
        """Whether files have gone."""
        return not self._known.keys() <= self._present

    def remember(self, recent: dict[str, str]) -> None:
        """Keeps in the ledger what the files are, and how far they were read."""
        files = {name: mark for name, mark in self.memory.files.items() if name in self._present}
        # Whoever is stopped in between has marks that are newer than the stamps: those files are read on from there.
        self._keep(self._key + _MEMORY, Memory(files=files, recent=recent))
        self._keep(self._key, Stamps(files=self._stamps))

    def _keep(self, key: str, value: Stamps | Memory) -> None:
        self._ledger.state(NAMESPACE, key, msgspec.json.encode(value).decode())


class Survey:
    """The files of one tool, those that have changed among them, and what is known of them."""

    def __init__(self, tool: Tool, folders: list[Path], ledger: Ledger) -> None:
        self.tool = tool
        self.folders = [Folder(tool, path, ledger) for path in folders]
        self.changed: list[tuple[LogFile, Folder]] = []
        self.left: list[Left] = []
        self.files = 0
        for folder in self.folders:
            for file in walk(folder.path, tool.wanted, self.left.append):
                self.files += 1
                if folder.stamp(file, tool.beside(file)):
                    self.changed.append((file, folder))

    @property
    def gone(self) -> bool:
        """Whether files have gone."""
        return any(folder.gone for folder in self.folders)

    @property
    def recent(self) -> dict[str, str]:
        """The latest responses, of all folders."""
        return {key: call for folder in self.folders for key, call in folder.memory.recent.items()}

    @property
    def to_read(self) -> int:
        """How many bytes are new."""
        return sum(new_bytes(file, folder) for file, folder in self.changed)

    def remember(self, recent: dict[str, str]) -> None:
        """Keeps in the ledger how far the files were read, and the latest responses."""
        for folder in self.folders:
            folder.remember(recent)


def new_bytes(file: LogFile, folder: Folder) -> int:
    """How many bytes of a file are new."""
    mark = folder.memory.files.get(file.name)
    size = file.status.st_size
    return size if mark is None or mark.offset > size else size - mark.offset


def _recalled(text: str | None, kind: type[K]) -> K:
    """What was kept; nothing where there is none or another version wrote it, for then all is read anew."""
    try:
        kept = kind() if text is None else msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError:
        return kind()
    return kept if kept.version == _FORMAT else kind()
