"""Spans that arrive become entries, once each; finished calls leave as spans."""

import gzip
import http.server
import json
import subprocess
import threading
import time
import venv
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from apidesk import JSON, NOW, Served, call, catalog

from tallystick.errors import ConfigError
from tallystick.gateway.api.desk import Desk
from tallystick.gateway.otlp import PROTOBUF
from tallystick.gateway.spans import Exporter, Target, metrics_json, posted, spans_json, target_of
from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.query import Query
from tallystick.wire.otlp_json import read_traces
from tallystick.wire.otlp_protobuf import write_answer

ROOT = Path(__file__).resolve().parents[2]
START = int(NOW.timestamp() * 1e9)
USAGE = {
    "gen_ai.usage.input_tokens": 1000,
    "gen_ai.usage.output_tokens": 100,
    "gen_ai.usage.cache_read.input_tokens": 400,
}
CHAT = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "model-a", **USAGE}


def span(number=1, attributes=CHAT, parent="", trace=1, start=START, **more):
    pairs = [
        {"key": name, "value": {"stringValue": value} if isinstance(value, str) else {"intValue": str(value)}}
        for name, value in attributes.items()
    ]
    return {"traceId": f"{trace:032x}", "spanId": f"{number:016x}", "parentSpanId": parent, "name": "chat",
            "startTimeUnixNano": str(start), "endTimeUnixNano": str(start + 1_500_000_000), "attributes": pairs, **more}  # fmt: skip


def body(*spans):
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}).encode()


def post(served, data, kind="application/json", **headers):
    status, given, answer = served.ask("POST", "/v1/traces", data, {"content-type": kind, **headers})
    return status, given, answer


def entered(ledger):
    return list(ledger.read(Query(source="otlp")))


def test_a_span_becomes_an_entry_priced_like_any_other(served, ledger):
    attributes = {**CHAT, "gen_ai.response.id": "resp-9", "gen_ai.conversation.id": "talk", "tally.team": "a"}
    status, headers, answer = post(served, body(span(attributes=attributes)))
    assert (status, headers["content-type"], answer) == (200, "application/json", b"{}")
    (entry,) = entered(ledger)
    assert dict(entry.usage) == {"input": 600, "cache_read": 400, "output": 100}
    assert entry.amount.plain() == "0.0022"
    assert (entry.provider, entry.model, entry.api, entry.run_id) == ("openai", "model-a", "otlp.gen_ai", "talk")
    assert (entry.tags["team"], entry.latency_us, entry.provider_response_id) == ("a", 1_500_000, "resp-9")
    assert entry.started_at == NOW
    assert json.loads(entry.usage_raw)["input"] == 1000


def test_sending_again_changes_nothing(served, ledger):
    for _ in range(3):
        assert post(served, body(span(1), span(2)))[0] == 200
    assert len(entered(ledger)) == 2
    assert post(served, body(span(2), span(3)))[0] == 200
    assert len(entered(ledger)) == 3


def test_a_call_that_the_gateway_has_seen_is_joined(served, ledger):
    ledger.append([call(600, provider_response_id="resp-1", source="gateway")])
    before = ledger.total()[0].cost
    assert post(served, body(span(attributes={**CHAT, "gen_ai.response.id": "resp-1"})))[0] == 200
    assert ledger.total()[0].cost == before
    assert [one.source for one in ledger.joined("call-600")] == ["otlp"]


def test_two_libraries_about_one_call_count_once(served, ledger):
    one = {**CHAT, "gen_ai.response.id": "resp-2"}
    assert post(served, body(span(1, one), span(2, one)))[0] == 200
    assert post(served, body(span(3, one)))[0] == 200
    assert len(entered(ledger)) == 1


def test_only_leaves_count_whatever_the_parents_say(served, ledger):
    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.request.model": "model-a", **USAGE}
    spans = [
        span(1, agent),
        span(2, CHAT, parent=f"{1:016x}"),
        span(3, CHAT, parent=f"{2:016x}"),
        span(4, {"http.method": "GET"}),
    ]
    assert post(served, body(*spans))[0] == 200
    assert [entry.span_id for entry in entered(ledger)] == [f"{3:016x}"]


def test_what_cannot_be_taken_is_a_partial_success(served, ledger):
    bad = [
        span(1, {**CHAT, "gen_ai.usage.input_tokens": -5}),
        span(2, start=0),
        span(3, start=START + 10**18),
        span(4, {"gen_ai.operation.name": "chat"}),
    ]
    status, _, answer = post(served, body(*bad, span(5)))
    partial = json.loads(answer)["partialSuccess"]
    assert (status, partial["rejectedSpans"]) == (200, "4")
    assert "time makes no sense" in partial["errorMessage"]
    assert len(entered(ledger)) == 1


