"""Repair: brings into the ledger what killed processes, and a ledger that could not be written, have left beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from tallystick.catalog.catalog import Catalog
from tallystick.core.usage import Usage
from tallystick.errors import ConflictError, InputError, LedgerCorrupt
from tallystick.ledger.entry import Entry
from tallystick.ledger.hold import Settlement
from tallystick.ledger.intents import SUFFIX, InFlight, ended, leftovers
from tallystick.ledger.ledger import Ledger
from tallystick.ledger.query import Query
from tallystick.metering.claims import Account, Matcher, attributes, settlement
from tallystick.metering.finished import unpack, unpack_note
from tallystick.metering.rating import Call, rate_reading
from tallystick.metering.spool import read_spool, spool_files
from tallystick.wire.reading import Reading

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TAKEN: Final = ".taken"


class Repaired(msgspec.Struct, frozen=True):
    """What a repair did: `cut` calls of killed processes were entered, as were those that had `ended` and were on their
    way to the ledger, and `spooled` entries that the ledger could not take before; `known` were there already;
    `unread` are broken: lines stay in their files."""

    cut: int = 0
    spooled: int = 0
    known: int = 0
    unread: int = 0
    ended: int = 0


def repair(
    ledger: Ledger, place: Path, spool: Sequence[Path], catalog: Callable[[], Catalog], now: datetime
) -> Repaired:
    """Enters what lies beside the ledger's file `place` and in the `spool` folders. Doing it again, or in two processes
    at once, changes nothing: each call has one id. Raises LedgerError when the ledger cannot be written; then
    everything stays where it is."""
    cut = known = 0
    with leftovers(place.with_name(place.name + SUFFIX)) as flights:
        in_flight = [flight for flight in flights if flight.record is None]
        matcher = Matcher(ledger.budgets())
        held = {hold.hold_id for state in ("open", "suspect") for hold in ledger.holds(state)} if in_flight else set()
        for flight in in_flight:
            entry = entry_of_flight(flight, catalog(), now)
            if flight.call_id in held:
                entry = msgspec.structs.replace(entry, hold_id=flight.call_id)
            new, there = _settle(ledger, entry, settlement(entry, _accounts(matcher, entry)))
            cut, known = cut + new, known + there
        finished, there, unread = _enter_ended(ledger, flights)
        known += there
    spooled = 0
    for file in spool_files(spool):
        try:
            written, there, broken = _take(ledger, file)
        except FileNotFoundError:
            # Another repair has just brought it in.
            continue
        spooled, known, unread = spooled + written, known + there, unread + broken
    return Repaired(cut, spooled, known, unread, finished)


def recover(ledger: Ledger, folder: Path) -> int:
    """Enters the calls that had ended when their process was killed, and were on their way to the ledger: what every
    opening of a ledger should do first. `folder` is that of the calls in flight. Returns how many are new; those that
    were cut stay for `repair`. Raises LedgerError when the ledger cannot be written; then everything stays."""
    if not folder.is_dir():
        return 0
    with ended(folder) as flights:
        return _enter_ended(ledger, flights)[0] if flights else 0


def _enter_ended(ledger: Ledger, flights: list[InFlight]) -> tuple[int, int, int]:
    """Enters the entries that slots have kept: how many are new, were known, or cannot be entered. Those are taken off
    the list, and so stay in their slots: another version may be able to."""
    written = known = 0
    unread: list[InFlight] = []
    for flight in flights:
        if flight.record is None:
            continue
        try:
            finished = unpack(flight.record)
        except LedgerCorrupt:
            unread.append(flight)
            continue
        try:
            new, there = _settle(ledger, finished.entry, finished.settlement or Settlement(charges=()))
        except InputError:
            # What this ledger cannot keep must not hold up the others.
            unread.append(flight)
            continue
        written, known = written + new, known + there
    for flight in unread:
        flights.remove(flight)
    return written, known, len(unread)


def _settle(ledger: Ledger, entry: Entry, taken: Settlement) -> tuple[int, int]:
    """Enters a call and charges its budgets: whether it is new, or was known."""
    if next(iter(ledger.read(Query(call_id=entry.call_id))), None) is not None:
        return 0, 1
    try:
        receipt = ledger.settle(entry, taken, durable=True).result()
    except ConflictError:
        return 0, 1
    return receipt.written, receipt.known


def entry_of_flight(flight: InFlight, catalog: Catalog, now: datetime) -> Entry:
    """The entry of a call whose process died. What it had delivered was estimated, so half of that is what it had at
    the least; a call that had delivered nothing is of unknown usage. Either way the rest of its hold stays suspect."""
    noted = unpack_note(flight.note)
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
        source=noted.source,
        tags=noted.tags,
        run_id=flight.run_id or None,
        parent_run=noted.parent_run,
        step=noted.step,
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
    """Enters a file's entries: how many are new, were known, or cannot be entered. The file goes once all are in."""
    taken = file
    if file.suffix != _TAKEN:
        # Its process may begin another one of this name, and one of an earlier repair may still be there.
        taken = file.with_name(f"{file.stem}-{file.stat().st_ino}{_TAKEN}")
        file.rename(taken)
    written = known = unread = 0
    matcher = Matcher(ledger.budgets())
    with taken.open("rb") as handle:
        # A process that had the file open before it was taken may add a line meanwhile.
        while data := handle.read():
            found, broken = read_spool(data)
            unread += broken
            for entry in found:
                try:
                    new, there = _settle(ledger, entry, settlement(entry, _accounts(matcher, entry)))
                except InputError:
                    unread += 1
                    continue
                written, known = written + new, known + there
        if not unread:
            taken.unlink(missing_ok=True)
            # Who adds a line after this sees that the file is gone, and writes it again.
            if late := handle.read():
                taken.write_bytes(late)
    return written, known, unread
