"""What Prometheus is told, and that the dashboard asks for nothing else."""

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
from apidesk import NOW, Served, call, catalog

from tallystick.gateway.metrics import METRICS, MOST_NAMES
from tallystick.ledger.budget import Budget
from tallystick.ledger.entry import Correction
from tallystick.ledger.intents import Intents
from tallystick.ledger.sqlite import SqliteLedger
from tallystick.metering.meter import Meter

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = re.compile(r"(?P<name>[a-z_]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def scraped(served):
    status, headers, body = served.ask("GET", "/metrics")
    assert status == 200
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = {}
    for line in body.decode().splitlines():
        if line.startswith("#"):
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        labels = tuple(sorted(LABEL.findall(match["labels"] or "")))
        assert (match["name"], labels) not in found
        found[match["name"], labels] = float(match["value"])
    return found


def total(found, name, **labels):
    return sum(value for (one, pairs), value in found.items() if one == name and labels.items() <= dict(pairs).items())


def test_the_sums_are_the_ledgers(served):
    found = scraped(served)
    assert total(found, "tallystick_calls_total") == 40
    assert total(found, "tallystick_calls_by_status_total", status="refused") == 1
    assert total(found, "tallystick_calls_by_quality_total", quality="unknown") == 1
    assert total(found, "tallystick_calls_by_source_total", source="client") == 40
    assert total(found, "tallystick_day_calls_total", model="model-b", status="ok", quality="exact") == 3
    assert total(found, "tallystick_refused_calls_total") == 1
    assert total(found, "tallystick_unpriced_calls_total", model="model-unheard-of") == 1
    assert total(found, "tallystick_calls_total", team="a") == 14
    assert total(found, "tallystick_cost_usd_total") == pytest.approx(0.038)
    assert total(found, "tallystick_tokens_total", kind="cache_read") == 39 * 40
    assert total(found, "tallystick_tokens_total", kind="reasoning", provider="anthropic") == 15
    assert total(found, "tallystick_ledger_up") == 1


def test_times_are_counted_into_buckets(served, ledger):
    ledger.append([call(400, latency_us=30_000_000, ttft_us=None), call(401, ago=86_400, latency_us=1)])
    found = scraped(served)
    name = "tallystick_call_duration_seconds"
    assert total(found, f"{name}_count", model="model-a") == 37
    assert total(found, f"{name}_bucket", model="model-a", le="1.28") == 36
    assert total(found, f"{name}_bucket", model="model-a", le="40.96") == 37
    assert total(found, f"{name}_sum", model="model-a") == pytest.approx(36 * 0.8 + 30)
    assert total(found, "tallystick_time_to_first_token_seconds_bucket", model="model-a", le="+Inf") == 36


def test_a_later_look_counts_only_what_is_new_and_never_goes_back(ledger, tmp_path):
    clock = [NOW]
    with Served(ledger, None, now=lambda: clock[0]) as served:
        first = scraped(served)
        lower = {"cost": {"amount": {"usd": "0.0001"}, "lines": [], "basis": "list"}}
        ledger.append(
            [
                call(500, ago=-1),
                Correction(correction_id="fix-2", corrects="call-000", recorded_at=NOW, reason="x", fields=lower),
            ]
        )
        assert scraped(served) == first
        clock[0] += timedelta(seconds=10)
        second = scraped(served)
        assert total(second, "tallystick_calls_total") == 41
        assert total(second, "tallystick_cost_usd_total") >= total(first, "tallystick_cost_usd_total")
        assert (
            total(second, "tallystick_call_duration_seconds_count")
            == total(first, "tallystick_call_duration_seconds_count") + 1
        )
        clock[0] += timedelta(days=1)
        assert total(scraped(served), "tallystick_call_duration_seconds_count") == 0


def test_labels_are_few_whatever_callers_send(served, ledger):
    ledger.append(
        [
            call(1000 + number, model=f'm"{number}\\', tags={"team": f"t{number}", "user": f"user-{number}"})
            for number in range(200)
        ]
    )
    found = scraped(served)
    models = {dict(pairs).get("model") for name, pairs in found if name == "tallystick_calls_total"}
    assert len(models) == MOST_NAMES + 1
    assert "other" in models
    assert total(found, "tallystick_calls_total") == 240
    assert not any("user-" in value for _, pairs in found for _, value in pairs)
    assert all({"user", "run"}.isdisjoint(metric.labels) for metric in METRICS.values())


def test_flights_holds_budgets_and_faults_are_shown(ledger, tmp_path):
    ledger.put_budget(Budget(budget_id="all", limit=5 * 10**12))
    ledger.put_budget(Budget(budget_id="few", limit=100, unit="calls"))
    meter = Meter(ledger, catalog)
    meter.faults.add("feed", ValueError("x"), "nothing")
    intents = Intents(tmp_path / "flights", lambda: "tests-1")
    slot = intents.open("call-900", 1, ("openai", "openai.chat", "model-a", ""))
    with Served(ledger, tmp_path / "flights", meter=meter) as served:
        found = scraped(served)
    slot.free()
    intents.close()
    assert total(found, "tallystick_calls_in_flight") == 1
    assert total(found, "tallystick_budget_limit", budget="all", unit="usd") == 5
    assert total(found, "tallystick_budget_limit", budget="few", unit="calls") == 100
    assert total(found, "tallystick_faults_total", where="feed") == 1
    assert total(found, "tallystick_missed_entries_total") == 0
    assert total(found, "tallystick_holds", state="open") == 0


def test_counters_survive_a_restart(ledger, tmp_path):
    with Served(ledger, None) as served:
        first = scraped(served)
    ledger.close()
    with SqliteLedger(tmp_path / "ledger.db", zone="UTC") as again, Served(again, None) as served:
        assert scraped(served) == first


def test_a_ledger_that_is_gone_is_a_metric_not_a_failure(served, ledger):
    ledger.close()
    assert scraped(served) == {("tallystick_ledger_up", ()): 0}


def test_only_reading_is_served(served):
    assert served.ask("POST", "/metrics")[0] == 405
    assert served.ask("GET", "/metrics/more")[0] == 404
    assert served.ask("HEAD", "/metrics")[2] == b""


def test_the_dashboard_asks_only_for_metrics_that_exist():
    board = json.loads((ROOT / "docs" / "grafana" / "tallystick.json").read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    assert len(expressions) > 8
    known = {
        f"{name}{end}"
        for name, metric in METRICS.items()
        for end in (("_bucket", "_sum", "_count") if metric.type == "histogram" else ("",))
    }
    for text in [*expressions, *(one["query"] for one in board["templating"]["list"] if one["type"] == "query")]:
        names = set(re.findall(r"tallystick_[a-z_]+", text))
        assert names, text
        assert names <= known
        for grouped in re.findall(r"by \(([^)]*)\)", text):
            labels = {label.strip() for label in grouped.split(",")} - {"le"}
            allowed = set.intersection(
                *[
                    set(METRICS[re.sub(r"_(bucket|sum|count)$", "", one) if one not in METRICS else one].labels)
                    for one in names
                ]
            )
            assert labels <= allowed, text


def test_the_page_of_metrics_names_each_with_its_labels():
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    for name, metric in METRICS.items():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        assert f"| `{name}` | {metric.type} | {labels} | {metric.about} |" in page
