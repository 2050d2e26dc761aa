"""Claude Code's transcripts as files: how their lines become calls."""

from __future__ import annotations

import contextlib
import functools
import re
from pathlib import PurePath
from typing import Final

import msgspec

from tallystick.capture.logs.book import Book
from tallystick.capture.logs.files import LONG_LINES, Blocks, LogFile, Mark, lines_with, marked, opened, start_of
from tallystick.errors import UsageError
from tallystick.wire.anthropic import MessageUsage
from tallystick.wire.logs.claude_code import (
    NEEDLE,
    ClaudeLine,
    LoggedMessage,
    call_of,
    decoded,
    key_of,
    reading_of,
    size_of,
)
from tallystick.wire.logs.lines import LogCall

__all__ = ["read", "reading_of"]

_KEPT: Final = 10_000
_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9]")


class Projects(dict[str | None, str]):
    """Names of projects by working directory, for one folder of transcripts.

    The folder is named after the directory in which the session began, with everything but letters and digits replaced.
    The directory whose name gives the folder's is the project; any other leaves the folder's own name.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = folder

    def __missing__(self, cwd: str | None) -> str:
        if len(self) >= _KEPT:
            self.clear()
        name = self[cwd] = self._named(cwd)
        return name

    def _named(self, cwd: str | None) -> str:
        if cwd is None or len(cwd) > 4096:
            return self._folder
        place = PurePath(cwd)
        return next(
            (one.name for one in (place, *place.parents) if one.name and encoded(str(one)) == self._folder),
            self._folder,
        )


def encoded(path: str) -> str:
    """The name of the folder that belongs to a directory."""
    return _NOT_PLAIN.sub("-", path)


def read(file: LogFile, mark: Mark | None, book: Book) -> Mark:
    """Reads what is new in a transcript into the book, and returns how far."""
    transcript = _Transcript(file, book)
    take = transcript.take
    with opened(file) as stream:
        blocks = Blocks(stream, start_of(stream, mark))
        for block in blocks:
            for at, line in lines_with(block, NEEDLE):
                try:
                    take(line, at)
                except UsageError as error:
                    book.refuse(error.what, file.path)
        offset = blocks.offset
        if NEEDLE in blocks.rest:
            with contextlib.suppress(UsageError):
                take(blocks.rest, offset)
                offset += len(blocks.rest)
        if blocks.long_lines:
            book.refuse(LONG_LINES, file.path, blocks.long_lines)
        return marked(stream, offset)


class _Transcript:
    """Takes the lines of one file into the book."""

    def __init__(self, file: LogFile, book: Book) -> None:
        self._file = file
        self._book = book
        self._calls = book.calls
        self._projects = _projects(file.name.partition("/")[0])

    def take(self, data: bytes, offset: int) -> None:
        """Takes a line. Raises UsageError for one that cannot be read."""
        line = decoded(data)
        message = line.message
        if message is None or message.usage is None:
            return
        place = ""
        if message.id:
            known = self._calls.get(key_of(message.id, line.request_id))
            if known is not None and self._repeats(line, message, message.usage, known):
                return
        else:
            place = f"{self._file.name} {offset}"
        call = call_of(line, place, self._projects)
        if call is not None:
            if not call.session:
                call = msgspec.structs.replace(call, session=PurePath(self._file.name).stem)
            self._book.add(call, self._file.path)

    def _repeats(self, line: ClaudeLine, message: LoggedMessage, usage: MessageUsage, known: LogCall) -> bool:
        """Whether a line says nothing new: one response is several lines, and most have its usage word for word."""
        at = line.timestamp
        if at is None or not known.at <= at <= self._book.latest:
            return False
        size = size_of(usage)
        return size < known.size or (
            size == known.size
            and line.session_id == known.session
            and line.agent_id == known.agent
            and message.model == known.model
            and (line.is_sidechain is True) is known.aside
            and self._projects[line.cwd] == known.project
        )


@functools.lru_cache(maxsize=256)
def _projects(folder: str) -> Projects:
    """The names of the projects of a folder, which most often holds many transcripts."""
    return Projects(folder)
