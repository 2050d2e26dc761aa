"""Sending: the narrow door to providers. Whatever HTTP client is behind it, the gateway knows only this of it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

from tallystick.errors import TallyError

Headers = Sequence[tuple[bytes, bytes]]
"""Headers as they are sent, names in lower case."""


class Prepared(list[tuple[bytes, bytes]]):
    """Headers that are sent with many requests; `lines` are the bytes that they come to. `begins` is for who sends
    them: the bytes of the whole head, but for the length, of the requests with one method to one URL."""

    __slots__ = ("begins", "lines")

    def __init__(self, headers: Headers) -> None:
        super().__init__(headers)
        self.lines = b"".join([b"%b: %b\r\n" % pair for pair in headers])
        self.begins: tuple[str, str, bytes] | None = None


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


class LiveAnswer(Answer, Protocol):
    """An answer that tells when something of it has come. `told` is called then, on the loop, instead of waking who
    waits; `begun` says that its head is there, `ended` that it is complete, `broken` that it never will be, and
    `paused` that no more of it is taken in before what has come is read."""

    told: Callable[[], None] | None
    begun: bool
    ended: bool
    paused: bool

    @property
    def broken(self) -> bool:
        """Whether the rest of it will never come."""
        ...

    def taken(self) -> bytes:
        """What has come and was not read; empty where that is nothing. Raises nothing."""
        ...

    def drop(self) -> None:
        """Stops reading, like `aclose`."""
        ...

    async def opened(self) -> Answer:
        """Returns the answer itself when its head is there. Raises UpstreamFault."""
        ...


class Sender(Protocol):
    """Sends requests to providers."""

    def send(self, method: str, url: str, headers: Headers, body: bytes) -> Coroutine[Any, Any, Answer]:
        """Sends a request and returns when the head of the answer is there. Raises UpstreamFault."""
        ...

    def begin(self, method: str, url: str, headers: Headers, body: bytes) -> LiveAnswer | None:
        """Sends a request on a connection that is there, without waiting for anything; None where there is none."""
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
