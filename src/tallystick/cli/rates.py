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
from tallystick.cli.shared import Dollars, Function, Instant, json_option, provider_option, read_json, say_json, show_table
from tallystick.config import config_dir, find_config, parse_config, read_text, user_card, with_rate
from tallystick.core.models import parse_model, provider_id

if TYPE_CHECKING:
    from tallystick.core.rates import Rate, RateCard, Variant

DAYS_A_WEEK = 7
SET_KINDS = ("input", "output", "cache_read", "cache_write", "reasoning", "audio_input", "audio_output", "requests")


@click.group("rates", epilog="Example: tally rates show gpt-4o")
def command() -> None:
    """The rate catalogue: what each model costs, since when, and from which source."""


@command.command("show", epilog="Example: tally rates show gpt-4o --at 2025-06-01")
@click.argument("model")
@provider_option
@click.option("--at", type=Instant(), help="The rates of this instant (default: now).")
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
    for kind, other in card.fallbacks.items():
        if kind not in card.rates and other in card.rates:
            click.echo(f"{kind} at the rate of {other}")
    click.echo(printable(f"source: {card.source} ({card.status}{', ' + card.retrieved_at if card.retrieved_at else ''})"))
    if card.note:
        click.echo(printable(f"note: {card.note}"))


def when_words(variant: Variant) -> str:
    """When a variant holds: `service_tier=flex`, `peak 01:00-04:00 UTC on weekdays 1 to 5`."""
    parts = [f"{key}={value}" for key, value in variant.when]
    for window in variant.windows:
        hours = f"{_clock(window.start)}-{_clock(window.end)} {window.tz}"
        days = window.weekdays
        parts.append(hours if len(days) == DAYS_A_WEEK else f"{hours} on weekdays {', '.join(map(str, days))}")
    return " ".join(parts) or variant.name


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


def rate_words(kind: str, rate: Rate) -> tuple[str, str, str]:
    """A rate in words: amount, unit, and its steps by prompt size."""
    from tallystick.core.cost import per_words
    from tallystick.core.money import Money

    steps = ", ".join(
        f"{Money.usd(cliff.usd)} {'from' if cliff.inclusive else 'above'} {cliff.above:,}" for cliff in rate.cliffs
    )
    return str(Money.usd(rate.usd)), per_words(kind, rate.per), steps


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
@provider_option
@click.option("--from", "since", type=Instant(), help="From when it holds (default: always).")
def set_(model: str, provider: str | None, since: datetime | None, **usd: Decimal | None) -> None:
    """Your own rates for a model, in your configuration. They win over the catalogue's."""
    parse_model(model, provider)
    biller = "" if provider is None else provider_id(provider)
    card = user_card(model, {kind: value for kind, value in usd.items() if value is not None}, provider=biller, since=since)
    path = find_config(os.environ, Path.cwd()) or config_dir(os.environ) / "config.toml"
    text = with_rate(read_text(path) if path.is_file() else "", card)
    parse_config(text, path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    scratch = path.with_suffix(".toml.new")
    scratch.touch(mode=0o600)
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)
    click.echo(f"{printable(model)} now costs what you set; written to {path}.")


@command.command("check", epilog="Example: tally rates check my-cases.json")
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
            click.echo(printable(f"{verdict.result:<12}{verdict.name}: expected {verdict.expected}, ours {verdict.ours}; {verdict.reason}"))
    click.echo(f"{len(verdicts)} cases: " + ", ".join(f"{number} {result}" for result, number in tally.items()))
    return code
