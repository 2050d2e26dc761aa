"""tally estimate: what a call will cost before it is made."""

from __future__ import annotations

from datetime import datetime

import click

from tallystick import front
from tallystick.cli import printable
from tallystick.cli.shared import Instant, json_option, model_option, provider_option, say_json, whole_text
from tallystick.errors import LedgerError


@click.command("estimate", epilog='Example: tally estimate --model gpt-4o --max-output 500 "Summarise this: ..."')
@click.argument("text", required=False)
@click.option("-f", "--file", "source", metavar="FILE", help="The prompt in a file; - for standard input.")
@model_option
@provider_option
@click.option("--max-output", type=click.IntRange(1), metavar="N", help="The most tokens the answer may have.")
@click.option("--agent", help="Learn the answer's length from this agent's earlier calls.")
@click.option("--at", type=Instant(), help="When the call will be made (default: now).")
@json_option
def command(
    text: str | None,
    source: str | None,
    model: str,
    provider: str | None,
    max_output: int | None,
    agent: str | None,
    at: datetime | None,
    as_json: bool,
) -> None:
    """What a call will cost: low, likely and high, and on what basis."""
    prompt = whole_text(text, source)
    try:
        with front.open(read_only=True) as ledger:
            estimate = front.estimate(
                prompt, model, max_output=max_output, provider=provider, at=at, ledger=ledger, agent=agent
            )
    except LedgerError:
        # Without a ledger there is no history; the estimate then says that it rests on the default.
        estimate = front.estimate(prompt, model, max_output=max_output, provider=provider, at=at)
    if as_json:
        say_json(estimate.to_json())
    else:
        click.echo(printable(str(estimate)))
