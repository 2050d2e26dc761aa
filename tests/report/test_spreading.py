"""Percentiles in reports: as a table, as JSON, and on the command line."""

import pytest
from report_samples import NOW, call

from tallystick.cli.waiting import Waiting
from tallystick.errors import InputError
from tallystick.insight.report import report
from tallystick.insight.spreading import duration_words


def some():
    """Calls of two models; only those of the first were timed."""
    timed = [call(number, pico=10**9 * number, latency_us=1000 * number, ttft_us=number) for number in range(1, 21)]
    return [*timed, call(99, model="model-b", pico=None)]


def test_a_table_of_percentiles(make):
    found = report(make(*some()), by=("model",), spread=True)
    columns, cells = found.spread_table()
    assert [name for name, _ in columns] == [
        "model", "cost p50", "cost p95", "latency p50", "latency p95", "first token p50", "first token p95",
    ]  # fmt: skip
    assert [row[0] for row in cells] == ["model-a"]
    assert [row[3:] for row in cells] == [["10.1 ms", "19.2 ms", "10 us", "19 us"]]
    assert "latency p50" in str(found)
    assert "Each percentile is within 1.6 % of the figure of an actual call." in found.remarks()
    assert report(make(*some())).spreads is None


def test_percentiles_by_day_stand_in_the_order_of_the_report(make):
    found = report(make(*some()), per="day", spread=True)
    assert [row[0] for row in found.spread_table()[1]] == [f"{NOW:%Y-%m-%d}"]
    with pytest.raises(InputError, match="no percentiles"):
        report(make(), per="block", spread=True)


def test_as_json(make):
    [row] = report(make(*some()), spread=True).to_json()["spreads"]
    assert row["group"] == {"model": "model-a"}
    assert row["latency_us"]["calls"] == 20
    assert row["ttft_us"]["p99"] == 20
    assert 0.0098 < float(row["cost"]["p50"]["usd"]) < 0.0102
    [bare] = report(make(call(latency_us=5)), by=("model",), spread=True).to_json()["spreads"]
    assert bare["ttft_us"] is None


@pytest.mark.parametrize(
    ("us", "words"),
    [
        (0, "0 us"),
        (999, "999 us"),
        (1000, "1.00 ms"),
        (123_456, "123 ms"),
        (4_560_000, "4.56 s"),
        (90 * 10**6, "90.0 s"),
    ],
)
def test_times_in_words(us, words):
    assert duration_words(us) == words


def test_a_bar_is_shown_on_a_terminal_once_it_takes_longer(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr("tallystick.cli.waiting._PATIENCE", 0.0)
    with Waiting("reading calls") as waiting:
        waiting.step(None)
        waiting.step(0.5)
    assert "reading calls" in capsys.readouterr().err
