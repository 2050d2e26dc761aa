"""Words: how figures, times and names from anywhere look in tables, CSV and pictures."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from tallystick.core.periods import zone
from tallystick.errors import ConfigError
from tallystick.ledger.entry import rfc3339
from tallystick.ledger.query import Total

NOT_A_BILL: Final = "API-equivalent, not a bill"
_RISKY: Final = ("=", "+", "-", "@", "\t", "\r")
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
_FORMATS: Final = {"month": "%Y-%m", "year": "%Y", "hour": "%Y-%m-%d %H:%M", "block": "%Y-%m-%d %H:%M"}

Column = tuple[str, str]
"""A heading, and `left` or `right`."""


def period_words(row: Total, per: str, tz: str) -> str:
    """The period of a row in words; empty where the row is of all time."""
    return "" if row.start is None else time_words(row.start, per, tz)


def time_words(start: datetime, per: str, tz: str) -> str:
    """A period by its start in words: its first day, its month or year, or the time where it is shorter than a day."""
    return format(start.astimezone(zone(tz)), _FORMATS.get(per, "%Y-%m-%d"))


def shown(text: str) -> str:
    """Text from elsewhere without control characters: they are shown as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape", "replace").decode() for char in text)


def plain_table(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table as wide as it needs to be, without columns that are empty throughout."""
    used = [place for place in range(len(columns)) if any(row[place] for row in cells)]
    lines = [[columns[place][0] for place in used], *([shown(row[place]) for place in used] for row in cells)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for number, line in enumerate(lines):
        parts = [
            f"{cell:>{width}}" if columns[place][1] == "right" else f"{cell:<{width}}"
            for cell, width, place in zip(line, widths, used, strict=True)
        ]
        yield "  ".join(parts).rstrip()
        if number == 0:
            yield "-" * (sum(widths) + 2 * (len(widths) - 1))


def csv_cell(value: object) -> str:
    """A value as text for CSV: times RFC 3339, amounts exact, nothing for None. Text that a spreadsheet would take for
    a formula gets an apostrophe in front."""
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, bool):
        return "true" if value else "false"
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_RISKY) and not _NUMBER.fullmatch(text) else text


def library(name: str, todo: str = "") -> Any:
    """A module that is not among the dependencies. Raises ConfigError with how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        plain = name.replace("_", "-")
        raise ConfigError(f"{plain} is not installed.", todo=todo or f"Install it: pip install {plain}") from None
