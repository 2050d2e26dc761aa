"""App: what is served where. The path's first word is an upstream's name; everything else is the gateway's own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import quote

import msgspec

from tallystick.gateway.body import TooLarge, read_body
from tallystick.gateway.credentials import Presented, bears
from tallystick.gateway.exchange import ClientGone, Exchange, Receive, Send
from tallystick.gateway.fence import Fence
from tallystick.gateway.keys import MARK, Key
from tallystick.gateway.limits import limited
from tallystick.gateway.manner import Manner
from tallystick.gateway.naming import who_asks
from tallystick.gateway.paths import odd
from tallystick.gateway.relay import Relay, shape
from tallystick.gateway.request import Request
from tallystick.gateway.upstreams import BUILT_IN, Upstream
from tallystick.wire.answers import refusal
from tallystick.wire.routes import is_free

if TYPE_CHECKING:
    from tallystick.gateway.config import Settings
    from tallystick.gateway.keys import KeyRing
    from tallystick.metering.admission import BudgetAdmission
    from tallystick.metering.leave import Who

App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
"""An ASGI application."""

HEALTH: Final = "/healthz"
LOGIN: Final = "/login"
"""Where a browser without the token is sent, if anything is mounted there."""

MOST_HEADERS: Final = 200


class Refused(Exception):
    """A request is not let through: the status and words that its sender gets."""

    def __init__(self, status: int, message: str, code: str) -> None:
        self.status = status
        self.message = message
        self.code = code
        super().__init__(message)


class House(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway is made of. `relay` None: nothing is sent on (read-only). `keys` None: there are no virtual
    keys. `mounts` are further applications by the beginning of their path, served behind the same fence and token;
    `open_paths` are those of them that need no token (where one is entered)."""

    settings: Settings
    relay: Relay | None
    keys: KeyRing | None = None
    admission: BudgetAdmission | None = None
    fence: Fence = Fence()
    mounts: Mapping[str, App] = {}
    open_paths: frozenset[str] = frozenset()


