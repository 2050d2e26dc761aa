"""Credentials: what a request brings along to be let in, and the headers that go on to the provider in its place."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Final

import msgspec

from tallystick.gateway.keys import MARK
from tallystick.gateway.naming import HOP, OURS

RawHeaders = list[tuple[bytes, bytes]]

BEARERS: Final = frozenset({b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key"})
"""Headers in which the providers' clients send a key."""

COOKIE: Final = "tally_token"
"""The cookie in which a browser bears the token of our own pages."""

_MARK: Final = MARK.encode()
_SET_BY_US: Final = frozenset({b"host", b"content-length", b"expect"})
_DROPPED: Final = HOP | _SET_BY_US | {b"baggage"}


class Presented(msgspec.Struct, frozen=True):
    """What was found in a request: the virtual key it bears, and whether it bears more than one."""

    token: str | None = None
    several: bool = False


_NOTHING: Final = Presented()


def presented(headers: RawHeaders) -> Presented:
    """The virtual key of a request, in whichever header its client sends keys."""
    found: str | None = None
    several = False
    for name, value in headers:
        if _MARK in value and name in BEARERS:
            text = value.decode("latin-1").strip()
            if text[:7].lower() == "bearer ":
                text = text[7:].strip()
            if text.startswith(MARK):
                several = several or (found is not None and found != text)
                found = text
    return _NOTHING if found is None else Presented(found, several)


def bears(token: str, named: Mapping[str, str], *, pages: bool = True) -> bool:
    """Whether a request bears the token: in `x-tally-token`, and for our own pages also as `authorization: Bearer` or
    in our cookie. `named` are its headers by their names in lower case."""
    wanted = token.encode()
    offered = [named.get("x-tally-token", "")]
    if not pages:
        return hmac.compare_digest(offered[0].encode("utf-8", "replace"), wanted)
    scheme, _, rest = named.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        offered.append(rest.strip())
    if COOKIE in named.get("cookie", ""):
        try:
            morsel = SimpleCookie(named["cookie"]).get(COOKIE)
        except CookieError:
            morsel = None
        if morsel is not None:
            offered.append(morsel.value)
    return any(hmac.compare_digest(one.encode("utf-8", "replace"), wanted) for one in offered)


def onward(
    headers: RawHeaders, named: Mapping[str, str], instead: RawHeaders | None, *, plain: bool = False
) -> RawHeaders:
    """The headers that go on to the provider: all of the client's but those of its connection, those for us, and
    whatever holds a virtual key. With `instead` those take the place of all keys that the client sent. With `plain`
    the body has been changed and is not compressed any more."""
    left: frozenset[bytes] | set[bytes] = _DROPPED
    if "connection" in named:
        left = left | {name.strip().lower().encode("latin-1") for name in named["connection"].split(",")}
    if plain:
        left = left | {b"content-encoding"}
    if instead is not None:
        left = left | BEARERS
    if COOKIE in named.get("cookie", ""):
        left = left | {b"cookie"}
    kept = [pair for pair in headers if pair[0] not in left and not pair[0].startswith(OURS) and _MARK not in pair[1]]
    if "baggage" in named:
        baggage = [part for part in named["baggage"].split(",") if part.strip() and "tally." not in part]
        if baggage and MARK not in named["baggage"]:
            kept.append((b"baggage", ",".join(baggage).encode("latin-1")))
    return kept if instead is None else [*kept, *instead]
