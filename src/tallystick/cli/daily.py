"""tally daily: what each of the last days cost."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import click

from tallystick.cli.report import answer, report_options

BACK: Final = timedelta(days=29)


@click.command("daily", epilog="Example: tally daily --by model --since monday")
@report_options
def command(**options: Any) -> int:
    """What each day cost: the last 30 days, or from --since on. The same as tally report --per day."""
    return answer("day", back=BACK, **options)
