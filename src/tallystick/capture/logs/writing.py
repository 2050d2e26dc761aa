"""Writing: calls into the ledger, in batches, in such a way that doing it again changes nothing.

An id is made from the call itself, so a call that was entered before is met again under its own name. Nobody needs to
know beforehand what is there: where a batch is refused, what stands is looked up, call by call. A fuller usage becomes
a correction; what is no fuller is left alone, whatever its price has become since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from datetime import datetime
from itertools import islice
from typing import Final

from tallystick.capture.logs.entries import correction_id
from tallystick.capture.logs.outcome import Written
from tallystick.errors import ConflictError
from tallystick.ledger.entry import Correction, Entry
from tallystick.ledger.ledger import Item, Ledger, Receipt
from tallystick.ledger.query import Query

BATCH: Final = 8192
"""Large enough that the ledger brings each batch into its sums at once, without keeping it as pending in between."""

REASON: Final = "a later line of the log gives a fuller usage of the same response"


def write(
    entries: Iterable[Entry], ledger: Ledger, now: datetime, told: Callable[[int], None] = lambda _count: None
) -> Written:
    """Enters calls. `told` hears how many were dealt with, batch by batch. Raises LedgerError; what was entered until
    then stays, and a second attempt goes on from there."""
    written = Written()
    for batch in _batches(entries):
        # To make the next one meanwhile would gain nothing: two threads of Python wait for each other.
        _finish(batch, ledger.submit(batch), ledger, now, written)
        told(len(batch))
    return written


def _batches(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    source = iter(entries)
    while batch := list(islice(source, BATCH)):
        yield batch


def _finish(batch: list[Entry], future: Future[Receipt], ledger: Ledger, now: datetime, written: Written) -> None:
    try:
        _count(future.result(), written)
    except ConflictError:
        _one_by_one(batch, ledger, now, written)


def _count(receipt: Receipt, written: Written) -> None:
    written.new += receipt.written
    written.known += receipt.known
    written.joined += len(receipt.joined)


def _one_by_one(batch: list[Entry], ledger: Ledger, now: datetime, written: Written) -> None:
    new: list[Item] = []
    corrections: list[Item] = []
    for entry in batch:
        standing = next(ledger.read(Query(call_id=entry.call_id)), None)
        if standing is None:
            new.append(entry)
        elif _fuller(entry, standing):
            corrections.append(_correction(entry, now))
        else:
            written.known += 1
    if corrections:
        written.corrected += ledger.append(corrections).written
    try:
        _count(ledger.append(new), written)
    except ConflictError:
        # Calls that were joined into another source's are not read back, and that source knows best.
        for item in new:
            _enter_if_free(item, ledger, written)


def _enter_if_free(item: Item, ledger: Ledger, written: Written) -> None:
    try:
        _count(ledger.append([item]), written)
    except ConflictError:
        written.joined += 1


def _fuller(entry: Entry, standing: Entry) -> bool:
    if entry.usage is None or standing.source != entry.source:
        return False
    return standing.usage is None or entry.usage.tokens > standing.usage.tokens


def _correction(entry: Entry, now: datetime) -> Correction:
    usage = entry.usage
    assert usage is not None
    return Correction(
        correction_id=correction_id(entry.call_id, usage),
        corrects=entry.call_id,
        recorded_at=now,
        reason=REASON,
        fields={
            "usage": dict(usage),
            "quality": entry.quality,
            "cost": None if entry.cost is None else entry.cost.to_json(),
        },
    )
