"""tally reconcile: a provider's own report against the ledger."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

import click

from tallystick import front
from tallystick.cli.shared import Dollars, json_option, open_bytes, reading_ledger, say_json, show_table
from tallystick.core.models import provider_id
from tallystick.core.money import Money
from tallystick.core.periods import zone
from tallystick.errors import InputError
from tallystick.ledger.ids import new_call_id

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from tallystick.insight.correcting import Proposal
    from tallystick.insight.reconcile import Reconciliation, Row
    from tallystick.ledger.ledger import Ledger

BATCH = 10_000
"""Corrections appended at once."""


@click.command("reconcile", epilog="Example: tally reconcile openai-costs.json openai-usage.json")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--provider", help="Who bills, where it is not whose form the report has.")
@click.option(
    "--tz", default="UTC", show_default=True, help="The time zone of reports that name only days, and of the output."
)
@click.option(
    "--tolerance", type=Dollars(), default="0.000001", show_default=True, help="Amounts this close are the same."
)
@click.option("--all", "everything", is_flag=True, help="Show the rows that match, too.")
@click.option("--correct", is_flag=True, help="Show the corrections that would make calls agree, and append them.")
@click.option("--yes", is_flag=True, help="Append the corrections without asking.")
@json_option
def command(
    files: tuple[str, ...],
    provider: str | None,
    tz: str,
    tolerance: Decimal,
    everything: bool,
    correct: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Lay a provider's own usage or cost report against the ledger.

    OpenAI, Anthropic or OpenRouter, as JSON (all pages) or CSV. Exit code 0 when all matched, 1 when anything is
    different, 4 when the rest is only open or missing.
    """
    from tallystick.insight.provider_reports.reading import read_reports
    from tallystick.insight.reconcile import reconcile

    place = zone(tz)
    biller = None if provider is None else provider_id(provider)
    statements = read_reports([(name, _content(name)) for name in files], zone=place, provider=biller)
    compare = functools.partial(
        reconcile, statements, catalog=front.catalog(), now=front.now(), tolerance=Money.usd(tolerance)
    )
    with front.open() if correct else reading_ledger() as ledger:
        found = compare(ledger)
        wanted = _proposals(found, ledger) if correct else []
        appended = bool(wanted) and (yes or (not as_json and _agreed(found, wanted, place)))
        if appended:
            for start in range(0, len(wanted), BATCH):
                ledger.append([one.correction for one in wanted[start : start + BATCH]], durable=True)
            found = compare(ledger)
    if as_json:
        corrections = {"corrections": [one.to_json() for one in wanted], "appended": appended} if correct else {}
        say_json({"tz": tz, **found.to_json(), **corrections})
        return found.exit_code
    if wanted and not appended:
        # The rows were shown with the question.
        click.echo("Nothing was appended.")
        return found.exit_code
    if correct and not wanted:
        click.echo("No difference can be put down to calls, so there is nothing to correct.")
    elif appended:
        click.echo(f"Appended {_number(len(wanted), 'correction')}. After them:")
    show(found, place, everything=everything)
    return found.exit_code


def _content(name: str) -> bytes:
    from tallystick.insight.provider_reports.reading import MAX_BYTES

    with open_bytes(name) as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InputError(f"{name} is larger than 256 MB.", todo="Compare a shorter time at once.")
    return data


def _proposals(found: Reconciliation, ledger: Ledger) -> list[Proposal]:
    from tallystick.insight.correcting import proposals

    return list(proposals(found, ledger, front.catalog(), now=front.now(), new_id=new_call_id))


def _agreed(found: Reconciliation, wanted: Sequence[Proposal], place: ZoneInfo) -> bool:
    """Shows what would be appended and asks."""
    show(found, place, everything=False)
    reasons: dict[tuple[str, str], list[Proposal]] = {}
    for one in wanted:
        reasons.setdefault((one.model, one.correction.reason), []).append(one)
    rows = []
    for (model, reason), several in reasons.items():
        before = sum((one.before for one in several if one.before is not None), Money())
        after = sum((one.after for one in several if one.after is not None), Money())
        rows.append([model, f"{len(several):,}", str(before), str(after), reason])
    columns = [("model", "left"), ("calls", "right"), ("cost now", "right"), ("corrected", "right"), ("why", "left")]
    show_table("Corrections", columns, rows)
    return click.confirm(f"Append {_number(len(wanted), 'correction')} to the ledger?")


def show(found: Reconciliation, place: ZoneInfo, *, everything: bool) -> None:
    """The rows that do not match, then the sums."""
    rows = [row for row in found.rows if everything or row.state != "matched"]
    counted = any(row.there is not None for row in rows)
    priced = any(row.there_usd is not None for row in rows)
    columns = [("bucket", "left"), ("model", "left"), ("class", "left")]
    columns += [("report", "right"), ("ledger", "right"), ("difference", "right")] if counted else []
    columns += [("report $", "right"), ("ledger $", "right"), ("difference $", "right")] if priced else []
    columns += [("", "left"), ("why", "left")]
    if rows:
        show_table("", columns, [_cells(row, place, counted=counted, priced=priced) for row in rows])
    sums = found.quantities()
    lines = [[kind, f"{there:,}", f"{here:,}", f"{there - here:+,}"] for kind, (there, here) in sums.items()]
    if any(row.there_usd is not None for row in found.rows):
        lines.append(["cost", str(found.there_usd), str(found.here_usd), str(found.there_usd - found.here_usd)])
    show_table(
        ", ".join(found.titles),
        [("total", "left"), ("report", "right"), ("ledger", "right"), ("difference", "right")],
        lines,
    )
    for note in found.notes:
        click.echo(note[:1].upper() + note[1:] + ".")
    states = ", ".join(f"{number:,} {state}" for state, number in found.states.items() if number)
    click.echo(f"{_number(len(found.rows), 'row')}: {states or 'nothing on either side'}.")


def _cells(row: Row, place: ZoneInfo, *, counted: bool, priced: bool) -> list[str]:
    where = row.place
    start = f"{where.start.astimezone(place):%Y-%m-%d %H:%M}".removesuffix(" 00:00")
    names = [where.model or "(all)", *(name for name in (where.project, where.key, where.call) if name)]
    cells = [start, " ".join(names), where.kind]
    if counted:
        figures = (row.there, row.here)
        cells += ["" if figure is None else f"{figure:,}" for figure in figures]
        cells.append("" if row.difference is None else f"{row.difference:+,}")
    if priced:
        amounts = (row.there_usd, row.here_usd, row.difference_usd)
        cells += ["" if amount is None else str(amount) for amount in amounts]
    why = f"{row.cause}: {row.why}" if row.cause else ""
    return [*cells, row.state, why]


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
