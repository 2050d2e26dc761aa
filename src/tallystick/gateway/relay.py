"""Relay: one call through the gateway: its bytes pass, its usage is read aside, its money is held and settled."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from tallystick.errors import TallyError
from tallystick.gateway.credentials import onward
from tallystick.gateway.exchange import Exchange, RawHeaders
from tallystick.gateway.naming import HOP, OURS
from tallystick.gateway.sending import Answer, Headers, Prepared, Sender, UpstreamFault
from tallystick.ledger.entry import Entry
from tallystick.metering.faults import LOG
from tallystick.metering.growing import grown
from tallystick.metering.handover import awaitable
from tallystick.metering.leave import Admitted, Denied, Who
from tallystick.wire.answers import refusal
from tallystick.wire.routes import route

if TYPE_CHECKING:
    from tallystick.gateway.manner import Manner
    from tallystick.metering.meter import CallMeter, Meter

WHOLE_BYTES: Final = 4 * 2**20
"""An answer that is no stream and not longer than this is read whole, so that its head can tell its cost."""

DRAIN_BYTES: Final = 64 * 2**20
"""How much is read on for the exact usage after the client has gone; how long, the exchange knows."""

_SHAPES: Final = {"anthropic": "anthropic.messages", "google": "gemini.generateContent", "aws": "bedrock.converse"}


class Request(msgspec.Struct):
    """A request for a provider, as the gateway has read it: `url` is the provider's, `headers` all of the client's as
    they came, `named` the same by their names in lower case. `instead` are the headers with the key that the gateway
    holds, where it takes the place of the client's. What is known of all requests with this head is in `manner`."""

    method: str
    url: str
    headers: RawHeaders
    named: Mapping[str, str]
    body: bytes
    provider: str | None
    who: Who
    instead: RawHeaders | None
    manner: Manner

    def onward(self, *, plain: bool = False) -> Headers:
        """The headers that go on to the provider. See `credentials.onward`."""
        if plain or self.instead is not None:
            return onward(self.headers, self.named, self.instead, plain=plain)
        manner = self.manner
        if manner.headers is None:
            manner.headers = Prepared(onward(self.headers, self.named, None))
        return manner.headers


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
            await exchange.start(answer.status, _kept(answer.headers, None))
            while (chunk := await answer.read()) is not None and not exchange.gone:
                await exchange.body(chunk)
            await exchange.end()
        except UpstreamFault:
            # The answer stays unfinished, so the server cuts the connection: the client sees what we saw.
            return
        finally:
            await answer.aclose()

    async def metered(self, request: Request, call: CallMeter, exchange: Exchange) -> None:
        """Relays one call and answers it."""
        try:
            asked = call.ask()
            decision = asked.result() if asked.done() else await awaitable(asked)
            if isinstance(decision, Denied):
                status, headers, body = call.refusal(decision)
                await exchange.give(status, {**headers, "x-tally-call": call.call_id}, body)
                return
            changed = call.outgoing()
            answer = await self._sender.send(
                request.method,
                request.url,
                request.onward(plain=changed is not None),
                request.body if changed is None else changed,
            )
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
            instead = call.answered(answer.status, _named(answer.headers))
            head = _kept(answer.headers, instead)
            _mark(head, call, decision)
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

    async def _whole(self, call: CallMeter, answer: Answer, exchange: Exchange, head: RawHeaders) -> None:
        """An answer that is no stream: read whole before it is begun, if it is not too long."""
        body = await self._read(call, answer, exchange, head)
        if body is None:
            await self._stream(call, answer, exchange)
            return
        body += call.close("end")
        future = call.settled
        if future is not None and not future.done():
            await settled(call)
        if call.entry is not None:
            head.append((b"x-tally-cost", _cost(call.entry)))
        if exchange.reply(answer.status, head, body):
            await exchange.taken()

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

    async def _stream(self, call: CallMeter, answer: Answer, exchange: Exchange) -> None:
        """Passes chunk by chunk. The call is settled before the client gets its last byte."""
        while (chunk := await answer.read()) is not None:
            data = call.feed(chunk)
            if call.ended:
                await settled(call)
            elif call.pause is not None:
                await grown(call.pause)
            if exchange.gone:
                await self._drain(call, answer)
                return
            if data:
                await exchange.body(data)
            if call.cut:
                break
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


def _named(headers: Headers) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}


def _kept(headers: Headers, instead: Mapping[str, str] | None) -> RawHeaders:
    """The headers of an answer for the client; with `instead` only those that it still has. Nobody but us says anything
    in our name."""
    return [
        pair
        for pair in headers
        if pair[0] not in HOP
        and not pair[0].startswith(OURS)
        and (instead is None or pair[0].decode("latin-1") in instead)
    ]


def _mark(head: RawHeaders, call: CallMeter, admitted: Admitted) -> None:
    head.append((b"x-tally-call", call.call_id.encode()))
    if admitted.capped:
        head.append((b"x-tally-capped", str(admitted.max_output).encode()))
    if admitted.budget is not None and admitted.remaining is not None:
        head.append((b"x-tally-budget-remaining", admitted.budget.shown(admitted.remaining).encode()))


def _cost(entry: Entry) -> bytes:
    return b"unknown" if entry.amount is None else entry.amount.plain().encode()


async def _fail(exchange: Exchange, request: Request, fault: UpstreamFault, call: CallMeter | None = None) -> None:
    """Answers for a provider that gave no answer. Its client may try again, as it would without us between."""
    api = shape(request.method, request.url, request.provider)
    status, headers, body = refusal(api, fault.what, status=504 if fault.timed_out else 502, code="upstream")
    kept = {name: value for name, value in headers.items() if name not in ("x-should-retry", "x-tally-refused")}
    if call is not None:
        kept["x-tally-call"] = call.call_id
    await exchange.give(status, kept, body)
