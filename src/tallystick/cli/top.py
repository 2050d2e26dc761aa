"""tally top: the most expensive models, runs and tags."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import click

from tallystick import front
from tallystick.cli.report import names, say
from tallystick.cli.shared import json_option, reading_ledger, say_json, show_table
from tallystick.core.periods import zone
from tallystick.insight.report import READ_UP_TO
from tallystick.insight.spend import Spent, covered_words, known_cost, owed_words, spend, total_json
from tallystick.insight.when import WHEN, instant_of
from tallystick.insight.words import NOT_A_BILL
from tallystick.ledger.ledger import Ledger
from tallystick.ledger.query import DIMENSIONS, Query, Total

BACK: Final = timedelta(days=29)
USUAL: Final = ("project", "team", "user", "agent", "key", "tool")
"""Tags that are asked about where there are too many calls to look which there are."""


@click.command("top", epilog="Example: tally top --since 7d -n 5")
@click.option("-n", "--number", type=click.IntRange(1), default=10, show_default=True, help="How many of each.")
@click.option("--since", metavar="WHEN", help=f"From then on: {WHEN}. [default: the last 30 days]")
@click.option("--until", metavar="WHEN", help="Up to before then.")
@click.option("--by", multiple=True, metavar="NAME", help="Only these: model, run, or names of tags.")
@json_option
def command(number: int, since: str | None, until: str | None, by: tuple[str, ...], as_json: bool) -> int:
    """The most expensive models, runs and tags of the last 30 days."""
    with reading_ledger() as ledger:
        now, local = front.now(), zone(ledger.zone)
        start = instant_of("today", now - BACK, local) if since is None else instant_of(since, now, local)
        end = None if until is None else instant_of(until, now, local)
        axes = names(by) or ("model", "run", *tags_in(ledger, Query(since=start, until=end)))
        found = {axis: spend(ledger, since=start, until=end, by=(axis,)) for axis in axes}
    if as_json:
        say_json({axis: [total_json(row) for row in ranked(spent)[:number]] for axis, spent in found.items()})
        return 0
    whole = next(iter(found.values()))
    if not whole.calls:
        click.echo(f"No calls since {start.astimezone(local):%Y-%m-%d}.")
        return 0
    say(f"Since {start.astimezone(local):%Y-%m-%d}: {whole}.")
    if whole.total.not_owed:
        say(f"{NOT_A_BILL}: {whole.total.not_owed}.")
    for axis, spent in found.items():
        show(axis, spent, number)
    return 0


def tags_in(ledger: Ledger, query: Query) -> tuple[str, ...]:
    """The names of the tags that the calls bear; where there are very many calls, the usual names."""
    if ledger.total(query)[0].calls > READ_UP_TO:
        return USUAL
    tags = sorted({name for entry in ledger.read(query) for name in entry.tags})
    return tuple(f"tag:{name}" if name in DIMENSIONS else name for name in tags)


def ranked(spent: Spent) -> list[Total]:
    """The groups with a name, the most expensive first, those of unknown cost last."""
    rows = [row for row in spent.rows if next(iter(row.group.values())) is not None]
    return sorted(rows, key=lambda row: (known_cost(row) is None, -row.cost.pico, -row.not_owed.pico))


def show(axis: str, spent: Spent, number: int) -> None:
    """A table of the first groups; nothing where no call has the name."""
    rows = ranked(spent)
    if not rows:
        return
    columns = [(axis, "left"), ("calls", "right"), ("cost", "right"), (NOT_A_BILL, "right")]
    click.echo()
    show_table("", columns, [cells(row) for row in rows[:number]])
    if len(rows) > number:
        click.echo(f"and {len(rows) - number:,} more: --number shows them.")


def cells(row: Total) -> Sequence[str]:
    """A group's name, calls and cost."""
    name = next(iter(row.group.values())) or ""
    return [name, f"{row.calls:,}", owed_words(row), covered_words(row)]
