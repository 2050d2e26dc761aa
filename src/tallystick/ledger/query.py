"""Query: which calls a question is about. Total: the answer, and what it leaves out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from tallystick.core.attribution import Tags
from tallystick.core.money import Money
from tallystick.core.periods import Period
from tallystick.core.usage import Usage
from tallystick.errors import InputError
from tallystick.ledger.entry import QUALITIES, SOURCES, STATUSES, Entry
from tallystick.ledger.sums import LIMB, calls_in, kind_order, rare, stand, unpack, unpack_all, weigh

DIMENSIONS: Final = ("provider", "model", "maker", "source", "status", "quality", "run")
"""What calls can be grouped by, beside any tag name. A tag of one of these names is written `tag:provider`."""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which calls: those that fit every field that is set.

    `since` (inclusive) and `until` (exclusive) bound the call's own start. `tags` must all be present. `as_of` gives
    the state of the ledger at a past instant: entries, corrections and joins made later are left out. `repeated` True
    selects calls whose provider id was seen before from the same source. `limit` and `newest_first` are for reading.
    Raises InputError for a time without a zone or an unknown word.
    """

    since: datetime | None = None
    until: datetime | None = None
    provider: str | None = None
    model: str | None = None
    maker: str | None = None
    tags: Tags = Tags()
    run_id: str | None = None
    status: str | None = None
    quality: str | None = None
    source: str | None = None
    call_id: str | None = None
    owed: bool | None = None
    repeated: bool | None = None
    as_of: datetime | None = None
    limit: int | None = None
    newest_first: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (("status", STATUSES), ("quality", QUALITIES), ("source", SOURCES)):
            word = getattr(self, name)
            if word is not None and word not in allowed:
                raise InputError(f"{word!r} is not a {name}.", todo=f"It is one of: {', '.join(allowed)}.")
        for name in ("since", "until", "as_of"):
            instant = getattr(self, name)
            if instant is not None and instant.tzinfo is None:
                raise InputError(f"The time {instant.isoformat()} has no time zone.", todo="Add one, such as +00:00.")
        if self.limit is not None and self.limit < 0:
            raise InputError(f"A limit cannot be {self.limit}.")

    def matches(self, entry: Entry) -> bool:
        """Whether the entry, as it stands, fits. `as_of`, `repeated` and `limit` are for the ledger to see to."""
        for name in ("provider", "model", "maker", "run_id", "status", "quality", "source", "call_id", "owed"):
            wanted = getattr(self, name)
            if wanted is not None and getattr(entry, name) != wanted:
                return False
        if (self.since is not None and entry.started_at < self.since) or (
            self.until is not None and entry.started_at >= self.until
        ):
            return False
        return all(entry.tags.get(name) == value for name, value in self.tags.items())


class Total(msgspec.Struct, frozen=True, gc=False):
    """The sum over one group of calls.

    `group` gives the group's value by name (None: the calls have none), `start` and `end` its period in UTC (None: all
    time). `cost` is what is owed, `not_owed` what a subscription covers. Calls without a price add to `cost` only what
    is known of them, and are counted in `unpriced`; `estimated`, `lower_bound` and `unknown` count calls by the quality
    of their usage. `calls` includes `refused` ones, which were never sent.
    """

    group: dict[str, str | None]
    start: datetime | None = None
    end: datetime | None = None
    calls: int = 0
    refused: int = 0
    cost: Money = Money(0)
    not_owed: Money = Money(0)
    usage: Usage = Usage()
    unpriced: int = 0
    estimated: int = 0
    lower_bound: int = 0
    unknown: int = 0

    @property
    def complete(self) -> bool:
        """Whether every call was measured exactly and priced."""
        return not (self.unpriced or self.estimated or self.lower_bound or self.unknown)

    @property
    def gaps(self) -> str:
        """What the sum leaves out or guesses, in words; empty when it is complete."""
        parts = (
            (self.unpriced, "without a price"),
            (self.unknown, "of unknown usage"),
            (self.lower_bound, "counted at least"),
            (self.estimated, "estimated"),
        )
        return ", ".join(f"{count:,} {'call' if count == 1 else 'calls'} {words}" for count, words in parts if count)


Order = Literal["cost", "calls", "tokens"]
"""By what groups are ranked, the largest first: the cost owed (and then what a subscription covers), the number of
calls, or all tokens of the kinds in MAIN_KINDS. Groups that are alike stand by name."""


class Top(msgspec.Struct, frozen=True):
    """The largest groups. `groups` is how many there are in all (those without a name are one), `rest` the sum of those
    that are not among `rows`, and `total` of all."""

    rows: tuple[Total, ...]
    groups: int
    rest: Total
    total: Total


