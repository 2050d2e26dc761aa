"""tally ledger: look after the ledger's file."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tallystick import front
from tallystick.cli import printable
from tallystick.cli.shared import json_option, say_json
from tallystick.errors import InputError

WRONG = 1
UNITS = ("bytes", "kB", "MB", "GB", "TB")

yes_option = click.option("--yes", is_flag=True, help="Without asking.")


@click.group("ledger", epilog="Example: tally ledger verify")
def command() -> None:
    """Look after the ledger's file: verify, repair, backup, restore, compact, info, migrate."""


@command.command("verify", epilog="Example: tally ledger verify")
@json_option
def verify(as_json: bool) -> int:
    """Recompute every sum and hash from the calls, and say what differs. Exit code 1 when anything does."""
    from tallystick.ledger.upkeep import facts, verify_file

    path = front.ledger_path()
    wrong = verify_file(path)
    number = facts(path).calls
    if as_json:
        say_json({"path": str(path), "calls": number, "differences": wrong})
    elif wrong:
        for sentence in wrong:
            click.echo(printable(sentence))
        click.echo(f"{printable(str(path))}: {_number(len(wrong), 'difference')}. Restore a backup, or report this.")
    else:
        click.echo(f"{printable(str(path))}: {_number(number, 'call')}, everything agrees.")
    return WRONG if wrong else 0


@command.command("repair", epilog="Example: tally ledger repair")
@json_option
def repair(as_json: bool) -> int:
    """Enter what killed processes and a full disk have left beside the ledger. Exit code 4 when lines are broken."""
    from tallystick import defaults
    from tallystick.capture.process import beside_ledger, data_folder
    from tallystick.metering.repair import repair as mend
    from tallystick.metering.spool import spool_folders

    path = beside_ledger(defaults.ledger_place())
    if path is None:
        raise InputError("The environment names no folder in which calls could have been kept.", todo="Set HOME.")
    with front.open() as ledger:
        done = mend(ledger, path, spool_folders(path, data_folder()), front.catalog, front.now())
    if as_json:
        say_json({name: getattr(done, name) for name in done.__struct_fields__})
    else:
        entries = f"{done.spooled:,} kept {'entry' if done.spooled == 1 else 'entries'}"
        calls = f"{_number(done.cut + done.ended, 'call')} of killed processes"
        finished = f" ({done.ended:,} had ended)" if done.ended else ""
        click.echo(f"Entered {calls}{finished} and {entries}; {done.known:,} known already.")
        if done.unread:
            click.echo(
                f"{_number(done.unread, 'broken line')} left where {'it was' if done.unread == 1 else 'they were'}."
            )
    return 4 if done.unread else 0


@command.command("backup", epilog="Example: tally ledger backup ledger-2026-11.db")
@click.argument("file", metavar="FILE")
@yes_option
def backup(file: str, yes: bool) -> None:
    """Copy the ledger to FILE, in its state of one instant, while others go on using it."""
    from tallystick.ledger.upkeep import backup as copy

    target = Path(file).expanduser()
    _free(target, yes=yes, what="file")
    path = front.ledger_path()
    number = copy(path, target)
    click.echo(
        f"Copied {_number(number, 'call')} from {printable(str(path))} to {printable(str(target))}, "
        f"{_size(target.stat().st_size)}."
    )


@command.command("restore", epilog="Example: tally ledger restore ledger-2026-11.db --yes")
@click.argument("file", metavar="FILE")
@yes_option
def restore(file: str, yes: bool) -> None:
    """Put a backup in the ledger's place, after verifying it. The ledger that stood there is kept beside it."""
    from tallystick.ledger.upkeep import facts
    from tallystick.ledger.upkeep import restore as put_back

    copy, path = Path(file).expanduser(), front.ledger_path()
    if not copy.is_file():
        raise InputError(f"There is no file {printable(str(copy))}.", todo="Name a backup.")
    _free(path, yes=yes, what="ledger")
    kept = put_back(copy, path, now=front.now())
    found = facts(path)
    click.echo(
        f"Verified {printable(str(copy))} and put it in place: {printable(str(path))} now holds "
        f"{_number(found.calls, 'call')}, {_size(found.size)}."
    )
    if kept is not None:
        click.echo(f"The ledger that stood there is kept as {printable(str(kept))}, {_size(kept.stat().st_size)}.")


