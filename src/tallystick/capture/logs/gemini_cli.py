"""Gemini CLI's chats as files: how they become calls."""

from __future__ import annotations

import contextlib
from pathlib import PurePath

from tallystick.capture.logs.book import Book
from tallystick.capture.logs.files import (
    LARGE_FILES,
    LONG_LINES,
    Blocks,
    LogFile,
    Mark,
    marked,
    opened,
    start_of,
    whole,
)
from tallystick.errors import UsageError
from tallystick.wire.logs.gemini_cli import NEEDLES, call_of, read_chat, read_message, reading_of

__all__ = ["read", "reading_of"]


def read(file: LogFile, mark: Mark | None, book: Book) -> Mark:
    """Reads what is new in a chat into the book, and returns how far. A chat that is one JSON document is written anew
    each time it grows, so it is read whole."""
    if file.name.endswith(".jsonl"):
        return _read_lines(file, mark, book)
    document = whole(file)
    if document is None:
        book.refuse(LARGE_FILES, file.path)
        return Mark()
    try:
        session, messages = read_chat(document)
    except UsageError:
        # The tool may be writing it right now: it is read again when it has changed.
        book.refuse("chats that are not whole JSON documents", file.path)
        return Mark()
    for message in messages:
        _take(message, session, file, book)
    return Mark()


def _read_lines(file: LogFile, mark: Mark | None, book: Book) -> Mark:
    with opened(file) as stream:
        start = start_of(stream, mark)
        session = mark.progress if mark is not None and start else ""
        blocks = Blocks(stream, start)
        for block in blocks:
            for line in block.data[block.begin : block.end].split(b"\n"):
                session = _take(line, session, file, book) or session
        offset = blocks.offset
        if blocks.rest.endswith(b"}"):
            with contextlib.suppress(UsageError):
                read_message(blocks.rest)
                session = _take(blocks.rest, session, file, book) or session
                offset += len(blocks.rest)
        if blocks.long_lines:
            book.refuse(LONG_LINES, file.path, blocks.long_lines)
        return marked(stream, offset, session)


def _take(line: bytes, session: str | None, file: LogFile, book: Book) -> str | None:
    """Takes a message; returns the session that it names."""
    if not any(needle in line for needle in NEEDLES):
        return None
    try:
        message = read_message(line)
    except UsageError as error:
        book.refuse(error.what, file.path)
        return None
    project = file.name.partition("/")[0]
    call = call_of(message, message.session_id or session or PurePath(file.name).stem, project)
    if call is not None:
        book.add(call, file.path)
    return message.session_id
