"""OTLP calls: the spans that are calls of a model, read into our own terms, and told from those that contain them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from tallystick.core.models import provider_id
from tallystick.core.usage import MAX_COUNT
from tallystick.errors import InputError
from tallystick.wire.otlp import ERROR, Span, Value
from tallystick.wire.otlp_names import INFERENCE, NAMES, PROVIDERS
from tallystick.wire.partition import InputDetails, OutputDetails, Split, partition

REMEMBERED: Final = 100_000
"""So many spans are remembered as containing a call, for batches in which the inner span came before the outer one."""

_COUNTS: Final = ("input", "output", "total", "cache_read", "cache_write", "reasoning", "audio_input", "audio_output")
_TAGS: Final = ("agent", "user", "team", "project")


class SpanCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call as a span tells it. Times are nanoseconds since 1970 UTC. `usage` with its fault are as `partition` gives
    them; None without a fault means that the span states none. `stated` are the counts by their own names."""

    span: Span
    api: str
    model: str
    provider: str | None
    requested_model: str | None
    response_id: str | None
    usage: Split
    stated: Mapping[str, int]
    tier: str | None
    run: str | None
    step: str | None
    tags: Mapping[str, str]
    failed: bool


class Ancestry:
    """Tells which spans contain a call, over many batches. An outer span repeats the usage of those inside it, so only
    the innermost ones are calls. An inner span ends, and comes, before the outer one."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._around: dict[tuple[str, str], None] = {}

    def leaves(self, spans: Iterable[Span]) -> list[Span]:
        """The calls among the spans that contain no other call."""
        batch = {(span.trace_id, span.span_id): span for span in spans}
        for key, span in batch.items():
            if key in self._around or is_inference(span):
                self._climb(span, batch)
        while len(self._around) > self._most:
            del self._around[next(iter(self._around))]
        return [span for key, span in batch.items() if key not in self._around and is_inference(span)]

    def _climb(self, span: Span, batch: Mapping[tuple[str, str], Span]) -> None:
        """Remembers everything above a span."""
        above: Span | None = span
        while above is not None and above.parent:
            key = above.trace_id, above.parent
            if key in self._around:
                return
            self._around[key] = None
            above = batch.get(key)


def is_inference(span: Span) -> bool:
    """Whether a span is about the call of a model. One that does not say its operation is, where it states tokens."""
    operation = _text(span, "operation")
    if operation is not None:
        return operation.lower() in INFERENCE
    return any(_said(span, noun) is not None for noun in ("input", "output")) and _text(span, "model") is not None


def read_call(span: Span) -> SpanCall:
    """The call that a span tells. Raises InputError where it names no model or a count makes no sense."""
    model = _text(span, "model")
    if model is None:
        raise InputError("A span of a call names no model.")
    stated = _stated(span)
    named = {name: _text(span, name) for name in _TAGS}
    tags = {name: text for name, text in named.items() if text is not None}
    service = span.resource.get("service.name")
    if isinstance(service, str) and service and not service.startswith("unknown_service"):
        tags["service"] = service
    family = "openinference" if "openinference.span.kind" in span.attributes else "gen_ai"
    return SpanCall(
        span=span,
        api=f"otlp.{family}",
        model=model,
        provider=_provider(span),
        requested_model=_text(span, "requested_model"),
        response_id=_text(span, "response_id"),
        usage=_usage(stated),
        stated=stated,
        tier=_text(span, "tier"),
        run=_text(span, "run"),
        step=_text(span, "step"),
        tags=tags,
        failed=span.status == ERROR or _said(span, "error") is not None,
    )


def _usage(stated: Mapping[str, int]) -> Split:
    if "input" not in stated and "output" not in stated:
        return None, None
    count = stated.get
    inside = InputDetails(
        cached_tokens=count("cache_read", 0),
        cache_write_tokens=count("cache_write", 0),
        audio_tokens=count("audio_input", 0),
    )
    made = OutputDetails(reasoning_tokens=count("reasoning", 0), audio_tokens=count("audio_output", 0))
    return partition(count("input", 0), count("output", 0), stated.get("total"), inside, made)


def _stated(span: Span) -> dict[str, int]:
    found = {}
    for noun in _COUNTS:
        value = _said(span, noun)
        if value is None:
            continue
        number = int(value) if isinstance(value, float) and value.is_integer() else value
        if type(number) is not int or not 0 <= number < MAX_COUNT:
            raise InputError(f"A span states {str(value)[:40]!r} as its number of {noun} tokens.")
        found[noun] = number
    return found


def _provider(span: Span) -> str | None:
    name = _text(span, "provider")
    if name is None:
        return None
    lowered = name.strip().lower()
    return provider_id(PROVIDERS.get(lowered, lowered))


def _said(span: Span, noun: str) -> Value | None:
    """What a span says of one of the table's nouns: the first of its names that is there."""
    return next((span.attributes[name] for name in NAMES[noun] if name in span.attributes), None)


def _text(span: Span, noun: str) -> str | None:
    return next(
        (one for name in NAMES[noun] if isinstance(one := span.attributes.get(name), str) and one.strip()), None
    )
