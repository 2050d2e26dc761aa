"""Progress: telling somebody who waits how far a long reading is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tallystick.ledger.entry import Entry
    from tallystick.ledger.query import Query

Progress = Callable[[float | None], None]
"""Is told now and then how much of a long reading is done, from 0 to 1 (None: unknown). Whatever it raises ends the
reading."""

_EVERY: Final = 500
_SLICES: Final = 50


def stretches(first: int, last: int, progress: Progress) -> Iterator[tuple[int, int]]:
    """Cuts the time between two instants into stretches, each from its first to before its last, and tells how many are
    done."""
    edges = [first + (last - first) * number // _SLICES for number in range(_SLICES + 1)]
    for number, bounds in enumerate(pairwise(edges), 1):
        if bounds[0] < bounds[1]:
            yield bounds
            progress(number / _SLICES)


def watched(found: Iterator[Entry], query: Query, progress: Progress | None) -> Iterator[Entry]:
    """The entries, in the order of time, telling how far they are."""
    for number, entry in enumerate(found):
        if progress is not None and number % _EVERY == 0:
            since, until = query.since, query.until
            whole = None if since is None or until is None else until - since
            progress(None if since is None or not whole else (entry.started_at - since) / whole)
        yield entry
