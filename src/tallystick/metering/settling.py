"""Settling: from what was heard of a call to its entry."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from tallystick.catalog.catalog import Catalog
from tallystick.core.cost import Cost
from tallystick.core.usage import OUTPUT_KINDS, Usage
from tallystick.errors import UnpricedError
from tallystick.ledger.entry import Entry
from tallystick.metering.leave import Who
from tallystick.metering.rating import Call, Rated, rate_reading
from tallystick.metering.recording import kept_context
from tallystick.wire.facts import RequestFacts
from tallystick.wire.heard import Outcome
from tallystick.wire.reading import Reading

_MAYBE_BILLED: Final = frozenset({408, 499, 504, 522, 524})
"""Statuses of somebody who gave up waiting: the model may have worked, and then it is billed."""

_NOTHING: Final = Usage()


class End(msgspec.Struct, frozen=True, kw_only=True):
    """How a call ended: `status` and `stopped_by` as in an entry, the status of the answer (None: there was none), and
    the times in microseconds. `sent` is False where nothing can have reached the provider."""

    status: str
    at: datetime
    http_status: int | None = None
    stopped_by: str | None = None
    latency_us: int | None = None
    ttft_us: int | None = None
    response_bytes: int | None = None
    attempt_of: str | None = None
    hold_id: str | None = None
    sent: bool = True


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a call when it begins."""

    call_id: str
    facts: RequestFacts
    who: Who
    started_at: datetime
    source: str


def entry_of(begun: Begun, outcome: Outcome | None, end: End, catalog: Catalog) -> Entry:
    """The entry of a call that has ended. `outcome` None means that there was no answer, or that it could not be
    read."""
    facts = begun.facts
    reading = Reading(None) if outcome is None else _reading(outcome)
    rated = rate_model(reading, facts, begun.started_at, catalog, None if outcome is None else outcome.model)
    quality = "unknown" if outcome is None or outcome.usage is None else outcome.quality
    usage, cost = reading.usage, rated.cost
    free = None if usage is not None else nothing_billed(end)
    if free is not None:
        usage, quality, cost = _NOTHING, "exact", Cost((), 0, notes=(free,))
    context = {**facts.context, **reading.context} if facts.context else reading.context
    raw = None if outcome is None or outcome.usage_raw is None else outcome.usage_raw.decode("utf-8", "replace")
    who = begun.who
    return Entry(
        call_id=begun.call_id,
        attempt_of=end.attempt_of,
        started_at=begun.started_at,
        settled_at=end.at,
        recorded_at=end.at,
        provider=rated.provider,
        api=facts.api,
        requested_model=facts.model,
        model=rated.model,
        maker=rated.maker,
        tier=context.get("service_tier", facts.tier),
        region=context.get("region"),
        context=kept_context(context),
        usage=usage,
        quality=quality,
        cost=cost,
        reported_cost=reading.reported,
        status=end.status,
        http_status=end.http_status,
        stopped_by=end.stopped_by,
        source=begun.source,
        tags=who.tags,
        run_id=who.run_id,
        parent_run=who.parent_run,
        step=who.step,
        provider_response_id=reading.response_id,
        trace_id=who.trace_id,
        span_id=who.span_id,
        latency_us=end.latency_us,
        ttft_us=end.ttft_us,
        request_bytes=facts.body_bytes,
        response_bytes=end.response_bytes,
        hold_id=end.hold_id,
        usage_raw=raw,
    )


def nothing_billed(end: End) -> str | None:
    """Why a call without usage costs nothing for certain, or None where it may cost something.

    No provider bills a request that it answers with an error or a redirect, nor one that never reached it; where
    somebody gave up waiting, or the connection broke, the model may have worked.
    """
    if end.status == "refused":
        return "refused before it was sent"
    if end.status != "error":
        return None
    if not end.sent:
        return "the request never reached the provider"
    if end.http_status is not None and end.http_status >= 300 and end.http_status not in _MAYBE_BILLED:
        return f"providers bill nothing for an answer with status {end.http_status}"
    return None


def with_output(usage: Usage | None, tokens: int, prompt: int) -> Usage:
    """A usage that says at least so many tokens of answer; where there was none, with the prompt as counted."""
    if usage is None:
        return Usage(input=prompt, output=tokens)
    missing = tokens - usage.output_tokens
    if missing <= 0:
        return usage
    others = sum(usage.get(kind, 0) for kind in OUTPUT_KINDS if kind != "output")
    return Usage({**usage, "output": tokens - others})


def rate_model(
    reading: Reading, facts: RequestFacts, at: datetime, catalog: Catalog, served: str | None = None
) -> Rated:
    """Prices a call by the model that was served, else by the one that was asked for: a name of the caller's own, such
    as a deployment, is in no catalogue. Bedrock's own id says more than the maker's name in its answers."""
    first, second = (facts.model, served) if facts.api.startswith("bedrock.") else (served, facts.model)
    rated: Rated | None = None
    for name in (first or second or "unknown", second if first else None):
        if not name:
            break
        call = Call(model=name, at=at, provider=facts.provider, api=facts.api)
        found = rate_reading(reading, call, catalog, facts.api)
        if found.cost is not None or not isinstance(found.unpriced, UnpricedError):
            return found
        rated = rated or found
    if rated is None:
        raise AssertionError
    return rated


def _reading(outcome: Outcome) -> Reading:
    return Reading(
        outcome.usage,
        outcome.model,
        outcome.context,
        outcome.reported,
        outcome.upstream,
        outcome.response_id,
        outcome.fault,
    )
