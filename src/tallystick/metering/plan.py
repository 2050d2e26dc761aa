"""Plan: what a meter knows of a call before it is sent, and what can be said of it from that alone."""

from __future__ import annotations

from typing import Final

import msgspec

from tallystick.core.usage import Usage
from tallystick.metering.bench import Bench
from tallystick.metering.leave import Leave
from tallystick.metering.run import Scope
from tallystick.metering.settling import Begun, rate_model
from tallystick.wire.reading import Reading

NEVER_SENT: Final = frozenset(
    {
        "ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "ProxyError", "LocalProtocolError",
        "ClientConnectorError", "ClientConnectorDNSError", "ConnectionTimeoutError", "EndpointConnectionError",
        "ConnectTimeoutError", "NewConnectionError", "SSLError", "InvalidURL",
        "SSLCertVerificationError", "ConnectionRefusedError", "gaierror",
    }
)  # fmt: skip
"""Exceptions of HTTP clients, by name, raised before any byte of the request can have left."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a meter knows of a call before it is sent. `inject` says that its usage is to be asked for, at `url`;
    `retry` is which repetition of the request the client says it is, if it says so. `fetches` is the id of
    a background response that this request asks for: the call is the one that started it."""

    begun: Begun
    leave: Leave
    scope: Scope | None = None
    url: str = ""
    inject: bool = False
    retry: str | None = None
    fetches: str | None = None

    @property
    def key(self) -> object:
        """Equal for all attempts of one request."""
        facts = self.begun.facts
        return self.begun.who.run_id, facts.path, len(facts.body), hash(facts.body)


def price_of(bench: Bench, begun: Begun, usage: Usage) -> int | None:
    """Picodollars of a usage of a call, None where no rate applies. It does not know the CallMeter: who is part of a
    circle stays in memory until a garbage collection, with the request's body."""
    facts = begun.facts
    rated = rate_model(Reading(usage, context=facts.context), facts, begun.started_at, bench.catalog())
    return None if rated.cost is None else rated.cost.pico
