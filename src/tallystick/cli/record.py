"""tally record: write a call into the ledger."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from tallystick import front
from tallystick.cli import printable
from tallystick.cli.price import fees, kind_options, read_usage
from tallystick.cli.shared import UNPRICED, call_context, call_options, json_option, pairs, say_json, warn
from tallystick.core.usage import Usage

if TYPE_CHECKING:
    from tallystick.ledger.entry import Entry


@click.command("record", epilog="Example: tally record gpt-4o --input 1000 --output 100 --tag user=ada --run research")
@click.argument("model")
@kind_options
@click.option("--fee", multiple=True, metavar="NAME=N", help="Tool calls with a fee, e.g. web_search=2.")
@click.option(
    "--usage", "source", metavar="FILE", help="The provider's own usage object as JSON; - for standard input."
)
@click.option("--api", help="The usage object's format, where its provider has several.")
@click.option("--unknown-usage", is_flag=True, help="The provider stated no usage: record the call as unknown.")
@click.option("--run", "run_id", help="The run this call belongs to.")
@click.option("-t", "--tag", "tags", multiple=True, metavar="NAME=VALUE", help="Who or what the call is for.")
@call_options
@json_option
def command(
    model: str,
    fee: tuple[str, ...],
    source: str | None,
    api: str | None,
    unknown_usage: bool,
    run_id: str | None,
    tags: tuple[str, ...],
    provider: str | None,
    at: datetime | None,
    tier: str | None,
    batch: bool,
    context: tuple[str, ...],
    as_json: bool,
    **kinds: int,
) -> int:
    """Write a call into the ledger. One whose cost is unknown is written too, never as free: exit code 3."""
    counts = {kind: count for kind, count in kinds.items() if count}
    counts |= {f"fee:{name}": number for name, number in fees(fee).items()}
    if [source is not None, bool(counts), unknown_usage].count(True) != 1:
        raise click.UsageError("Give counts (--input 1000), --usage FILE or --unknown-usage, one of them.")
    usage = None if unknown_usage else Usage(counts) if source is None else read_usage(source)
    entry = front.record(
        usage, model, provider=provider, api=api, at=at, context=call_context(tier, batch, context), run=run_id,
        tags=pairs(tags, "--tag"),
    )  # fmt: skip
    if as_json:
        say_json(entry.to_json())
    elif entry.amount is None:
        click.echo(f"recorded {entry.call_id}: {printable(entry.model)}, cost unknown")
    else:
        click.echo(f"recorded {entry.call_id}: {printable(entry.model)}, {entry.amount}")
    if entry.amount is not None or unknown_usage:
        return 0
    explain_unpriced(model, provider, entry)
    return UNPRICED


def explain_unpriced(model: str, provider: str | None, entry: Entry) -> None:
    """Why the recorded call has no cost, on standard error."""
    from tallystick.core.models import provider_id
    from tallystick.errors import UnpricedError
    from tallystick.metering.rating import missing_rate

    biller = None if provider is None else provider_id(provider)
    try:
        front.catalog().find(model, at=entry.started_at, provider=biller)
    except UnpricedError as error:
        warn(str(error))
        return
    if entry.cost is None:
        warn("The usage contradicts itself or states no counts, so the cost is unknown, not zero.")
    else:
        warn(str(missing_rate(entry.cost, model)))
