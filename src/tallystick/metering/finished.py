"""Finished: what is to be written of a call that has ended, as the few bytes in which its slot keeps it until the
ledger has it.

The slot outlives a killed process, so a call that lies there is as safe as one that is written.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import msgspec

from tallystick.core.attribution import Tags
from tallystick.core.money import Money
from tallystick.core.usage import Usage
from tallystick.errors import LedgerCorrupt, TallyError
from tallystick.ledger.entry import Entry
from tallystick.ledger.hold import Settlement
from tallystick.metering.leave import Who

_EMPTY: Final[dict[str, str]] = {}


class Finished(msgspec.Struct, frozen=True, array_like=True):
    """A call's entry, and what it takes from accounts (None: no budget concerns it)."""

    entry: Entry
    settlement: Settlement | None = None


class Noted(msgspec.Struct, frozen=True, array_like=True):
    """What is said of a call in flight beside its words: whose it is, and where it was seen."""

    source: str = "client"
    tags: Tags = Tags()
    parent_run: str | None = None
    step: str | None = None


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind is Usage:
        return dict(value.items())
    if kind is Tags:
        return dict(value) if value else _EMPTY
    if kind is Money:
        return value.pico
    raise TypeError(type(value).__name__)


def _made(kind: type, value: Any) -> Any:
    return kind(value)


_encode: Final = msgspec.msgpack.Encoder(enc_hook=_plain).encode

_decode: Final = msgspec.msgpack.Decoder(Finished, dec_hook=_made).decode
_decode_note: Final = msgspec.msgpack.Decoder(Noted, dec_hook=_made).decode


def pack(finished: Finished) -> bytes | None:
    """The bytes of a finished call; None where a figure is larger than they can hold."""
    try:
        return _encode(finished)
    except OverflowError:
        return None


def pack_note(source: str, who: Who) -> bytes:
    """The bytes of what is said of a call in flight; none where there is nothing to say."""
    if who.tags or who.parent_run or who.step:
        return _encode(Noted(source, who.tags, who.parent_run, who.step))
    return b"" if source == "client" else _pack_source(source)


@lru_cache(maxsize=8)
def _pack_source(source: str) -> bytes:
    return _encode(Noted(source))


def unpack_note(note: bytes | None) -> Noted:
    """What these bytes say. Where they cannot be read (the process was killed while it wrote them) they say nothing."""
    try:
        return _decode_note(note) if note else Noted()
    except (msgspec.DecodeError, TallyError, ValueError, TypeError):
        return Noted()


def unpack(record: bytes) -> Finished:
    """The finished call of these bytes. Raises LedgerCorrupt."""
    try:
        return _decode(record)
    except (msgspec.DecodeError, TallyError, ValueError, TypeError) as error:
        raise LedgerCorrupt(
            f"The entry of a finished call cannot be read: {error}.", money="It is in no total.", todo="Report this."
        ) from None
