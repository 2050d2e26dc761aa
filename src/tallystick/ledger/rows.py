"""Rows: an entry as a row of the ledger's file, and back.

The row has two parts. `body`, with the ids and times before it, is the entry as it arrived and never changes. The other
columns are the call as it stands, for sums and searches; a correction moves them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from operator import attrgetter, itemgetter
from typing import Any, Final

import msgspec

from tallystick.core.cost import Columns, Cost, Form
from tallystick.core.money import Money
from tallystick.core.usage import Usage
from tallystick.errors import InputError, LedgerCorrupt
from tallystick.ledger.entry import QUALITIES, SOURCES, STATUSES, Entry
from tallystick.ledger.jsonform import MAX_ID, check_texts
from tallystick.ledger.sums import QUALITY_CODE, STATUS_CODE, Standing, all_main, rare, stand
from tallystick.ledger.words import Names, Words

__all__ = ["EPOCH", "QUALITY_CODE", "SOURCE_CODE", "STATUS_CODE", "Move", "Row", "decode", "encode", "from_us", "to_us"]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
SOURCE_CODE: Final = {name: code for code, name in enumerate(SOURCES)}

_TAIL_NAMES: Final = (
    "attempt_of", "http_status", "stopped_by", "parent_run", "step", "provider_response_id", "trace_id", "span_id",
    "latency_us", "ttft_us", "request_bytes", "response_bytes", "hold_id", "usage_raw",
)  # fmt: skip
_LATENCY: Final = _TAIL_NAMES.index("latency_us") - len(_TAIL_NAMES)
_TTFT: Final = _TAIL_NAMES.index("ttft_us") - len(_TAIL_NAMES)
_TAIL: Final = attrgetter(*_TAIL_NAMES)
_CHAINED: Final = itemgetter(0, 1, 2, 3, 19)
_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DECODE: Final = msgspec.msgpack.Decoder().decode
_MAX_INT: Final = 2**63
_US: Final = timedelta(microseconds=1)
_PLAIN_COST: Final = 4


class Move(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a call adds to the rollups (sign 1), or no longer adds (-1) as it was corrected or joined into another."""

    sign: int
    started_us: int
    run: int | None
    source: int
    label: int
    standing: Standing
    rare: dict[str, int] | None
    latency_us: int | None = None
    ttft_us: int | None = None


class Row(msgspec.Struct, frozen=True, gc=False):
    """An entry ready to be written. `stored` are the values of the query `add_entry`, `weight` those of them that go
    into sums, `rare` its usage of kinds without a column."""

    stored: tuple[Any, ...]
    weight: Standing
    rare: dict[str, int] | None
    latency_us: int | None
    ttft_us: int | None

    @property
    def call_id(self) -> str:
        """The call's own id."""
        call_id: str = self.stored[0]
        return call_id

    @property
    def recorded_us(self) -> int:
        """When it was recorded."""
        us: int = self.stored[2]
        return us

    @property
    def standing(self) -> tuple[int, ...]:
        """The columns that a correction moves, label first."""
        return self.stored[5:19]

    @property
    def chained(self) -> tuple[Any, ...]:
        """What goes into the hash chain: call_id, started_us, recorded_us, run, body."""
        chained: tuple[Any, ...] = _CHAINED(self.stored)
        return chained

    def move(self, sign: int) -> tuple[Any, ...]:
        """The fields of what the call adds to the rollups."""
        stored = self.stored
        return (
            sign, stored[1], stored[3], stored[4], stored[5], self.weight, self.rare, self.latency_us, self.ttft_us,
        )  # fmt: skip


def to_us(instant: datetime) -> int:
    """Microseconds since 1970 UTC."""
    return (instant - EPOCH) // _US


def from_us(us: int) -> datetime:
    """The instant of microseconds since 1970 UTC."""
    return EPOCH + timedelta(microseconds=us)


def encode(entry: Entry, words: Words, now_us: int) -> Row:
    """The row of an entry. Raises InputError for what a ledger cannot keep."""
    call_id = entry.call_id
    if len(call_id) > MAX_ID or entry.usage_raw is not None or not call_id.isascii():
        check_texts(entry)
    try:
        return _encode(entry, words, now_us)
    except (OverflowError, UnicodeError, TypeError) as error:
        raise InputError(
            f"The entry of call {entry.call_id} holds a value that cannot be written: {error}.",
            money="It was not entered.",
        ) from None


