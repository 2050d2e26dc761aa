"""What is changed on the wire can be taken back byte for byte, and what we say ourselves is what the formats say."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.wire.facts import request_facts
from tallystick.wire.heard import Ending
from tallystick.wire.reader import reader_for
from tallystick.wire.transform import Gate, UsageFilter, end_event, inject_usage, refusal

DATA = Path(__file__).parents[1] / "data" / "wire"
SAMPLES = [case for file in sorted(DATA.glob("samples_*.json")) for case in json.loads(file.read_text())]
FEW = settings(max_examples=max(5, settings().max_examples // 6))
CUTS = st.lists(st.integers(0, 100_000), max_size=8)


def pieces(data, cuts):
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


ASK = b'"stream_options":{"include_usage":true}'


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        (b'{"stream":true}', b"{" + ASK + b',"stream":true}'),
        (b' {\n "model" : "m", "stream": true}\n', b" {" + ASK + b',\n "model" : "m", "stream": true}\n'),
        (b'{"stream":true,"stream_options":null}', b'{"stream":true,' + ASK + b"}"),
        (b'{"stream":true,"stream_options" : {}}', b'{"stream":true,"stream_options" : {"include_usage":true}}'),
        (b'{"stream_options":{ "include_obfuscation":false},"stream":true}',
         b'{"stream_options":{"include_usage":true, "include_obfuscation":false},"stream":true}'),
        (b'{"stream_options":{"include_usage": false,"x":{"include_usage":false}},"stream":true}',
         b'{"stream_options":{"include_usage": true,"x":{"include_usage":false}},"stream":true}'),
        (b'{"x":{"stream_options":null},"stream":true,"stream_options":null}',
         b'{"x":{"stream_options":null},"stream":true,' + ASK + b"}"),
        (b'{"stream_options":null,"stream":true,"stream_options":{}}',
         b'{"stream_options":null,"stream":true,' + ASK + b"}"),
        (b'{"stream":true,"stream_options":{"include_usage":true}}', None),
        (b'{"stream":true,"stream_options":5}', None),
        (b'{"stream":true,"stream\\u005foptions":null}', None),
        (b'{"stream":true,"stream_options":{"include\\u005fusage":false}}', None),
        (b'{"stream":false}', None),
        (b'{"stream":"true"}', None),
        (b"{}", None),
        (b"[]", None),
        (b"\xff", None),
        (b"", None),
    ],
)  # fmt: skip
def test_injection(body, changed):
    assert inject_usage(body) == changed
    if changed is not None:
        assert inject_usage(changed) is None
        facts = request_facts("POST", "/v1/chat/completions", {}, changed)
        assert facts.usage_asked
        before, after = json.loads(body), json.loads(changed)
        del after["stream_options"]
        before.pop("stream_options", None)
        assert before == after


TEXTS = st.text(max_size=8) | st.sampled_from(['"usage":null', ',"usage":null', '{"stream_options":null}', "\\"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS | st.sampled_from(["usage", "stream_options", "choices"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(st.dictionaries(TEXTS, VALUES, max_size=4), st.integers(0, 4), st.sampled_from([(",", ":"), (", ", ": ")]))
def test_injection_into_anything(body, place, marks):
    body = list({**body, "stream": True}.items())
    body.insert(place, body.pop())
    body = dict(body)
    changed = inject_usage(json.dumps(body, separators=marks).encode())
    assert json.loads(changed) == {**body, "stream_options": {"include_usage": True}}


def strip(parts):
    hide = UsageFilter()
    return b"".join(map(hide.feed, parts)) + hide.close()


WITH, WITHOUT = ((DATA / f"chat_{name}_usage.sse").read_bytes() for name in ("with", "without"))


@given(CUTS)
def test_stripped_streams_are_those_without_the_option(cuts):
    assert strip(pieces(WITH, cuts)) == WITHOUT
    assert strip([WITH[at : at + 1] for at in range(len(WITH))]) == WITHOUT
    events = [event + b"\n\n" for event in WITH.split(b"\n\n")[:-1]]
    assert strip(events) == WITHOUT
    assert strip(pieces(WITH.replace(b"\n", b"\r\n"), cuts)) == WITHOUT.replace(b"\n", b"\r\n")
    assert strip(pieces(WITHOUT, cuts)) == WITHOUT


@given(
    st.lists(st.dictionaries(TEXTS | st.sampled_from(["id", "x_usage"]), VALUES, max_size=3), max_size=4),
    st.integers(0, 3), st.sampled_from([(",", ":"), (", ", ": ")]), st.sampled_from(["\n", "\r\n", "\r"]), CUTS,
)  # fmt: skip
def test_any_stream_comes_back(chunks, place, marks, end, cuts):
    plain, full = "", ""
    for chunk in chunks:
        kept = {**chunk, "choices": [{"delta": {"content": "x"}}]}
        kept.pop("usage", None)
        asked = list(kept.items())
        asked.insert(place, ("usage", None))
        plain += f"data: {json.dumps(kept, separators=marks)}{end}{end}"
        full += f"data: {json.dumps(dict(asked), separators=marks)}{end}{end}"
    last = {"id": "x", "choices": [], "usage": {"prompt_tokens": 1, "details": {"usage": None}}}
    full += f"data: {json.dumps(last, separators=marks)}{end}{end}"
    done = f"data: [DONE]{end}{end}"
    assert strip(pieces((full + done).encode(), cuts)) == (plain + done).encode()


@pytest.mark.parametrize(
    ("event", "stripped"),
    [
        (b'data: {"choices":[{}],"usage":{"a":1}}\n\n', b'data: {"choices":[{}]}\n\n'),
        (b'data: {"usage":null}\n\n', b"data: {}\n\n"),
        (b'data: {"usage": {"a": 1}, "choices":[{}]}\n\n', b'data: {"choices":[{}]}\n\n'),
        (b'data: {"x":{"usage":null}}\n\n', b'data: {"x":{"usage":null}}\n\n'),
        (b'data: {"x":{"usage":null},"usage":null}\n\n', b'data: {"x":{"usage":null}}\n\n'),
        (b'data: {"usage":null\n\n', b'data: {"usage":null\n\n'),
        (b'data: "usage"\n\n', b'data: "usage"\n\n'),
        (b'data: {"u\\u0073age":{"a":1},"x":"usage","choices":[1]}\n\n', None),
        (b'data: {"choices":[],\ndata: "usage":{"a":1}}\n\n', b""),
        (b'data: {"choices":[1],\ndata: "usage":\ndata:{"a":1}}\n\n', None),
        (b': "usage"\n\n', None),
        (b'data: {"usage":null,"usage":{"a":1},"choices":[1]}\n\n', None),
        (b'data: {"choices":[{}],"usage":null}', b'data: {"choices":[{}]}'),
    ],
)
def test_single_events(event, stripped):
    assert strip([event]) == (event if stripped is None else stripped)


@given(st.lists(st.binary(max_size=50) | st.sampled_from([b'"usage":null', b"data: {", b"}", b"\n\n", b'"usage":'])))
def test_garbage_passes(parts):
    hide = UsageFilter()
    raw = b"".join(parts)
    passed = b"".join(map(hide.feed, parts)) + hide.close()
    assert len(passed) <= len(raw)
    if b'"usage"' not in raw:
        assert passed == raw


STREAMS = [case for case in SAMPLES if (case["status"] == 200 and case["request"].get("stream", True)
           and not case["file"].endswith(".json")) or case["file"] == "gemini_array.json"]  # fmt: skip
ENDS = [
    case for case in STREAMS
    if not case["url"].endswith(("generations", "transcriptions", "speech")) and case["file"] != "cohere_v1.jsonl"
]  # fmt: skip


@pytest.mark.parametrize("case", STREAMS, ids=lambda case: case["file"])
@FEW
@given(cuts=CUTS)
def test_gates_let_everything_through(case, cuts):
    raw = (DATA / case["file"]).read_bytes()
    gate = Gate(case["content_type"])
    assert b"".join(map(gate.feed, pieces(raw, cuts))) + gate.rest() == raw
    assert gate.rest() == b""


def test_a_gate_for_what_is_no_stream():
    gate = Gate("audio/mpeg")
    assert gate.feed(b"half") == b"half"
    assert gate.rest() == b""


@pytest.mark.parametrize("case", ENDS, ids=lambda case: case["file"])
@FEW
@given(place=st.floats(0, 1), reason=st.sampled_from(["length", "stop"]))
def test_a_stream_can_be_ended_anywhere(case, place, reason):
    raw = (DATA / case["file"]).read_bytes()
    facts = request_facts("POST", case["url"], {}, json.dumps(case["request"]).encode())
    headers = {"content-type": case["content_type"]}
    gate = Gate(case["content_type"])
    passed = gate.feed(raw[: int(place * len(raw))])
    before = reader_for(facts, 200, headers)
    before.feed(passed)
    if before.ended:
        return
    last = end_event(facts.api, reason, before.ending(), array=case["file"] == "gemini_array.json")
    after = reader_for(facts, 200, headers)
    after.feed(passed)
    after.feed(last)
    outcome = after.close()
    assert outcome.ended
    assert outcome.unread == 0
    assert outcome.finish.lower() in ("length", "max_tokens", "max_output_tokens", "stop", "end_turn", "completed", "complete")  # fmt: skip
    if case["file"] == "gemini_array.json":
        json.loads(passed + last)


def test_the_last_words_of_each_format():
    assert end_event("openai.chat", "length", Ending("m", "id", 7)) == (
        b'data: {"id":"id","object":"chat.completion.chunk","created":7,"model":"m","choices":'
        b'[{"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}]}\n\ndata: [DONE]\n\n'
    )
    assert end_event("mistral.chat", "stop", Ending(open_parts=(0, 1))).count(b'"finish_reason":"stop"') == 2
    events = end_event("anthropic.messages", "length", Ending(open_parts=(2,), started=True, output_tokens=5))
    assert events == (
        b'event: content_block_stop\ndata: {"type":"content_block_stop","index":2}\n\n'
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"max_tokens","stop_sequence":null}'
        b',"usage":{"output_tokens":5}}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n'
    )
    assert end_event("anthropic.messages").startswith(b"event: message_start\n")
    begun = end_event("openai.responses", ending=Ending("m", "r", 7, (), 4, started=True))
    assert begun.startswith(b'event: response.incomplete\ndata: {"type":"response.incomplete","sequence_number":4,')
    assert b'"incomplete_details":{"reason":"max_output_tokens"}' in begun
    assert end_event("openai.responses").startswith(b"event: response.created\n")
    assert end_event("gemini.generateContent", array=True).startswith(b'[{"candidates"')
    assert b'"finishReason":"MAX_TOKENS"' in end_event("gemini.generateContent")
    assert b"messageStart" not in end_event("bedrock.converse", ending=Ending(started=True))
    assert end_event("openai.images") == end_event("openai.embeddings") == b""


def body_of(api, **options):
    status, headers, raw = refusal(api, "No.", **options)
    assert headers["content-length"] == str(len(raw))
    assert headers["x-should-retry"] == "false"
    return status, headers, json.loads(raw)


def test_refusals():
    status, headers, body = body_of("openai.chat", retry_after=60)
    assert (status, headers["retry-after"]) == (429, "60")
    assert body == {"error": {"message": "No.", "type": "insufficient_quota", "param": None, "code": "budget_exceeded"}}
    assert "retry-after" not in body_of("openai.chat")[1]
    status, _, body = body_of("anthropic.messages")
    assert (status, body["type"], body["error"]) == (429, "error", {"type": "rate_limit_error", "message": "No."})
    assert body_of("anthropic.messages", status=500)[2]["error"]["type"] == "api_error"
    status, _, body = body_of("gemini.generateContent")
    assert (status, body) == (429, {"error": {"code": 429, "message": "No.", "status": "RESOURCE_EXHAUSTED"}})
    status, headers, body = body_of("bedrock.converse")
    assert (status, headers["x-amzn-errortype"], body) == (400, "ServiceQuotaExceededException", {"message": "No."})
    assert body_of("bedrock.invoke", status=500)[:2][0] == 500
    assert body_of("cohere.chat")[2] == {"message": "No."}
    assert body_of("ollama.chat")[2] == {"error": "No."}
    assert body_of("mistral.chat", status=401, code="bad_key")[2] == {
        "object": "error", "message": "No.", "type": "authentication_error", "param": None, "code": "bad_key",
    }  # fmt: skip
    for api in ("openai.responses", "anthropic.messages", "gemini.generateContent", "mistral.chat"):
        facts = request_facts("POST", "/v1/messages", {}, b"{}")
        status, headers, raw = refusal(api, "No.")
        reader = reader_for(facts, status, headers)
        reader.feed(raw)
        outcome = reader.close()
        assert (outcome.usage, outcome.ended) == (None, True)
