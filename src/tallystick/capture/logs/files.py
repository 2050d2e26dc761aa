"""Files: walking a folder of logs, and reading what was added to a file since the last time.

Logs are foreign files: links that lead out of the folder are not followed, only regular files are opened, a line may
be of any length, and nothing that a file does stops a scan.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from io import FileIO
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import msgspec

CHUNK: Final = 1 << 18
"""Small enough to stay in the processor's cache while it is searched."""

MAX_LINE: Final = 1 << 24
"""Longer lines (16 MB) are passed over in bounded memory, and counted."""

MAX_DOCUMENT: Final = 1 << 26
"""Files that have to be read whole are read up to here (64 MB)."""

_TAIL: Final = 64
_MAX_DEPTH: Final = 24
_NAME: Final = attrgetter("name")

LONG_LINES: Final = "lines longer than 16 MB"
LARGE_FILES: Final = "files larger than 64 MB that have to be read whole"


class Stamp(msgspec.Struct, frozen=True, gc=False, array_like=True, omit_defaults=True):
    """What a file was when it was read: enough to see that nothing has changed. `beside` is what its tool looks at
    besides."""

    inode: int
    size: int
    mtime_ns: int
    beside: str = ""


class Mark(msgspec.Struct, frozen=True, gc=False, array_like=True, omit_defaults=True):
    """How far a file has been read: the offset, a hash of the bytes before it, and whatever later lines need to know of
    earlier ones."""

    offset: int = 0
    tail: str = ""
    progress: str = ""


class LogFile(msgspec.Struct, frozen=True, gc=False):
    """A file found in a folder of logs. `name` is its path below the folder, with slashes."""

    path: str
    name: str
    status: os.stat_result


class Left(msgspec.Struct, frozen=True):
    """Something that was left out, and why."""

    path: str
    why: str


def walk(root: Path, wanted: Callable[[str], bool], left: Callable[[Left], None]) -> list[LogFile]:
    """The regular files below a folder whose name fits, in the order of their names."""
    base = os.path.realpath(root)
    found: list[LogFile] = []
    _walk(base, "", _Walk(base, wanted, left, found.append))
    return found


class _Walk(NamedTuple):
    base: str
    wanted: Callable[[str], bool]
    left: Callable[[Left], None]
    found: Callable[[LogFile], None]


def _walk(folder: str, above: str, walking: _Walk) -> None:
    base, wanted, left, found = walking
    try:
        with os.scandir(folder) as listing:
            items = sorted(listing, key=_NAME)
    except OSError as error:
        left(Left(folder, f"the folder cannot be read: {error.strerror}"))
        return
    for item in items:
        name = above + item.name
        try:
            if item.is_symlink():
                if not _inside(base, item.path) and (item.is_dir() or wanted(name)):
                    left(Left(item.path, "a link that leads out of the folder"))
            elif item.is_dir(follow_symlinks=False):
                if name.count("/") < _MAX_DEPTH:
                    _walk(item.path, f"{name}/", walking)
                else:
                    left(Left(item.path, "folders nested too deeply"))
            elif wanted(name):
                status = item.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    found(LogFile(item.path, name, status))
                else:
                    left(Left(item.path, "not a regular file"))
        except OSError as error:
            left(Left(item.path, f"it cannot be read: {error.strerror}"))


def _inside(base: str, link: str) -> bool:
    target = os.path.realpath(link)
    return target == base or target.startswith(base + os.sep)


def opened(file: LogFile) -> BinaryIO:
    """The file, open for reading. Raises OSError, also where it has become something else than a regular file."""
    descriptor = os.open(file.path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    stream = FileIO(descriptor)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        stream.close()
        raise OSError(0, "not a regular file", file.path)
    return stream


def start_of(stream: BinaryIO, mark: Mark | None) -> int:
    """Where to go on reading: after what was read before if the file still begins with it, else at its beginning."""
    if mark is None or not mark.offset or tail_hash(stream, mark.offset) != mark.tail:
        return 0
    return mark.offset


def tail_hash(stream: BinaryIO, offset: int) -> str:
    """A hash of the last bytes before an offset; of another text where the file is shorter."""
    begin = max(0, offset - _TAIL)
    stream.seek(begin)
    return hashlib.blake2b(stream.read(offset - begin), digest_size=8, key=b"%d" % offset).hexdigest()


def marked(stream: BinaryIO, offset: int, progress: str = "") -> Mark:
    """How far a file has been read. What was added while it was read is seen next time."""
    return Mark(offset, tail_hash(stream, offset), progress)


def whole(file: LogFile) -> bytes | None:
    """All of a file; None for one that is too large. Raises OSError."""
    if file.status.st_size > MAX_DOCUMENT:
        return None
    with opened(file) as stream:
        pieces, size = [], 0
        while size <= MAX_DOCUMENT and (piece := stream.read(CHUNK)):
            pieces.append(piece)
            size += len(piece)
        return None if size > MAX_DOCUMENT else b"".join(pieces)


class Block(NamedTuple):
    """Whole lines: `data` from `begin` to `end`. `at` is where `data` begins in the file."""

    at: int
    data: bytes
    begin: int
    end: int


class Blocks:
    """Reads a file in blocks of whole lines. After that, `rest` is the line at the end that has no newline yet,
    `offset` where it begins, and `long_lines` how many were passed over."""

    def __init__(self, stream: BinaryIO, start: int) -> None:
        self.offset = start
        self.rest = b""
        self.long_lines = 0
        self._stream = stream

    def __iter__(self) -> Iterator[Block]:
        """Each block; what was read is not copied, apart from the lines across its edges."""
        stream, carry, skipping = self._stream, bytearray(), False
        at = stream.seek(self.offset)
        while chunk := stream.read(CHUNK):
            begin, end = 0, chunk.rfind(b"\n") + 1
            if end and (carry or skipping):
                begin = chunk.find(b"\n") + 1
                if carry:
                    line = bytes(carry + chunk[:begin])
                    carry.clear()
                    yield Block(at + begin - len(line), line, 0, len(line))
                skipping = False
            if end > begin:
                yield Block(at, chunk, begin, end)
            at += len(chunk)
            if end:
                self.offset = at - len(chunk) + end
            if not skipping and end < len(chunk):
                carry += chunk[end:]
                if len(carry) > MAX_LINE:
                    self.long_lines += 1
                    carry, skipping = bytearray(), True
        self.rest = bytes(carry)


def lines_with(block: Block, needle: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines of a block that hold a text, with their offsets in the file."""
    at, data, first, last = block
    place = data.find(needle, first, last)
    while place >= 0:
        begin = data.rfind(b"\n", first, place) + 1 or first
        end = data.find(b"\n", place)
        yield at + begin, data[begin:end]
        place = data.find(needle, end, last)
