"""tally count: how many tokens a text has."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from tallystick import front
from tallystick.cli.shared import json_option, model_option, say_json, text_chunks
from tallystick.errors import TextError

PATIENCE = 1.0
"""Seconds before a progress bar appears."""


@click.command("count", epilog="Example: tally count --model gpt-4o --file book.txt")
@click.argument("text", required=False)
@click.option("-f", "--file", "source", metavar="FILE", help="Count a file of any size; - for standard input.")
@model_option
@json_option
def command(text: str | None, source: str | None, model: str, as_json: bool) -> None:
    """How many tokens a text has, with that model's own tokenizer, and how sure that is."""
    if text == "-" and source is None:
        text, source = None, "-"
    if (text is None) == (source is None):
        raise TextError("Give one text: as an argument, as --file FILE, or as - for standard input.")
    if text is not None:
        count = front.count(text, model)
    else:
        from tallystick.tokens.count import count_chunks

        with progress_bar(source or "-") as advance:
            count = count_chunks(text_chunks(source or "-", advance), model)
    if as_json:
        say_json({
            "model": model, "tokens": count.tokens, "low": count.low, "high": count.high, "method": count.method,
            "encoding": count.encoding, "basis": count.basis, "bytes": count.bytes,
        })  # fmt: skip
        return
    click.echo(str(count))
    if count.low != count.high:
        click.echo(f"between {count.low:,} and {count.high:,}: {count.basis}")


@contextmanager
def progress_bar(source: str) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error that appears after a second, where that is a terminal; yields its advance."""
    if not sys.stderr.isatty():
        yield lambda _size: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    size = Path(source).stat().st_size if source != "-" and Path(source).is_file() else None
    bar = Progress(
        TextColumn("counting"), BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=Console(stderr=True)
    )
    task = bar.add_task("count", total=size)
    started = time.monotonic()

    def advance(bytes_read: int) -> None:
        bar.advance(task, bytes_read)
        if not bar.live.is_started and time.monotonic() - started > PATIENCE:
            bar.start()

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()
