"""The stages of one call, said as they happen: request, bound, what is changed, bytes, tokens, usage, cost, entry."""

from __future__ import annotations

import json
import sys
import textwrap
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from tallystick.cli import printable
from tallystick.cli.shared import say_json
from tallystick.cli.tables import terminal_width
from tallystick.core.cost import describe_rate
from tallystick.core.money import Money
from tallystick.core.usage import unit_of, units_of
from tallystick.insight.spend import about

if TYPE_CHECKING:
    from tallystick.cli.calling import Exchange
    from tallystick.ledger.entry import Entry
    from tallystick.metering.claims import Bound
    from tallystick.metering.counting import Delivered
    from tallystick.wire.reader import Reader

LABEL: Final = 9
WIDE: Final = 100
SHOWN: Final = 8
"""So many pieces of the answer are shown one by one."""

_BODY: Final = 65536


class Stages:
    """Says each stage as it happens; `live` rewrites one line while the answer streams, `quiet` only collects for
    JSON."""

    def __init__(self, *, quiet: bool, live: bool) -> None:
        self.found: dict[str, Any] = {}
        self._quiet = quiet
        self._live = live
        self._reader: Reader | None = None
        self._delivered: Delivered | None = None
        self._body = b""
        self._tokens = self._pieces = self._came = self._handed = 0
        self._each = 0

    def request(self, exchange: Exchange, url: str, why: str) -> None:
        """What is asked, and of whom."""
        facts = exchange.call.facts
        self._say("request", f"POST {url}")
        self._say("", why)
        most = f"at most {facts.max_output:,} tokens of answer" if facts.max_output else "no limit of answer"
        self._say("facts", f"{facts.api} of {facts.provider}, {facts.model}, "
                  f"{'streamed' if facts.stream else 'whole'}, {most}, {facts.body_bytes:,} bytes")  # fmt: skip
        self.found["request"] = {
            "url": url, "how": why, "api": facts.api, "provider": facts.provider, "model": facts.model,
            "stream": facts.stream, "max_output": facts.max_output, "bytes": facts.body_bytes,
        }  # fmt: skip

    def bound(self, bound: Bound | None, problem: str) -> None:
        """The most it may cost."""
        if bound is None or bound.pico is None:
            self._say("bound", f"none: {problem}")
            self.found["bound"] = None
            return
        self._each = bound.pico_per_output
        output = bound.output or 0
        total = Money(bound.pico + output * bound.pico_per_output)
        parts = f"input at most {bound.input:,} tokens, answer at most {output:,}"
        self._say("bound", f"{parts}: at most {total}, known before it is sent")
        self.found["bound"] = {"input": bound.input, "output": bound.output, "cost": total.to_json()}

    def refused(self, status: int, body: bytes) -> None:
        """A budget or limit said no; nothing was sent."""
        self._say("refused", f"not sent; a client gets status {status}: {_words(body)}")
        self.found["refused"] = {"status": status, "message": _words(body)}

    def injected(self, exchange: Exchange) -> None:
        """What the meter changes in the request."""
        if exchange.sent == exchange.asked:
            self._say("inject", "nothing: this format states its usage by itself")
            self.found["injected"] = {}
            return
        before, after = json.loads(exchange.asked), json.loads(exchange.sent)
        added = {name: value for name, value in after.items() if before.get(name) != value}
        self._say("inject", f"{json.dumps(added)}, {len(exchange.sent) - len(exchange.asked):+,} bytes, so that the "
                  "stream states its usage")  # fmt: skip
        self.found["injected"] = added

    def answered(self, exchange: Exchange, seconds: float) -> None:
        """The head of the answer."""
        from tallystick.metering.counting import Delivered
        from tallystick.wire.reader import reader_for

        kind = exchange.headers.get("content-type", "unknown").partition(";")[0]
        self._say("answer", f"{exchange.status} {kind} after {seconds * 1000:,.0f} ms")
        self._reader = reader_for(exchange.call.facts, exchange.status, exchange.headers, want_text=True)
        self._delivered = Delivered(exchange.call.facts.model)

    def piece(self, exchange: Exchange, data: bytes, handed: bytes) -> None:
        """Some bytes of the answer, on their way to the caller."""
        self._pieces += 1
        self._came += len(data)
        self._handed += len(handed)
        if exchange.status >= 300:
            self._body = (self._body + data)[:_BODY]
            return
        if self._reader is None or self._delivered is None:
            return
        progress = self._reader.feed(data)
        text = "" if progress is None else progress.text_delta
        if progress is not None:
            self._delivered.pieces.append(text)
            self._delivered.add(progress.output_bytes)
        new = self._delivered.tokens()
        added, self._tokens = new - self._tokens, new
        if self._pieces <= SHOWN:
            kept = "" if handed == data else f", {len(handed):,} handed over"
            shown = printable(text.replace("\n", " "))[:32]
            tokens = f"{added:+d} {'token' if added == 1 else 'tokens'}"
            self._say("stream" if self._pieces == 1 else "", f"{len(data):>6,} bytes{kept}  {tokens}  {shown!r}")
        elif self._pieces == SHOWN + 1 and not self._live:
            self._say("", "   ...")
        self._moving()

    def ended(self, exchange: Exchange, failed: str) -> None:
        """The answer is over."""
        if self._live:
            click.echo("\r\x1b[2K", nl=False)
        kept = "handed over as they came"
        if self._handed != self._came:
            kept = f"{self._handed:,} handed over: what stated the usage was asked for by us, and taken out again"
        self._say("bytes", f"{self._came:,} in {self._pieces:,} pieces, {kept}")
        if failed:
            self._say("", failed)
        self.found["answer"] = {
            "status": exchange.status, "bytes": self._came, "handed_over": self._handed, "pieces": self._pieces,
            "counted": self._tokens, "problem": failed or None,
        }  # fmt: skip

    def trouble(self, status: int, key: str) -> None:
        """The provider said no. `key` must not be repeated; empty: neither must its words."""
        words = "the key was not accepted" if not key else _words(self._body).replace(key, "(the key)")
        self._say("error", f"{status}: {words}")
        self.found["error"] = words

    def entry(self, entry: Entry | None, call_id: str, place: str | None) -> None:
        """What it came to, and where that is written."""
        if entry is None:
            self._say("ledger", f"call {call_id} is not in the ledger: it will be when the ledger can be written")
            self.found["entry"] = None
            return
        self._usage(entry)
        self._cost(entry)
        where = "memory: nothing was billed" if place is None else place
        self._say("ledger", f"entry {entry.call_id}, {entry.status}, in {where}")
        self.found["ledger"] = place
        self.found["entry"] = entry.to_json()

    def say_json(self) -> None:
        """All stages as one JSON value."""
        say_json(self.found)

    def _usage(self, entry: Entry) -> None:
        if entry.usage is None:
            self._say("usage", "unknown: none was stated")
            return
        stated = entry.usage.output_tokens
        if entry.quality == "exact" and entry.status == "ok":
            self._say("counted", self._compared(entry.requested_model or entry.model, stated))
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in entry.usage.items()) or "nothing"
        self._say("usage", f"{kinds} ({entry.quality}); no token is in two of these")
        if entry.usage_raw:
            self._say("", f"from {json.dumps(json.loads(entry.usage_raw))}")

    def _compared(self, model: str, stated: int) -> str:
        """What was counted on the way against what was stated at the end."""
        from tallystick.tokens.encodings import encoding_for

        if encoding_for(model) is None:
            return f"at least {self._tokens:,} tokens (the tokenizer is not public), {stated:,} stated at the end"
        same = "the same" if stated == self._tokens else f"{stated - self._tokens:+,} that are not in the text"
        return f"{self._tokens:,} tokens in the text, {stated:,} stated at the end: {same}"

    def _cost(self, entry: Entry) -> None:
        cost = entry.cost
        if cost is None or cost.amount is None:
            self._say("cost", "unknown, not zero: no rate is known for this")
            if entry.provider.startswith("other:"):
                self._say("", "the host does not say who bills; say it: --provider NAME")
            return
        self._say("cost", f"{cost.amount}")
        for line in cost.lines:
            unit = unit_of(line.kind) if line.quantity == 1 else units_of(line.kind)
            amount = "unpriced" if line.amount is None else str(line.amount)
            self._say("", f"{line.kind}: {line.quantity:,} {unit} x {describe_rate(line)} = {amount}")
        for note in cost.notes:
            self._say("", note)

    def _moving(self) -> None:
        if self._live and self._pieces > SHOWN:
            so_far = about(Money(self._tokens * self._each))
            line = f"{'':<{LABEL}}{self._came:>6,} bytes so far, {self._tokens:,} tokens, {so_far} of answer"
            click.echo(f"\r\x1b[2K{line}"[: (terminal_width() or WIDE) + 4], nl=False)
            sys.stdout.flush()

    def _say(self, label: str, text: str) -> None:
        if self._quiet:
            return
        room = max(40, (terminal_width() or WIDE) - LABEL)
        for number, line in enumerate(textwrap.wrap(printable(text).replace("\n", "\\n"), room) or [""]):
            click.echo(f"{label if number == 0 else '':<{LABEL}}{line}".rstrip())


def _words(body: bytes) -> str:
    """What an error says, in one line."""
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body[:200].decode("utf-8", "replace")
    error = found.get("error", found) if isinstance(found, dict) else found
    message = error.get("message") if isinstance(error, dict) else None
    return str(message or error)[:300]
