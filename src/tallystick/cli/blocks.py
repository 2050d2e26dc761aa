"""tally blocks: the five-hour blocks in which coding agents bill a subscription."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import click

from tallystick.cli.report import answer, report_options

BACK: Final = timedelta(days=6)


@click.command("blocks", epilog="Example: tally blocks --tag tool=claude_code --since 2d")
@report_options
def command(**options: Any) -> int:
    """What each five-hour block cost: the last 7 days, or from --since on. A block starts at the full hour (UTC) of the
    first call after the previous block's end. With --tag only the calls with that tag make blocks: one tool's, say."""
    return answer("block", back=BACK, **options)
