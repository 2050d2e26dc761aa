"""What is being spent now, and projections that say how they are made, or refuse."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import NOW, call

from tallystick.cli.live import fitted, frame
from tallystick.core.money import Money
from tallystick.insight.flights import Flights
from tallystick.insight.live import look
from tallystick.insight.projection import FEWEST_DAYS, WORST, project_block, project_days
from tallystick.insight.spend import about
from tallystick.ledger.intents import InFlight

DOLLAR = 10**12


def test_steady_spend_is_projected():
    found = project_days([DOLLAR] * 28, 10 * DOLLAR, 9.5)
    assert (found.low, found.likely, found.high) == (Money.usd("19.5"),) * 3
    assert found.error == 0
    assert found.trials >= 5
    assert found.backtest.endswith("were off by 0%")


def test_bursts_are_refused_with_the_backtest():
    days = ([0] * 6 + [70 * DOLLAR]) * 2 + [0] * 13 + [200 * DOLLAR]
    found = project_days(days, 10 * DOLLAR, 1)
    assert found.likely is None
    assert found.error > WORST
    assert "more than 50%" in found.refused
    assert found.to_json()["likely"] is None


def test_little_history_is_refused():
    assert "it takes 14" in project_days([DOLLAR] * (FEWEST_DAYS - 1), 0, 3).refused
    assert project_days([0] * 30, 0, 3).refused == "too little history to try a forecast on"
    assert project_block([[1, 1, 1, 1, 1]] * 7, 1, 2).refused.startswith("7 earlier blocks")
    assert "half an hour" in project_block([[1, 1, 1, 1, 1]] * 30, 1, 0.4).refused


def test_blocks_are_projected_from_how_earlier_ones_went_on():
    found = project_block([[DOLLAR] * 5] * 10, 3 * DOLLAR, 2.5)
    assert (found.low, found.likely, found.high) == (Money.usd(6),) * 3
    ended = project_block([[DOLLAR] * 5] * 10, 3 * DOLLAR, 5)
    assert ended.likely == Money.usd(3)
    wild = [[DOLLAR, 0, 0, 0, (number % 2) * 500 * DOLLAR] for number in range(12)]
    assert project_block(wild, DOLLAR, 1).likely is None


@given(
    st.lists(st.integers(0, 10**14), min_size=14, max_size=60),
    st.integers(0, 10**15),
    st.floats(0, 31, allow_nan=False),
)
def test_a_range_holds_its_middle_and_never_falls_below_what_was_spent(days, so_far, left):
    found = project_days(days, so_far, left)
    if found.likely is None:
        assert found.refused
    else:
        assert Money(so_far) <= found.low <= found.likely <= found.high
        assert found.error <= WORST
    json.dumps(found.to_json())


def test_rounded_amounts_keep_four_digits():
    assert str(about(Money.usd("123.456789"))) == "$123.46"
    assert str(about(Money.usd("0.0012345678"))) == "$0.001235"
    assert str(about(Money(0))) == "$0.00"
    assert str(about(Money(7))) == "$0.000000000007"


def steady():
    """Three months of two calls a day, and some in the last minutes."""
    made = [call(number, NOW - timedelta(days=number // 2, hours=number % 2), DOLLAR) for number in range(120)]
    return [
        *made,
        call(500, NOW - timedelta(minutes=3), 3 * DOLLAR, model="model-b"),
        call(501, NOW - timedelta(minutes=9), DOLLAR),
    ]


def test_a_look(make):
    found = look(make(*steady()), NOW, minutes=10, last=2)
    assert (found.burn.calls, found.burn.cost) == (3, Money.usd(5))
    assert found.per_minute(found.burn.cost) == Money.usd("0.5")
    assert [entry.call_id for entry in found.last] == ["call-0", "call-500"]
    assert found.block.start == datetime(2026, 11, 21, 11, tzinfo=UTC)
    assert found.block.total.cost == Money.usd(6)
    assert found.month.total.calls == 21 * 2 + 2
    assert found.month.owed.likely is not None
    assert found.month.not_owed is None
    assert found.to_json()["month"]["projection"]["so_far"] == {"usd": "46"}
    text = "\n".join(frame(found, None))
    assert "burn      $0.50 and 33 tokens a minute over the last 10 minutes, 3 calls" in text
    assert "3 h 25 min left" in text
    assert "November  $46.00, 44 calls" in text


def test_an_empty_ledger(make):
    found = look(make(), NOW)
    assert found.block is None
    text = "\n".join(frame(found, 60))
    assert "no calls over the last 10 minutes" in text
    assert "No calls yet." in text
    assert "none under way" in text
    json.dumps(found.to_json())


def test_unknown_and_subscriptions_in_a_frame(make):
    found = look(make(call(1, pico=None), call(2, owed=False, pico=DOLLAR)), NOW)
    text = "\n".join(frame(found, None))
    assert "burn      unknown and" in text
    assert "API-equivalent, not a bill: $0.10 a minute" in text
    assert "unknown, 2 calls" in text
    assert "API-equivalent, not a bill: $1.00; no projection" in text
    assert found.to_json()["burn"]["cost_per_minute"] is None


def test_calls_around_the_clock_have_no_block_that_could_be_told(make):
    ledger = make(*[call(number, NOW - timedelta(hours=number)) for number in range(24 * 29)])
    assert look(ledger, NOW).block is None


def test_later_calls_are_not_part_of_now(make):
    ledger = make(call(1), call(2, NOW + timedelta(hours=2)), call(3, NOW + timedelta(days=40)))
    found = look(ledger, NOW)
    assert found.burn.calls == found.block.total.calls == found.month.total.calls == len(found.last) == 1


def test_live_once_and_json(rates, monkeypatch):
    from click.testing import CliRunner

    from tallystick.cli import cli

    monkeypatch.setattr("tallystick.front.now", lambda: NOW)
    runner = CliRunner()
    assert "No calls yet." in runner.invoke(cli, ["live", "--once"]).output
    out = runner.invoke(cli, ["live", "--json"])
    assert json.loads(out.stdout)["burn"]["total"]["calls"] == 0
    assert runner.invoke(cli, ["live"]).exit_code == 0


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata"])
def test_days_of_a_month_are_the_ledgers(make, zone):
    ledger = make(call(1, datetime(2026, 10, 31, 23, 30, tzinfo=UTC)), call(2), zone=zone)
    assert look(ledger, NOW).month.total.calls == (1 if zone == "UTC" else 2)


def flight(number, run="", pico=0, output=0, seconds=2, **more):
    """A call in flight that began so many seconds ago."""
    began = int(NOW.timestamp() * 1_000_000) - seconds * 1_000_000
    fields = {"provider": "openai", "api": "openai.chat", "model": "model-a", "alive": True, "owner": "one", **more}
    return InFlight(f"flight-{number}", began, began, 0, output, pico, run_id=run, **fields)


def test_runs_with_calls_in_flight_come_first_and_then_what_cost_most(make):
    ledger = make(
        call(1, run_id="dear", pico=5 * DOLLAR), call(2, run_id="cheap", pico=DOLLAR), call(3, run_id="flying"),
        call(4, NOW - timedelta(hours=1), run_id="old"),
        call(5, pico=9 * DOLLAR),
    )  # fmt: skip
    flights = Flights((flight(1, "flying", DOLLAR // 2, 40), flight(2, "new", DOLLAR // 4, 7), flight(3)))
    found = look(ledger, NOW, flights=flights)
    assert [run.run_id for run in found.runs] == ["flying", "new", "dear", "cheap"]
    assert found.runs[0].cost == found.runs[0].total.cost + Money(DOLLAR // 2)
    assert (found.runs[1].total.calls, found.runs[1].flights, found.runs[1].output) == (0, 1, 7)
    assert found.burn.cost == Money(15 * DOLLAR) + found.runs[0].total.cost


def test_a_call_is_not_both_ended_and_in_flight(make):
    ended = call(1, run_id="r")
    still = flight(2, "r")
    twice = InFlight(**{**{name: getattr(still, name) for name in still.__struct_fields__}, "call_id": ended.call_id})
    found = look(make(ended), NOW, flights=Flights((twice, still)))
    assert [one.call_id for one in found.flights.alive] == ["flight-2"]
    assert found.runs[0].flights == 1


def test_flights_in_a_frame_and_as_json(make):
    many = tuple(flight(number, "r", DOLLAR // 1000, 3, seconds=number) for number in range(11))
    left = (flight(20, alive=False), flight(21, alive=False, owner="two"))
    found = look(make(), NOW, flights=Flights(many, left))
    text = "\n".join(frame(found, 100))
    assert "11 calls in flight, about 33 tokens and $0.011 so far" in text
    assert "and 3 more" in text
    assert "2 calls left behind by killed processes: tally ledger repair" in text
    plain = found.to_json()
    assert [one["age_s"] for one in plain["in_flight"]] == list(range(11))
    assert len(plain["left_behind"]) == 2
    assert plain["runs"][0]["in_flight_cost"] == {"usd": "0.011"}


@pytest.mark.parametrize("height", [24, 30, 50])
def test_a_frame_fits_the_height_of_the_terminal(make, height):
    many = tuple(flight(number, f"run-{number}", DOLLAR // 1000, 3) for number in range(20))
    ledger = make(*[call(number, run_id=f"run-{number}") for number in range(6)])
    lines = fitted(look(ledger, NOW, flights=Flights(many)), 100, height)
    assert len(lines) < height
    shown = [line for line in lines if line.startswith("model-a")]
    assert 2 <= len(shown) <= 8
    assert f"and {20 - len(shown)} more" in lines
    assert ("when (UTC)" in "\n".join(lines)) == (height > 24)


def test_a_frame_without_flights_says_nothing_of_them(make):
    text = "\n".join(frame(look(make(call(1)), NOW), 100))
    assert "flight" not in text
    assert "runs of the last" not in text
