"""Spans: finished calls told to an OpenTelemetry collector, as spans and as the two standard metrics. Off unless an
endpoint is named."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import msgspec

from tallystick.errors import ConfigError, LedgerError
from tallystick.gateway.api.desk import Desk
from tallystick.insight.watching import Watch
from tallystick.ledger.entry import Entry

try:
    import fcntl
except ImportError:  # Windows: every process exports.
    fcntl = None  # type: ignore[assignment]

ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
HEADERS: Final = "OTEL_EXPORTER_OTLP_HEADERS"
SERVICE: Final = "OTEL_SERVICE_NAME"
SCOPE: Final = "tallystick"
PAUSE: Final = 5.0
"""Seconds between two batches."""

WAITING: Final = 10_000
"""So many calls wait for a collector that does not answer; beyond, the oldest are left out."""

AT_ONCE: Final = 1_000
TIMEOUT: Final = 10.0

TOKENS: Final = "gen_ai.client.token.usage"
DURATION: Final = "gen_ai.client.operation.duration"
TOKEN_BUCKETS: Final = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
SECOND_BUCKETS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Source: OpenTelemetry's semantic conventions for GenAI metrics, explicit bucket boundaries."""

LOG: Final = logging.getLogger("tallystick")

_NANO: Final = 1_000_000_000
_CLIENT: Final = 3
_DELTA: Final = 1
_FAILED: Final = 2
_WRITES: Final = ("cache_write", "cache_write_5m", "cache_write_1h")
_NAMES: Final = {
    "google": "gcp.gemini", "vertex": "gcp.vertex_ai", "aws": "aws.bedrock", "azure": "azure.ai.openai",
    "x-ai": "x_ai", "mistral": "mistral_ai",
}  # fmt: skip
_OPERATIONS: Final = {"embeddings": "embeddings", "generateContent": "generate_content"}


class Target(msgspec.Struct, frozen=True):
    """Where spans and metrics are posted, with which headers, and the name of the service."""

    traces: str
    metrics: str
    headers: Mapping[str, str] = {}
    service: str = SCOPE


def target_of(env: Mapping[str, str]) -> Target | None:
    """The collector that the environment names by OpenTelemetry's own variables; None where it names none. Raises
    ConfigError."""
    endpoint = env.get(ENDPOINT, "").strip().rstrip("/")
    traces = env.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip() or (endpoint and f"{endpoint}/v1/traces")
    metrics = env.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "").strip() or (endpoint and f"{endpoint}/v1/metrics")
    if not traces and not metrics:
        return None
    for place in filter(None, (traces, metrics)):
        _check(place)
    headers = {}
    for pair in env.get(HEADERS, "").split(","):
        name, equals, value = pair.partition("=")
        if equals and name.strip():
            headers[name.strip().lower()] = unquote(value.strip())
    return Target(traces, metrics, headers, env.get(SERVICE) or SCOPE)


def _check(place: str) -> None:
    try:
        parts = urlsplit(place)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        fine = False
    if not fine:
        raise ConfigError(
            f"{ENDPOINT} is not the URL of a collector.", todo="Write it as http://127.0.0.1:4318, without a path."
        )


class Lock:
    """A file that one process holds at a time; it is free again when that process ends, however it does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def held(self) -> bool:
        """Whether this process holds it, now that it has tried. Where files cannot be locked every process does."""
        if self._handle is not None or fcntl is None:
            return True
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return False
        self._handle = handle
        return True

    def give_up(self) -> None:
        """Lets another process have it."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)


