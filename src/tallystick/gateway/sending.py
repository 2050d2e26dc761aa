"""Sending: the narrow door to providers. Whatever HTTP client is behind it, the gateway knows only this of it."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, Final, Protocol

from tallystick.errors import TallyError

Headers = Sequence[tuple[bytes, bytes]]
"""Headers as they are sent, names in lower case."""


class Prepared(list[tuple[bytes, bytes]]):
    """Headers that are sent with many requests; `lines` are the bytes that they come to."""

    __slots__ = ("lines",)

    def __init__(self, headers: Headers) -> None:
        super().__init__(headers)
        self.lines = b"".join([b"%b: %b\r\n" % pair for pair in headers])


CONNECT_SECONDS: Final = 10.0
READ_SECONDS: Final = 600.0
"""The longest silence of a provider within an answer; reasoning models think for minutes before they speak."""


class UpstreamFault(TallyError):
    """The provider could not be reached, or its answer broke off; `timed_out` says that it was silent for too long."""

    def __init__(self, what: str, *, timed_out: bool = False) -> None:
        self.timed_out = timed_out
        super().__init__(what)


class ConnectError(UpstreamFault):
    """There is no connection to the provider: no byte of the request has left."""


class Answer(Protocol):
    """An answer as it arrives."""

    @property
    def status(self) -> int:
        """The status."""
        ...

    @property
    def headers(self) -> Headers:
        """The headers."""
        ...

    def at_once(self) -> bytes | None:
        """All that has come and was not read; None where the answer may not be complete with that. Raises nothing."""
        ...

    async def read(self) -> bytes | None:
        """The next bytes, None at the end. Raises UpstreamFault."""
        ...

    async def aclose(self) -> None:
        """Stops reading; the connection goes back to the pool when the answer was read to its end."""
        ...


class Sender(Protocol):
    """Sends requests to providers."""

    def send(self, method: str, url: str, headers: Headers, body: bytes) -> Coroutine[Any, Any, Answer]:
        """Sends a request and returns when the head of the answer is there. Raises UpstreamFault."""
        ...

    async def aclose(self) -> None:
        """Closes all connections."""
        ...


def fault_of(error: Exception) -> UpstreamFault:
    """What a connection that could not be made means; the error's own words may hold too much."""
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return ConnectError("The provider's certificate is not trusted here.")
    return ConnectError("The provider could not be reached.")
