"""aiohttp: client sessions, metered one HTTP attempt at a time by a client middleware of our own, the innermost, so
that it sees what is really sent. The body of an answer passes through a stream reader that settles the call before it
hands over the last bytes. google-genai and LiteLLM use it for their async calls. Wants aiohttp 3.12 or later.
"""

from __future__ import annotations

import asyncio
import functools
import http
import inspect
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, Final

import aiohttp
from aiohttp import ClientRequest, ClientResponse, ClientSession, StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.helpers import _EXC_SENTINEL as _NO_CAUSE
from aiohttp.payload import BytesPayload
from multidict import CIMultiDict, CIMultiDictProxy

from tallystick.capture.attempt import Begin, MeterFor, lowered, original, ours, rewrite, settled, waited
from tallystick.capture.patching import Patches
from tallystick.metering.callmeter import CallMeter
from tallystick.metering.growing import grown
from tallystick.metering.leave import Denied

_Handler = Callable[[ClientRequest], Awaitable[ClientResponse]]

_DECODED: Final = frozenset({"gzip", "deflate", "br", "zstd"})
"""Content encodings that aiohttp takes off before anybody reads."""
_LIMIT: Final = 2**16


def handles(client: Any) -> bool:
    """Whether `attach` knows what to do with this object: a client session, or the inner client of google-genai, which
    makes its sessions later."""
    return isinstance(client, ClientSession) or hasattr(client, "_get_aiohttp_session")


def attach(client: Any, meter_for: MeterFor) -> None:
    """Meters the calls of one session, or of those that google-genai's inner client will make."""
    if isinstance(client, ClientSession):
        # A session warns of attributes that are set on it in Python's development mode.
        object.__setattr__(client, "_request", _bound(client, Begin(meter_for)))
        return
    plain = original(client._get_aiohttp_session)  # noqa: SLF001

    @functools.wraps(plain)
    async def get_session() -> Any:
        session = await plain()
        if isinstance(session, ClientSession):
            attach(session, meter_for)
        return session

    client._get_aiohttp_session = ours(get_session, plain)  # noqa: SLF001


def patch(meter_for: MeterFor) -> Callable[[], None]:
    """Meters every session of this process; the function returned undoes it."""
    begin, patches = Begin(meter_for), Patches()
    patches.wrap(ClientSession, "_request", lambda plain: _metered(plain, begin))
    return patches.undo


def _bound(session: ClientSession, begin: Begin) -> Callable[..., Any]:
    """The session's own request function; it does not keep the session alive."""
    metered = _metered(original(type(session)._request), begin)  # noqa: SLF001
    held = weakref.ref(session)

    @functools.wraps(metered)
    async def request(*args: Any, **options: Any) -> ClientResponse:
        alive = held()
        if alive is None:
            raise RuntimeError("Session is closed")
        answer: ClientResponse = await metered(alive, *args, **options)
        return answer

    return request


def _metered(plain: Callable[..., Any], begin: Begin) -> Callable[..., Any]:
    @functools.wraps(plain)
    async def request(session: ClientSession, method: str, url: Any, **options: Any) -> ClientResponse:
        if method.upper() in ("POST", "GET"):
            given = options.get("middlewares")
            decodes = options.get("auto_decompress")
            meant = session._middlewares if given is None else given  # noqa: SLF001
            attempts = _Attempts(begin, session.auto_decompress if decodes is None else decodes)
            options["middlewares"] = (*meant, attempts)
        answer: ClientResponse = await plain(session, method, url, **options)
        return answer

    return ours(request, plain)  # type: ignore[no-any-return]


class _Attempts:
    """Meters the attempts of one request: its redirects, and what other middlewares send again."""

    def __init__(self, begin: Begin, decodes: bool) -> None:
        self._begin = begin
        self._decodes = decodes

    async def __call__(self, request: ClientRequest, send: _Handler) -> ClientResponse:
        url = str(request.url)
        if not self._begin.wanted(request.method, url):
            return await send(request)
        headers = lowered(request.headers)
        if request.compress:
            # The header says what will be done to the body, which is still plain.
            headers.pop("content-encoding", None)
        payload = request.body
        body = await payload.as_bytes() if isinstance(payload, BytesPayload) else b""
        call = self._begin.call(request.method, url, headers, body)
        if call is None:
            return await send(request)
        try:
            leave = await waited(call.ask())
            if isinstance(leave, Denied):
                return _refused(request, call.refusal(leave))
            wanted = call.outgoing()
            if wanted is not None:
                await _replace(request, wanted)
            response = await send(request)
        except BaseException as error:
            call.failed(error)
            raise
        self._tap(request, response, call)
        return response

    def _tap(self, request: ClientRequest, response: ClientResponse, call: CallMeter) -> None:
        before = lowered(response.headers)
        if self._decodes and before.get("content-encoding", "").lower() in _DECODED:
            # What will be read is plain, and its length is not known.
            del before["content-encoding"]
            before.pop("content-length", None)
        after = call.answered(response.status, before)
        if after is not None:
            headers = CIMultiDict(response.headers)
            rewrite(headers, before, after)
            response._headers = CIMultiDictProxy(headers)  # noqa: SLF001
        source, connection = response.content, response.connection
        if source is aiohttp.EMPTY_PAYLOAD:
            call.close()
            return
        response.content = Content(source, call, connection, request.loop)


async def _replace(request: ClientRequest, body: bytes) -> None:
    if not request.compress:
        request.headers.pop("Content-Encoding", None)
    await request.update_body(body)


