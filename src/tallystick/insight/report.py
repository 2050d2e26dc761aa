"""Report: what was spent, in rows that print as a table, with what the figures leave out under the total."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tallystick.core.attribution import Tags
from tallystick.core.periods import CALENDAR, Period, zone
from tallystick.core.usage import KINDS
from tallystick.errors import InputError
from tallystick.insight.blocks import totals_by_block
from tallystick.insight.charts import Picture, chart, save
from tallystick.insight.runcosts import RunCosts, run_costs
from tallystick.insight.savings import Detail, Savings, look_at
from tallystick.insight.spend import Spent, about, covered_words, known_cost, owed_words, total_json
from tallystick.insight.spreading import PRECISION, spread_json, spread_table
from tallystick.insight.words import NOT_A_BILL, Column, csv_cell, library, period_words, plain_table, shown
from tallystick.ledger.entry import rfc3339
from tallystick.ledger.query import Query, Total
from tallystick.ledger.sketches import Spread

if TYPE_CHECKING:
    from tallystick.catalog.catalog import Catalog
    from tallystick.ledger.ledger import Ledger
    from tallystick.ledger.progress import Progress

PER: Final = (*CALENDAR, "block", "run")
"""What a report can be split by: calendar periods, five-hour blocks, runs."""

READ_UP_TO: Final = 5_000
"""Up to so many calls a report also reads them one by one, for cache savings, cost per run and duplicates."""

FULL: Final = 3
"""How full a table can be; see `Report.table`."""

NAMES: Final = {
    "unpriced": "without a price",
    "unknown": "of unknown usage",
    "lower_bound": "at least",
    "estimated": "estimated",
}


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of spend: `rows` are sums by group and period, `total` the sum of all calls.

    It prints as a table, shows as one in a notebook, and goes on as JSON, as a data frame or as a chart. `tz` is the
    time zone of its periods. `detail` and `runs` are None where the calls were too many to be read unasked, `spreads`
    where nobody asked for percentiles.
    """

    spent: Spent
    by: tuple[str, ...]
    per: str | None
    tz: str
    since: datetime | None = None
    until: datetime | None = None
    breakdown: bool = False
    detail: Detail | None = None
    runs: tuple[RunCosts | None, RunCosts | None] = (None, None)
    spreads: tuple[Spread, ...] | None = None

    @property
    def rows(self) -> tuple[Total, ...]:
        """The sums: by time where the report is split by time, else the most expensive first."""
        if self.split is not None:
            return self.spent.rows
        return tuple(sorted(self.spent.rows, key=lambda row: (row.cost, row.not_owed), reverse=True))

    @property
    def split(self) -> str | None:
        """The stretch of time that parts the rows; None where they are parted by names only."""
        return None if self.per == "run" else self.per

    @property
    def total(self) -> Total:
        """The sum of all calls."""
        return self.spent.total

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values; money is decimal text, and null where nothing is known."""
        owed, free = self.runs
        return {
            "by": list(self.by),
            "per": self.per,
            "tz": self.tz,
            "since": None if self.since is None else rfc3339(self.since),
            "until": None if self.until is None else rfc3339(self.until),
            "total": total_json(self.total),
            "rows": [total_json(row) for row in self.rows],
            "runs": None if owed is None else owed.to_json(),
            "runs_not_owed": None if free is None else free.to_json(),
            "detail": None if self.detail is None else self.detail.to_json(),
            "spreads": None if self.spreads is None else [spread_json(row) for row in self.spreads],
        }

    def table(self, fullness: int = FULL) -> tuple[list[Column], list[list[str]]]:
        """Headings and cells, the total last. For narrow places `fullness` goes down: 2 leaves out what is not exact in
        each row (the remarks say it in sum), 1 shortens a heading, 0 leaves out the counts."""
        kinds = _kinds(self.total) if self.breakdown else None
        names = self._names()
        counted = [*(("input", "cached", "output") if kinds is None else kinds)] if fullness else []
        heads = ["calls", *counted, "cost", NOT_A_BILL if fullness >= FULL - 1 else "not a bill"]
        columns = [*((name, "left") for name in names), *((head, "right") for head in heads)]
        cells = [[*self._labels(row), *_figures(row, kinds, counts=bool(fullness))] for row in self.rows]
        blanks = [""] * (len(names) - 1)
        cells.append(["total", *blanks, *_figures(self.total, kinds, counts=bool(fullness))])
        if fullness == FULL:
            columns.append(("of these", "left"))
            for row, line in zip((*self.rows, self.total), cells, strict=True):
                gaps = [f"{getattr(row, name):,} {words}" for name, words in NAMES.items() if getattr(row, name)]
                line.append(", ".join(gaps))
        return columns, cells

    def spread_table(self) -> tuple[list[Column], list[list[str]]]:
        """Headings and cells of the percentiles, if they were asked for: groups in the order of the other table."""
        order = {(row.start, *row.group.values()): place for place, row in enumerate(self.rows)}
        known = sorted(self.spreads or (), key=lambda row: order.get((row.start, *row.group.values()), len(order)))
        return spread_table(known, self.by, self.split, self.tz)

    def remarks(self) -> list[str]:
        """What stands under the total: what it does not know, duplicates, cache savings, cost per run."""
        return list(_remarks(self))

    def records(self) -> list[dict[str, Any]]:
        """A row each, as plain values for data frames: `start` and `end`, the group, counts, `cost_usd` and
        `not_owed_usd` as Decimal (`cost_usd` None where nothing is known), `at_least`, and tokens by kind."""
        kinds = _kinds(self.total)
        found = []
        for row in self.rows:
            known = known_cost(row)
            counts = {name: getattr(row, name) for name in ("calls", "refused", *NAMES)}
            found.append(
                {
                    **({} if self.split is None else {"start": row.start, "end": row.end}),
                    **row.group,
                    **counts,
                    "cost_usd": None if known is None else known.to_decimal(),
                    "at_least": bool(row.unpriced or row.lower_bound),
                    "not_owed_usd": row.not_owed.to_decimal(),
                    **{kind: row.usage.get(kind, 0) for kind in kinds},
                }
            )
        return found

    def to_pandas(self) -> Any:
        """A pandas DataFrame of `records`. Raises ConfigError where pandas is not installed."""
        return library("pandas").DataFrame.from_records(self.records())

    def to_polars(self) -> Any:
        """A polars DataFrame of `records`. Raises ConfigError where polars is not installed."""
        return library("polars").DataFrame(self.records(), infer_schema_length=None)

    def chart(self) -> Any:
        """An altair Chart of the report: bars over time or by group. Raises ConfigError where altair is missing."""
        return chart(self._picture())

    def save_chart(self, path: Path) -> int:
        """Draws the report into a .png, .svg or .html file, without any network, and returns its bytes. Raises
        InputError for another ending or a file that cannot be written, ConfigError where the extra is missing."""
        return save(self._picture(), path)

    def __str__(self) -> str:
        """A table, and under it what the total does not know."""
        if not self.total.calls:
            return "No calls."
        columns, cells = self.table()
        more = [] if not self.spreads else ["", *plain_table(*self.spread_table())]
        return "\n".join([*plain_table(columns, cells), *more, *self.remarks()])

    def _repr_html_(self) -> str:
        columns, cells = self.table()
        heads = "".join(f"<th>{html.escape(head)}</th>" for head, _ in columns)
        sides = [side for _, side in columns]
        rows = "".join(
            "<tr>"
            + "".join(
                f'<td style="text-align:{side}">{html.escape(shown(cell))}</td>'
                for cell, side in zip(row, sides, strict=True)
            )
            + "</tr>"
            for row in cells
        )
        notes = "<br>".join(html.escape(shown(text)) for text in self.remarks())
        return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table><p>{notes}</p>"

    def csv_lines(self) -> Iterator[str]:
        """The `records` as CSV, a header first. Text that a spreadsheet would take for a formula gets an apostrophe in
        front; amounts are exact decimals, empty where nothing is known."""
        records = self.records()
        heads = list(records[0]) if records else [*self._names(), "calls", "cost_usd"]
        for row in (heads, *(list(record.values()) for record in records)):
            buffer = io.StringIO()
            csv.writer(buffer, lineterminator="").writerow(map(csv_cell, row))
            yield buffer.getvalue()

    def _picture(self) -> Picture:
        covered = (f"{NOT_A_BILL}: {self.total.not_owed}",) if self.total.not_owed else ()
        return Picture(self.rows, self.by, self.split, self.tz, (str(self.spent), *covered))

    def _names(self) -> tuple[str, ...]:
        return self.by if self.split is None else (self.split, *self.by)

    def _labels(self, row: Total) -> list[str]:
        when = [] if self.split is None else [period_words(row, self.split, self.tz)]
        return [*when, *(row.group.get(name) or "(none)" for name in self.by)]


def report(
    ledger: Ledger,
    *,
    per: str | None = None,
    by: Sequence[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
    tz: str | None = None,
    model: str | None = None,
    tags: Mapping[str, str] | None = None,
    breakdown: bool = False,
    spread: bool = False,
    catalog: Catalog | None = None,
    progress: Progress | None = None,
) -> Report:
    """Sums the calls from `since` to before `until` by names and `per` period, block or run (see PER).

    Without either it is by model. `tz` is the time zone of periods (default: the ledger's). `breakdown` gives tokens
    and cost by kind, and reads every call however many there are. `spread` adds percentiles of cost, latency and time
    to first token. `catalog` is where an uncached rate is looked up; a long reading tells `progress` how far it is.
    Raises InputError for a grouping that makes no sense, LedgerError where the ledger fails.
    """
    if per is not None and per not in PER:
        raise InputError(f"{per!r} is nothing to split a report by.", todo=f"It is one of: {', '.join(PER)}.")
    if spread and per == "block":
        raise InputError("A report by block has no percentiles.", todo="Leave one of the two out.")
    place = tz or ledger.zone
    zone(place)
    names = tuple(by)
    if isinstance(by, str):
        names = (by,)
    if per == "run":
        names = ("run", *(name for name in names if name != "run"))
    names = names if names or per is not None else ("model",)
    query = Query(since=since, until=until, model=model, tags=Tags(tags))
    whole = ledger.total(query)[0]
    period = Period(per, place) if per in CALENDAR and per is not None else None
    grouped = totals_by_block(ledger, query, names) if per == "block" else ledger.total(query, names, period, progress)
    spent = Spent(whole, tuple(grouped))
    spreads = tuple(ledger.spread(query, names, period, progress)) if spread else None
    detail: Detail | None = None
    runs: tuple[RunCosts | None, RunCosts | None] = (None, None)
    if breakdown or whole.calls <= READ_UP_TO:
        detail = look_at(ledger, query, catalog)
    if detail is not None or per == "run":
        runs = run_costs(spent.rows if names == ("run",) and per == "run" else ledger.total(query, ("run",)))
    return Report(
        spent=spent, by=names, per=per, tz=place, since=since, until=until, breakdown=breakdown, detail=detail,
        runs=runs, spreads=spreads,
    )  # fmt: skip


def _kinds(total: Total) -> list[str]:
    """The kinds that were used, in the order in which they are shown."""
    return sorted(total.usage, key=lambda kind: (KINDS.index(kind) if kind in KINDS else len(KINDS), kind))


def _figures(row: Total, kinds: Sequence[str] | None, *, counts: bool) -> list[str]:
    usage = row.usage
    shown: list[int] = []
    if counts and kinds is None:
        cached = sum(usage.get(kind, 0) for kind in usage if kind.endswith("cache_read"))
        shown = [usage.input_tokens, cached, usage.output_tokens]
    elif counts:
        shown = [usage.get(kind, 0) for kind in kinds or ()]
    return [f"{row.calls:,}", *(f"{count:,}" for count in shown), owed_words(row), covered_words(row)]


def _remarks(report: Report) -> Iterator[str]:
    total, detail = report.total, report.detail
    yield f"Not exact: {total.gaps}." if total.gaps else "Every call was measured and priced exactly."
    if total.not_owed:
        yield f"{NOT_A_BILL}: {total.not_owed} at list prices is covered by a subscription."
    if report.spreads:
        yield PRECISION
    if detail is None:
        yield f"Cache savings, cost per run and duplicates among {total.calls:,} calls: --breakdown reads them."
        return
    if detail.joined:
        yield f"{_many(detail.joined, 'report')} of these calls by other sources joined: each call counts once."
    if detail.repeated:
        yield f"{_many(detail.repeated, 'call')} with a provider's id that was given before: each counts."
    for savings, words in ((detail.owed, ""), (detail.not_owed, f" ({NOT_A_BILL})")):
        if savings.calls:
            yield _savings_words(savings) + words + "."
    for costs, words in zip(report.runs, ("", f" ({NOT_A_BILL})"), strict=True):
        if costs is not None:
            left = f"; {_many(costs.left_out, 'run')} of unknown cost not in it" if costs.left_out else ""
            spread = f"mean {about(costs.mean)}, p50 {costs.p50}, p95 {costs.p95} each"
            yield f"{_many(costs.runs, 'run')}: {spread}{words}{left}."


def _savings_words(savings: Savings) -> str:
    over = f"{_many(savings.calls, 'call')} with cached tokens"
    if not savings.computed:
        return f"Cache: what it saved is unknown for {over}"
    if savings.computed < savings.calls:
        over = f"{savings.computed:,} of {over}; unknown for the others"
    return (
        f"Cache: reads saved {savings.saved} against the uncached rate, writes cost {savings.extra} extra, "
        f"net {savings.net}, over {over}"
    )


def _many(count: int, name: str) -> str:
    return f"{count:,} {name}" if count == 1 else f"{count:,} {name}s"
