"""httpx: the transports of httpx and httpx2, sync and async, with a meter on every call; one code for both packages,
which have the same shapes."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from contextvars import ContextVar
from importlib import import_module
from types import ModuleType
from typing import Any, Final

from tallystick.capture.patching import Patches
from tallystick.metering.bench import ADMITTED
from tallystick.metering.callmeter import CallMeter
from tallystick.metering.growing import grown
from tallystick.metering.handover import awaitable
from tallystick.metering.leave import Denied
from tallystick.metering.meter import Meter
from tallystick.wire.routes import route

MeterFor = Callable[[], Meter]
"""Gives the meter in force."""

PACKAGES: Final = ("httpx", "httpx2")
WAIT: Final = 30.0
"""Seconds to wait for a settlement before its last bytes are handed over; a ledger needs milliseconds."""

metered_around: Final[ContextVar[bool]] = ContextVar("tallystick_httpx", default=False)
"""Whether a transport around this one already meters the call."""


def handles(client: object) -> bool:
    """Whether `attach` knows what to do with this object: a client of httpx or httpx2, sync or async."""
    return module_of(client) is not None and hasattr(client, "_transport") and hasattr(client, "_mounts")


def attach(client: Any, meter_for: MeterFor) -> None:
    """Meters the calls of one client: puts a transport of ours around each of its own."""
    module = module_of(client)
    if module is None:
        return
    client._transport = wrapped(client._transport, meter_for, module)  # noqa: SLF001 - httpx has no public way
    mounts = client._mounts  # noqa: SLF001 - as above
    for pattern, transport in list(mounts.items()):
        mounts[pattern] = wrapped(transport, meter_for, module)


def patch(meter_for: MeterFor) -> Callable[[], None]:
    """Meters every client of this process that sends with the package's own transports; the function returned undoes
    it."""
    patches = Patches()
    for name in PACKAGES:
        if name in sys.modules:
            _patch(patches, import_module(name), meter_for)
    return patches.undo


def _patch(patches: Patches, module: ModuleType, meter_for: MeterFor) -> None:
    def sync(original: Callable[..., Any]) -> Callable[..., Any]:
        def handle_request(self: Any, request: Any) -> Any:
            return send(meter_for, module, lambda sent: original(self, sent), request)

        return handle_request

    def asynchronous(original: Callable[..., Any]) -> Callable[..., Any]:
        async def handle_async_request(self: Any, request: Any) -> Any:
            return await send_async(meter_for, module, lambda sent: original(self, sent), request)

        return handle_async_request

    patches.wrap(module.HTTPTransport, "handle_request", sync)
    patches.wrap(module.AsyncHTTPTransport, "handle_async_request", asynchronous)


def module_of(instance: object) -> ModuleType | None:
    """The package, httpx or httpx2, that an object's class comes from, directly or by inheritance."""
    for kind in type(instance).__mro__:
        name = kind.__module__.partition(".")[0]
        if name in PACKAGES:
            return import_module(name)
    return None


def _metered(request: Any) -> str | None:
    """The URL of a request that may be a call, or fetch the result of one, if no other transport meters it."""
    if metered_around.get():
        return None
    url = str(request.url)
    return url if "/responses/" in url or route(request.method, url) is not None else None


class Lowered(Mapping[str, str]):
    """Headers by their names in lower case. A meter looks at few of them, so a value is read when it is asked for."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._raw = {name.lower(): value for name, value in raw}

    def __getitem__(self, name: str) -> str:
        return self._raw[name.encode("latin-1")].decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._raw)

    def __len__(self) -> int:
        return len(self._raw)

    def get(self, name: str, default: Any = None) -> Any:
        """A header's value, or the default."""
        value = self._raw.get(name.encode("latin-1"))
        return default if value is None else value.decode("latin-1")


