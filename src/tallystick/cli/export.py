"""tally export: the calls in the ledger for other programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click

from tallystick import front
from tallystick.cli import printable
from tallystick.cli.shared import pairs, reading_ledger, warn
from tallystick.core.attribution import Tags
from tallystick.core.periods import zone
from tallystick.errors import InputError, TallyError
from tallystick.insight.when import WHEN, instant_of
from tallystick.ledger.entry import Entry
from tallystick.ledger.query import Query

FORMATS = ("jsonl", "csv", "parquet")


@click.command("export", epilog="Example: tally export --format csv --since 2026-11-01 --out november.csv")
@click.option("--format", "form", type=click.Choice(FORMATS), help="How. [default: as --out is named, else jsonl]")
@click.option("--out", metavar="FILE", help="Where to. [default: standard output]")
@click.option("--since", metavar="WHEN", help=f"From then on: {WHEN}.")
@click.option("--until", metavar="WHEN", help="Up to before then.")
@click.option("-t", "--tag", "tags", multiple=True, metavar="NAME=VALUE", help="Only calls with this tag.")
def command(form: str | None, out: str | None, since: str | None, until: str | None, tags: tuple[str, ...]) -> None:
    """The calls in the ledger, oldest first, as JSON lines, CSV or Parquet. A file appears when it is complete."""
    target = None if out in (None, "-") else Path(out or "")
    ending = "" if target is None else target.suffix.lower().lstrip(".")
    chosen = form or {"ndjson": "jsonl"}.get(ending, ending)
    if chosen not in FORMATS:
        chosen = "jsonl"
    if chosen == "parquet" and target is None:
        raise InputError("Parquet is not written to standard output.", todo="Name a file: --out calls.parquet")
    with reading_ledger() as ledger:
        place = zone(ledger.zone)
        limits = [None if text is None else instant_of(text, front.now(), place) for text in (since, until)]
        counted = _Counted(ledger.read(Query(since=limits[0], until=limits[1], tags=Tags(pairs(tags, "--tag")))))
        if target is None:
            for line in _lines(chosen)(counted):
                sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
            return
        size = _write(target, chosen, counted)
    warn(f"{counted.number:,} {'call' if counted.number == 1 else 'calls'} written to {target}, {size:,} bytes.")


class _Counted:
    """Entries, and how many went by."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = entries
        self.number = 0

    def __iter__(self) -> Iterator[Entry]:
        for entry in self._entries:
            self.number += 1
            yield entry


def _lines(form: str) -> Callable[[Iterable[Entry]], Iterator[bytes]]:
    from tallystick.insight.export import csv_lines, json_lines

    return csv_lines if form == "csv" else json_lines


def _write(target: Path, form: str, entries: Iterable[Entry]) -> int:
    """Writes the file beside its place and moves it there when it is whole; returns its size in bytes."""
    part = target.with_name(f"{target.name}.part")
    try:
        os.close(os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600))
        if form == "parquet":
            from tallystick.insight.export import parquet_file

            parquet_file(entries, part)
        else:
            with part.open("wb") as file:
                file.writelines(_lines(form)(entries))
        part.replace(target)
    except (OSError, TallyError) as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InputError(f"{printable(str(target))} cannot be written: {error.strerror or error}.") from None
        raise
    return target.stat().st_size
