"""Call: what was received and what was truly served, as the simulator itself knows it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tallystick.core.usage import Usage


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call, written down before the last byte of its answer is handed over.

    `body` and `response` are the bytes of both bodies, the latter as far as it was written and before any content
    encoding. `usage` is what the answer used in truth, whatever was stated about it; None for an error. `text` is the
    generated text, `delivered` the part of it whose events were written whole. `cut` says that the script closed the
    connection, `abandoned` that the client did. `typed` names the SDK types that accepted the payloads.
    """

    number: int
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    api: str | None
    provider: str | None
    model: str | None
    stream: bool
    status: int
    response_headers: Mapping[str, str]
    response: bytes
    response_id: str | None
    usage: Usage | None
    text: str
    delivered: str
    finish: str | None
    cut: bool
    abandoned: bool
    typed: tuple[str, ...]
