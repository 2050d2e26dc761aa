"""Asked: what a page's address asks for: which time, which calls, grouped and sorted how. Every link of a page is made
from it, so that a view is always an address somebody can keep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, time, timedelta
from typing import Final
from urllib.parse import quote, urlencode

import msgspec

from tallystick.core.attribution import Tags
from tallystick.core.periods import Period, zone
from tallystick.errors import InputError
from tallystick.insight.when import bound_of
from tallystick.ledger.query import DIMENSIONS, Query

PRESETS: Final = {
    "today": "Today",
    "7d": "7 days",
    "30d": "30 days",
    "month": "This month",
    "90d": "90 days",
    "year": "This year",
}
"""The periods that have a name, as people see them. Those of days end today and count it."""

TAGS: Final = ("key", "team", "user", "agent", "project")
"""Tags that everybody knows; any other one is written `tag.NAME`."""

FILTERS: Final = ("provider", "model", "maker", *TAGS, "run", "source", "status", "quality")
"""What calls can be picked by, beside `tag.NAME`."""

TAG: Final = "tag."
MOST_TEXT: Final = 256
MOST_PAGE: Final = 100_000
_COMMON: Final = ("period", "since", "until", "tz", "by", "compare", "sort", "page", "format")
_KEPT: Final = ("period", "since", "until", "tz", "compare")
_PLACES: Final = ("page", "format", "cursor")
"""Where in a long list a page is, and how it answers: whatever else changes, these begin anew."""

_FORMATS: Final = ("html", "csv", "json")
_DAYS: Final = {"today": 1, "7d": 7, "30d": 30, "90d": 90}


class Asked(msgspec.Struct, frozen=True):
    """A page's question. `path` is as links spell it, `given` what stood behind the question mark (checked, by name),
    `now` the instant it is asked at and `ledger_zone` the ledger's own time zone. `defaults` are what the view takes
    where nothing is given; they are left out of links."""

    path: str
    given: Mapping[str, str]
    now: datetime
    ledger_zone: str = "UTC"
    defaults: Mapping[str, str] = {}

    def get(self, name: str, default: str = "") -> str:
        """A value as it was given, else the view's default."""
        return self.given.get(name, self.defaults.get(name, default))

    @property
    def tz(self) -> str:
        """The time zone of the page's days, an IANA name."""
        return self.given.get("tz", self.ledger_zone)

    @property
    def period(self) -> str:
        """One of PRESETS, or `custom`."""
        return "custom" if "since" in self.given or "until" in self.given else self.get("period", "30d")

    @property
    def by(self) -> str:
        """What the page groups by, as the address spells it."""
        return self.get("by", "model")

    @property
    def group(self) -> str:
        """What the page groups by, as the ledger calls it."""
        return ledger_name(self.by)

    @property
    def compare(self) -> bool:
        """Whether the period before is shown beside."""
        return self.get("compare", "1") == "1"

    @property
    def sort(self) -> str:
        """The column to sort by; a hyphen in front means the largest first."""
        return self.get("sort")

    @property
    def page(self) -> int:
        """The page of a long table, from 1."""
        return int(self.get("page", "1"))

    @property
    def format(self) -> str:
        """`html`, `csv` or `json`."""
        return self.get("format", "html")

    @property
    def filters(self) -> tuple[tuple[str, str], ...]:
        """Which calls are picked, as pairs of name and value."""
        return tuple((name, value) for name, value in self.given.items() if name in FILTERS or name.startswith(TAG))

    @property
    def since(self) -> datetime | None:
        """The first instant of the period, UTC; None: from the beginning."""
        if self.period == "custom":
            text = self.given.get("since")
            return None if text is None else bound_of(text, self.now, zone(self.tz))
        here = self.now.astimezone(zone(self.tz)).date()
        if self.period in _DAYS:
            here -= timedelta(days=_DAYS[self.period] - 1)
        else:
            here = here.replace(day=1) if self.period == "month" else here.replace(month=1, day=1)
        return datetime.combine(here, time(), zone(self.tz)).astimezone(UTC)

    @property
    def until(self) -> datetime | None:
        """The first instant after the period, UTC; None: it goes on."""
        text = self.given.get("until")
        return None if text is None else bound_of(text, self.now, zone(self.tz))

    @property
    def end(self) -> datetime:
        """The end of what there is to see: `until`, or now where that is earlier."""
        return self.now if self.until is None else min(self.until, self.now)

    @property
    def ongoing(self) -> bool:
        """Whether new calls still fall into the period."""
        return self.until is None or self.until > self.now

    def before(self) -> tuple[datetime, datetime] | None:
        """The stretch that the period is compared with: as long, right before it; of a month or year under way as much
        of the one before. None where the period has no beginning.

        It ends within a day (at a quarter of an hour) only where it is up to a week or of this month, for a day cut in
        two long ago is in no sum of the ledger's; what is longer is compared with whole days."""
        since = self.since
        if since is None or since >= self.end:
            return None
        here = zone(self.tz)
        first, last = (at.astimezone(here).replace(tzinfo=None) for at in (since, self.end))
        if self.period == "custom":
            start = first - (last - first)
            stop = first
        else:
            days = _DAYS.get(self.period)
            if days is not None:
                start = first - timedelta(days=days)
            else:
                start = first.replace(year=first.year - 1) if self.period == "year" else _month_before(first)
            stop = min(first, start + (last - first))
            stop = stop.replace(minute=stop.minute // 15 * 15, second=0, microsecond=0)
            if self.period in ("30d", "90d"):
                stop = first
            elif self.period == "year":
                stop = min(first, datetime.combine(stop.date() + timedelta(days=1), time()))
        if stop <= start:
            return None
        return start.replace(tzinfo=here).astimezone(UTC), stop.replace(tzinfo=here).astimezone(UTC)

    @property
    def unit(self) -> str:
        """The calendar period by which time is split so that a picture of it can be read: up to about a hundred."""
        if self.since is None:
            return "month"
        days = (self.end - self.since) / timedelta(days=1)
        return "hour" if days <= 3 else "day" if days <= 100 else "week" if days <= 400 else "month"

    def per(self, unit: str = "") -> Period:
        """The period by which time is split, in the page's time zone."""
        return Period(unit or self.unit, self.tz)

    def query(self) -> Query:
        """The calls that the page is about."""
        return self._query(self.since, self.until)

    def query_before(self) -> Query | None:
        """The same calls of the period before; None where there is none."""
        stretch = self.before()
        return None if stretch is None else self._query(*stretch)

    def _query(self, since: datetime | None, until: datetime | None) -> Query:
        picked = dict(self.filters)
        tags = {name.removeprefix(TAG): value for name, value in picked.items() if name in TAGS or name[:4] == TAG}
        plain = {name: value for name, value in picked.items() if name not in TAGS and name[:4] != TAG}
        run_id = plain.pop("run", None)
        return Query(since=since, until=until, tags=Tags(tags), run_id=run_id, **plain)  # type: ignore[arg-type]

    def url(self, path: str | None = None, **changes: object) -> str:
        """The address of this question with other values; None takes one away. A list begins again
        at its first page, and the answer is a page again."""
        values = {name: value for name, value in self.given.items() if name not in _PLACES}
        if "period" in changes:
            values = {name: value for name, value in values.items() if name not in ("since", "until")}
        for name, value in changes.items():
            values.pop(name, None)
            if value is not None and str(value) != self.defaults.get(name):
                values[name] = str(value)
        return _spelt(self.path if path is None else path, values)

    def to(self, path: str, **changes: object) -> str:
        """The address of another view about the same time and the same calls."""
        kept = [*((name, value) for name, value in self.given.items() if name in _KEPT), *self.filters]
        values = dict(kept) | {name: str(value) for name, value in changes.items() if value is not None}
        return _spelt(path, values)

    def hidden(self, *without: str) -> list[tuple[str, str]]:
        """What a form has to carry along so that it changes only the values it is about."""
        left = {*_PLACES, *without}
        return [(name, value) for name, value in self.given.items() if name not in left]


def _month_before(first: datetime) -> datetime:
    return (first - timedelta(days=1)).replace(day=1)


def ledger_name(name: str) -> str:
    """A name to group by as the ledger calls it: a tag of a dimension's name is marked there."""
    bare = name.removeprefix(TAG)
    return f"tag:{bare}" if name != bare and bare in DIMENSIONS else bare


def read_asked(
    path: str,
    pairs: Iterable[tuple[str, str]],
    now: datetime,
    ledger_zone: str,
    *,
    own: frozenset[str] = frozenset(),
    defaults: Mapping[str, str] | None = None,
) -> Asked:
    """Reads an address. `own` are the names that only this view knows. Raises InputError, in one sentence about the
    first value that makes no sense."""
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in _COMMON and name not in FILTERS and name not in own and not _is_tag(name):
            raise InputError(f"{name[:60]!r} is nothing that this page can be asked.", todo="Check the address.")
        if name in given:
            raise InputError(f"{name[:60]} is given more than once.", todo="Leave one of them out.")
        # A form sends its empty fields along.
        if not value.strip():
            continue
        if len(value) > MOST_TEXT or not value.isprintable():
            raise InputError(f"{name[:60]} must be printable text of up to {MOST_TEXT} characters.")
        given[name] = value.strip()
    asked = Asked(path, given, now, ledger_zone, defaults or {})
    _check(asked)
    return asked


def _check(asked: Asked) -> None:
    zone(asked.tz)
    if asked.period != "custom":
        _among("period", asked.period, PRESETS)
    _among("format", asked.format, _FORMATS)
    _among("compare", asked.get("compare", "1"), ("0", "1"))
    if asked.by not in FILTERS and not _is_tag(asked.by) and asked.by != asked.defaults.get("by"):
        words = f"One of {', '.join(FILTERS)}, or tag.NAME."
        raise InputError(f"Calls cannot be grouped by {asked.by[:60]!r}.", todo=words)
    page = asked.get("page", "1")
    if not (page.isascii() and page.isdigit() and len(page) <= 6 and 1 <= int(page) <= MOST_PAGE):
        raise InputError(f"A page is a number from 1, not {page[:60]!r}.")
    if not asked.sort.removeprefix("-").replace("_", "a").replace(".", "a").isalnum() and asked.sort:
        raise InputError(f"Nothing can be sorted by {asked.sort[:60]!r}.")
    since, until = asked.since, asked.until
    if since is not None and until is not None and since >= until:
        raise InputError("The period ends before it begins.", todo="Choose a later end, or an earlier beginning.")
    asked.query()


def _is_tag(name: str) -> bool:
    return name.startswith(TAG) and len(name) > len(TAG) and name.isprintable()


def _among(name: str, value: str, allowed: Iterable[str]) -> None:
    if value not in allowed:
        raise InputError(f"{name} cannot be {value[:60]!r}.", todo=f"It is one of: {', '.join(allowed)}.")


def _spelt(path: str, values: Mapping[str, str]) -> str:
    return f"{path}?{urlencode(values, quote_via=quote)}" if values else path
