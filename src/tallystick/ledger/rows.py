"""Rows: an entry as a row of the ledger's file, and back.

The row has two parts. `body`, with the ids and times beside it, is the entry as it arrived and never changes. The other
columns are the call as it stands, for sums and searches; a correction moves them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, Final

import msgspec

from tallystick.core.cost import Cost, Line
from tallystick.core.money import Money
from tallystick.core.usage import Usage
from tallystick.errors import InputError
from tallystick.ledger.entry import QUALITIES, SOURCES, STATUSES, Entry
from tallystick.ledger.jsonform import check_texts
from tallystick.ledger.sums import MAIN_KINDS, limbs, rare, spent, weigh
from tallystick.ledger.words import Label, Names, Words

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
QUALITY_CODE: Final = {name: code for code, name in enumerate(QUALITIES)}
STATUS_CODE: Final = {name: code for code, name in enumerate(STATUSES)}
SOURCE_CODE: Final = {name: code for code, name in enumerate(SOURCES)}

_TAIL_NAMES: Final = (
    "attempt_of", "http_status", "stopped_by", "parent_run", "step", "provider_response_id", "trace_id", "span_id",
    "latency_us", "ttft_us", "request_bytes", "response_bytes", "hold_id", "usage_raw",
)  # fmt: skip
_TAIL: Final = attrgetter(*_TAIL_NAMES)
_ENCODE: Final = msgspec.json.Encoder().encode
_DECODE: Final = msgspec.json.Decoder().decode
_ZERO: Final = (0,) * len(MAIN_KINDS)
_MAX_INT: Final = 2**63
_LISTED: Final = 3
_SAFE_INT: Final = 2**60


class Row(msgspec.Struct, frozen=True, gc=False):
    """An entry ready to be written. `standing` are the columns that a correction moves; `weight` is what the call adds
    to sums, `rare` its usage of kinds without a column."""

    call_id: str
    started_us: int
    settled_us: int | None
    recorded_us: int
    run: int | None
    label: Label
    source: str
    status: str
    standing: tuple[int, ...]
    weight: int
    rare: dict[str, int]
    body: str

    def columns(self, seq: int, batch: int, response_key: str | None) -> tuple[Any, ...]:
        """The values of the query `add_entry`."""
        label, status, quality, *rest = self.standing
        return (
            seq, batch, self.call_id, response_key, self.started_us, self.settled_us, self.recorded_us, self.run,
            label, status, quality, SOURCE_CODE[self.source], *rest, self.body,
        )  # fmt: skip


def to_us(instant: datetime) -> int:
    """Microseconds since 1970 UTC."""
    delta = instant - EPOCH
    return (delta.days * 86400 + delta.seconds) * 1_000_000 + delta.microseconds


def from_us(us: int) -> datetime:
    """The instant of microseconds since 1970 UTC."""
    return EPOCH + timedelta(microseconds=us)


def encode(entry: Entry, words: Words, now_us: int) -> Row:
    """The row of an entry. Raises InputError for what a ledger cannot keep."""
    check_texts(entry)
    try:
        return _encode(entry, words, now_us)
    except (OverflowError, UnicodeError, TypeError) as error:
        raise InputError(
            f"The entry of call {entry.call_id} holds a value that cannot be written: {error}.",
            money="It was not entered.",
        ) from None


def _encode(entry: Entry, words: Words, now_us: int) -> Row:
    usage = entry.usage
    counts = {} if usage is None else {kind: usage[kind] for kind in usage}
    pico, unpriced = spent(entry)
    label = words.label(entry)
    settled, recorded = entry.settled_at, entry.recorded_at
    return Row(
        entry.call_id,
        to_us(entry.started_at),
        None if settled is None else to_us(settled),
        now_us if recorded is None else to_us(recorded),
        None if entry.run_id is None else words.run(entry.run_id),
        label,
        entry.source,
        entry.status,
        (
            label.id, STATUS_CODE[entry.status], QUALITY_CODE[entry.quality], entry.owed, unpriced, *limbs(pico),
            *[counts.get(kind, 0) for kind in MAIN_KINDS],
        ),
        weigh(entry, counts, pico, unpriced),
        rare(counts),
        _body(entry, label.id, None if usage is None else counts, words),
    )  # fmt: skip


def decode(row: tuple[Any, ...], names: Names) -> Entry:
    """The entry as it arrived, from (call_id, started_us, settled_us, recorded_us, run, body)."""
    call_id, started_us, settled_us, recorded_us, run, body = row
    label, status, quality, source, owed, counts, cost, reported, *tail = _DECODE(body)
    identity, context, tags = names.label(label)
    return Entry(
        call_id=call_id,
        started_at=from_us(started_us),
        settled_at=None if settled_us is None else from_us(settled_us),
        recorded_at=from_us(recorded_us),
        provider=identity.provider,
        model=identity.model,
        maker=identity.maker,
        api=identity.api,
        requested_model=identity.requested_model,
        tier=identity.tier,
        region=identity.region,
        context=context,
        tags=tags,
        status=STATUSES[status],
        quality=QUALITIES[quality],
        source=SOURCES[source],
        owed=owed,
        run_id=names.run(run),
        usage=None if counts is None else Usage.trusted(counts),
        cost=None if cost is None else _read_cost(cost, names),
        reported_cost=None if reported is None else Money(int(reported)),
        **dict(zip(_TAIL_NAMES, tail, strict=True)),
    )


def _body(entry: Entry, label: int, counts: dict[str, int] | None, words: Words) -> str:
    cost, reported = entry.cost, entry.reported_cost
    values = (
        label,
        STATUS_CODE[entry.status],
        QUALITY_CODE[entry.quality],
        SOURCE_CODE[entry.source],
        entry.owed,
        counts,
        None if cost is None else _written_cost(cost, words),
        None if reported is None else _number(reported.pico),
        *_TAIL(entry),
    )
    return _ENCODE(values).decode()


def _written_cost(cost: Cost, words: Words) -> tuple[Any, ...]:
    # Compiled rates are few and long-lived, so nearly always all numbers are known.
    numbers = words.priced_numbers
    lines: list[tuple[Any, ...]]
    try:
        lines = [(line.kind, line.quantity, line.pico, numbers[id(line.priced)][1], line.note) for line in cost.lines]
    except KeyError:
        priced = words.priced
        lines = [(line.kind, line.quantity, line.pico, priced(line.priced), line.note) for line in cost.lines]
    pico = cost.pico
    if pico is None or not -_SAFE_INT < pico < _SAFE_INT:
        # JSON of 64 bits ends at $9.2M; beyond that the digits go in as text.
        lines = [(kind, quantity, _number(amount), number, note) for kind, quantity, amount, number, note in lines]
        pico = _number(pico)
    if cost.listed_pico is None:
        return words.head(cost), pico, lines
    return words.head(cost), pico, lines, _number(cost.listed_pico)


def _read_cost(value: list[Any], names: Names) -> Cost:
    head = names.head(value[0])
    lines = [
        Line(
            kind, quantity, None if pico is None else int(pico), None if priced is None else names.priced(priced), note
        )
        for kind, quantity, pico, priced, note in value[2]
    ]
    pico = None if value[1] is None else int(value[1])
    listed = int(value[3]) if len(value) > _LISTED else None
    return Cost(tuple(lines), pico, head.basis, head.rate_ids, head.catalogue, head.notes, listed)


def _number(pico: int | None) -> Any:
    return pico if pico is None or -_MAX_INT <= pico < _MAX_INT else str(pico)