def send(meter_for: MeterFor, module: ModuleType, inner: Callable[[Any], Any], request: Any) -> Any:
    """Sends a request through the real transport, with a meter on it."""
    url = _metered(request)
    if url is None:
        return inner(request)
    call = _begun(meter_for, url, request, _body(request, read=True))
    if call is None:
        return inner(request)
    token = metered_around.set(True)
    try:
        asked = call.ask()
        if asked is not ADMITTED and isinstance(verdict := asked.result(), Denied):
            refused = _refused(module, call, verdict)
            _settled(call.settled)
            return refused
        response = inner(_changed(module, call, request))
    except BaseException as error:
        call.failed(error)
        raise
    finally:
        metered_around.reset(token)
    return _followed(module, call, response, streams(module)[0])


async def send_async(meter_for: MeterFor, module: ModuleType, inner: Callable[[Any], Any], request: Any) -> Any:
    """Like `send`, on an event loop."""
    url = _metered(request)
    if url is None:
        return await inner(request)
    body = _body(request, read=False)
    if body is None:
        body = await request.aread()
    call = _begun(meter_for, url, request, body)
    if call is None:
        return await inner(request)
    token = metered_around.set(True)
    try:
        asked = call.ask()
        verdict = asked.result() if asked.done() else await _awaited(asked)
        if isinstance(verdict, Denied):
            refused = _refused(module, call, verdict)
            if call.settled is not None and not call.settled.done():
                await _awaited(call.settled)
            return refused
        response = await inner(_changed(module, call, request))
    except BaseException as error:
        call.failed(error)
        raise
    finally:
        metered_around.reset(token)
    return _followed(module, call, response, streams(module)[1])


def _begun(meter_for: MeterFor, url: str, request: Any, body: bytes) -> CallMeter | None:
    return meter_for().call(request.method, url, Lowered(request.headers.raw), body)


def _body(request: Any, *, read: bool) -> Any:
    """The request's body. A form is put together here; a body that is generated piece by piece is left alone, and None
    says that it has to be read on the loop."""
    content = getattr(request, "_content", None)
    if content is not None:
        return content
    if "multipart/" not in request.headers.get("content-type", ""):
        return b""
    return request.read() if read else None


def _changed(module: ModuleType, call: CallMeter, request: Any) -> Any:
    """The request to send: itself, or a copy with the changed body. The caller keeps seeing the one it made."""
    body = call.outgoing()
    if body is None:
        return request
    headers = [
        (name, value)
        for name, value in request.headers.raw
        if name.lower() not in (b"content-length", b"content-encoding", b"transfer-encoding")
    ]
    headers.append((b"Content-Length", b"%d" % len(body)))
    stream = module.ByteStream(body)
    return module.Request(request.method, request.url, headers=headers, stream=stream, extensions=request.extensions)


def _refused(module: ModuleType, call: CallMeter, denied: Denied) -> Any:
    status, headers, body = call.refusal(denied)
    return module.Response(status, headers=headers, stream=module.ByteStream(body))


def _followed(module: ModuleType, call: CallMeter, response: Any, stream: type) -> Any:
    raw = response.headers.raw
    handed = call.answered(response.status_code, Lowered(raw))
    if handed is not None:
        raw = [(name, value) for name, value in raw if name.decode("latin-1").lower() in handed]
    if "_content" in vars(response):
        # A transport of a test gives a response that is read already; nobody would ask its stream.
        return module.Response(
            response.status_code, headers=raw, stream=stream(response.stream, call), extensions=response.extensions
        )
    if handed is not None:
        response.headers = module.Headers(raw)
    response.stream = stream(response.stream, call)
    return response


def _settled(future: Future[Any] | None) -> None:
    """Waits until a call is settled."""
    if future is not None and not future.done():
        try:
            future.result(WAIT)
        except Late:
            return


async def _grown(pause: Future[int]) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    await grown(pause)


async def _awaited(future: Future[Any]) -> Any:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        # Another kind of loop (trio): this blocks it for the moment that a ledger needs.
        return future.result(WAIT)
    # Who stops waiting does not undo what is under way in another thread.
    return await asyncio.shield(awaitable(future))


@functools.cache
def streams(module: ModuleType) -> tuple[type, type]:
    """The classes of followed bodies, sync and async, for httpx or httpx2."""
    return (
        type("FollowedStream", (Followed, module.SyncByteStream), {}),
        type("AsyncFollowedStream", (AsyncFollowed, module.AsyncByteStream), {}),
    )


