"""tally live: what is being spent now."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import click

from tallystick import front
from tallystick.cli import printable
from tallystick.cli.log import row as call_cells
from tallystick.cli.shared import coloured, json_option, reading_ledger
from tallystick.cli.tables import table_lines, terminal_width
from tallystick.core.periods import zone
from tallystick.insight.live import Live, Stretch, look
from tallystick.insight.projection import Projection
from tallystick.insight.spend import about, cost_words
from tallystick.insight.words import NOT_A_BILL

if TYPE_CHECKING:
    from tallystick.ledger.ledger import Ledger

LABEL: Final = 8
"""Columns of the label before each line."""

NARROW: Final = 80
"""Below so many columns the last calls are shown without their counts."""


@click.command("live", epilog="Example: tally live --once")
@click.option("--once", is_flag=True, help="One frame, then exit; so too where the output is no terminal.")
@click.option(
    "--every", type=click.FloatRange(0.2, 3600), default=2.0, show_default=True, help="Seconds between frames."
)
@click.option("--minutes", type=click.IntRange(1, 1440), default=10, show_default=True, help="The burn rate's minutes.")
@json_option
def command(once: bool, every: float, minutes: int, as_json: bool) -> None:
    """What is being spent now: the burn rate, the five-hour block and the month with their projections, the last
    calls. Ends with Ctrl-C."""
    with reading_ledger() as ledger:
        if as_json:
            click.echo(json.dumps(look(ledger, front.now(), minutes=minutes).to_json(), indent=2, ensure_ascii=False))
        elif once or not sys.stdout.isatty():
            for line in frame(look(ledger, front.now(), minutes=minutes), terminal_width(), bold=coloured()):
                click.echo(line)
        else:
            refresh(ledger, minutes, lambda: time.sleep(every))


def refresh(ledger: Ledger, minutes: int, pause: Callable[[], None]) -> None:
    """Draws frame over frame until Ctrl-C."""
    from rich.console import Console
    from rich.live import Live as Screen
    from rich.text import Text

    def drawn() -> Text:
        width = terminal_width()
        return Text.from_ansi("\n".join(frame(look(ledger, front.now(), minutes=minutes), width, bold=coloured())))

    try:
        with Screen(drawn(), console=Console(highlight=False), auto_refresh=False) as screen:
            while True:
                pause()
                screen.update(drawn(), refresh=True)
    except KeyboardInterrupt:
        return


def frame(live: Live, width: int | None, *, bold: bool = False) -> Iterator[str]:
    """The lines of one frame."""
    local = live.at.astimezone(zone(live.zone))
    yield from said("now", f"{local:%Y-%m-%d %H:%M:%S} {live.zone}", width)
    yield from said("burn", burn_words(live), width)
    if live.burn.not_owed:
        yield from said("", f"{NOT_A_BILL}: {live.per_minute(live.burn.not_owed)} a minute", width)
    yield from block_lines(live, width)
    yield from stretch_lines(f"{local:%B}", live.month, width)
    yield ""
    if not live.last:
        yield "No calls yet."
        return
    columns = [("when (UTC)", "left"), ("model", "left"), ("input", "right"), ("output", "right"), ("cost", "right"),
               ("quality", "left"), ("status", "left")]  # fmt: skip
    cells = [call_cells(entry)[:-1] for entry in live.last]
    kept = range(len(columns)) if width is None or width >= NARROW else (0, 1, 4)
    narrowed = [[row[place] for place in kept] for row in cells]
    yield from table_lines([columns[place] for place in kept], narrowed, width, bold=bold)


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
