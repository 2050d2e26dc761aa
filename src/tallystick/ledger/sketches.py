"""Sketch: how many calls lie in which narrow stretch of a measure, so that percentiles need no sorting of calls.

A stretch is one of 32 equal parts of the numbers between two powers of two, numbered by a code; numbers below 64 have a
code each. Two sketches are merged by adding their counts, and a call is taken out by the code it was put in with. A
percentile is the middle of the stretch that holds it: at most 1 part in 65 (1.6 %) from the figure of an actual call.
"""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from fractions import Fraction
from typing import Final, Generic, TypeVar

import msgspec

from tallystick.core.money import Money

MEASURES: Final = ("cost", "latency", "ttft")
"""What is spread over calls: the cost in 1e-12 USD of calls whose cost is known, whether owed or covered by a
subscription; latency and time to first token in microseconds, where they were measured. Refused calls have none."""

ERROR: Final = Fraction(1, 65)
"""A percentile is at most this share of itself off the figure of an actual call."""

SHARES: Final = (50, 90, 95, 99)

_EXACT: Final = 64
_PART_BITS: Final = 5
_TOP_BITS: Final = 6
_LISTED: Final = 512
_HEAD: Final = 3
_WIDTHS: Final = {2: "H", 4: "I", 8: "Q"}

Number = TypeVar("Number")


def codes(values: Iterable[int]) -> list[int]:
    """The code of each value; nothing is below 0."""
    return [
        max(value, 0) if value < _EXACT else ((size := value.bit_length() - _TOP_BITS) << _PART_BITS) + (value >> size)
        for value in values
    ]


def value_of(code: int) -> int:
    """The middle of a stretch, from which no value in it is further than ERROR of itself."""
    if code < _EXACT:
        return code
    size = (code >> _PART_BITS) - 1
    low = code - (size << _PART_BITS) << size
    high = low + (1 << size)
    return 2 * low * high // (low + high)


def at(counts: Mapping[int, int], shares: Sequence[int] = SHARES) -> list[int]:
    """The values that so many percent of the calls do not exceed (nearest rank); `counts` are calls by code, and not
    empty."""
    whole = sum(counts.values())
    ranks = [-(-whole * share // 100) for share in shares]
    found: list[int] = []
    seen = 0
    for code in sorted(counts):
        seen += counts[code]
        while len(found) < len(ranks) and seen >= ranks[len(found)]:
            found.append(value_of(code))
    return found


class Percentiles(msgspec.Struct, Generic[Number], frozen=True):
    """What half, 90, 95 and 99 % of `calls` calls do not exceed, each within ERROR."""

    calls: int
    p50: Number
    p90: Number
    p95: Number
    p99: Number


class Spread(msgspec.Struct, frozen=True):
    """How cost and time are spread over one group of calls; None where there is nothing to tell.

    `group`, `start` and `end` are those of a Total. `cost` is of calls whose cost is known, owed or not; `latency_us`
    and `ttft_us` of those it was measured for.
    """

    group: dict[str, str | None]
    start: datetime | None = None
    end: datetime | None = None
    cost: Percentiles[Money] | None = None
    latency_us: Percentiles[int] | None = None
    ttft_us: Percentiles[int] | None = None


def spread_of(
    group: dict[str, str | None], bounds: tuple[datetime | None, datetime | None], counts: Sequence[Mapping[int, int]]
) -> Spread:
    """The percentiles of one group, from its calls by code for each of MEASURES."""
    cost, latency, ttft = [(sum(one.values()), at(one)) if one else None for one in counts]
    money = None if cost is None else Percentiles(cost[0], *map(Money, cost[1]))
    times = [None if one is None else Percentiles(one[0], *one[1]) for one in (latency, ttft)]
    return Spread(group, *bounds, money, *times)


def added(body: bytes, more: Sequence[int], less: Sequence[int] = ()) -> bytes:
    """A written sketch with the codes `more` put in and `less` taken out. What is not in it cannot be taken out."""
    listed = not len(body) & 1
    if listed and not less and len(body) // 2 + len(more) <= _LISTED:
        return body + _listed(more)
    counts = counted([body])
    counts.update(more)
    for code in less:
        if counts[code] > 0:
            counts[code] -= 1
    counts = +counts
    if counts.total() <= _LISTED:
        return _listed(sorted(counts.elements()))
    return _dense(counts)


def counted(bodies: Iterable[bytes]) -> Counter[int]:
    """The calls by code in some written sketches."""
    found: Counter[int] = Counter()
    lists = []
    for body in bodies:
        if len(body) & 1:
            first = int.from_bytes(body[:2], "little")
            lanes = _array(_WIDTHS[body[2]], body[_HEAD:])
            for code, count in enumerate(lanes, first):
                if count:
                    found[code] += count
        else:
            lists.append(body)
    found.update(_array("H", b"".join(lists)))
    return found


def _listed(codes_: Sequence[int]) -> bytes:
    """Few calls: their codes, two bytes each."""
    return _bytes(array("H", codes_))


def _dense(counts: Mapping[int, int]) -> bytes:
    """Many calls: the first code, the width of a count, and the counts from there on. An odd number of bytes."""
    first, last, most = min(counts), max(counts), max(counts.values())
    width = next(width for width in _WIDTHS if most < 1 << 8 * width)
    lanes = array(_WIDTHS[width], bytes(width * (last - first + 1)))
    for code, count in counts.items():
        lanes[code - first] = count
    return first.to_bytes(2, "little") + bytes([width]) + _bytes(lanes)


def _array(kind: str, body: bytes) -> array[int]:
    found = array(kind, body)
    if sys.byteorder == "big":
        found.byteswap()
    return found


def _bytes(lanes: array[int]) -> bytes:
    if sys.byteorder == "big":
        lanes.byteswap()
    return lanes.tobytes()
