"""Relay: one call through the gateway: its bytes pass, its usage is read aside, its money is held and settled."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

from tallystick.errors import TallyError
from tallystick.gateway.exchange import Exchange, RawHeaders
from tallystick.gateway.heads import head_of, kept, reply
from tallystick.gateway.passage import Passage
from tallystick.gateway.request import Request
from tallystick.gateway.sending import Answer, Headers, LiveAnswer, Sender, UpstreamFault
from tallystick.metering.faults import LOG
from tallystick.metering.growing import grown
from tallystick.metering.handover import awaitable
from tallystick.metering.leave import Admitted, Denied
from tallystick.wire.answers import refusal
from tallystick.wire.routes import route

if TYPE_CHECKING:
    from tallystick.metering.meter import CallMeter, Meter

WHOLE_BYTES: Final = 4 * 2**20
"""An answer that is no stream and not longer than this is read whole, so that its head can tell its cost."""

DRAIN_BYTES: Final = 64 * 2**20
"""How much is read on for the exact usage after the client has gone; how long, the exchange knows."""

_SHAPES: Final = {"anthropic": "anthropic.messages", "google": "gemini.generateContent", "aws": "bedrock.converse"}


class Relay:
    """Relays calls. `meter` follows them, `sender` sends them on."""

    def __init__(self, meter: Meter, sender: Sender) -> None:
        self._meter = meter
        self._sender = sender

    async def begin(self) -> None:
        """Called before the first request, on the loop that serves."""
        await self.recover()
        self._meter.gather(asyncio.get_running_loop().call_later)

    async def recover(self) -> None:
        """Enters what a killed process of this ledger had finished."""
        try:
            await asyncio.to_thread(self._meter.recover)
        except TallyError as error:
            LOG.warning("calls of a killed process are not in the ledger yet: %s", error)

    def meter(self, request: Request) -> CallMeter | None:
        """The meter of a request; None where it is no call that could be metered."""
        return self._meter.call(
            request.method, request.url, request.named, request.body, provider=request.provider, who=request.who
        )

    async def unmetered(self, request: Request, exchange: Exchange) -> None:
        """A request that is no call: it goes through as it is."""
        try:
            answer = await self._sender.send(request.method, request.url, request.onward(), request.body)
        except UpstreamFault as fault:
            await _fail(exchange, request, fault)
            return
        try:
            await exchange.start(answer.status, kept(answer.headers, None))
            while (chunk := await answer.read()) is not None and not exchange.gone:
                await exchange.body(chunk)
            await exchange.end()
        except UpstreamFault:
            # The answer stays unfinished, so the server cuts the connection: the client sees what we saw.
            return
        finally:
            await answer.aclose()

    def at_once(self, request: Request, call: CallMeter, exchange: Exchange) -> None:
        """Relays one call without a task, as far as nothing has to be waited for but the provider."""
        asked = call.ask()
        if not asked.done():
            exchange.proceed(self.metered(request, call, exchange, asked))
            return
        decision = asked.result()
        if isinstance(decision, Denied):
            exchange.proceed(_deny(call, exchange, decision))
            return
        answer = self._sender.begin(*self._sent(request, call))
        if answer is None:
            exchange.proceed(self.carried(request, call, exchange, decision))
        else:
            Passage(self, request, call, exchange, decision, answer)

    async def metered(
        self, request: Request, call: CallMeter, exchange: Exchange, asked: Future[Admitted | Denied] | None = None
    ) -> None:
        """Relays one call and answers it. `asked` is the leave that was asked for, if it was."""
        try:
            asked = asked or call.ask()
            decision = asked.result() if asked.done() else await awaitable(asked)
            if isinstance(decision, Denied):
                await _deny(call, exchange, decision)
                return
        except BaseException as error:
            call.failed(error)
            raise
        await self.carried(request, call, exchange, decision)

    def _sent(self, request: Request, call: CallMeter) -> tuple[str, str, Headers, bytes]:
        """What is sent to the provider."""
        changed = call.outgoing()
        if changed is None:
            return request.method, request.url, request.onward(), request.body
        return request.method, request.url, request.onward(plain=True), changed

    async def carried(
        self,
        request: Request,
        call: CallMeter,
        exchange: Exchange,
        decision: Admitted,
        live: LiveAnswer | None = None,
    ) -> None:
        """Relays a call that may go. `live` is where its answer arrives, if it has been sent."""
        try:
            if live is None:
                answer = await self._sender.send(*self._sent(request, call))
            else:
                answer = await live.opened()
        except UpstreamFault as fault:
            call.failed(fault)
            await settled(call)
            await _fail(exchange, request, fault, call)
            return
        except BaseException as error:
            call.failed(error)
            raise
        # From here on the request's bytes are of no more use.
        request.body = b""
        reason = "cancelled"
        try:
            head = head_of(call, answer, decision)
            if call.facts.stream and answer.status < 400:
                await exchange.start(answer.status, head)
                await self._stream(call, answer, exchange)
            else:
                await self._whole(call, answer, exchange, head)
            reason = "cancelled" if exchange.gone_seen else "end"
        except UpstreamFault:
            reason = "error"
        finally:
            # Whatever happened, the call is settled; on a good end it has been, and this changes nothing.
            call.close(reason)
            await answer.aclose()

    async def streamed(self, call: CallMeter, answer: Answer, exchange: Exchange, fed: bytes) -> None:
        """The rest of a stream that has begun. `fed` are bytes that the call has taken in and the client has not."""
        reason = "cancelled"
        try:
            await self._stream(call, answer, exchange, fed)
            reason = "cancelled" if exchange.gone_seen else "end"
        except UpstreamFault:
            reason = "error"
        finally:
            call.close(reason)
            await answer.aclose()

    async def completed(self, call: CallMeter, exchange: Exchange, status: int, head: RawHeaders, body: bytes) -> None:
        """Answers with a whole answer when the call is settled; it is closed."""
        await settled(call)
        if reply(call, exchange, status, head, body):
            await exchange.taken()

    async def _whole(self, call: CallMeter, answer: Answer, exchange: Exchange, head: RawHeaders) -> None:
        """An answer that is no stream: read whole before it is begun, if it is not too long."""
        body = await self._read(call, answer, exchange, head)
        if body is None:
            await self._stream(call, answer, exchange)
            return
        await self.completed(call, exchange, answer.status, head, body + call.close("end"))

    async def _read(self, call: CallMeter, answer: Answer, exchange: Exchange, head: RawHeaders) -> bytes | None:
        """The body of an answer; None for a long one, of which the head and what has come are sent on."""
        body = answer.at_once()
        if body is not None and len(body) <= WHOLE_BYTES:
            return call.feed(body)
        held: list[bytes] = []
        size = 0
        try:
            chunk = body if body is not None else await answer.read()
            while chunk is not None:
                held.append(call.feed(chunk))
                size += len(chunk)
                if size > WHOLE_BYTES:
                    break
                chunk = await answer.read()
        except UpstreamFault:
            # The client sees what we saw: a beginning, and then no connection.
            call.close("error")
            await settled(call)
            await exchange.start(answer.status, head)
            await exchange.body(b"".join(held))
            raise
        if size <= WHOLE_BYTES:
            return b"".join(held)
        await exchange.start(answer.status, head)
        await exchange.body(b"".join(held))
        return None

    async def _stream(self, call: CallMeter, answer: Answer, exchange: Exchange, fed: bytes = b"") -> None:
        """Passes chunk by chunk. The call is settled before the client gets its last byte."""
        data = fed
        while True:
            if call.ended:
                await settled(call)
            elif call.pause is not None:
                await grown(call.pause)
            if exchange.gone:
                await self._drain(call, answer)
                return
            await exchange.body(data)
            if call.cut:
                break
            chunk = await answer.read()
            if chunk is None:
                break
            data = call.feed(chunk)
        data = call.close("end")
        await settled(call)
        await exchange.end(data)

    async def _drain(self, call: CallMeter, answer: Answer) -> None:
        """The client has gone; the provider goes on and will bill, so its usage is read to the end, within bounds: so
        many bytes here, so much time by the exchange, which ends the task."""
        left = DRAIN_BYTES
        while left > 0 and not call.ended:
            chunk = await answer.read()
            if chunk is None:
                break
            call.feed(chunk)
            left -= len(chunk)
        call.close("cancelled")
        await settled(call)


async def settled(call: CallMeter) -> None:
    """Returns when the call is in the ledger, or in the spool where the ledger cannot take it."""
    future = call.settled
    if future is None or future.done():
        return
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def heard(_future: object) -> None:
        # A loop that has ended has nobody who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(wake)

    future.add_done_callback(heard)
    await waiter


def shape(method: str, url: str, provider: str | None) -> str:
    """The API in whose words a request is answered by us."""
    routed = route(method, url, provider)
    return routed.api if routed is not None else _SHAPES.get(provider or "", "")


async def _deny(call: CallMeter, exchange: Exchange, denied: Denied) -> None:
    status, headers, body = call.refusal(denied)
    await exchange.give(status, {**headers, "x-tally-call": call.call_id}, body)


async def _fail(exchange: Exchange, request: Request, fault: UpstreamFault, call: CallMeter | None = None) -> None:
    """Answers for a provider that gave no answer. Its client may try again, as it would without us between."""
    api = shape(request.method, request.url, request.provider)
    status, headers, body = refusal(api, fault.what, status=504 if fault.timed_out else 502, code="upstream")
    kept = {name: value for name, value in headers.items() if name not in ("x-should-retry", "x-tally-refused")}
    if call is not None:
        kept["x-tally-call"] = call.call_id
    await exchange.give(status, kept, body)
