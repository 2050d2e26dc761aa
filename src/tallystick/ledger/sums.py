"""Sums: what a call adds to any total, as one integer.

A total has some seventeen counters, and a call adds to a dozen totals. Adding seventeen numbers a dozen times per call
would cost more than writing the call. So the counters sit side by side in one Python integer, 64 bits each: one
addition then adds them all, and `unpack` takes them apart when a row is written.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from tallystick.core.usage import KINDS
from tallystick.errors import InputError
from tallystick.ledger.entry import Entry

MAIN_KINDS: Final = ("input", "cache_read", "cache_write", "cache_write_5m", "cache_write_1h", "output", "reasoning")
"""The kinds that have columns of their own; the others are rare and kept in side tables."""

FIELDS: Final = (
    "calls", "refused", "unpriced", "estimated", "lower_bound", "unknown",
    "owed_micro", "owed_pico", "free_micro", "free_pico",
    *MAIN_KINDS,
)  # fmt: skip
"""The counters, in the order of the columns. Money is two limbs, since 64 bits of 1e-12 USD end at $9.2M: whole
1e-6 USD, and 1e-12 USD below that. `owed` is what somebody is billed for, `free` what a subscription covers."""

LIMB: Final = 1_000_000
MAX_MICRO: Final = 2**53
"""One call costs less than this many 1e-6 USD, about $9 billion."""

MAX_CALLS: Final = 1000
"""So many calls can be added up before a counter of 64 bits could overflow, as one call adds less than 2**53."""

_BITS: Final = 64
_SHIFT: Final = {name: position * _BITS for position, name in enumerate(FIELDS)}
_KIND: Final = {kind: _SHIFT[kind] for kind in MAIN_KINDS}
_BYTES: Final = len(FIELDS) * 8
_UNSIGNED: Final = struct.Struct(f"<{len(FIELDS)}Q").unpack
_HALF: Final = 1 << (_BITS - 1)
_BIAS: Final = sum(_HALF << shift for shift in _SHIFT.values())
_ONE_CALL: Final = 1 << _SHIFT["calls"]
_UNPRICED: Final = 1 << _SHIFT["unpriced"]
_REFUSED: Final = 1 << _SHIFT["refused"]
_QUALITY: Final = {"exact": 0, **{name: 1 << _SHIFT[name] for name in ("estimated", "lower_bound", "unknown")}}
_OWED: Final = (_SHIFT["owed_micro"], _SHIFT["owed_pico"])
_FREE: Final = (_SHIFT["free_micro"], _SHIFT["free_pico"])
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


def weigh(entry: Entry, counts: dict[str, int], pico: int, unpriced: bool) -> int:
    """All counters of one call in one integer. `counts` is its usage, `pico` and `unpriced` come from `spent`. Kinds
    outside `MAIN_KINDS` are left to the caller."""
    total = _ONE_CALL
    for kind, count in counts.items():
        shift = _KIND.get(kind)
        if shift is not None:
            total += count << shift
    if pico:
        micro, rest = divmod(pico, LIMB)
        high, low = _OWED if entry.owed else _FREE
        total += (micro << high) + (rest << low)
    if entry.status == "refused":
        return total + _REFUSED
    if unpriced:
        total += _UNPRICED
    return total + _QUALITY[entry.quality]


def rare(counts: dict[str, int]) -> dict[str, int]:
    """The part of a usage that has no column of its own."""
    return {kind: count for kind, count in counts.items() if kind not in _KIND}


def pack(fields: Sequence[int]) -> int:
    """The integer of counters given in the order of FIELDS."""
    return sum([count << shift for count, shift in zip(fields, _SHIFT.values(), strict=True) if count])


def unpack(total: int) -> tuple[int, ...]:
    """The counters, in the order of FIELDS; each may be negative."""
    # A negative counter borrows from its neighbour; with half the range added to each, none is negative.
    biased = _UNSIGNED((total + _BIAS).to_bytes(_BYTES, "little"))
    return tuple([count - _HALF for count in biased])


def unpack_positive(total: int) -> tuple[int, ...]:
    """The counters where none is negative: three times as fast as `unpack`."""
    return _UNSIGNED(total.to_bytes(_BYTES, "little"))


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