class Gateway:
    """The application. `house` can be changed while it serves; requests under way go on with the old one. `begin` is
    awaited when the server starts and `close` when it ends; `clock` gives seconds since 1970."""

    def __init__(
        self,
        house: House,
        *,
        begin: Callable[[], Awaitable[None]] | None = None,
        close: Callable[[], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.house = house
        self._begin = begin
        self._close = close
        self._clock = clock

    async def begin(self) -> None:
        """Called before the first request."""
        if self._begin is not None:
            await self._begin()
        if self.house.relay is not None:
            await self.house.relay.begin()

    async def close(self) -> None:
        """Called after the last request."""
        if self.house.relay is not None:
            # A worker beside this one may have been killed, and none has come after it.
            await self.house.relay.recover()
        if self._close is not None:
            await self._close()

    async def serve(self, exchange: Exchange) -> None:
        """Answers one request."""
        house, head = self.house, exchange.head
        manner: Manner | None = head.known
        if manner is None or manner.house is not house:
            manner = head.known = Manner(house, house.fence, house.settings.upstreams, head)
        if manner.why is not None:
            await exchange.say(403, {"error": {"message": f"Refused: {manner.why}.", "type": "forbidden"}})
        elif manner.upstream is not None:
            await self._call(house, manner.upstream, manner, exchange)
        else:
            await _own(house, exchange)

    def at_once(self, exchange: Exchange) -> bool:
        """Answers a call like one that was let through before, with all of it there; false for any other request."""
        house, head = self.house, exchange.head
        manner: Manner | None = head.known
        if manner is None or not manner.plain or manner.house is not house:
            return False
        relay, upstream = house.relay, manner.upstream
        if relay is None or upstream is None:
            return False
        body = exchange.whole()
        call = None
        request = Request(
            head.method, manner.url, head.headers, head.named, body, upstream.provider, manner.who, None, manner
        )
        if len(body) <= house.settings.max_body:
            call = relay.meter(request)
        if call is None:
            exchange.filled(body)
            return False
        relay.at_once(request, call, exchange)
        return True

    async def _call(self, house: House, upstream: Upstream, manner: Manner, exchange: Exchange) -> None:
        """Takes a request for a provider."""
        head = exchange.head
        method, named, headers, url = head.method, head.named, head.headers, manner.url
        try:
            relay = _relay(house, manner, headers)
            if manner.found.token is None:
                key, who, instead = None, manner.who, None
                self._admit_own_key(house, named)
            else:
                key = await self._key(house, manner.found)
                who = who_asks(named, key.fixed(), key.open)
            if "upgrade" in named:
                self._admit_unmetered(house, upstream, key, who)
                _no_upgrade()
            if key is not None:
                instead = _instead(house, upstream, manner.rest)
            body = await read_body(exchange, house.settings.max_body)
            request = Request(method, url, headers, named, body, upstream.provider, who, instead, manner)
            call = relay.meter(request)
            if call is not None:
                manner.plain = key is None
                if key is not None and not key.allows(call.facts.model):
                    _no_model(call.facts.model)
                await relay.metered(request, call, exchange)
                return
            if not is_free(method, url):
                self._admit_unmetered(house, upstream, key, who)
            await relay.unmetered(request, exchange)
        except Refused as no:
            api = shape(method, url, upstream.provider)
            await exchange.give(*refusal(api, no.message, status=no.status, code=no.code))
        except TooLarge as error:
            api = shape(method, url, upstream.provider)
            await exchange.give(*refusal(api, str(error), status=413, code="too_large"))
        except ClientGone:
            return

    def _admit_own_key(self, house: House, named: Mapping[str, str]) -> None:
        """Raises Refused for a request without a virtual key where that is not enough."""
        settings = house.settings
        if settings.token is not None and not bears(settings.token, named, pages=False):
            raise Refused(401, "A virtual key or the token in x-tally-token is needed here.", "no_key")
        if not settings.own_keys:
            raise Refused(401, "Only virtual keys are taken here: tally keys create.", "no_key")

    async def _key(self, house: House, found: Presented) -> Key:
        """The virtual key of a request that bears one. Raises Refused."""
        ring, token = house.keys, found.token
        if ring is not None and token is not None and not found.several:
            if not ring.knows(token):
                await asyncio.to_thread(ring.look, token)
            key = ring.check(token, datetime.fromtimestamp(self._clock(), UTC))
            if key is not None:
                return key
        raise Refused(401, "This virtual key is unknown, expired or revoked.", "invalid_key")

    def _admit_unmetered(self, house: House, upstream: Upstream, key: Key | None, who: Who) -> None:
        """Raises Refused where something that cannot be metered would be a way around a limit."""
        if key is not None:
            if key.allow_unmetered:
                return
            raise Refused(403, "The cost of this path cannot be read, and this key must not use it.", "unmetered")
        budget = limited(house.admission, upstream.provider, who, datetime.fromtimestamp(self._clock(), UTC))
        if budget is not None:
            words = f"The cost of this path cannot be read, and the budget {budget} is a hard one."
            raise Refused(403, words, "unmetered")


def _relay(house: House, manner: Manner, headers: list[tuple[bytes, bytes]]) -> Relay:
    """The relay, for a request that may go on at all. Raises Refused."""
    if house.relay is None:
        raise Refused(503, "This gateway only reads: it was started with --read-only.", "read_only")
    if odd(manner.rest) or MARK in manner.query:
        raise Refused(400, "This URL is not sent on: it is ambiguous, or holds a key.", "bad_url")
    if len(headers) > MOST_HEADERS:
        raise Refused(431, f"A request has at most {MOST_HEADERS} headers here.", "too_many_headers")
    return house.relay


def _no_model(model: str | None) -> NoReturn:
    raise Refused(403, f"This key may not call the model {str(model)[:100]!r}.", "model_not_allowed")


def _no_upgrade() -> NoReturn:
    raise Refused(426, "Only plain HTTP is relayed: no WebSockets.", "unmetered")


def _instead(house: House, upstream: Upstream, path: str) -> list[tuple[bytes, bytes]]:
    """The headers with the provider's key, as a virtual one was brought. Raises Refused where there is none."""
    secret = house.settings.keys.get(upstream.name)
    if secret is not None:
        return secret.headers(path)
    if upstream.name in BUILT_IN and upstream.url == BUILT_IN[upstream.name].url:
        raise Refused(503, f"The gateway holds no key for {upstream.name}.", "no_provider_key")
    return []


async def _own(house: House, exchange: Exchange) -> None:
    """Serves what is the gateway's own: whether it lives, and the rooms that are mounted."""
    scope = exchange.scope()
    path: str = scope["path"]
    if path == HEALTH:
        await exchange.say(200, {"status": "ok"})
        return
    page = "text/html" in exchange.head.named.get("accept", "")
    # What is mounted at "/" also tells a person, but no program, that there is nothing at a path.
    found = [
        prefix
        for prefix in house.mounts
        if path == prefix or (path.startswith(f"{prefix.rstrip('/')}/") and (prefix != "/" or page))
    ]
    token = house.settings.token
    if token is not None and path not in house.open_paths and not bears(token, exchange.head.named):
        if page and LOGIN in house.open_paths and exchange.head.method == "GET":
            then = quote(f"{path}?{exchange.head.query.decode('latin-1')}".rstrip("?"), safe="")
            await exchange.give(303, {"location": f"{LOGIN}?next={then}", "cache-control": "no-store"}, b"")
            return
        await exchange.say(401, {"error": {"message": "The token is needed here.", "type": "unauthorized"}})
    elif found:
        await house.mounts[max(found, key=len)](scope, exchange.receive, exchange.send)
    else:
        known = ", ".join(f"/{one}" for one in house.settings.upstreams)
        await exchange.say(404, {"error": {"message": f"Nothing is served here. Providers: {known}."}})
