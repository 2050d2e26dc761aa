"""The meter by itself, fed by hand: what it reads, what it changes on the wire, what it enters."""

import gzip
import json
import sys
import types
from pathlib import Path

import pytest

from tallystick.core.attribution import Tags
from tallystick.defaults import catalog
from tallystick.ledger.memory import MemoryLedger
from tallystick.metering import reaper
from tallystick.metering.leave import Who
from tallystick.metering.meter import Meter

WIRE = Path(__file__).parents[1] / "data" / "wire"
URL = "https://api.openai.com/v1/chat/completions"
STREAM = {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
SSE = {"content-type": "text/event-stream"}


@pytest.fixture
def ledger():
    with MemoryLedger() as held:
        yield held


@pytest.fixture
def meter(ledger):
    return Meter(ledger, catalog)


def begun(meter, url=URL, request=None, headers=None, **more):
    body = json.dumps(STREAM if request is None else request).encode()
    call = meter.call("POST", url, headers or {}, body, **more)
    call.ask()
    return call


def whole(call, answer, step=64):
    return b"".join(call.feed(answer[at : at + step]) for at in range(0, len(answer), step)) + call.close()


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("GET", "https://api.openai.com/v1/models"),
        ("POST", "https://api.openai.com/v1/files"),
        ("POST", "https://api.anthropic.com/v1/messages/count_tokens"),
        ("POST", "https://example.com/"),
        ("GET", "https://api.openai.com/v1/responses/resp_of_somebody_else"),
        ("POST", "::not a url::"),
    ],
)
def test_what_is_no_call_is_not_metered(meter, method, url):
    assert meter.call(method, url, {}, b"{}") is None
    assert meter.faults.counts == {}


def test_usage_is_asked_for_where_it_must_be_and_nowhere_else(meter):
    injected = json.loads(begun(meter).outgoing())
    assert injected == {"stream_options": {"include_usage": True}, **STREAM}
    assert begun(meter, request={**STREAM, "stream_options": {"include_usage": True}}).outgoing() is None
    assert begun(meter, request={**STREAM, "stream": False}).outgoing() is None
    assert begun(meter, "https://api.mistral.ai/v1/chat/completions").outgoing() is None
    assert begun(meter, "https://api.deepseek.com/chat/completions").outgoing() is None


def test_a_host_that_refuses_the_question_is_not_asked_again(meter, ledger):
    url = "https://llm.example.com/v1/chat/completions"
    call = begun(meter, url)
    assert call.outgoing() is not None
    call.answered(400, {"content-type": "application/json"})
    assert whole(call, b'{"error": {"message": "unknown field stream_options"}}')
    assert begun(meter, url).outgoing() is None
    assert begun(meter).outgoing() is not None


def test_the_switch_is_an_environment_variable_too(meter, ledger, monkeypatch):
    monkeypatch.setenv("TALLY_STREAM_USAGE", "off")
    assert begun(Meter(ledger, catalog)).outgoing() is None


def test_what_the_injected_option_adds_is_removed_also_from_a_compressed_stream(meter, ledger):
    with_usage = (WIRE / "chat_with_usage.sse").read_bytes()
    handed = []
    for body, headers in ((with_usage, SSE), (gzip.compress(with_usage), {**SSE, "content-encoding": "gzip"})):
        call = begun(meter)
        call.outgoing()
        changed = call.answered(200, {**headers, "content-length": str(len(body))})
        assert changed == SSE
        handed.append(whole(call, body))
    assert handed[0] == handed[1]
    assert b'"usage"' not in handed[0]
    assert handed[0].endswith(b"data: [DONE]\n\n")
    one, two = ledger.read()
    assert one.usage == two.usage
    assert one.quality == two.quality == "exact"


def test_a_compressed_stream_that_cannot_be_read_passes_as_it_is(meter, ledger):
    call = begun(meter)
    call.outgoing()
    assert call.answered(200, {**SSE, "content-encoding": "unheard-of"}) is None
    assert whole(call, b"\x00\x01" * 50) == b"\x00\x01" * 50
    [entry] = ledger.read()
    assert entry.quality in ("unknown", "lower_bound")


def test_the_call_settles_at_the_formats_end_and_not_before(meter, ledger):
    call = begun(meter)
    call.answered(200, SSE)
    body = (WIRE / "chat_with_usage.sse").read_bytes()
    end = body.index(b"data: [DONE]")
    call.feed(body[:end])
    assert (call.ended, call.settled, list(ledger.read())) == (False, None, [])
    call.feed(body[end:])
    assert call.ended
    assert call.settled.result().written == 1
    assert call.close("cancelled") == b""
    [entry] = ledger.read()
    assert (entry.status, entry.quality) == ("ok", "exact")


