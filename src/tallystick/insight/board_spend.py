"""Board of spend: what a stretch of time cost, over time and by one name, beside the stretch before, answered from the
ledger's sums so that it takes as long for ten million calls as for ten."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from tallystick.core.money import Money
from tallystick.core.periods import Period
from tallystick.core.usage import Usage
from tallystick.insight.blocks import added
from tallystick.ledger.query import DIMENSIONS, Query, Total
from tallystick.ledger.sums import kind_order
from tallystick.ledger.words import CUBE_TAGS

if TYPE_CHECKING:
    from tallystick.ledger.ledger import Ledger

SHOWN: Final = 8
"""So many rows of a stack have a colour of their own; where there are more, the smallest are one row."""

FEW_SHOWN: Final = 4
"""So many where each of them has to be asked for by itself."""

SPARE: Final = 10
"""Among ten times as many of the stretch before the groups of a page are looked for before they are asked for one by
one: who spends much now mostly did so then."""

MOST_CELLS: Final = 6_000
"""Beyond so many groups times periods only the groups that are shown are asked for over time."""

READ_AT_ONCE: Final = 30_000
"""Among so many calls a question that no sums answer is answered by reading them, unasked."""

MOST_PERIODS: Final = 400
_COUNTS: Final = ("calls", "refused", "unpriced", "estimated", "lower_bound", "unknown")
_CUBE: Final = frozenset({"provider", "model", "maker", *CUBE_TAGS})


class Row(msgspec.Struct, frozen=True):
    """One group: its name (None: calls without one), its sum, and that of the stretch before."""

    name: str | None
    total: Total
    before: Total


class Stack(msgspec.Struct, frozen=True):
    """A group over time: a sum for each period. `rest` is how many smaller groups are in it, 0 for a single one."""

    name: str | None
    sums: tuple[Total, ...]
    rest: int = 0


class Board(msgspec.Struct, frozen=True):
    """What was spent. `rows` are the groups, the most expensive first, `periods` the starts of the periods and `stacks`
    the groups over them, `previous` the sums of the stretch before by its own periods. `before` is the sum of that
    stretch; None: there is nothing to compare with. Where no sums answer the question and `unread` calls would have to
    be read for it, the groups are left out until somebody asks for them. `count` is how many groups there are where
    `rows` are only the first of them, else None."""

    total: Total
    before: Total | None
    rows: tuple[Row, ...]
    periods: tuple[datetime, ...]
    stacks: tuple[Stack, ...]
    previous: tuple[Total, ...] = ()
    unread: int = 0
    count: int | None = None


def board(
    ledger: Ledger,
    asked: tuple[Query, Query | None],
    group: str,
    per: Period,
    end: datetime,
    *,
    read: bool = False,
    most: int | None = None,
) -> Board:
    """What the calls of the first query `asked` cost by `group` and over the periods up to `end`, beside those of the
    second. `read` reads the calls where no sums answer. Of groups that there can be thousands of only the `most` most
    expensive are looked at. Raises LedgerError."""
    query, before = asked
    value = picked_value(query, group)
    unread = 0 if read or value is not None else to_read(ledger, query, group)
    # One question answers all where there are few groups; its cells are added up here.
    few = (
        not unread
        and value is None
        and (group in DIMENSIONS or group.removeprefix("tag:") in CUBE_TAGS)
        and group != "run"
    )
    cells = sums(ledger, query, (group,), per) if few else []
    over = gathered(cells, None) if few else sums(ledger, query, (), per)
    total = _whole(over, query)
    first = query.since or min((row.start for row in over if row.start), default=end)
    periods = _periods(first, end, per)
    earlier = [] if before is None else sums(ledger, before, (group,) if few else (), per)
    previous = _in_order(gathered(earlier, None) if few else earlier, len(periods), before, per)
    compared = None if before is None else _whole(earlier, before)
    if unread:
        return Board(total, compared, (), periods, (Stack(None, _along(over, periods)),), previous, unread)
    if value is not None:
        whole = [msgspec.structs.replace(one, group={group: value}) for one in (total, compared or _NOTHING)]
        stack = Stack(value, _along(over, periods))
        return Board(total, compared, _rows(whole[:1], whole[1:], group), periods, (stack,), previous)
    count = None
    if few:
        groups: Sequence[Total] = gathered(cells, group)
        past: Sequence[Total] = gathered(earlier, group)
    else:
        groups, past, count = _many(ledger, asked, group, most)
        if (count or len(groups)) * len(periods) <= MOST_CELLS:
            cells = sums(ledger, query, (group,), per)
    rows = _rows(groups, past, group)
    named = [row for row in rows if row.total.calls]
    number = count or len(named)
    shown = named if number <= SHOWN else named[: SHOWN - 1 if cells else FEW_SHOWN]
    if cells or not named:
        stacks = [
            Stack(row.name, _along([one for one in cells if one.group[group] == row.name], periods)) for row in shown
        ]
    else:
        stacks = [
            Stack(row.name, _along(sums(ledger, picked(query, group, row.name), (), per), periods))
            for row in shown
            if row.name is not None
        ]
    if len(stacks) < number:
        stacks.append(_rest(_along(over, periods), stacks, number - len(stacks)))
    return Board(total, compared, rows, periods, tuple(stacks), previous, count=count)


def _many(
    ledger: Ledger, asked: tuple[Query, Query | None], group: str, most: int | None
) -> tuple[Sequence[Total], Sequence[Total], int | None]:
    """Groups that there can be thousands of, those of the stretch before, and how many there are where only the first
    were looked at."""
    query, before = asked
    if most is None:
        return sums(ledger, query, (group,)), [] if before is None else sums(ledger, before, (group,)), None
    top = ledger.top(query, (group,), "cost", max(most, SHOWN))
    if before is None or top.groups <= len(top.rows):
        return top.rows, [] if before is None else sums(ledger, before, (group,)), None
    if not whole_days(ledger, before):
        return top.rows, sums(ledger, before, (group,)), top.groups
    wanted = {row.group[group] for row in top.rows}
    earlier = ledger.top(before, (group,), "cost", SPARE * most)
    past = [row for row in earlier.rows if row.group[group] in wanted]
    missing = wanted - {row.group[group] for row in past} if len(earlier.rows) < earlier.groups else set()
    if None in missing or len(missing) > FEW_SHOWN:
        return top.rows, sums(ledger, before, (group,)), top.groups
    for name in sorted(name for name in missing if name is not None):
        past += [
            msgspec.structs.replace(row, group={group: name})
            for row in ledger.total(picked(before, group, name))
            if row.calls
        ]
    return top.rows, past, top.groups


def whole_days(ledger: Ledger, query: Query) -> bool:
    """Whether a stretch of time begins and ends at midnight of the ledger's zone."""
    day = Period("day", ledger.zone)
    return all(at is None or day.bounds(at)[0] == at for at in (query.since, query.until))


