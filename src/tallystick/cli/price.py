"""tally price: what a call costs, line by line."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from tallystick import front
from tallystick.cli import printable
from tallystick.cli.shared import UNPRICED, Function, call_context, call_options, json_option, read_json, say_json, warn
from tallystick.core.usage import KINDS, Usage
from tallystick.errors import InputError

SHOWN = {
    "input": "Tokens of the prompt that came from no cache.",
    "cache_read": "Tokens of the prompt that came from a cache.",
    "cache_write": "Tokens of the prompt that were written to a cache.",
    "output": "Tokens of the answer, without reasoning.",
    "reasoning": "Tokens the model spent on reasoning.",
    "requests": "Requests, where there is a price for each.",
    "images": "Images made.",
}
"""Kinds whose option `--help` lists; the epilog names the others."""


def kind_options(function: Function) -> Function:
    """One option per kind of usage: `--input`, `--cache-read`, ..."""
    for kind in reversed(KINDS):
        flag, hidden = f"--{kind.replace('_', '-')}", kind not in SHOWN
        said = SHOWN.get(kind)
        option = click.option(flag, kind, type=click.IntRange(0), default=0, metavar="N", hidden=hidden, help=said)
        function = option(function)
    return function


@click.command(
    "price",
    epilog="Kinds never overlap: --input is the uncached part of the prompt. All kinds have an option: "
    f"{', '.join('--' + kind.replace('_', '-') for kind in KINDS)}.\n\n"
    "Example: tally price gpt-4o --input 1000 --output 100 --cache-read 500",
)
@click.argument("model")
@kind_options
@click.option("--fee", multiple=True, metavar="NAME=N", help="Tool calls with a fee, e.g. web_search=2.")
@click.option(
    "--usage", "source", metavar="FILE", help="The provider's own usage object as JSON; - for standard input."
)
@click.option("--api", help="The usage object's format, where its provider has several.")
@call_options
@json_option
def command(
    model: str,
    fee: tuple[str, ...],
    source: str | None,
    api: str | None,
    provider: str | None,
    at: datetime | None,
    tier: str | None,
    batch: bool,
    context: tuple[str, ...],
    as_json: bool,
    **kinds: int,
) -> int:
    """What a call costs, line by line, with every rate and its source."""
    counts = {kind: count for kind, count in kinds.items() if count}
    for name, number in fees(fee).items():
        counts[f"fee:{name}"] = number
    if (source is None) == (not counts):
        raise click.UsageError("Give counts (--input 1000 --output 100) or --usage FILE, one of them.")
    usage = Usage(counts) if source is None else read_usage(source)
    cost = front.price(usage, model, provider=provider, api=api, at=at, context=call_context(tier, batch, context))
    if as_json:
        say_json({"model": model, **cost.to_json()})
    else:
        click.echo(printable(str(cost)))
        for place in dict.fromkeys(line.source for line in cost.lines if line.source):
            click.echo(f"source: {printable(place)}")
    if cost.amount is not None:
        return 0
    from tallystick.metering.rating import missing_rate

    warn(str(missing_rate(cost, model)))
    return UNPRICED


def read_usage(source: str) -> Any:
    """A usage object from a JSON file. Raises InputError."""
    value = read_json(source)
    if value is None:
        raise InputError(f"{source} holds null, not a usage object.", todo="tally record takes --unknown-usage.")
    return value


def fees(values: tuple[str, ...]) -> dict[str, int]:
    """`--fee web_search=2` options as counts."""
    found = {}
    for value in values:
        name, _, number = value.partition("=")
        if not (number.isascii() and number.isdigit() and len(number) < 20):
            raise click.UsageError(f"--fee {value!r} must be written name=count.")
        found[name] = int(number)
    return found
