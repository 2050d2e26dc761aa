"""Tracing: the trace a call belongs to, as its request or the process says it."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Final

_PARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}.*")


def traced(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """The trace and span id: of the W3C `traceparent` header, else of the current OpenTelemetry span where that package
    is already loaded. It is never loaded from here."""
    parent = headers.get("traceparent")
    if parent is not None:
        match = _PARENT.fullmatch(parent.strip())
        if match is not None and match[1].strip("0") and match[2].strip("0"):
            return match[1], match[2]
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    return (f"{context.trace_id:032x}", f"{context.span_id:016x}") if context.is_valid else None