def test_unknown_usage_and_models_are_entered_as_unknown(served, ledger):
    spans = [
        span(1, {"gen_ai.operation.name": "chat", "gen_ai.request.model": "model-a", "error.type": "timeout"}),
        span(2, {**CHAT, "gen_ai.request.model": "never-heard-of"}),
        span(3, {**CHAT, "gen_ai.usage.cache_read.input_tokens": 9999}),
    ]
    assert post(served, body(*spans))[0] == 200
    failed, unheard, broken = sorted(entered(ledger), key=lambda entry: entry.span_id)
    assert (failed.quality, failed.status, failed.cost) == ("unknown", "error", None)
    assert (unheard.quality, unheard.cost) == ("exact", None)
    assert (broken.usage, broken.quality, "9999" in broken.usage_raw) == (None, "unknown", True)


def test_bodies_may_be_gzip(served, ledger):
    assert post(served, gzip.compress(body(span())), **{"content-encoding": "gzip"})[0] == 200
    assert len(entered(ledger)) == 1
    assert post(served, b"no gzip", **{"content-encoding": "gzip"})[0] == 400
    assert post(served, gzip.compress(body(span()))[:-9], **{"content-encoding": "gzip"})[0] == 400
    assert post(served, body(span()), **{"content-encoding": "br"})[0] == 415
    bomb = gzip.compress(bytes(80 * 2**20))
    assert post(served, bomb, **{"content-encoding": "gzip"})[0] == 413


def test_what_is_no_request_of_spans_is_refused(served, ledger):
    assert post(served, b"{")[0] == 400
    assert post(served, b"\xff\xff", PROTOBUF)[0] == 400
    assert post(served, body(span()), "text/plain")[0] == 415
    assert served.ask("GET", "/v1/traces")[0] == 405
    assert served.ask("POST", "/v1/traces/more", b"", JSON)[0] == 404
    assert post(served, b"", PROTOBUF)[::2] == (200, b"")
    assert entered(ledger) == []
    ledger.close()
    assert post(served, body(span()))[0] == 503


SENDER = """
import sys
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
exporter = OTLPSpanExporter(endpoint=sys.argv[1], compression=Compression.Gzip)
provider.add_span_processor(BatchSpanProcessor(exporter))
tracer = provider.get_tracer("app")
with tracer.start_as_current_span("invoke_agent shop") as outer:
    outer.set_attribute("gen_ai.operation.name", "invoke_agent")
    outer.set_attribute("gen_ai.usage.input_tokens", 2000)
    for number in range(2):
        with tracer.start_as_current_span("chat model-a") as span:
            span.set_attributes({
                "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "model-a",
                "gen_ai.response.id": f"resp-{number}", "gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 10,
                "gen_ai.response.finish_reasons": ["stop"], "gen_ai.request.temperature": 0.5,
            })
provider.shutdown()
"""


@pytest.fixture(scope="session")
def with_opentelemetry():
    """An interpreter that has OpenTelemetry's SDK, made once under build/."""
    place = ROOT / "build" / "otel"
    python = place / "bin" / "python"
    asks = [str(python), "-c", "import opentelemetry.exporter.otlp.proto.http.trace_exporter"]
    if not python.exists() or subprocess.run(asks, capture_output=True, check=False).returncode:
        venv.create(place, with_pip=True)
        words = [
            str(python),
            "-m",
            "pip",
            "install",
            "-q",
            "opentelemetry-sdk",
            "opentelemetry-exporter-otlp-proto-http",
        ]
        if subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("OpenTelemetry's SDK cannot be installed here: no package index")
    return python


