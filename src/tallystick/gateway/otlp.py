"""OTLP: spans that other programs send become entries, where they are calls that nobody has seen yet."""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from tallystick.core.attribution import MAX_LENGTH, Tags
from tallystick.errors import ConflictError, InputError, TallyError
from tallystick.gateway.api.desk import Desk
from tallystick.gateway.api.http import (
    JSON,
    Gone,
    Problem,
    Receive,
    Scope,
    Send,
    headers_of,
    inflated,
    media_type,
    read_body,
    send_bytes,
    send_problem,
)
from tallystick.ledger.entry import Entry
from tallystick.metering.foreign import enter_foreign
from tallystick.metering.rating import Call, rate_reading
from tallystick.metering.recording import kept_context, quality_of, raw_text
from tallystick.wire import otlp_json, otlp_protobuf
from tallystick.wire.otlp import Span
from tallystick.wire.otlp_calls import Ancestry, SpanCall, read_call
from tallystick.wire.reading import Reading

PATH: Final = "/v1/traces"
PROTOBUF: Final = "application/x-protobuf"
MOST_BODY: Final = 64 * 2**20
"""The largest request that is taken, in bytes, inflated."""

OUR_CALL: Final = "tally.call"
_OUR_ID: Final = re.compile(r"[0-9a-f-]{36}")
_EARLIEST: Final = datetime(2015, 1, 1, tzinfo=UTC)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FARTHEST_NS: Final = 2**63
_DAY: Final = timedelta(days=1)
_AT_ONCE: Final = 2
_REASONS: Final = 3


class Taken(msgspec.Struct, frozen=True):
    """What became of a request's spans: new entries, calls that were known, spans of calls that could not be taken, and
    why."""

    entered: int = 0
    known: int = 0
    rejected: int = 0
    why: tuple[str, ...] = ()


class Traces:
    """The room under /v1/traces. It takes HTTP in protobuf and JSON."""

    def __init__(self, desk: Desk, *, most: int = MOST_BODY) -> None:
        self._desk = desk
        self._most = most
        self._ancestry = Ancestry()
        self._lock = threading.Lock()
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            return
        try:
            if scope["path"].rstrip("/") != PATH:
                raise Problem(404, "Nothing is served at this path.", todo=f"Send spans to {PATH}.")
            if scope["method"] != "POST":
                raise Problem(405, "Spans are sent with POST.", allow="POST")
            headers = headers_of(scope)
            kind = media_type(headers)
            if kind not in (PROTOBUF, JSON):
                raise Problem(
                    415, f"Spans of the type {kind[:60]!r} are not taken.", todo=f"Send {PROTOBUF} or {JSON}."
                )
            async with self._turns:
                body = await read_body(receive, self._most)
                taken = await asyncio.to_thread(self._take, body, headers.get("content-encoding", ""), kind)
        except Gone:
            return
        except TallyError as error:
            await send_problem(send, error)
            return
        await send_bytes(send, 200, answer(taken, kind), kind)

    def _take(self, body: bytes, coding: str, kind: str) -> Taken:
        data = inflated(body, coding.strip().lower(), self._most)
        spans = (otlp_protobuf if kind == PROTOBUF else otlp_json).read_traces(data)
        return self.take(spans)

    def take(self, spans: Iterable[Span]) -> Taken:
        """Enters the calls among spans. Raises LedgerError; then the same spans may be sent again."""
        now = self._desk.now()
        entries: dict[str, Entry] = {}
        why: dict[str, None] = {}
        rejected = 0
        with self._lock:
            leaves = self._ancestry.leaves(spans)
        for span in leaves:
            try:
                entry = self._entry(read_call(span), now)
                entries.setdefault(entry.call_id, entry)
            except InputError as error:
                rejected += 1
                why[error.what] = None
        entered, known = self._enter(list(entries.values()))
        return Taken(entered, known, rejected, tuple(why)[:_REASONS])

    def _enter(self, entries: list[Entry]) -> tuple[int, int]:
        if not entries:
            return 0, 0
        try:
            receipt = enter_foreign(self._desk.ledger, entries)
        except ConflictError:
            if len(entries) == 1:
                # Sent before: what was entered then stands.
                return 0, 1
            parts = [self._enter([entry]) for entry in entries]
            return sum(one[0] for one in parts), sum(one[1] for one in parts)
        return receipt.written, receipt.known

    def _entry(self, call: SpanCall, now: datetime) -> Entry:
        span = call.span
        at = _instant(span.start_ns, now)
        end = max(at, _instant(span.end_ns, now)) if span.end_ns else None
        usage, fault = call.usage
        context = {} if call.tier is None else {"service_tier": call.tier}
        reading = Reading(usage, model=call.model, context=context, response_id=call.response_id, fault=fault)
        asked = Call(model=call.model, at=at, provider=call.provider, api=call.api)
        rated = rate_reading(reading, asked, self._desk.catalog())
        return Entry(
            call_id=call_id(call),
            started_at=at,
            settled_at=end,
            recorded_at=now,
            provider=rated.provider,
            api=call.api,
            requested_model=_fit(call.requested_model),
            model=rated.model,
            maker=rated.maker,
            tier=_fit(call.tier),
            context=kept_context(reading.context),
            usage=usage,
            quality=quality_of(rated, "exact"),
            cost=rated.cost,
            status="error" if call.failed else "ok",
            source="otlp",
            tags=Tags({name: text for name, one in call.tags.items() if (text := _fit(one))}),
            run_id=_fit(call.run),
            step=_fit(call.step),
            provider_response_id=_fit(call.response_id),
            trace_id=span.trace_id,
            span_id=span.span_id,
            latency_us=None if end is None else (end - at) // timedelta(microseconds=1),
            usage_raw=raw_text(call.stated) if call.stated else None,
        )


def answer(taken: Taken, kind: str) -> bytes:
    """The answer to a request, in its own encoding; a partial success names how many spans were not taken, and why."""
    message = " ".join(taken.why)
    if kind == PROTOBUF:
        return otlp_protobuf.write_answer(taken.rejected, message)
    if not taken.rejected:
        return b"{}"
    partial = {"rejectedSpans": str(taken.rejected), "errorMessage": message}
    return msgspec.json.encode({"partialSuccess": partial})


def call_id(call: SpanCall) -> str:
    """The id of a call: always the same for the same span, so that sending it again changes nothing; and for two spans
    of one trace about one response, which two libraries made of one call. A UUID of version 8, made from a hash. A span
    of our own exporter names the call itself, so that it is met again where it came from."""
    span = call.span
    ours = span.attributes.get(OUR_CALL)
    if isinstance(ours, str) and _OUR_ID.fullmatch(ours):
        return ours
    key = f"{span.trace_id}\n{call.response_id or span.span_id}"
    digest = hashlib.blake2b(f"otlp\n{key}".encode("utf-8", "replace"), digest_size=16).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-8{digest[13:16]}-8{digest[17:20]}-{digest[20:]}"


def _instant(nanoseconds: int, now: datetime) -> datetime:
    found = _EPOCH if not 0 <= nanoseconds < _FARTHEST_NS else _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    if not _EARLIEST <= found <= now + _DAY:
        raise InputError("A span's time makes no sense.")
    return found


def _fit(text: str | None) -> str | None:
    """A text without control characters and of bounded length; None for nothing."""
    if text is None:
        return None
    return "".join(filter(str.isprintable, text))[:MAX_LENGTH] or None