def test_nobody_can_cancel_a_settlement(meter, ledger):
    call = begun(meter)
    call.answered(200, SSE)
    call.feed((WIRE / "chat_with_usage.sse").read_bytes())
    assert not call.settled.cancel()
    assert len(list(ledger.read())) == 1


def test_a_call_that_everybody_forgot_is_entered_all_the_same(meter, ledger):
    call = begun(meter, request={"model": "gpt-4o", "messages": []})
    call.outgoing()
    del call
    reaper.drain()
    [entry] = ledger.read()
    assert (entry.status, entry.quality) == ("cancelled", "unknown")


def test_a_call_that_was_never_sent_leaves_nothing(meter, ledger):
    call = begun(meter)
    call.failed(RuntimeError("the client gave up while it waited"))
    call.close()
    assert list(ledger.read()) == []


def test_a_status_of_somebody_who_gave_up_waiting_is_unknown(meter, ledger):
    for status in (504, 408, 500, 301):
        call = begun(meter)
        call.answered(status, {"content-type": "text/html"})
        whole(call, b"<html>sorry</html>")
    first, second, third, fourth = ledger.read()
    assert [entry.cost for entry in (first, second)] == [None, None]
    assert [entry.amount.pico for entry in (third, fourth)] == [0, 0]
    assert {entry.status for entry in ledger.read()} == {"error"}


def test_an_error_inside_a_stream_is_an_error_with_what_was_delivered(meter, ledger):
    call = begun(meter)
    call.answered(200, SSE)
    whole(call, (WIRE / "chat_error_inside.sse").read_bytes())
    [entry] = ledger.read()
    assert (entry.status, entry.http_status) == ("error", 200)
    assert entry.quality == "lower_bound"


def test_a_stopped_anthropic_stream_adds_what_was_delivered_to_what_was_stated(meter, ledger):
    request = {"model": "claude-sonnet-4-5", "max_tokens": 100, "stream": True, "messages": []}
    call = begun(meter, "https://api.anthropic.com/v1/messages", request)
    call.answered(200, SSE)
    delta = {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": "some more words " * 40},
    }
    start = (WIRE / "anthropic.sse").read_bytes().partition(b"event: content_block_delta")[0]
    call.feed(start)
    call.feed(b"event: content_block_delta\ndata: " + json.dumps(delta).encode() + b"\n\n")
    call.close("cancelled")
    [entry] = ledger.read()
    assert entry.usage["cache_read"] == 300
    assert entry.usage["output"] > 40
    assert entry.quality == "lower_bound"


def test_the_trace_of_the_caller_is_kept(meter, ledger, monkeypatch):
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    for value in (f"00-{trace}-{span}-01", "00-zz-yy-01", f"00-{'0' * 32}-{span}-01"):
        call = begun(meter, headers={"traceparent": value})
        call.answered(200, SSE)
        call.close("error")
    context = types.SimpleNamespace(is_valid=True, trace_id=0xABC, span_id=0x1)
    span_now = types.SimpleNamespace(get_span_context=lambda: context)
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", types.SimpleNamespace(get_current_span=lambda: span_now))
    call = begun(meter)
    call.answered(200, SSE)
    call.close("error")
    kept = [(entry.trace_id, entry.span_id) for entry in ledger.read()]
    assert kept == [(trace, span), (None, None), (None, None), (f"{0xABC:032x}", f"{1:016x}")]


def test_who_is_given_stands_in_the_place_of_the_run(meter, ledger):
    who = Who(tags=Tags(key="k1"), run_id="theirs", step="s", context={"processing": "batch"})
    call = begun(meter, who=who, provider="azure")
    call.answered(200, SSE)
    whole(call, (WIRE / "chat_with_usage.sse").read_bytes())
    [entry] = ledger.read()
    assert (dict(entry.tags), entry.run_id, entry.step, entry.provider) == ({"key": "k1"}, "theirs", "s", "azure")
    assert entry.context["processing"] == "batch"
    assert entry.tags["key"] == "k1"


def test_an_unknown_model_is_entered_and_never_free(meter, ledger):
    call = begun(meter, request={"model": "nobody-knows-it", "messages": []})
    call.answered(200, {"content-type": "application/json"})
    whole(call, b'{"model": "nor-this", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}')
    [entry] = ledger.read()
    assert (dict(entry.usage), entry.cost, entry.requested_model) == (
        {"input": 3, "output": 4},
        None,
        "nobody-knows-it",
    )
    assert json.loads(entry.usage_raw) == {"prompt_tokens": 3, "completion_tokens": 4}


def test_a_deployment_of_the_callers_own_is_priced_by_the_model_that_served(meter, ledger):
    call = begun(meter, request={"model": "my-deployment", "messages": []})
    call.answered(200, {"content-type": "application/json"})
    whole(call, (WIRE / "chat_completion.json").read_bytes())
    [entry] = ledger.read()
    assert entry.requested_model == "my-deployment"
    assert entry.amount.pico > 0
