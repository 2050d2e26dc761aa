"""Metrics: what Prometheus is told. Counters come from the ledger, so that a restart does not lose them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from tallystick.core.money import Money
from tallystick.core.usage import KINDS
from tallystick.errors import LedgerError
from tallystick.gateway.api.desk import Desk
from tallystick.gateway.api.http import Problem, Receive, Scope, Send, send_bytes, send_problem
from tallystick.insight.flights import look_flights
from tallystick.insight.timing import BUCKETS, DayTimes, Histogram, Names
from tallystick.metering.budgets import standings

if TYPE_CHECKING:
    from tallystick.ledger.entry import Entry
    from tallystick.ledger.query import Total
    from tallystick.metering.meter import Meter

KIND: Final = "text/plain; version=0.0.4; charset=utf-8"
FRESH: Final = timedelta(seconds=5)
"""An answer is good for so long: more scrapers do not mean more questions to the ledger."""

MOST_NAMES: Final = 40
MOST_SERIES: Final = 2_000
OTHER: Final = "other"
"""What stands for every name beyond the bound."""

_BY: Final = ("provider", "model", "tag:team", "tag:key")
_WHO: Final = ("provider", "model", "team", "key")
_APART: Final = ("status", "quality", "source")
"""Dimensions that are summed on their own: the ledger has such sums at hand, and not those by all of them together."""


class Metric(msgspec.Struct, frozen=True):
    """A metric: its type (counter, gauge, histogram), what it says, and its labels."""

    type: str
    about: str
    labels: tuple[str, ...] = ()


METRICS: Final[Mapping[str, Metric]] = {
    "tallystick_calls_total": Metric("counter", "Calls, refused ones included.", _WHO),
    "tallystick_calls_by_status_total": Metric("counter", "Calls by how they ended.", ("status",)),
    "tallystick_calls_by_quality_total": Metric("counter", "Calls by how well their usage is known.", ("quality",)),
    "tallystick_calls_by_source_total": Metric("counter", "Calls by who saw them.", ("source",)),
    "tallystick_day_calls_total": Metric(
        "counter", "Calls since midnight UTC.", ("provider", "model", "status", "quality", "source")
    ),
    "tallystick_refused_calls_total": Metric("counter", "Calls that a budget refused before they were sent.", _WHO),
    "tallystick_unpriced_calls_total": Metric("counter", "Calls of unknown cost; they are not in the cost.", _WHO),
    "tallystick_tokens_total": Metric("counter", "Usage by kind; kinds never overlap.", (*_WHO, "kind")),
    "tallystick_cost_usd_total": Metric("counter", "What is owed, in US dollars, as far as known.", _WHO),
    "tallystick_not_owed_usd_total": Metric("counter", "What a subscription covers, in US dollars.", _WHO),
    "tallystick_calls_in_flight": Metric("gauge", "Calls that have begun and not ended, in all processes."),
    "tallystick_calls_left_behind": Metric("gauge", "Calls in flight whose process is dead."),
    "tallystick_holds": Metric("gauge", "Holds by state: open (of calls in flight), suspect.", ("state",)),
    "tallystick_budget_limit": Metric("gauge", "The limit of a budget, in its unit.", ("budget", "unit")),
    "tallystick_budget_spent": Metric("gauge", "What the fullest account of a budget has spent.", ("budget", "unit")),
    "tallystick_budget_held": Metric("gauge", "What the fullest account of a budget has held.", ("budget", "unit")),
    "tallystick_call_duration_seconds": Metric(
        "histogram", "How long the calls since midnight UTC took.", ("provider", "model")
    ),
    "tallystick_time_to_first_token_seconds": Metric(
        "histogram", "How long the calls since midnight UTC took until their first word.", ("provider", "model")
    ),
    "tallystick_faults_total": Metric("counter", "Faults of this process's own metering, by where.", ("where",)),
    "tallystick_missed_entries_total": Metric("counter", "Entries of this process that the ledger could not take."),
    "tallystick_ledger_up": Metric("gauge", "1 when the ledger answers, else 0."),
}  # fmt: skip
"""Every metric by its name. None has a user or a run among its labels."""

_OTHERWISE: Final = ("tallystick_day_calls_total", "tallystick_faults_total", "tallystick_missed_entries_total")
"""Counters that are not sums of the whole ledger."""

Labels = tuple[str, ...]
Series = dict[Labels, int | str]


class Bound:
    """Keeps the number of names small: the first so many of a label stay themselves, the rest are `other`."""

    def __init__(self, most: int = MOST_NAMES) -> None:
        self._most = most
        self._known: dict[str, set[str]] = {}

    def shown(self, label: str, name: str | None) -> str:
        """The name as it is shown; a missing one is empty."""
        if not name:
            return ""
        known = self._known.setdefault(label, set())
        if name not in known:
            if len(known) >= self._most:
                return OTHER
            known.add(name)
        return name


class Counter:
    """A counter per series that only grows: a correction may lower a sum of the ledger, and Prometheus would take that
    for a restart and add the whole sum again."""

    def __init__(self) -> None:
        self._high: dict[Labels, int] = {}

    def raised(self, sums: Mapping[Labels, int]) -> dict[Labels, int]:
        """The highest values so far."""
        for labels, value in sums.items():
            self._high[labels] = max(value, self._high.get(labels, 0))
        return self._high


class Metrics:
    """The room that Prometheus reads. `meter` is what this process meters with."""

    def __init__(self, desk: Desk, meter: Meter | None = None) -> None:
        self._desk = desk
        self.meter = meter
        self._bound = Bound()
        self._counters: dict[str, Counter] = {}
        self._times = DayTimes(desk.ledger, desk.flights, self._named)
        self._turn = asyncio.Lock()
        self._made: tuple[datetime, bytes] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        del receive
        if scope["type"] != "http":
            return
        head = scope["method"] == "HEAD"
        if scope["method"] not in ("GET", "HEAD") or scope["path"].rstrip("/") != "/metrics":
            status = 405 if scope["path"].rstrip("/") == "/metrics" else 404
            await send_problem(send, Problem(status, "Metrics are read with GET /metrics.", allow="GET"))
            return
        async with self._turn:
            now = self._desk.now()
            if self._made is None or not timedelta() <= now - self._made[0] < FRESH:
                self._made = now, await asyncio.to_thread(self._text, now)
            body = self._made[1]
        await send_bytes(send, 200, body, KIND, head=head)

    def _text(self, now: datetime) -> bytes:
        lines: list[str] = []
        told: list[tuple[str, Series]]
        try:
            told = [*self._from_ledger(now), ("tallystick_ledger_up", {(): 1})]
            times = True
        except LedgerError:
            told, times = [("tallystick_ledger_up", {(): 0})], False
        for name, series in (*told, *self._own()):
            lines += _lines(name, series)
        if times:
            lines += _histogram_lines("tallystick_call_duration_seconds", self._times.latency)
            lines += _histogram_lines("tallystick_time_to_first_token_seconds", self._times.ttft)
        return ("\n".join(lines) + "\n").encode("utf-8", "replace")

    def _from_ledger(self, now: datetime) -> Iterator[tuple[str, Series]]:
        flights = look_flights(self._desk.flights)
        yield from self._sums()
        self._times.update(now)
        yield "tallystick_day_calls_total", {**self._times.calls}
        yield "tallystick_calls_in_flight", {(): len(flights.alive)}
        yield "tallystick_calls_left_behind", {(): len(flights.left)}
        ledger = self._desk.ledger
        yield "tallystick_holds", {(state,): len(ledger.holds(state)) for state in ("open", "suspect")}
        yield from self._budgets(now)

    def _sums(self) -> Iterator[tuple[str, Series]]:
        ledger = self._desk.ledger
        found: dict[str, dict[Labels, int]] = {
            name: {} for name, metric in METRICS.items() if metric.type == "counter" and name not in _OTHERWISE
        }
        for total in sorted(ledger.total(by=_BY), key=lambda row: row.calls, reverse=True):
            self._add_total(found, total)
        for name in _APART:
            sums = found[f"tallystick_calls_by_{name}_total"]
            for total in ledger.total(by=(name,)):
                sums[total.group[name] or "",] = total.calls
        for name, sums in found.items():
            series = self._counters.setdefault(name, Counter()).raised(sums)
            money = name.endswith("_usd_total")
            yield name, {labels: Money(value).plain() if money else value for labels, value in series.items()}

    def _add_total(self, found: dict[str, dict[Labels, int]], total: Total) -> None:
        group = [total.group[name] for name in _BY]
        who = tuple([self._bound.shown(name, one) for name, one in zip(_WHO, group, strict=True)])
        _add(found["tallystick_calls_total"], who, total.calls)
        _add(found["tallystick_refused_calls_total"], who, total.refused)
        _add(found["tallystick_unpriced_calls_total"], who, total.unpriced)
        _add(found["tallystick_cost_usd_total"], who, total.cost.pico)
        _add(found["tallystick_not_owed_usd_total"], who, total.not_owed.pico)
        for kind, count in total.usage.items():
            if kind in KINDS:
                _add(found["tallystick_tokens_total"], (*who, kind), count)

    def _budgets(self, now: datetime) -> Iterator[tuple[str, Series]]:
        limit: Series = {}
        spent: Series = {}
        held: Series = {}
        for budget in self._desk.ledger.budgets().budgets[:MOST_SERIES]:
            stands = standings(self._desk.ledger, budget, now)
            fullest = max(stands, key=lambda one: (one.percent, one.spent), default=None)
            labels = (budget.budget_id, budget.unit)
            shown: Callable[[int], int | str] = _dollars if budget.unit == "usd" else int
            limit[labels] = shown(budget.limit_at(now))
            spent[labels] = shown(0 if fullest is None else fullest.spent)
            held[labels] = shown(0 if fullest is None else fullest.held)
        yield "tallystick_budget_limit", limit
        yield "tallystick_budget_spent", spent
        yield "tallystick_budget_held", held

    def _own(self) -> Iterator[tuple[str, Series]]:
        """What this process alone knows."""
        if self.meter is not None:
            yield "tallystick_faults_total", {(where,): count for where, count in self.meter.faults.counts.items()}
            yield "tallystick_missed_entries_total", {(): self.meter.missed}

    def _named(self, entry: Entry) -> Names:
        return self._bound.shown("provider", entry.provider), self._bound.shown("model", entry.model)


def _add(series: dict[Labels, int], labels: Labels, value: int) -> None:
    """Adds to a series; beyond the bound on their number those of other names are one."""
    if not value:
        return
    if labels not in series and len(series) >= MOST_SERIES:
        labels = (*[OTHER for _ in _WHO], *labels[len(_WHO) :])
    series[labels] = series.get(labels, 0) + value


def _dollars(pico: int) -> str:
    return Money(pico).plain()


def _lines(name: str, series: Series) -> Iterator[str]:
    yield from _head(name)
    for labels, value in sorted(series.items()):
        yield f"{name}{_braces(METRICS[name].labels, labels)} {value}"


def _head(name: str) -> Iterator[str]:
    metric = METRICS[name]
    yield f"# HELP {name} {metric.about}"
    yield f"# TYPE {name} {metric.type}"


def _histogram_lines(name: str, found: Mapping[Names, Histogram]) -> Iterator[str]:
    yield from _head(name)
    labels = METRICS[name].labels
    for names, histogram in sorted(found.items()):
        counts = histogram.cumulative
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
            yield f"{name}_bucket{_braces((*labels, 'le'), (*names, bound))} {count}"
        braces = _braces(labels, names)
        yield f"{name}_sum{braces} {histogram.total / 1_000_000}"
        yield f"{name}_count{braces} {counts[-1]}"


def _braces(names: tuple[str, ...], values: Labels) -> str:
    pairs = [f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)]
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
