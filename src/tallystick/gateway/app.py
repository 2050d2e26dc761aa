"""App: what is served where. The path's first word is an upstream's name; everything else is the gateway's own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import quote

import msgspec

from tallystick.core.attribution import Tags
from tallystick.gateway.body import ClientGone, TooLarge, read_body
from tallystick.gateway.credentials import bears, presented
from tallystick.gateway.exchange import Exchange, Receive, Send
from tallystick.gateway.fence import Fence
from tallystick.gateway.keys import MARK, Key
from tallystick.gateway.limits import limited
from tallystick.gateway.naming import who_asks
from tallystick.gateway.paths import odd
from tallystick.gateway.relay import Relay, Request, shape
from tallystick.gateway.serving import lifespan
from tallystick.gateway.upstreams import BUILT_IN, Upstream
from tallystick.wire.answers import refusal
from tallystick.wire.routes import is_free

if TYPE_CHECKING:
    from tallystick.gateway.config import Settings
    from tallystick.gateway.keys import KeyRing
    from tallystick.metering.admission import BudgetAdmission
    from tallystick.metering.leave import Who
    from tallystick.metering.meter import CallMeter

App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
"""An ASGI application."""

HEALTH: Final = "/healthz"
LOGIN: Final = "/login"
"""Where a browser without the token is sent, if anything is mounted there."""

MOST_HEADERS: Final = 200
_NO_TAGS: Final = Tags()


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
    """The ASGI application. `house` can be changed while it serves; requests under way go on with the old one. `begin`
    is awaited when the server starts and `close` when it ends; `clock` gives seconds since 1970."""

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

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await lifespan(receive, send, self._begin, self._close)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})

    async def _serve(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        house = self.house
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        named = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        path: str = scope["path"]
        name, slash, _ = path[1:].partition("/")
        upstream = house.settings.upstreams.get(name) if slash else None
        exchange = Exchange(receive, send)
        try:
            why = house.fence.refuses(named, headers)
            if why is not None:
                await exchange.say(403, {"error": {"message": f"Refused: {why}.", "type": "forbidden"}})
            elif upstream is not None:
                await self._call(house, upstream, scope, named, exchange)
            else:
                await _own(house, scope, named, exchange)
        finally:
            exchange.close()

    async def _call(
        self,
        house: House,
        upstream: Upstream,
        scope: MutableMapping[str, Any],
        named: Mapping[str, str],
        exchange: Exchange,
    ) -> None:
        """Takes a request for a provider."""
        method: str = scope["method"]
        raw: bytes = scope["raw_path"]
        # The path goes on as it was spelt: a decoded one may mean something else.
        rest = "/" + raw.decode("latin-1")[1:].partition("/")[2]
        query: str = scope["query_string"].decode("latin-1")
        url = upstream.target(rest, query)
        try:
            relay = _relay(house, rest, query, scope["headers"])
            key = await self._key(house, scope["headers"], named)
            who = who_asks(named, _NO_TAGS, None) if key is None else who_asks(named, key.fixed(), key.open)
            if "upgrade" in named:
                self._admit_unmetered(house, upstream, key, who)
                _no_upgrade()
            instead = _instead(house, upstream, key, rest)
            body = await read_body(exchange.receive, named, house.settings.max_body)
            exchange.watch()
            request = Request(method, url, scope["headers"], named, body, upstream.provider, who, instead=instead)
            call = relay.meter(request)
            if call is not None:
                await self._metered(relay, request, call, key, exchange)
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

    async def _metered(
        self, relay: Relay, request: Request, call: CallMeter, key: Key | None, exchange: Exchange
    ) -> None:
        if key is not None and not key.allows(call.facts.model):
            raise Refused(403, f"This key may not call the model {str(call.facts.model)[:100]!r}.", "model_not_allowed")
        await relay.metered(request, call, exchange)

    async def _key(self, house: House, headers: list[tuple[bytes, bytes]], named: Mapping[str, str]) -> Key | None:
        """The virtual key of a request; None for one that brings a key of its own. Raises Refused."""
        found = presented(headers)
        token, settings = found.token, house.settings
        if token is None:
            if settings.token is not None and not bears(settings.token, named, pages=False):
                raise Refused(401, "A virtual key or the token in x-tally-token is needed here.", "no_key")
            if not settings.own_keys:
                raise Refused(401, "Only virtual keys are taken here: tally keys create.", "no_key")
            return None
        ring = house.keys
        if ring is not None and not found.several:
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


def _relay(house: House, path: str, query: str, headers: list[tuple[bytes, bytes]]) -> Relay:
    """The relay, for a request that may go on at all. Raises Refused."""
    if house.relay is None:
        raise Refused(503, "This gateway only reads: it was started with --read-only.", "read_only")
    if odd(path) or MARK in query:
        raise Refused(400, "This URL is not sent on: it is ambiguous, or holds a key.", "bad_url")
    if len(headers) > MOST_HEADERS:
        raise Refused(431, f"A request has at most {MOST_HEADERS} headers here.", "too_many_headers")
    return house.relay


def _no_upgrade() -> NoReturn:
    raise Refused(426, "Only plain HTTP is relayed: no WebSockets.", "unmetered")


def _instead(house: House, upstream: Upstream, key: Key | None, path: str) -> list[tuple[bytes, bytes]] | None:
    """The headers with the provider's key where a virtual one was brought. Raises Refused where there is none."""
    if key is None:
        return None
    secret = house.settings.keys.get(upstream.name)
    if secret is not None:
        return secret.headers(path)
    if upstream.name in BUILT_IN and upstream.url == BUILT_IN[upstream.name].url:
        raise Refused(503, f"The gateway holds no key for {upstream.name}.", "no_provider_key")
    return []


async def _own(house: House, scope: MutableMapping[str, Any], named: Mapping[str, str], exchange: Exchange) -> None:
    """Serves what is the gateway's own: whether it lives, and the rooms that are mounted."""
    path: str = scope["path"]
    if path == HEALTH:
        await exchange.say(200, {"status": "ok"})
        return
    page = "text/html" in named.get("accept", "")
    # What is mounted at "/" also tells a person, but no program, that there is nothing at a path.
    found = [
        prefix
        for prefix in house.mounts
        if path == prefix or (path.startswith(f"{prefix.rstrip('/')}/") and (prefix != "/" or page))
    ]
    token = house.settings.token
    if token is not None and path not in house.open_paths and not bears(token, named):
        if page and LOGIN in house.open_paths and scope["method"] == "GET":
            then = quote(f"{path}?{scope['query_string'].decode('latin-1')}".rstrip("?"), safe="")
            await exchange.give(303, {"location": f"{LOGIN}?next={then}", "cache-control": "no-store"}, b"")
            return
        await exchange.say(401, {"error": {"message": "The token is needed here.", "type": "unauthorized"}})
    elif found:
        await house.mounts[max(found, key=len)](scope, exchange.receive, exchange.send)
    else:
        known = ", ".join(f"/{one}" for one in house.settings.upstreams)
        await exchange.say(404, {"error": {"message": f"Nothing is served here. Providers: {known}."}})
