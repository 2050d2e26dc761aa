"""When: an instant as people and programs write it in a question: a date, RFC 3339, a word, an age."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final

from tallystick.errors import InputError

WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
AGES: Final = {"m": 60, "h": 3600, "d": 86400, "w": 604800}
WHEN: Final = "2026-11-01, 2026-11-01T12:00:00Z, today, monday or 7d"
YEARS: Final = range(1970, 2200)
"""Years that a question may be about; beyond them sums of days leave the calendar."""

MOST_HOURS: Final = 24 * 366
_DIGITS: Final = 7


def instant_of(text: str, now: datetime, zone: tzinfo = UTC) -> datetime:
    """The instant, in UTC, that a text means, seen from `now`. Days begin at midnight of `zone`, and a time without a
    zone is one of its clocks. Raises InputError."""
    try:
        return _instant(text.strip().lower(), now, zone)
    except (ValueError, OverflowError):
        raise _no_date(text) from None


def bound_of(text: str, now: datetime, zone: tzinfo = UTC) -> datetime:
    """Like `instant_of`, for the bounds of a question, which days are added to. Raises InputError."""
    found = instant_of(text, now, zone)
    if found.year not in YEARS:
        raise _no_date(text)
    return found


def _no_date(text: str) -> InputError:
    return InputError(f"{text[:60]!r} is not a date.", todo=f"Write {WHEN}.")


def length_of(text: str) -> timedelta:
    """A length of time such as `30m`, `2h` or `7d`, up to a year. Raises InputError."""
    number, suffix = text.strip()[:-1], text.strip()[-1:].lower()
    if suffix not in AGES or not (number.isascii() and number.isdigit()) or len(number) > _DIGITS:
        raise InputError(
            f"{text[:60]!r} is not a length of time.", money="Nothing was changed.", todo="Write 2h or 7d."
        )
    length = timedelta(seconds=int(number) * AGES[suffix])
    if not timedelta() < length <= timedelta(hours=MOST_HOURS):
        raise InputError("A length of time is up to a year.", money="Nothing was changed.")
    return length


def _instant(word: str, now: datetime, zone: tzinfo) -> datetime:
    today = now.astimezone(zone).date()
    if word == "now":
        return now.astimezone(UTC)
    if word in ("today", "yesterday"):
        return _midnight(today - timedelta(days=word == "yesterday"), zone)
    if word in WEEKDAYS:
        return _midnight(today - timedelta(days=(today.weekday() - WEEKDAYS.index(word)) % 7), zone)
    if word[-1:] in AGES and word[:-1].isascii() and word[:-1].isdigit():
        return now.astimezone(UTC) - timedelta(seconds=int(word[:-1]) * AGES[word[-1]])
    if len(word) == len("2026-11-01"):
        return _midnight(date.fromisoformat(word), zone)
    # A plus sign that nobody escaped arrives as a space.
    text = word.upper()
    instant = datetime.fromisoformat(text.replace(" ", "+") if text.count(" ") == 1 and "T" in text else text)
    return (instant if instant.tzinfo else instant.replace(tzinfo=zone)).astimezone(UTC)


def _midnight(day: date, zone: tzinfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)