def test_the_real_sdk_sends_protobuf_and_each_call_is_entered_once(ledger, with_opentelemetry):
    with Served(ledger, None, now=lambda: datetime.now(UTC)) as served:
        words = [str(with_opentelemetry), "-c", SENDER, f"http://127.0.0.1:{served.port}/v1/traces"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    entries = entered(ledger)
    assert [entry.provider_response_id for entry in entries] == ["resp-0", "resp-1"]
    assert {entry.tags["service"] for entry in entries} == {"shop"}
    assert [entry.amount.plain() for entry in entries] == ["0.00208", "0.00208"]


class Collector(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        data = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((self.path, dict(self.headers), data))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def collector():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    server.got, server.status = [], 200
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_finished_calls_leave_as_spans_and_metrics(ledger, collector, tmp_path):
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_address[1]}/",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=a%20b,Other=c",
        "OTEL_SERVICE_NAME": "gate",
    }
    with Served(ledger, tmp_path / "ledger.db.flight", export=target_of(env)):
        ledger.append([call(800, ago=-1, provider_response_id="r", http_status=200), call(801, ago=-1, source="otlp")])
    assert (tmp_path / "ledger.db.spans").exists()
    assert [path for path, _, _ in collector.got] == ["/v1/traces", "/v1/metrics"]
    headers = {name.lower(): value for name, value in collector.got[0][1].items()}
    assert (headers["x-key"], headers["other"], headers["content-type"]) == ("a b", "c", "application/json")
    (told,) = read_traces(collector.got[0][2])
    assert told.resource["service.name"] == "gate"
    assert told.attributes["gen_ai.usage.input_tokens"] == 140
    assert told.attributes["gen_ai.usage.output_tokens"] == 15
    assert told.attributes["gen_ai.usage.reasoning.output_tokens"] == 5
    assert told.attributes["tally.cost_usd"] == "0.001"
    metrics = json.loads(collector.got[1][2])["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
    assert [metric["name"] for metric in metrics] == ["gen_ai.client.token.usage", "gen_ai.client.operation.duration"]
    points = {
        next(one["value"]["stringValue"] for one in point["attributes"] if one["key"] == "gen_ai.token.type"): point
        for point in metrics[0]["histogram"]["dataPoints"]
    }
    assert (points["input"]["sum"], points["output"]["sum"]) == (140, 15)
    assert points["input"]["bucketCounts"][4] == "1"
    assert len(points["input"]["bucketCounts"]) == len(points["input"]["explicitBounds"]) + 1


def test_our_own_spans_sent_back_are_met_again_and_counted_once(served, ledger):
    made = call(0, call_id="0199c0de-0000-7000-8000-000000000001")
    ledger.append([made])
    count = ledger.total()[0].calls
    assert post(served, json.dumps(spans_json([made])).encode())[0] == 200
    assert ledger.total()[0].calls == count
    with MemoryLedger() as other, Served(other, None) as elsewhere:
        assert post(elsewhere, json.dumps(spans_json([made])).encode())[0] == 200
        (entry,) = entered(other)
    assert (entry.call_id, dict(entry.usage)) == (made.call_id, dict(made.usage))


def test_a_collector_that_fails_is_asked_again_and_holds_up_nothing(collector):
    with MemoryLedger() as ledger:
        desk = Desk(ledger, catalog, lambda: NOW)
        exporter = Exporter(desk, Target(f"http://127.0.0.1:{collector.server_address[1]}/v1/traces", ""), pause=0.01)
        collector.status = 503
        exporter.start()
        ledger.append([call(1)])
        end = time.monotonic() + 20
        while len(collector.got) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        assert exporter.sent == 0
        collector.status = 200
        exporter.close()
        assert (exporter.sent, exporter.dropped) == (1, 0)


def test_one_of_the_processes_on_a_ledger_exports_and_another_takes_over(tmp_path):
    with MemoryLedger() as ledger:
        desk, told = Desk(ledger, catalog, lambda: NOW), []

        def exporter(name):
            return Exporter(
                desk,
                Target("http://x", ""),
                pause=60,
                lock=tmp_path / "spans",
                post=lambda *_: told.append(name) or True,
            )

        first, second, third = exporter("first"), exporter("second"), exporter("third")
        for one in (first, second, third):
            one.start()
        ledger.append([call(1)])
        # Each process opens the file for itself, as these do, so that the lock parts them.
        assert first._lock.held()
        second.close()
        first.close()
        assert told == ["first"]
        ledger.append([call(2, ago=-1)])
        third.close()
        assert (told, third.sent) == (["first", "third"], 2)


def test_calls_that_nobody_takes_are_dropped_and_counted(monkeypatch):
    monkeypatch.setattr("tallystick.gateway.spans.WAITING", 5)
    with MemoryLedger() as ledger:
        exporter = Exporter(Desk(ledger, catalog, lambda: NOW), Target("http://x", ""), pause=60, post=lambda *_: False)
        exporter.start()
        ledger.append([call(number, ago=-number) for number in range(8)])
        exporter.close()
    assert (exporter.sent, exporter.dropped) == (0, 3)


def test_a_body_that_the_collector_calls_malformed_is_not_sent_again(collector):
    place = f"http://127.0.0.1:{collector.server_address[1]}/v1/traces"
    for status, taken in ((400, True), (413, True), (429, False), (500, False), (200, True)):
        collector.status = status
        assert posted(place, b"{}", {}) is taken
    assert posted("http://127.0.0.1:1/", b"{}", {}) is False


def test_nothing_is_exported_unless_an_endpoint_is_named():
    assert target_of({}) is None
    only = target_of({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://c.example/x"})
    assert (only.traces, only.metrics, only.service) == ("https://c.example/x", "", "tallystick")
    for wrong in ("collector:4318", "ftp://x", "http://", "http://[", "http://x:99999"):
        with pytest.raises(ConfigError):
            target_of({"OTEL_EXPORTER_OTLP_ENDPOINT": wrong})


def test_an_error_and_an_unknown_usage_are_told_as_such():
    failed = call(
        1,
        status="error",
        usage=None,
        quality="unknown",
        pico=None,
        latency_us=None,
        trace_id="a" * 32,
        span_id="b" * 16,
    )
    (told,) = read_traces(json.dumps(spans_json([failed])).encode())
    assert (told.status, told.trace_id, told.parent) == (2, "a" * 32, "b" * 16)
    assert "gen_ai.usage.input_tokens" not in told.attributes
    metrics = metrics_json([failed], "s", NOW + timedelta(seconds=1))["resourceMetrics"][0]["scopeMetrics"][0][
        "metrics"
    ]
    assert [metric["histogram"]["dataPoints"] for metric in metrics] == [[], []]
    assert write_answer(0, "") == b""
