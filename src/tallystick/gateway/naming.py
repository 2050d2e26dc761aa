"""Naming: on whose behalf a call through the gateway is made, as its headers say; and which headers stay here."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import unquote

from tallystick.core.attribution import MAX_LENGTH, MAX_TAGS, Tags
from tallystick.metering.leave import Who

OURS: Final = b"x-tally-"
"""Headers that begin so are for us; the provider never sees them."""

HOP: Final = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
        b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
"""Headers of one connection, which are not passed on. Source: RFC 9110, section 7.6.1."""

_SINGLE: Final = {
    "x-tally-user": "user",
    "x-tally-agent": "agent",
    "x-tally-team": "team",
    "x-tally-project": "project",
}
_SAYING: Final = (
    *_SINGLE,
    "baggage",
    "traceparent",
    "x-tally-tags",
    "x-tally-run",
    "x-tally-parent-run",
    "x-tally-step",
)
NOBODY: Final = Who()
"""The caller that says nothing of itself."""

_TRACE: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}.*", re.ASCII)
_BAGGAGE: Final = re.compile(r"tally\.([A-Za-z0-9_.-]{1,64})", re.ASCII)


def who_asks(headers: Mapping[str, str], fixed: Tags, open_names: Collection[str] | None) -> Who:
    """Who a request speaks for. `fixed` are tags that the key has and no header changes; `open_names` are the names
    that headers may fill (None: any but `key`, which only a key sets). `headers` are by their names in lower case. What
    cannot be a tag is left out: a header never costs a call."""
    if not any(name in headers for name in _SAYING):
        return Who(tags=fixed) if fixed else NOBODY
    said: dict[str, str] = {}
    for pair in headers.get("baggage", "").split(","):
        name, _, value = pair.partition(";")[0].partition("=")
        match = _BAGGAGE.fullmatch(name.strip())
        if match is not None:
            said[match[1]] = unquote(value.strip())
    for pair in headers.get("x-tally-tags", "").split(","):
        name, equals, value = pair.partition("=")
        if equals:
            said[name.strip()] = unquote(value.strip())
    for header, name in _SINGLE.items():
        if header in headers:
            said[name] = unquote(headers[header].strip())
    run = _fit(said.pop("run", None) or headers.get("x-tally-run"))
    parent, step = _fit(headers.get("x-tally-parent-run")), _fit(headers.get("x-tally-step"))
    allowed = {
        name: value
        for name, value in said.items()
        if _fit(name)
        and _fit(value)
        and name not in fixed
        and (name != "key" if open_names is None else name in open_names)
    }
    tags = Tags({**dict(list(allowed.items())[: MAX_TAGS - len(fixed)]), **fixed}) if allowed else fixed
    trace = _TRACE.fullmatch(headers.get("traceparent", ""))
    return Who(
        tags=tags,
        run_id=run,
        parent_run=parent,
        step=step,
        trace_id=trace[1] if trace else None,
        span_id=trace[2] if trace else None,
    )


def _fit(text: str | None) -> str | None:
    """The text if a tag can hold it."""
    return text if text and len(text) <= MAX_LENGTH and text.isprintable() else None
