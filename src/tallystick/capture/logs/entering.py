"""Entering: what is new in a tool's files, read, made into entries and written into the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from operator import attrgetter

import msgspec

from tallystick.capture.logs.book import Book
from tallystick.capture.logs.entries import Clerk
from tallystick.capture.logs.files import Left, LogFile, Mark
from tallystick.capture.logs.outcome import Refused, Written
from tallystick.capture.logs.survey import Folder, Survey, new_bytes
from tallystick.capture.logs.tools import Reader
from tallystick.capture.logs.writing import write
from tallystick.catalog.catalog import Catalog
from tallystick.ledger.entry import Entry
from tallystick.ledger.ledger import Ledger
from tallystick.wire.logs.lines import LogCall


class Entered(msgspec.Struct, frozen=True):
    """How many files were read and calls met, what became of these, and what could not be taken."""

    read: int
    calls: int
    written: Written
    refused: tuple[Refused, ...]


def enter(
    survey: Survey, ledger: Ledger, catalog: Catalog, now: datetime, *, owed: bool, reading: Callable[[int], None]
) -> Entered:
    """Enters what is new. `reading` hears how many bytes were read."""
    tool = survey.tool
    reader = tool.reader()
    book = Book(now, survey.recent)
    marks = [(folder, file.name, mark) for file, folder, mark in _read(survey, reader, book, reading)]
    book.settle()
    remembered = book.remembered()
    calls = book.calls
    clerk = Clerk(tool.id, catalog, now, api=tool.api, biller=tool.biller, reading_of=reader.reading_of, owed=owed)
    count = len(calls)
    written = write(_entries(calls, clerk), ledger, now)
    for folder, name, mark in marks:
        folder.memory.files[name] = mark
    survey.remember(remembered)
    refused = tuple(Refused(why, number, file) for why, (number, file) in book.refused.items())
    return Entered(len(marks), count, written, refused)


def _read(
    survey: Survey, reader: Reader, book: Book, reading: Callable[[int], None]
) -> Iterator[tuple[LogFile, Folder, Mark]]:
    for file, folder in survey.changed:
        mark = folder.memory.files.get(file.name)
        try:
            yield file, folder, reader.read(file, mark, book)
        except OSError as error:
            folder.unread(file)
            survey.left.append(Left(file.path, f"it cannot be read: {error.strerror}"))
        reading(new_bytes(file, folder))


def _entries(calls: dict[str, LogCall], clerk: Clerk) -> Iterator[Entry]:
    """The entries, oldest first; each call is let go of as soon as it is an entry."""
    waiting = sorted(calls.values(), key=attrgetter("at"), reverse=True)
    calls.clear()
    while waiting:
        yield clerk.entry(waiting.pop())