def sums(ledger: Ledger, query: Query, by: tuple[str, ...] = (), per: Period | None = None) -> list[Total]:
    """Like the ledger's own totals. Where the stretch ends in the middle of a day that day is asked for apart, so that
    the sums of whole days answer for the rest. Raises LedgerError."""
    if query.until is None or query.since is None:
        return ledger.total(query, by, per)
    middle = Period("day", ledger.zone).bounds(query.until)[0]
    if middle is None or not query.since < middle < query.until:
        return ledger.total(query, by, per)
    found: dict[tuple[object, ...], Total] = {}
    for part in (msgspec.structs.replace(query, until=middle), msgspec.structs.replace(query, since=middle)):
        for row in ledger.total(part, by, per):
            key = (row.start, *row.group.values())
            found[key] = row if key not in found else _sum([found[key], row])
    return list(found.values())


def answered_by_sums(query: Query, group: str) -> bool:
    """Whether the ledger keeps sums that answer a question by this group."""
    names = {name for name in DIMENSIONS if getattr(query, name, None) is not None} | set(query.tags)
    if query.run_id is not None:
        names.add("run")
    names.add(group.removeprefix("tag:"))
    return len(names) == 1 or names <= _CUBE


def in_cube(query: Query, names: Iterable[str]) -> bool:
    """Whether sums are kept of these names together with those that a query picks by."""
    used = {name for name in DIMENSIONS if getattr(query, name, None) is not None}
    return query.run_id is None and used | set(query.tags) | {*names} <= _CUBE


def picked_value(query: Query, group: str) -> str | None:
    """The one group that a query picks already; None where it does not."""
    if group in DIMENSIONS:
        found: str | None = getattr(query, "run_id" if group == "run" else group)
        return found
    return query.tags.get(group.removeprefix("tag:"))


def picked(query: Query, group: str, value: str) -> Query:
    """The calls of a query that are in one group."""
    if group == "run":
        return msgspec.structs.replace(query, run_id=value)
    if group in DIMENSIONS:
        return msgspec.structs.replace(query, **{group: value})
    return msgspec.structs.replace(query, tags=query.tags.overlay({group.removeprefix("tag:"): value}))


def to_read(ledger: Ledger, query: Query, group: str) -> int:
    """How many calls would have to be read to part those of a query by this group, where that is too many to do so
    unasked; 0 where it can be asked for at once. Raises LedgerError."""
    return 0 if answered_by_sums(query, group) else _crowd(ledger, query)


