"""Tables as plain text, fitted to the terminal."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final

from tallystick.cli import printable

GAP: Final = 2
NARROWEST: Final = 8
"""Text columns are folded down to this width; figures never are."""


def terminal_width() -> int | None:
    """The columns of the terminal; None where output goes to a file or a pipe, so that nothing is folded there."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns


def table_lines(
    columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]], width: int | None, *, bold: bool = False
) -> Iterator[str]:
    """The heading (`bold` for terminals), a rule, and the rows. Cells are text from anywhere: control characters are
    shown as escapes. Where `width` is too small the widest text columns fold; where that is not enough every row
    becomes a list."""
    heads = [printable(heading) for heading, _ in columns]
    cells = [[printable(cell).replace("\n", "\\n") for cell in row] for row in rows]
    used = [place for place in range(len(heads)) if any(row[place] for row in cells)]
    widths = [max([cell_width(heads[place]), *(cell_width(row[place]) for row in cells)]) for place in used]
    right = [columns[place][1] == "right" for place in used]
    if width is not None and not _fit(widths, right, width):
        yield from _lists(heads, cells)
        return
    for line in _lines([heads[place] for place in used], widths, right):
        yield f"\x1b[1m{line}\x1b[0m" if bold else line
    yield "-" * (sum(widths) + GAP * (len(widths) - 1))
    for row in cells:
        yield from _lines([row[place] for place in used], widths, right)


def _lines(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> Iterator[str]:
    """The lines that a row takes when its cells are folded."""
    folded = [_folded(cell, size) for cell, size in zip(cells, widths, strict=True)]
    for number in range(max(map(len, folded))):
        parts = [part[number] if number < len(part) else "" for part in folded]
        yield _line(parts, widths, right)


def cell_width(text: str) -> int:
    """The terminal columns a text takes: East Asian wide characters take two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def _fit(widths: list[int], right: list[bool], width: int) -> bool:
    """Narrows the widest text columns until all fit; whether they do."""
    while sum(widths) + GAP * (len(widths) - 1) > width:
        texts = [place for place, is_right in enumerate(right) if not is_right and widths[place] > NARROWEST]
        if not texts:
            return False
        widths[max(texts, key=lambda place: widths[place])] -= 1
    return True


def _folded(text: str, width: int) -> list[str]:
    """The text in lines of at most `width`, cut behind a space or a hyphen where there is one."""
    lines = []
    while cell_width(text) > width:
        size = place = 0
        for place, char in enumerate(text):  # noqa: B007 - the place is where the line is full
            size += cell_width(char)
            if size > width:
                break
        place = max(place, 1)
        soft = max(text.rfind(mark, 0, place) for mark in " -/_") + 1
        cut = soft if soft > width // 3 else place
        lines.append(text[:cut].rstrip())
        text = text[cut:].lstrip(" ")
    return [*lines, text]


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    parts = []
    for cell, width, is_right in zip(cells, widths, right, strict=True):
        pad = " " * (width - cell_width(cell))
        parts.append(pad + cell if is_right else cell + pad)
    return (" " * GAP).join(parts).rstrip()


def _lists(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> Iterator[str]:
    label = max(map(cell_width, heads))
    for number, row in enumerate(cells):
        if number:
            yield ""
        for head, cell in zip(heads, row, strict=True):
            if cell:
                yield f"{head}{' ' * (label - cell_width(head))}  {cell}"
