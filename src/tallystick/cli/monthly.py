"""tally monthly: what each month cost."""

from __future__ import annotations

from typing import Any

import click

from tallystick.cli.report import answer, report_options


@click.command("monthly", epilog="Example: tally monthly --by provider")
@report_options
def command(**options: Any) -> int:
    """What each month cost. The same as tally report --per month."""
    return answer("month", **options)
