"""Byte pair encoding, written to be read: split the text with a pattern, then merge bytes by rank.

This is the reference the fast tokenizers are checked against, and what explains a count. It needs nothing but the
standard library and the bundled ranks, and it is linear in the number of pretokens.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final, NamedTuple

from tallystick.tokens.rules import load


class Piece(NamedTuple):
    """One pretoken: its text, and the tokens it became as bytes, left to right."""

    text: str
    tokens: tuple[bytes, ...]


def character_class(ranges: str) -> str:
    """Turn a data file's ranges ('41-5a c0') into the inside of a regular expression's brackets."""
    parts = []
    for word in ranges.split():
        first, _, last = word.partition("-")
        parts.append(f"\\U{int(first, 16):08x}" + (f"-\\U{int(last, 16):08x}" if last else ""))
    return "".join(parts)


# The long s folds to s when case is ignored, so an apostrophe and a long s make a contraction too.
_SHORTENED: Final = "'(?:[sdmtSDMT\u017f]|[lL][lL]|[vV][eE]|[rR][eE])"
_LOWER_SHORTENED: Final = "'(?:[sdmt]|ll|ve|re)"


_PLAIN: Final = {"upper": "A-Z", "lower": "a-z", "letter": "", "mark": "", "number": "0-9", "space": "\t-\r "}


@cache
def splitter(pattern: str, *, plain: bool = False) -> re.Pattern[str]:
    """The pretoken pattern called `o200k`, `cl100k` or `r50k`, over the bundled character classes; `plain` is for ASCII
    texts only and needs none of them.

    Raises `KeyError` for another name.
    """
    # Reading all of Unicode's classes and compiling them takes longer than the rest of a short count.
    table = (
        _PLAIN if plain else {key: character_class(value) for key, value in load("unicode").items() if key != "unicode"}
    )
    number, space, mark = table["number"], table["space"], table["mark"]
    letter = table["upper"] + table["lower"] + table["letter"]
    head = table["upper"] + table["letter"] + mark
    tail = table["lower"] + table["letter"] + mark
    # One character that is neither line break, letter nor number may lead a word: the space before it, mostly.
    lead = f"[^\r\n{letter}{number}]?"
    symbols = f" ?[^{space}{letter}{number}]+"
    gap = f"[{space}]+(?![^{space}])"
    alternatives = {
        "o200k": (
            f"{lead}[{head}]*[{tail}]+(?:{_SHORTENED})?",
            f"{lead}[{head}]+[{tail}]*(?:{_SHORTENED})?",
            f"[{number}]{{1,3}}",
            f"{symbols}[\r\n/]*",
            f"[{space}]*[\r\n]+",
            gap,
            f"[{space}]+",
        ),
        "cl100k": (
            _SHORTENED,
            f"{lead}[{letter}]+",
            f"[{number}]{{1,3}}",
            f"{symbols}[\r\n]*",
            rf"[{space}]+\Z",
            f"[{space}]*[\r\n]",
            gap,
            f"[{space}]",
        ),
        "r50k": (
            _LOWER_SHORTENED,
            f" ?[{letter}]+",
            f" ?[{number}]+",
            symbols,
            rf"[{space}]+\Z",
            gap,
            f"[{space}]",
        ),
    }
    return re.compile("|".join(alternatives[pattern]))


def merge(piece: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """Merge the bytes of one pretoken: always the adjacent pair of lowest rank, the leftmost of equals.

    The waiting pairs stand in a heap and the parts in a linked list, so a pretoken of n bytes costs n log n steps.
    Entries made stale by a neighbour's merge are recognised by their span and skipped.
    """
    if piece in ranks:
        return [piece]
    length = len(piece)
    ends = list(range(1, length + 1))
    before = list(range(-1, length - 1))
    heap: list[tuple[int, int, int]] = []

    def offer(start: int) -> None:
        middle = ends[start]
        if middle < length:
            rank = ranks.get(piece[start : ends[middle]])
            if rank is not None:
                heapq.heappush(heap, (rank, start, ends[middle]))

    for start in range(length - 1):
        offer(start)
    while heap:
        _, start, end = heapq.heappop(heap)
        middle = ends[start]
        # A part that was swallowed by its left neighbour has end -1; a pair that has changed ends elsewhere.
        if middle < 0 or middle >= length or ends[middle] != end:
            continue
        ends[start], ends[middle] = end, -1
        if end < length:
            before[end] = start
        offer(start)
        if before[start] >= 0:
            offer(before[start])
    parts, start = [], 0
    while start < length:
        parts.append(piece[start : ends[start]])
        start = ends[start]
    return parts


def split(text: str, pattern: str) -> Iterator[str]:
    """The pretokens of `text`, left to right; joined they are `text` again."""
    return (found.group() for found in splitter(pattern).finditer(text))


def explain(text: str, pattern: str, ranks: Mapping[bytes, int]) -> Iterator[Piece]:
    """The pretokens of `text`, each with its tokens. `text` holds no lone surrogates."""
    for piece in split(text, pattern):
        yield Piece(piece, tuple(merge(piece.encode(), ranks)))


def encode(text: str, pattern: str, ranks: Mapping[bytes, int]) -> list[int]:
    """The token numbers of `text`; special tokens are ordinary text. `text` holds no lone surrogates."""
    return [ranks[token] for piece in explain(text, pattern, ranks) for token in piece.tokens]
