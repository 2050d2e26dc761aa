"""Quick: the first short texts of a process, tokenized without loading a tokenizer.

Building a tokenizer takes most of a second, and a command line that counts one sentence should not. The reference needs
only to know which byte strings are tokens, and that can be looked up in the ranks file as it lies there, line by line.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Mapping
from typing import Final

from tallystick.tokens import bpe

LONGEST: Final = 600
"""Characters of a text that is worth it; a byte string that is no token costs a search of the whole file."""

ALLOWANCE: Final = 1200
"""Characters in sum, after which the tokenizer is loaded: a process that counts on will be glad of it."""


class Lookup(Mapping[bytes, int]):
    """The mergeable tokens and their numbers, searched for in the text of a ranks file (base64, space, number)."""

    def __init__(self, raw: bytes) -> None:
        self._raw = b"\n" + raw
        self._known: dict[bytes, int | None] = {}

    def __getitem__(self, token: bytes) -> int:
        if token not in self._known:
            self._known[token] = self._search(token)
        number = self._known[token]
        if number is None:
            raise KeyError(token)
        return number

    def __iter__(self) -> Iterator[bytes]:
        return map(binascii.a2b_base64, self._raw.split()[::2])

    def __len__(self) -> int:
        return self._raw.rstrip().count(b"\n")

    def token_bytes(self, number: int) -> bytes | None:
        """The bytes of a token, or None where there is no such token."""
        end = self._raw.find(b" %d\n" % number)
        return None if end < 0 else binascii.a2b_base64(self._raw[self._raw.rfind(b"\n", 0, end) + 1 : end])

    def _search(self, token: bytes) -> int | None:
        line = b"\n" + binascii.b2a_base64(token, newline=False) + b" "
        start = self._raw.find(line)
        if start < 0:
            return None
        start += len(line)
        return int(self._raw[start : self._raw.find(b"\n", start)])


class Quick:
    """A tokenizer for short ASCII texts, over the text of a ranks file."""

    def __init__(self, raw: bytes, splitter: str) -> None:
        self._splitter = splitter
        self.lookup = Lookup(raw)

    def encode(self, text: str) -> list[int]:
        """The token numbers of an ASCII text."""
        pieces = bpe.splitter(self._splitter, plain=True).finditer(text)
        return [self.lookup[token] for piece in pieces for token in bpe.merge(piece.group().encode(), self.lookup)]
