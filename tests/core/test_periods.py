from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.periods import MAX_ROLLING, Period, zone
from tallystick.errors import InputError

ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia", "America/Sao_Paulo",
    "America/St_Johns", "America/Havana", "Asia/Kathmandu",
]  # fmt: skip
PERIODS = st.one_of(
    st.builds(Period, st.sampled_from(["hour", "day", "year"]), st.sampled_from(ZONES)),
    st.builds(Period, st.just("week"), st.sampled_from(ZONES), st.integers(1, 7)),
    st.builds(Period, st.just("month"), st.sampled_from(ZONES), st.integers(1, 31)),
)
CHANGES = [
    datetime(2025, 3, 30, 1, tzinfo=UTC), datetime(2025, 10, 26, 1, tzinfo=UTC), datetime(2025, 3, 9, 7, tzinfo=UTC),
    datetime(2025, 11, 2, 6, tzinfo=UTC), datetime(2025, 4, 5, 15, tzinfo=UTC), datetime(2025, 10, 4, 15, 30, tzinfo=UTC),
    datetime(2011, 12, 30, 10, tzinfo=UTC), datetime(2018, 11, 4, 3, tzinfo=UTC), datetime(2018, 2, 18, 2, tzinfo=UTC),
    datetime(2010, 11, 7, 2, 31, tzinfo=UTC), datetime(2025, 11, 2, 5, tzinfo=UTC),
]  # fmt: skip
INSTANTS = st.one_of(
    st.datetimes(datetime(1990, 1, 1), datetime(2035, 1, 1)).map(lambda at: at.replace(tzinfo=UTC)),
    st.builds(
        lambda change, seconds: change + timedelta(seconds=seconds),
        st.sampled_from(CHANGES),
        st.integers(-100_000, 100_000),
    ),
)
TICK = timedelta(microseconds=1)


@given(PERIODS, INSTANTS)
def test_a_period_holds_its_instant_and_touches_its_neighbours(period, at):
    start, end = period.bounds(at)
    assert start <= at < end
    assert period.contains(at, at)
    for instant in (start, end - TICK):
        assert period.bounds(instant) == (start, end)
        assert period.key(instant) == period.key(at)
    assert period.bounds(end)[0] == end
    assert period.bounds(start - TICK)[1] == start
    assert period.key(end) != period.key(at) != period.key(start - TICK)
    assert not period.contains(at, end)
    assert not period.contains(at, start - TICK)
    assert start.tzinfo is UTC
    assert end.tzinfo is UTC


@given(st.sampled_from(ZONES), INSTANTS)
def test_days_begin_where_the_local_date_changes(name, at):
    tz = ZoneInfo(name)
    start, end = Period("day", name).bounds(at)
    assert start.astimezone(tz).date() > (start - TICK).astimezone(tz).date()
    assert end.astimezone(tz).date() > start.astimezone(tz).date()
    assert Period("day", name).key(at) == start.astimezone(tz).date().isoformat()


@given(st.sampled_from(ZONES), INSTANTS)
def test_hours_begin_at_the_full_local_hour_or_at_a_clock_change(name, at):
    tz = ZoneInfo(name)
    start, end = Period("hour", name).bounds(at)
    assert end - start <= timedelta(hours=1)
    changed = start.astimezone(tz).utcoffset() != (start - TICK).astimezone(tz).utcoffset()
    assert changed or start.astimezone(tz).strftime("%M%S%f") == "0000000000"


@pytest.mark.parametrize(
    ("period", "at", "start", "end"),
    [
        (Period("day"), "2026-11-21T23:59:59+00:00", "2026-11-21T00:00", "2026-11-22T00:00"),
        (Period("day", "Europe/Berlin"), "2026-03-29T12:00+00:00", "2026-03-28T23:00", "2026-03-29T22:00"),
        (Period("day", "Europe/Berlin"), "2026-10-25T12:00+00:00", "2026-10-24T22:00", "2026-10-25T23:00"),
        (Period("day", "America/Sao_Paulo"), "2018-11-04T12:00+00:00", "2018-11-04T03:00", "2018-11-05T02:00"),
        (Period("day", "Pacific/Apia"), "2011-12-30T09:59+00:00", "2011-12-29T10:00", "2011-12-30T10:00"),
        (Period("day", "Pacific/Apia"), "2011-12-30T10:00+00:00", "2011-12-30T10:00", "2011-12-31T10:00"),
        (Period("day", "Asia/Kolkata"), "2026-01-01T18:30+00:00", "2026-01-01T18:30", "2026-01-02T18:30"),
        (Period("day", "America/St_Johns"), "2010-11-07T02:45+00:00", "2010-11-07T02:30", "2010-11-08T03:30"),
        (Period("hour", "Asia/Kolkata"), "2026-01-01T18:45+00:00", "2026-01-01T18:30", "2026-01-01T19:30"),
        (Period("hour", "Australia/Lord_Howe"), "2025-04-05T15:10+00:00", "2025-04-05T15:00", "2025-04-05T15:30"),
        (Period("hour", "Australia/Lord_Howe"), "2025-04-05T14:10+00:00", "2025-04-05T14:00", "2025-04-05T15:00"),
        (Period("hour", "Europe/Berlin"), "2026-10-25T01:10+00:00", "2026-10-25T01:00", "2026-10-25T02:00"),
        (Period("week"), "2026-11-21T12:00+00:00", "2026-11-16T00:00", "2026-11-23T00:00"),
        (Period("week", anchor=7), "2026-11-21T12:00+00:00", "2026-11-15T00:00", "2026-11-22T00:00"),
        (Period("week", anchor=7), "2026-11-22T00:00+00:00", "2026-11-22T00:00", "2026-11-29T00:00"),
        (Period("month"), "2026-12-31T12:00+00:00", "2026-12-01T00:00", "2027-01-01T00:00"),
        (Period("month", anchor=31), "2026-02-28T12:00+00:00", "2026-02-28T00:00", "2026-03-31T00:00"),
        (Period("month", anchor=31), "2024-02-28T12:00+00:00", "2024-01-31T00:00", "2024-02-29T00:00"),
        (Period("month", anchor=30), "2026-02-28T12:00+00:00", "2026-02-28T00:00", "2026-03-30T00:00"),
        (Period("month", anchor=29), "2024-03-01T12:00+00:00", "2024-02-29T00:00", "2024-03-29T00:00"),
        (Period("month", anchor=15), "2026-01-03T12:00+00:00", "2025-12-15T00:00", "2026-01-15T00:00"),
        (Period("month", anchor=15), "2026-12-15T00:00+00:00", "2026-12-15T00:00", "2027-01-15T00:00"),
        (Period("year", "Asia/Kolkata"), "2026-12-31T18:30+00:00", "2026-12-31T18:30", "2027-12-31T18:30"),
    ],
)
def test_known_stretches(period, at, start, end):
    expected = tuple(datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (start, end))
    assert period.bounds(datetime.fromisoformat(at)) == expected


