"""OpenCode's messages: in its database, and in the files that older versions wrote."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import PurePath
from typing import Final
from urllib.parse import quote

import msgspec

from tallystick.capture.logs.book import Book
from tallystick.capture.logs.files import LARGE_FILES, LogFile, Mark, whole
from tallystick.errors import UsageError
from tallystick.wire.logs.opencode import read_message, reading_of

__all__ = ["UNREADABLE", "read", "reading_of"]

_MAX_ROW: Final = 1 << 24
_COLUMN: Final = " AND m.type = 'assistant'"

UNREADABLE: Final = "databases that cannot be read"


def read(file: LogFile, mark: Mark | None, book: Book) -> Mark:
    """Reads the messages of a file into the book. Messages change while they are written, so a database that has
    changed is read anew."""
    del mark
    if file.name.endswith(".db"):
        _read_database(file, book)
    else:
        data = whole(file)
        if data is None:
            book.refuse(LARGE_FILES, file.path)
        else:
            _take(data, None, None, file, book)
    return Mark()


def _read_database(file: LogFile, book: Book) -> None:
    address = f"file:{quote(file.path)}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=1.0)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA query_only = ON")
            connection.execute("PRAGMA cell_size_check = ON")
            connection.text_factory = bytes
            for data, session, directory in _rows(connection):
                if isinstance(data, bytes):
                    _take(data, _text(session), _text(directory), file, book)
    except sqlite3.Error:
        book.refuse(UNREADABLE, file.path)


def _rows(connection: sqlite3.Connection) -> Iterator[tuple[object, object, object]]:
    """Message, session and directory of each row. Newer versions keep messages in `session_message`, with their kind as
    a column; older ones in `message`. Some have no table of sessions."""
    listed = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    tables = {bytes(name).decode("utf-8", "replace") for (name,) in listed}
    directory, sessions = "NULL", ""
    if "session" in tables:
        directory, sessions = "s.directory", " LEFT JOIN session s ON s.id = m.session_id"
    for table, kind in (("session_message", _COLUMN), ("message", "")):
        if table in tables:
            query = f"SELECT m.data, m.session_id, {directory} FROM {table} m{sessions} WHERE length(m.data) <= ?{kind}"  # noqa: S608 - of our own words
            yield from connection.execute(query, (_MAX_ROW,))


def _take(data: bytes, session: str | None, directory: str | None, file: LogFile, book: Book) -> None:
    try:
        call = read_message(data, session, directory)
    except UsageError as error:
        book.refuse(error.what, file.path)
        return
    if call is not None:
        project = PurePath(call.project).name if call.project else None
        book.add(msgspec.structs.replace(call, project=project), file.path)


def _text(value: object) -> str | None:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) and value else None
