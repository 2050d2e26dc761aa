"""tally report: what was spent, by model, run or tag."""

from __future__ import annotations

from datetime import datetime

import click

from tallystick import front
from tallystick.cli.shared import Instant, json_option, pairs, say_json, show_table
from tallystick.core.periods import Period, zone
from tallystick.insight.spend import Spent, spend
from tallystick.ledger.query import Total

PERIODS = ("hour", "day", "week", "month", "year")


@click.command("report", epilog="Example: tally report --by model --since monday")
@click.option("--by", multiple=True, metavar="NAME", help="Group by provider, model, maker, source, run or a tag.")
@click.option("--per", type=click.Choice(PERIODS), help="Split by calendar period.")
@click.option("--tz", help="The time zone of days and months (default: the ledger's).")
@click.option("--since", type=Instant(), help="From this instant on.")
@click.option("--until", type=Instant(), help="Up to before this instant.")
@click.option("-m", "--model", help="Only this model.")
@click.option("-t", "--tag", "tags", multiple=True, metavar="NAME=VALUE", help="Only calls with this tag.")
@json_option
def command(
    by: tuple[str, ...],
    per: str | None,
    tz: str | None,
    since: datetime | None,
    until: datetime | None,
    model: str | None,
    tags: tuple[str, ...],
    as_json: bool,
) -> None:
    """What was spent, and under the total what it does not know."""
    with front.open(read_only=True) as ledger:
        place = tz or ledger.zone
        zone(place)
        period = None if per is None else Period(per, place)
        groups = by if by or per else ("model",)
        spent = spend(
            ledger, since=since, until=until, model=model, tags=pairs(tags, "--tag"), by=groups, per=period
        )
    if as_json:
        say_json({"by": list(groups), "per": per, "tz": place, **spent.to_json()})
    else:
        show(spent, groups, per, place)


def show(spent: Spent, groups: tuple[str, ...], per: str | None, place: str) -> None:
    """A row per group, most expensive first unless split by period; then the total and what it leaves out."""
    ordered = spent.rows if per else sorted(spent.rows, key=lambda row: row.cost, reverse=True)
    columns = [(name, "left") for name in ((per,) if per else ()) + groups]
    columns += [("calls", "right"), ("input", "right"), ("cached", "right"), ("output", "right"), ("cost", "right")]
    subscribed = any(row.not_owed for row in (*spent.rows, spent.total))
    if subscribed:
        columns.append(("API-equivalent, not a bill", "right"))
    columns.append(("", "left"))
    rows = [cells(row, groups, per, place, subscribed) for row in ordered]
    total = cells(spent.total, groups, per, place, subscribed)
    if groups or per:
        total[0] = "total"
    show_table("", columns, [*rows, total])
    click.echo(f"Not in the total: {spent.gaps}." if spent.gaps else "Every call was measured exactly and priced.")


def cells(row: Total, groups: tuple[str, ...], per: str | None, place: str, subscribed: bool) -> list[str]:
    """One sum in words."""
    usage = row.usage
    cached = usage.get("cache_read", 0)
    when = [f"{row.start.astimezone(zone(place)):%Y-%m-%d %H:%M}".removesuffix(" 00:00") if row.start else ""] if per else []
    names = [row.group.get(name) or "(none)" if row.group else "" for name in groups]
    amounts = [str(row.cost), *([str(row.not_owed)] if subscribed else [])]
    mark = "incomplete" if row.gaps else ""
    return [
        *when, *names, f"{row.calls:,}", f"{usage.input_tokens:,}", f"{cached:,}", f"{usage.output_tokens:,}",
        *amounts, mark,
    ]  # fmt: skip
