"""Meter: makes a CallMeter of each request that is a call; one per process and ledger."""

from __future__ import annotations

import copy
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

import msgspec

from tallystick.catalog.catalog import Catalog
from tallystick.errors import TallyError
from tallystick.ledger.intents import Intents
from tallystick.ledger.ledger import Ledger
from tallystick.metering import reaper
from tallystick.metering.bench import Bench
from tallystick.metering.callmeter import CallMeter
from tallystick.metering.entropy import call_id
from tallystick.metering.faults import Faults
from tallystick.metering.leave import Admission, Who
from tallystick.metering.outgoing import wants_usage
from tallystick.metering.plan import Plan
from tallystick.metering.run import Block, current
from tallystick.metering.settling import Begun
from tallystick.metering.spool import Spool
from tallystick.metering.tracing import traced
from tallystick.wire.facts import request_facts

__all__ = ["CallMeter", "Meter"]

_RETRY: Final = "x-stainless-retry-count"
_RESPONSE: Final = re.compile(r"/responses/([^/]+)(?:/cancel)?/?\Z")
_NOBODY: Final = Who()
_SWITCH: Final = "TALLY_STREAM_USAGE"


class Meter:
    """Cheap to share between threads and event loops.

    `catalog` gives the rates in force. `admission` gives leave by budgets; None: there are none. `intents` shows calls
    in flight to other processes, `spool` keeps entries that the ledger cannot take. `clock` gives seconds since 1970
    UTC, `ticks` seconds that only grow, `ids` a new call id; `source` is what entries say. `stream_usage` False leaves
    every request as it is (`TALLY_STREAM_USAGE=off` does the same). `on_fault` is told of the first fault of a kind.
    """

    def __init__(
        self,
        ledger: Ledger,
        catalog: Callable[[], Catalog],
        *,
        admission: Admission | None = None,
        intents: Intents | None = None,
        spool: Spool | None = None,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
        ids: Callable[[], str] = call_id,
        source: str = "client",
        stream_usage: bool | None = None,
        on_fault: Callable[[str, Exception], object] | None = None,
    ) -> None:
        self._bench = Bench(
            ledger, catalog, admission=admission, intents=intents, spool=spool, clock=clock, ticks=ticks, ids=ids,
            source=source, on_fault=on_fault,
        )  # fmt: skip
        if stream_usage is None:
            stream_usage = os.environ.get(_SWITCH, "on").strip().lower() not in ("off", "0", "false", "no")
        self._stream_usage = stream_usage
        self._block: Block | None = None
        self._provider: str | None = None

    @property
    def ledger(self) -> Ledger:
        """Where the entries go."""
        return self._bench.ledger

    @property
    def admission(self) -> Admission | None:
        """Who gives leave by budgets; None: there are none."""
        return self._bench.admission

    @property
    def faults(self) -> Faults:
        """What went wrong in our own code, by where."""
        return self._bench.faults

    @property
    def missed(self) -> int:
        """How many entries the ledger could not take; they are in the spool, if that could be written."""
        return self._bench.missed

    def tagged(self, block: Block | None, provider: str | None) -> Meter:
        """This meter for one client, whose calls carry the block's tags and limit and are billed by `provider`."""
        if block is None and provider is None:
            return self
        other = copy.copy(self)
        other._block, other._provider = block, provider  # noqa: SLF001 - its own copy
        return other

    def call(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        provider: str | None = None,
        who: Who | None = None,
    ) -> CallMeter | None:
        """The meter of one request; None where there is nothing to meter. Never raises.

        `headers` have their names in lower case. `provider` names who bills where the caller knows better than the
        host. `who` None: the run and tags around the caller.
        """
        try:
            if self._block is None:
                return self._call(method, url, headers, body, provider or self._provider, who)
            with self._block:
                return self._call(method, url, headers, body, provider or self._provider, who)
        except Exception as error:  # noqa: BLE001 - promise 6: the call goes on
            self._bench.faults.add("call", error, "A call was not metered.")
            return None

    def gather(self, later: Callable[[float, Callable[[], object]], object]) -> None:
        """From now on calls that end on this thread wait for no ledger: their entries are kept where a killed process
        leaves them behind, and are handed over together a little later. `later` calls something on this thread after
        so many seconds, as an event loop's `call_later` does. Without `intents` nothing changes."""
        from tallystick.metering.basket import Basket

        self._bench.basket = Basket(self._bench, later)

    def recover(self) -> None:
        """Enters the calls that had ended when a process of this ledger was killed. Blocks. Raises LedgerError."""
        from tallystick.metering.repair import recover

        if self._bench.intents is not None:
            recover(self._bench.ledger, self._bench.intents.folder)

    def close(self) -> None:
        """Settles the calls that are still open. The ledger is the caller's to close."""
        basket, self._bench.basket = self._bench.basket, None
        if basket is not None:
            basket.hand_over()
        reaper.drain()
        for reference in list(self._bench.open.values()):
            call = reference()
            if call is not None:
                call.close("cancelled")
        for plan in self._bench.waiting():
            CallMeter(self._bench, plan).unfetched()
        # A call leaves the calls in flight when it is written, not when it is handed to the ledger.
        with suppress(TallyError):
            self._bench.ledger.flush()
        if self._bench.intents is not None:
            self._bench.intents.close()

    def _fetch(self, url: str) -> CallMeter | None:
        """The meter of a request for a background response that this process has started; it settles the call that
        started it."""
        found = _RESPONSE.search(urlsplit(url).path)
        plan: Plan | None = None if found is None else self._bench.parked(found[1])
        if plan is None:
            return None
        facts = msgspec.structs.replace(plan.begun.facts, stream="stream=true" in url)
        return self._made(msgspec.structs.replace(plan, begun=msgspec.structs.replace(plan.begun, facts=facts)))

    def _made(self, plan: Plan) -> CallMeter:
        return CallMeter(self._bench, plan)

    def _call(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        provider: str | None,
        who: Who | None,
    ) -> CallMeter | None:
        bench = self._bench
        facts = request_facts(method, url, headers, body, provider=provider)
        if facts is None:
            return self._fetch(url)
        scope = None
        if who is None:
            scope = current.get()
            who = _NOBODY if scope is None else scope.who
        trace = traced(headers)
        if trace is not None:
            who = msgspec.structs.replace(who, trace_id=trace[0], span_id=trace[1])
        if who.context:
            facts = msgspec.structs.replace(facts, context={**facts.context, **who.context})
        name, at = bench.ids(), bench.now()
        leave = bench.plain_leave
        if bench.admission is not None:
            leave = bench.admission.leave(name, facts, who, at)
        retry = headers.get(_RETRY)
        plan = Plan(
            begun=Begun(call_id=name, facts=facts, who=who, started_at=at, source=bench.source),
            leave=leave,
            scope=scope,
            url=url,
            inject=self._stream_usage and wants_usage(facts, url, bench.refusing),
            retry=retry,
        )
        reaper.start()
        return self._made(plan)