class Followed:
    """A body whose bytes pass a meter."""

    def __init__(self, inner: Any, call: CallMeter) -> None:
        self._inner = inner
        self._call = call

    def __iter__(self) -> Iterator[bytes]:
        call = self._call
        feed = call.feed
        waited = False
        try:
            for part in self._inner:
                handed = feed(part)
                if call.ended:
                    if not waited:
                        waited = True
                        _settled(call.settled)
                    if handed:
                        yield handed
                    if call.cut:
                        break
                elif handed:
                    yield handed
            rest = call.close("end")
            _settled(call.settled)
            if rest:
                yield rest
        except BaseException as error:
            call.close(_reason(error))
            raise
        if call.cut:
            self._inner.close()

    def close(self) -> None:
        """Lets go of the connection; a body that was not read to its end is settled as cancelled."""
        self._call.close("cancelled")
        self._inner.close()


class AsyncFollowed:
    """A body whose bytes pass a meter, on an event loop."""

    def __init__(self, inner: Any, call: CallMeter) -> None:
        self._inner = inner
        self._call = call

    async def __aiter__(self) -> AsyncIterator[bytes]:
        call = self._call
        feed = call.feed
        waited = False
        try:
            async for part in self._inner:
                handed = feed(part)
                if call.ended:
                    if not waited:
                        waited = True
                        if call.settled is not None and not call.settled.done():
                            await _awaited(call.settled)
                    if handed:
                        yield handed
                    if call.cut:
                        break
                else:
                    if call.pause is not None:
                        await _grown(call.pause)
                    if handed:
                        yield handed
            rest = call.close("end")
            if call.settled is not None and not call.settled.done():
                await _awaited(call.settled)
            if rest:
                yield rest
        except BaseException as error:
            call.close(_reason(error))
            raise
        if call.cut:
            await self._inner.aclose()

    async def aclose(self) -> None:
        """Lets go of the connection; a body that was not read to its end is settled as cancelled."""
        self._call.close("cancelled")
        await self._inner.aclose()


def _reason(error: BaseException) -> str:
    """Why a body ended early: the connection broke, or whoever reads it went away."""
    return "error" if isinstance(error, Exception) else "cancelled"


class Wrapped:
    """A transport around another one; everything but sending is the inner one's."""

    def __init__(self, inner: Any, meter_for: MeterFor, module: ModuleType) -> None:
        self.tallystick_inner = inner
        self.tallystick_meter_for = meter_for
        self._module = module

    def handle_request(self, request: Any) -> Any:
        """Sends a request, metered where it is a call."""
        return send(self.tallystick_meter_for, self._module, self.tallystick_inner.handle_request, request)

    async def handle_async_request(self, request: Any) -> Any:
        """Sends a request, metered where it is a call."""
        inner = self.tallystick_inner
        return await send_async(self.tallystick_meter_for, self._module, inner.handle_async_request, request)

    def close(self) -> None:
        """Closes the inner transport."""
        self.tallystick_inner.close()

    async def aclose(self) -> None:
        """Closes the inner transport."""
        await self.tallystick_inner.aclose()

    def __enter__(self) -> Any:
        self.tallystick_inner.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.tallystick_inner.__exit__(*error)

    async def __aenter__(self) -> Any:
        await self.tallystick_inner.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.tallystick_inner.__aexit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tallystick_inner, name)


@functools.cache
def _kinds(module: ModuleType) -> tuple[type, type]:
    """`Wrapped` as a transport of httpx or of httpx2, for those who look at the type."""
    return (
        type("MeteredTransport", (Wrapped, module.BaseTransport), {}),
        type("MeteredAsyncTransport", (Wrapped, module.AsyncBaseTransport), {}),
    )


def wrapped(transport: Any, meter_for: MeterFor, module: ModuleType) -> Any:
    """A transport with a meter on it. One that has one already gets the new one; None stays None."""
    if transport is None:
        return None
    if isinstance(transport, Wrapped):
        transport.tallystick_meter_for = meter_for
        return transport
    sync, asynchronous = _kinds(module)
    kind = sync if hasattr(transport, "handle_request") else asynchronous
    return kind(transport, meter_for, module)
