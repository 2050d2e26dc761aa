"""Board of calls: a page of the calls that fit a question, newest first, however many calls it is picked from.

A rare call may be a year apart from the next one. So where calls are picked, days that have none of them are passed by
(the ledger's sums know, for a single name), and a page looks through so many calls at the most; it then says where it
stopped, and the next one goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from tallystick.core.periods import Period
from tallystick.errors import InputError
from tallystick.insight.board_runs import filtered
from tallystick.insight.board_spend import answered_by_sums
from tallystick.ledger.query import Query

if TYPE_CHECKING:
    from tallystick.ledger.entry import Entry
    from tallystick.ledger.ledger import Ledger

SIZE: Final = 50
"""Calls on a page."""

MOST: Final = 1_000
"""Calls in one CSV or JSON answer."""

SEARCHED: Final = 60_000
"""So many calls are looked through for one page at the most, or those of one day."""

_TICK: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DIGITS: Final = 17
_FARTHEST: Final = 10**16
_MOST_ALIKE: Final = 100_000


class CallPage(msgspec.Struct, frozen=True):
    """A page of calls. `cursor` is where the next page begins, None where nothing is left. `searched` is the instant
    back to which calls were looked through where the page is not full and there is more to search, else None."""

    rows: tuple[Entry, ...]
    cursor: str | None = None
    searched: datetime | None = None


def call_page(ledger: Ledger, query: Query, now: datetime, cursor: str = "", most: int = SIZE) -> CallPage:
    """The newest `most` calls that fit, or those from a cursor on. Raises InputError for what is no cursor,
    LedgerError."""
    at, seen = _read_cursor(cursor)
    ends = [end for end in (query.until, now + _TICK, None if at is None else at + _TICK) if end is not None]
    asked = msgspec.structs.replace(query, until=min(ends), newest_first=True)
    wanted = most + seen + 1
    found: list[Entry] = []
    floor: datetime | None = None
    for since, part in _stretches(ledger, asked, wanted):
        floor = since
        found += ledger.read(msgspec.structs.replace(part, limit=wanted - len(found)))
        if len(found) >= wanted:
            break
    alike = 0
    while alike < seen and alike < len(found) and found[alike].started_at == at:
        alike += 1
    rows = tuple(found[alike : alike + most])
    if len(found) - alike > most:
        return CallPage(rows, _cursor(rows, at, seen))
    if floor is None:
        return CallPage(rows)
    return CallPage(rows, f"{(floor - _TICK - _EPOCH) // _TICK}.0", floor)


def _stretches(ledger: Ledger, query: Query, wanted: int) -> Iterator[tuple[datetime | None, Query]]:
    """The parts of a question's time to be read one after the other, the newest first; each with the instant before
    which there is more to look for (None: nothing)."""
    if not filtered(query) or query.run_id is not None or query.call_id is not None:
        yield None, query
        return
    day = Period("day", ledger.zone)
    # Whole days are counted even at the edges: it is about how much there is to look through.
    first = None if query.since is None else day.bounds(query.since)[0]
    whole = {row.start: row.calls for row in ledger.total(Query(since=first), (), day)}
    fitting = whole
    if known := _one_name(query):
        asked = msgspec.structs.replace(query, since=first, until=None, newest_first=False)
        fitting = {row.start: row.calls for row in ledger.total(asked, (), day)}
    days = sorted(start for start in fitting if start is not None and (query.until is None or start < query.until))
    room = SEARCHED
    while days and room > 0 and wanted > 0:
        # Days that follow each other are read as one.
        start = days.pop()
        end = day.bounds(start)[1]
        while True:
            room -= whole.get(start, 0)
            wanted -= fitting[start] if known else 0
            if not days or room <= 0 or wanted <= 0 or day.bounds(days[-1])[1] != start:
                break
            start = days.pop()
        since = start if query.since is None else max(start, query.since)
        until = min(one for one in (end, query.until) if one is not None)
        yield since if days else None, msgspec.structs.replace(query, since=since, until=until)


def _one_name(query: Query) -> bool:
    """Whether the ledger's sums of days know how many calls fit."""
    words = [one for one in ("status", "quality", "source") if getattr(query, one) is not None]
    plain = query.owed is None and query.repeated is None and query.as_of is None
    return plain and answered_by_sums(query, words[0] if words else _first_name(query))


def _first_name(query: Query) -> str:
    named: list[str] = [name for name in ("provider", "model", "maker") if getattr(query, name) is not None]
    named += query.tags
    return named[0] if named else "source"


def _cursor(rows: tuple[Entry, ...], at: datetime | None, seen: int) -> str:
    """Where the next page begins: the instant of the last call, and how many calls of that instant were given."""
    last = rows[-1].started_at
    alike = sum(entry.started_at == last for entry in rows) + (seen if last == at else 0)
    return f"{(last - _EPOCH) // _TICK}.{alike}"


def _read_cursor(text: str) -> tuple[datetime | None, int]:
    if not text:
        return None, 0
    micro, _, alike = text.partition(".")
    whole = all(part.isascii() and part.isdigit() and len(part) <= _DIGITS for part in (micro, alike))
    if not whole or int(alike) > _MOST_ALIKE or int(micro) > _FARTHEST:
        raise InputError(f"{text[:40]!r} is no place in the list of calls.", todo="Follow the links of the page.")
    return _EPOCH + _TICK * int(micro), int(alike)
