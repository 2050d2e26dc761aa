"""Names: what is left of a source's match rules when nothing is matched by how it begins."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

_PARTIAL_DATE: Final = re.compile(r"-20\d\d-?$")
_DATED: Final = re.compile(r"-(\\d\{8\}|\\d\{4\}-\\d\{2\}-\\d\{2\})$")
_DATED_AT: Final = re.compile(r"\[-@\]\\d\{8\}$")
_OPTIONAL: Final = re.compile(r"\(([^()|]*)\)\?")
_EXCLUSION: Final = re.compile(r"^\^\(\?!.*\)$")
_META: Final = re.compile(r"(?<!\\)[\^$.|?*+()\[\]{}]|\\[dwsDWS]")


@dataclass
class Names:
    """Exact names (lower case), whether a date or version may be dropped to reach them, and rules that were dropped."""

    ids: set[str] = field(default_factory=set)
    dated: bool = False
    dropped: list[str] = field(default_factory=list)

    def __ior__(self, other: Names) -> Names:  # noqa: PYI034
        self.ids |= other.ids
        self.dated |= other.dated
        self.dropped += other.dropped
        return self


def names_of(clause: Any) -> Names:
    """The exact names of a match clause. "Starts with" and "contains" keep their text as a name and allow a date after
    it; patterns are enumerated where they say no more than that, and reported as dropped otherwise."""
    for attribute in ("or_", "and_"):
        parts = getattr(clause, attribute, None)
        if parts is not None:
            names = Names()
            for part in parts:
                names |= names_of(part)
            return names
    if hasattr(clause, "equals"):
        return Names({clause.equals.lower()})
    if hasattr(clause, "ends_with"):
        return Names({clause.ends_with.lower().lstrip("/")})
    if hasattr(clause, "regex"):
        return _pattern(clause.regex)
    text = (clause.starts_with if hasattr(clause, "starts_with") else clause.contains).lower()
    return Names({_PARTIAL_DATE.sub("", text.rstrip("-@")).rstrip("-@")}, dated=True)


def _pattern(regex: str) -> Names:
    if _EXCLUSION.match(regex):
        return Names()  # It only narrows a "starts with" beside it, of which no more than the exact name is kept.
    body = regex.removeprefix("^").removesuffix("$")
    if regex != f"^{body}$":
        return Names(dropped=[regex])
    names = Names()
    for text in _without_options(body):
        bare = _DATED_AT.sub("", _DATED.sub("", text))
        names.dated |= bare != text
        if _META.search(bare):
            return Names(dropped=[regex])
        names.ids.add(re.sub(r"\\(.)", r"\1", bare).lower())
    return names


def _without_options(body: str) -> list[str]:
    found = _OPTIONAL.search(body)
    if found is None:
        return [body]
    before, after = body[: found.start()], body[found.end() :]
    return [*_without_options(before + after), *_without_options(before + found[1] + after)]
