"""Every sample of a provider's wire, under any split of its bytes, comes to the same outcome; hostile bytes never raise."""

import gzip
import json
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.core.usage import Usage
from tallystick.wire.facts import RequestFacts, request_facts
from tallystick.wire.heard import Heard
from tallystick.wire.reader import reader_for

DATA = Path(__file__).parents[1] / "data" / "wire"
SAMPLES = [case for file in sorted(DATA.glob("samples_*.json")) for case in json.loads(file.read_text())]
FEW = settings(max_examples=max(5, settings().max_examples // 6))
CUTS = st.lists(st.integers(0, 100_000), max_size=8)


def facts_of(case):
    return request_facts("POST", case["url"], {}, json.dumps(case["request"]).encode())


def headers_of(case, raw):
    return {"content-type": case["content_type"], "content-length": str(len(raw)), **case.get("headers", {})}


def run(case, parts, *, want_text=True, reason="end", headers=None):
    headers = headers_of(case, b"".join(parts)) if headers is None else headers
    reader = reader_for(facts_of(case), case["status"], headers, want_text=want_text)
    seen = [progress for part in parts if (progress := reader.feed(part)) is not None]
    return reader.close(reason), seen


def pieces(data, cuts):
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@pytest.mark.parametrize("case", SAMPLES, ids=lambda case: case["file"])
def test_outcomes(case):
    raw = (DATA / case["file"]).read_bytes()
    outcome, seen = run(case, [raw])
    expect = dict(case["expect"])
    assert (None if outcome.usage is None else dict(outcome.usage)) == expect.pop("usage")
    if "text" in expect:
        assert "".join(progress.text_delta for progress in seen) == expect.pop("text")
    if "reported_usd" in expect:
        assert outcome.reported.to_decimal() == Decimal(expect.pop("reported_usd"))
    if "context" in expect:
        assert dict(outcome.context) == expect.pop("context")
    found = {name: getattr(outcome, name) for name in expect}
    assert found == expect
    assert outcome.response_bytes == len(raw)
    assert outcome.unread == 0
    assert case.get("raw") or (outcome.usage_raw is not None) == (outcome.usage is not None)


@pytest.mark.parametrize("case", SAMPLES, ids=lambda case: case["file"])
@FEW
@given(cuts=CUTS)
def test_any_split_gives_the_same_outcome(case, cuts):
    raw = (DATA / case["file"]).read_bytes()
    expected, whole = run(case, [raw])
    outcome, seen = run(case, pieces(raw, cuts))
    assert outcome == expected
    assert "".join(progress.text_delta for progress in seen) == "".join(progress.text_delta for progress in whole)
    assert sum(progress.output_bytes for progress in seen) <= outcome.text_bytes
    if whole and whole[-1].ended:
        assert [progress.ended for progress in seen][-1]


@pytest.mark.parametrize("case", SAMPLES, ids=lambda case: case["file"])
def test_single_bytes_and_compressed_bodies_too(case):
    raw = (DATA / case["file"]).read_bytes()
    expected, _ = run(case, [raw])
    outcome, seen = run(case, [raw[at : at + 1] for at in range(len(raw))], want_text=False)
    assert outcome == expected
    assert not any(progress.text_delta for progress in seen)
    packed = gzip.compress(raw)
    headers = {**headers_of(case, packed), "content-encoding": "gzip"}
    for parts in ([packed], [packed[at : at + 1] for at in range(len(packed))]):
        outcome, _ = run(case, parts, headers=headers)
        assert outcome.usage == expected.usage
        assert (outcome.quality, outcome.ended, outcome.finish) == (expected.quality, expected.ended, expected.finish)


@pytest.mark.parametrize("case", SAMPLES, ids=lambda case: case["file"])
@FEW
@given(data=st.data())
def test_damaged_streams_never_raise_and_never_claim_more(case, data):
    raw = bytearray((DATA / case["file"]).read_bytes())
    end = data.draw(st.integers(0, len(raw)))
    outcome, _ = run(case, [bytes(raw[:end])], reason="error")
    assert outcome.quality in ("exact", "estimated", "lower_bound", "unknown")
    if end < len(raw) // 3:
        assert outcome.quality in ("lower_bound", "unknown")
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    run(case, pieces(bytes(raw), data.draw(CUTS)))


@given(st.sampled_from(SAMPLES), st.lists(st.binary(max_size=80), max_size=5), st.sampled_from(["", "gzip", "br", "x"]))
def test_garbage_never_raises(case, parts, encoding):
    outcome, _ = run(case, parts, headers={"content-type": case["content_type"], "content-encoding": encoding})
    assert outcome.usage is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["id", "type", "model", "usage", "choices", "delta", "content", "text", "index", "error", "message", "response", "finish_reason", "stop_reason", "x_groq", "tool_calls", "candidates", "parts", "usageMetadata", "output", "status", "bytes", "prompt_tokens", "input_tokens", "output_tokens", "promptTokenCount", "inputTokens", "contentBlock", "contentBlockIndex", "done", "eval_count"]
    ), inner, max_size=5),
    max_leaves=12,
)  # fmt: skip


