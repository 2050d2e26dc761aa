"""tally chart: a report as a picture."""

from __future__ import annotations

from pathlib import Path

import click

from tallystick import front
from tallystick.cli import printable
from tallystick.cli.report import names
from tallystick.cli.shared import json_option, pairs, reading_ledger, say_json
from tallystick.core.periods import zone
from tallystick.insight.report import PER, report
from tallystick.insight.when import WHEN, instant_of


@click.command("chart", epilog="Example: tally chart --per day --by model --since 30d --out spend.png")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="A .png, .svg or .html file."
)
@click.option("--by", multiple=True, metavar="NAME", help="Colour by provider, model, run or a tag.")
@click.option("--per", type=click.Choice(PER), help="A bar per calendar period, five-hour block or run.")
@click.option("--tz", metavar="ZONE", help="The time zone of days and months. [default: the ledger's]")
@click.option("--since", metavar="WHEN", help=f"From then on: {WHEN}.")
@click.option("--until", metavar="WHEN", help="Up to before then.")
@click.option("-m", "--model", help="Only this model.")
@click.option("-t", "--tag", "tags", multiple=True, metavar="NAME=VALUE", help="Only calls with this tag.")
@json_option
def command(
    out: Path,
    by: tuple[str, ...],
    per: str | None,
    tz: str | None,
    since: str | None,
    until: str | None,
    model: str | None,
    tags: tuple[str, ...],
    as_json: bool,
) -> None:
    """Draws what was spent, offline. Needs the extra: pip install 'tallystick[charts]'."""
    with reading_ledger() as ledger:
        local = zone(tz or ledger.zone)
        start, end = (None if text is None else instant_of(text, front.now(), local) for text in (since, until))
        found = report(
            ledger, per=per, by=names(by), since=start, until=end, tz=tz, model=model, tags=pairs(tags, "--tag")
        )
    size = found.save_chart(out)
    if as_json:
        say_json({"file": str(out), "bytes": size, "calls": found.total.calls})
    else:
        click.echo(printable(f"{out}: {size:,} bytes, {found.spent}."))
