"""tally estimate: what a call will cost before it is made."""

from __future__ import annotations

from datetime import datetime

import click

from tallystick import front
from tallystick.cli import printable
from tallystick.cli.count import read_messages
from tallystick.cli.shared import (
    UNPRICED,
    Instant,
    given_text,
    json_option,
    model_option,
    provider_option,
    say_json,
    warn,
)


@click.command("estimate", epilog='Example: tally estimate --model gpt-4o --max-output 500 "Summarise this: ..."')
@click.argument("text", required=False)
@click.option("-f", "--file", "source", metavar="FILE", help="The prompt in a file; - for standard input.")
@click.option("--messages", metavar="FILE", help="The prompt as a JSON list of chat messages.")
@model_option
@provider_option
@click.option("--max-output", type=click.IntRange(1), metavar="N", help="The most tokens the answer may have.")
@click.option("--agent", metavar="NAME", help="Learn the answer's length from the calls with the tag agent=NAME.")
@click.option("--at", type=Instant(), metavar="WHEN", help="When the call will be made. [default: now]")
@json_option
def command(
    text: str | None,
    source: str | None,
    messages: str | None,
    model: str,
    provider: str | None,
    max_output: int | None,
    agent: str | None,
    at: datetime | None,
    as_json: bool,
) -> int:
    """What a call will cost: low, likely and high, and on what basis. The answer's length is learned from the ledger
    once it holds 20 calls of the model (and agent); until then a stated default is used."""
    if messages is not None and (text is not None or source is not None):
        raise click.UsageError("Give a text or --messages, not both.")
    prompt, code = (read_messages(messages), 0) if messages is not None else given_text(text, source)
    estimate = front.estimate(prompt, model, max_output=max_output, provider=provider, at=at, agent=agent)
    if as_json:
        say_json(estimate.to_json())
    else:
        click.echo(printable(str(estimate)))
    if estimate.likely is not None:
        return code
    warn(f"{model} has no rate for input or output, so the cost is unknown, not zero.")
    return UNPRICED
