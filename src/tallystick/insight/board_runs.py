"""Board of runs: a page of the runs in a ledger, the dearest or the newest first, however many there are.

A year can hold half a million runs, too many to rank while somebody waits. So a page is about a stretch of time that
can be looked at at once: it begins at the end of the period, is as long as the ledger's density allows, and says where
it begins; what is before it is another page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from tallystick.core.money import Money
from tallystick.core.periods import Period
from tallystick.insight.blocks import added
from tallystick.insight.flights import Flights
from tallystick.insight.spend import known_cost
from tallystick.ledger.entry import STATUSES
from tallystick.ledger.query import Query, Total

if TYPE_CHECKING:
    from tallystick.ledger.entry import Entry
    from tallystick.ledger.ledger import Ledger

ORDERS: Final = ("cost", "newest")
SIZE: Final = 25
"""Runs on a page."""

RANKED: Final = 5_000
"""So many runs are ranked at a time."""

SCANNED: Final = 40_000
"""So many calls are added up at a time where no kept sum knows the answer: with a filter, or within a day."""

LOOK: Final = 1_500
"""Among so many of the newest calls the newest runs are looked for first."""

RESOLVED: Final = 400
"""Of so many runs the last call is looked up, for one page."""

DEEP: Final = 2_000
"""Among so many of a run's newest calls the last one that fits is looked for."""

ALOFT: Final = 100
"""So many runs with calls in flight are shown."""

_TICK: Final = timedelta(microseconds=1)
_PARTS: Final = ("status", "provider", "model")


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """One run in a list. `total` is the sum of all its ended calls, at whatever time and whether they fit the question;
    `started_at` and `ended_at` are the begin of its first and the end of its last begun call, None where it has none.

    `statuses` counts its calls by status. `flights` calls of it are in flight and have come to `flying` so far, an
    estimate; `left` were left behind by a killed process.
    """

    run_id: str
    total: Total
    started_at: datetime | None = None
    ended_at: datetime | None = None
    parent: str | None = None
    models: tuple[str, ...] = ()
    statuses: dict[str, int] = {}
    flights: int = 0
    flying: Money = Money(0)
    left: int = 0

    @property
    def duration(self) -> timedelta | None:
        """From the begin of the first call to the end of the last one; None where no call has ended."""
        return None if self.started_at is None or self.ended_at is None else self.ended_at - self.started_at

    @property
    def status(self) -> str:
        """`under way`, or how it ended, in words: `ended`, `ended, 2 failed, 1 cut off`."""
        return run_status(self.statuses, self.flights, self.left)

    def record(self) -> dict[str, object]:
        """The run as one flat row, for CSV and JSON; the cost is None where nothing of it is known."""
        total, usage, length = self.total, self.total.usage, self.duration
        return {
            "run": self.run_id,
            "parent_run": self.parent,
            "status": self.status,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "seconds": None if length is None else length.total_seconds(),
            "calls": total.calls,
            "in_flight": self.flights,
            "cost": known_cost(total),
            "at_least": bool(total.unpriced or total.lower_bound),
            "not_owed": total.not_owed,
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "models": " ".join(self.models),
        }


