"""Providers: how a request gets to its provider, directly or by a proxy."""

from __future__ import annotations

from collections.abc import Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tallystick.errors import ConfigError
from tallystick.gateway.sending import CONNECT_SECONDS, READ_SECONDS, Answer, Headers, LiveAnswer

if TYPE_CHECKING:
    from tallystick.gateway.reqwest import ReqwestSender


class ProviderSender:
    """Sends to providers: directly, or by the proxy that the environment names for one. `connect` is how many seconds a
    connection may take, `read` the longest silence; `ca` are certificates, as PEM, that are trusted beside the
    machine's own. Raises ConfigError for certificates that are none."""

    def __init__(
        self, *, connect: float = CONNECT_SECONDS, read: float = READ_SECONDS, ca: bytes | None = None
    ) -> None:
        import ssl

        from tallystick.gateway.direct import DirectSender

        context = ssl.create_default_context()
        try:
            if ca is not None:
                context.load_verify_locations(cadata=ca.decode("ascii", "replace"))
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(
                f"The certificates for providers cannot be used: {error}.", todo="Check ca in [gateway], SSL_CERT_FILE."
            ) from None
        paths = ssl.get_default_verify_paths()
        self._trusts = ca is not None or paths.cafile is not None or paths.capath is not None
        self._direct = DirectSender(context, connect=connect, read=read)
        self._other: ReqwestSender | None = None
        self._options = connect, read, ca
        self._ways: dict[str, bool] = {}

    def send(self, method: str, url: str, headers: Headers, body: bytes) -> Coroutine[Any, Any, Answer]:
        """Sends a request. See `Sender.send`."""
        if self._goes_direct(url):
            return self._direct.send(method, url, headers, body)
        if self._other is None:
            from tallystick.gateway.reqwest import ReqwestSender

            connect, read, ca = self._options
            self._other = ReqwestSender(connect=connect, read=read, ca=ca)
        return self._other.send(method, url, headers, body)

    def begin(self, method: str, url: str, headers: Headers, body: bytes) -> LiveAnswer | None:
        """Sends a request without waiting. See `Sender.begin`."""
        return self._direct.begin(method, url, headers, body) if self._goes_direct(url) else None

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._direct.aclose()
        if self._other is not None:
            await self._other.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _goes_direct(self, url: str) -> bool:
        start = url.find("/", 8)
        base = url if start < 0 else url[:start]
        direct = self._ways.get(base)
        if direct is None:
            direct = self._ways[base] = self._is_direct(base)
        return direct

    def _is_direct(self, base: str) -> bool:
        from urllib.parse import urlsplit
        from urllib.request import getproxies, proxy_bypass

        parts = urlsplit(base)
        proxies = getproxies()
        if (parts.scheme in proxies or "all" in proxies) and not proxy_bypass(parts.netloc):
            return False
        return parts.scheme == "http" or self._trusts
