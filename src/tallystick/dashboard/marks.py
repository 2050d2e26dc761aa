"""Marks: the elements of a picture as text. All text from elsewhere, in elements and attributes alike, goes through
here and is escaped here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from markupsafe import escape

HAIR: Final[Mapping[str, object]] = {"fill": "none", "vector_effect": "non-scaling-stroke"}
"""A stroke that keeps its width in a stretched picture."""

_LONGEST: Final = 160


def tag(element: str, inner: str = "", /, **attributes: object) -> str:
    """An element. `inner` is made of other elements or of `text`; attributes are escaped: `cls` is class, and an
    underscore a hyphen."""
    told = [f' {_names(name)}="{escape(_plain(str(value)))}"' for name, value in attributes.items()]
    return f"<{element}{''.join(told)}>{inner}</{element}>"


def text(words: str, most: int = _LONGEST) -> str:
    """Text that stays text: escaped, without control and format characters, cut at `most` characters."""
    return str(escape(clipped(words, most)))


def clipped(words: str, most: int = _LONGEST) -> str:
    """The words without control and format characters, cut at `most` characters; not escaped yet."""
    plain = _plain(words)
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"


def mark(shape: str, kind: str, label: str, named: tuple[str, str], where: Mapping[str, object]) -> str:
    """A mark with what it shows: `named` is the name of its series and its figure as text."""
    name, value = named
    title = tag("title", text(f"{label} · {name}: {value}"))
    return tag(shape, title, cls=kind, data_name=clipped(name), data_value=value, **where)


def number(value: float) -> str:
    """A coordinate with at most two decimals."""
    return _short(value)


def percent(value: float) -> str:
    """A place across, in percent."""
    return f"{_short(value, 3)}%"


def _short(value: float, places: int = 2) -> str:
    return f"{value + 0.0:.{places}f}".rstrip("0").rstrip(".") if round(value, places) else "0"


def _names(name: str) -> str:
    return "class" if name == "cls" else name.replace("_", "-")


def _plain(words: str) -> str:
    if words.isprintable():
        return words
    return "".join(char if char.isprintable() else " " if char.isspace() else "" for char in words)
