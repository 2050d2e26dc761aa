"""CallMeter: one HTTP attempt, followed from its request to its entry. No I/O: who holds the socket feeds it."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from typing import Final

import msgspec

from tallystick.errors import TallyError
from tallystick.ledger.entry import Entry
from tallystick.ledger.ledger import Receipt
from tallystick.metering.bench import ADMITTED, KEPT, Bench, done
from tallystick.metering.ceiling import Ceiling, limited
from tallystick.metering.counting import Delivered, prompt_tokens, warm
from tallystick.metering.finished import pack_note
from tallystick.metering.growing import Growth
from tallystick.metering.leave import Admitted, Denied
from tallystick.metering.live import TICK, Live
from tallystick.metering.outgoing import host_of, with_max_output
from tallystick.metering.plan import NEVER_SENT, Plan, price_of
from tallystick.metering.reaper import collecting, settle_later
from tallystick.metering.settling import End, entry_of, with_output
from tallystick.wire.encodings import Inflater
from tallystick.wire.facts import RequestFacts
from tallystick.wire.heard import Outcome
from tallystick.wire.reader import Reader, reader_for
from tallystick.wire.transform import Gate, UsageFilter, end_event, inject_usage, refusal

AT_ONCE: Final = 32
"""So many pieces of an answer are read at once, or fewer if a tick comes before."""

_LF, _CR = b"\n\r"
_FORWARDED: Final = 2**60
"""A body that is inflated for the caller has no bound of ours; the caller would inflate it as well."""

_STATUS: Final = {"end": "ok", "cut": "cut", "cancelled": "cancelled", "error": "error"}
_OTHER: Final = {"refused": "refused", "unsent": "error", "unfetched": "ok"}


class CallMeter:
    """One attempt. Used by one thread or task at a time, in this order: `ask`, `outgoing`, `answered`, `feed` as often
    as there are bytes, `close`; or `refusal` after a refusal, or `failed` where no answer came.

    `ended` is true once the format's own end has been seen, or the stream was cut by us (then `cut` too: stop reading
    upstream). `entry` is what goes into the ledger, and `settled` is there, as soon as the call is settled; `settled`
    never raises. Wait for it before handing over the bytes of the `feed` that made `ended` true. None of this ever
    raises: where we fail, bytes pass as they are.
    """

    __slots__ = (
        "__weakref__", "_admitted", "_array", "_began", "_bench", "_calm", "_ceiling", "_closed", "_delivered",
        "_filter", "_gate", "_growth", "_inflater", "_injected", "_leave", "_limited", "_live", "_open", "_plain",
        "_plan", "_reader", "_sent", "_status", "_stopped_by", "_tick", "_ticks", "_ttft", "_waiting", "call_id",
        "cut", "ended", "entry", "facts", "settled",
    )  # fmt: skip

    def __init__(self, bench: Bench, plan: Plan) -> None:
        self._bench = bench
        self._plan = plan
        self._leave = plan.leave
        self.facts: RequestFacts = plan.begun.facts
        self.call_id = plan.begun.call_id
        self.ended = self.cut = False
        self.settled: Future[Receipt] | None = None
        self.entry: Entry | None = None
        self._ticks = bench.ticks
        self._began = self._tick = bench.ticks()
        self._calm = b""
        self._waiting: list[bytes] = []
        self._admitted: Future[Admitted | Denied] | None = None
        self._ceiling: Ceiling | None = None
        self._reader: Reader | None = None
        self._delivered = Delivered(self.facts.model)
        self._filter: UsageFilter | None = None
        self._gate: Gate | None = None
        self._inflater: Inflater | None = None
        self._growth: Growth | None = None
        self._live: Live | None = None
        self._closed = self._open = self._array = self._limited = self._injected = self._sent = False
        self._plain = True
        self._status: int | None = None
        self._stopped_by: str | None = None
        self._ttft: float | None = None
        bench.open[id(self)] = weakref.ref(self)

    def ask(self) -> Future[Admitted | Denied]:
        """Leave to send the call; done at once where no hard budget concerns it."""
        try:
            self._begin()
            if self._plan.fetches is not None:
                return ADMITTED
            if limited(self._plan.scope) and self._plan.scope is not None:
                price = partial(price_of, self._bench, self._plan.begun)
                self._ceiling = Ceiling(self.call_id, self.facts, self._plan.scope, price)
                denied = self._ceiling.open()
                if denied is not None:
                    return done(denied)
                if self.facts.stream:
                    warm(self.facts.model)
            self._admitted = self._leave.ask()
        except Exception as error:  # noqa: BLE001 - promise 6: the call goes on
            self._bench.faults.add("ask", error, "The call goes on without a limit.")
            return ADMITTED
        return self._admitted

    def refusal(self, denied: Denied) -> tuple[int, dict[str, str], bytes]:
        """The answer to give instead of sending the call, in the provider's shape; the refusal is entered."""
        self._stopped_by = denied.refused.budget_id if denied.refused is not None else denied.code
        self._close("refused", denied.status)
        code, after = denied.code, denied.retry_after
        return refusal(self.facts.api, denied.message, status=denied.status, code=code, retry_after=after)

    def outgoing(self) -> bytes | None:
        """The body to send instead; None: it stays as it is."""
        body: bytes | None = None
        self._sent = True
        try:
            admitted = self._granted()
            if self._plan.inject:
                body = inject_usage(self.facts.body)
                self._injected = body is not None
            most = None if admitted is None else admitted.max_output
            own = None if self._ceiling is None else self._ceiling.cap
            if own is not None:
                most = own if most is None else min(most, own)
            if most is not None:
                body = with_max_output(body or self.facts.body, self.facts.api, most) or body
        except Exception as error:  # noqa: BLE001 - promise 6: the body goes as it was
            self._injected = False
            self._bench.faults.add("outgoing", error, "The request goes as it was.")
            return None
        return body

    def answered(self, status: int, headers: Mapping[str, str]) -> dict[str, str] | None:
        """The answer has begun. The headers to hand over instead; None: they stay as they are."""
        try:
            return self._answered(status, headers)
        except Exception as error:  # noqa: BLE001 - promise 6: the answer passes as it is
            self._give_up("answered", error)
            return None

    def feed(self, data: bytes) -> bytes:
        """What to hand over for these bytes of the body."""
        if self.cut:
            return b""
        try:
            if self._inflater is not None:
                data = self._inflater.feed(data)
            reader = self._reader
            if reader is not None:
                calm = self._calm
                if (
                    calm
                    and data.startswith(calm)
                    and data.find(b"\n", len(calm)) == len(data) - 2
                    and data[-1] == _LF
                    and _CR not in data
                ):
                    self._waiting.append(data)
                    if len(self._waiting) >= AT_ONCE or self._ticks() - self._tick >= TICK:
                        self._catch_up(reader)
                    return data if self._filter is None else self._filter.whole(data)
                if self._took(reader, data):
                    return self._cut_after(data)
            return data if self._plain else self._changed(data)
        except Exception as error:  # noqa: BLE001 - promise 6: the bytes pass as they are
            self._give_up("feed", error)
            return data

    @property
    def pause(self) -> Future[int] | None:
        """What to wait for before reading on: the hold of a stream has to grow. It may be left out; then the next
        `feed` waits."""
        return None if self._growth is None else self._growth.pause

    def close(self, reason: str = "end") -> bytes:
        """No more bytes come: `end` of the body, `cancelled` by the caller, `error` of the connection, `cut` by the one
        who relays. Settles the call unless that is done; returns the last bytes that were held back."""
        if collecting():
            # In the middle of a garbage collection any lock may be held by this very thread.
            settle_later(self, reason)
            return b""
        rest = b""
        if reason == "end" and not self.cut and not self._plain:
            # Neither of the two ever raises.
            rest = self._filter.close() if self._filter is not None else b""
            rest = self._gate.feed(rest) + self._gate.rest() if self._gate is not None else rest
        self._plain, self._filter, self._gate = True, None, None
        self._close(reason, None)
        return rest

    def failed(self, error: BaseException) -> None:
        """The request never got an answer. One that was not even sent gives back what it holds and leaves no entry."""
        if not self._sent:
            self._release()
            return
        name = type(error).__name__
        cancelled = name in ("CancelledError", "GeneratorExit", "KeyboardInterrupt")
        if name in NEVER_SENT:
            self._close("unsent", None)
        else:
            self._close("cancelled" if cancelled else "error", None)

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self._bench.open.pop(id(self), None)
            if self._open:
                settle_later(self, "cancelled")

    def _shut(self) -> None:
        self._closed = True
        self._bench.open.pop(id(self), None)

    def _release(self) -> None:
        if self._closed:
            return
        self._shut()
        asked, leave, faults = self._admitted, self._leave, self._bench.faults

        def give_back(_answer: object) -> None:
            try:
                leave.release()
            except TallyError as error:
                faults.add("release", error, "A hold stays until it expires.")

        if asked is not None:
            asked.add_done_callback(give_back)
        if self._live is not None:
            self._live.free()
        self._end(None)

    def _begin(self) -> None:
        """The call is about to be sent: others may see it now."""
        if self._open:
            return
        self._open = True
        plan, bench = self._plan, self._bench
        if plan.fetches is not None:
            return
        if plan.scope is not None and plan.scope.run is not None:
            plan.scope.run.began(self.call_id)
        run, slot, facts = None if plan.scope is None else plan.scope.run, None, self.facts
        if bench.intents is not None:
            words = (facts.provider, facts.api, facts.model or "", plan.begun.who.run_id or "")
            note = pack_note(bench.source, plan.begun.who)
            slot = bench.intents.open(self.call_id, int(bench.clock() * 1_000_000), words, note)
        if run is not None or slot is not None:
            price = partial(price_of, bench, plan.begun)
            self._live = Live(self.call_id, run, slot, price, facts)

    def _granted(self) -> Admitted | None:
        if self._admitted is None or self._admitted is ADMITTED or not self._admitted.done():
            return None
        found = self._admitted.result()
        return found if isinstance(found, Admitted) else None

    def _answered(self, status: int, headers: Mapping[str, str]) -> dict[str, str] | None:
        self._begin()
        self._sent = True
        self._status = status
        kind = headers.get("content-type", "")
        stream = self.facts.stream and status < 400
        handed: dict[str, str] | None = None
        if self._injected and status in (400, 422):
            self._bench.refusing.add(host_of(self._plan.url))
        self._limited = stream and (self._ceiling is not None or self._leave.covered is not None)
        self._injected = self._injected and stream and kind.startswith("text/event-stream")
        if self._limited or self._injected:
            handed = self._opened(headers)
        if self._limited:
            admitted = self._granted()
            caps = (self.facts.max_output, None if admitted is None else admitted.max_output)
            most = min([cap for cap in caps if cap is not None], default=None)
            self._growth = Growth(self._leave, None if most is None else most * self.facts.answers)
            self._gate = Gate(kind)
            self._array = kind.startswith("application/json")
        if self._injected:
            self._filter = UsageFilter()
        self._plain = self._gate is None and self._filter is None
        self._reader = reader_for(self.facts, status, handed or headers, texts=self._delivered.pieces)
        return handed

    def _opened(self, headers: Mapping[str, str]) -> dict[str, str] | None:
        """Headers for a body that may change: a compressed one is handed over plain. Where it cannot be read here,
        nothing is changed."""
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", "identity"):
            inflater = Inflater(encoding, _FORWARDED)
            if inflater.fault is not None:
                self._limited = self._injected = False
                return None
            self._inflater = inflater
        elif "content-length" not in headers:
            return None
        return {name: value for name, value in headers.items() if name not in ("content-encoding", "content-length")}

    def _changed(self, data: bytes) -> bytes:
        if self._filter is not None:
            data = self._filter.feed(data)
        return data if self._gate is None else self._gate.feed(data)

    def _took(self, reader: Reader, data: bytes) -> bool:
        """Reads what waits and these bytes; true when the answer has to be cut here."""
        if self._waiting:
            self._catch_up(reader)
        more = reader.take(data)
        return (more or reader.made > 0) and self._moved(reader, more)

    def _catch_up(self, reader: Reader) -> None:
        """Reads what waits: pieces of an answer that nothing limits. Many at once cost less than each by itself."""
        waiting, self._waiting = self._waiting, []
        more = reader.take_calm(waiting)
        self._moved(reader, more)

    def _moved(self, reader: Reader, more: bool) -> bool:
        """Takes in what a read has brought, `more` beside text; true when the answer has to be cut here."""
        size = reader.made
        now = self._ticks()
        if size:
            self._delivered.add(size)
            if self._ttft is None:
                self._ttft = now
                self._calm = b"" if self._limited else reader.calm
        if more and self._ceiling is not None and reader.usage is not None:
            self._ceiling.stated(reader.usage)
        if more and reader.ended:
            self.ended = True
            self._settle(reader.close("end"))
            return False
        if now - self._tick >= TICK:
            self._tick = now
            if self._live is not None:
                self._live.tell(self._delivered, reader.response_bytes, self._bench.clock())
        return self._limited and size > 0 and self._exceeds(size)

    def _exceeds(self, step: int) -> bool:
        """Whether another piece like this one might go beyond what is covered. Bytes are an upper bound; the text is
        counted only when that bound would cut."""
        own = self._ceiling
        covers = (None if own is None else own.covered, self._leave.covered)
        covered = [cover for cover in covers if cover is not None]
        if not covered or self._delivered.upper + step <= min(covered):
            return False
        made = self._delivered.most()
        wanted = made + min(step, 64)
        if own is not None and wanted > own.covered and own.grow(wanted) < wanted:
            self._stopped_by = "max_cost"
            return True
        if self._growth is None or not self._growth.exceeds(made, wanted, self._delivered.tokens()):
            return False
        self._stopped_by = "budget"
        return True

    def _cut_after(self, data: bytes) -> bytes:
        """Hands these bytes over and ends the stream behind them."""
        reader = self._reader
        passed = self._changed(data)
        tokens = self._delivered.tokens()
        ending = reader.ending() if reader is not None else None
        if ending is not None:
            ending = msgspec.structs.replace(ending, output_tokens=max(tokens, ending.output_tokens))
        self.cut = self.ended = True
        self._settle(None if reader is None else reader.close("cut"), "cut")
        return passed + end_event(self.facts.api, "length", ending, array=self._array)

    def _give_up(self, where: str, error: Exception) -> None:
        """We failed: from here on the bytes pass as they are, and the entry says that its usage is unknown."""
        self._bench.faults.add(where, error, "The call goes on; its entry says that its usage is unknown.")
        self._reader, self._plain, self._filter, self._gate = None, True, None, None
        self._waiting = []
        self._limited = False

    def _close(self, reason: str, status: int | None) -> None:
        if self._closed or (not self._open and reason not in ("refused", "unsent")):
            self._shut()
            return
        if status is not None:
            self._status = status
        reader = self._reader
        outcome = None
        try:
            if reader is not None:
                if self._waiting:
                    self._catch_up(reader)
                outcome = reader.close(reason if reason in _STATUS else "error")
        except Exception as error:  # noqa: BLE001 - promise 6: the entry says unknown
            self._bench.faults.add("close", error, "Its entry says that its usage is unknown.")
        self._settle(outcome, reason)

    def _settle(self, outcome: Outcome | None, reason: str = "end") -> None:
        """Makes the entry and hands it to the ledger, once."""
        if self._closed:
            return
        self._shut()
        if self._later(outcome, reason):
            self.settled = KEPT
            return
        bench = self._bench
        entry: Entry | None = None
        try:
            self.entry = entry = self._entry(outcome, reason)
            leave = bench.plain_leave if entry.status == "refused" else self._leave
            self.settled = bench.enter(entry, leave, self._live)
        except Exception as error:  # noqa: BLE001 - promise 6: the call goes on
            bench.faults.add("settle", error, "A call has no entry in the ledger.")
            self.settled = bench.unwritten(entry, error, self._live)
        self._end(entry)

    def _later(self, outcome: Outcome | None, reason: str) -> bool:
        """Whether the call settles later: a background response says what it used when somebody fetches it. Where it
        was fetched before, there is nothing more to settle."""
        plan, bench = self._plan, self._bench
        stated = outcome is not None and outcome.usage is not None and outcome.quality != "lower_bound"
        if plan.fetches is not None:
            return reason != "unfetched" and (not stated or bench.unpark(plan.fetches) is None)
        response_id = None if outcome is None else outcome.response_id
        if not self.facts.background or stated or response_id is None or (self._status or 0) >= 300:
            return False
        bench.park(response_id, msgspec.structs.replace(plan, fetches=response_id))
        if self._live is not None:
            self._live.free()
        return True

    def unfetched(self) -> None:
        """A background response that nobody fetched: its entry says that what it used is unknown."""
        self._settle(None, "unfetched")

    def _entry(self, outcome: Outcome | None, reason: str) -> Entry:
        plan, bench = self._plan, self._bench
        now = bench.ticks()
        status = self._status
        word = _STATUS.get(reason) or _OTHER[reason]
        # An SDK that raises, or sends again, closes an answer without reading it to its end.
        bad = (status or 0) >= 300 or (outcome is not None and outcome.error is not None)
        failed = bad and word in ("ok", "cancelled")
        if failed:
            word = "error"
        attempt_of = None if plan.retry in (None, "0") else bench.first_attempt(plan.key)
        end = End(
            status=word,
            at=bench.now(),
            http_status=status,
            stopped_by=self._stopped_by,
            latency_us=max(0, int((now - self._began) * 1_000_000)),
            ttft_us=None if self._ttft is None else max(0, int((self._ttft - self._began) * 1_000_000)),
            response_bytes=None if outcome is None else outcome.response_bytes,
            attempt_of=attempt_of,
            hold_id=self._leave.hold_id,
            sent=reason != "unsent",
        )
        if word == "error" and plan.retry is not None:
            bench.remember_attempt(plan.key, attempt_of or self.call_id)
        if outcome is not None and (status or 0) < 300:
            outcome = self._counted(outcome)
        return entry_of(plan.begun, outcome, end, bench.catalog())

    def _counted(self, outcome: Outcome) -> Outcome:
        """Adds what was delivered to a usage that is not final, or takes it for one that is missing. Where a stream has
        begun, its prompt was read."""
        begun = self.facts.stream and outcome.response_bytes > 0
        if outcome.quality != "lower_bound" and (outcome.usage is not None or not begun):
            return outcome
        prompt = prompt_tokens(self.facts) if outcome.usage is None else 0
        usage = with_output(outcome.usage, self._delivered.tokens(), prompt)
        return msgspec.structs.replace(outcome, usage=usage, quality="lower_bound") if usage else outcome

    def _end(self, entry: Entry | None) -> None:
        scope = self._plan.scope
        if scope is None or scope.run is None:
            return
        try:
            scope.run.ended(self.call_id, entry)
        except Exception as error:  # noqa: BLE001 - promise 6: a callback of the user's must not end the call
            self._bench.faults.add("update", error, "What the run shows may be incomplete; the ledger is not.")
