"""Reqwest: the way to a provider through pyreqwest (hyper and rustls, in Rust), which knows every kind of proxy."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from tallystick.errors import ConfigError
from tallystick.gateway.sending import Answer, ConnectError, Headers, UpstreamFault

READ_AHEAD: Final = 1
"""Bytes of an answer that are read before its head is handed over, and ahead of a slow client. More would hold back the
first words of a slow stream, and hide its head where it breaks off early."""


class _Answer:
    """An answer of pyreqwest."""

    __slots__ = ("_error", "_read", "_request", "headers", "status")

    def __init__(self, request: Any, response: Any, error: type[Exception]) -> None:
        self._request = request
        self._read = response.body_reader.read_chunk
        self._error = error
        self.status: int = response.status
        self.headers: Headers = [
            (name.lower().encode("latin-1"), value.encode("utf-8")) for name, value in response.headers.items()
        ]

    def at_once(self) -> bytes | None:
        return None

    async def read(self) -> bytes | None:
        try:
            chunk = await self._read()
        except self._error as error:
            raise _reqwest_fault(error) from None
        return None if chunk is None else bytes(chunk)

    async def aclose(self) -> None:
        await self._request.__aexit__(None, None, None)


class ReqwestSender:
    """Sends with pyreqwest, where a proxy stands between us and the provider, or this machine has no certificates."""

    def __init__(self, *, connect: float, read: float, ca: bytes | None = None) -> None:
        from pyreqwest.client import ClientBuilder
        from pyreqwest.exceptions import BuilderError, PyreqwestError

        self._error = PyreqwestError
        builder = (
            ClientBuilder()
            .gzip(enable=False)
            .brotli(enable=False)
            .zstd(enable=False)
            .deflate(enable=False)
            .follow_redirects(enable=False)
            .referer(enable=False)
            .http1_lower_case_headers()
            .connect_timeout(timedelta(seconds=connect))
            .read_timeout(timedelta(seconds=read))
        )
        try:
            for certificate in () if ca is None else _certificates(ca):
                builder = builder.add_root_certificate_pem(certificate)
            self._client = builder.build()
        except (BuilderError, PyreqwestError, ValueError) as error:
            raise ConfigError(
                f"The certificates or proxies for providers cannot be used: {error}.",
                todo="Check ca in [gateway], SSL_CERT_FILE and HTTPS_PROXY.",
            ) from None

    async def send(self, method: str, url: str, headers: Headers, body: bytes) -> Answer:
        """Sends a request. See `Sender.send`."""
        named = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        try:
            builder = self._client.request(method, url).headers(named).streamed_read_buffer_limit(READ_AHEAD)
            request = (builder.body_bytes(body) if body else builder).build_streamed()
            response = await request.__aenter__()
        except (self._error, ValueError) as error:
            raise _reqwest_fault(error) from None
        return _Answer(request, response, self._error)

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._client.close()


def _reqwest_fault(error: Exception) -> UpstreamFault:
    # The client's own words hold the URL with its query string, which is nobody's business.
    from pyreqwest.exceptions import BuilderError, ConnectTimeoutError, PoolTimeoutError, RequestTimeoutError
    from pyreqwest.exceptions import ConnectError as NotConnected

    if isinstance(error, ConnectTimeoutError | PoolTimeoutError):
        return ConnectError("The provider could not be reached in time.", timed_out=True)
    if isinstance(error, RequestTimeoutError):
        return UpstreamFault("The provider did not answer in time.", timed_out=True)
    if isinstance(error, NotConnected):
        return ConnectError("The provider could not be reached.")
    if isinstance(error, BuilderError | ValueError):
        return ConnectError("The request cannot be sent to the provider as it is.")
    return UpstreamFault("The connection to the provider broke off.")


def _certificates(pem: bytes) -> list[bytes]:
    """The certificates of a bundle, each for itself."""
    end = b"-----END CERTIFICATE-----"
    return [part[part.index(b"-----BEGIN") :] + end for part in pem.split(end) if b"-----BEGIN CERTIFICATE" in part]