def _encode(entry: Entry, words: Words, now_us: int) -> Row:
    usage, cost, reported = entry.usage, entry.cost, entry.reported_cost
    started, settled, recorded, run_id = entry.started_at, entry.settled_at, entry.recorded_at, entry.run_id
    kinds: tuple[str, ...] = ()
    values: tuple[int, ...] = ()
    others: dict[str, int] | None = None
    if usage:
        counts: Any = usage.items()
        kinds, values = tuple(counts.mapping), tuple(counts.mapping.values())
        if not all_main(kinds):
            others = rare(usage)
    standing = stand(entry, kinds, values)
    label, source = words.label(entry), SOURCE_CODE[entry.source]
    body = _ENCODE(
        (
            label,
            source,
            standing[:3],
            None if usage is None else (words.shape(kinds), *values),
            None if cost is None else _written_cost(cost, values, words),
            None if reported is None else _number(reported.pico),
            None if settled is None else (settled - started) // _US,
            *_TAIL(entry),
        )
    )
    stored = (
        entry.call_id,
        (started - EPOCH) // _US,
        now_us if recorded is None else (recorded - EPOCH) // _US,
        None if run_id is None else words.run(run_id),
        source,
        label,
        *standing,
        body,
    )
    return Row(stored, standing, others, entry.latency_us, entry.ttft_us)


def decode(row: tuple[Any, ...], names: Names) -> Entry:
    """The entry as it arrived, from (call_id, started_us, recorded_us, run, body). Raises LedgerCorrupt."""
    call_id, started_us, recorded_us, run, body = row
    try:
        label, source, (status, quality, owed), shaped, cost, reported, taken, *tail = _DECODE(body)
    except (ValueError, TypeError) as error:
        raise LedgerCorrupt(
            f"The ledger is damaged: call {call_id} cannot be read: {error}.",
            money="Its totals cannot be trusted.",
            todo="Restore it from a backup.",
        ) from None
    identity, context, tags = names.label(label)
    started = from_us(started_us)
    counts = {} if shaped is None else dict(zip(names.shape(shaped[0]), shaped[1:], strict=True))
    return Entry(
        call_id=call_id,
        started_at=started,
        settled_at=None if taken is None else started + timedelta(microseconds=taken),
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
        owed=bool(owed),
        run_id=names.run(run),
        usage=None if shaped is None else Usage.trusted(counts),
        cost=None if cost is None else _read_cost(cost, counts, names),
        reported_cost=None if reported is None else Money(int(reported)),
        **dict(zip(_TAIL_NAMES, tail, strict=True)),
    )


def timing(body: bytes) -> tuple[int | None, int | None]:
    """Latency and time to first token of a call, in microseconds, from the body of its row."""
    row = _DECODE(body)
    return row[_LATENCY], row[_TTFT]


def _written_cost(cost: Cost, counts: tuple[int, ...], words: Words) -> tuple[Any, ...]:
    """The head's number, the sum, the quantities (None: those of the usage) and amounts of the lines; and, where the
    head does not hold them, the listed sum, the notes, and the notes of the lines."""
    columns = cost.columns
    form, amounts = columns.form, columns.amounts
    pico, wide = cost.pico, None if columns.quantities == counts else columns.quantities
    head = words.head(cost, form)
    plain = head is not None and cost.listed_pico is None
    if not plain or pico is None or not 0 <= pico < _MAX_INT:
        pico, amounts = _number(pico), tuple([_number(amount) for amount in amounts])
    if plain:
        return head, pico, wide, amounts
    return words.bare_head(cost, form), pico, wide, amounts, _number(cost.listed_pico), cost.notes, form.notes


def _read_cost(value: list[Any], counts: dict[str, int], names: Names) -> Cost:
    number, pico, quantities, amounts = value[:_PLAIN_COST]
    head, form = names.head(number)
    listed, notes, line_notes = value[_PLAIN_COST:] or (None, head.notes, None)
    if line_notes is not None:
        form = Form(form.kinds, form.priced, tuple(line_notes))
    numbers = tuple(counts.values() if quantities is None else quantities)
    picos = tuple([None if amount is None else int(amount) for amount in amounts])
    if not len(numbers) == len(picos) == len(form.notes) == len(form.kinds):
        raise ValueError("the lines of a cost do not fit together")
    whole = None if pico is None else int(pico)
    return Cost(
        Columns(form, numbers, picos), whole, head.basis, head.rate_ids, head.catalogue, tuple(notes),
        None if listed is None else int(listed),
    )  # fmt: skip


def _number(pico: int | None) -> Any:
    # MessagePack has integers of 64 bits, which end at $9.2M; beyond that the digits go in as text.
    return pico if pico is None or -_MAX_INT <= pico < _MAX_INT else str(pico)
