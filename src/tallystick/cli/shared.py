"""What several verbs need: options, texts from files and stdin, numbers, and output for people and for programs."""

from __future__ import annotations

import codecs
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NoReturn, TypeVar

import click

from tallystick import front
from tallystick.cli import printable
from tallystick.errors import InputError, TextError
from tallystick.insight.when import WHEN, instant_of

if TYPE_CHECKING:
    from tallystick.ledger.ledger import Ledger

    InstantType = click.ParamType[datetime]
    DollarsType = click.ParamType[Decimal]
else:
    # Older versions of click have no parameter here.
    InstantType = DollarsType = click.ParamType

CHUNK: Final = 1 << 20
WHOLE_LIMIT: Final = 1 << 28
"""Texts that a verb needs whole stop here (256 M characters); counting alone has no limit."""

UNPRICED: Final = 3
INCOMPLETE: Final = 4
MOST_DOLLARS: Final = 1_000_000_000

Function = TypeVar("Function", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="JSON for programs.")
model_option = click.option("-m", "--model", default="gpt-4o", show_default=True, help="The model's id.")
provider_option = click.option("--provider", help="Who bills, where the model's name does not say.")


class Instant(InstantType):
    """A point in time: `2026-11-01`, `2026-11-01T12:00:00Z`, `today`, `yesterday`, a weekday, an age such as `7d`."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Reads the text; a date without a time means its midnight, UTC unless the text says otherwise."""
        if isinstance(value, datetime):
            return value
        try:
            return instant_of(value, front.now())
        except InputError as error:
            self.fail(str(error), param, ctx)


class Dollars(DollarsType):
    """An amount of dollars as exact decimal text."""

    name = "usd"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        """Reads `10`, `0.15` or `$2.50`."""
        try:
            amount = Decimal(str(value).strip().removeprefix("$"))
        except InvalidOperation:
            self.fail(f"{value!r} is not a number of dollars.", param, ctx)
        if not amount.is_finite() or not 0 <= amount <= MOST_DOLLARS:
            self.fail(f"{value!r} must be from zero to a billion dollars.", param, ctx)
        return amount


def say_json(value: object) -> None:
    """One JSON value on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def warn(text: str) -> None:
    """A sentence on standard error."""
    click.echo(f"tally: {printable(text)}", err=True)


class Source:
    """The bytes of a file, or of standard input (`-`), as text in pieces.

    Bytes that are not UTF-8 become replacement characters; `replaced` counts them.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.replaced = 0

    def chunks(self, progress: Callable[[int], None] | None = None) -> Iterator[str]:
        """The text in pieces, in memory that does not grow; `progress` is told of each piece's bytes. Raises
        TextError."""
        decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        first = True
        with open_bytes(self.name) as stream:
            while data := _read(stream, self.name):
                if first and data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    raise TextError(f"{self.name} is UTF-16.", todo="Convert it: iconv -f UTF-16 -t UTF-8 FILE")
                first = False
                if progress is not None:
                    progress(len(data))
                text = decoder.decode(data)
                if "\ufffd" in text:
                    self.replaced += max(0, text.count("\ufffd") - data.count("\ufffd".encode()))
                yield text
        rest = decoder.decode(b"", final=True)
        self.replaced += len(rest)
        yield rest

    def whole(self) -> str:
        """All of it. Raises TextError when it is too large to hold."""
        pieces, size = [], 0
        for piece in self.chunks():
            size += len(piece)
            if size > WHOLE_LIMIT:
                raise TextError(f"{self.name} is too large for this command.", todo="tally count takes any size.")
            pieces.append(piece)
        return "".join(pieces)

    def remark(self) -> int:
        """Says on standard error what was replaced; the exit code that this deserves."""
        if not self.replaced:
            return 0
        many = "1 place is" if self.replaced == 1 else f"{self.replaced:,} places are"
        warn(
            f"{self.name} is not all UTF-8 text: {many} counted as the replacement character. "
            "Convert it for an exact count: iconv -f LATIN1 -t UTF-8 FILE"
        )
        return INCOMPLETE


