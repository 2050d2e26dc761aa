"""Sums: what a call adds to any total, as one integer.

A total has some seventeen counters, and a call adds to a dozen totals. Adding seventeen numbers a dozen times per call
would cost more than writing the call. So the counters sit side by side in one Python integer, 64 bits each: one
addition then adds them all, and `unpack` takes them apart when a row is written.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import itemgetter, or_
from typing import Final

from tallystick.core.usage import KINDS
from tallystick.errors import InputError
from tallystick.ledger.entry import QUALITIES, STATUSES, Entry

MAIN_KINDS: Final = ("input", "cache_read", "cache_write", "cache_write_5m", "cache_write_1h", "output", "reasoning")
"""The kinds that have columns of their own; the others are rare and kept in side tables."""

FIELDS: Final = (
    "calls", "owed_micro", "owed_pico", "input", "output", "cache_read", "reasoning",
    "cache_write", "cache_write_5m", "cache_write_1h", "free_micro", "free_pico",
    "refused", "unpriced", "estimated", "lower_bound", "unknown",
)  # fmt: skip
"""The counters, those first that are seldom zero, so that most sums are short. Money is two limbs, since 64 bits of
1e-12 USD end at $9.2M: whole 1e-6 USD, and 1e-12 USD below that. `owed` is what somebody is billed for, `free` what a
subscription covers."""

LIMB: Final = 1_000_000
MAX_MICRO: Final = 2**53
"""One call costs less than this many 1e-6 USD, about $9 billion."""

MAX_CALLS: Final = 1000
"""So many calls can be added up before a counter of 64 bits could overflow, as one call adds less than 2**53."""

MAX_LIGHT_CALLS: Final = 100_000
"""So many calls that are not `heavy` can be added up."""

HEAVY: Final = 2**40
"""A call with a count or a cost in 1e-6 USD from here on is heavy: its sums are written at once, so that it is refused
itself where one would overflow."""

QUALITY_CODE: Final = {name: code for code, name in enumerate(QUALITIES)}
STATUS_CODE: Final = {name: code for code, name in enumerate(STATUSES)}

Standing = tuple[int, ...]
"""The call as it stands, for sums: codes of status and quality, owed, unpriced, the limbs of the cost, MAIN_KINDS."""

_BITS: Final = 64
_SHIFT: Final = {name: position * _BITS for position, name in enumerate(FIELDS)}
_KIND: Final = frozenset(MAIN_KINDS)
_BYTES: Final = len(FIELDS) * 8
_UNSIGNED: Final = struct.Struct(f"<{len(FIELDS)}Q").unpack
_EACH: Final = struct.Struct(f"<{len(FIELDS)}Q").iter_unpack
_COUNTS: Final = struct.Struct(f"<{4 + len(MAIN_KINDS)}Q").pack
_COUNTS_SHIFT: Final = _SHIFT["owed_micro"]
_HALF: Final = 1 << (_BITS - 1)
_CALLS: Final = (1 << _BITS) - 1
_BIAS: Final = sum(_HALF << shift for shift in _SHIFT.values())
_QUARTER: Final = _BIAS >> 1
_REFUSED: Final = STATUS_CODE["refused"]
_REFUSED_CALL: Final = (1 << _SHIFT["calls"]) + (1 << _SHIFT["refused"])
_UNPRICED: Final = 1 << _SHIFT["unpriced"]
_CALL: Final = tuple([(1 << _SHIFT["calls"]) + (0 if name == "exact" else 1 << _SHIFT[name]) for name in QUALITIES])
_OWED_MICRO: Final = _SHIFT["owed_micro"]
_FREE_MICRO: Final = _SHIFT["free_micro"]
_USUAL: Final = 2**60
_MAX_LAYOUTS: Final = 4096
_POSITION: Final = {kind: position for position, kind in enumerate(KINDS)}


def spent(entry: Entry) -> tuple[int, bool]:
    """What a call adds to the money, in 1e-12 USD, and whether any of it is unpriced. A call with an unpriced line
    adds what is known of it. A refused call was never sent and costs nothing."""
    cost = entry.cost
    if cost is None:
        return 0, entry.status != "refused"
    pico = cost.pico
    if pico is None:
        return cost.known.pico, entry.status != "refused"
    return pico, False


def stand(entry: Entry, kinds: tuple[str, ...], values: tuple[int, ...]) -> Standing:
    """What a call adds to sums; `kinds` and `values` are its usage."""
    cost = entry.cost
    pico, unpriced = (cost.pico, False) if cost is not None and cost.pico is not None else spent(entry)
    micro, rest = divmod(pico, LIMB) if 0 <= pico < _USUAL else limbs(pico)
    return (
        STATUS_CODE[entry.status], QUALITY_CODE[entry.quality], 1 if entry.owed else 0, 1 if unpriced else 0,
        micro, rest, *_LAYOUTS[kinds][1]((*values, 0)),
    )  # fmt: skip


class _Layouts(dict[tuple[str, ...], tuple[bool, Callable[[tuple[int, ...]], tuple[int, ...]]]]):
    """For the kinds of a usage: whether all have columns of their own, and what picks the columns of MAIN_KINDS from
    its counts with a zero behind. Every call comes here, and a dictionary is the fastest to ask."""

    def __missing__(self, kinds: tuple[str, ...]) -> tuple[bool, Callable[[tuple[int, ...]], tuple[int, ...]]]:
        if len(self) >= _MAX_LAYOUTS:
            self.clear()
        columns = itemgetter(*[kinds.index(kind) if kind in kinds else -1 for kind in MAIN_KINDS])
        found = self[kinds] = _KIND.issuperset(kinds), columns
        return found


_LAYOUTS: Final = _Layouts()


def all_main(kinds: tuple[str, ...]) -> bool:
    """Whether all kinds of a usage have columns of their own."""
    return _LAYOUTS[kinds][0]


def heavy(standing: Standing) -> bool:
    """Whether a few thousand calls like this could overflow a sum."""
    return max(standing) >= HEAVY or standing[4] <= -HEAVY


def weigh(standing: Standing, figures: tuple[int, ...] | None = None, count: int = 1) -> int:
    """All counters of one call in one integer; or of `count` calls that are alike but for the cost and MAIN_KINDS,
    whose sums are `figures`. Other kinds are left to the caller."""
    status, quality, owed, unpriced = standing[:4]
    micro, rest, inward, read, write, write_5m, write_1h, out, thought = standing[4:] if figures is None else figures
    total = _REFUSED_CALL if status == _REFUSED else _CALL[quality]
    if unpriced:
        total += _UNPRICED
    total *= count
    if micro < 0:
        # Only a correction or a credit is below nothing; it borrows from its neighbour, see `unpack`.
        total += micro << (_OWED_MICRO if owed else _FREE_MICRO)
        micro = 0
    money, covered = ((micro, rest), (0, 0)) if owed else ((0, 0), (micro, rest))
    counts = _COUNTS(*money, inward, out, read, thought, write, write_5m, write_1h, *covered)
    return total + (int.from_bytes(counts, "little") << _COUNTS_SHIFT)


def added(one: int, other: int) -> int | None:
    """The sum of packed counters; None where one of them would leave 64 bits."""
    if (one + _QUARTER | other + _QUARTER) & _BIAS:
        # Some counter is beyond half of what it may be.
        counts = [left + right for left, right in zip(unpack(one), unpack(other), strict=True)]
        if not all(-_HALF <= count < _HALF for count in counts):
            return None
    return one + other


def calls_in(total: int) -> int:
    """The first counter, which is never negative."""
    return total & _CALLS


def rare(counts: Mapping[str, int]) -> dict[str, int]:
    """The part of a usage that has no column of its own."""
    return {kind: count for kind, count in counts.items() if kind not in _KIND}


def pack(fields: Sequence[int]) -> int:
    """The integer of counters given in the order of FIELDS."""
    return sum([count << shift for count, shift in zip(fields, _SHIFT.values(), strict=True) if count])


def unpack(total: int) -> tuple[int, ...]:
    """The counters, in the order of FIELDS; each may be negative."""
    if not total & _BIAS:
        return _UNSIGNED(total.to_bytes(_BYTES, "little"))
    # A negative counter borrows from its neighbour; with half the range added to each, none is negative.
    biased = _UNSIGNED((total + _BIAS).to_bytes(_BYTES, "little"))
    return tuple([count - _HALF for count in biased])


def unpack_all(totals: Sequence[int]) -> list[tuple[int, ...]]:
    """The counters of many totals, as `unpack` gives them."""
    if reduce(or_, totals, 0) & _BIAS:
        return [unpack(total) for total in totals]
    return list(_EACH(b"".join([total.to_bytes(_BYTES, "little") for total in totals])))


def limbs(pico: int) -> tuple[int, int]:
    """An amount in whole 1e-6 USD and the rest in 1e-12 USD. Raises InputError above some $9 billion."""
    micro, rest = divmod(pico, LIMB)
    if not -MAX_MICRO < micro < MAX_MICRO:
        raise InputError(
            "The cost of one call is above nine billion dollars.",
            money="It was not entered.",
            todo="Check its usage and its rates.",
        )
    return micro, rest


def kind_order(kind: str) -> tuple[int, str]:
    """Sorts kinds in the order in which they are shown."""
    return _POSITION.get(kind, len(_POSITION)), kind
