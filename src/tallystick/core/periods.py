"""Period: a stretch of time in which spend is added up: a calendar day or month, a rolling window, a lifetime."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from tallystick.errors import InputError

CALENDAR: Final = ("hour", "day", "week", "month", "year")
_ROLLING_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_TICK: Final = timedelta(microseconds=1)
MAX_ROLLING: Final = timedelta(days=3660)


def zone(name: str) -> ZoneInfo:
    """The time zone of an IANA name such as `Europe/Berlin`. Raises InputError with what to write instead."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise InputError(
            f"{name!r} is not a time zone.", todo="Use an IANA name such as UTC, Europe/Berlin or America/New_York."
        ) from None


def _check_zone(at: datetime) -> None:
    if at.tzinfo is None:
        raise InputError(f"The instant {at.isoformat()} has no time zone.", todo="Give one: datetime(..., tzinfo=UTC).")


@dataclass(frozen=True, slots=True)
class Period:
    """A rule that gives, for any instant, the stretch of time it belongs to.

    `unit` is `hour`, `day`, `week`, `month`, `year` (calendar, in time zone `tz`), `rolling` (the last `length` up to
    the instant) or `lifetime`. `anchor` moves the start: the weekday (1 = Monday) for weeks, the day of the month
    (1..31, the last day where a month is shorter) for months.
    """

    unit: str
    tz: str = "UTC"
    anchor: int = 1
    length: timedelta | None = None

    def __post_init__(self) -> None:
        zone(self.tz)
        if self.unit not in (*CALENDAR, "rolling", "lifetime"):
            raise InputError(
                f"{self.unit!r} is not a period.", todo="Use hour, day, week, month, year, lifetime or a length: 24h."
            )
        if (self.unit == "rolling") != (self.length is not None):
            raise InputError("A rolling period needs a length, and only a rolling period has one.")
        if self.length is not None and not timedelta(seconds=1) <= self.length <= MAX_ROLLING:
            raise InputError(f"A rolling period lasts from 1 second to {MAX_ROLLING.days} days.")
        limits = {"week": 7, "month": 31}
        if not 1 <= self.anchor <= limits.get(self.unit, 1):
            raise InputError(
                f"{self.anchor} cannot anchor a period of one {self.unit}.",
                todo="Weeks start on weekday 1 to 7 (1 = Monday), months on day 1 to 31.",
            )

    @classmethod
    def parse(cls, text: str, tz: str = "UTC", anchor: int = 1) -> Period:
        """Reads `day`, `month`, `lifetime` or a rolling length such as `30m`, `24h`, `7d`. Raises InputError."""
        word = text.strip().lower()
        number, suffix = word[:-1], word[-1:]
        if suffix in _ROLLING_UNITS and number.isascii() and number.isdigit() and len(number) <= 9:
            # Lengths far above the limit would not fit a timedelta.
            seconds = min(int(number) * _ROLLING_UNITS[suffix], 10 * MAX_ROLLING // timedelta(seconds=1))
            return cls("rolling", tz, anchor, timedelta(seconds=seconds))
        return cls(word, tz, anchor)

    def bounds(self, at: datetime) -> tuple[datetime | None, datetime | None]:
        """The start (inclusive) and end (exclusive) of the period that `at` belongs to, in UTC; `(None, None)` for a
        lifetime. A rolling period ends at `at` itself. Raises InputError for an instant without a time zone."""
        _check_zone(at)
        if self.unit == "lifetime":
            return None, None
        try:
            instant = at.astimezone(UTC)
            if self.length is not None:
                return instant - self.length, instant
            return self._hour(instant) if self.unit == "hour" else self._calendar(instant)
        except (ValueError, OverflowError):
            raise InputError(f"The period around {at.isoformat()} is outside the calendar.") from None

    def contains(self, at: datetime, instant: datetime) -> bool:
        """Whether `instant` lies in the period that `at` belongs to. Raises InputError for an instant without a time
        zone."""
        _check_zone(instant)
        start, end = self.bounds(at)
        return (start is None or start <= instant) and (end is None or instant < end)

    def key(self, at: datetime) -> str:
        """A stable name of the period `at` belongs to: its first day (`2026-11-21`), the start of an hour or of a
        rolling window as an RFC 3339 instant, or `lifetime`."""
        start, _ = self.bounds(at)
        if start is None:
            return "lifetime"
        if self.unit in ("rolling", "hour"):
            return start.isoformat()
        return start.astimezone(zone(self.tz)).date().isoformat()

    def _hour(self, instant: datetime) -> tuple[datetime, datetime]:
        # A clock change inside an hour (Lord Howe moves by 30 minutes) ends it: two shorter hours, no overlap.
        local = instant.astimezone(zone(self.tz))
        past = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        start, end = instant - past, instant - past + timedelta(hours=1)
        return self._change(instant, start) or start, self._change(instant, end - _TICK) or end

    def _change(self, here: datetime, there: datetime) -> datetime | None:
        """The first instant with the later clock between two instants, when a clock change parts them."""
        tz = zone(self.tz)
        offset = here.astimezone(tz).utcoffset()
        if there.astimezone(tz).utcoffset() == offset:
            return None
        low, high = min(here, there), max(here, there)
        before = low.astimezone(tz).utcoffset()
        while high - low > _TICK:
            middle = low + (high - low) // 2
            low, high = (middle, high) if middle.astimezone(tz).utcoffset() == before else (low, middle)
        return high

    def _calendar(self, instant: datetime) -> tuple[datetime, datetime]:
        first, last = self._days(instant.astimezone(zone(self.tz)).date())
        start, end = self._midnight(first), self._midnight(last)
        if instant >= end:
            # The clock was set back across midnight (St. John's did at 00:01): what follows stays in the new day.
            first, last = self._days(last)
            start, end = end, self._midnight(last)
        return start, end

    def _days(self, day: date) -> tuple[date, date]:
        if self.unit == "day":
            return day, day + timedelta(days=1)
        if self.unit == "week":
            first = day - timedelta(days=(day.isoweekday() - self.anchor) % 7)
            return first, first + timedelta(days=7)
        if self.unit == "month":
            first = _month_day(day.year, day.month, self.anchor)
            if day < first:
                previous = _month_day(day.year, day.month - 1, self.anchor)
                return previous, first
            return first, _month_day(day.year, day.month + 1, self.anchor)
        return date(day.year, 1, 1), date(day.year + 1, 1, 1)

    def _midnight(self, day: date) -> datetime:
        # Where a clock change removes midnight, the day begins at the first instant that exists.
        local = datetime.combine(day, time(), tzinfo=zone(self.tz))
        return local.astimezone(UTC)


def _month_day(year: int, month: int, day: int) -> date:
    """The given day of a month counted from January of `year`, clipped to the month's last day."""
    year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
    following = date(year + month // 12, month % 12 + 1, 1)
    return date(year, month, min(day, (following - timedelta(days=1)).day))
