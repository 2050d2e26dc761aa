"""urllib3: its connection pools, metered one HTTP attempt at a time, and the tap on the body of an answer.

The bytes are tapped as they come off the wire, below any content decoding, so whoever reads the answer gets what the
library would have handed over. A retry or a redirect of the library is an attempt of its own.
"""

from __future__ import annotations

import functools
import http
import io
from collections.abc import Callable, Mapping
from types import MethodType
from typing import TYPE_CHECKING, Any

from urllib3 import HTTPConnectionPool, PoolManager
from urllib3.response import HTTPResponse
from urllib3.util.response import is_fp_closed

from tallystick.capture.attempt import (
    Begin,
    MeterFor,
    asked,
    lowered,
    original,
    ours,
    plain_body,
    resized,
    rewrite,
    settled,
)
from tallystick.capture.patching import Patches
from tallystick.metering.callmeter import CallMeter
from tallystick.metering.leave import Denied


def handles(client: object) -> bool:
    """Whether `attach` knows what to do with this object: a pool manager or a connection pool."""
    return isinstance(client, PoolManager | HTTPConnectionPool)


def attach(client: Any, meter_for: MeterFor) -> None:
    """Meters the calls of one pool manager, with the pools it makes later, or of one connection pool."""
    begin = Begin(meter_for)
    if isinstance(client, HTTPConnectionPool):
        _attach_pool(client, begin)
        return
    for key in client.pools.keys():  # noqa: SIM118 - the container of pools cannot be iterated
        _attach_pool(client.pools[key], begin)
    make = original(client._new_pool)  # noqa: SLF001 - the one place where a manager makes a pool

    @functools.wraps(make)
    def new_pool(*args: Any, **options: Any) -> Any:
        pool = make(*args, **options)
        _attach_pool(pool, begin)
        return pool

    client._new_pool = ours(new_pool, make)  # noqa: SLF001


def patch(meter_for: MeterFor) -> Callable[[], None]:
    """Meters the calls of every connection pool of this process, except botocore's, which `capture.botocore` meters;
    the function returned undoes it."""
    begin, patches = Begin(meter_for), Patches()
    # One attempt, where urlopen is all of them.
    patches.wrap(HTTPConnectionPool, "_make_request", lambda plain: _metered(plain, begin))
    return patches.undo


def _attach_pool(pool: Any, begin: Begin) -> None:
    pool._make_request = MethodType(  # noqa: SLF001
        _metered(original(type(pool)._make_request), begin),  # noqa: SLF001
        pool,
    )


def _metered(plain: Callable[..., Any], begin: Begin) -> Callable[..., Any]:
    @functools.wraps(plain)
    def make_request(pool: Any, conn: Any, method: str, url: str, **options: Any) -> Any:
        target = whole_url(pool, url)
        if type(pool).__module__.startswith("botocore.") or not begin.wanted(method, target):
            return plain(pool, conn, method, url, **options)
        headers = options.get("headers") or {}
        call = begin.call(method, target, lowered(headers), plain_body(options.get("body")))
        if call is None:
            return plain(pool, conn, method, url, **options)
        leave = asked(call)
        if isinstance(leave, Denied):
            return _refused(pool, conn, call.refusal(leave), options)
        body = call.outgoing()
        if body is not None:
            options = {**options, "body": body, "headers": resized(headers, len(body)), "chunked": False}
        return _attempt(functools.partial(plain, pool, conn, method, url), call, conn, options)

    return ours(make_request, plain)  # type: ignore[no-any-return]


def _attempt(send: Callable[..., Any], call: CallMeter, conn: Any, options: dict[str, Any]) -> Any:
    """Sends a request without reading its answer, taps the answer, and reads it where that was asked for."""
    try:
        response = send(**{**options, "preload_content": False})
    except BaseException as error:
        call.failed(error)
        raise
    tap(response, call, conn)
    if options.get("preload_content", True):
        # The library reads before it tells the answer its pool and connection, and errors are worded by that.
        pool, held = response._pool, response._connection  # noqa: SLF001
        response._pool = response._connection = None  # noqa: SLF001
        response._body = response.read(decode_content=options.get("decode_content", True))  # noqa: SLF001
        response._pool, response._connection = pool, held  # noqa: SLF001
    return response


def _refused(pool: Any, conn: Any, refusal: tuple[int, dict[str, str], bytes], options: Mapping[str, Any]) -> Any:
    """Our own answer, as if the provider had sent it. The connection was not used and goes back to the pool."""
    if options.get("response_conn") is not None:
        pool._put_conn(conn)  # noqa: SLF001
    return answer(
        refusal,
        preload_content=options.get("preload_content", True),
        decode_content=options.get("decode_content", True),
        retries=options.get("retries"),
        request_method="POST",
    )


def answer(refusal: tuple[int, dict[str, str], bytes], **options: Any) -> HTTPResponse:
    """An answer of our own as urllib3 would give it."""
    status, headers, body = refusal
    return HTTPResponse(
        io.BytesIO(body),
        headers,
        status,
        11,
        version_string="HTTP/1.1",
        reason=http.HTTPStatus(status).phrase,
        **options,
    )


