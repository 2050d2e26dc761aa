"""Entry: one call, as it happened. Correction: a later entry that changes what an earlier one says, by delta."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from tallystick.core.attribution import Tags
from tallystick.core.cost import Cost
from tallystick.core.money import Money
from tallystick.core.usage import Usage
from tallystick.errors import InputError

SCHEMA: Final = 1
QUALITIES: Final = ("exact", "estimated", "lower_bound", "unknown")
STATUSES: Final = ("ok", "error", "cancelled", "cut", "refused")
SOURCES: Final = ("client", "gateway", "log", "otlp", "manual", "import")
MAX_RAW: Final = 4096
"""The provider's usage object is kept up to this many bytes."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One call, immutable. Times are aware and UTC. `usage` None means unknown, never zero; `cost` None means unpriced.

    `call_id` is ours and the key; `provider_response_id` is an attribute that may repeat or be missing. `owed` is False
    for the API-equivalent of a subscription, which nobody is billed for. `quality` says how far the usage can be
    trusted. `context` is what decided the price beside model, tier and region (batch processing, speed, residency):
    with it the call can be priced again. `usage_raw` is the provider's own usage object as JSON text, at most 4 KB,
    never message text.
    """

    call_id: str
    started_at: datetime
    provider: str
    model: str
    attempt_of: str | None = None
    settled_at: datetime | None = None
    recorded_at: datetime | None = None
    api: str | None = None
    requested_model: str | None = None
    maker: str | None = None
    tier: str | None = None
    region: str | None = None
    usage: Usage | None = None
    quality: str = "exact"
    cost: Cost | None = None
    reported_cost: Money | None = None
    status: str = "ok"
    http_status: int | None = None
    stopped_by: str | None = None
    source: str = "manual"
    owed: bool = True
    context: Tags = Tags()
    tags: Tags = Tags()
    run_id: str | None = None
    parent_run: str | None = None
    step: str | None = None
    provider_response_id: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    latency_us: int | None = None
    ttft_us: int | None = None
    request_bytes: int | None = None
    response_bytes: int | None = None
    hold_id: str | None = None
    usage_raw: str | None = None

    def __post_init__(self) -> None:
        _member("quality", self.quality, QUALITIES)
        _member("status", self.status, STATUSES)
        _member("source", self.source, SOURCES)
        if not self.call_id:
            raise InputError("An entry needs a call_id.")
        for name in ("started_at", "settled_at", "recorded_at"):
            instant = getattr(self, name)
            if instant is not None and instant.tzinfo is None:
                raise InputError(f"An entry's {name} needs a time zone; {instant.isoformat()} has none.")
        if self.usage is None and self.quality != "unknown":
            raise InputError("An entry without usage has the quality 'unknown'.")

    @property
    def amount(self) -> Money | None:
        """What the call cost: the reported cost where the provider stated one, else ours; None when unpriced."""
        return None if self.cost is None else self.cost.amount

    def to_json(self) -> dict[str, Any]:
        """The entry as plain JSON values: every key present, money as `{"usd": ...}`, times RFC 3339 in UTC."""
        row: dict[str, Any] = {"schema": SCHEMA}
        for name in self.__struct_fields__:
            row[name] = _plain(getattr(self, name))
        return row


class Correction(msgspec.Struct, frozen=True, kw_only=True):
    """A new fact about an old call. It never edits: `correction_id` is its own id, `corrects` the call's, `fields` the
    new values by field name in the JSON form of an entry, and `reason` why. The ledger applies it to the period of the
    original call and keeps both."""

    correction_id: str
    corrects: str
    recorded_at: datetime
    reason: str
    fields: dict[str, Any]


CORRECTABLE: Final = frozenset(
    {
        "usage",
        "quality",
        "cost",
        "reported_cost",
        "status",
        "model",
        "maker",
        "tier",
        "region",
        "context",
        "tags",
        "owed",
    }
)
"""The fields a correction may give anew. Identity and time of a call never change."""


def rfc3339(instant: datetime) -> str:
    """`2026-11-21T22:30:00.000000Z`: UTC, always with microseconds, so that text sorts like time."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _member(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"An entry's {name} cannot be {value!r}.", todo=f"It is one of: {', '.join(allowed)}.")


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, Usage | Tags):
        return dict(value)
    if isinstance(value, Money | Cost):
        return value.to_json()
    return value