class Totals:
    """Adds up calls into groups and periods; every way of answering `total` ends here."""

    def __init__(self, by: tuple[str, ...], per: Period | None) -> None:
        if per is not None and per.unit == "rolling":
            raise InputError("A total cannot be split by a rolling period.", todo="Use hour, day, week, month or year.")
        self._by = by
        self._per = None if per is None or per.unit == "lifetime" else per
        self._sums: dict[datetime | None, dict[_Group, int]] = {}
        self._rare: dict[tuple[datetime | None, _Group], dict[str, int]] = {}
        self._ends: dict[datetime | None, datetime | None] = {}

    @property
    def split(self) -> bool:
        """Whether the sums are split by a period."""
        return self._per is not None

    def start_of(self, instant: datetime) -> datetime | None:
        """The start of the period that an instant belongs to."""
        if self._per is None:
            return None
        start, end = self._per.bounds(instant)
        self._ends[start] = end
        return start

    def whole(self, first: datetime, length: timedelta) -> bool:
        """Whether a stretch of time lies within one period."""
        return self.start_of(first) == self.start_of(first + length - timedelta(microseconds=1))

    def bounds(self, start: datetime | None) -> _Bounds:
        """The start and the end of a period, by its start."""
        return start, self._ends.get(start)

    def clear(self) -> None:
        """Starts from nothing again."""
        self._sums.clear()
        self._rare.clear()
        self._ends.clear()

    def sums(self, start: datetime | None) -> dict[tuple[str | None, ...], int]:
        """The packed counters of a period by group, to be added to."""
        return self._sums.setdefault(start, {})

    def add(self, start: datetime | None, group: tuple[str | None, ...], total: int) -> None:
        """Adds packed counters."""
        sums = self.sums(start)
        sums[group] = sums.get(group, 0) + total

    def add_rare(self, start: datetime | None, group: tuple[str | None, ...], kind: str, count: int) -> None:
        """Adds a usage kind that has no counter."""
        kinds = self._rare.setdefault((start, group), {})
        kinds[kind] = kinds.get(kind, 0) + count

    def add_entry(self, entry: Entry) -> None:
        """Adds one call."""
        group = group_of(entry, self._by)
        start = self.start_of(entry.started_at)
        counts = {} if entry.usage is None else dict(entry.usage.items())
        self.add(start, group, weigh(stand(entry, tuple(counts), tuple(counts.values()))))
        for kind, count in rare(counts).items():
            self.add_rare(start, group, kind, count)

    def add_difference(self, whole: Totals, group: tuple[str | None, ...]) -> None:
        """Adds to one group what `whole`, which has no groups, counts beyond what was added so far."""
        self._ends |= whole._ends
        for start in whole._sums.keys() | self._sums.keys():
            sums = self.sums(start)
            rest = whole._sums.get(start, {}).get((), 0) - sum(sums.values())
            sums[group] = sums.get(group, 0) + rest
        kinds = {(start, kind): count for (start, _), found in whole._rare.items() for kind, count in found.items()}
        for (start, _), found in self._rare.items():
            for kind, count in found.items():
                kinds[start, kind] = kinds.get((start, kind), 0) - count
        for (start, kind), count in kinds.items():
            self.add_rare(start, group, kind, count)

    def rows(self) -> list[Total]:
        """The groups that have calls, by period and then by name; without grouping always one row."""
        names = {group for sums in self._sums.values() for group in sums}
        rank = ordered(names).__getitem__
        groups = self._named(names)
        rows: list[Total] = []
        more = self._rare
        for start in sorted(self._sums, key=lambda start: start.timestamp() if start else 0.0):
            sums, bounds = self._sums[start], self.bounds(start)
            chosen = sorted(sums, key=rank)
            counters = unpack_all([sums[group] for group in chosen])
            rows += [
                _total(groups[group], bounds, fields, more.get((start, group)) if more else None)
                for group, fields in zip(chosen, counters, strict=True)
                if fields[0]
            ]
        return rows or ([] if self._by or self._per is not None else [Total(group={})])

    def _named(self, groups: Iterable[_Group]) -> dict[_Group, dict[str, str | None]]:
        """The groups with their names."""
        if len(self._by) == 1:
            [name] = self._by
            return {group: {name: group[0]} for group in groups}
        return {group: dict(zip(self._by, group, strict=True)) for group in groups}

    def top(self, order: Order, most: int) -> Top:
        """The `most` groups that are largest in some respect; only of sums without a period. Raises InputError."""
        if order not in _WEIGHTS or most < 0:
            raise InputError(
                f"The top {most} by {order!r} is nothing to ask for.", todo="Order by cost, calls or tokens."
            )
        sums = {group: total for group, total in self._sums.get(None, {}).items() if calls_in(total)}
        heavy = dict(zip(sums, map(_WEIGHTS[order], unpack_all(list(sums.values()))), strict=True))
        chosen = list(heavy)
        if most < len(heavy):
            least = sorted(heavy.values(), reverse=True)[most - 1] if most else None
            chosen = [] if least is None else [group for group, size in heavy.items() if size >= least]
        names = ordered(set(chosen))
        chosen.sort(key=names.__getitem__)
        chosen.sort(key=heavy.__getitem__, reverse=True)
        del chosen[most:]
        rows = [self._row(group, sums[group], self._rare.get((None, group))) for group in chosen]
        kept = frozenset(chosen)
        return Top(tuple(rows), len(sums), self._sum(lambda group: group not in kept), self._sum(lambda _: True))

    def _row(self, group: _Group, total: int, more: dict[str, int] | None) -> Total:
        return _total(dict(zip(self._by, group, strict=True)), (None, None), unpack(total), more)

    def _sum(self, wanted: Callable[[_Group], bool]) -> Total:
        whole = sum([total for group, total in self._sums.get(None, {}).items() if wanted(group)])
        more: dict[str, int] = {}
        for (_, group), kinds in self._rare.items():
            if wanted(group):
                for kind, count in kinds.items():
                    more[kind] = more.get(kind, 0) + count
        return _total({}, (None, None), unpack(whole), more)


