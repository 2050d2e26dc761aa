"""tally demo: an agent's run that is metered while you watch; no key, nothing billed."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tallystick import front
from tallystick.capture.process import beside_ledger
from tallystick.cli.calling import free_meter, shown_place
from tallystick.cli.shared import coloured, json_option, say_json
from tallystick.cli.tables import terminal_width
from tallystick.defaults import ledger_place
from tallystick.ledger.intents import SUFFIX

if TYPE_CHECKING:
    from tallystick.cli.demo_play import Play
    from tallystick.ledger.entry import Entry
    from tallystick.ledger.ledger import Ledger
    from tallystick.metering.meter import Meter

FRAMES = 12
NOT_EQUAL = 1


@click.command("demo", epilog="Example: tally demo")
@click.option("--keep", is_flag=True, help="Into your own ledger, with the tag demo=true.")
@click.option("--plain", is_flag=True, help="With the standard library alone, though SDKs are installed.")
@click.option("--fast", is_flag=True, help="Without the delays of a real provider.")
@json_option
def command(keep: bool, plain: bool, fast: bool, as_json: bool) -> int:
    """An agent's run, metered while you watch: nested runs, three providers, streams, a retry, a broken connection and
    a limit that is reached; at the end what each run cost, compared with what was truly served.

    The SDKs are the real ones, as far as they are installed; the provider is a simulator on this machine. Needs no key,
    sends nothing anywhere, and costs nothing.
    """
    from tallystick.cli.demo_play import Play, judge

    _straight()
    with _ledger(keep=keep) as (place, ledger, meter):
        play = Play(meter, fast=fast, plain=plain)
        teller = Teller(ledger, play)
        watched = sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not as_json
        if as_json:
            play.go()
        elif watched:
            _watched(play, place)
        else:
            play.done = teller.rest
            click.echo(f"An agent looks into: {play.question}")
            play.go()
        entries = teller.all()
        if not as_json and not watched:
            teller.rest()
    verdict = judge(entries, play.truth)
    if as_json:
        say_json(as_plain(play, entries, verdict.to_json(), shown_place(place) if keep else None))
    else:
        from tallystick.cli.demo_screen import next_lines, summary

        click.echo()
        for line in summary(play, entries, verdict, terminal_width(), bold=coloured()):
            click.echo(line)
        for line in next_lines(shown_place(place) if keep else None, play, terminal_width()):
            click.echo(line)
    return 0 if verdict.equal else NOT_EQUAL


class Teller:
    """Says a line about each call once it has ended. Asks the ledger, as everybody would."""

    def __init__(self, ledger: Ledger, play: Play) -> None:
        self._ledger = ledger
        self._play = play
        self._said: set[str] = set()

    def all(self) -> list[Entry]:
        """The entries of the play, in the order in which the calls began."""
        from tallystick.ledger.query import Query

        ids = set() if not self._play.rows else self._play.rows[0].ids
        found = [entry for one in sorted(ids) for entry in self._ledger.read(Query(run_id=one))]
        return sorted(found, key=lambda entry: (entry.started_at, entry.call_id))

    def rest(self) -> None:
        """Says what has not been said yet."""
        from tallystick.cli.demo_screen import call_line

        for entry in self.all():
            if entry.call_id not in self._said:
                self._said.add(entry.call_id)
                click.echo(call_line(entry, self._play.names))


def as_plain(play: Play, entries: list[Entry], verdict: dict[str, object], kept: str | None) -> dict[str, object]:
    """The play as plain JSON values."""
    return {
        "question": play.question,
        "seconds": round(play.seconds, 3),
        "clients": play.names,
        "ledger": kept,
        "runs": [
            {
                "name": row.name,
                "run": row.run.run_id,
                "parent": None if row.run.parent is None else row.run.parent.run_id,
                "calls": row.run.calls,
                "cost": row.run.known.to_json(),
                "unpriced": row.run.unpriced,
                "usage": dict(row.run.usage),
                "gaps": row.run.gaps,
            }
            for row in play.rows
        ],
        "verdict": verdict,
        "calls": [entry.to_json() for entry in entries],
    }


def _watched(play: Play, place: Path | str) -> None:
    """Draws the play while it runs, several frames a second."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from tallystick.cli.demo_screen import moving
    from tallystick.insight.flights import look_flights

    beside = beside_ledger(place)
    folder = None if beside is None else beside.with_name(beside.name + SUFFIX)

    def drawn() -> Text:
        lines = moving(play, look_flights(folder), terminal_width(), bold=coloured())
        return Text.from_ansi("\n".join(lines))

    console = Console(highlight=False)
    with Live(get_renderable=drawn, console=console, refresh_per_second=FRAMES, transient=True):
        play.go()


@contextmanager
def _ledger(*, keep: bool) -> Iterator[tuple[Path | str, Ledger, Meter]]:
    """Where the ledger is, the ledger and a meter that writes into it: a temporary one, or with `keep` the user's."""
    with tempfile.TemporaryDirectory(prefix="tally-demo-") as folder:
        place = ledger_place() if keep else Path(folder) / "ledger.db"
        ledger = front.open(place)
        meter = free_meter(ledger, place)
        try:
            yield place, ledger, meter
        finally:
            meter.close()
            ledger.close()


def _straight() -> None:
    """The simulator is on this machine: nothing goes there by way of a proxy."""
    for name in ("no_proxy", "NO_PROXY"):
        others = os.environ.get(name)
        os.environ[name] = f"{others},127.0.0.1" if others else "127.0.0.1"