class Exporter:
    """Posts the calls that end on a ledger, whoever made them, every few seconds from a thread of its own. A collector
    that does not answer holds up nothing; `dropped` counts the calls that it was never told of. Where several processes
    share a ledger the one that holds `lock` exports, and another takes over when it ends (None: this one always
    does)."""

    def __init__(
        self,
        desk: Desk,
        target: Target,
        *,
        pause: float = PAUSE,
        lock: Path | None = None,
        post: Callable[[str, bytes, Mapping[str, str]], bool] | None = None,
    ) -> None:
        self._desk = desk
        self._target = target
        self._pause = pause
        self._lock = None if lock is None else Lock(lock)
        self._post = post or posted
        self._watch = Watch(desk.ledger, desk.flights)
        self._waiting: list[Entry] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._said = False
        self.sent = 0
        self.dropped = 0

    def start(self) -> None:
        """Begins: calls that end from now on are told."""
        self._look()
        self._thread = threading.Thread(target=self._work, name="tally-spans", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Tells what is still to be told, once, and ends."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._turn()
        if self._lock is not None:
            self._lock.give_up()

    def _work(self) -> None:
        while not self._stop.wait(self._pause):
            self._turn()

    def _turn(self) -> None:
        self._look()
        if self._lock is not None and not self._lock.held():
            self._waiting.clear()
        while self._waiting:
            batch = self._waiting[:AT_ONCE]
            if not self._told(batch):
                break
            del self._waiting[: len(batch)]
            self.sent += len(batch)
        over = len(self._waiting) - WAITING
        if over > 0:
            del self._waiting[:over]
            self.dropped += over

    def _look(self) -> None:
        try:
            # What OTLP told us is not told on: a collector may send its spans here.
            self._waiting += [entry for entry in self._watch.look().ended if entry.source in ("client", "gateway")]
        except LedgerError as error:
            self._say(str(error))

    def _told(self, batch: list[Entry]) -> bool:
        target = self._target
        headers = {"content-type": "application/json", **target.headers}
        told = True
        if target.traces:
            told = self._post(target.traces, msgspec.json.encode(spans_json(batch, target.service)), headers)
        if told and target.metrics:
            body = msgspec.json.encode(metrics_json(batch, target.service, self._desk.now()))
            measured = self._post(target.metrics, body, headers)
            # Spans that were taken are not sent again because the metrics were not.
            told = bool(target.traces) or measured
            if not measured:
                self._say("the collector did not take the metrics")
        if not told:
            self._say("the collector did not take them")
        return told

    def _say(self, what: str) -> None:
        if not self._said:
            self._said = True
            LOG.warning("spans could not be exported: %s. Calls are entered all the same.", what)


def posted(url: str, body: bytes, headers: Mapping[str, str]) -> bool:
    """Whether a collector took a body; one that calls it malformed is not asked again."""
    request = urllib.request.Request(url, body, dict(headers), method="POST")  # noqa: S310 - checked by target_of
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310 - as above
            answer.read(1 << 16)
    except urllib.error.HTTPError as error:
        with error:
            return 400 <= error.code < 500 and error.code not in (408, 429)
    except OSError:
        return False
    return True


def spans_json(entries: Iterable[Entry], service: str = SCOPE) -> dict[str, Any]:
    """Calls as an ExportTraceServiceRequest in JSON. No text of a message is in it."""
    spans = {"scope": {"name": SCOPE}, "spans": [_span(entry) for entry in entries]}
    return {"resourceSpans": [{"resource": _resource(service), "scopeSpans": [spans]}]}


def metrics_json(entries: Iterable[Entry], service: str, now: datetime) -> dict[str, Any]:
    """The two standard metrics over some calls, as deltas, as an ExportMetricsServiceRequest in JSON."""
    tokens: dict[tuple[tuple[str, str], ...], list[float]] = {}
    seconds: dict[tuple[tuple[str, str], ...], list[float]] = {}
    start = now
    for entry in entries:
        start = min(start, entry.started_at)
        names = tuple(_named(entry).items())
        if entry.usage is not None:
            for kind, count in (("input", entry.usage.input_tokens), ("output", entry.usage.output_tokens)):
                tokens.setdefault((*names, ("gen_ai.token.type", kind)), []).append(count)
        if entry.latency_us is not None:
            seconds.setdefault(names, []).append(entry.latency_us / 1_000_000)
    span = {"startTimeUnixNano": _nano(start), "timeUnixNano": _nano(now)}
    metrics = [
        _histogram(TOKENS, "{token}", [_point(names, found, TOKEN_BUCKETS, span) for names, found in tokens.items()]),
        _histogram(DURATION, "s", [_point(names, found, SECOND_BUCKETS, span) for names, found in seconds.items()]),
    ]
    scope = {"scope": {"name": SCOPE}, "metrics": metrics}
    return {"resourceMetrics": [{"resource": _resource(service), "scopeMetrics": [scope]}]}


def _histogram(name: str, unit: str, points: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": name, "unit": unit, "histogram": {"aggregationTemporality": _DELTA, "dataPoints": points}}


def _point(
    names: Iterable[tuple[str, str]], values: list[float], bounds: tuple[float, ...], span: dict[str, str]
) -> dict[str, Any]:
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[sum(value > bound for bound in bounds)] += 1
    return {
        "attributes": [_pair(name, text) for name, text in names],
        **span,
        "count": str(len(values)),
        "sum": sum(values),
        "bucketCounts": [str(count) for count in counts],
        "explicitBounds": list(bounds),
    }


def _span(entry: Entry) -> dict[str, Any]:
    said: dict[str, str | int | float | None] = {
        **_named(entry),
        "gen_ai.response.id": entry.provider_response_id,
        "gen_ai.conversation.id": entry.run_id,
        "gen_ai.agent.name": entry.tags.get("agent"),
        "http.response.status_code": entry.http_status,
        "error.type": None if entry.status == "ok" else entry.status,
        "tally.call": entry.call_id,
        "tally.status": entry.status,
        "tally.quality": entry.quality,
        "tally.cost_usd": None if entry.amount is None else entry.amount.plain(),
        **{f"tally.{name}": entry.tags.get(name) for name in ("team", "project", "user")},
    }
    usage = entry.usage
    if usage is not None:
        said |= {
            "gen_ai.usage.input_tokens": usage.input_tokens,
            "gen_ai.usage.output_tokens": usage.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.get("cache_read", 0) or None,
            "gen_ai.usage.cache_write.input_tokens": sum(usage.get(kind, 0) for kind in _WRITES) or None,
            "gen_ai.usage.reasoning.output_tokens": usage.get("reasoning", 0) or None,
        }
    digest = hashlib.blake2b(entry.call_id.encode(), digest_size=24).hexdigest()
    span = {
        "traceId": entry.trace_id or digest[:32],
        "spanId": digest[32:],
        "name": f"{_operation(entry)} {entry.model}",
        "kind": _CLIENT,
        "startTimeUnixNano": _nano(entry.started_at),
        "endTimeUnixNano": _nano(entry.settled_at or entry.started_at),
        "attributes": [_pair(name, value) for name, value in said.items() if value is not None],
        "status": {} if entry.status == "ok" else {"code": _FAILED},
    }
    return span if entry.span_id is None else {**span, "parentSpanId": entry.span_id}


def _named(entry: Entry) -> dict[str, str]:
    provider = entry.provider.removeprefix("other:")
    return {
        "gen_ai.operation.name": _operation(entry),
        "gen_ai.provider.name": _NAMES.get(provider, provider),
        "gen_ai.request.model": entry.requested_model or entry.model,
        "gen_ai.response.model": entry.model,
    }


def _operation(entry: Entry) -> str:
    return _OPERATIONS.get((entry.api or "").rpartition(".")[2], "chat")


def _resource(service: str) -> dict[str, Any]:
    return {"attributes": [_pair("service.name", service)]}


def _pair(name: str, value: str | float) -> dict[str, Any]:
    if isinstance(value, str):
        return {"key": name, "value": {"stringValue": value}}
    if isinstance(value, int):
        return {"key": name, "value": {"intValue": str(value)}}
    return {"key": name, "value": {"doubleValue": value}}


def _nano(at: datetime) -> str:
    return str(int(at.timestamp()) * _NANO + at.microsecond * 1000)
