"""The other framings: lines of JSON, an array of JSON objects that arrives in pieces, a whole body."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, Protocol

from tallystick.wire.sse import LIMIT

_TOKENS: Final = re.compile(rb'["\\{}\[\]]')
_QUOTE, _BACKSLASH = b'"\\'
_OPEN_OBJECT, _OPEN_ARRAY = b"{["
_OPENING: Final = b"{["


class Framing(Protocol):
    """Cuts bytes into the payloads that a call's stream consists of."""

    def feed(self, data: bytes) -> Sequence[Any]:
        """The payloads that these bytes complete."""

    def flush(self) -> Sequence[Any]:
        """What the end of the bytes completes."""


class Lines:
    """Reads newline-delimited JSON: one payload per line that is not empty."""

    __slots__ = ("_held", "_tail", "limit", "overflow")

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.overflow = False
        self._tail: list[bytes] = []
        self._held = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that these bytes complete."""
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines:
            lines[0] = b"".join([*self._tail, lines[0]])
            self._tail, self._held = [], 0
        if rest and not self.overflow:
            self._tail.append(rest)
            self._held += len(rest)
            if self._held > self.limit:
                self.overflow = True
                self._tail = []
        return [] if self.overflow else [line for line in map(bytes.strip, lines) if line]

    def flush(self) -> list[bytes]:
        """The unfinished last line."""
        return self.feed(b"\n")

    @property
    def pending(self) -> int:
        """Bytes of an unfinished line."""
        return self._held


class Objects:
    """Reads the objects of a JSON array while it arrives; an object that stands alone counts as one of them."""

    __slots__ = ("_after", "_base", "_depth", "_escaped", "_held", "_pieces", "_string", "limit", "overflow")

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.overflow = False
        self._base: int | None = None
        self._depth = 0
        self._string = self._escaped = False
        self._pieces: list[bytes] = []
        self._held = self._after = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The objects that these bytes complete."""
        found: list[bytes] = []
        if self.overflow:
            return found
        skipped = 0 if self._escaped else -1
        self._after += len(data)
        start = 0
        for token in _TOKENS.finditer(data):
            at = token.start()
            if at == skipped:
                continue
            sign = data[at]
            if self._string:
                if sign == _BACKSLASH:
                    skipped = at + 1
                else:
                    self._string = sign != _QUOTE
            elif sign == _QUOTE:
                self._string = True
            elif sign in _OPENING:
                if self._base is None:
                    self._base = int(sign == _OPEN_ARRAY)
                if self._depth == self._base:
                    start = at
                self._depth += 1
            elif sign != _BACKSLASH and self._depth:
                self._depth -= 1
                if self._depth == self._base:
                    found.append(b"".join([*self._pieces, data[start : at + 1]]))
                    self._pieces, self._held = [], 0
                    self._after = len(data) - at - 1
        if data:
            self._escaped = skipped == len(data)
        if self._base is not None and self._depth > self._base:
            self._pieces.append(data[start:])
            self._held += len(data) - start
            if self._held > self.limit:
                self.overflow = True
                self._pieces = []
        return found

    def flush(self) -> list[bytes]:
        """Nothing: an object that is not whole says nothing."""
        return []

    @property
    def pending(self) -> int:
        """Bytes after the last whole object, marks between objects included."""
        return self._after


class Passing:
    """Hands over every read as it comes: for bytes whose content says nothing."""

    def feed(self, data: bytes) -> list[bytes]:
        """The bytes themselves."""
        return [data] if data else []

    def flush(self) -> list[bytes]:
        """Nothing is kept."""
        return []


class Whole:
    """Keeps a whole body, up to `limit` bytes, as one payload at its end."""

    __slots__ = ("_held", "_pieces", "limit", "overflow")

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.overflow = False
        self._pieces: list[bytes] = []
        self._held = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Nothing before the end."""
        if not self.overflow and data:
            self._pieces.append(data)
            self._held += len(data)
            if self._held > self.limit:
                self.overflow = True
                self._pieces = []
        return []

    def flush(self) -> list[bytes]:
        """The body, once; nothing when it is empty or was too large."""
        body, self._pieces = b"".join(self._pieces), []
        return [body] if body else []
