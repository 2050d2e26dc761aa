"""Recording: from what is known of a call to the entry that the ledger keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from tallystick.core.attribution import MAX_LENGTH, MAX_TAGS, Tags
from tallystick.core.usage import Usage
from tallystick.ledger.entry import MAX_RAW, Entry
from tallystick.metering.rating import Call, Rated, RawUsage, rate, rate_reading
from tallystick.wire.reading import Reading

if TYPE_CHECKING:
    from tallystick.catalog.catalog import Catalog


def entry_for(
    raw: RawUsage | None,
    call: Call,
    catalog: Catalog,
    *,
    call_id: str,
    recorded_at: datetime,
    run_id: str | None = None,
    tags: Mapping[str, object] | None = None,
    quality: str = "exact",
    source: str = "manual",
) -> Entry:
    """The entry of one finished call. `raw` None means that the provider stated no usage: the entry says `unknown`. A
    model without a rate gives an entry whose cost is None. Raises UsageError or InputError for bad input."""
    rated = rate_reading(Reading(None), call, catalog) if raw is None else rate(raw, call, catalog)
    reading = rated.reading
    return Entry(
        call_id=call_id,
        started_at=call.at,
        settled_at=recorded_at,
        recorded_at=recorded_at,
        provider=rated.provider,
        api=rated.api,
        requested_model=call.model,
        model=rated.model,
        maker=rated.maker,
        tier=reading.context.get("service_tier"),
        region=reading.context.get("region"),
        context=kept_context(reading.context),
        usage=reading.usage,
        quality=quality_of(rated, quality),
        cost=rated.cost,
        reported_cost=reading.reported,
        source=source,
        tags=Tags(tags),
        run_id=run_id,
        provider_response_id=reading.response_id,
        usage_raw=None if raw is None or isinstance(raw, Usage) else raw_text(raw),
    )


_APART: Final = frozenset({"service_tier", "region"})
_NO_TAGS: Final = Tags()


def kept_context(context: Mapping[str, str]) -> Tags:
    """What decided the price, as the entry keeps it: tier and region have fields of their own, and values out of a
    payload that no tag could hold are left out rather than lose the call."""
    if context.keys() <= _APART:
        return _NO_TAGS
    fitting = {
        name: value
        for name, value in context.items()
        if name not in _APART and value.isprintable() and 0 < len(value) <= MAX_LENGTH
    }
    return Tags(dict(list(fitting.items())[:MAX_TAGS]))


def quality_of(rated: Rated, stated: str) -> str:
    """`unknown` without usage, `estimated` where the usage object contradicts itself, else what the surface states."""
    if rated.reading.usage is None:
        return "unknown"
    return "estimated" if rated.reading.fault is not None and stated == "exact" else stated


def raw_text(raw: object) -> str | None:
    """The provider's usage object as compact JSON, or None when it is longer than 4 KB."""
    text = json.dumps(raw, separators=(",", ":"), ensure_ascii=False, default=_plain)
    return text if len(text.encode("utf-8", "replace")) <= MAX_RAW else None


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    return repr(value)