def unsummed(ledger: Ledger, query: Query) -> int:
    """How many calls would have to be read to sum those of a query at all, where that is too many to do so unasked; 0
    where it can be asked for at once. Raises LedgerError."""
    names = {name for name in DIMENSIONS if getattr(query, name, None) is not None} | set(query.tags)
    if query.run_id is not None or len(names) <= 1 or names <= _CUBE:
        return 0
    return _crowd(ledger, query)


def _crowd(ledger: Ledger, query: Query) -> int:
    """How many calls there are in the time of a query, where those are too many to be read unasked."""
    calls = _sum(sums(ledger, Query(since=query.since, until=query.until))).calls
    return calls if calls > READ_AT_ONCE else 0


def _rows(now: Sequence[Total], before: Sequence[Total], group: str) -> tuple[Row, ...]:
    earlier = {row.group[group]: row for row in before}
    present = {row.group[group]: row for row in now}
    rows = [
        Row(name, present.get(name, Total(group={group: name})), earlier.get(name, Total(group={group: name})))
        for name in (*present, *(name for name in earlier if name not in present))
    ]
    rows.sort(key=lambda row: (-row.total.cost.pico, -row.total.not_owed.pico, -row.total.calls, row.name or ""))
    return tuple(rows)


def _rest(whole: Sequence[Total], stacks: Sequence[Stack], count: int) -> Stack:
    """All other groups as one: what the whole counts beyond those that are shown."""
    sums = []
    for place, total in enumerate(whole):
        left = total
        for stack in stacks:
            if stack.sums[place].calls:
                left = added(left, stack.sums[place], -1)
        sums.append(left)
    return Stack(None, tuple(sums), count)


def _periods(since: datetime, end: datetime, per: Period) -> tuple[datetime, ...]:
    found: list[datetime] = []
    at = since
    while at < end and len(found) < MOST_PERIODS:
        start, after = per.bounds(at)
        assert start is not None
        assert after is not None
        found.append(start)
        at = after
    return tuple(found)


def _along(rows: Sequence[Total], periods: Sequence[datetime]) -> tuple[Total, ...]:
    """A sum for each period; nothing where there were no calls."""
    known = {row.start: row for row in rows}
    return tuple([known.get(start, _NOTHING) for start in periods])


def _in_order(rows: Sequence[Total], count: int, before: Query | None, per: Period) -> tuple[Total, ...]:
    """The sums of the stretch before, its first period beside the first one now."""
    if before is None or before.since is None or before.until is None:
        return ()
    along = _along(rows, _periods(before.since, before.until, per))
    return (*along, *[_NOTHING] * (count - len(along)))[:count]


def gathered(cells: Sequence[Total], group: str | None) -> list[Total]:
    """The cells of groups and periods added up: by period where `group` is None, else by group."""
    found: dict[object, list[Total]] = {}
    for cell in cells:
        found.setdefault(cell.start if group is None else cell.group[group], []).append(cell)
    sums = [_sum(parts) for parts in found.values()]
    if group is None:
        return [msgspec.structs.replace(one, group={}) for one in sums]
    return [msgspec.structs.replace(one, start=None, end=None) for one in sums]


def _sum(rows: Sequence[Total]) -> Total:
    """One sum of all, under the group and the period of the first."""
    if len(rows) == 1 or not rows:
        return rows[0] if rows else _NOTHING
    usage: dict[str, int] = {}
    for row in rows:
        for kind, count in row.usage.items():
            usage[kind] = usage.get(kind, 0) + count
    counts = {name: sum([getattr(row, name) for row in rows]) for name in _COUNTS}
    return Total(
        group=rows[0].group,
        start=rows[0].start,
        end=rows[0].end,
        cost=Money(sum([row.cost.pico for row in rows])),
        not_owed=Money(sum([row.not_owed.pico for row in rows])),
        usage=Usage.trusted({kind: usage[kind] for kind in sorted(usage, key=kind_order)}),
        **counts,
    )


def _whole(rows: Sequence[Total], query: Query) -> Total:
    """The sum of everything that a query asks for, under no group and the query's own stretch of time."""
    return msgspec.structs.replace(_sum(rows), group={}, start=query.since, end=query.until)


def per_day(total: Money, since: datetime | None, end: datetime) -> Money | None:
    """What a day of the stretch cost on average; None for a stretch of less than a day."""
    if since is None or (end - since).total_seconds() < 86400:
        return None
    return Money(round(total.pico * 86400 / (end - since).total_seconds()))


_NOTHING: Final = Total(group={}, usage=Usage())
