"""Pending: what the latest batches add to the rollups and to the index of responses.

Rollup rows and response ids lie scattered over the file, and to change one of either costs as much as to add an entry.
So a batch writes what it adds as one compact row, in its own transaction; once some thousands of calls are pending they
are folded in together, in the transaction of the batch that made them so many. Who reads a sum adds what is pending.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Final

import msgspec

from tallystick.errors import LedgerCorrupt
from tallystick.ledger.rows import Move
from tallystick.ledger.sql import queries

FOLD_CALLS: Final = 4096
"""When so many calls are pending they are folded in."""

_ENCODE: Final = msgspec.msgpack.Encoder().encode
_SIZES: Final = (1, 8, 64, 256)
_FIND: Final = {size: f"SELECT count(*) FROM response WHERE hash IN ({', '.join('?' * size)})" for size in _SIZES}  # noqa: S608


class Batch(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one batch adds; `keys` are hashes of responses, each followed by the seq of its entry."""

    moves: list[Move]
    keys: list[int]


_DECODE: Final = msgspec.msgpack.Decoder(Batch).decode


class Pending:
    """What is pending, as known to one connection that writes. Only for use within a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._sql = queries()
        self._first: int | None = None
        self._last: int | None = None
        self._seqs: dict[int, tuple[int, ...]] = {}
        self.calls = 0

    def begun(self, first: int | None, last: int | None) -> None:
        """A transaction has begun, with batches `first` to `last` pending; other processes may have changed them."""
        if first != self._first:
            self.forget()
        if last is not None and last != self._last:
            for batch, added in batches(self._connection, -1 if self._last is None else self._last):
                self._learn(batch, len(added.moves), added.keys)

    def forget(self) -> None:
        """Forgets what is known, as it may be wrong."""
        self._first = self._last = None
        self._seqs = {}
        self.calls = 0

    def known(self, hashes: Sequence[int]) -> bool:
        """Whether any of these hashes of responses has been seen."""
        seqs = self._seqs
        if any(map(seqs.__contains__, hashes)):
            return True
        done = 0
        while done < len(hashes):
            left = len(hashes) - done
            size = next((size for size in _SIZES if size >= left), _SIZES[-1])
            part = list(hashes[done : done + size])
            part += part[-1:] * (size - len(part))
            if self._connection.execute(_FIND[size], part).fetchone()[0]:
                return True
            done += size
        return False

    def seqs(self, key: int) -> list[int]:
        """The entries whose response has this hash."""
        found = [row[0] for row in self._connection.execute(self._sql["responses"], (key,))]
        return found + list(self._seqs.get(key, ()))

    def write(self, batch: int, moves: Sequence[Move], keys: Sequence[int]) -> None:
        """Makes what a batch adds pending."""
        self._connection.execute(self._sql["add_pending"], (batch, _ENCODE((moves, keys))))
        self._learn(batch, len(moves), keys)

    def take(self) -> Iterator[Batch]:
        """Gives back what is pending, which is then pending no more."""
        for _, added in batches(self._connection):
            yield added
        self._connection.execute(self._sql["drop_pending"])
        self.forget()

    def _learn(self, batch: int, calls: int, keys: Sequence[int]) -> None:
        if self._first is None:
            self._first = batch
        self._last = batch
        self.calls += calls
        seqs = self._seqs
        pairs = iter(keys)
        for key, seq in zip(pairs, pairs, strict=True):
            seqs[key] = (*seqs[key], seq) if key in seqs else (seq,)


def batches(connection: sqlite3.Connection, after: int = -1) -> Iterator[tuple[int, Batch]]:
    """The pending batches after a number, in their order. Raises LedgerCorrupt."""
    for batch, body in connection.execute(queries()["pending_after"], (after,)).fetchall():
        try:
            yield batch, _DECODE(body)
        except msgspec.DecodeError as error:
            raise LedgerCorrupt(
                f"The ledger is damaged: what batch {batch} adds to its sums cannot be read: {error}.",
                money="Its totals cannot be trusted.",
                todo="Restore it from a backup.",
            ) from None


def response_hash(key: str) -> int:
    """48 bits that find a response by its key; equal ones are told apart by the entries."""
    return int.from_bytes(blake2b(key.encode(), digest_size=6).digest(), "big")
