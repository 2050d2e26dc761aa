"""The tables of `gateway.py`: medians and ranges by part, and which targets are met."""

from __future__ import annotations

import sqlite3
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from _gateway_field import BUDGET, KINDS, LITELLM, OURS, TENSORZERO, Running, ledger_of
from _gateway_rounds import BURST, DIRECT, P50, P99, PACED, READY, REQUEST, RSS, SHARE, STREAMS, Figures
from _timing import table

PARTS: Final = (REQUEST, PACED, BURST, P50, P99, RSS, READY, SHARE)
TITLES: Final = {DIRECT: "the mock itself", **{kind.key: kind.title for kind in KINDS}}
SHOWN: Final[Mapping[str, tuple[tuple[str, str, str], ...]]] = dict.fromkeys(
    (REQUEST, PACED, BURST),
    ((OURS, TENSORZERO, "ours / TZ"), (BUDGET, TENSORZERO, "budget / TZ"), (LITELLM, OURS, "LiteLLM / ours")),
)


@dataclass(frozen=True)
class Target:
    """A limit on a figure of one of ours, or on its ratio to a peer; with `least`, on how many times less it is."""

    metric: str
    key: str
    limit: float
    peer: str | None = None
    least: bool = False
    rows: str = ""

    def values(self, figures: Figures) -> dict[str, float]:
        """The median by row: of the figure, or of the ratios of the rounds."""
        found = {}
        for row in figures.rows(self.metric):
            if self.rows not in row:
                continue
            if self.peer is None:
                values = figures.of(self.metric, row, self.key)
            elif self.least:
                values = figures.ratios(self.metric, row, self.peer, self.key)
            else:
                values = figures.ratios(self.metric, row, self.key, self.peer)
            if values:
                found[row] = statistics.median(values)
        return found

    @property
    def wanted(self) -> str:
        """What is demanded."""
        if self.peer is None:
            return f"<= {self.limit:g}"
        return f">= {self.limit:g}x less" if self.least else f"<= {self.limit:g}x {TITLES[self.peer]}"

    def meets(self, value: float) -> bool:
        """Whether a value is within the limit."""
        return value >= self.limit if self.least else value <= self.limit


TARGETS: Final = (
    Target(REQUEST, OURS, 0.8, TENSORZERO),
    Target(REQUEST, BUDGET, 1.0, TENSORZERO),
    Target(PACED, OURS, 1.0, TENSORZERO),
    Target(BURST, OURS, 0.5, TENSORZERO),
    Target(REQUEST, OURS, 50, LITELLM, least=True),
    Target(PACED, OURS, 50, LITELLM, least=True),
    Target(BURST, OURS, 50, LITELLM, least=True),
    Target(P50, OURS, 0.5),
    Target(P50, BUDGET, 5),
    Target(RSS, OURS, 100, rows=f"{STREAMS} streams"),
    Target(RSS, BUDGET, 100, rows=f"{STREAMS} streams"),
    Target(READY, OURS, 1),
    Target(READY, BUDGET, 1),
)


def number(value: float, metric: str) -> str:
    """A figure with as many places as it bears."""
    if metric in {P50, P99, READY}:
        return f"{value:.2f}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def spread(values: Sequence[float], metric: str) -> str:
    """Median, and least to most; nothing where there is nothing."""
    if not values:
        return ""
    shown = number(statistics.median(values), metric)
    return f"{shown} ({number(min(values), metric)}-{number(max(values), metric)})"


def reason(figures: Figures, key: str) -> str:
    """Why a gateway has no figure, in a cell of a table; what is longer stands below them."""
    return next((note for note in figures.notes.get(key, ()) if len(note) < 20), "-")


def part(figures: Figures, metric: str, keys: Sequence[str]) -> str:
    """The table of one metric: a row for each load, a column for each gateway."""
    present = [DIRECT, *keys] if metric in {P50, P99} else list(keys)
    pairs = [pair for pair in SHOWN.get(metric, ()) if pair[0] in keys and pair[1] in keys]
    head = [metric, *(TITLES[key] for key in present), *(name for _, _, name in pairs)]
    rows = []
    for row in figures.rows(metric):
        cells = [spread(figures.of(metric, row, key), metric) or reason(figures, key) for key in present]
        for key, other, _ in pairs:
            found = figures.ratios(metric, row, key, other)
            cells.append(f"{statistics.median(found):.2f}" if found else "-")
        rows.append([row, *cells])
    return table(head, rows)


def targets(figures: Figures) -> str:
    """Each target with the best and the worst of its rows."""
    rows = []
    for target in TARGETS:
        found = target.values(figures)
        name = f"{target.metric}: {TITLES[target.key]}"
        if not found:
            rows.append([name, target.wanted, "-", "-", "", "not compared"])
            continue
        order = sorted(found, key=lambda row: found[row], reverse=target.least)
        best, worst = order[0], order[-1]
        met = sum(target.meets(value) for value in found.values())
        verdict = "met" if met == len(found) else "not met" if not met else f"met in {met} of {len(found)}"
        rows.append([name, target.wanted, f"{found[best]:.2f}", f"{found[worst]:.2f}", worst, verdict])
    return table(["target", "wanted", "best", "worst", "worst where", ""], rows)


def missing(figures: Figures) -> Iterator[str]:
    """What has to be said beside the figures."""
    for key, notes in figures.notes.items():
        for note in notes:
            yield f"{TITLES[key]}: {note}"


def entered(ran: Mapping[str, Running]) -> Iterator[tuple[str, bool]]:
    """For each of ours, whether its ledger holds every call that was answered, each with a price; and whether it does."""
    for name, running in ran.items():
        place = ledger_of(running.folder)
        if running.kind.key not in {OURS, BUDGET} or not place.exists():
            continue
        with sqlite3.connect(place) as ledger:
            calls, priced = ledger.execute(
                "SELECT count(*), count(*) FILTER (WHERE NOT unpriced) FROM entry"
            ).fetchone()
            held = ledger.execute("SELECT count(*) FROM hold").fetchone()[0]
        ledger.close()
        text = f"{name}: {calls:,} of {running.asked:,} calls are in its ledger, {priced:,} with a price"
        yield f"{text}; {held:,} rows of holds", calls == priced == running.asked


def as_json(figures: Figures) -> dict[str, object]:
    """All values by metric, row and gateway, for a file."""
    values: dict[str, dict[str, dict[str, list[float]]]] = {}
    for (metric, row, key), found in figures.values.items():
        values.setdefault(metric, {}).setdefault(row, {})[key] = [found[turn] for turn in sorted(found)]
    judged = [
        {"metric": one.metric, "of": one.key, "wanted": one.wanted, "rows": found,
         "met": all(map(one.meets, found.values())) if found else None}
        for one in TARGETS
        for found in [one.values(figures)]
    ]  # fmt: skip
    return {"values": values, "targets": judged, "notes": figures.notes, "others": figures.others}
