"""OTLP: spans as OpenTelemetry sends them, of which only what concerns a call is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from tallystick.errors import InputError

Value = str | int | float | bool | tuple[str, ...]
"""An attribute's value; other kinds of values are not kept."""

MOST_SPANS: Final = 20_000
MOST_ATTRIBUTES: Final = 2_000
MOST_NAME: Final = 256
MOST_TEXT: Final = 1024
"""Longer texts are prompts and answers, which nobody here wants to keep; they are dropped unread."""

ERROR: Final = 2
"""The status code of a span that failed."""


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """One span. Ids are lower-case hex, `parent` is empty for a root; times are nanoseconds since 1970 UTC; `resource`
    are the attributes of what made it, `scope` the name of the library."""

    trace_id: str
    span_id: str
    parent: str = ""
    name: str = ""
    start_ns: int = 0
    end_ns: int = 0
    attributes: Mapping[str, Value] = {}
    resource: Mapping[str, Value] = {}
    scope: str = ""
    status: int = 0


def kept(name: str, value: object, found: dict[str, Value]) -> None:
    """Adds an attribute if it is of a kind and length that is kept. Raises InputError where there are too many."""
    if isinstance(value, str) and len(value) > MOST_TEXT:
        return
    if isinstance(value, list):
        value = tuple([one for one in value if isinstance(one, str)])
    if name and len(name) <= MOST_NAME and isinstance(value, str | int | float | tuple):
        if len(found) >= MOST_ATTRIBUTES:
            raise InputError(f"A span has more than {MOST_ATTRIBUTES:,} attributes.")
        found[name] = value


def checked(spans: list[Span], span: Span) -> None:
    """Adds a span that has its ids. Raises InputError where there are too many."""
    if len(spans) >= MOST_SPANS:
        raise InputError(f"A request has more than {MOST_SPANS:,} spans.", todo="Send them in smaller batches.")
    if span.trace_id and span.span_id:
        spans.append(span)
