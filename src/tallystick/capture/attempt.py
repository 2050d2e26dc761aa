"""Attempt: what the transports beside httpx do alike with one HTTP attempt, without any I/O of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from contextvars import ContextVar
from typing import Any, Final, TypeVar

from tallystick.capture import httpx
from tallystick.capture.httpx import WAIT
from tallystick.metering.callmeter import CallMeter
from tallystick.metering.handover import awaitable
from tallystick.metering.leave import Admitted, Denied
from tallystick.metering.meter import Meter
from tallystick.wire.routes import route

_T = TypeVar("_T")

MeterFor = Callable[[], Meter | None]
"""Gives the meter in force; None: nothing is metered."""

OURS: Final = "tallystick_original"
"""The attribute of a function of ours that holds what it took the place of."""

_FRAMING: Final = frozenset({"content-length", "transfer-encoding", "content-encoding"})
_around: Final[ContextVar[bool]] = httpx.metered_around


class Begin:
    """Begins the calls of a client, or of a whole process."""

    def __init__(self, meter_for: MeterFor) -> None:
        self._meter_for = meter_for

    def wanted(self, method: str, url: str, provider: str | None = None) -> bool:
        """Whether a request may be a call at all, or fetch the result of one, and no transport around this one meters
        it."""
        return not _around.get() and ("/responses/" in url or route(method, url, provider) is not None)

    def call(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, provider: str | None = None
    ) -> CallMeter | None:
        """The meter of a request; None where there is nothing to meter. Header names are in lower case."""
        meter = self._meter_for()
        return None if meter is None else meter.call(method, url, headers, body, provider=provider)


def original(function: Any) -> Any:
    """What a function of ours took the place of, so that nothing is metered twice."""
    while hasattr(function, OURS):
        function = getattr(function, OURS)
    return function


def ours(function: Any, plain: Any) -> Any:
    """Marks a function as one of ours."""
    setattr(function, OURS, plain)
    return function


def lowered(headers: Mapping[Any, Any]) -> dict[str, str]:
    """Headers with their names in lower case, all as text."""
    return {_text(name).lower(): _text(value) for name, value in headers.items()}


def resized(headers: Mapping[Any, Any], length: int) -> dict[Any, Any]:
    """The headers of a request whose body is now plain and so many bytes long."""
    kept = {name: value for name, value in headers.items() if _text(name).lower() not in _FRAMING}
    return {**kept, "Content-Length": str(length)}


def rewrite(headers: Any, before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Changes headers in place by what differs between two readings of them, so that repeated ones stay."""
    for name in before:
        if name not in after:
            del headers[name]
    for name, value in after.items():
        if before.get(name) != value:
            headers[name] = value


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def plain_body(body: object) -> bytes:
    """The bytes of a request's body; none where it is a file or an iterator, which can be read only once."""
    if isinstance(body, str):
        return body.encode()
    return bytes(body) if isinstance(body, bytes | bytearray | memoryview) else b""


def asked(call: CallMeter) -> Admitted | Denied:
    """Waits for leave to send a call; who is interrupted in this gives it up."""
    try:
        return call.ask().result()
    except BaseException as error:
        call.failed(error)
        raise


def settled(call: CallMeter) -> None:
    """Waits until a call is settled, if it is to be."""
    future = call.settled
    if future is not None and not future.done():
        try:
            future.result(WAIT)
        except Late:
            return


async def waited(future: Future[_T]) -> _T:
    """The result of another thread's future. Who stops waiting does not cancel it: the ledger still writes."""
    return future.result() if future.done() else await asyncio.shield(awaitable(future))
