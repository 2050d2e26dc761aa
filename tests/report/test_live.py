"""What is being spent now, and projections that say how they are made, or refuse."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import NOW, call

from tallystick.cli.live import frame
from tallystick.core.money import Money
from tallystick.insight.live import look
from tallystick.insight.projection import FEWEST_DAYS, WORST, project_block, project_days
from tallystick.insight.spend import about

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
