"""Nearest: the known names that look most like an unknown one."""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Mapping
from typing import Final

_SHORTLIST: Final = 60
_PER_RANK: Final = 0.01
_RANKS: Final = 16


def nearest(word: str, names: Mapping[str, tuple[int, str]], count: int) -> tuple[str, ...]:
    """The `count` names nearest to `word`, best first, one for each model. `names` gives each known name its rank (0 is
    asked first) and its model; a better rank makes up for a little less likeness."""
    asked = _pairs(word)
    if not asked:
        return ()

    def shared(name: str) -> float:
        pairs = _pairs(name)
        return 2 * len(asked & pairs) / (len(asked) + len(pairs)) - _PER_RANK * min(names[name][0], _RANKS)

    # Comparing letter by letter is slow, so only names that share pairs of letters are compared.
    matcher = difflib.SequenceMatcher(autojunk=False)
    matcher.set_seq2(word)
    scored = []
    for name in heapq.nlargest(_SHORTLIST, names, key=shared):
        matcher.set_seq1(name)
        rank = names[name][0]
        scored.append((-matcher.ratio() + _PER_RANK * min(rank, _RANKS), rank, len(name), name))
    found: dict[str, str] = {}
    for *_, name in sorted(scored):
        found.setdefault(names[name][1], name)
    return tuple(found.values())[:count]


def _pairs(text: str) -> set[str]:
    padded = f" {text} "
    return {padded[at : at + 2] for at in range(len(padded) - 1)} if text else set()