def whole_url(pool: Any, url: str) -> str:
    """The URL of a request as the pool knows it; a request to a proxy names it whole."""
    if not url.startswith("/"):
        return url
    host = f"[{pool.host}]" if ":" in pool.host and not pool.host.startswith("[") else pool.host
    return f"{pool.scheme}://{host}:{pool.port}{url}" if pool.port else f"{pool.scheme}://{host}{url}"


class Body:
    """The bytes of one answer on their way through its call: what came in is counted at once, and handed over when it
    may be. Used by one thread at a time."""

    def __init__(self, call: CallMeter, conn: Any = None) -> None:
        self.call = call
        self.ready = b""
        self.over = False
        self.busy = False
        self.left: int | None = None
        self._error: BaseException | None = None
        self._conn = conn

    @property
    def spent(self) -> bool:
        """Whether all has been handed over, the error that ended it too."""
        return self.over and not self.ready and self._error is None

    def take(self, data: bytes) -> None:
        """Takes in bytes from the wire. Once they end the call, it is settled before anybody sees them."""
        self.ready += self.call.feed(data)
        if self.call.ended:
            settled(self.call)

    def end(self, reason: str = "end") -> None:
        """No more bytes come."""
        if not self.over:
            self.over = True
            self.ready += self.call.close(reason)
            settled(self.call)

    def pull(self, read: Callable[[], Any]) -> Any:
        """Reads from the wire. Where the connection breaks, what was held back is handed over before the error."""
        self.busy = True
        try:
            return read()
        except BaseException as error:
            lost = getattr(error.args[1] if len(error.args) > 1 else error, "partial", None)
            if isinstance(lost, bytes):
                self.call.feed(lost)
            broken = isinstance(error, Exception)
            self.end("error" if broken else "cancelled")
            if broken and self.ready:
                self._error = error
                return b""
            raise
        finally:
            self.busy = False

    def stop(self, source: Any, *, chunked: bool) -> None:
        """The call was cut: closes the connection and makes the rest of the answer look like its end. `source` is what
        the answer reads from; one that reads chunks itself looks for the trailer after the last of them."""
        self.end("cut")
        self.left = None
        if self._conn is not None:
            self._conn.close()
        source.close()
        if chunked:
            source.fp = io.BytesIO()

    def hand(self, amount: int | None) -> bytes:
        """What may be handed over, at most `amount` bytes of it. Raises the error that ended the answer, after all."""
        if not self.ready and self._error is not None:
            error, self._error = self._error, None
            raise error
        if amount is None or amount < 0:
            amount = len(self.ready)
        data, self.ready = self.ready[:amount], self.ready[amount:]
        return data


class Tap:
    """What a tapped answer does differently: its raw reads go through the call."""

    if TYPE_CHECKING:
        _tally: Body
        _fp: Any
        chunk_left: int | None
        length_remaining: int | None

    def _raw_read(self, amt: int | None = None, *, read1: bool = False) -> Any:
        body = self._tally
        read = functools.partial(super()._raw_read, amt, read1=read1)  # type: ignore[misc]
        if amt == 0 or body.spent or self._fp is None:
            return read()
        while not body.ready and not body.over:
            data = body.pull(read)
            if data:
                body.take(data)
            if body.call.cut:
                body.stop(self._fp, chunked=False)
                self.length_remaining = None
            elif not data or (amt is None and not read1) or is_fp_closed(self._fp):
                body.end()
        # Who reads in pieces stops when the connection is closed, so the last piece has everything.
        return body.hand(None if is_fp_closed(self._fp) else amt)

    def _update_chunk_length(self) -> None:
        body = self._tally
        if self.chunk_left is not None:
            return
        if not body.over:
            body.pull(super()._update_chunk_length)  # type: ignore[misc]
            if not body.over and self.chunk_left:
                return
            body.end()
        if not body.ready:
            body.hand(0)
        self.chunk_left = len(body.ready)

    def _handle_chunk(self, amt: int | None) -> bytes:
        body = self._tally
        if not body.ready:
            body.take(body.pull(functools.partial(super()._handle_chunk, amt)))  # type: ignore[misc]
            body.left = None if body.over else self.chunk_left
            if body.call.cut and not body.over:
                body.stop(self._fp, chunked=True)
        data = body.hand(amt)
        self.chunk_left = len(body.ready) or body.left
        return data

    def close(self) -> None:
        """Closes the answer; one that was not read to its end is settled as far as it went."""
        super().close()  # type: ignore[misc]
        if not self._tally.busy and not self._tally.over:
            self._tally.over = True
            self._tally.call.close("cancelled")


@functools.lru_cache(maxsize=32)
def _tapped(kind: Any) -> type[Any]:
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (Tap, kind), names)


def tap(response: Any, call: CallMeter, conn: Any = None) -> None:
    """Lets the body of an answer that nobody has read pass through its call, whatever way it is read. `conn` is the
    connection to close when the call is cut."""
    before = lowered(response.headers)
    after = call.answered(response.status, before)
    if after is not None:
        rewrite(response.headers, before, after)
    response._tally = Body(call, conn)  # noqa: SLF001
    kind: Any = type(response)
    response.__class__ = _tapped(kind)
