"""The dashboard's ground: pages, files, addresses, figures, errors."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dashboard_desk import NOW, month_of_calls
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.money import Money
from tallystick.dashboard import assets
from tallystick.dashboard.asked import PRESETS, read_asked
from tallystick.dashboard.figures import change, clean, compact, delta, dollars, lasting, percent
from tallystick.dashboard.room import Memo
from tallystick.dashboard.views import VIEWS
from tallystick.errors import InputError
from tallystick.ledger.sqlite import SqliteLedger

PATHS = [view.path for view in VIEWS if view.show is not None]
ALL_BUT_CALLS = ("/", "/spend", "/runs", "/tokens", "/models", "/budgets", "/quality", "/rates")
CSS = (assets.FOLDER / "tally.css").read_text()


def asked(query="", now=NOW, zone="UTC", **options):
    pairs = [tuple(one.split("=", 1)) for one in query.split("&") if one]
    return read_asked("/spend", pairs, now, zone, **options)


def test_all_views_are_there_and_in_the_navigation(browse):
    assert set(ALL_BUT_CALLS) <= set(PATHS)
    links = browse().get("/").links()
    assert all(path in links for path in ALL_BUT_CALLS)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("count", [0, 90])
def test_every_view_is_a_page_without_anything_inline(browse, path, count):
    page = browse(month_of_calls(count), now=lambda: NOW).get(path)
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert re.search(r"<h1>.+</h1>", page.html, re.DOTALL)
    assert not re.search(r"<[^>]+\s(style|on[a-z]+)=", page.html)
    assert all("src=" in one for one in re.findall(r"<script[^>]*>", page.html))
    assert "<style" not in page.html
    assert page.html.count('aria-current="page"') == 1
    assert page.html.count("<main") == 1
    assert 'class="skip" href="#main"' in page.html


@pytest.mark.parametrize("path", PATHS)
def test_every_view_is_csv_and_json_too(browse, path):
    browser = browse(month_of_calls(30), now=lambda: NOW)
    csv, told = browser.get(f"{path}?format=csv"), browser.get(f"{path}?format=json")
    assert (csv.status, csv.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    assert "attachment" in csv.headers["content-disposition"]
    assert (told.status, told.json["schema"]) == (200, 1)
    assert len(csv.body.decode().splitlines()) == len(told.json["rows"]) + 1


def test_files_are_asked_for_once(browse):
    browser = browse()
    page = browser.get("/", accept_encoding="gzip")
    files = page.links("/static/") + re.findall(r'src="([^"]+)"', page.html)
    assert len(files) >= 3
    cold = page.size
    for url in files:
        file = browser.get(url, accept_encoding="gzip, br")
        assert (file.status, "immutable" in file.headers["cache-control"]) == (200, True)
        assert file.headers.get("content-encoding") == "gzip" or len(file.body) < 700
        assert browser.get(url).body == file.body
        again = browser.get(url, if_none_match=file.headers["etag"])
        assert (again.status, again.size) == (304, 0)
        cold += file.size
    assert cold <= 300_000
    assert browser.get("/static/tally.000000000000.css").status == 404
    assert browser.get("/static/../app.py").status == 404


def test_a_file_that_changes_has_another_address(tmp_path):
    (tmp_path / "x.css").write_text("a{}")
    before = assets.Assets(tmp_path).urls["x.css"]
    (tmp_path / "x.css").write_text("b{}")
    after = assets.Assets(tmp_path)
    assert after.urls["x.css"] != before
    assert after.reply(before) is None


def test_a_page_that_is_the_same_is_not_sent_again(browse):
    browser = browse(month_of_calls(60), now=lambda: NOW)
    first = browser.get("/spend", accept_encoding="gzip")
    again = browser.get("/spend", accept_encoding="gzip", if_none_match=f"W/{first.headers['etag']}")
    assert (again.status, again.size) == (304, 0)
    assert first.size <= 50_000
    assert "no-cache" in first.headers["cache-control"]


def test_a_head_has_no_body_and_other_methods_are_refused(browse):
    browser = browse()
    head = browser.ask("HEAD", "/spend")
    assert (head.status, head.size) == (200, 0)
    assert int(head.headers["content-length"]) > 1000
    put = browser.ask("PUT", "/spend")
    assert (put.status, put.headers["allow"]) == (405, "GET, HEAD, POST")


def test_what_is_not_there_says_so_to_people_and_to_programs(browse):
    browser = browse()
    page = browser.get("/nonsense")
    assert (page.status, "There is no such page." in page.text) == (404, True)
    told = browser.ask("GET", "/runs/a/b", {"accept": "application/json"})
    assert (told.status, told.json["error"]["type"]) == (404, "Missing")


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("period=fortnight", "period cannot be 'fortnight'"),
        ("since=yesterday-ish", "is not a date"),
        ("since=2026-11-10&until=2026-11-01", "ends before it begins"),
        ("since=9999-12-31", "is not a date"),
        ("tz=Mars/Olympus", "is not a time zone"),
        ("by=weather", "cannot be grouped by"),
        ("page=0", "A page is a number"),
        ("page=99999999999999", "A page is a number"),
        ("sort=a%20b", "Nothing can be sorted"),
        ("sort=weather", "cannot be sorted"),
        ("format=xml", "format cannot be 'xml'"),
        ("compare=maybe", "compare cannot be"),
        ("modle=gpt-4o", "is nothing that this page can be asked"),
        ("model=a&model=b", "more than once"),
        ("status=fine", "is not a status"),
        ("model=%00x", "printable"),
        ("model=" + "x" * 300, "printable text"),
        ("unit=century", "cannot be split"),
        ("&".join(f"tag.t{number}=x" for number in range(40)), "tags"),
        ("&".join(f"a{number}=x" for number in range(99)), "at most"),
        ("model=%ff", "UTF-8"),
    ],
)
def test_a_bad_question_is_answered_with_a_sentence(browse, query, says):
    page = browse().get(f"/spend?{query}")
    assert page.status == 400
    assert says in page.text


@given(
    st.dictionaries(
        st.sampled_from(["period", "since", "until", "tz", "by", "sort", "page", "model", "tag.a", "x"]),
        st.text(max_size=12),
        max_size=4,
    )
)
def test_whatever_is_asked_is_an_answer_or_a_sentence(pairs):
    try:
        found = read_asked("/spend", list(pairs.items()), NOW, "UTC")
    except InputError as error:
        assert str(error)
        return
    again = read_asked("/spend", [(k, v) for k, v in found.given.items()], NOW, "UTC")
    assert (again.query(), again.by, again.sort) == (found.query(), found.by, found.sort)


def test_a_ledger_that_cannot_be_read_is_said_on_a_page(browse, tmp_path):
    ledger = SqliteLedger(tmp_path / "ledger.db", zone="UTC")
    browser = browse(ledger=ledger)
    ledger.close()
    page = browser.get("/spend")
    assert page.status == 503
    assert "nothing is lost by this page" in page.text
    assert browser.ask("GET", "/spend", {"accept": "*/*"}).json["error"]["type"].startswith("Ledger")


def test_links_change_one_thing_and_keep_the_rest():
    one = asked("period=7d&by=team&model=gpt-4o&tag.env=prod&page=3&format=csv", defaults={"by": "model"})
    assert one.url() == "/spend?period=7d&by=team&model=gpt-4o&tag.env=prod"
    assert one.url(by="model") == "/spend?period=7d&model=gpt-4o&tag.env=prod"
    assert one.url(model=None, **{"tag.env": "a b&c"}) == "/spend?period=7d&by=team&tag.env=a%20b%26c"
    assert one.url(page=2).endswith("&page=2")
    assert one.to("/tokens") == "/tokens?period=7d&model=gpt-4o&tag.env=prod"
    assert ("model", "gpt-4o") in one.hidden("by")
    assert "by" not in dict(one.hidden("by"))
    assert asked("since=2026-11-01&until=2026-11-05").url(period="7d") == "/spend?period=7d"
    query = one.query()
    assert (query.model, dict(query.tags)) == ("gpt-4o", {"env": "prod"})


def test_the_periods_begin_at_midnight_of_the_time_zone():
    berlin = asked("period=today", zone="Europe/Berlin")
    assert berlin.since == datetime(2026, 11, 17, 23, tzinfo=UTC)
    assert asked("period=7d").since == datetime(2026, 11, 12, tzinfo=UTC)
    assert asked("period=month").since == datetime(2026, 11, 1, tzinfo=UTC)
    assert asked("period=year").since == datetime(2026, 1, 1, tzinfo=UTC)
    custom = asked("since=2026-11-01&until=2026-11-08&tz=Asia/Tokyo")
    assert (custom.since, custom.until) == (
        datetime(2026, 10, 31, 15, tzinfo=UTC),
        datetime(2026, 11, 7, 15, tzinfo=UTC),
    )
    assert not custom.ongoing
    assert [asked(f"period={name}").unit for name in PRESETS] == ["hour", "day", "day", "day", "day", "week"]


@pytest.mark.parametrize(
    ("query", "before"),
    [
        ("period=today", ("2026-11-17T00:00", "2026-11-17T15:00")),
        ("period=7d", ("2026-11-05T00:00", "2026-11-11T15:00")),
        ("period=30d", ("2026-09-20T00:00", "2026-10-20T00:00")),
        ("period=month", ("2026-10-01T00:00", "2026-10-18T15:00")),
        ("period=year", ("2025-01-01T00:00", "2025-11-19T00:00")),
        ("since=2026-11-03&until=2026-11-05", ("2026-11-01T00:00", "2026-11-03T00:00")),
    ],
)
def test_a_period_is_compared_with_as_long_a_time_before(query, before):
    found = asked(query).before()
    assert tuple(one.strftime("%Y-%m-%dT%H:%M") for one in found) == before


def test_days_before_a_clock_change_are_still_days():
    # Berlin's clocks went back on 25 October 2026.
    found = asked("since=2026-10-25&until=2026-10-26", zone="Europe/Berlin").before()
    assert found == (datetime(2026, 10, 23, 22, tzinfo=UTC), datetime(2026, 10, 24, 22, tzinfo=UTC))


@pytest.mark.parametrize(
    ("amount", "places", "shown"),
    [
        ("0", None, "$0.00"), ("1204.314", None, "$1,204.31"), ("0.0035", None, "$0.00350"), ("0.25", None, "$0.2500"),
        ("0.00000123", None, "$0.00000123"), ("0.000000000001", None, "<$0.00000001"), ("0.004", 2, "<$0.01"),
        ("-3.5", None, "−$3.50"), ("0.005", 2, "<$0.01"), ("0.006", 2, "$0.01"), ("999.999", 2, "$1,000.00"),
    ],
)  # fmt: skip
def test_dollars(amount, places, shown):
    assert dollars(Money.usd(amount), places) == shown


@given(st.integers(-(10**20), 10**20), st.none() | st.integers(0, 8))
def test_what_is_not_zero_never_looks_like_zero(pico, places):
    shown = dollars(Money(pico), places)
    assert bool(re.search(r"[1-9]", shown)) == bool(pico)


def test_other_figures():
    assert dollars(None) == "unknown"
    assert dollars(Money.usd("2"), sign=True) == "+$2.00"
    assert [compact(one) for one in (999, 1000, 12_345, 999_600, 1_240_000, 3 * 10**9)] == [
        "999",
        "1.00k",
        "12.3k",
        "1.00M",
        "1.24M",
        "3.00B",
    ]
    assert [percent(one) for one in (0, 0.0001, 0.123, 1, None)] == ["0%", "<0.1%", "12.3%", "100%", ""]
    assert [delta(one) for one in (None, 0.0001, 0.5, -0.034, 11)] == ["new", "±0%", "+50%", "−3.4%", "×12"]
    assert change(Money(3), Money(2)) == 0.5
    assert change(3, 0) is None
    assert [lasting(one) for one in (0.34, 12.42, 200, 7500, timedelta(days=4, hours=3))] == [
        "340 ms",
        "12.4 s",
        "3 m 20 s",
        "2 h 5 m",
        "4 d 3 h",
    ]
    assert clean("a\x1b[31m\u202eb\nc") == "a[31mb c"


def test_what_is_kept_is_kept_for_a_while():
    memo, made = Memo(), []

    def make():
        made.append(1)
        return len(made)

    assert [memo.get("a", NOW + timedelta(seconds=at), 10, make) for at in (0, 9, 10, 11)] == [1, 1, 2, 2]
    assert memo.get("b", NOW, 0, make) == 3
    for number in range(500):
        memo.get(number, NOW, 10, make)
    assert len(memo._kept) <= 200


def _colours(block):
    return dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{3,6})", block))


def _luminance(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(one * 2 for one in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one, other):
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [":root {", ':root[data-theme="dark"] {', ':root:not([data-theme="light"]) {'])
def test_everything_can_be_read_in_both_schemes(scheme):
    colours = _colours(CSS.split(scheme)[1].split("}")[0])
    for ground in ("bg", "panel", "sunk", "hover"):
        for text in ("ink", "soft", "faint", "accent", "good", "warn", "bad"):
            assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for ground in ("bg", "panel"):
        for number in range(1, 9):
            assert _contrast(colours[f"series-{number}"], colours[ground]) >= 3, (number, ground)
    assert _contrast(colours["on-accent"], colours["accent"]) >= 4.5
    assert _contrast(colours["bad"], colours["bad-soft"]) >= 4.5


def test_our_own_files_are_short_and_fetch_nothing():
    for path in Path(assets.FOLDER).iterdir():
        text = path.read_text()
        assert len(text.splitlines()) <= 500, path.name
        assert not re.findall(r"(?:https?:)?//(?!www\.w3\.org)[a-z0-9.]+\.[a-z]{2,}", text), path.name
        assert not re.search(r"(inner|outer)HTML\s*=[^=]|insertAdjacentHTML|document\.write", text)
        assert "eval(" not in text
