"""tally rates: the rate catalogue."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tallystick import front
from tallystick.cli import printable
from tallystick.cli.shared import (
    Dollars,
    Function,
    Instant,
    json_option,
    pairs,
    provider_option,
    read_json,
    say_json,
    show_table,
)
from tallystick.config import parse_config, read_text, target, user_card, with_rate, write_text
from tallystick.core.models import parse_model, provider_id
from tallystick.insight.cardwords import rate_words, when_words

if TYPE_CHECKING:
    from tallystick.core.rates import RateCard

SET_KINDS = ("input", "output", "cache_read", "cache_write", "reasoning", "audio_input", "audio_output", "requests")


class Parts(click.Group):
    """The commands about rates; those that compare and rebuild the catalogue are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them, in the order of use."""
        del ctx
        return ["show", "set", "check", "diff", "update"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name in ("diff", "update"):
            from tallystick.cli import updates

            return updates.diff if cmd_name == "diff" else updates.update
        return super().get_command(ctx, cmd_name)


@click.group("rates", cls=Parts, invoke_without_command=True, epilog="Example: tally rates show gpt-4o")
@click.pass_context
def command(ctx: click.Context) -> None:
    """The rate catalogue: what each model costs, since when, and from which source."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@command.command("show", epilog="Example: tally rates show gpt-4o --at 2025-06-01")
@click.argument("model")
@provider_option
@click.option("--at", type=Instant(), metavar="WHEN", help="The rates of this instant. [default: now]")
@click.option("--history", is_flag=True, help="Every card of the model, not only the one in force.")
@json_option
def show(model: str, provider: str | None, at: datetime | None, history: bool, as_json: bool) -> None:
    """The rates of a model, their conditions and their source."""
    catalog = front.catalog()
    biller = None if provider is None else provider_id(provider)
    found = catalog.find(model, at=front.instant(at), provider=biller)
    cards = found.row.cards if history else (found.card,)
    if as_json:
        import msgspec

        value = [msgspec.to_builtins(card) for card in cards]
        say_json({"provider": found.provider, "model": found.model, "rule": found.rule, "cards": value})
        return
    named = "" if found.rule == "exact" else f" (found by rule: {found.rule})"
    click.echo(printable(f"{found.model} at {found.provider}{named}"))
    facts = {"maker": found.row.maker, "context window": found.row.context_window, "retires": found.row.retires}
    for name, fact in facts.items():
        if fact is not None:
            click.echo(printable(f"{name}: {fact:,}" if isinstance(fact, int) else f"{name}: {fact}"))
    for card in cards:
        show_card(card)


def show_card(card: RateCard) -> None:
    """One card for people: rates, then what changes them, then where they come from."""
    since = f"from {card.valid_from:%Y-%m-%d}" if card.valid_from else "from the beginning"
    until = f" to {card.valid_to:%Y-%m-%d}" if card.valid_to else ""
    rows = [[kind, *rate_words(kind, rate), ""] for kind, rate in card.rates.items()]
    for variant in card.variants:
        rows += [[kind, *rate_words(kind, rate), when_words(variant)] for kind, rate in variant.rates.items()]
    columns = [("kind", "left"), ("rate", "right"), ("per", "left"), ("above", "left"), ("when", "left")]
    show_table(f"{since}{until}", columns, rows)
    for factor in card.multipliers:
        when = " ".join(f"{key}={value}" for key, value in factor.when)
        click.echo(printable(f"x {factor.factor} {factor.name} when {when}"))
    lent = [
        f"{kind} as {other}" for kind, other in card.fallbacks.items() if kind not in card.rates and other in card.rates
    ]
    if lent:
        click.echo(f"without a rate of their own: {', '.join(lent)}")
    read = f", read {card.retrieved_at}" if card.retrieved_at else ""
    click.echo(printable(f"source: {card.source} ({card.status}{read})"))
    if card.note:
        click.echo(printable(f"note: {card.note}"))


def rate_options(function: Function) -> Function:
    """One option per kind that `rates set` takes."""
    for kind in reversed(SET_KINDS):
        flag = f"--{kind.replace('_', '-')}"
        unit = "USD per request" if kind == "requests" else "USD per million tokens"
        function = click.option(flag, kind, type=Dollars(), metavar="USD", help=f"{unit}.")(function)
    return function


@command.command("set", epilog="Example: tally rates set my-model --input 10 --output 30")
@click.argument("model")
@rate_options
@click.option("--rate", "others", multiple=True, metavar="KIND=USD", help="Any other kind of usage, or fee:NAME.")
@provider_option
@click.option("--from", "since", type=Instant(), metavar="WHEN", help="From when it holds. [default: always]")
def set_(
    model: str, others: tuple[str, ...], provider: str | None, since: datetime | None, **usd: Decimal | None
) -> None:
    """Your own rates for a model, in your configuration. Where they hold they stand alone: nothing of the catalogue's
    card is mixed in. Set them again with --from to change them from a day on."""
    parse_model(model, provider)
    biller = "" if provider is None else provider_id(provider)
    given = {kind: value for kind, value in usd.items() if value is not None}
    for kind, text in pairs(others, "--rate").items():
        given[kind.replace("-", "_")] = Dollars().convert(text, None, click.get_current_context())
    card = user_card(model.strip(), given, provider=biller, since=since)
    path = target(os.environ, Path())
    text = read_text(path) if path.is_file() else ""
    parse_config(text, path)
    changed = with_rate(text, card)
    parse_config(changed, path)
    write_text(path, changed)
    begin = "" if since is None else f" from {since:%Y-%m-%d %H:%M} UTC"
    click.echo(f"{printable(model)} now has your own rates{begin}; written to {printable(str(path.absolute()))}.")


@command.command(
    "check", short_help="Price a file of cases whose cost is known.", epilog="Example: tally rates check my-cases.json"
)
@click.argument("source", metavar="CASES.json")
@json_option
def check(source: str, as_json: bool) -> int:
    """Price a file of cases whose cost is known: agree, differ or unsupported for each. Exit code 0 if all agree, 4 if
    some are only unsupported, 1 if any differs."""
    from tallystick.metering.check import AGREE, check_cases, exit_code

    verdicts = check_cases(read_json(source), front.catalog(), datetime.now(UTC))
    code = exit_code(verdicts)
    tally = {result: sum(v.result == result for v in verdicts) for result in dict.fromkeys(v.result for v in verdicts)}
    if as_json:
        say_json({"cases": [verdict.to_json() for verdict in verdicts], "summary": tally, "exit_code": code})
        return code
    for verdict in verdicts:
        if verdict.result != AGREE:
            expected, ours = (
                "unknown" if amount is None else str(amount) for amount in (verdict.expected, verdict.ours)
            )
            row = f"{verdict.result:<12}{verdict.name}: expected {expected}, ours {ours}; {verdict.reason}"
            click.echo(printable(row))
    many = "1 case" if len(verdicts) == 1 else f"{len(verdicts)} cases"
    click.echo(f"{many}: " + ", ".join(f"{number} {result}" for result, number in tally.items()))
    return code
