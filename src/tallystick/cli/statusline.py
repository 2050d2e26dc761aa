"""tally statusline: one line for a shell or an editor."""

from __future__ import annotations

import click

from tallystick import front
from tallystick.cli.quick import statusline


@click.command("statusline", epilog="Example: tally statusline")
@click.option("--strict", is_flag=True, help="Exit with 6 and say why where the ledger cannot be used.")
def command(strict: bool) -> int:
    """What today and the current five-hour block cost, on one line for a prompt, a status bar or a coding agent. Quick,
    and never loud: where there is no ledger the line is empty."""
    return statusline(front.now(), strict=strict)
