"""SVG: what is drawn is what was given, any text stays text, and nothing that is unknown looks like zero."""

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.money import PICO_PER_USD
from tallystick.dashboard.scale import axis_words, scaled
from tallystick.dashboard.svg import (
    MOST_MARKS,
    Rule,
    Series,
    Span,
    arranged,
    bars,
    burn_down,
    gauge,
    lines,
    shown,
    sparkline,
    waterfall,
)
from tallystick.errors import InputError

USD = PICO_PER_USD
DAYS = [f"{day} Mar" for day in range(1, 6)]
TEXT = st.text(min_size=1, max_size=60) | st.sampled_from(
    [
        '"><script>alert(1)</script>',
        "</title></svg><img src=x onerror=y>",
        "' onload='x",
        "&lt;b&gt;",
        "\x00\x1b[31m",
        "\u202eabc",
        "\ud800",
    ]
)


def tree(markup):
    """The picture as a parser of XML sees it."""
    return ET.fromstring(str(markup))


def all_of(markup, name, kind=None):
    found = list(tree(markup).iter(name))
    return [one for one in found if kind is None or kind in one.get("class", "").split()]


def values_of(markup, kind):
    return [
        (one.get("data-name"), one.get("data-value"))
        for one in tree(markup).iter()
        if kind in one.get("class", "").split()
    ]


def pixels(one, name):
    return float(one.get(name).rstrip("%"))


def test_bars_stand_on_each_other_and_are_as_tall_as_their_figures():
    picture = bars(
        [Series(name="a", values=(USD, 2 * USD)), Series(name="b", values=(3 * USD, 0))], ["mon", "tue"], title="Spend"
    )
    first, second, third = all_of(picture, "rect", "mark")
    assert values_of(picture, "mark") == [("a", "$1.00"), ("b", "$3.00"), ("a", "$2.00")]
    assert pixels(second, "height") == pytest.approx(3 * pixels(first, "height"), abs=0.05)
    assert pixels(second, "y") + pixels(second, "height") == pytest.approx(pixels(first, "y"), abs=0.05)
    assert pixels(third, "height") == pytest.approx(2 * pixels(first, "height"), abs=0.05)
    assert [one.get("data-label") for one in all_of(picture, "g", "col")] == ["mon", "tue"]
    assert {"series-1", "series-2"} <= set(" ".join(one.get("class") for one in all_of(picture, "rect")).split())
    assert tree(picture).get("aria-label") == "Spend: 2 values from mon to tue, most $4.00 (mon)"


def test_below_zero_hangs_from_the_axis_and_unknown_is_no_bar():
    picture = bars([Series(name="a", values=(-2 * USD, 2 * USD, None, 0))], ["a", "b", "c", "d"], title="x")
    down, up = all_of(picture, "rect", "mark")
    assert pixels(down, "y") == pytest.approx(pixels(up, "y") + pixels(up, "height"), abs=0.05)
    assert values_of(picture, "unknown") == [("a", "unknown")]


def test_many_series_and_days_become_few_marks_that_add_up():
    rows = [Series(name=f"s{number}", values=(number + 1,) * 365) for number in range(20)]
    drawn, labels, size = arranged(rows, [str(day) for day in range(365)])
    assert len(drawn) == 8
    assert [one.slot for one in drawn] == [1, 2, 3, 4, 5, 6, 7, 0]
    assert [one.name for one in drawn] == ["s13", "s14", "s15", "s16", "s17", "s18", "s19", "13 others"]
    assert sum(sum(one.values) for one in drawn) == 365 * sum(range(1, 21))
    assert len(drawn) * len(labels) <= MOST_MARKS
    assert labels[0] == f"0 - {size - 1}"
    picture = bars(rows, [str(day) for day in range(365)], title="x", unit="count")
    assert len(all_of(picture, "rect", "mark")) <= MOST_MARKS
    assert len(picture) < 90_000


def test_lines_leave_a_gap_and_keep_the_peak_of_many():
    picture = lines([Series(name="p50", values=(1, None, 3, 4))], ["a", "b", "c", "d"], title="x", unit="ms", area=True)
    (path,) = all_of(picture, "path", "line")
    assert path.get("d").count("M") == 2
    assert values_of(picture, "dot") == [("p50", "1 ms"), ("p50", "3 ms"), ("p50", "4 ms")]
    (area,) = all_of(picture, "path", "area")
    assert area.get("d").count("Z") == 2
    long = lines(
        [Series(name="x", values=(*[1] * 2000, 77, *[1] * 999))],
        [str(at) for at in range(3000)],
        title="x",
        unit="count",
    )
    assert ("x", "77") in values_of(long, "dot")
    assert len(all_of(long, "circle")) <= MOST_MARKS


