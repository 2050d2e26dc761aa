"""Passage: one call on its way through, moved by what the loop calls. It has no task of its own, as long as there is
nothing to wait for but the provider; where there is, the relay goes on with one."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from tallystick.gateway.exchange import Exchange, RawHeaders
from tallystick.gateway.heads import head_of, reply
from tallystick.gateway.request import Request
from tallystick.gateway.sending import Answer, LiveAnswer
from tallystick.metering.leave import Admitted

if TYPE_CHECKING:
    from tallystick.metering.meter import CallMeter


class Tasks(Protocol):
    """How a call goes on with a task. See `Relay`."""

    def carried(
        self, request: Request, call: CallMeter, exchange: Exchange, decision: Admitted, live: LiveAnswer | None = None
    ) -> Coroutine[Any, Any, None]:
        """From where it has been sent."""
        ...

    def streamed(self, call: CallMeter, answer: Answer, exchange: Exchange, fed: bytes) -> Coroutine[Any, Any, None]:
        """From within a stream."""
        ...

    def completed(
        self, call: CallMeter, exchange: Exchange, status: int, head: RawHeaders, body: bytes
    ) -> Coroutine[Any, Any, None]:
        """From where all of the answer is there."""
        ...


class Passage:
    """A call that has been sent: `answer` is what comes of it, for `exchange`."""

    __slots__ = ("_answer", "_begun", "_call", "_decision", "_exchange", "_relay", "_request")

    def __init__(
        self,
        relay: Tasks,
        request: Request,
        call: CallMeter,
        exchange: Exchange,
        decision: Admitted,
        answer: LiveAnswer,
    ) -> None:
        self._relay = relay
        self._request = request
        self._call = call
        self._exchange = exchange
        self._decision = decision
        self._answer = answer
        self._begun = False
        exchange.passing = self
        answer.told = self.heard

    def heard(self) -> None:
        """Something of the answer has come, or nothing more will."""
        answer = self._answer
        with self._exchange:
            if answer.broken:
                self.left()
            elif self._begun or (answer.begun and self._call.facts.stream and answer.status < 400):
                self._pass_on()
            elif answer.ended:
                self._reply()
            elif answer.paused:
                # A long one: what has come has to be read before there is more.
                self.left()

    def left(self) -> None:
        """The client has gone, or the answer has broken off or is a long one: from here on with a task."""
        if self._begun:
            self._leave_rest(b"")
            return
        self._let_go()
        self._exchange.proceed(
            self._relay.carried(self._request, self._call, self._exchange, self._decision, self._answer)
        )

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._let_go()
        self._call.close("cancelled")
        self._answer.drop()

    def _reply(self) -> None:
        """The whole answer is there."""
        self._let_go()
        call, answer, exchange = self._call, self._answer, self._exchange
        head = head_of(call, answer, self._decision)
        body = call.feed(answer.taken()) + call.close("end")
        settled = call.settled
        if settled is None or settled.done():
            reply(call, exchange, answer.status, head, body)
        else:
            exchange.proceed(self._relay.completed(call, exchange, answer.status, head, body))

    def _pass_on(self) -> None:
        """A piece of a stream, or its end."""
        call, answer, exchange = self._call, self._answer, self._exchange
        if not self._begun:
            self._begun = True
            exchange.begin(answer.status, head_of(call, answer, self._decision))
        chunk = answer.taken()
        data = call.feed(chunk) if chunk else b""
        over = answer.ended or call.cut
        if over:
            data += call.close("end")
        settled = call.settled
        if (settled is not None and not settled.done()) or call.pause is not None:
            self._leave_rest(data)
        elif over:
            self._let_go()
            answer.drop()
            exchange.finish(data)
        else:
            exchange.piece(data)
            if exchange.crowded:
                self._leave_rest(b"")

    def _leave_rest(self, data: bytes) -> None:
        """The rest of a stream is passed on by a task, after these bytes."""
        self._let_go()
        self._exchange.proceed(self._relay.streamed(self._call, self._answer, self._exchange, data))

    def _let_go(self) -> None:
        # Who is part of a circle stays in memory until a garbage collection, with the request's body.
        self._answer.told = None
        self._exchange.passing = None
