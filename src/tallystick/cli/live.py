"""tally live: what is being spent now."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Self

import click

from tallystick import front
from tallystick.capture.process import beside_ledger
from tallystick.cli import printable
from tallystick.cli.log import row as call_cells
from tallystick.cli.shared import coloured, json_option, reading_ledger
from tallystick.cli.tables import table_lines, terminal_width
from tallystick.core.money import Money
from tallystick.core.periods import zone
from tallystick.defaults import ledger_place
from tallystick.insight.flights import age, look_flights
from tallystick.insight.live import RUNS, Live, Stretch, look
from tallystick.insight.projection import Projection
from tallystick.insight.spend import about, cost_words
from tallystick.insight.words import NOT_A_BILL
from tallystick.ledger.intents import SUFFIX

LABEL: Final = 8
"""Columns of the label before each line."""

NARROW: Final = 80
"""Below so many columns the last calls are shown without their counts, and calls in flight without their run."""

FRAME: Final = 0.25
"""Seconds between two frames."""


class Rows(NamedTuple):
    """How many calls in flight, runs and ended calls are shown one by one."""

    flights: int
    runs: int
    calls: int


ROWS: Final = (Rows(8, RUNS, 5), Rows(8, 4, 3), Rows(6, 3, 2), Rows(4, 2, 1), Rows(3, 1, 0), Rows(2, 0, 0))
"""From a tall terminal to a low one."""


@click.command("live", epilog="Example: tally live --once")
@click.option("--once", is_flag=True, help="One frame, then exit; so too where the output is no terminal.")
@click.option(
    "--every", type=click.FloatRange(0.2, 3600), default=2.0, show_default=True,
    help="Seconds between looks at the ledger; calls in flight are looked at four times a second.",
)  # fmt: skip
@click.option("--minutes", type=click.IntRange(1, 1440), default=10, show_default=True, help="The burn rate's minutes.")
@json_option
def command(once: bool, every: float, minutes: int, as_json: bool) -> None:
    """What is being spent now: the calls in flight of every process on this ledger, the burn rate, the five-hour block
    and the month with their projections, the latest runs, the last calls. Ends with Ctrl-C."""
    with Watch(minutes, every) as watch:
        if as_json:
            click.echo(json.dumps(watch.look().to_json(), indent=2, ensure_ascii=False))
        elif once or not sys.stdout.isatty():
            for line in frame(watch.look(), terminal_width(), bold=coloured()):
                click.echo(line)
        else:
            refresh(watch, lambda: time.sleep(min(every, FRAME)))


class Watch:
    """Looks at the calls in flight each time, and at the ledger when that is due or a call has ended. A ledger that is
    not there yet is looked for again."""

    def __init__(self, minutes: int, every: float) -> None:
        self._minutes = minutes
        self._every = every
        beside = beside_ledger(ledger_place())
        self._folder = None if beside is None else beside.with_name(beside.name + SUFFIX)
        self._ledger = reading_ledger()
        self._missing = not front.has_ledger()
        self._seen: Live | None = None
        self._due = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._ledger.close()

    def look(self) -> Live:
        """What is being spent at this moment."""
        now, ticks = front.now(), time.monotonic()
        flights = look_flights(self._folder)
        seen = self._seen
        ended = seen is not None and bool(seen.flights.ids - flights.ids)
        if seen is None or ticks >= self._due or (ended and ticks >= self._due - self._every + FRAME):
            if self._missing and front.has_ledger():
                self._ledger.close()
                self._ledger, self._missing = reading_ledger(), False
            seen = look(self._ledger, now, minutes=self._minutes, flights=flights)
            self._due = time.monotonic() + self._every
        self._seen = seen.moved(now, flights)
        return self._seen


def refresh(watch: Watch, pause: Callable[[], None]) -> None:
    """Draws frame over frame until Ctrl-C."""
    from rich.console import Console
    from rich.live import Live as Screen
    from rich.text import Text

    def lines() -> str:
        size = shutil.get_terminal_size()
        return "\n".join(fitted(watch.look(), size.columns, size.lines, bold=coloured()))

    try:
        shown = lines()
        with Screen(Text.from_ansi(shown), console=Console(highlight=False), auto_refresh=False) as screen:
            while True:
                pause()
                fresh = lines()
                if fresh != shown:
                    shown = fresh
                    screen.update(Text.from_ansi(shown), refresh=True)
    except KeyboardInterrupt:
        return


def fitted(live: Live, width: int, height: int, *, bold: bool = False) -> list[str]:
    """The lines of one frame with as many rows in its tables as the terminal has room for."""
    lines: list[str] = []
    for rows in ROWS:
        lines = list(frame(live, width, bold=bold, rows=rows))
        if len(lines) < height:
            break
    return lines


def frame(live: Live, width: int | None, *, bold: bool = False, rows: Rows = ROWS[0]) -> Iterator[str]:
    """The lines of one frame."""
    local = live.at.astimezone(zone(live.zone))
    yield from said("now", f"{local:%Y-%m-%d %H:%M:%S} {live.zone}", width)
    yield from said("burn", burn_words(live), width)
    if live.burn.not_owed:
        yield from said("", f"{NOT_A_BILL}: {live.per_minute(live.burn.not_owed)} a minute", width)
    yield from block_lines(live, width)
    yield from stretch_lines(f"{local:%B}", live.month, width)
    yield from flight_lines(live, width, rows.flights, bold=bold)
    yield from run_lines(live, width, rows.runs, bold=bold)
    if not rows.calls:
        return
    yield ""
    if not live.last:
        yield "No calls yet."
        return
    columns = [("when (UTC)", "left"), ("model", "left"), ("input", "right"), ("output", "right"), ("cost", "right"),
               ("quality", "left"), ("status", "left")]  # fmt: skip
    cells = [call_cells(entry)[:-1] for entry in live.last[: rows.calls]]
    kept = range(len(columns)) if width is None or width >= NARROW else (0, 1, 4)
    narrowed = [[row[place] for place in kept] for row in cells]
    yield from table_lines([columns[place] for place in kept], narrowed, width, bold=bold)


def flight_lines(live: Live, width: int | None, most: int, *, bold: bool = False) -> Iterator[str]:
    """The calls in flight, a row for each of so many, and those that nobody will end."""
    flights = live.flights
    if flights.left:
        calls = "1 call" if len(flights.left) == 1 else f"{len(flights.left):,} calls"
        by = "a killed process" if len({flight.owner for flight in flights.left}) == 1 else "killed processes"
        yield from said("left", f"{calls} left behind by {by}: tally ledger repair", width)
    if not flights.alive:
        return
    calls = "1 call" if len(flights.alive) == 1 else f"{len(flights.alive):,} calls"
    tokens = sum(flight.output for flight in flights.alive)
    pico = sum(flight.pico for flight in flights.alive)
    spent = f" and {so_far(pico)}" if pico else ""
    yield from said("flight", f"{calls} in flight, about {tokens:,} tokens{spent} so far", width)
    yield ""
    columns = [("in flight", "left"), ("run", "left"), ("age", "right"), ("tokens", "right"), ("so far", "right")]
    shown = flights.alive[:most]
    cells = [
        [flight.model or flight.api, flight.run_id, f"{age(flight, live.at):.1f} s", f"{flight.output:,}",
         so_far(flight.pico)]
        for flight in shown
    ]  # fmt: skip
    kept = range(len(columns)) if width is None or width >= NARROW else (0, 2, 3, 4)
    narrowed = [[row[place] for place in kept] for row in cells]
    yield from table_lines([columns[place] for place in kept], narrowed, width, bold=bold)
    if len(flights.alive) > most:
        yield f"and {len(flights.alive) - most:,} more"


def run_lines(live: Live, width: int | None, most: int, *, bold: bool = False) -> Iterator[str]:
    """What the latest runs have spent, a row for each of so many."""
    if not live.runs or not most:
        return
    yield ""
    columns = [(f"runs of the last {live.minutes} min", "left"), ("calls", "right"), ("in flight", "right"),
               ("tokens", "right"), ("cost", "right")]  # fmt: skip
    cells = []
    for run in live.runs[:most]:
        cost = cost_words(run.total)
        if run.flights:
            cost = f"about {about(run.cost)}" if run.cost else "-"
        if run.total.not_owed:
            cost = f"{cost if run.cost else ''} ({run.total.not_owed} not owed)".strip()
        tokens = run.total.usage.tokens + run.output
        cells.append(
            [run.run_id, f"{run.total.calls:,}", f"{run.flights:,}" if run.flights else "", f"{tokens:,}", cost]
        )
    kept = range(len(columns)) if width is None or width >= NARROW else (0, 3, 4)
    narrowed = [[row[place] for place in kept] for row in cells]
    yield from table_lines([columns[place] for place in kept], narrowed, width, bold=bold)


def so_far(pico: int) -> str:
    """What a call in flight has come to; nothing is known of it before its first words, or without a rate."""
    return str(about(Money(pico))) if pico else "-"


def burn_words(live: Live) -> str:
    """The burn rate in words."""
    burn = live.burn
    over = f"over the last {live.minutes} minutes" if live.minutes > 1 else "over the last minute"
    if not burn.calls:
        return f"no calls {over}"
    words = cost_words(burn)
    if words != "unknown":
        words = f"{'at least ' if words.startswith('at least') else ''}{live.per_minute(burn.cost)}"
    calls = "1 call" if burn.calls == 1 else f"{burn.calls:,} calls"
    return f"{words} and {live.per_minute(burn.usage.tokens):,} tokens a minute {over}, {calls}"


def block_lines(live: Live, width: int | None) -> Iterator[str]:
    """The current block, and when it ends."""
    if live.block is None:
        yield from said("block", "none under way", width)
        return
    minutes = int((live.block.end - live.at).total_seconds() // 60)
    start = live.block.start.astimezone(zone(live.zone))
    yield from stretch_lines(
        "block", live.block, width, f"since {start:%H:%M}, {minutes // 60} h {minutes % 60} min left"
    )


def stretch_lines(label: str, stretch: Stretch, width: int | None, when: str = "") -> Iterator[str]:
    """What a block or month cost so far, what that leaves out, and what it will have cost at its end."""
    total = stretch.total
    tokens = f"{total.calls:,} {'call' if total.calls == 1 else 'calls'}, {total.usage.tokens:,} tokens"
    owed = f"{cost_words(total)}, {tokens}" if stretch.owed is not None or total.unpriced else tokens
    yield from said(label, f"{when}: {owed}" if when else owed, width)
    if total.gaps:
        yield from said("", f"not exact: {total.gaps}", width)
    if stretch.owed is not None:
        yield from said("", projection_words(stretch.owed), width)
    if stretch.not_owed is not None:
        yield from said("", f"{NOT_A_BILL}: {total.not_owed}; {projection_words(stretch.not_owed)}", width)


def projection_words(projection: Projection) -> str:
    """A projection with its range, how it was made and how well it did on the past, or why there is none."""
    if projection.likely is None or projection.low is None or projection.high is None:
        trials = f" ({projection.trials} forecasts tried)" if projection.trials else ""
        return f"no projection: {projection.refused}{trials}"
    low, likely, high = (about(amount) for amount in (projection.low, projection.likely, projection.high))
    return f"at its end about {likely} ({low} to {high}): {projection.basis}; {projection.backtest}"


def said(label: str, text: str, width: int | None) -> Iterator[str]:
    """A labelled text, wrapped to the terminal."""
    room = (width or NARROW * 3) - LABEL - 2
    shown = printable(label)[: LABEL + 1]
    for number, line in enumerate(textwrap.wrap(printable(text), max(room, 20)) or [""]):
        yield f"{shown if number == 0 else '':<{LABEL + 2}}{line}"
