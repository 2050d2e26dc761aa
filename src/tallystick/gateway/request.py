"""Request: what a client asks of a provider, and what of it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from tallystick.gateway.credentials import onward
from tallystick.gateway.exchange import RawHeaders
from tallystick.gateway.sending import Headers, Prepared
from tallystick.metering.leave import Who

if TYPE_CHECKING:
    from tallystick.gateway.manner import Manner


class Request(msgspec.Struct):
    """A request for a provider, as the gateway has read it: `url` is the provider's, `headers` all of the client's as
    they came, `named` the same by their names in lower case. `instead` are the headers with the key that the gateway
    holds, where it takes the place of the client's. What is known of all requests with this head is in `manner`."""

    method: str
    url: str
    headers: RawHeaders
    named: Mapping[str, str]
    body: bytes
    provider: str | None
    who: Who
    instead: RawHeaders | None
    manner: Manner

    def onward(self, *, plain: bool = False) -> Headers:
        """The headers that go on to the provider. See `credentials.onward`."""
        if plain or self.instead is not None:
            return onward(self.headers, self.named, self.instead, plain=plain)
        manner = self.manner
        if manner.headers is None:
            manner.headers = Prepared(onward(self.headers, self.named, None))
        return manner.headers
