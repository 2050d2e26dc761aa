"""Fence: which requests are heard at all. Loopback is no fence by itself, for any web page can send requests to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

import msgspec

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "[::1]", "::1"})
"""Names that always mean this machine."""


class Fence(msgspec.Struct, frozen=True):
    """The hosts under which the gateway may be addressed, beside loopback. `addresses` lets any numeric address
    through: nobody can make a name out of one."""

    hosts: frozenset[str] = frozenset()
    addresses: bool = False

    @classmethod
    def of(cls, hosts: Iterable[str], *, addresses: bool = False) -> Fence:
        """A fence that also lets these host names through."""
        return cls(frozenset(_bare(host) for host in hosts), addresses)

    def refuses(self, headers: Mapping[str, str], raw: Sequence[tuple[bytes, bytes]] = ()) -> str | None:
        """Why a request is not heard, or None. `headers` are by their names in lower case, `raw` all as they came.

        A foreign Host means that somebody's name was made to point here; a foreign Origin or a cross-site fetch means
        that a web page asks, and no page but our own has anything to ask.
        """
        host = _bare(headers.get("host", ""))
        if not self._ours(host) or len([1 for name, _ in raw if name == b"host"]) > 1:
            return "this host name is not served here"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return "requests of other sites are not served"
        origin = headers.get("origin")
        if origin is not None and not self._is_own(origin, headers.get("host", "")):
            return "requests of other origins are not served"
        return None

    def _ours(self, host: str) -> bool:
        return host in LOOPBACK or host in self.hosts or (self.addresses and _is_address(host))

    def _is_own(self, origin: str, host: str) -> bool:
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower() and self._ours(_bare(host))


def _bare(host: str) -> str:
    """A Host header without its port."""
    host = host.strip().lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _is_address(host: str) -> bool:
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
