"""Codex's rollouts as files: where they lie, and how their lines become calls."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Final

import msgspec

from tallystick.capture.logs.book import Book
from tallystick.capture.logs.files import LONG_LINES, Blocks, LogFile, Mark, marked, opened, start_of
from tallystick.errors import UsageError
from tallystick.wire.logs.codex import Progress, Rollout, matters
from tallystick.wire.logs.lines import LogCall

_FOLDERS: Final = ("sessions", "archived_sessions")


def roots(env: Mapping[str, str], home: Path) -> list[Path]:
    """The folders of rollouts below $CODEX_HOME or ~/.codex."""
    base = Path(env["CODEX_HOME"]).expanduser() if env.get("CODEX_HOME") else home / ".codex"
    return [base / folder for folder in _FOLDERS]


def wanted(name: str) -> bool:
    """Rollouts are .jsonl files at any depth."""
    return name.endswith(".jsonl")


def read(file: LogFile, mark: Mark | None, book: Book) -> Mark:
    """Reads what is new in a rollout into the book, and returns how far."""
    with opened(file) as stream:
        start = start_of(stream, mark)
        rollout = Rollout(_progress(mark.progress) if mark is not None and start else None)
        blocks = Blocks(stream, start)
        for _, block in blocks:
            for line in block.split(b"\n"):
                if matters(line):
                    try:
                        _take(rollout.read_line(line), file, book)
                    except UsageError as error:
                        book.refuse(error.what, file.path)
        offset = blocks.offset
        if blocks.rest and matters(blocks.rest):
            with contextlib.suppress(UsageError):
                _take(rollout.read_line(blocks.rest), file, book)
                offset += len(blocks.rest)
        if blocks.long_lines:
            book.refuse(LONG_LINES, file.path, blocks.long_lines)
        return marked(file, stream, offset, msgspec.json.encode(rollout.progress).decode())


def _progress(text: str) -> Progress | None:
    try:
        return msgspec.json.decode(text, type=Progress)
    except msgspec.DecodeError:
        return None


def _take(call: LogCall | None, file: LogFile, book: Book) -> None:
    if call is not None:
        project = PurePath(call.project).name if call.project else None
        session = call.session or PurePath(file.name).stem
        book.add(msgspec.structs.replace(call, project=project, session=session), file.path)
