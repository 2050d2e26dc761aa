"""Claude Code's transcripts as files: where they lie, and how their lines become calls."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Final

import msgspec

from tallystick.capture.logs.book import Book
from tallystick.capture.logs.files import LONG_LINES, Blocks, LogFile, Mark, lines_with, marked, opened, start_of
from tallystick.errors import UsageError
from tallystick.wire.logs.claude_code import NEEDLE, read_line

_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9]")


def roots(env: Mapping[str, str], home: Path) -> list[Path]:
    """The folders of transcripts: `projects` in each folder of $CLAUDE_CONFIG_DIR, or in the two usual ones."""
    named = [part.strip() for part in env.get("CLAUDE_CONFIG_DIR", "").split(",") if part.strip()]
    if named:
        return [Path(part).expanduser() / "projects" for part in named]
    return [home / ".config" / "claude" / "projects", home / ".claude" / "projects"]


def wanted(name: str) -> bool:
    """Transcripts are .jsonl files at any depth: sessions, and below them their sub-agents."""
    return name.endswith(".jsonl")


class Projects(dict[str | None, str]):
    """Names of projects by working directory, for one folder of transcripts.

    The folder is named after the directory in which the session began, with everything but letters and digits replaced.
    The directory whose name gives the folder's is the project; any other leaves the folder's own name.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = folder

    def __missing__(self, cwd: str | None) -> str:
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
    projects = Projects(file.name.partition("/")[0])
    stem = PurePath(file.name).stem
    with opened(file) as stream:
        blocks = Blocks(stream, start_of(stream, mark))
        for begin, block in blocks:
            for at, line in lines_with(block, NEEDLE):
                try:
                    _take(line, begin + at, file, book, projects, stem)
                except UsageError as error:
                    book.refuse(error.what, file.path)
        offset = blocks.offset
        if NEEDLE in blocks.rest:
            with contextlib.suppress(UsageError):
                _take(blocks.rest, offset, file, book, projects, stem)
                offset += len(blocks.rest)
        if blocks.long_lines:
            book.refuse(LONG_LINES, file.path, blocks.long_lines)
        return marked(file, stream, offset)


def _take(line: bytes, offset: int, file: LogFile, book: Book, projects: Projects, stem: str) -> None:
    call = read_line(line, f"{file.name} {offset}", projects)
    if call is not None:
        book.add(call if call.session else msgspec.structs.replace(call, session=stem), file.path)
