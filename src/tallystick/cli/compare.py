"""tally compare: one text across models, or two prompts on one model."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, cast

import click

from tallystick import front
from tallystick.cli import printable
from tallystick.cli.shared import Instant, json_option, say_json, show_table, whole_text

if TYPE_CHECKING:
    from tallystick.insight.compare import ModelCost, PromptDifference

UNPRICED_EXIT = 3


@click.command("compare", epilog="Example: tally compare prompt.txt --models gpt-5,claude-sonnet-5")
@click.argument("first", metavar="FILE")
@click.argument("second", metavar="[FILE]", required=False)
@click.option("-m", "--models", "--model", required=True, help="Models, separated by commas; one for two prompts.")
@click.option("--output", "output_tokens", type=click.IntRange(0), default=500, show_default=True,
              help="Tokens of the answer.")  # fmt: skip
@click.option("--calls", type=click.IntRange(0), default=1000, show_default=True, help="Calls per month.")
@click.option("--at", type=Instant(), help="Price at this instant (default: now).")
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
    names = [name.strip() for name in models.split(",") if name.strip()]
    texts = [text if as_text else whole_text(None, text) for text in (first, second) if text is not None]
    result = front.compare(*texts, models=names, output_tokens=output_tokens, calls=calls, at=at)
    if second is not None:
        difference = cast("PromptDifference", result)
        say_json(difference.to_json()) if as_json else show_prompts(difference)
        return 0
    rows = cast("tuple[ModelCost, ...]", result)
    say_json([row.to_json() for row in rows]) if as_json else show_models(rows)
    return UNPRICED_EXIT if any(row.cost is None for row in rows) else 0


def show_models(rows: tuple[ModelCost, ...]) -> None:
    """A row per model, cheapest first; models without a rate last, with the reason."""
    ordered = sorted(rows, key=lambda row: (row.per_call is None, row.per_call.pico if row.per_call else 0))
    cells = [
        [
            row.model,
            f"{'' if row.count.exact else '~'}{row.count.tokens:,}",
            f"{row.output_tokens:,}",
            "unpriced" if row.per_call is None else str(row.per_call),
            "unpriced" if row.per_month is None else str(row.per_month),
            row.count.method,
        ]
        for row in ordered
    ]
    heads = [("model", "left"), ("input", "right"), ("output", "right"), ("per call", "right"),
             (f"{rows[0].calls:,} calls", "right"), ("count", "left")]  # fmt: skip
    show_table("", heads, cells)
    for row in ordered:
        if row.problem is not None:
            click.echo(printable(str(row.problem)), err=True)


def show_prompts(difference: PromptDifference) -> None:
    """Both prompts, their sections, and the verdict."""
    columns = (("A", difference.a, difference.a_cost, difference.a_sections),
               ("B", difference.b, difference.b_cost, difference.b_sections))  # fmt: skip
    cells = []
    for name, count, cost, parts in columns:
        cells.append([name, "whole prompt", f"{'' if count.exact else '~'}{count.tokens:,}", "unpriced" if cost is None else str(cost)])
        if len(parts) > 1:
            cells += [["", part.title, f"{part.tokens:,}", ""] for part in parts]
    show_table("", [("", "left"), ("section", "left"), ("tokens", "right"), ("input cost", "right")], cells)
    click.echo(f"{difference.verdict} ({printable(difference.model)}: {difference.a.basis})")
