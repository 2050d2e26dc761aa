"""Manner: what can be said of all requests that begin with the same head, found out once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tallystick.core.attribution import Tags
from tallystick.gateway.credentials import presented
from tallystick.gateway.naming import who_asks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tallystick.gateway.exchange import Head
    from tallystick.gateway.fence import Fence
    from tallystick.gateway.sending import Prepared
    from tallystick.gateway.upstreams import Upstream

_NO_TAGS: Final = Tags()


class Manner:
    """`why` the fence refuses such requests, if it does; the upstream they are for, if any, with the path below it, the
    query, and the provider's URL; the virtual key they bear; on whose behalf they are where they bear none; and the
    headers that then go on. `plain` says that a request of this manner has been let through to a provider without a
    virtual key, as all others then are. True as long as `house`, what the gateway is made of, is the same."""

    __slots__ = ("found", "headers", "house", "plain", "query", "rest", "upstream", "url", "who", "why")

    def __init__(self, house: object, fence: Fence, upstreams: Mapping[str, Upstream], head: Head) -> None:
        self.house = house
        # The path goes on as it was spelt: a decoded one may mean something else.
        name, slash, rest = head.target[1:].decode("latin-1").partition("/")
        self.why = fence.refuses(head.named, head.headers)
        self.upstream = upstreams.get(name) if slash else None
        self.rest = f"/{rest}"
        self.query = head.query.decode("latin-1")
        self.url = "" if self.upstream is None else self.upstream.target(self.rest, self.query)
        self.found = presented(head.headers)
        self.who = who_asks(head.named, _NO_TAGS, None)
        self.headers: Prepared | None = None
        self.plain = False