def test_the_period_before_and_the_limit_are_drawn_within_the_picture():
    picture = bars(
        [Series(name="a", values=(1, 2))],
        ["a", "b"],
        title="x",
        unit="count",
        previous=[9, None],
        rules=[Rule(name="limit", value=20)],
    )
    assert len(all_of(picture, "path", "previous")) == 1
    line, text = [one for one in tree(picture).iter() if "rule" in one.get("class", "").split()]
    assert 0 < pixels(line, "y1") < 240
    assert text.text == "limit 20"


def test_a_burn_down_has_its_line_its_pace_and_its_projection():
    picture = burn_down(
        [8 * USD, 6 * USD, None, None],
        ["a", "b", "c", "d"],
        limit=9 * USD,
        title="Left",
        projected=[None, 6 * USD, 3 * USD, 0],
    )
    assert len(all_of(picture, "path", "dashed")) == 2
    assert len(all_of(picture, "path", "line")) == 3
    assert ("left", "$6.00") in values_of(picture, "dot")


def test_a_waterfall_shows_rows_where_they_were():
    rows = [
        Span(name="run", start=0, length=1000, cost=USD),
        Span(name="call", start=250, length=500, depth=1, cost=None, href="/calls/x", state="error"),
        Span(name="evil", start=0, length=1, depth=99, cost=0, href="//elsewhere", state='"><'),
        Span(name="evil", start=0, length=1, cost=0, href="javascript:alert(1)"),
    ]
    picture = waterfall(rows, title="Run")
    first, second, *_ = all_of(picture, "rect", "mark")
    assert (pixels(first, "x"), pixels(first, "width")) == (0, 100)
    assert (pixels(second, "x"), pixels(second, "width")) == (25, 50)
    assert [one.get("href") for one in all_of(picture, "a")] == ["/calls/x"]
    assert [one.text for one in all_of(picture, "text", "cost")][:2] == ["$1.00", "unknown"]
    assert tree(picture).get("role") == "group"
    assert tree(picture).get("aria-label") == "Run: 4 rows, 1.00 s, at least $1.00"
    many = waterfall([Span(name=str(place), start=place, length=1, cost=place) for place in range(1000)], title="x")
    assert len(all_of(many, "rect", "mark")) == MOST_MARKS
    assert "600 more" in all_of(many, "text", "rest")[0].text


def test_a_gauge_has_its_parts_and_what_is_over():
    picture = gauge(30, 50, title="a", unit="count", suspect=10, held=5, alerts=(50, 100, 200))
    assert values_of(picture, "part") == [("spent", "20"), ("suspect", "10"), ("held", "5")]
    assert [pixels(one, "width") for one in all_of(picture, "rect", "part")] == [40, 20, 10]
    assert [pixels(one, "x1") for one in all_of(picture, "line", "alert")] == [50, 100]
    over = gauge(70, 50, title="a", unit="count")
    assert ("above the limit", "20") in values_of(over, "over")
    assert "over" in tree(over).get("class").split()
    assert gauge(0, 0, title="nothing")


def test_sparklines_say_where_they_end():
    picture = sparkline([1, 5, None, 3], title="calls", unit="count")
    assert tree(picture).get("aria-label") == "calls: now 3, most 5"
    assert tree(sparkline([], title="x")).get("aria-label") == "x: nothing yet"
    assert len(sparkline(list(range(10_000)), title="x", unit="count")) < 4000


def test_nothing_at_all_is_still_a_picture():
    assert "nothing yet" in bars([], [], title="x")
    assert "nothing yet" in lines([], [], title="x")
    assert "nothing yet" in lines([Series(name="a", values=(None,) * 5)], DAYS, title="x")
    assert waterfall([], title="x")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10**400])
