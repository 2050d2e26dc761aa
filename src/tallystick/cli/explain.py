"""tally explain: the whole pipeline on one text, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from itertools import cycle
from typing import TYPE_CHECKING

import click

from tallystick import front
from tallystick.cli import printable
from tallystick.cli.shared import Dollars, Instant, json_option, model_option, provider_option, say_json, whole_text
from tallystick.config import user_card
from tallystick.core.cost import describe_rate
from tallystick.core.pricing import price
from tallystick.core.usage import Usage
from tallystick.errors import UnpricedError

if TYPE_CHECKING:
    from rich.text import Text

    from tallystick.core.cost import Cost
    from tallystick.tokens.count import Count

SHOWN_TOKENS = 400
COLOURS = ("on blue", "on magenta", "on cyan", "on green", "on yellow")
DEFAULT_TEXT = "Hello, how are you today?"
DEFAULT_ANSWER = "I am fine."


@click.command(
    "explain", epilog='Example: tally explain --model gpt-4o "Hello, how are you today?" --answer "I am fine."'
)
@click.argument("text", required=False)
@click.option("-f", "--file", "source", metavar="FILE", help="The text in a file; - for standard input.")
@model_option
@provider_option
@click.option("--answer", help="The model's answer, to be counted and priced too.")
@click.option("--rate", type=Dollars(), metavar="USD", help="A flat rate per million tokens instead of the catalogue's.")
@click.option("--at", type=Instant(), help="Price at this instant (default: now).")
@json_option
def command(
    text: str | None,
    source: str | None,
    model: str,
    provider: str | None,
    answer: str | None,
    rate: Decimal | None,
    at: datetime | None,
    as_json: bool,
) -> None:
    """The whole pipeline on one text: its tokens, their number, the answer's, and the cost with every rate."""
    if text is None and source is None:
        text, answer = DEFAULT_TEXT, DEFAULT_ANSWER if answer is None else answer
    prompt = whole_text(text, source)
    asked = front.count(prompt, model)
    answered = None if answer is None else front.count(answer, model)
    usage = Usage(input=asked.tokens, output=answered.tokens if answered else 0)
    cost, problem = priced(usage, model, provider, rate, front.instant(at))
    if as_json:
        say_json(as_plain(model, prompt, asked, answered, cost))
    else:
        show(model, (prompt, asked), (answer, answered), cost)
    if problem is not None:
        raise problem


def priced(
    usage: Usage, model: str, provider: str | None, rate: Decimal | None, at: datetime
) -> tuple[Cost | None, UnpricedError | None]:
    """The cost at a flat rate, or at the catalogue's; None with the reason where there is no rate."""
    if rate is not None:
        card = user_card(model, {"input": rate, "output": rate})
        return price(usage, card, at=at), None
    try:
        return front.price(usage, model, provider=provider, at=at), None
    except UnpricedError as error:
        return None, error


def as_plain(model: str, prompt: str, asked: Count, answered: Count | None, cost: Cost | None) -> dict[str, object]:
    """The stages as plain JSON values."""
    total = asked.tokens + (answered.tokens if answered else 0)
    return {
        "model": model,
        "characters": len(prompt),
        "input": {"tokens": asked.tokens, "low": asked.low, "high": asked.high, "method": asked.method,
                  "encoding": asked.encoding, "basis": asked.basis, "bytes": asked.bytes},
        "answer": None if answered is None else {"tokens": answered.tokens, "method": answered.method},
        "total_tokens": total,
        "cost": None if cost is None else cost.to_json(),
    }  # fmt: skip


def show(model: str, asked: tuple[str, Count], answered: tuple[str | None, Count | None], cost: Cost | None) -> None:
    """The stages for people."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    prompt, count = asked
    answer, answer_count = answered
    for label, text, counted in (("text", prompt, count), ("answer", answer, answer_count)):
        if text is None or counted is None:
            continue
        console.print(label.ljust(8), excerpt(text), f"[dim]{len(text):,} characters, {counted.bytes:,} bytes", sep=" ")
        console.print("tokens".ljust(8), coloured(text, counted))
        ratio = f", {counted.bytes / counted.tokens:.1f} bytes per token" if counted.tokens else ""
        console.print("count".ljust(8), f"{counted}{ratio}", markup=False)
        if not counted.exact:
            console.print("".ljust(8), f"between {counted.low:,} and {counted.high:,}: {counted.basis}", markup=False)
        console.print()
    if answer_count is not None:
        total = count.tokens + answer_count.tokens
        console.print("total".ljust(8), f"{count.tokens:,} + {answer_count.tokens:,} = {total:,} tokens", markup=False)
    if cost is None:
        return
    console.print("cost".ljust(8), f"{cost.amount}  on {printable(model)}", markup=False)
    for line in cost.lines:
        amount = "unpriced" if line.amount is None else str(line.amount)
        row = f"{line.kind}: {line.quantity:,} {line.unit}s x {describe_rate(line)} = {amount}"
        console.print("".ljust(8), printable(f"{row}  ({line.note})" if line.note else row), markup=False)
    for place in dict.fromkeys(line.source for line in cost.lines if line.source):
        console.print("source".ljust(8), printable(place), markup=False)
    for note in cost.notes:
        console.print("note".ljust(8), printable(note), markup=False)


def excerpt(text: str) -> Text:
    """The beginning of a text on one line, in quotes."""
    from rich.text import Text

    line = printable(text[:120]).replace("\n", "\\n")
    return Text(f'"{line}{"…" if len(text) > 120 else ""}"')


def coloured(text: str, count: Count) -> Text:
    """The text cut into its tokens, each on another colour; bars mark the cuts where there is no colour."""
    from rich.text import Text

    name = count.encoding
    shown = Text()
    if name is None:
        return shown.append(f"not shown: {count.basis}", style="dim")
    for number, (piece, style) in enumerate(zip(pieces(text, name), cycle(COLOURS), strict=False)):
        if number == SHOWN_TOKENS:
            shown.append(f" … the first {SHOWN_TOKENS} of {count.tokens:,}", style="dim")
            break
        if number:
            shown.append("|", style="dim")
        shown.append(piece, style=style)
    return shown


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