class RunList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of runs. `since` and `until` are the stretch it is about (None: all the time before, or up to now);
    `earlier` is what to give as `before` for the stretch or page that comes next, None where nothing is before.

    `found` runs are in the stretch, `page` of `pages` is shown; for the newest first they are not counted. `outside`
    is the sum of the stretch's calls outside any run, None where it was not asked.
    """

    order: str
    rows: tuple[RunRow, ...]
    since: datetime | None
    until: datetime | None
    earlier: datetime | None = None
    found: int | None = None
    page: int = 1
    pages: int = 1
    outside: Total | None = None


_ENDINGS: Final = {"error": "failed", "cancelled": "cancelled", "cut": "cut off", "refused": "refused"}


def run_status(statuses: dict[str, int], flights: int, left: int) -> str:
    """How a run stands, in words, from its ended calls by status and its calls in flight and left behind."""
    parts = [f"{statuses[name]:,} {words}" for name, words in _ENDINGS.items() if statuses.get(name)]
    if left:
        parts.append(f"{left:,} left behind")
    begin = f"under way, {flights:,} in flight" if flights else "ended" if statuses else "never ended"
    return ", ".join([begin, *parts])


def run_list(
    ledger: Ledger,
    query: Query,
    *,
    now: datetime,
    order: str = "cost",
    before: datetime | None = None,
    page: int = 1,
    size: int = SIZE,
    flights: Flights | None = None,
) -> RunList:
    """A page of the runs with calls that fit `query`. By `cost` the dearest of the stretch come first; by `newest`
    those with calls in flight and then those whose last call began last. `before` is `earlier` of the page before.
    Raises LedgerError."""
    flying = flights or Flights()
    if query.until is not None and query.until > now:
        # Nothing begins later than now, and an open end is answered from the sums of whole days.
        query = msgspec.structs.replace(query, until=None)
    if order == "newest":
        return _newest(ledger, query, before, size, flying)
    if before is not None and (query.until is None or before < query.until):
        query = msgspec.structs.replace(query, until=before)
    return _dearest(ledger, query, (page, size), flying)


def _dearest(ledger: Ledger, query: Query, paging: tuple[int, int], flights: Flights) -> RunList:
    start, earlier = stretch(ledger, query)
    asked = msgspec.structs.replace(query, since=start)
    rows = ledger.total(asked, ("run",))
    named = [row for row in rows if row.group["run"] is not None]
    # The ledger gives them by name, and the sort is stable.
    named.sort(key=lambda row: (-row.cost.pico, -row.not_owed.pico))
    page, size = paging
    pages = max(1, -(-len(named) // size))
    page = min(max(page, 1), pages)
    shown = named[(page - 1) * size : page * size]
    ids = [str(row.group["run"]) for row in shown]
    return RunList(
        order="cost",
        rows=tuple(_detailed(ledger, ids, flights)),
        since=start,
        until=query.until,
        earlier=earlier,
        found=len(named),
        page=page,
        pages=pages,
        outside=next((row for row in rows if row.group["run"] is None), Total(group={"run": None})),
    )


def stretch(ledger: Ledger, query: Query) -> tuple[datetime | None, datetime | None]:
    """Where the stretch at the end of a period begins whose runs can be ranked at once, and the
    same again where calls are before it. Raises LedgerError."""
    day = Period("day", ledger.zone)
    days = _days(ledger, query, day)
    if not days:
        return query.since, None
    swift = not filtered(query) and query.until in (None, day.bounds(query.until or days[-1][0])[0])
    most, each = SCANNED, 1.0
    if swift and sum(calls for _, calls in days) > RANKED:
        newest = ledger.total(Query(since=days[-1][0], until=day.bounds(days[-1][0])[1]), ("run",))
        each = max(len(newest), 1) / max(sum(row.calls for row in newest), 1)
        most = RANKED
    room = float(most)
    start = days[-1][0]
    for place, (begin, calls) in enumerate(reversed(days)):
        room -= calls * each
        if room < 0 and place:
            return start, start
        start = begin
        if place and query.since is not None and begin < query.since and swift and calls > SCANNED:
            # The rest of that day no sum knows by itself; it is a stretch of its own.
            following = day.bounds(begin)[1]
            return following, following
    return query.since, None


def _days(ledger: Ledger, query: Query, day: Period) -> list[tuple[datetime, int]]:
    """The days of the period with calls, oldest first, and how many. Whole days are counted, even at the edges, and
    without filters: it is about how much there is to look at."""
    since = None if query.since is None else day.bounds(query.since)[0]
    until = query.until
    if until is not None:
        begin, end = day.bounds(until)
        until = until if begin == until else end
    rows = ledger.total(Query(since=since, until=until), (), day)
    return [(row.start, row.calls) for row in rows if row.start is not None]


def filtered(query: Query) -> bool:
    """Whether anything but time is asked for."""
    plain = Query(since=query.since, until=query.until, limit=query.limit, newest_first=query.newest_first)
    return query != plain


def _newest(ledger: Ledger, query: Query, before: datetime | None, size: int, flights: Flights) -> RunList:
    # Of a call in flight the tags are not known yet, so with a filter these runs are shown once a call has ended.
    flying = [] if filtered(query) else [one.run_id for one in reversed(flights.alive) if one.run_id]
    aloft = list(dict.fromkeys(flying))[:ALOFT]
    ids = aloft if before is None else []
    search = _Search(ledger, query, before, max(size - len(ids), 1), set(aloft))
    floor = search.scan()
    if floor is not None and len(search.found) < search.wanted:
        floor = search.by_days(floor)
    ordered = sorted(search.found, key=lambda run: (search.found[run], run), reverse=True)
    taken = ordered[: search.wanted]
    # Runs whose last calls began at the same instant stay on one page, as the next one begins before that instant.
    taken += [run for run in ordered[search.wanted :] if search.found[run] == search.found[taken[-1]]]
    earlier = search.found[taken[-1]] if len(taken) < len(ordered) else floor
    rows = tuple(_detailed(ledger, [*ids, *taken], flights))
    return RunList(order="newest", rows=rows, since=earlier or query.since, until=search.until, earlier=earlier)


class _Search:
    """Finds the runs whose last call that fits began last, before an instant. `found` gives that call's begin."""

    def __init__(self, ledger: Ledger, query: Query, before: datetime | None, wanted: int, passed: set[str]) -> None:
        self._ledger = ledger
        self._query = query
        self._before = before
        self._passed = passed
        self.wanted = wanted
        self.found: dict[str, datetime] = {}
        self.until = query.until
        if before is not None and (query.until is None or before < query.until):
            self.until = before

    def scan(self) -> datetime | None:
        """Looks through the newest calls until there is one run more than wanted. Gives the instant before which
        nothing was looked at; None when there is nothing."""
        asked = msgspec.structs.replace(self._query, until=self.until, newest_first=True, limit=LOOK)
        count, last, shown_before = 0, None, set[str]()
        for entry in self._ledger.read(asked):
            count, last = count + 1, entry.started_at
            run = entry.run_id
            if len(self.found) > self.wanted and last < min(self.found.values()):
                return last
            if run is None or run in self.found or run in self._passed or run in shown_before:
                continue
            if self._before is not None and self._last(run, self._before) is not None:
                shown_before.add(run)
            else:
                self.found[run] = last
        if last is None or count < LOOK:
            return None
        if last + _TICK == self.until:
            return last
        # Other calls may have begun at that very instant: what began then is looked at again.
        self.found = {run: at for run, at in self.found.items() if at != last}
        return last + _TICK

    def by_days(self, floor: datetime) -> datetime | None:
        """Goes on where many calls belong to few runs: finds further ones in the sums of days, going back in growing
        steps. Gives the same as `scan`."""
        day, step, looked = Period("day", self._ledger.zone), 1, 0
        days = _days(self._ledger, msgspec.structs.replace(self._query, until=floor), day)
        while days and len(self.found) < self.wanted:
            some = days[-step:]
            if step > 1 and sum(calls for _, calls in some) > SCANNED:
                step = 1
                continue
            days = days[:-step]
            since = some[0][0] if self._query.since is None else max(some[0][0], self._query.since)
            window = msgspec.structs.replace(self._query, since=since, until=day.bounds(some[-1][0])[1])
            runs = [row.group["run"] for row in self._ledger.total(window, ("run",))]
            fresh = [run for run in runs if run is not None and run not in self.found and run not in self._passed]
            looked += len(fresh)
            if looked > RESOLVED:
                return floor
            for run in fresh:
                newest = self._last(run, None)
                # One that began later was found above, or shown on a page before.
                if newest is not None and newest.started_at < floor:
                    self.found[run] = newest.started_at
            floor, step = since, step * 2
        return floor if days else None

    def _last(self, run: str, since: datetime | None) -> Entry | None:
        """The newest call of a run that fits and began at `since` or later."""
        # A run has few calls; that they fit is cheaper told here than by a search for all calls of that model or tag.
        limit = DEEP if filtered(self._query) else 1
        newest = self._ledger.read(
            Query(run_id=run, since=since, until=self._query.until, newest_first=True, limit=limit)
        )
        return next((entry for entry in newest if self._query.matches(entry)), None)


