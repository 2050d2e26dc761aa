"""tally count: how many tokens a text has."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tallystick import front
from tallystick.cli import printable
from tallystick.cli.shared import Source, given_text, json_option, model_option, read_json, say_json
from tallystick.errors import InputError

if TYPE_CHECKING:
    from tallystick.tokens.count import Count

PATIENCE = 1.0
"""Seconds before a progress bar appears."""


@click.command("count", epilog="Example: tally count --model gpt-4o --file book.txt")
@click.argument("text", required=False)
@click.option("-f", "--file", "source", metavar="FILE", help="Count a file of any size; - for standard input.")
@click.option("--messages", metavar="FILE", help="Count a JSON list of chat messages, with what the chat format adds.")
@model_option
@json_option
def command(text: str | None, source: str | None, messages: str | None, model: str, as_json: bool) -> int:
    """How many tokens a text has, with that model's own tokenizer, and how sure that is."""
    code = 0
    if messages is not None:
        if text is not None or source is not None:
            raise click.UsageError("Give a text or --messages, not both.")
        count = front.count(read_messages(messages), model)
    elif source is not None or text == "-":
        if text not in (None, "-"):
            raise click.UsageError("Give a text or --file, not both.")
        count, code = count_file(source or "-", model)
    else:
        count = front.count(given_text(text, None)[0], model)
    if as_json:
        say_json({"model": model, **count.to_json()})
        return code
    click.echo(str(count))
    if not count.exact:
        click.echo(printable(count.basis))
    return code


def read_messages(source: str) -> list[dict[str, object]]:
    """Chat messages from a JSON file. Raises InputError for anything but a list of objects."""
    value = read_json(source)
    if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
        raise InputError(f"{source} is not a list of messages.", todo='Write [{"role": "user", "content": "..."}].')
    return value


def count_file(name: str, model: str) -> tuple[Count, int]:
    """The count of a file of any size, and the exit code that its bytes deserve."""
    from tallystick.tokens.count import count_chunks

    source = Source(name)
    with progress_bar(name) as advance:
        count = count_chunks(source.chunks(advance), model)
    return count, source.remark()


@contextmanager
def progress_bar(source: str) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error that appears after a second, where that is a terminal; yields its advance."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda _size: None
        return
    started, done = time.monotonic(), 0
    path = Path(source)
    total = path.stat().st_size if source != "-" and path.is_file() else None
    bar = None

    def advance(size: int) -> None:
        nonlocal bar, done
        done += size
        if bar is None and time.monotonic() - started > PATIENCE:
            bar = click.progressbar(length=total or done, label="counting", file=sys.stderr, show_eta=total is not None)
            bar.update(done - size)
        if bar is not None:
            if total is None:
                bar.length = done
            bar.update(size)

    try:
        yield advance
    finally:
        if bar is not None:
            bar.render_finish()
