"""Server-sent events: bytes in any pieces to the data of each event, or to whole raw events.

Lines end with LF, CRLF or CR, comments and unknown fields are skipped, the data lines of one event are joined. Source:
WHATWG HTML, 9.2.6 "Interpreting an event stream".
"""

from __future__ import annotations

import re
from typing import Final

LIMIT: Final = 64 * 2**20
"""Bytes that a reader holds of one unfinished event or body. Beyond that it stops listening; the bytes still pass."""

_BOM: Final = b"\xef\xbb\xbf"
_END: Final = re.compile(rb"(?>\r\n|\r|\n)(?>\r\n|\r|\n)")
_LONGEST_END: Final = 4
_CR: Final = ord("\r")


class Sse:
    """Reads the data of each event. `overflow` says that an event was larger than `limit` bytes: nothing is heard any
    more. Never raises, whatever the bytes."""

    __slots__ = ("_cr", "_data", "_first", "_held", "_tail", "limit", "overflow")

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.overflow = False
        self._tail: list[bytes] = []
        self._data: list[bytes] = []
        self._held = 0
        self._cr = False
        self._first = True

    @property
    def resting(self) -> bool:
        """Whether the next byte begins an event."""
        return not (self._held or self._cr or self.overflow)

    def feed(self, data: bytes) -> list[bytes]:
        """The data of the events that these bytes complete; events without data are left out."""
        if self.overflow:
            return []
        # Nearly every read is one event: a line of data, maybe after the line of its name.
        if not self._held and not self._cr and data[-2:] == b"\n\n" and _CR not in data:
            start, last = 0, len(data) - 2
            end = data.find(b"\n")
            if end != last and data[:7] == b"event: ":
                start = end + 1
                end = data.find(b"\n", start)
            if end == last and data[start : start + 6] == b"data: " and start + 6 < last:
                self._first = False
                return [data[start + 6 : -2]]
        if self._cr or b"\r" in data:
            data = self._unified(data)
        lines = data.split(b"\n")
        rest = lines.pop()
        found: list[bytes] = []
        if lines:
            if self._tail:
                self._tail.append(lines[0])
                lines[0] = b"".join(self._tail)
                self._tail = []
            if self._first:
                lines[0] = lines[0].removeprefix(_BOM)
                self._first = False
            self._lines(lines, found)
            if found or not self._data:
                self._held = 0
        if rest:
            self._tail.append(rest)
        if self._tail or self._data:
            self._held += len(data) if self._data else len(rest)
            if self._held > self.limit:
                self.overflow = True
                self._tail, self._data = [], []
        return found

    def flush(self) -> list[bytes]:
        """What an unfinished last event holds, at the end of the stream."""
        return self.feed(b"\n\n\n")

    def _lines(self, lines: list[bytes], found: list[bytes]) -> None:
        data = self._data
        for line in lines:
            if not line:
                if data:
                    whole = data[0] if len(data) == 1 else b"\n".join(data)
                    data.clear()
                    if whole:
                        found.append(whole)
            elif line.startswith(b"data:"):
                data.append(line[6:] if line.startswith(b"data: ") else line[5:])
            elif line == b"data":
                data.append(b"")

    def _unified(self, data: bytes) -> bytes:
        """The data with LF for every line end; a CRLF may be split between two reads."""
        ended, self._cr = self._cr, data.endswith(b"\r") if data else self._cr
        if ended:
            data = data.removeprefix(b"\n")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


class SseEvents:
    """Cuts an event stream into its raw events, each with the blank line that ends it. The pieces joined are the
    stream, byte for byte."""

    __slots__ = ("_held", "_searched")

    def __init__(self) -> None:
        self._held = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The events that these bytes complete."""
        held = self._held
        held += data
        found: list[bytes] = []
        start, at = 0, self._searched
        while end := _END.search(held, at):
            at = end.end()
            # After a CR at the very end the LF that belongs to it may still come.
            if at == len(held) and held[at - 1] == 13:
                break
            found.append(bytes(held[start:at]))
            start = at
        if start:
            del held[:start]
        self._searched = max(0, len(held) - _LONGEST_END)
        return found

    @property
    def pending(self) -> int:
        """Bytes of an unfinished event."""
        return len(self._held)

    def rest(self) -> bytes:
        """The bytes of an unfinished event; they are handed over once."""
        held, self._held, self._searched = bytes(self._held), bytearray(), 0
        return held
