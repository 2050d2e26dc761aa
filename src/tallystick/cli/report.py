"""tally report: what was spent, by model, run or tag."""

from __future__ import annotations

from datetime import tzinfo

import click

from tallystick import front
from tallystick.cli.shared import (
    INCOMPLETE,
    WHEN,
    json_option,
    pairs,
    parse_instant,
    reading_ledger,
    say_json,
    show_table,
)
from tallystick.cli.tables import terminal_width
from tallystick.core.periods import Period, zone
from tallystick.insight.spend import Spent, cost_words, spend
from tallystick.ledger.query import Total

ROOMY = 90
"""Columns of a terminal from which each row says what is not exact in it."""

PERIODS = ("hour", "day", "week", "month", "year")
NAMES = {
    "unpriced": "without a price",
    "unknown": "of unknown usage",
    "lower_bound": "at least",
    "estimated": "estimated",
}


@click.command("report", epilog="Example: tally report --by model --since monday")
@click.option("--by", multiple=True, metavar="NAME", help="Group by provider, model, maker, source, run or a tag.")
@click.option("--per", type=click.Choice(PERIODS), help="Split by calendar period.")
@click.option("--tz", metavar="ZONE", help="The time zone of days and months. [default: the ledger's]")
@click.option("--since", metavar="WHEN", help=f"From then on: {WHEN}.")
@click.option("--until", metavar="WHEN", help="Up to before then.")
@click.option("-m", "--model", help="Only this model.")
@click.option("-t", "--tag", "tags", multiple=True, metavar="NAME=VALUE", help="Only calls with this tag.")
@click.option("--strict", is_flag=True, help="Exit with 4 when the total leaves anything out or guesses.")
@json_option
def command(
    by: tuple[str, ...],
    per: str | None,
    tz: str | None,
    since: str | None,
    until: str | None,
    model: str | None,
    tags: tuple[str, ...],
    strict: bool,
    as_json: bool,
) -> int:
    """What was spent, and under the total what it does not know."""
    groups = tuple(name.strip() for text in by for name in text.split(",") if name.strip())
    groups = groups if groups or per else ("model",)
    with reading_ledger() as ledger:
        place = tz or ledger.zone
        local = zone(place)
        start, end = (None if text is None else parse_instant(text, front.now(), local) for text in (since, until))
        period = None if per is None else Period(per, place)
        spent = spend(ledger, since=start, until=end, model=model, tags=pairs(tags, "--tag"), by=groups, per=period)
    if as_json:
        say_json({"by": list(groups), "per": per, "tz": place, **spent.to_json()})
    elif not spent.calls:
        click.echo("No calls.")
    else:
        show(spent, groups, per, local)
    return INCOMPLETE if strict and not spent.total.complete else 0


def show(spent: Spent, groups: tuple[str, ...], per: str | None, local: tzinfo) -> None:
    """A row per group, most expensive first unless split by period; then the total and what it leaves out."""
    ordered = spent.rows if per else sorted(spent.rows, key=lambda row: (row.cost, row.not_owed), reverse=True)
    subscribed = any(row.not_owed for row in (*spent.rows, spent.total))
    columns = [(name, "left") for name in ((per,) if per else ()) + groups]
    columns += [(name, "right") for name in ("calls", "input", "cached", "output", "cost")]
    if subscribed:
        columns.append(("API-equivalent, not a bill", "right"))
    # A narrow terminal has no room for it, and the last line says it in sum.
    columns.append(("of these", "left"))
    roomy = (terminal_width() or ROOMY) >= ROOMY
    rows = [[*names(row, groups, per, local), *figures(row, subscribed)] for row in ordered]
    blanks = [""] * (len(groups) + bool(per) - 1)
    rows.append(["total", *blanks, *figures(spent.total, subscribed)])
    last = None if roomy else -1
    show_table("", columns[:last], [row[:last] for row in rows])
    if spent.gaps:
        click.echo(f"Not exact: {spent.gaps}.")


def names(row: Total, groups: tuple[str, ...], per: str | None, local: tzinfo) -> list[str]:
    """The period and the group of a sum."""
    when = []
    if per is not None:
        start = row.start.astimezone(local) if row.start is not None else None
        when = ["" if start is None else f"{start:%Y-%m-%d %H:%M}" if per == "hour" else f"{start:%Y-%m-%d}"]
    return [*when, *(row.group.get(name) or "(none)" for name in groups)]


def figures(row: Total, subscribed: bool) -> list[str]:
    """The counts and the cost of a sum, and what is not exact in it."""
    usage = row.usage
    cached = sum(usage.get(kind, 0) for kind in usage if kind.endswith("cache_read"))
    gaps = [f"{getattr(row, name):,} {words}" for name, words in NAMES.items() if getattr(row, name)]
    equivalent = [str(row.not_owed)] if subscribed else []
    return [
        f"{row.calls:,}", f"{usage.input_tokens:,}", f"{cached:,}", f"{usage.output_tokens:,}", cost_words(row),
        *equivalent, ", ".join(gaps),
    ]  # fmt: skip
