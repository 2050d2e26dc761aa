"""Usage: what one call consumed, as counts per kind that never overlap."""

from __future__ import annotations

import re
from collections.abc import ItemsView, Iterator, Mapping
from typing import Final

from tallystick.errors import UsageError

MAX_COUNT: Final = 2**53
"""Counts stop below this: every JSON reader agrees on integers up to here."""

INPUT_KINDS: Final = (
    "input",
    "cache_read",
    "cache_write",
    "cache_write_5m",
    "cache_write_1h",
    "audio_input",
    "audio_cache_read",
    "image_input",
    "image_cache_read",
    "video_input",
    "video_cache_read",
)
"""Token kinds that make up the prompt; their sum decides context cliffs."""

OUTPUT_KINDS: Final = ("output", "reasoning", "citation", "audio_output", "image_output", "video_output")
"""Token kinds that the model generated."""

OTHER_UNITS: Final = {
    "milliseconds_input": "millisecond",
    "milliseconds_output": "millisecond",
    "characters_input": "character",
    "characters_output": "character",
    "images": "image",
    "requests": "request",
    "searches": "search",
    "pages": "page",
    "cache_token_hours": "token-hour",
}
"""Kinds that are not tokens, and the unit each is counted in."""

TOKEN_KINDS: Final = frozenset(INPUT_KINDS + OUTPUT_KINDS)
KINDS: Final = (*INPUT_KINDS, *OUTPUT_KINDS, *OTHER_UNITS)
"""All kinds but the fees, in the order in which they are shown."""

_KNOWN = frozenset(KINDS)
_new = object.__new__
_ORDER = {kind: position for position, kind in enumerate(KINDS)}
_FEE = re.compile(r"fee:[a-z0-9][a-z0-9_.-]{0,63}", re.ASCII)


def is_kind(name: str) -> bool:
    """Whether `name` is a usage kind: one of `KINDS`, or `fee:` and a lower-case name."""
    return name in _KNOWN or _FEE.fullmatch(name) is not None


def unit_of(kind: str) -> str:
    """The unit in which a kind is counted: token, millisecond, character, image, request, search, page, token-hour;
    `call` for a fee."""
    return "token" if kind in TOKEN_KINDS else OTHER_UNITS.get(kind, "call")


def units_of(kind: str) -> str:
    """The unit of a kind in the plural: tokens, searches."""
    unit = unit_of(kind)
    return f"{unit}es" if unit.endswith("ch") else f"{unit}s"


class Usage(Mapping[str, int]):
    """Immutable counts per kind. Kinds never overlap, so a cost is a dot product of usage and rates.

    A kind that is missing reads as 0 with `get(kind, 0)`; zero counts are not kept. Unknown usage is `None`, never
    an empty `Usage`. Counts are whole, from 0 to 2**53 - 1. Raises UsageError for anything else.
    """

    __slots__ = ("_counts",)
    _counts: dict[str, int]

    def __init__(self, counts: Mapping[str, int] | None = None, /, **kinds: int) -> None:
        if counts is not None and not isinstance(counts, Mapping):
            raise UsageError(f"Usage takes a mapping of counts by kind, not {type(counts).__name__}.")
        merged = {**(counts or {}), **kinds}
        for kind, count in merged.items():
            if not isinstance(kind, str) or not is_kind(kind):
                raise UsageError(
                    f"{kind!r} is not a kind of usage.", todo=f"Kinds are: {', '.join(KINDS)} and fee:<name>."
                )
            if type(count) is not int:
                raise UsageError(f"The count of {kind} must be a whole number, not {count!r}.")
            if not 0 <= count < MAX_COUNT:
                raise UsageError(f"The count of {kind} is {count}; counts run from 0 to 2**53 - 1.")
        self._counts = {kind: merged[kind] for kind in sorted(merged, key=_position) if merged[kind]}

    @staticmethod
    def trusted(counts: dict[str, int]) -> Usage:
        """Wraps counts that a reader has already checked and ordered; takes ownership of the dict."""
        self: Usage = _new(Usage)
        self._counts = counts
        return self

    def __getitem__(self, kind: str) -> int:
        return self._counts[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    # Mapping's own goes through __getitem__ for every kind, and pricing reads this for every call.
    def items(self) -> ItemsView[str, int]:
        """The kinds with their counts, in the order in which they are shown."""
        return self._counts.items()

    def __eq__(self, other: object) -> bool:
        return self._counts == other._counts if isinstance(other, Usage) else NotImplemented

    def __hash__(self) -> int:
        return hash(frozenset(self._counts.items()))

    def __repr__(self) -> str:
        return f"Usage({', '.join(f'{kind!r}: {count}' for kind, count in self._counts.items())})"

    def __add__(self, other: Usage) -> Usage:
        """The usage of both together."""
        if not isinstance(other, Usage):
            return NotImplemented
        return Usage({kind: self.get(kind, 0) + other.get(kind, 0) for kind in {*self, *other}})

    @property
    def input_tokens(self) -> int:
        """All tokens of the prompt, cached or not, of every modality."""
        counts = self._counts
        return sum([counts[kind] for kind in counts if kind in _INPUT])

    @property
    def output_tokens(self) -> int:
        """All generated tokens, reasoning included."""
        counts = self._counts
        return sum([counts[kind] for kind in counts if kind in _OUTPUT])

    @property
    def tokens(self) -> int:
        """All tokens, in and out."""
        return self.input_tokens + self.output_tokens


_INPUT = frozenset(INPUT_KINDS)
_OUTPUT = frozenset(OUTPUT_KINDS)


def _position(kind: str) -> tuple[int, str]:
    return _ORDER.get(kind, len(_ORDER)), kind