def _refused(request: ClientRequest, refusal: tuple[int, dict[str, str], bytes]) -> ClientResponse:
    """Our own answer, as if the provider had sent it; it has no connection."""
    status, headers, body = refusal
    made: dict[str, Any] = {
        "writer": None,
        "continue100": None,
        "timer": None,
        "request_info": request.request_info,
        "traces": [],
        "loop": request.loop,
        "session": request.session,
        "stream_writer": _NoWriter(),
    }
    kind = request.response_class or ClientResponse
    known = inspect.signature(kind.__init__).parameters
    # What a response is made of differs between releases.
    response = kind(request.method, request.url, **{name: made[name] for name in made if name in known})
    response.version = aiohttp.HttpVersion11
    response.status = status
    response.reason = http.HTTPStatus(status).phrase
    response._headers = CIMultiDictProxy(CIMultiDict(headers))  # noqa: SLF001
    response._raw_headers = tuple((name.encode(), value.encode()) for name, value in headers.items())  # noqa: SLF001
    content = StreamReader(BaseProtocol(request.loop), _LIMIT, loop=request.loop)
    content.feed_data(body)
    content.feed_eof()
    response.content = content
    return response


class _NoWriter:
    """Stands where a response asks how much was sent."""

    output_size = 0


class Content(StreamReader):
    """The body of an answer on its way through its call. It reads from the stream reader that the connection fills,
    when somebody wants bytes of it, and settles the call before the last of them are there to be read."""

    __slots__ = ("_call", "_connection", "_over", "_source")

    def __init__(self, source: StreamReader, call: CallMeter, connection: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._call = call
        self._over = False
        self._source = source
        self._connection = connection
        super().__init__(BaseProtocol(loop), source.get_read_buffer_limits()[0], loop=loop)
        if source._http_chunk_splits is not None:  # noqa: SLF001
            self.begin_http_chunk_receiving()

    @property
    def total_raw_bytes(self) -> int:
        """How many bytes of the body have come off the wire."""
        return self._source.total_raw_bytes

    def set_read_chunk_size(self, n: int) -> None:
        """Raises the limits of the buffers to what the reader wants at once."""
        super().set_read_chunk_size(n)
        self._source.set_read_chunk_size(n)

    def exception(self) -> BaseException | None:
        """What ended the reading, if not the end of the body."""
        return self._exception or self._source.exception()

    def set_exception(self, exc: BaseException, exc_cause: BaseException = _NO_CAUSE) -> None:
        """Ends the reading: the answer was released or closed. What has come in by then still counts."""
        if not self._over:
            self._hear_rest()
        super().set_exception(exc, exc_cause)
        if self._source.exception() is None:
            self._source.set_exception(exc, exc_cause)

    def is_eof(self) -> bool:
        """Whether the last byte has come in."""
        return super().is_eof() or self._source.is_eof()

    def at_eof(self) -> bool:
        """Whether there is nothing more to read."""
        if not self._buffer and not self._over and self._source.at_eof():
            self._pull_now()
        return super().at_eof()

    def read_nowait(self, n: int = -1) -> bytes:
        """What is there to be read without waiting."""
        if not self._buffer and not self._over:
            self._pull_now()
        return super().read_nowait(n)

    async def wait_eof(self) -> None:
        """Waits until the last byte has come in."""
        if not self._over:
            await self._source.wait_eof()

    async def _wait(self, func_name: str) -> None:  # noqa: ARG002 - the reader's own hook, called when it has nothing
        if self._over:
            self.feed_eof()
            return
        try:
            pieces = [await self._source.readchunk()]
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._exception = error
            rest = self._finish("error")
            if rest:
                # What was held back is handed over before the error.
                self.feed_data(rest)
                return
            raise
        while self._source._buffer:  # noqa: SLF001 - everything that is there, as readany() gives it
            pieces.append(await self._source.readchunk())
        ready = []
        for data, end in pieces:
            ready.append((self._call.feed(data) if data else data, end))
            if self._call.cut:
                break
        done = self._done(pieces[-1] == (b"", False))
        try:
            if self._call.settled is not None and (self._over or self._call.ended):
                await waited(self._call.settled)
            elif self._call.pause is not None:
                await grown(self._call.pause)
        finally:
            for data, end in ready:
                self.feed_data(data)
                if end:
                    self.end_http_chunk_receiving()
            self._close(done)

    def _pull_now(self) -> None:
        """What `_wait` does, where nobody can wait: at most one commit of the ledger is waited for."""
        data = self._call.feed(self._source.read_nowait())
        done = self._done(empty=False)
        if self._call.settled is not None and (self._over or self._call.ended):
            settled(self._call)
        self.feed_data(data)
        self._close(done)

    def _done(self, empty: bool) -> bytes | None:
        """The last bytes where the body has ended, by itself or because the call was cut; otherwise None."""
        if self._call.cut:
            self._connection.close()
            return self._finish("cut")
        return self._finish("end") if empty or self._source.at_eof() else None

    def _close(self, rest: bytes | None) -> None:
        if rest is not None:
            self.feed_data(rest)
            self.feed_eof()

    def _finish(self, reason: str) -> bytes:
        if self._over:
            return b""
        self._over = True
        return self._call.close(reason)

    def _hear_rest(self) -> None:
        """Nobody will read on: counts what has come in, and settles."""
        source = self._source
        offset = source._buffer_offset  # noqa: SLF001
        for piece in source._buffer:  # noqa: SLF001
            self._call.feed(piece[offset:])
            offset = 0
        broken = "cancelled" if source.exception() is None else "error"
        self._finish("end" if source.is_eof() else broken)

    def __del__(self) -> None:
        if not self._over:
            self._hear_rest()
