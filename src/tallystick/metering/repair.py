"""Repair: brings into the ledger what killed processes, and a ledger that could not be written, have left beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from tallystick.catalog.catalog import Catalog
from tallystick.core.usage import Usage
from tallystick.errors import ConflictError
from tallystick.ledger.entry import Entry
from tallystick.ledger.intents import SUFFIX, InFlight, leftovers
from tallystick.ledger.ledger import Ledger
from tallystick.ledger.query import Query
from tallystick.metering.claims import Account, Matcher, attributes, settlement
from tallystick.metering.rating import Call, rate_reading
from tallystick.metering.spool import read_spool, spool_files
from tallystick.wire.reading import Reading

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TAKEN: Final = ".taken"


class Repaired(msgspec.Struct, frozen=True):
    """What a repair did: `cut` calls of killed processes were entered, as were `spooled` entries that the ledger could
    not take before; `known` were there already; `unread` lines are broken and stay in their files."""

    cut: int = 0
    spooled: int = 0
    known: int = 0
    unread: int = 0


def repair(
    ledger: Ledger, place: Path, spool: Sequence[Path], catalog: Callable[[], Catalog], now: datetime
) -> Repaired:
    """Enters what lies beside the ledger's file `place` and in the `spool` folders. Doing it again, or in two processes
    at once, changes nothing: each call has one id. Raises LedgerError when the ledger cannot be written; then
    everything stays where it is."""
    cut = known = 0
    with leftovers(place.with_name(place.name + SUFFIX)) as flights:
        for flight in flights:
            if next(iter(ledger.read(Query(call_id=flight.call_id))), None) is not None:
                known += 1
                continue
            ledger.append([entry_of_flight(flight, catalog(), now)], durable=True)
            cut += 1
    spooled = unread = 0
    for file in spool_files(spool):
        written, there, broken = _take(ledger, file)
        spooled, known, unread = spooled + written, known + there, unread + broken
    return Repaired(cut, spooled, known, unread)


def entry_of_flight(flight: InFlight, catalog: Catalog, now: datetime) -> Entry:
    """The entry of a call whose process died. What it had delivered was estimated, so half of that is what it had at
    the least; a call that had delivered nothing is of unknown usage."""
    started = _EPOCH + timedelta(microseconds=flight.started_us)
    tokens = flight.output // 2
    usage = Usage(output=tokens) if tokens else None
    model = flight.model or "unknown"
    call = Call(model=model, at=started, provider=flight.provider or None, api=flight.api or None)
    rated = rate_reading(Reading(usage), call, catalog)
    return Entry(
        call_id=flight.call_id,
        started_at=started,
        settled_at=_EPOCH + timedelta(microseconds=flight.updated_us),
        recorded_at=now,
        provider=rated.provider,
        api=rated.api,
        requested_model=flight.model or None,
        model=rated.model,
        maker=rated.maker,
        usage=usage,
        quality="unknown" if usage is None else "lower_bound",
        cost=rated.cost,
        status="cut",
        stopped_by="killed",
        source="client",
        run_id=flight.run_id or None,
        response_bytes=flight.response_bytes,
    )


def _accounts(matcher: Matcher, entry: Entry) -> tuple[Account, ...]:
    """The accounts that a call concerns which nobody could charge when it ended."""
    others = {
        "provider": (entry.provider,),
        "model": (entry.model, entry.requested_model),
        "run": (entry.run_id, entry.parent_run),
        "step": (entry.step,),
    }
    return matcher.concerned(attributes(matcher.names, entry.tags, others), entry.started_at)


def _take(ledger: Ledger, file: Path) -> tuple[int, int, int]:
    """Enters a file's entries: how many are new, were known, or cannot be read. The file goes once all of it is in."""
    taken = file.with_suffix(_TAKEN)
    if file != taken:
        if taken.exists():
            # An earlier repair was interrupted; what it had taken comes first.
            return 0, 0, 0
        file.rename(taken)
    written = known = 0
    matcher = Matcher(ledger.budgets())
    while True:
        data = taken.read_bytes()
        found, unread = read_spool(data)
        written = known = 0
        for entry in found:
            try:
                receipt = ledger.settle(entry, settlement(entry, _accounts(matcher, entry)), durable=True).result()
            except ConflictError:
                known += 1
            else:
                written += receipt.written
                known += receipt.known
        # A process that had the file open before it was taken may have added a line since.
        if taken.stat().st_size == len(data):
            break
    if not unread:
        taken.unlink()
    return written, known, unread
