"""Delivery: an answer's bytes onto the wire, with delays and cuts, and the call into the list."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import msgspec

from tallystick.core.usage import Usage
from tallystick.simulator.answer import Answer
from tallystick.simulator.call import Call
from tallystick.simulator.compress import Compressor, accepted, compressor
from tallystick.simulator.frames import Prepared, odd_ends
from tallystick.simulator.http import Connection
from tallystick.simulator.plan import Plan
from tallystick.simulator.request import Request


class Calls:
    """The calls of a simulator, the latest `keep` of them; safe to read from any thread. `deaf` says that nobody will
    ask for them, so that they are only numbered."""

    def __init__(self, keep: int | None, heard: Callable[[Call], None] | None) -> None:
        self._calls: deque[Call] = deque(maxlen=keep)
        self._news = threading.Condition()
        self._heard = heard
        self.deaf = keep == 0 and heard is None
        self.number = 0

    def add(self, call: Call) -> None:
        """Writes one call down."""
        with self._news:
            self._calls.append(call)
            self.number += 1
            self._news.notify_all()
        if self._heard is not None:
            self._heard(call)

    def listed(self) -> list[Call]:
        """The calls so far, in the order in which they ended."""
        with self._news:
            return list(self._calls)

    def wait(self, number: int, seconds: float) -> list[Call]:
        """The calls once there have been so many, or after so many seconds."""
        with self._news:
            self._news.wait_for(lambda: self.number >= number, seconds)
            return list(self._calls)


class Served(msgspec.Struct, frozen=True):
    """An answer on its way: what was decided, its bytes, its status and headers."""

    request: Request
    plan: Plan | None
    prepared: Prepared
    status: int
    headers: dict[str, str]
    response_id: str | None
    usage: Usage | None


class Delivery:
    """Writes answers. A call is noted before its last write, so that whoever has the answer finds the call."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def whole(self, served: Served, connection: Connection, answer: Answer) -> None:
        """An answer in one body with its length."""
        encoding = accepted(answer.encoding, served.request.headers)
        plain = served.prepared.body
        body = plain if encoding is None else compressor(encoding).whole(plain)
        if encoding is not None:
            served = _headed(served, "content-encoding", encoding)
        served = _headed(served, "content-length", str(len(body)))
        cut = answer.cut_after is not None
        size = len(body) if not cut else len(body) // 2 if answer.cut_inside else 0
        connection.head(served.status, served.headers)
        start = 0
        ends = list(_ends(answer, size, (size,)))
        for place, end in enumerate(ends):
            last = place == len(ends) - 1
            if last:
                self._note(served, connection, 0 if cut else 1, b"" if cut else plain, cut=cut)
            connection.write(body[start:end])
            start = end
            if not last:
                await _pause(answer, connection, place)
        if cut:
            connection.cut()

    async def stream(self, served: Served, connection: Connection, answer: Answer) -> None:
        """An answer in HTTP chunks, one for each write."""
        prepared = served.prepared
        encoding = accepted(answer.encoding, served.request.headers)
        if encoding is not None:
            served = _headed(served, "content-encoding", encoding)
        served = _headed(served, "transfer-encoding", "chunked")
        connection.head(served.status, served.headers)
        frames = len(prepared.ends)
        kept = frames if answer.cut_after is None else min(frames, answer.cut_after)
        cut = kept < frames
        size = _size(prepared, kept, inside=answer.cut_inside) if cut else len(prepared.body)
        squeeze = None if encoding is None else compressor(encoding)
        at = 0
        for place, (end, data) in enumerate(_writes(prepared, answer, size, squeeze)):
            if end == size:
                self._note(served, connection, kept, prepared.body[:size], cut=cut)
            elif connection.closed:
                self._note(served, connection, _frames_in(prepared, at), prepared.body[:at], cut=False)
                return
            connection.write(data)
            at = end
            if end < size:
                await _pause(answer, connection, place)
        if cut:
            connection.cut()
            return
        rest = b"" if squeeze is None else squeeze.end()
        connection.write((_chunk(rest) if rest else b"") + b"0\r\n\r\n")
        await connection.flow()

    def _note(self, served: Served, connection: Connection, frames: int, body: bytes, *, cut: bool) -> None:
        if self._calls.deaf:
            self._calls.number += 1
            return
        request, plan, way = served.request, served.plan, served.request.way
        call = Call(
            number=self._calls.number + 1,
            method=request.method,
            path=request.path,
            query=request.query,
            headers=request.headers,
            body=request.body,
            api=None if way is None else way.api,
            provider=None if way is None else way.provider,
            model=request.model if way is not None and request.method == "POST" else None,
            stream=not served.prepared.whole,
            status=served.status,
            response_headers=served.headers,
            response=body,
            response_id=served.response_id,
            usage=served.usage,
            text="" if plan is None else plan.text,
            delivered="".join(served.prepared.texts[:frames]),
            finish=None if plan is None else plan.finish,
            cut=cut,
            abandoned=connection.closed,
            typed=served.prepared.typed,
        )
        self._calls.add(call)


def _headed(served: Served, name: str, value: str) -> Served:
    return msgspec.structs.replace(served, headers={**served.headers, name: value})


def _writes(
    prepared: Prepared, answer: Answer, size: int, squeeze: Compressor | None
) -> Iterator[tuple[int, bytes | memoryview]]:
    """The writes, each with how much of the plain body it completes."""
    if answer.writes == "events" and squeeze is None and size == len(prepared.body):
        wire = memoryview(prepared.wire)
        start = 0
        for end, wire_end in zip(prepared.ends, prepared.wire_ends, strict=True):
            yield end, wire[start:wire_end]
            start = wire_end
        return
    start = 0
    for end in _ends(answer, size, (*(end for end in prepared.ends if end < size), size)):
        part = prepared.body[start:end]
        start = end
        if squeeze is not None:
            part = squeeze.part(part)
        yield end, _chunk(part) if part else b""


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _frames_in(prepared: Prepared, size: int) -> int:
    """How many events lie wholly in the first `size` bytes."""
    return sum(1 for end in prepared.ends if end <= size)


def _size(prepared: Prepared, frames: int, *, inside: bool) -> int:
    """The bytes of so many events, and half of the next one."""
    size = prepared.ends[frames - 1] if frames else 0
    return (size + prepared.ends[frames]) // 2 if inside else size


def _ends(answer: Answer, size: int, usual: Iterable[int]) -> Iterable[int]:
    if not size:
        # A body without bytes is written too: that is where the call is noted.
        return (0,)
    if answer.writes == "bytes":
        return range(1, size + 1)
    return odd_ends(size, answer.seed) if answer.writes == "odd" else usual


async def _pause(answer: Answer, connection: Connection, place: int) -> None:
    if answer.chunk_ms:
        await asyncio.sleep(answer.chunk_ms / 1000)
    elif answer.writes != "events" or place % 16 == 15:
        # What is cut apart must not leave in one packet, and other calls want their turn.
        await asyncio.sleep(0)
    await connection.flow()
