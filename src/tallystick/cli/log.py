"""tally log: the calls in the ledger."""

from __future__ import annotations

import json

import click

from tallystick import front
from tallystick.cli.shared import json_option, pairs, reading_ledger, show_table
from tallystick.core.attribution import Tags
from tallystick.core.periods import zone
from tallystick.insight.when import WHEN, instant_of
from tallystick.ledger.entry import Entry
from tallystick.ledger.query import Query

DEFAULT_LIMIT = 50


@click.command("log", epilog="Example: tally log --since monday --tag user=ada")
@click.option("--all", "everything", is_flag=True, help="Every call, not only the last 50.")
@click.option("-n", "--limit", type=click.IntRange(1), default=DEFAULT_LIMIT, show_default=True, help="How many.")
@click.option("--since", metavar="WHEN", help=f"From then on: {WHEN}. Days are the ledger's.")
@click.option("--until", metavar="WHEN", help="Up to before then.")
@click.option("-m", "--model", help="Only this model.")
@click.option("--provider", help="Only this provider.")
@click.option("--run", "run_id", help="Only this run.")
@click.option("-t", "--tag", "tags", multiple=True, metavar="NAME=VALUE", help="Only calls with this tag.")
@json_option
def command(
    everything: bool,
    limit: int,
    since: str | None,
    until: str | None,
    model: str | None,
    provider: str | None,
    run_id: str | None,
    tags: tuple[str, ...],
    as_json: bool,
) -> None:
    """The latest calls in the ledger, oldest first; with --json one object a line."""
    with reading_ledger() as ledger:
        edges = [None if text is None else instant_of(text, front.now(), zone(ledger.zone)) for text in (since, until)]
        query = Query(
            since=edges[0], until=edges[1], model=model, provider=provider, run_id=run_id,
            tags=Tags(pairs(tags, "--tag")), limit=None if everything else limit, newest_first=not everything,
        )  # fmt: skip
        if as_json and everything:
            # A whole ledger may not fit in memory: it is printed as it is read.
            for entry in ledger.read(query):
                click.echo(json.dumps(entry.to_json(), ensure_ascii=False))
            return
        entries = list(ledger.read(query))
    if not everything:
        entries.reverse()
    if as_json:
        for entry in entries:
            click.echo(json.dumps(entry.to_json(), ensure_ascii=False))
    elif not entries:
        click.echo("No calls.")
    else:
        show(entries)


def show(entries: list[Entry]) -> None:
    """A row per call."""
    columns = [("when (UTC)", "left"), ("model", "left"), ("input", "right"), ("output", "right"), ("cost", "right"),
               ("quality", "left"), ("status", "left"), ("for", "left")]  # fmt: skip
    show_table("", columns, [row(entry) for entry in entries])


def row(entry: Entry) -> list[str]:
    """One call in words; what is unknown says so."""
    usage = entry.usage
    owed = "" if entry.owed else " (not owed)"
    names = [f"run={entry.run_id}"] if entry.run_id else []
    names += [f"{name}={value}" for name, value in entry.tags.items()]
    return [
        f"{entry.started_at:%Y-%m-%d %H:%M:%S}",
        entry.model,
        "unknown" if usage is None else f"{usage.input_tokens:,}",
        "unknown" if usage is None else f"{usage.output_tokens:,}",
        ("unknown" if entry.amount is None else str(entry.amount)) + owed,
        entry.quality,
        entry.status,
        " ".join(names),
    ]
