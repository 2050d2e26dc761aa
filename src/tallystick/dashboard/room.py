"""Room: what a view may use. View: a page's place in the house. Page: what a view answers, values without any HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import msgspec

from tallystick.catalog.catalog import Catalog
from tallystick.dashboard.asked import Asked
from tallystick.errors import TallyError
from tallystick.ledger.ledger import Ledger

Kept = TypeVar("Kept")

MOST_KEPT: Final = 200


class Memo:
    """What is kept for a few seconds, so that pages which refresh themselves do not ask the same slow thing again and
    again. Used by several threads: two may ask at once, which is harmless."""

    def __init__(self) -> None:
        self._kept: dict[object, tuple[datetime, object]] = {}

    def get(self, key: object, now: datetime, seconds: float, make: Callable[[], Kept]) -> Kept:
        """What `make` gave for this key at most so many seconds ago, else what it gives now."""
        found = self._kept.get(key)
        if found is not None and found[0] <= now < found[0] + timedelta(seconds=seconds):
            return cast("Kept", found[1])
        made = make()
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[key] = (now, made)
        return made


class Missing(TallyError):
    """What was asked for is not there: a 404."""


NO_MEMO: Final = Memo()


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What a view may use: the ledger, the rates in force, the one instant that the whole page is about, the folder of
    the calls in flight (None: there is none), the ledger's time zone, and whether changes are refused. `form_key` is
    what a form of ours has to send back in the field `form_key`, `memo` keeps what is slow for a few seconds."""

    ledger: Ledger
    catalog: Callable[[], Catalog]
    now: datetime
    flights: Path | None = None
    tz: str = "UTC"
    read_only: bool = False
    form_key: str = ""
    memo: Memo = NO_MEMO


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A view's answer. `template` shows `data`, whose values it finds by their names, beside `room` and `asked`. `rows`
    are the same figures for CSV and JSON, by column; amounts are Money, instants datetimes. `more` are further values
    for JSON only. `title` and `live` take the place of the view's where they are more particular."""

    template: str
    data: Mapping[str, Any] = {}
    rows: Sequence[Mapping[str, Any]] = ()
    more: Mapping[str, Any] = {}
    title: str = ""
    live: float | None = None


Show = Callable[[Room, Asked], Page]


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A page's place: its path, its name in the navigation and the name of its icon there (empty: it is not listed).

    `show` answers the path itself, `item` what lies below it (`/runs/x` with `x`), `act` a form: it gets the form's
    fields and the item's name (or "") and gives the address to go on to. All of them may raise TallyError. `own` are
    the values that only this view's address knows, `defaults` what it takes where nothing is given. `live` is how many
    seconds lie between two refreshes of its live parts while calls end; 0: never.
    """

    path: str
    title: str
    symbol: str = ""
    show: Show | None = None
    item: Callable[[Room, Asked, str], Page] | None = None
    act: Callable[[Room, str, Mapping[str, str]], str] | None = None
    own: frozenset[str] = frozenset()
    defaults: Mapping[str, str] = {}
    live: float = 0.0


class Column(msgspec.Struct, frozen=True):
    """A column of a table. `kind` says how its cells are shown: text, count, tokens, money (Money, None is unknown),
    cost (a ledger Total), delta (a share: 0.1 is ten per cent more), percent (a share), share (a bar and a share), time
    (a datetime), lasting (seconds). `sort` lets it be sorted by; `note` explains its head."""

    key: str
    title: str
    kind: str = "text"
    sort: bool = False
    note: str = ""


class Link(msgspec.Struct, frozen=True):
    """A cell that leads somewhere; `series` (1 to 8, 0: none) gives it the colour of its series."""

    text: str
    href: str = ""
    series: int = 0
    note: str = ""
