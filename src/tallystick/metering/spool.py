"""Spool: entries that the ledger could not take, as JSON lines in a file beside it, until a repair brings them in."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from tallystick.errors import TallyError
from tallystick.ledger.entry import Entry
from tallystick.ledger.jsonform import entry_from_json

SUFFIX: Final = ".spool"

_TRIES: Final = 3
"""So often a line is written anew where a repair has just brought in, and taken away, the file that it went into."""


class Spool:
    """A folder of JSON lines, one file per process; only its owner may read it.

    `folders` are tried in their order until one can be written: beside the ledger, then the user's data folder. A line
    is one write in append mode, so that a killed process leaves whole lines.
    """

    def __init__(self, folders: tuple[Path, ...], owner: Callable[[], int] = os.getpid) -> None:
        self._folders = folders
        self._owner = owner
        self._lock = threading.Lock()
        self._place: Path | None = None

    @property
    def place(self) -> Path | None:
        """The file written to last; None before the first entry."""
        return self._place

    def add(self, entry: Entry) -> bool:
        """Keeps an entry; False where no folder can be written."""
        # A character that has no bytes (half of a pair) is written as its escape, and so read as it was.
        line = json.dumps(entry.to_json(), separators=(",", ":")).encode() + b"\n"
        with self._lock:
            return any(self._write(folder, line) for folder in self._folders)

    def _write(self, folder: Path, line: bytes) -> bool:
        place = folder / f"{self._owner()}.jsonl"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            written, stays = _append(place, line)
            for _ in range(_TRIES):
                if stays:
                    break
                written, stays = _append(place, line)
        except OSError:
            return False
        self._place = place
        return written


def _append(place: Path, line: bytes) -> tuple[bool, bool]:
    """Adds a line to a file: whether it is written, and whether the file is still there."""
    handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        written = os.write(handle, line)
        if written != len(line):
            # Half a line would spoil the next one.
            os.ftruncate(handle, os.fstat(handle).st_size - written)
        return written == len(line), os.fstat(handle).st_nlink > 0
    finally:
        os.close(handle)


def spool_folders(ledger: Path, data: Path | None) -> tuple[Path, ...]:
    """Where the spool of a ledger lies: beside it, else in the user's data folder."""
    beside = ledger.with_name(ledger.name + SUFFIX)
    return (beside,) if data is None else (beside, data / (ledger.name + SUFFIX))


def spool_files(folders: Sequence[Path]) -> list[Path]:
    """The files of a spool; those that a repair had begun with come first."""
    found = [place for folder in dict.fromkeys(folders) if folder.is_dir() for place in folder.iterdir()]
    taken = sorted(place for place in found if place.suffix == ".taken")
    return [*taken, *sorted(place for place in found if place.suffix == ".jsonl")]


def read_spool(data: bytes) -> tuple[list[Entry], int]:
    """The entries of a file, and how many of its lines cannot be read."""
    found: list[Entry] = []
    unread = 0
    for line in data.splitlines():
        try:
            row: dict[str, Any] = json.loads(line)
            found.append(entry_from_json(row))
        except (ValueError, TypeError, KeyError, AttributeError, TallyError):
            unread += 1
    return found, unread