def _detailed(ledger: Ledger, ids: Sequence[str], flights: Flights) -> Iterator[RunRow]:
    for run in ids:
        parts = ledger.total(Query(run_id=run), _PARTS)
        first = next(ledger.read(Query(run_id=run, limit=1)), None)
        last = next(ledger.read(Query(run_id=run, limit=1, newest_first=True)), None)
        alive = [one for one in flights.alive if one.run_id == run]
        yield RunRow(
            run_id=run,
            total=summed(parts, {"run": run}),
            started_at=None if first is None else first.started_at,
            ended_at=None if last is None else ended(last),
            parent=None if first is None else first.parent_run,
            models=tuple(dict.fromkeys(str(part.group["model"]) for part in parts)),
            statuses=counted(parts),
            flights=len(alive),
            flying=Money(sum(one.pico for one in alive)),
            left=sum(one.run_id == run for one in flights.left),
        )


def ended(entry: Entry) -> datetime:
    """When a call ended, as far as that is known."""
    if entry.settled_at is not None:
        return entry.settled_at
    return entry.started_at + timedelta(microseconds=entry.latency_us or 0)


def counted(parts: Iterable[Total]) -> dict[str, int]:
    """Calls by status, from sums by status and more, in the order of STATUSES."""
    found = dict.fromkeys(STATUSES, 0)
    for part in parts:
        found[part.group["status"] or "ok"] += part.calls
    return {status: count for status, count in found.items() if count}


def summed(parts: Iterable[Total], group: dict[str, str | None]) -> Total:
    """The sum of some sums, under another group."""
    whole = Total(group=group)
    for part in parts:
        whole = added(whole, part)
    return whole
