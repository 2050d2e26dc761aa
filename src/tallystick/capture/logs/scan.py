"""scan(): everything that is new in the logs of a machine, entered once.

Files are read from where the last scan left off. All that a tool's files tell is gathered first, so that a response
whose lines lie in several files becomes one call; then the calls are entered; only then is it remembered how far the
files were read. Whatever ends a scan early, the next one reads the same lines again and finds what was entered under
the same ids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tallystick.capture.logs.outcome import Refused, Scan, Scanned, Written
from tallystick.capture.logs.survey import Survey
from tallystick.capture.logs.tools import TOOLS, unsupported
from tallystick.ledger.ledger import Ledger

if TYPE_CHECKING:
    from tallystick.catalog.catalog import Catalog


class Steps(msgspec.Struct, frozen=True):
    """Who wants to hear how a scan goes: `reading` of a file's bytes, `total` of all bytes to read."""

    total: Callable[[int], None] = lambda _bytes: None
    reading: Callable[[int], None] = lambda _bytes: None


def scan(
    ledger: Ledger,
    catalog: Callable[[], Catalog],
    now: datetime,
    *,
    env: Mapping[str, str],
    home: Path,
    owed: bool = False,
    steps: Steps = Steps(),  # noqa: B008 - it does nothing
) -> Scan:
    """Reads what is new in the logs of every known tool below a home folder into the ledger.

    `catalog` is only called when something is new. `env` may name other folders. `owed` says whether somebody is billed
    by the call; by default the cost is the API-equivalent of a subscription. Raises LedgerError only: whatever is wrong
    with a log is counted and named.
    """
    found = [(tool, [folder for folder in tool.roots(env, home) if folder.is_dir()]) for tool in TOOLS]
    surveys = [Survey(tool, folders, ledger) for tool, folders in found if folders]
    steps.total(sum(survey.to_read for survey in surveys))
    done = [_scan_tool(survey, ledger, catalog, now, owed=owed, steps=steps) for survey in surveys]
    return Scan(tuple(done), tuple(unsupported(home)))


def _scan_tool(
    survey: Survey, ledger: Ledger, catalog: Callable[[], Catalog], now: datetime, *, owed: bool, steps: Steps
) -> Scanned:
    tool, size = survey.tool, survey.to_read
    calls, read, written = 0, 0, Written()
    refused: tuple[Refused, ...] = ()
    if survey.changed:
        # Most scans find nothing new and need neither readers nor rates.
        from tallystick.capture.logs.entering import enter

        entered = enter(survey, ledger, catalog(), now, owed=owed, reading=steps.reading)
        calls, read, written, refused = entered.calls, entered.read, entered.written, entered.refused
    elif survey.gone:
        survey.remember(survey.recent)
    return Scanned(
        tool=tool.id,
        title=tool.title,
        folders=tuple([str(folder.path) for folder in survey.folders]),
        files=survey.files,
        read=read,
        bytes=size,
        calls=calls,
        written=written,
        left=tuple(survey.left),
        refused=refused,
    )
