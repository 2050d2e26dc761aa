"""scan(): everything that is new in the logs of a machine, entered once.

Files are read from where the last scan left off. All that a tool's files tell is gathered first, so that a response
whose lines lie in several files becomes one call; then the calls are entered; only then is it remembered how far the
files were read. Whatever ends a scan early, the next one reads the same lines again and finds what was entered under
the same ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Final

import msgspec

from tallystick.capture.logs.book import Book
from tallystick.capture.logs.entries import Clerk
from tallystick.capture.logs.files import Left, LogFile, Mark, walk
from tallystick.capture.logs.tools import TOOLS, Tool, unsupported
from tallystick.capture.logs.writing import Written, write
from tallystick.catalog.catalog import Catalog
from tallystick.ledger.entry import Entry
from tallystick.ledger.ledger import Ledger
from tallystick.wire.logs.lines import LogCall

NAMESPACE: Final = "import"
_FORMAT: Final = 1


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


class Memory(msgspec.Struct):
    """What is kept in the ledger of one folder: how far each file was read, and the latest responses."""

    version: int = _FORMAT
    files: dict[str, Mark] = {}
    recent: dict[str, str] = {}


class Steps(msgspec.Struct, frozen=True):
    """Who wants to hear how a scan goes: `reading` of a file's bytes, `total` of all bytes to read."""

    total: Callable[[int], None] = lambda _bytes: None
    reading: Callable[[int], None] = lambda _bytes: None


def scan(
    ledger: Ledger,
    catalog: Catalog,
    now: datetime,
    *,
    env: Mapping[str, str],
    home: Path,
    owed: bool = False,
    steps: Steps = Steps(),  # noqa: B008 - it does nothing
) -> Scan:
    """Reads what is new in the logs of every known tool below a home folder into the ledger.

    `env` may name other folders. `owed` says whether somebody is billed by the call; by default the cost is the
    API-equivalent of a subscription. Raises LedgerError only: whatever is wrong with a log is counted and named.
    """
    found = [(tool, [folder for folder in tool.roots(env, home) if folder.is_dir()]) for tool in TOOLS]
    surveys = [_survey(tool, folders, ledger) for tool, folders in found if folders]
    steps.total(sum(survey.to_read for survey in surveys))
    done = [_scan_tool(survey, ledger, catalog, now, owed=owed, steps=steps) for survey in surveys]
    return Scan(tuple(done), tuple(unsupported(home)))


class _Survey:
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
    def to_read(self) -> int:
        return sum(_new_bytes(file, memory) for file, memory in self.changed)


def _survey(tool: Tool, folders: list[Path], ledger: Ledger) -> _Survey:
    survey = _Survey(tool, folders)
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


def _scan_tool(
    survey: _Survey, ledger: Ledger, catalog: Catalog, now: datetime, *, owed: bool, steps: Steps
) -> Scanned:
    tool, size = survey.tool, survey.to_read
    recent: dict[str, str] = {}
    for memory in survey.memories:
        recent.update(memory.recent)
    book = Book(now, recent)
    marks = [(memory, file.name, mark) for file, memory, mark in _read(survey, book, steps)]
    book.settle()
    remembered = book.remembered()
    calls = book.calls
    clerk = Clerk(tool.id, catalog, now, api=tool.api, biller=tool.biller, reading_of=tool.reading_of, owed=owed)
    count = len(calls)
    written = write(_entries(calls, clerk), ledger, now)
    for memory, name, mark in marks:
        memory.files[name] = mark
    for folder, memory in zip(survey.folders, survey.memories, strict=True):
        memory.recent = remembered
        if survey.changed or survey.gone:
            ledger.state(NAMESPACE, _key(tool, folder), msgspec.json.encode(memory).decode())
    return Scanned(
        tool=tool.id,
        title=tool.title,
        folders=tuple(map(str, survey.folders)),
        files=survey.files,
        read=len(marks),
        bytes=size,
        calls=count,
        written=written,
        left=tuple(survey.left),
        refused=tuple(Refused(why, number, file) for why, (number, file) in book.refused.items()),
    )


def _read(survey: _Survey, book: Book, steps: Steps) -> Iterator[tuple[LogFile, Memory, Mark]]:
    for file, memory in survey.changed:
        mark = memory.files.get(file.name)
        try:
            yield file, memory, survey.tool.read(file, mark, book)
        except OSError as error:
            survey.left.append(Left(file.path, f"it cannot be read: {error.strerror}"))
        steps.reading(_new_bytes(file, memory))


def _entries(calls: dict[str, LogCall], clerk: Clerk) -> Iterator[Entry]:
    """The entries, oldest first; each call is let go of as soon as it is an entry."""
    waiting = sorted(calls.values(), key=attrgetter("at"), reverse=True)
    calls.clear()
    while waiting:
        yield clerk.entry(waiting.pop())


def _new_bytes(file: LogFile, memory: Memory) -> int:
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