def _by_cost(fields: tuple[int, ...]) -> tuple[int, int]:
    return fields[1] * LIMB + fields[2], fields[10] * LIMB + fields[11]


def _by_tokens(fields: tuple[int, ...]) -> tuple[int, int]:
    return sum(fields[3:10]), 0


def _by_calls(fields: tuple[int, ...]) -> tuple[int, int]:
    return fields[0], 0


def _total(
    group: dict[str, str | None], bounds: _Bounds, fields: tuple[int, ...], more: dict[str, int] | None
) -> Total:
    # Tens of thousands of rows are made here for one answer, hence the plain words.
    (
        calls, owed_micro, owed_pico, inward, out, read, thought, write, write_5m, write_1h, free_micro, free_pico,
        refused, unpriced, estimated, lower_bound, unknown,
    ) = fields  # fmt: skip
    usage = {"input": inward} if inward else {}
    if read or write or write_5m or write_1h:
        caches = {"cache_read": read, "cache_write": write, "cache_write_5m": write_5m, "cache_write_1h": write_1h}
        usage |= {kind: count for kind, count in caches.items() if count}
    if out:
        usage["output"] = out
    if thought:
        usage["reasoning"] = thought
    if more:
        usage |= {kind: count for kind, count in more.items() if count}
        usage = {kind: usage[kind] for kind in sorted(usage, key=kind_order)}
    cost = Money(owed_micro * LIMB + owed_pico)
    not_owed = Money(free_micro * LIMB + free_pico) if free_micro or free_pico else _NOTHING
    used = Usage.trusted(usage)
    return Total(group, *bounds, calls, refused, cost, not_owed, used, unpriced, estimated, lower_bound, unknown)


_Group = tuple[str | None, ...]
_Bounds = tuple[datetime | None, datetime | None]
_NOTHING: Final = Money(0)
_WEIGHTS: Final = {"cost": _by_cost, "calls": _by_calls, "tokens": _by_tokens}


def value_of(entry: Entry, name: str) -> str | None:
    """An entry's value for a name to group by: one of DIMENSIONS or a tag."""
    if name == "run":
        return entry.run_id
    if name in DIMENSIONS:
        value: str | None = getattr(entry, name)
        return value
    return entry.tags.get(name.removeprefix("tag:"))


def group_of(entry: Entry, by: tuple[str, ...]) -> tuple[str | None, ...]:
    """An entry's values for the names to group by."""
    return tuple([value_of(entry, name) for name in by])


def grouping(by: tuple[str, ...] | list[str], query: Query) -> tuple[str, ...]:
    """The names to group by, checked. Raises InputError for one that is empty or stands twice, or for a limit."""
    if query.limit is not None:
        raise InputError("A total takes no limit.", todo="Leave the limit out, or read the calls themselves.")
    names = tuple(by)
    if isinstance(by, str) or not all(names) or len(set(names)) != len(names):
        raise InputError(f"A total cannot be grouped by {by!r}.", todo=f"Name any of {', '.join(DIMENSIONS)}, or tags.")
    return names


def ordered(groups: set[_Group]) -> dict[_Group, int]:
    """Numbers that sort groups by their values, None last. Comparing one number is far quicker than comparing texts
    that may be absent."""
    if all(len(group) == 1 for group in groups):
        texts = sorted([text for (text,) in groups if text is not None])
        alone = {(text,): rank for rank, text in enumerate(texts)}
        return alone | {(None,): len(texts)} if (None,) in groups else alone  # type: ignore[return-value]
    order = dict.fromkeys(groups, 0)
    for values in zip(*groups, strict=True):
        known = set(values)
        ranks = {
            value: rank for rank, value in enumerate(sorted(known, key=lambda value: (value is None, value or "")))
        }
        size = len(known)
        for group, value in zip(order, values, strict=True):
            order[group] = order[group] * size + ranks[value]
    return order
