"""tally report: what was spent, by model, run, tag or stretch of time."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import click

from tallystick import front
from tallystick.cli import printable
from tallystick.cli.shared import INCOMPLETE, json_option, pairs, reading_ledger, say_json, show_table
from tallystick.cli.tables import GAP, cell_width, terminal_width
from tallystick.cli.waiting import Waiting
from tallystick.core.periods import zone
from tallystick.insight.report import FULL, PER, Report, report
from tallystick.insight.when import WHEN, instant_of
from tallystick.insight.words import NOT_A_BILL, Column

NAME: Final = 14
"""Columns that a name takes at least; longer ones fold to it where the terminal is narrow."""

LISTS: Final = 48
"""Below so many columns no table is worth its name."""

Function = TypeVar("Function", bound=Callable[..., Any])


def report_options(function: Function) -> Function:
    """The options that every report takes; the command gets them by name."""
    options = (
        click.option(
            "--by", multiple=True, metavar="NAME", help="Group by provider, model, maker, source, run or a tag."
        ),
        click.option("--tz", metavar="ZONE", help="The time zone of days and months. [default: the ledger's]"),
        click.option("--since", metavar="WHEN", help=f"From then on: {WHEN}."),
        click.option("--until", metavar="WHEN", help="Up to before then."),
        click.option("-m", "--model", help="Only this model."),
        click.option("-t", "--tag", "tags", multiple=True, metavar="NAME=VALUE", help="Only calls with this tag."),
        click.option("--breakdown", is_flag=True, help="Tokens and cost by kind; reads every call."),
        click.option("--spread", is_flag=True, help="Percentiles of cost, latency and time to first token."),
        click.option("--csv", "as_csv", is_flag=True, help="CSV: a row per group, money exact."),
        click.option("--strict", is_flag=True, help="Exit with 4 when the total leaves anything out or guesses."),
        json_option,
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.command("report", epilog="Example: tally report --by model --since monday")
@click.option("--per", type=click.Choice(PER), help="Split by calendar period, five-hour block or run.")
@report_options
def command(per: str | None, **options: Any) -> int:
    """What was spent, and under the total what it does not know."""
    return answer(per, **options)


def answer(
    per: str | None,
    *,
    by: Sequence[str],
    tz: str | None,
    since: str | None,
    until: str | None,
    model: str | None,
    tags: Sequence[str],
    breakdown: bool,
    spread: bool,
    as_csv: bool,
    strict: bool,
    as_json: bool,
    back: timedelta | None = None,
) -> int:
    """Prints the report that the options ask for; the exit code. Without `since` it begins `back` before today."""
    if as_csv and as_json:
        raise click.UsageError("Give --csv or --json, not both.")
    with reading_ledger() as ledger:
        local = zone(tz or ledger.zone)
        now = front.now()
        start, end = (None if text is None else instant_of(text, now, local) for text in (since, until))
        if back is not None and since is None:
            start = instant_of("today", now - back, local)
        with Waiting("reading calls") as waiting:
            found = report(
                ledger,
                per=per,
                by=names(by),
                since=start,
                until=end,
                tz=tz,
                model=model,
                tags=pairs(tuple(tags), "--tag"),
                breakdown=breakdown,
                spread=spread,
                catalog=front.catalog(),
                progress=waiting.step,
            )
    if as_json:
        say_json(found.to_json())
    elif as_csv:
        for line in found.csv_lines():
            click.echo(line)
    else:
        show(found, None if since is not None or back is None else start)
    return INCOMPLETE if strict and not found.total.complete else 0


def names(by: Sequence[str]) -> tuple[str, ...]:
    """The names given with --by, each once or parted by commas."""
    return tuple(name.strip() for text in by for name in text.split(",") if name.strip())


def show(found: Report, assumed: datetime | None = None) -> None:
    """The table, and under it what the total does not know. `assumed` is a start that nobody asked for."""
    if not found.total.calls:
        click.echo("No calls." if assumed is None else f"No calls since {assumed.astimezone(zone(found.tz)):%Y-%m-%d}.")
        return
    show_table("", *fitting(found, terminal_width()))
    if found.breakdown and found.detail is not None:
        click.echo()
        show_kinds(found)
    if found.spreads:
        click.echo()
        show_table("", *found.spread_table())
    for line in found.remarks():
        say(line)
    if assumed is not None:
        click.echo(f"Since {assumed.astimezone(zone(found.tz)):%Y-%m-%d}; --since shows more.")


def fitting(found: Report, width: int | None) -> tuple[list[Column], list[list[str]]]:
    """The fullest table that the terminal has room for; where there is hardly any, all of it, a list for each row."""
    columns, cells = found.table(FULL - 1)
    if width is not None and width < LISTS:
        return columns, cells
    for fullness in range(FULL, -1, -1):
        columns, cells = found.table(fullness)
        sizes = []
        for place, (head, side) in enumerate(columns):
            longest = max(cell_width(row[place]) for row in cells)
            room = NAME * 2 if head == "of these" else NAME
            sizes.append(max(cell_width(head), longest if side == "right" else min(longest, room)) if longest else -GAP)
        if width is None or sum(sizes) + GAP * (len(sizes) - 1) <= width:
            break
    return columns, cells


def say(text: str) -> None:
    """A sentence, wrapped to the terminal where there is one."""
    width = terminal_width()
    shown = printable(text)
    for line in [shown] if width is None else textwrap.wrap(shown, max(width, 20), subsequent_indent="  "):
        click.echo(line)


def show_kinds(found: Report) -> None:
    """What each kind of usage cost, over all calls."""
    figures = [(head, "right") for head in ("quantity", "cost", NOT_A_BILL)]
    columns = [("kind", "left"), *figures, ("", "left")]
    usage = found.total.usage
    rows = []
    for kind in found.detail.kinds if found.detail is not None else ():
        gaps = f"{kind.unpriced:,} without a price" if kind.unpriced else ""
        known = "unknown" if gaps and not kind.cost else "" if kind.not_owed and not kind.cost else str(kind.cost)
        count = usage.get(kind.kind, 0)
        free = str(kind.not_owed) if kind.not_owed else ""
        rows.append([kind.kind, f"{count:,}" if count else "", known, free, gaps])
    if rows:
        show_table("", columns, rows)
