"""Requests of any shape: always an answer with a sentence, never a failure of ours, never a wait."""

import http.client
import json
import socket

import pytest
from apidesk import JSON, Served, filled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallystick.gateway.api.routes import TABLE
from tallystick.ledger.sqlite import SqliteLedger

WORDS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["-1", "0", "1e9", "9" * 30, "null", "true", "today", "7d", "99999999d", "2026-13-45", "0000-00-00", "9999-12-31T23:59:59+14:00",
         "UTC", "Europe/Berlin", "../../etc/passwd", "model-a", "research", "call-001", "team=a", "=", "a=", "1.1", "lifetime", "day",
         "$5/day", "1M tokens/month", "\x00", "\ud7ff", "%", "%00", "%ff", "model", "run", "tag:model", "known"]
    ),
)  # fmt: skip
NAMES = st.one_of(
    st.sampled_from(sorted({param.name for route in TABLE for param in route.params})), st.text(max_size=8)
)
PATHS = st.one_of(
    st.sampled_from(
        ["/tally/v1" + route.path for route in TABLE]
        + ["/tally/v1", "/tally/v1/", "/tally/v1//", "/tally/v1/live/x", "/metrics/", "/v1/traces"]
    ),
    st.lists(WORDS, max_size=4).map(lambda parts: "/tally/v1/" + "/".join(map(quoted, parts))),
)
PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.one_of(WORDS, st.sampled_from(
        ["name", "limit", "scope", "each", "hard", "failure", "sources", "tz", "anchor", "alerts", "raise", "by", "for", "paused",
         "model", "text", "messages", "max_output", "provider", "agent", "at"])), inner, max_size=5)),
    max_leaves=12,
)  # fmt: skip


def quoted(text):
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))


@pytest.fixture(scope="module")
def standing(tmp_path_factory):
    place = tmp_path_factory.mktemp("hostile")
    with SqliteLedger(place / "ledger.db", zone="UTC") as ledger:
        filled(ledger)
        with Served(ledger, place / "flights") as served:
            yield served


def asked(served, method, path, body=None, headers=None):
    held = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    try:
        held.request(method, path, body, headers or {})
        answer = held.getresponse()
        return answer.status, answer.getheader("content-type"), answer.read()
    finally:
        held.close()


def sound(status, kind, body, method):
    assert status in (200, 201, 400, 404, 405, 413, 415, 503)
    assert status != 503
    assert b"Traceback" not in body
    if kind == "application/json" and method != "HEAD":
        value = json.loads(body)
        if status >= 400:
            assert value["error"]["message"]


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]),
    PATHS,
    st.lists(st.tuples(NAMES, WORDS), max_size=4),
)
def test_any_question_gets_an_answer(standing, method, path, pairs):
    path = path.replace("{", "%7B").replace("}", "%7D")
    query = "&".join(f"{quoted(name)}={quoted(value)}" for name, value in pairs)
    sound(*asked(standing, method, f"{path}?{query}"), method)


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(
        [("POST", "/budgets"), ("PATCH", "/budgets/known"), ("POST", "/estimate"), ("DELETE", "/budgets/known")]
    ),
    PLAIN,
)
def test_any_body_gets_an_answer(standing, place, value):
    method, path = place
    sound(*asked(standing, method, f"/tally/v1{path}", json.dumps(value), JSON), method)


BUDGET = st.fixed_dictionaries(
    {"name": st.one_of(st.just("b"), WORDS), "limit": st.one_of(st.sampled_from(["$1", "5 calls/1m", "$" + "9" * 40, "1e5"]), WORDS)},
    optional={"scope": st.dictionaries(st.sampled_from(["team", "provider", "step", "tag:x"]), WORDS, max_size=2),
              "each": st.lists(st.sampled_from(["user", "team", "x"]), max_size=2), "anchor": st.integers(), "tz": WORDS,
              "alerts": st.lists(st.integers(), max_size=3), "failure": WORDS, "sources": st.lists(WORDS, max_size=2)},
)  # fmt: skip


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(BUDGET)
def test_any_budget_is_taken_or_refused_with_a_sentence(standing, value):
    status, kind, body = asked(standing, "POST", "/tally/v1/budgets", json.dumps(value), JSON)
    sound(status, kind, body, "POST")
    if status in (200, 201):
        assert asked(standing, "DELETE", f"/tally/v1/budgets/{value['name']}", "{}", JSON)[0] == 200


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    st.binary(max_size=300),
    st.sampled_from(["application/json", "application/x-protobuf"]),
    st.sampled_from(["", "gzip", "deflate"]),
)
def test_any_bytes_as_spans_get_an_answer(standing, data, kind, coding):
    status, said, body = asked(standing, "POST", "/v1/traces", data, {"content-type": kind, "content-encoding": coding})
    assert status in (200, 400)
    assert said in (kind, "application/json")
    assert b"Traceback" not in body


def test_deep_and_large_bodies(standing):
    deep = "[" * 400 + "]" * 400
    nested = f'{{"model": "model-a", "messages": [{{"role": "user", "content": {deep}}}]}}'
    sound(*asked(standing, "POST", "/tally/v1/estimate", nested, JSON), "POST")
    deeper = "[" * 100_000 + "]" * 100_000
    assert asked(standing, "POST", "/tally/v1/estimate", f'{{"messages": {deeper}}}', JSON)[0] == 400
    large = b'{"model": "model-a", "text": "' + b"x" * (5 * 2**20) + b'"}'
    assert asked(standing, "POST", "/tally/v1/estimate", large, JSON)[0] == 413
    many = "&".join(f"tag=a{number}=b" for number in range(100))
    assert asked(standing, "GET", f"/tally/v1/calls?{many}")[0] == 400


def test_a_client_that_goes_away_in_the_middle_of_its_body_leaves_nothing_behind(standing):
    for path in ("/tally/v1/budgets", "/v1/traces"):
        with socket.create_connection(("127.0.0.1", standing.port)) as held:
            head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
            held.sendall(head.encode())
    assert asked(standing, "GET", "/tally/v1/budgets")[0] == 200
