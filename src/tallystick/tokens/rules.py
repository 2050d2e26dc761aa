"""Dated data files of this room, and how a model's name finds its row in them.

A row lists `ids` (exact names) and `families`. A family is a statement of the data file that all names below it share a
property; it matches itself and what continues it after a hyphen, or, where it ends in a punctuation mark, every name
that begins with it. An exact name beats a family, a longer family a shorter one. No rate is ever found this way.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
"""The folder of this room; its data and ranks lie in it."""


@cache
def load(name: str) -> Mapping[str, Any]:
    """The bundled data file `data/<name>.toml`. Raises `FileNotFoundError` if there is none."""
    return tomllib.loads((HERE / "data" / f"{name}.toml").read_text(encoding="utf-8"))


@lru_cache(maxsize=1024)
def bare_names(model: str) -> tuple[str, ...]:
    """The names to look a model up by: as written, then without provider, region, fine-tune, tag and version marks."""
    marks = load("names")
    name = model.strip().lower()
    names = [name]
    name = name.rsplit("/", 1)[-1]
    names.append(name)
    for mark in marks["fine_tune_prefixes"]:
        if name.startswith(mark):
            name = name[len(mark) :].split(":", 1)[0]
    name = name.split("@", 1)[0]
    trimmed = True
    while trimmed:
        trimmed = False
        for prefix in marks["dotted_prefixes"]:
            if name.startswith(prefix):
                name, trimmed = name[len(prefix) :], True
    names.append(name)
    names.append(name.split(":", 1)[0])
    return tuple(dict.fromkeys(one for one in names if one))


def _family_length(name: str, families: Iterable[str]) -> int:
    best = -1
    for family in families:
        fits = name.startswith(family) if not family[-1].isalnum() else name == family or name.startswith(family + "-")
        if fits:
            best = max(best, len(family))
    return best


@lru_cache(maxsize=4096)
def find(name: str, table: str, model: str) -> Mapping[str, Any] | None:
    """The row for a model in a table of the data file `name`, or None.

    Provider prefixes, fine-tune and version marks are understood. Raises `KeyError` if there is no such table.
    """
    listed: list[Mapping[str, Any]] = load(name)[table]
    for candidate in bare_names(model):
        for row in listed:
            if candidate in row.get("ids", ()):
                return row
        scored = [(_family_length(candidate, row.get("families", ())), row) for row in listed]
        best = max(scored, key=lambda pair: pair[0], default=(-1, None))
        if best[0] >= 0:
            return best[1]
    return None