@given(st.sampled_from(SAMPLES), st.lists(JSON, max_size=4))
def test_json_of_any_other_shape_never_raises(case, values):
    lines = [json.dumps(value) for value in values]
    raw = "".join(f"data: {line}\n\n" for line in lines).encode()
    run(case, [raw])
    run(case, ["\n".join(lines).encode()])
    run(case, [f"[{','.join(lines)}]".encode()])


def stream(*events, url="https://api.openai.com/v1/chat/completions", request=None, kind="text/event-stream", **more):
    case = {"url": url, "request": request or {"stream": True}, "content_type": kind, "status": 200, **more}
    raw = b"".join(b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n" for event in events)  # fmt: skip
    return run(case, [raw])


USAGE = {"prompt_tokens": 3, "completion_tokens": 2}
HI = {"choices": [{"delta": {"content": "Hi"}}]}


def test_odd_chunks_of_a_chat():
    outcome, _ = stream({**HI, "id": 7}, HI, {"choices": None, "usage": USAGE}, b" [DONE] ")
    assert (outcome.usage, outcome.quality, outcome.text_bytes) == (Usage(input=3, output=2), "exact", 4)
    outcome, _ = stream({"choices": [{"delta": {"content": 5}}], "usage": USAGE}, {"choices": 3, "error": "no"})
    assert (outcome.usage, outcome.quality, outcome.unread) == (Usage(input=3, output=2), "lower_bound", 2)
    assert outcome.error == "no"
    assert outcome.text_bytes > 20
    outcome, _ = stream({"error": {"code": 5}, "usage": {"prompt_tokens": -1}})
    assert outcome.error == "error"
    assert outcome.fault.startswith("a usage could not be read")
    assert outcome.quality == "unknown"
    outcome, _ = stream({"usage": {**USAGE, "total_tokens": 9}}, b"[DONE]")
    assert (outcome.quality, "stated total" in outcome.fault) == ("estimated", True)
    outcome, _ = stream({"usage": USAGE}, {"usage": {"prompt_tokens": "x"}}, b"[DONE]")
    assert (outcome.usage, outcome.quality) == (Usage(input=3, output=2), "estimated")
    outcome, _ = stream({"usage": {**USAGE, "x": "y" * 5000}}, b"[DONE]")
    assert (outcome.usage_raw, outcome.quality) == (None, "exact")


def test_every_kind_of_delta_counts():
    deltas = [
        {"reasoning": "ab"}, {"refusal": "cd"}, {"audio": {"transcript": "ef"}}, {"audio": {"data": "xxxx"}},
        {"function_call": {"name": "g", "arguments": "h"}}, {"tool_calls": [{}, {"function": {}}]},
        {"content": ["x", {"thinking": "ij"}, {"text": 3}, {"thinking": ["y"]}]}, {"content": "\ud800"},
    ]  # fmt: skip
    outcome, seen = stream(*[{"choices": [{"delta": delta}]} for delta in deltas])
    assert "".join(progress.text_delta for progress in seen) == "abcdefij"
    assert outcome.text_bytes == 10 + len(json.dumps({"choices": [{"delta": deltas[-1]}]}))
    assert outcome.unread == 1


def test_groq_says_its_errors_aside():
    outcome, _ = stream({"x_groq": {"id": "r", "error": "over capacity"}}, {"x_groq": {"usage": None}})
    assert outcome.error == "over capacity"
    outcome, _ = stream({"x_groq": {"usage": {"prompt_tokens": 1}}, "usage": USAGE}, b"[DONE]")
    assert outcome.usage == Usage(input=3, output=2)


def test_a_reader_once_closed_stays_closed():
    facts = facts_of(SAMPLES[0])
    reader = reader_for(facts, 200, {"content-type": "text/event-stream"})
    first = reader.close("cancelled")
    assert reader.feed(b"data: [DONE]\n\n") is None
    assert reader.close("end") is first
    assert (first.reason, first.quality, first.ended, reader.ended) == ("cancelled", "unknown", False, False)


def test_a_server_that_ignores_stream_answers_whole():
    body = json.dumps({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}).encode()
    case = {"url": "http://h/v1/chat/completions", "request": {"stream": True}, "content_type": "application/json"}
    outcome, _ = run({**case, "status": 200}, [body])
    assert (outcome.usage, outcome.quality, outcome.finish, outcome.text_bytes) == (None, "lower_bound", "stop", 2)
    outcome, _ = run({**case, "status": 200}, [b"<html>"])
    assert (outcome.unread, outcome.text_bytes, outcome.quality) == (1, 6, "lower_bound")
    outcome, _ = run({**case, "status": 200}, [b'{"choices":5}'])
    assert outcome.finish is None
    outcome, _ = run({**case, "status": 200}, [body], reason="error", headers={"content-type": "application/json"})
    assert (outcome.ended, outcome.quality) == (False, "lower_bound")


def test_bodies_beyond_the_bound(monkeypatch):
    facts = RequestFacts("openai.chat", "openai", "/")
    reader = reader_for(facts, 200, {})
    reader._framing.limit = 10
    reader.feed(b'{"usage":{"prompt_tokens":1}}')
    outcome = reader.close()
    assert (outcome.usage, outcome.quality, outcome.response_bytes) == (None, "lower_bound", 29)
    assert "larger than" in outcome.fault


def test_fees_are_named():
    case = {"url": "https://openrouter.ai/api/v1/chat/completions", "request": {}, "content_type": "", "status": 200}
    body = {"usage": {**USAGE, "server_tool_use": {"web_search_requests": 2}}}
    outcome, _ = run(case, [json.dumps(body).encode()])
    assert outcome.fees == {"fee:web_search": 2}
    outcome, _ = run(case, [b"{}"])
    assert outcome.fees == {}


def test_speech_is_counted_from_the_request():
    case = {"url": "https://api.openai.com/v1/audio/speech", "content_type": "audio/mpeg", "status": 200}
    outcome, _ = run({**case, "request": {"input": "Hi there"}}, [b"\xff\xfb\n\x90\n"])
    assert (outcome.usage, outcome.quality) == (Usage(characters_input=8), "estimated")
    outcome, _ = run({**case, "request": {"input": 5}}, [b"\xff\n"])
    assert (outcome.usage, outcome.quality) == (None, "unknown")
    outcome, _ = run({**case, "request": {"input": "Hi"}}, [b""])
    assert outcome.usage is None
    outcome, _ = run({**case, "request": {"input": "Hi"}, "status": 400}, [b'{"error":{"code":"bad"}}'])
    assert (outcome.usage, outcome.error) == (None, "bad")


def test_the_common_part_hears_nothing_by_itself():
    with pytest.raises(NotImplementedError):
        Heard(RequestFacts("openai.chat", "openai", "/")).hear(b"")