@command.command("compact", epilog="Example: tally ledger compact")
def compact() -> None:
    """Rewrite the file without gaps. No call, sum or correction changes; others may go on reading."""
    from tallystick.ledger.upkeep import compact as rewrite

    path = front.ledger_path()
    before, after = rewrite(path)
    click.echo(f"Compacted {printable(str(path))}: {_size(before)} before, {_size(after)} now.")


@command.command("info", epilog="Example: tally ledger info --json")
@json_option
def info(as_json: bool) -> None:
    """Where the ledger is, how large, and what is in it."""
    from tallystick.ledger.upkeep import facts

    found = facts(front.ledger_path())
    if as_json:
        say_json(found.to_json())
        return
    span = (
        "none"
        if found.first is None or found.last is None
        else f"{found.first:%Y-%m-%d %H:%M} to {found.last:%Y-%m-%d %H:%M} UTC"
    )
    lines = {
        "path": printable(found.path),
        "size": _size(found.size),
        "time zone": found.zone,
        "schema": str(found.schema),
        "calls": f"{found.calls:,} ({span})",
        "corrections": f"{found.corrections:,}",
        "seen twice": f"{found.joined:,} (the same call from another source)",
        "written by": f"{_number(found.writers, 'writer')} in {_number(found.batches, 'batch', 'batches')}",
    }
    for name, text in lines.items():
        click.echo(f"{name:<12}{text}")


@command.command("migrate", epilog="Example: tally ledger migrate --to postgresql://tally@db.example.com/spend")
@click.option("--to", "url", metavar="URL", required=True, help="The database: postgresql://USER@HOST:PORT/NAME.")
def migrate(url: str) -> None:
    """Copy the ledger's file into an empty PostgreSQL database and compare all sums. Goes on where it was stopped."""
    from tallystick.ledger.moving import migrate as move
    from tallystick.ledger.opening import in_database
    from tallystick.ledger.upkeep import facts

    if not in_database(url):
        raise InputError("The target is not the address of a database.", todo="Write --to postgresql://HOST/NAME.")
    path = front.ledger_path()
    zone = facts(path).zone
    from tallystick.ledger.postgres import PostgresLedger

    with (
        PostgresLedger(url, zone=zone) as target,
        click.progressbar(length=1, label="copying", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar,
    ):

        def show(done: int, whole: int) -> None:
            bar.length = whole
            bar.update(done - bar.pos)

        found = move(path, target, show)
        place = target.place
    click.echo(
        f"Copied {_number(found.items, 'entry', 'entries')} and {_number(found.states, 'setting')} from "
        f"{printable(str(path))} to {printable(place)}. All {_number(found.sums, 'sum')} by provider, model and month "
        "agree on both sides."
    )
    click.echo(f"Use it from now on: set TALLY_LEDGER to {printable(place)}, with the password if it has one.")


def _free(target: Path, *, yes: bool, what: str) -> None:
    """Raises InputError for a file that exists, unless it may be replaced."""
    if not yes and target.exists() and (target.is_dir() or target.stat().st_size):
        raise InputError(
            f"There is a {what} at {printable(str(target))} already.",
            money="Nothing was changed.",
            todo="Add --yes to replace it.",
        )


def _size(number: int) -> str:
    amount, unit = float(number), 0
    while amount >= 1000 and unit < len(UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.1f} {UNITS[unit]}" if unit else f"{number} bytes"


def _number(count: int, what: str, many: str = "") -> str:
    return f"{count:,} {what if count == 1 else many or what + 's'}"
