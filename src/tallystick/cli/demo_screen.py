"""What `tally demo` shows: the tree of runs while it moves; at the end what each run cost, and whether that is true."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from tallystick.cli import printable
from tallystick.cli.demo_clients import INSTALL, PLAIN
from tallystick.cli.tables import table_lines
from tallystick.core.money import Money
from tallystick.insight.flights import Flights

if TYPE_CHECKING:
    from tallystick.cli.demo_play import Play, Row, Verdict
    from tallystick.ledger.entry import Entry

LABEL: Final = 10
WIDE: Final = 100
_PICO: Final = 10**12
_COLUMNS: Final = [("run", "left"), ("calls", "right"), ("input", "right"), ("cached", "right"), ("output", "right"),
                   ("cost", "right")]  # fmt: skip


def moving(play: Play, flights: Flights, width: int | None, *, bold: bool) -> Iterator[str]:
    """One frame while it runs: every run with its cost so far, and the answers as they come in."""
    room = width or WIDE
    seconds = time.monotonic() - play.began if play.began else 0.0
    yield printable(f"An agent looks into: {play.question}  {seconds:.1f} s")[:room]
    yield ""
    rows = list(play.rows)
    guides = tree([row.depth for row in rows])
    cells = [_cells(row, guide, flights) for row, guide in zip(rows, guides, strict=True)]
    if cells:
        yield from table_lines(_COLUMNS, cells, width, bold=bold)
    yield ""
    for row in rows:
        for said in list(row.saying.values()):
            yield f"{row.name[:LABEL]:<{LABEL}}{_tail(said, room - LABEL)}"
    if play.loading is not None:
        yield f"(importing {INSTALL[play.loading]} ...)"


def _cells(row: Row, guide: str, flights: Flights) -> list[str]:
    """A run with what its calls in flight have come to; figures keep their width, so that nothing jumps."""
    run, ids = row.run, row.ids
    used = run.usage
    coming = sum(flight.output for flight in flights.alive if flight.run_id in ids)
    return [
        f"{guide}{row.name}".ljust(14),
        f"{run.calls}" + ("+" if run.in_flight else " "),
        f"{used.input_tokens:,}".rjust(7),
        f"{used.get('cache_read', 0):,}".rjust(7),
        f"{used.output_tokens + coming:,}".rjust(6),
        f"${run.known.pico / _PICO:.6f}",
    ]


def _tail(said: str, room: int) -> str:
    text = printable(said.replace("\n", " "))
    if not text:
        return "..."
    return text if len(text) <= room else f"...{text[3 - room :]}"


def tree(depths: Sequence[int]) -> list[str]:
    """What goes before each name so that nesting is seen."""
    corner, straight = ("└─ ", "├─ ") if _drawable("└├─│") else ("`- ", "|- ")
    bar = "│  " if _drawable("│") else "|  "
    found = []
    for place, depth in enumerate(depths):
        guide = ""
        for level in range(1, depth + 1):
            # Whether another branch of this level follows before the tree goes back above it.
            later = next((other for other in depths[place + 1 :] if other <= level), 0)
            more = later == level
            guide += (straight if more else corner) if level == depth else (bar if more else "   ")
        found.append(guide)
    return found


def _drawable(text: str) -> bool:
    try:
        # Not sys.stdout: while a screen is live, something that has no encoding stands there.
        text.encode(getattr(sys.__stdout__, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def call_line(entry: Entry, names: Mapping[str, str]) -> str:
    """One ended call in a line."""
    used = entry.usage
    counts = "usage unknown"
    if used is not None:
        cached = f" ({used.get('cache_read', 0):,} cached)" if used.get("cache_read", 0) else ""
        counts = f"{used.input_tokens:,} in{cached}, {used.output_tokens:,} out"
    amount = "cost unknown" if entry.amount is None else str(entry.amount)
    name = (entry.run_id or "").rpartition("-")[0]
    marks = [entry.status] if entry.status != "ok" else []
    marks += [str(entry.http_status)] if (entry.http_status or 0) >= 300 else []
    marks += ["at least"] if entry.quality == "lower_bound" else []
    note = f"  [{', '.join(marks)}]" if marks else ""
    with_what = names.get(entry.provider, PLAIN)
    return printable(f"{name:<{LABEL}}{entry.model} ({with_what}): {counts}, {amount}{note}")


def summary(play: Play, entries: Sequence[Entry], verdict: Verdict, width: int | None, *, bold: bool) -> Iterator[str]:
    """What each run cost, what happened, and the comparison with what was served."""
    rows = play.rows
    cells = []
    for row, guide in zip(rows, tree([row.depth for row in rows]), strict=True):
        run, used = row.run, row.run.usage
        cost = str(run.known) if run.cost is not None else f"at least {run.known}"
        cells.append(
            [f"{guide}{row.name}", f"{run.calls:,}", f"{used.input_tokens:,}", f"{used.get('cache_read', 0):,}",
             f"{used.output_tokens:,}", cost]
        )  # fmt: skip
    yield from table_lines(_COLUMNS, cells, width, bold=bold)
    yield from wrapped("A run's figures hold those of the runs inside it.", width)
    yield ""
    for entry in entries:
        for sentence in happened(entry, play):
            yield from wrapped(sentence, width)
    yield ""
    for sentence in judged(verdict):
        yield from wrapped(sentence, width)


def happened(entry: Entry, play: Play) -> Iterator[str]:
    """What was out of the ordinary with a call."""
    name = (entry.run_id or "").rpartition("-")[0]
    tokens = 0 if entry.usage is None else entry.usage.output_tokens
    if (entry.http_status or 0) >= 500:
        yield (
            f"{name}: the provider answered {entry.http_status}, and the client asked again by itself. Both attempts "
            f"are in the ledger; the first one costs {'nothing' if entry.amount == Money(0) else _money(entry)}."
        )
    elif entry.status == "cut":
        limit = next((row.run.max_cost for row in play.rows if row.run.run_id == entry.run_id), None)
        yield (
            f"{name}: max_cost {limit} was reached, so the stream was ended after {tokens} tokens, as if its length "
            f"were reached. It cost {_money(entry)}."
        )
    elif entry.quality == "lower_bound":
        yield (
            f"{name}: a connection broke in mid-answer, before any usage was stated. The text that came was counted: "
            f"{tokens} tokens, at least {_money(entry)}."
        )


def _money(entry: Entry) -> Money | str:
    return "an unknown amount" if entry.amount is None else entry.amount


def judged(verdict: Verdict) -> Iterator[str]:
    """The ledger against the provider's truth, in sentences."""
    served, entered = verdict.served, verdict.entered
    truth = (
        f"{verdict.answers} answers ran to their end. The provider served {served.input_tokens:,} tokens of input "
        f"({served.get('cache_read', 0):,} of them cached) and {served.output_tokens:,} of output; priced apart that "
        f"is {verdict.served_cost}."
    )
    if served == entered and verdict.served_cost == verdict.entered_cost:
        yield f"{truth} The ledger says the same: equal to the token and to the picodollar."
    else:
        yield (
            f"{truth} The ledger says {entered.input_tokens:,} in, {entered.output_tokens:,} out, "
            f"{verdict.entered_cost}: NOT EQUAL. Please report this."
        )
    same = "equal" if verdict.delivered == verdict.counted else "NOT EQUAL. Please report this"
    yield (
        f"The broken answer brought {verdict.delivered} tokens before it broke; the ledger counted {verdict.counted}: "
        f"{same}."
    )