def test_figures_that_are_no_figures_are_refused(value):
    for draw in (
        lambda: bars([Series(name="a", values=(value,))], ["a"], title="x"),
        lambda: lines([Series(name="a", values=(value,))], ["a"], title="x"),
        lambda: bars([Series(name="a", values=(1,))], ["a"], title="x", previous=[value]),
        lambda: bars([Series(name="a", values=(1,))], ["a"], title="x", rules=[Rule(name="r", value=value)]),
        lambda: burn_down([value], ["a"], limit=1, title="x"),
        lambda: burn_down([1], ["a"], limit=value, title="x"),
        lambda: waterfall([Span(name="a", start=value, length=1)], title="x"),
        lambda: waterfall([Span(name="a", start=0, length=value)], title="x"),
        lambda: sparkline([value], title="x"),
        lambda: gauge(value, 1, title="x"),
    ):
        with pytest.raises(InputError):
            draw()
    with pytest.raises(InputError):
        bars([Series(name="a", values=(1, 2))], ["a"], title="x")


@pytest.mark.parametrize(
    ("high", "ticks"),
    [
        (3.2, ["$0", "$1", "$2", "$3", "$4"]),
        (0.9, ["$0.00", "$0.50", "$1.00"]),
        (0.0035, ["$0.000", "$0.001", "$0.002", "$0.003", "$0.004"]),
        (48_000, ["$0", "$20k", "$40k", "$60k"]),
        (1_900_000, ["$0", "$500k", "$1M", "$1.5M", "$2M"]),
    ],
)
def test_ticks_are_round(high, ticks):
    scale = scaled([high * USD], "usd")
    step = scale.ticks[1] - scale.ticks[0]
    words = [axis_words(tick, step, "usd") for tick in scale.ticks]
    assert words == ticks


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0, "usd", "$0.00"),
        (1_234_567_800_000_000, "usd", "$1,234.57"),
        (3_500_000_000, "usd", "$0.0035"),
        (1, "usd", "$0.000000000001"),
        (-3_500_000_000, "usd", "-$0.0035"),
        (999_999_999_999, "usd", "$1.00"),
        (1_234_567, "count", "1,234,567"),
        (850, "ms", "850 ms"),
        (1250, "ms", "1.25 s"),
        (12.5, "percent", "12.5 %"),
    ],
)
def test_figures_for_people(value, unit, words):
    assert shown(value, unit) == words


@given(
    st.lists(st.integers(-(10**18), 10**18) | st.floats(-1e15, 1e15) | st.none(), max_size=30),
    st.sampled_from(["usd", "count", "ms", "percent"]),
)
def test_everything_lies_within_the_picture(values, unit):
    labels = [str(place) for place in range(len(values))]
    for picture in (
        bars([Series(name="a", values=tuple(values))], labels, title="x", unit=unit),
        lines([Series(name="a", values=tuple(values))], labels, title="x", unit=unit),
    ):
        for one in tree(picture).iter():
            for name in ("y", "cy", "y1"):
                if one.get(name) is not None:
                    assert -1 <= pixels(one, name) <= 241
            assert not re.search(
                r"nan|inf|e[+-]\d",
                " ".join(value for key, value in one.items() if key in ("x", "y", "d", "height", "width")),
            )


class Seen(HTMLParser):
    """The elements and attributes that a parser of HTML finds."""

    def __init__(self):
        super().__init__()
        self.elements = []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, tuple(sorted(name for name, _ in attrs))))

    handle_startendtag = handle_starttag


def elements(markup):
    seen = Seen()
    seen.feed(str(markup))
    return seen.elements


@given(TEXT, TEXT)
def test_any_text_stays_text(name, label):
    def all_pictures(name, label):
        one = Series(name=name, values=(1, 2))
        yield bars(
            [one], [label, label], title=name, rules=[Rule(name=name, value=1, kind=label)], short=[label, label]
        )
        yield lines([one], [label, label], title=label)
        yield burn_down([1, 2], [label, label], limit=3, title=name)
        yield waterfall([Span(name=name, start=0, length=1, note=label, state=label)], title=name)
        yield gauge(1, 2, title=name, held=1, suspect=1, alerts=(50,))
        yield sparkline([1, 2], title=label)

    for ours, theirs in zip(all_pictures("a", "b"), all_pictures(name, label), strict=True):
        assert elements(theirs) == elements(ours)
        assert tree(theirs).tag == "svg"
        assert "style=" not in re.sub(r'"[^"]*"', "", str(theirs).replace(name, "").replace(label, ""))
