"""Blocks: the five-hour stretches in which coding agents bill a subscription.

A block starts at the full hour (UTC) of the first call after the previous block's end and lasts five hours. So which
block a call belongs to follows from the hours that have calls, and those a ledger knows without reading its entries.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from tallystick.core.periods import Period
from tallystick.core.usage import Usage
from tallystick.ledger.query import Total

if TYPE_CHECKING:
    from tallystick.ledger.ledger import Ledger
    from tallystick.ledger.query import Query

LENGTH: Final = timedelta(hours=5)
"""How long a block lasts."""

HOUR: Final = Period("hour", "UTC")
_ONE: Final = timedelta(hours=1)
_LOOK_BACK: Final = (timedelta(days=1), timedelta(days=7), timedelta(days=30))
_ADDED: Final = ("calls", "refused", "cost", "not_owed", "unpriced", "estimated", "lower_bound", "unknown")


def block_starts(hours: Iterable[datetime]) -> list[datetime]:
    """The starts of the blocks, given the hours that have calls, each by its first instant, in order."""
    starts: list[datetime] = []
    for hour in hours:
        if not starts or hour >= starts[-1] + LENGTH:
            starts.append(hour)
    return starts


def block_of(starts: Sequence[datetime], instant: datetime) -> datetime | None:
    """The start of the block that an instant lies in; None between blocks. `starts` are in order."""
    place = bisect_right(starts, instant) - 1
    return starts[place] if place >= 0 and instant < starts[place] + LENGTH else None


def blocks_in(ledger: Ledger, query: Query) -> list[datetime]:
    """The starts of the blocks that hold calls of the query. Where blocks begin depends on earlier calls, so the hours
    before `since` are looked at too, back to a silence that surely ended a block. Raises LedgerError."""
    if query.since is None:
        return block_starts(_hours(ledger, query))
    since = query.since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    for back in _LOOK_BACK:
        try:
            first = since - back
        except OverflowError:
            break
        hours = _hours(ledger, msgspec.structs.replace(query, since=first))
        asked = next((hour for hour in hours if hour >= since), None)
        if asked is None:
            return []
        anchor = sure_start(first, hours)
        if anchor is not None and hours[anchor] <= asked:
            return block_starts(hours[anchor:])
    return block_starts(_hours(ledger, msgspec.structs.replace(query, since=None)))


def totals_by_block(ledger: Ledger, query: Query, by: Sequence[str] = ()) -> list[Total]:
    """Sums over the calls that fit, by block and by the given names. `start` and `end` are the block's own, even where
    `since` or `until` cut it. Raises InputError for a grouping that makes no sense, LedgerError."""
    starts = blocks_in(ledger, query)
    found: dict[tuple[datetime, tuple[str | None, ...]], Total] = {}
    for total in ledger.total(query, tuple(by), HOUR):
        start = block_of(starts, total.start) if total.start is not None else None
        assert start is not None
        key = start, tuple(total.group.values())
        found[key] = added(found[key], total) if key in found else total
    return [
        msgspec.structs.replace(found[key], start=key[0], end=key[0] + LENGTH)
        for key in sorted(found, key=lambda key: (key[0], [(value is None, value or "") for value in key[1]]))
    ]


def added(one: Total, other: Total, times: int = 1) -> Total:
    """The sum of two groups of calls, under the group of the first; with `times` -1 the second is taken away."""
    fields = {name: getattr(one, name) + getattr(other, name) * times for name in _ADDED}
    kinds = {kind: one.usage.get(kind, 0) + other.usage.get(kind, 0) * times for kind in {*one.usage, *other.usage}}
    usage = Usage.trusted({kind: kinds[kind] for kind in Usage(dict.fromkeys(kinds, 1)) if kinds[kind]})
    return msgspec.structs.replace(one, usage=usage, **fields)


def _hours(ledger: Ledger, query: Query) -> list[datetime]:
    return [total.start for total in ledger.total(query, (), HOUR) if total.start is not None]


def sure_start(first: datetime, hours: Sequence[datetime]) -> int | None:
    """The place of the first hour that surely starts a block, as nothing happened in the four hours before it; None
    where there is no such hour since `first`, before which nothing is known."""
    silent = first
    for place, hour in enumerate(hours):
        if hour - silent >= LENGTH - _ONE:
            return place
        silent = hour + _ONE
    return None
