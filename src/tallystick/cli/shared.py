"""What several verbs need: options, texts from files and stdin, numbers, and output for people and for programs."""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import click

from tallystick.cli import printable
from tallystick.errors import InputError, TextError

CHUNK: Final = 1 << 20
WHOLE_LIMIT: Final = 1 << 28
"""Texts that a verb needs whole stop here (256 MB); counting alone has no limit."""

Function = TypeVar("Function", bound=Callable[..., Any])
WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON value for programs.")
model_option = click.option("-m", "--model", default="gpt-4o", show_default=True, help="The model's id.")
provider_option = click.option("--provider", help="Who bills, where the model's name does not say.")


class Instant(click.ParamType[datetime]):
    """A point in time: `2026-11-01`, `2026-11-01T12:00:00Z`, `today`, `yesterday`, a weekday, or an age such as `7d`."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Reads the text; a date without a time means its midnight, UTC unless the text says otherwise."""
        if isinstance(value, datetime):
            return value
        try:
            return parse_instant(value, datetime.now(UTC))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def parse_instant(text: str, now: datetime) -> datetime:
    """The instant a word, an age or an RFC 3339 text means, seen from `now`. Raises InputError."""
    word = text.strip().lower()
    midnight = datetime.combine(now.date(), time(), UTC)
    if word in ("now", "today", "yesterday"):
        return {"now": now, "today": midnight, "yesterday": midnight - timedelta(days=1)}[word]
    if word in WEEKDAYS:
        return midnight - timedelta(days=(now.weekday() - WEEKDAYS.index(word)) % 7)
    units = {"m": 60, "h": 3600, "d": 86400, "w": 604800}
    if word[:-1].isdigit() and word[-1:] in units and len(word) < 8:
        return now - timedelta(seconds=int(word[:-1]) * units[word[-1]])
    try:
        if len(word) == len("2026-11-01"):
            return datetime.combine(date.fromisoformat(word), time(), UTC)
        instant = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InputError(
            f"{text!r} is not a date.", todo="Write 2026-11-01, 2026-11-01T12:00:00Z, today, monday or 7d."
        ) from None
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


class Dollars(click.ParamType[Decimal]):
    """An amount of dollars as exact decimal text."""

    name = "usd"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        """Reads `10`, `0.15` or `$2.50`."""
        try:
            amount = Decimal(str(value).strip().removeprefix("$"))
        except InvalidOperation:
            self.fail(f"{value!r} is not a number of dollars.", param, ctx)
        if not amount.is_finite() or amount < 0:
            self.fail(f"{value!r} must be zero or more.", param, ctx)
        return amount


def say_json(value: object) -> None:
    """One JSON value on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def open_bytes(source: str) -> BinaryIO:
    """A file's bytes, or standard input for `-`. Raises TextError with what to do."""
    if source == "-":
        return sys.stdin.buffer
    path = Path(source)
    try:
        if path.is_dir():
            raise TextError(f"{source} is a folder, not a file.", todo="Name a file, or - for standard input.")
        return path.open("rb")
    except FileNotFoundError:
        raise TextError(f"There is no file {source}.", todo="Check the path; a text itself needs no --file.") from None
    except OSError as error:
        raise TextError(f"{source} cannot be read: {error.strerror}.") from None


def text_chunks(source: str, progress: Callable[[int], None] | None = None) -> Iterator[str]:
    """A file's text in pieces, in memory that does not grow; bytes that are not UTF-8 become replacement characters.
    `progress` is told of each piece's bytes."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with open_bytes(source) as stream:
        while data := stream.read(CHUNK):
            if progress is not None:
                progress(len(data))
            yield decoder.decode(data)
    yield decoder.decode(b"", final=True)


def whole_text(text: str | None, source: str | None, default: str | None = None) -> str:
    """The text given as an argument, from a file or from standard input (`-`). Raises TextError when there is none or
    it is too large to hold."""
    if text is not None and text != "-" and source is None:
        return text
    if source is None and text != "-":
        if default is not None:
            return default
        raise TextError("There is no text.", todo="Give it as an argument, as --file FILE, or as - for standard input.")
    pieces, size = [], 0
    for piece in text_chunks(source or "-"):
        size += len(piece)
        if size > WHOLE_LIMIT:
            raise TextError(f"{source} is too large for this command.", todo="`tally count` takes files of any size.")
        pieces.append(piece)
    return "".join(pieces)


def read_json(source: str) -> Any:
    """A JSON value from a file or standard input; numbers keep their decimal text. Raises InputError with the place of
    the mistake."""
    with open_bytes(source) as stream:
        data = stream.read()
    try:
        return json.loads(data, parse_float=Decimal)
    except UnicodeDecodeError:
        raise InputError(f"{source} is not UTF-8 text.", todo="Save it as UTF-8.") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{source} is not valid JSON: {error}.") from None
    except RecursionError:
        raise InputError(f"{source} is nested too deeply.") from None


def pairs(values: tuple[str, ...], what: str) -> dict[str, str]:
    """`name=value` options as a mapping. Raises a usage error for anything else."""
    found = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise click.UsageError(f"{what} {value!r} must be written name=value.")
        found[name] = text
    return found


def show_table(title: str, columns: list[tuple[str, str]], rows: Sequence[Sequence[str]]) -> None:
    """A table for people. `columns` are (heading, "left" or "right"); cells are text, never markup. Where output is not
    a terminal the table keeps its natural width, so that nothing is cut from a file."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=10_000)
    grid = Table(title=Text(title) if title else None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, justify in columns:
        grid.add_column(Text(heading), justify="right" if justify == "right" else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(printable(cell)) for cell in row))
    console.print(grid)


def call_options(function: Function) -> Function:
    """The options that say what a usage does not: when, who billed, which tier, batch, other context."""
    options = (
        provider_option,
        click.option("--at", type=Instant(), help="When the call was made (default: now)."),
        click.option("--tier", help="Service tier: flex, priority, ..."),
        click.option("--batch", is_flag=True, help="Made through a batch interface."),
        click.option("-c", "--context", multiple=True, metavar="NAME=VALUE", help="Other context, e.g. data_residency=eu."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def call_context(tier: str | None, batch: bool, context: tuple[str, ...]) -> dict[str, str]:
    """The context that `call_options` collected."""
    given = pairs(context, "--context")
    if tier is not None:
        given["service_tier"] = tier
    if batch:
        given["processing"] = "batch"
    return given
