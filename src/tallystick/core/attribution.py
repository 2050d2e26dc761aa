"""Tags: who or what a call is for, as short text pairs."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Final

from tallystick.errors import InputError

MAX_TAGS: Final = 32
MAX_LENGTH: Final = 256


class Tags(Mapping[str, str]):
    """Immutable attribution: at most 32 names, each name and value 1 to 256 characters of text.

    Names are kept in sorted order, so equal tags serialise equally. Values may be given as str, int or bool; they are
    stored as text (`true` and `false` for bools). Control characters are refused. Raises InputError.
    """

    __slots__ = ("_pairs",)
    _pairs: dict[str, str]

    def __init__(self, pairs: Mapping[str, object] | None = None, /, **named: object) -> None:
        merged = {**(pairs or {}), **named}
        if len(merged) > MAX_TAGS:
            raise InputError(f"{len(merged)} tags are too many; a call carries at most {MAX_TAGS}.")
        self._pairs = {
            _checked(name, "name"): _checked(_text(name, merged[name]), f"value of {name!r}")
            for name in sorted(merged, key=str)
        }

    def __getitem__(self, name: str) -> str:
        return self._pairs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __eq__(self, other: object) -> bool:
        return self._pairs == other._pairs if isinstance(other, Tags) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self._pairs.items()))

    def __repr__(self) -> str:
        return f"Tags({self._pairs!r})"

    def overlay(self, other: Mapping[str, object]) -> Tags:
        """These tags with `other` on top; a value of `None` in `other` removes the tag."""
        merged: dict[str, object] = {**self._pairs, **other}
        return Tags({name: value for name, value in merged.items() if value is not None})


def _text(name: object, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    raise InputError(f"The tag {name!r} has the value {value!r}; tags hold text, whole numbers, true or false.")


def _checked(text: object, what: str) -> str:
    if not isinstance(text, str):
        raise InputError(f"A tag's {what} must be text, not {text!r}.")
    if not 1 <= len(text) <= MAX_LENGTH:
        raise InputError(f"A tag's {what} has {len(text)} characters; 1 to {MAX_LENGTH} are allowed.")
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in text):
        raise InputError(f"A tag's {what} contains a control character.")
    return text
