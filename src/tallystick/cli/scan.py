"""tally scan: what coding agents have used, from their own logs."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import click

from tallystick import front
from tallystick.cli import printable
from tallystick.cli.shared import INCOMPLETE, Instant, json_option, pairs, say_json, show_table

if TYPE_CHECKING:
    from rich.progress import Progress

    from tallystick.capture.imports.tables import Imported
    from tallystick.capture.logs.outcome import Scan, Scanned
    from tallystick.ledger.ledger import Ledger
    from tallystick.ledger.query import Total

_PATIENCE: Final = 1.0
_SHOWN: Final = 5


@click.command("scan", epilog="Example: tally scan --since 30d")
@click.option("--home", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Another home folder.")
@click.option("--since", type=Instant(), help="Show calls from this instant on; older ones are entered all the same.")
@click.option("--owed", is_flag=True, help="You pay by the call, not by subscription: count the cost as money owed.")
@click.option("--csv", "table", metavar="FILE", help="Enter the calls of a CSV or JSONL file instead.")
@click.option(
    "--map", "columns", multiple=True, metavar="NAME=COLUMN", help="What its columns are, e.g. input=prompt_tokens."
)
@click.option("--export", "export", metavar="FILE", help="Enter an export of LiteLLM, Langfuse or OpenRouter instead.")
@json_option
def command(
    home: Path | None,
    since: datetime | None,
    owed: bool,
    table: str | None,
    columns: tuple[str, ...],
    export: str | None,
    as_json: bool,
) -> int:
    """What have my coding agents cost so far? Reads what is new in the logs of Claude Code, Codex, Gemini CLI and
    OpenCode into the ledger. Run it as often as you like: every call is entered once. Exit code 4 if something had to
    be left out."""
    if table is not None or export is not None:
        return _import(
            table, export, pairs(tuple(part for text in columns for part in text.split(",")), "--map"), as_json=as_json
        )
    if columns:
        raise click.UsageError("--map says what the columns of a --csv file are; there is no --csv.")
    from tallystick.capture.logs.scan import scan

    # Entries are many and hold no cycles: looking for some would take longer than reading the logs.
    gc.disable()
    bar = _Bar()
    env: Mapping[str, str] = os.environ if home is None else {}
    with front.open() as ledger, bar:
        found = scan(
            ledger,
            front.catalog,
            front.now(),
            env=env,
            home=(home or Path.home()).absolute(),
            owed=owed,
            steps=bar.steps(),
        )
        totals = _totals(ledger, found, since)
    if as_json:
        say_json(_as_json(found, totals))
    else:
        _show(found, totals, since)
    return 0 if _complete(found) else INCOMPLETE


class _Bar:
    """A progress bar on standard error, shown once a scan has taken a second."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._total = 0
        self._done = 0
        self._progress: Progress | None = None
        self._task: Any = None

    def steps(self) -> Any:
        from tallystick.capture.logs.scan import Steps

        return Steps(total=self._plan, reading=self._step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def _plan(self, size: int) -> None:
        self._total = size

    def _step(self, size: int) -> None:
        self._done += size
        if self._progress is None:
            if time.monotonic() - self._begun < _PATIENCE or not sys.stderr.isatty():
                return
            from rich.console import Console
            from rich.progress import Progress

            self._progress = Progress(console=Console(stderr=True), transient=True)
            self._task = self._progress.add_task("reading logs", total=self._total)
            self._progress.start()
        self._progress.update(self._task, completed=self._done)


def _totals(ledger: Ledger, found: Scan, since: datetime | None) -> dict[str, Total]:
    """What the ledger knows of each tool by now. Sums by a tag are kept ready; the calls themselves are not read."""
    from tallystick.ledger.query import Query, Total

    sums = {total.group["tool"]: total for total in ledger.total(Query(since=since), by=("tool",))}
    return {tool.tool: sums.get(tool.tool) or Total(group={"tool": tool.tool}) for tool in found.tools}


def _complete(found: Scan) -> bool:
    """Whether nothing that matters was left out. A line that is no JSON is what a tool leaves behind when it is killed
    at writing; the call it tells of, if any, is told of by other lines too."""
    if found.complete:
        return True
    from tallystick.wire.logs.lines import BROKEN

    return not any(tool.left or any(refused.why != BROKEN for refused in tool.refused) for tool in found.tools)


def _as_json(found: Scan, totals: Mapping[str, Total]) -> dict[str, Any]:
    return {
        "schema": 1,
        "complete": _complete(found),
        "tools": [_tool_json(tool, totals[tool.tool]) for tool in found.tools],
        "unsupported": list(found.unsupported),
    }


def _tool_json(tool: Scanned, total: Total) -> dict[str, Any]:
    return {
        "tool": tool.tool,
        "title": tool.title,
        "folders": list(tool.folders),
        "files": tool.files,
        "files_read": tool.read,
        "new": tool.written.new,
        "corrected": tool.written.corrected,
        "known": tool.written.known,
        "joined": tool.written.joined,
        "calls": total.calls,
        "tokens": total.usage.tokens,
        "usage": dict(total.usage),
        "api_equivalent": total.not_owed.to_json(),
        "owed": total.cost.to_json(),
        "unpriced": total.unpriced,
        "lower_bound": total.lower_bound,
        "estimated": total.estimated,
        "unknown": total.unknown,
        "left": [{"path": left.path, "why": left.why} for left in tool.left],
        "refused": [{"why": one.why, "count": one.count, "file": one.file} for one in tool.refused],
    }


def _show(found: Scan, totals: Mapping[str, Total], since: datetime | None) -> None:
    if not found.tools:
        click.echo("No logs of Claude Code, Codex, Gemini CLI or OpenCode were found.")
    else:
        owed = any(total.cost.pico for total in totals.values())
        columns = [
            ("tool", "left"), ("files", "right"), ("new calls", "right"), ("calls", "right"), ("tokens", "right"),
            ("API-equivalent", "right"), *([("owed", "right")] if owed else []), ("counted", "left"),
        ]  # fmt: skip
        show_table(
            "" if since is None else f"from {since:%Y-%m-%d %H:%M} UTC",
            columns,
            [_row(tool, totals[tool.tool], owed=owed) for tool in found.tools],
        )
        click.echo("API-equivalent: what the same calls cost at list prices. Not a bill: a subscription covers them.")
    for tool in found.tools:
        for line in _left_out(tool):
            click.echo(printable(line))
    if found.unsupported:
        click.echo(f"Found, but not supported yet, so not counted: {', '.join(found.unsupported)}.")
    if found.tools:
        click.echo("More: tally report --by model, --by project, --by tool")


def _row(tool: Scanned, total: Total, *, owed: bool) -> list[str]:
    corrected = f" ({tool.written.corrected:,} fuller)" if tool.written.corrected else ""
    amounts = [f"{total.not_owed}", *([f"{total.cost}"] if owed else [])]
    return [
        tool.title,
        f"{tool.files:,}",
        f"{tool.written.new:,}{corrected}",
        f"{total.calls:,}",
        f"{total.usage.tokens:,}",
        *amounts,
        total.gaps or "exactly",
    ]


def _left_out(tool: Scanned) -> list[str]:
    lines = [
        f"{tool.title}: {one.count:,} {one.why} were left out, first in {one.file}; calls they tell of are not counted."
        for one in tool.refused
    ]
    lines += [f"{tool.title}: {left.path} was left out: {left.why}." for left in tool.left[:_SHOWN]]
    more = len(tool.left) - _SHOWN
    return [*lines, f"{tool.title}: {more:,} more were left out; --json names them."] if more > 0 else lines


def _import(table: str | None, export: str | None, columns: Mapping[str, str], *, as_json: bool) -> int:
    from tallystick.capture.imports.exports import import_export
    from tallystick.capture.imports.tables import import_table

    if table is not None and export is not None:
        raise click.UsageError("Give --csv or --export, not both.")
    with front.open() as ledger:
        if table is not None:
            done = import_table(Path(table), columns, ledger, front.catalog(), front.now())
        else:
            done = import_export(Path(str(export)), ledger, front.catalog(), front.now())
    if as_json:
        say_json(done.to_json())
    else:
        _show_import(done)
    return INCOMPLETE if done.refused else 0


def _show_import(done: Imported) -> None:
    written = done.written
    click.echo(f"{done.rows:,} rows: {written.new:,} calls entered, {written.known:,} were there already.")
    if written.joined:
        click.echo(f"{written.joined:,} had been seen by a client or a gateway; those entries stand.")
    if done.stated is not None:
        click.echo(f"The file says these cost {done.stated}; that is its own reckoning, the entries are priced by us.")
    for why, (count, first) in done.refused.items():
        click.echo(printable(f"{count:,} rows were left out, first {first}: {why}. They are not counted."))
