"""Heads: the headers of a provider's answer, as the client gets them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tallystick.gateway.exchange import Exchange, RawHeaders
from tallystick.gateway.naming import HOP, OURS
from tallystick.gateway.sending import Answer, Headers
from tallystick.ledger.entry import Entry
from tallystick.metering.leave import Admitted

if TYPE_CHECKING:
    from tallystick.metering.meter import CallMeter


def head_of(call: CallMeter, answer: Answer, decision: Admitted) -> RawHeaders:
    """The headers of an answer to a call, which hears of them here."""
    headers = answer.headers
    named = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    head = kept(headers, call.answered(answer.status, named))
    head.append((b"x-tally-call", call.call_id.encode()))
    if decision.capped:
        head.append((b"x-tally-capped", str(decision.max_output).encode()))
    if decision.budget is not None and decision.remaining is not None:
        head.append((b"x-tally-budget-remaining", decision.budget.shown(decision.remaining).encode()))
    return head


def kept(headers: Headers, instead: Mapping[str, str] | None) -> RawHeaders:
    """The headers of an answer that are for the client; with `instead` only those that it still has. Nobody but us says
    anything in our name."""
    return [
        pair
        for pair in headers
        if pair[0] not in HOP
        and not pair[0].startswith(OURS)
        and (instead is None or pair[0].decode("latin-1") in instead)
    ]


def reply(call: CallMeter, exchange: Exchange, status: int, head: RawHeaders, body: bytes) -> bool:
    """Answers with all of an answer at once, the call being settled; true where one should wait until it is taken."""
    if call.entry is not None:
        head.append((b"x-tally-cost", _cost(call.entry)))
    return exchange.reply(status, head, body)


def _cost(entry: Entry) -> bytes:
    amount = entry.amount
    return b"unknown" if amount is None else amount.plain().encode()
