"""tally explain: the whole pipeline on one text, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from itertools import cycle
from typing import TYPE_CHECKING

import click
import msgspec

from tallystick import front
from tallystick.cli import printable
from tallystick.cli.shared import (
    UNPRICED,
    Dollars,
    Instant,
    coloured,
    given_text,
    json_option,
    model_option,
    provider_option,
    say_json,
    warn,
)
from tallystick.config import user_card
from tallystick.core.cost import describe_rate
from tallystick.core.pricing import price
from tallystick.core.usage import Usage, unit_of, units_of
from tallystick.errors import UnpricedError

if TYPE_CHECKING:
    from tallystick.core.cost import Cost
    from tallystick.tokens.count import Count

SHOWN_TOKENS = 400
COLOURS = ("blue", "magenta", "cyan", "green", "yellow")
DEFAULT_TEXT = "Hello, how are you today?"
DEFAULT_ANSWER = "I am fine."
LABEL = 9


@click.command(
    "explain", epilog='Example: tally explain --model gpt-4o "Hello, how are you today?" --answer "I am fine."'
)
@click.argument("text", required=False)
@click.option("-f", "--file", "source", metavar="FILE", help="The text in a file; - for standard input.")
@model_option
@provider_option
@click.option("--answer", help="The model's answer, to be counted and priced too.")
@click.option("--rate", type=Dollars(), metavar="USD", help="A flat rate per million tokens, not the catalogue's.")
@click.option("--at", type=Instant(), metavar="WHEN", help="Price at this instant. [default: now]")
@click.option("--call", "calling", is_flag=True, help="Send it, with the key in your environment, and follow the call.")
@click.option("--simulate", is_flag=True, help="With --call: to a simulated provider; so too where there is no key.")
@click.option(
    "--max-output", type=click.IntRange(1), default=256, show_default=True, metavar="N",
    help="With --call: the most tokens the answer may have.",
)  # fmt: skip
@json_option
def command(
    text: str | None,
    source: str | None,
    model: str,
    provider: str | None,
    answer: str | None,
    rate: Decimal | None,
    at: datetime | None,
    calling: bool,
    simulate: bool,
    max_output: int,
    as_json: bool,
) -> int:
    """The whole pipeline on one text: its tokens, their number, the answer's, and the cost with every rate.

    With --call it is sent, and each stage of the call is said as it happens: what is asked, the most it may cost, what
    is changed, the bytes as they pass, tokens, usage, cost, and the entry in the ledger. Nothing is sent without it.
    """
    if calling:
        if rate is not None or at is not None:
            raise click.UsageError("--rate and --at do not go with --call: a call is priced as it is.")
        return called(text, source, model, provider, (simulate, max_output, answer), as_json=as_json)
    if simulate:
        raise click.UsageError("--simulate goes with --call.")
    if text is None and source is None:
        text, answer = DEFAULT_TEXT, DEFAULT_ANSWER if answer is None else answer
    prompt, code = given_text(text, source)
    asked = front.count(prompt, model)
    answered = None if answer is None else front.count(answer, model)
    usage = Usage(input=asked.tokens, output=answered.tokens if answered else 0)
    cost, problem = priced(usage, model, provider, rate, front.instant(at))
    if as_json:
        say_json(as_plain(model, prompt, asked, answered, cost))
    else:
        show_text("text", prompt, asked)
        if answer is not None and answered is not None:
            show_text("answer", answer, answered)
            total = asked.tokens + answered.tokens
            say("total", f"{asked.tokens:,} + {answered.tokens:,} = {total:,} tokens")
        show_cost(model, cost)
    if problem is not None:
        warn(str(problem))
    return UNPRICED if cost is None or cost.amount is None else code


def called(
    text: str | None,
    source: str | None,
    model: str,
    provider: str | None,
    how: tuple[bool, int, str | None],
    *,
    as_json: bool,
) -> int:
    """Makes the call and shows it."""
    from tallystick.cli.explain_call import Asked, explain_call
    from tallystick.core.models import provider_id

    simulate, most, answer = how
    prompt, code = (DEFAULT_TEXT, 0) if text is None and source is None else given_text(text, source)
    if answer is not None and not simulate:
        raise click.UsageError("--answer with --call is what a simulated provider says; add --simulate.")
    named = None if provider is None else provider_id(provider)
    return explain_call(Asked(prompt, model, named, simulate, most, answer), as_json=as_json) or code


def priced(
    usage: Usage, model: str, provider: str | None, rate: Decimal | None, at: datetime
) -> tuple[Cost | None, UnpricedError | None]:
    """The cost at a flat rate, or at the catalogue's; None with the reason where there is no rate."""
    from tallystick.metering.rating import missing_rate

    if rate is not None:
        card = msgspec.structs.replace(user_card(model, {"input": rate, "output": rate}), source="the rate you gave")
        return price(usage, card, at=at), None
    try:
        cost = front.price(usage, model, provider=provider, at=at)
    except UnpricedError as error:
        return None, error
    return cost, missing_rate(cost, model) if cost.unpriced else None


