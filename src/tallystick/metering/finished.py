"""Finished: an entry as the few bytes in which a call's slot keeps it until the ledger has it.

The slot outlives a killed process, so a call whose entry lies there is as safe as one that is written.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tallystick.core.attribution import Tags
from tallystick.core.money import Money
from tallystick.core.usage import Usage
from tallystick.errors import LedgerCorrupt, TallyError
from tallystick.ledger.entry import Entry

_EMPTY: Final[dict[str, str]] = {}


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


pack: Final = msgspec.msgpack.Encoder(enc_hook=_plain).encode
"""The bytes of an entry."""

_decode: Final = msgspec.msgpack.Decoder(Entry, dec_hook=_made).decode


def unpack(record: bytes) -> Entry:
    """The entry of these bytes. Raises LedgerCorrupt."""
    try:
        return _decode(record)
    except (msgspec.DecodeError, TallyError, ValueError, TypeError) as error:
        raise LedgerCorrupt(
            f"The entry of a finished call cannot be read: {error}.", money="It is in no total.", todo="Report this."
        ) from None