def open_bytes(source: str) -> BinaryIO:
    """A file's bytes, or standard input for `-`. Raises TextError with what to do."""
    if source == "-":
        if sys.stdin is None:
            raise TextError("There is no standard input.", todo="Give a text or a file.")
        if sys.stdin.isatty():
            click.echo("Reading from the terminal; end with Ctrl-D.", err=True)
        return sys.stdin.buffer
    path = Path(source)
    try:
        if path.is_dir():
            raise TextError(f"{source} is a folder, not a file.", todo="Name a file, or - for standard input.")
        return path.open("rb")
    except FileNotFoundError:
        raise TextError(f"There is no file {source}.", todo="Check the path, or give - for standard input.") from None
    except OSError as error:
        raise TextError(f"{source} cannot be read: {error.strerror}.") from None


def _read(stream: BinaryIO, name: str) -> bytes:
    try:
        return stream.read(CHUNK)
    except OSError as error:
        raise TextError(f"{name} cannot be read: {error.strerror}.") from None


def given_text(text: str | None, source: str | None) -> tuple[str, int]:
    """The text given as an argument, from a file or from standard input (`-`), and the exit code that its bytes
    deserve. Raises TextError when there is none, or two."""
    if text == "-" and source is None:
        text, source = None, "-"
    if (text is None) == (source is None):
        raise TextError("Give one text: as an argument, as --file FILE, or as - for standard input.")
    if text is not None:
        return text, 0
    file = Source(source or "-")
    return file.whole(), file.remark()


def read_json(source: str) -> Any:
    """A JSON value from a file or standard input; numbers keep their decimal text. Raises InputError with the place of
    the mistake."""
    with open_bytes(source) as stream:
        data = stream.read(WHOLE_LIMIT + 1)
    if len(data) > WHOLE_LIMIT:
        raise InputError(f"{source} is too large to be read as one JSON value.")
    try:
        return json.loads(data, parse_float=Decimal, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise InputError(f"{source} is not UTF-8 text.", todo="Save it as UTF-8.") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{source} is not valid JSON: {error}.", todo="Correct it at that place.") from None
    except RecursionError:
        raise InputError(f"{source} is nested too deeply.") from None
    except ValueError as error:
        # Python refuses integers of thousands of digits, and we refuse NaN and Infinity.
        what = str(error) if "JSON" in str(error) else "it has thousands of digits"
        raise InputError(f"{source} holds a number that makes no sense: {what}.", todo="Correct it.") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def pairs(values: tuple[str, ...], what: str) -> dict[str, str]:
    """`name=value` options as a mapping. Raises a usage error for anything else."""
    found = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise click.UsageError(f"{what} {value!r} must be written name=value.")
        found[name] = text
    return found


def reading_ledger() -> Ledger:
    """The ledger in force, to be read. Before the first call there is none: then an empty one, and a remark."""
    if front.has_ledger():
        return front.open(read_only=True)
    warn(f"there is no ledger at {front.ledger_path()} yet; the first call that is recorded makes it.")
    return front.open(":memory:")


def coloured() -> bool:
    """Whether standard output is a terminal that wants colours."""
    return (
        sys.stdout is not None
        and sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM") != "dumb"
    )


def call_options(function: Function) -> Function:
    """The options that say what a usage does not: when, who billed, which tier, batch, other context."""
    options = (
        provider_option,
        click.option("--at", type=Instant(), metavar="WHEN", help=f"When the call was made: {WHEN}. [default: now]"),
        click.option("--tier", help="The service tier that served it: flex, priority, ..."),
        click.option("--batch", is_flag=True, help="Made through a batch interface."),
        click.option(
            "-c", "--context", multiple=True, metavar="NAME=VALUE", help="Other context, e.g. data_residency=eu."
        ),
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


def show_table(title: str, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> None:
    """A table for people. `columns` are (heading, "left" or "right"). See `tables.table_lines`."""
    from tallystick.cli.tables import table_lines, terminal_width

    if title:
        click.echo(printable(title))
    for line in table_lines(columns, rows, terminal_width(), bold=coloured()):
        click.echo(line)