def next_lines(place: str | None, play: Play, width: int | None) -> Iterator[str]:
    """Where the calls are now, and what to do next. `place` is the ledger's file where it was kept."""
    if play.late:
        yield from wrapped(
            f"Importing took long, so plain HTTP calls stood in for: {', '.join(INSTALL[one] for one in play.late)}.",
            width,
        )
    if place is None:
        yield from wrapped("The ledger was a temporary one and is gone; tally demo --keep writes into yours.", width)
    else:
        yield from wrapped(f"Kept in {place}: tally report --by run --tag demo=true", width)
    missing = [
        INSTALL[provider] for provider, name in play.names.items() if name == PLAIN and provider not in play.late
    ]
    if missing and not play.plain:
        whole = len(missing) == len(play.names)
        what = "No SDK took part" if whole else f"Not taking part: {', '.join(missing)}"
        yield from wrapped(
            f"{what}; plain HTTP calls stood in. To see your own client metered: pip install {missing[0]}", width
        )
    yield ""
    yield "What next:"
    yield "  from your own code   client = tallystick.track(OpenAI())"
    yield "  while it runs        tally live"
    yield "  one call in detail   tally explain --call --simulate"
    yield "  your coding agents   tally scan"


def wrapped(text: str, width: int | None) -> Iterator[str]:
    """A sentence, wrapped to the terminal."""
    yield from textwrap.wrap(printable(text), max(40, min(width or WIDE, WIDE)))
