"""Codex's rollouts as files: how their lines become calls."""

from __future__ import annotations

import contextlib
import functools
from pathlib import PurePath

import msgspec

from tallystick.capture.logs.book import Book
from tallystick.capture.logs.files import LONG_LINES, Blocks, LogFile, Mark, marked, opened, start_of
from tallystick.errors import UsageError
from tallystick.wire.logs.codex import Progress, Rollout, lines_that_matter, matters, reading_of

__all__ = ["read", "reading_of"]


def read(file: LogFile, mark: Mark | None, book: Book) -> Mark:
    """Reads what is new in a rollout into the book, and returns how far."""
    with opened(file) as stream:
        start = start_of(stream, mark)
        progress = _progress(mark.progress) if mark is not None and start else None
        rollout = Rollout(progress, PurePath(file.name).stem, _project)
        blocks = Blocks(stream, start)
        for block in blocks:
            for line in lines_that_matter(block.data, block.begin, block.end):
                try:
                    call = rollout.read_line(line)
                except UsageError as error:
                    book.refuse(error.what, file.path)
                else:
                    if call is not None:
                        book.add(call, file.path)
        offset = blocks.offset
        if blocks.rest and matters(blocks.rest):
            with contextlib.suppress(UsageError):
                call = rollout.read_line(blocks.rest)
                if call is not None:
                    book.add(call, file.path)
                offset += len(blocks.rest)
        if blocks.long_lines:
            book.refuse(LONG_LINES, file.path, blocks.long_lines)
        return marked(stream, offset, msgspec.json.encode(rollout.progress).decode())


@functools.lru_cache(maxsize=1024)
def _project(cwd: str | None) -> str | None:
    return PurePath(cwd).name if cwd else None


def _progress(text: str) -> Progress | None:
    try:
        return msgspec.json.decode(text, type=Progress)
    except msgspec.DecodeError:
        return None