@given(INSTANTS, st.integers(-12, 12))
def test_the_zone_of_the_instant_does_not_matter(at, hours):
    elsewhere = at.astimezone(timezone(timedelta(hours=hours)))
    for period in (Period("day", "Europe/Berlin"), Period("hour"), Period.parse("24h"), Period("lifetime")):
        assert period.bounds(elsewhere) == period.bounds(at)
        assert period.key(elsewhere) == period.key(at)


def test_rolling():
    at = datetime(2026, 3, 29, 12, tzinfo=UTC)
    period = Period.parse(" 24H ", "Europe/Berlin")
    assert period == Period("rolling", "Europe/Berlin", length=timedelta(hours=24))
    assert period.bounds(at) == (at - timedelta(hours=24), at)
    assert period.contains(at, at - timedelta(hours=24))
    assert not period.contains(at, at)
    assert period.key(at) == "2026-03-28T12:00:00+00:00"
    for text, length in (("30m", 1800), ("7d", 604800), ("2w", 1209600), ("1s", 1)):
        assert Period.parse(text).length == timedelta(seconds=length)
    assert Period.parse("3660d").length == MAX_ROLLING


def test_lifetime():
    at = datetime(2026, 3, 29, 12, tzinfo=UTC)
    assert Period.parse("lifetime").bounds(at) == (None, None)
    assert Period("lifetime").contains(at, datetime(1, 1, 1, tzinfo=UTC))
    assert Period("lifetime").key(at) == "lifetime"


def test_keys():
    at = datetime(2026, 11, 21, 12, 34, 56, 789, tzinfo=UTC)
    assert Period("hour").key(at) == "2026-11-21T12:00:00+00:00"
    assert Period("day", "Pacific/Apia").key(at) == "2026-11-22"
    assert Period("month").key(at) == "2026-11-01"
    assert Period.parse("Week", anchor=7).key(at) == "2026-11-15"
    assert Period("year").key(at) == date(2026, 1, 1).isoformat()


@pytest.mark.parametrize(
    "text",
    ["", "fortnight", "x", "h", "0s", "-1d", "1.5h", "3661d", "9999999999s", "²d", "rolling", "999999999w", "24 h"],
)
def test_what_is_no_period_is_refused(text):
    with pytest.raises(InputError):
        Period.parse(text)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Period("day", length=timedelta(days=1)),
        lambda: Period("rolling"),
        lambda: Period("day", anchor=2),
        lambda: Period("week", anchor=0),
        lambda: Period("week", anchor=8),
        lambda: Period("month", anchor=32),
        lambda: Period.parse("24h", anchor=5),
        lambda: Period("rolling", length=timedelta(milliseconds=999)),
    ],
)
def test_contradictions_are_refused(make):
    with pytest.raises(InputError):
        make()
    assert Period("rolling", length=timedelta(seconds=1))


@pytest.mark.parametrize("name", ["", "Mars/Base", "Europe", "../etc/passwd", "\x00", "CET/../UTC", "\ud800"])
def test_what_is_no_zone_is_refused(name):
    with pytest.raises(InputError, match="not a time zone"):
        zone(name)
    with pytest.raises(InputError):
        Period("day", name)


def test_an_instant_without_a_zone_is_refused():
    naive, aware = datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC)
    for act in (
        lambda: Period("day").bounds(naive),
        lambda: Period("lifetime").key(naive),
        lambda: Period("day").contains(aware, naive),
        lambda: Period("lifetime").contains(aware, naive),
    ):
        with pytest.raises(InputError, match="no time zone"):
            act()


@pytest.mark.parametrize("unit", ["hour", "day", "week", "month", "year", "24h"])
def test_the_ends_of_the_calendar_are_refused(unit):
    period = Period.parse(unit, "Pacific/Apia")
    outside = 0
    for at in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        try:
            start, end = period.bounds(at)
            assert start <= at <= end
        except InputError as error:
            assert "outside the calendar" in error.what
            outside += 1
    assert outside >= 1


def test_limits_in_numbers():
    assert timedelta(days=3660) == MAX_ROLLING
    assert Period.parse("316224000s").length == MAX_ROLLING
    with pytest.raises(InputError):
        Period.parse("316224001s")
