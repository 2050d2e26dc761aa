"""tally compare: one text across models, or two prompts on one model."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from tallystick import front
from tallystick.cli import printable
from tallystick.cli.shared import UNPRICED, Instant, Source, json_option, say_json, show_table, warn
from tallystick.errors import TextError

if TYPE_CHECKING:
    from tallystick.core.money import Money
    from tallystick.insight.compare import ModelCost, PromptDifference
    from tallystick.tokens.count import Count


@click.command("compare", epilog="Example: tally compare prompt.txt --models gpt-4o,claude-sonnet-5")
@click.argument("first", metavar="FILE")
@click.argument("second", metavar="[FILE]", required=False)
@click.option("-m", "--models", "--model", required=True, help="Models, separated by commas; one for two prompts.")
@click.option("--output", "output_tokens", type=click.IntRange(0), default=500, show_default=True, metavar="N",
              help="Tokens of the answer.")  # fmt: skip
@click.option("--calls", type=click.IntRange(0), default=1000, show_default=True, metavar="N", help="Calls per month.")
@click.option("--at", type=Instant(), metavar="WHEN", help="Price at this instant. [default: now]")
@click.option("--text", "as_text", is_flag=True, help="The arguments are the texts themselves, not files.")
@json_option
def command(
    first: str,
    second: str | None,
    models: str,
    output_tokens: int,
    calls: int,
    at: datetime | None,
    as_text: bool,
    as_json: bool,
) -> int:
    """One text across models: tokens by each model's own tokenizer, cost per call and per month. Or two prompts on one
    model: tokens and cost of each, by section, and the break-even, because a shorter prompt can cost more."""
    names = list(dict.fromkeys(name.strip() for name in models.split(",") if name.strip()))
    one, code = (first, 0) if as_text else read_file(first)
    if second is not None:
        other, other_code = (second, 0) if as_text else read_file(second)
        difference = front.compare(one, other, models=names, at=at)
        say_json(difference.to_json()) if as_json else show_prompts(difference)
        if difference.problem is not None:
            warn(str(difference.problem))
            return UNPRICED
        return max(code, other_code)
    rows = front.compare(one, models=names, output_tokens=output_tokens, calls=calls, at=at)
    say_json([row.to_json() for row in rows]) if as_json else show_models(rows)
    for row in rows:
        if row.problem is not None:
            warn(str(row.problem))
    return UNPRICED if any(row.per_call is None for row in rows) else code


def read_file(name: str) -> tuple[str, int]:
    """A file's text, and the exit code that its bytes deserve. Raises TextError."""
    source = Source(name)
    try:
        return source.whole(), source.remark()
    except TextError as error:
        todo = error.todo if name == "-" else f"{error.todo} If it is the text itself, add --text.".strip()
        raise TextError(error.what, todo=todo) from None


def show_models(rows: tuple[ModelCost, ...]) -> None:
    """A row per model, cheapest first; models without a rate last."""
    ordered = sorted(rows, key=lambda row: (row.per_call is None, row.per_call.pico if row.per_call else 0))
    cells = [
        [row.model, tokens(row.count), f"{row.output_tokens:,}", dollars(row.per_call), dollars(row.per_month),
         row.count.method]
        for row in ordered
    ]  # fmt: skip
    heads = [("model", "left"), ("input", "right"), ("output", "right"), ("per call", "right"),
             (f"{rows[0].calls:,} calls", "right"), ("count", "left")]  # fmt: skip
    show_table("", heads, cells)


def show_prompts(difference: PromptDifference) -> None:
    """Both prompts, their sections, and the verdict."""
    columns = (("A", difference.a, difference.a_cost, difference.a_sections),
               ("B", difference.b, difference.b_cost, difference.b_sections))  # fmt: skip
    cells = []
    for name, count, cost, parts in columns:
        cells.append([name, "whole prompt", tokens(count), dollars(cost)])
        if len(parts) > 1:
            cells += [["", part.title, f"{part.tokens:,}", dollars(part.cost)] for part in parts]
    show_table("", [("", "left"), ("section", "left"), ("tokens", "right"), ("input cost", "right")], cells)
    click.echo(printable(difference.verdict))
    click.echo(printable(f"On {difference.model}: {difference.a.basis}."))


def tokens(count: Count) -> str:
    """`1,234`, or `~1,234` for an estimate."""
    return f"{'' if count.exact else '~'}{count.tokens:,}"


def dollars(amount: Money | None) -> str:
    """The amount, or that it is unknown."""
    return "unknown" if amount is None else str(amount)