def as_plain(model: str, prompt: str, asked: Count, answered: Count | None, cost: Cost | None) -> dict[str, object]:
    """The stages as plain JSON values."""
    return {
        "model": model,
        "characters": len(prompt),
        "input": asked.to_json(),
        "answer": None if answered is None else answered.to_json(),
        "total_tokens": asked.tokens + (answered.tokens if answered else 0),
        "cost": None if cost is None else cost.to_json(),
    }


def say(label: str, text: str) -> None:
    """One line of a stage."""
    click.echo(f"{label:<{LABEL}}{text}".rstrip())


def show_text(label: str, text: str, count: Count) -> None:
    """A text, its tokens, and their number."""
    say(label, f"{excerpt(text)} {len(text):,} characters, {count.bytes:,} bytes")
    say("tokens", cut(text, count))
    ratio = f", {count.bytes / count.tokens:.1f} bytes per token" if count.tokens else ""
    say("count", f"{count}{ratio}")
    if not count.exact:
        say("", printable(count.basis))
    click.echo()


def show_cost(model: str, cost: Cost | None) -> None:
    """The cost with its lines, their rates and where those come from."""
    if cost is None:
        say("cost", f"unknown  on {printable(model)}")
        return
    amount = "unknown" if cost.amount is None else str(cost.amount)
    say("cost", f"{amount}  on {printable(model)}")
    for line in cost.lines:
        unit = unit_of(line.kind) if line.quantity == 1 else units_of(line.kind)
        amount = "unpriced" if line.amount is None else str(line.amount)
        row = f"{line.kind}: {line.quantity:,} {unit} x {describe_rate(line)} = {amount}"
        say("", printable(f"{row}  ({line.note})" if line.note else row))
    for place in dict.fromkeys(line.source for line in cost.lines if line.source):
        say("source", printable(place))
    for note in cost.notes:
        say("note", printable(note))


def excerpt(text: str) -> str:
    """The beginning of a text on one line, in quotes."""
    line = printable(text[:120]).replace("\n", "\\n")
    return f'"{line}{"..." if len(text) > 120 else ""}"'


def cut(text: str, count: Count) -> str:
    """The text cut into its tokens: each on another colour in a terminal, with bars between them elsewhere."""
    if count.encoding is None:
        return f"not shown, they are not known: {count.method}"
    shown, colour = [], coloured()
    for number, (piece, name) in enumerate(zip(pieces(text, count.encoding), cycle(COLOURS), strict=False)):
        if number == SHOWN_TOKENS:
            shown.append(f" ... the first {SHOWN_TOKENS} of {count.tokens:,}")
            break
        shown.append(click.style(piece, bg=name, fg="black") if colour else f"|{piece}" if number else piece)
    return "".join(shown)


def pieces(text: str, encoding_name: str) -> Iterator[str]:
    """The tokens' texts; a token that is part of a character is shown as its bytes."""
    from tallystick.tokens.encodings import encoding

    tokenizer = encoding(encoding_name)
    for token in tokenizer.encode(text[: 16 * SHOWN_TOKENS]):
        data = tokenizer.token_bytes(token)
        try:
            yield printable(data.decode()).replace("\n", "\\n")
        except UnicodeDecodeError:
            yield "".join(f"\\x{byte:02x}" for byte in data)
