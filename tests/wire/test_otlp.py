"""Spans as OpenTelemetry sends them: both encodings, what is a call, and what its counts mean."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.usage import Usage
from tallystick.errors import InputError
from tallystick.wire import otlp, otlp_json, otlp_protobuf
from tallystick.wire.otlp import Span
from tallystick.wire.otlp_calls import Ancestry, is_inference, read_call
from tallystick.wire.otlp_names import INFERENCE, NAMES, VERSION


def varint(value):
    value %= 2**64
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def field(number, value):
    """One field of a protobuf message, by the type of its value."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def fixed64(number, value):
    return varint(number << 3 | 1) + value.to_bytes(8, "little")


def any_value(value):
    if isinstance(value, bool):
        return field(2, int(value))
    if isinstance(value, str):
        return field(1, value)
    if isinstance(value, int):
        return field(3, value)
    if isinstance(value, float):
        return field(4, value)
    if isinstance(value, list):
        return field(5, b"".join(field(1, any_value(one)) for one in value))
    return field(7, value)


def pair(name, value):
    return field(1, name) + field(2, any_value(value))


def proto_span(attributes=(), *, trace=b"t" * 16, span=b"s" * 8, parent=b"", name="chat m", status=0, more=b""):
    return (
        field(1, trace) + field(2, span) + field(3, "state=x") + field(4, parent) + field(5, name) + field(6, 3)
        + fixed64(7, 1_700_000_000_000_000_001) + fixed64(8, 1_700_000_001_000_000_000)
        + b"".join(field(9, pair(key, value)) for key, value in dict(attributes).items())
        + field(15, field(2, "why") + field(3, status)) + varint(16 << 3 | 5) + b"\1\0\0\0" + more
    )  # fmt: skip


def proto_request(*spans, resource=(), scope="lib"):
    held = field(1, b"".join(field(1, pair(key, value)) for key, value in dict(resource).items()) + field(2, 0))
    inside = field(1, field(1, scope) + field(2, "1.0")) + b"".join(field(2, span) for span in spans)
    return field(1, field(2, inside + field(3, "https://schema")) + held) + field(7, b"unknown")


def test_protobuf_is_read():
    attributes = {"text": "é", "yes": True, "count": 5, "below": -5, "share": 0.25, "list": ["a", 1, "b"], "raw": b"\1"}
    body = proto_request(proto_span(attributes, parent=b"p" * 8, status=2), resource={"service.name": "app"})
    (span,) = otlp_protobuf.read_traces(body)
    assert span == Span(
        trace_id="74" * 16, span_id="73" * 8, parent="70" * 8, name="chat m",
        start_ns=1_700_000_000_000_000_001, end_ns=1_700_000_001_000_000_000,
        attributes={"text": "é", "yes": True, "count": 5, "below": -5, "share": 0.25, "list": ("a", "b")},
        resource={"service.name": "app"}, scope="lib", status=2,
    )  # fmt: skip


def test_an_empty_request_and_one_of_other_fields_hold_no_spans():
    assert otlp_protobuf.read_traces(b"") == []
    assert otlp_protobuf.read_traces(field(9, b"x") + field(1, field(7, b"x") + field(2, field(9, b"y")))) == []
    assert otlp_protobuf.read_traces(field(1, field(2, field(1, field(2, "1.0"))))) == []


def test_a_span_without_ids_is_passed_over():
    assert otlp_protobuf.read_traces(proto_request(proto_span(span=b""), proto_span(trace=b""))) == []


def test_pairs_and_values_of_odd_shape_are_passed_over():
    odd = [
        field(2, any_value("no key")), field(1, "no value"), field(1, "empty") + field(2, b""),
        field(1, "kvlist") + field(2, field(6, b"")), field(1, "x" * 300) + field(2, any_value(1)),
        field(1, "wrong") + field(2, field(1, 5) + field(2, "x") + field(3, "x") + field(4, "x") + field(5, 1)),
        field(1, "long") + field(2, any_value("y" * 5000)), field(3, "third"),
    ]  # fmt: skip
    (span,) = otlp_protobuf.read_traces(proto_request(proto_span(more=b"".join(field(9, one) for one in odd))))
    assert span.attributes == {}
    (span,) = otlp_protobuf.read_traces(
        field(1, field(1, field(3, b"z")) + field(2, field(2, proto_span() + field(15, field(3, "text")))))
    )
    assert (span.resource, span.scope, span.status) == ({}, "", 0)


@pytest.mark.parametrize(
    "body",
    [
        b"\x0a", b"\x0a\x05ab", b"\x0b", b"\x00\x00", b"\xff" * 20, b"\x09\0\0", b"{}",
        field(1, field(2, field(2, b"\x0a\xff"))),
    ],
)  # fmt: skip
def test_what_is_no_protobuf_is_refused(body):
    with pytest.raises(InputError):
        otlp_protobuf.read_traces(body)


def test_nesting_and_numbers_are_bounded(monkeypatch):
    deep = any_value("x")
    for _ in range(20):
        deep = field(5, field(1, deep))
    with pytest.raises(InputError, match="deeply"):
        otlp_protobuf.read_traces(proto_request(proto_span(more=field(9, field(1, "deep") + field(2, deep)))))
    monkeypatch.setattr(otlp, "MOST_ATTRIBUTES", 3)
    with pytest.raises(InputError, match="attributes"):
        otlp_protobuf.read_traces(proto_request(proto_span({f"a{n}": n for n in range(4)})))
    monkeypatch.setattr(otlp, "MOST_SPANS", 2)
    with pytest.raises(InputError, match="spans"):
        otlp_protobuf.read_traces(proto_request(*[proto_span()] * 3))


@given(st.binary(max_size=200))
def test_no_bytes_bring_the_reader_down(body):
    try:
        assert isinstance(otlp_protobuf.read_traces(body), list)
    except InputError as error:
        assert error.what


@given(st.data())
def test_no_change_of_a_request_brings_the_reader_down(data):
    body = bytearray(proto_request(proto_span({"a": 1, "b": ["x"], "c": 0.5})))
    for _ in range(data.draw(st.integers(1, 5))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        for span in otlp_protobuf.read_traces(bytes(body)):
            is_inference(span)
            read_call(span)
    except InputError as error:
        assert error.what


def test_the_answer_of_a_partial_success():
    assert otlp_protobuf.write_answer(0, "") == b""
    assert otlp_protobuf.write_answer(300, "é") == field(1, field(1, 300) + field(2, "é"))
    assert otlp_protobuf.write_answer(0, "look") == field(1, field(2, "look"))


def json_request(*spans, resource=None, scope=None):
    return json.dumps(
        {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": list(spans)}]}]}
    ).encode()


def json_span(attributes=(), **more):
    pairs = [{"key": name, "value": value} for name, value in dict(attributes).items()]
    return {"traceId": "AB" * 16, "spanId": "cd" * 8, "name": "chat m", "startTimeUnixNano": "1700000000000000001",
            "endTimeUnixNano": 1700000001000000000, "attributes": pairs, "kind": 3, "unknown": {"x": 1}, **more}  # fmt: skip


def test_json_is_read():
    attributes = {
        "text": {"stringValue": "é"}, "yes": {"boolValue": False}, "count": {"intValue": "5"}, "number": {"intValue": 6},
        "below": {"intValue": "-7"}, "share": {"doubleValue": 0.25}, "nothing": {}, "null": None, "silly": {"intValue": "x5"},
        "list": {"arrayValue": {"values": [{"stringValue": "a"}, {"intValue": "1"}, 3]}}, "odd": {"arrayValue": {"values": 3}},
    }  # fmt: skip
    body = json_request(
        json_span(attributes, parentSpanId="EF" * 8, status={"code": 2}),
        resource={"attributes": [{"key": "service.name", "value": {"stringValue": "app"}}]}, scope={"name": "lib"},
    )  # fmt: skip
    (span,) = otlp_json.read_traces(body)
    assert span == Span(
        trace_id="ab" * 16, span_id="cd" * 8, parent="ef" * 8, name="chat m",
        start_ns=1_700_000_000_000_000_001, end_ns=1_700_000_001_000_000_000,
        attributes={"text": "é", "yes": False, "count": 5, "number": 6, "below": -7, "share": 0.25, "list": ("a",), "odd": ()},
        resource={"service.name": "app"}, scope="lib", status=2,
    )  # fmt: skip


def test_json_with_little_in_it():
    assert otlp_json.read_traces(b"{}") == []
    assert otlp_json.read_traces(b'{"resourceSpans": [{}, {"scopeSpans": [{}]}]}') == []
    (span,) = otlp_json.read_traces(
        json_request(
            {"traceId": "ab", "spanId": "cd", "startTimeUnixNano": "soon", "endTimeUnixNano": "", "status": {}}
        )
    )
    assert (span.start_ns, span.end_ns, span.attributes, span.scope, span.status) == (0, 0, {}, "", 0)
    (span,) = otlp_json.read_traces(json_request(json_span(status={"code": "STATUS_CODE_ERROR"}), scope={}))
    assert span.status == 2
    assert otlp_json.read_traces(json_request(json_span(traceId="no hex"))) == []


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"resourceSpans": 1}', b"\xff", b'{"resourceSpans": [{"scopeSpans": "x"}]}', b"[" * 5000]
)
def test_what_is_no_json_of_spans_is_refused(body):
    with pytest.raises(InputError, match="no JSON of spans"):
        otlp_json.read_traces(body)


def span(identity="s1", parent="", trace="t1", status=0, resource=None, **attributes):
    named = {name.replace("__", "."): value for name, value in attributes.items()}
    return Span(
        trace_id=trace, span_id=identity, parent=parent, attributes=named, resource=resource or {}, status=status
    )


CHAT = {"gen_ai__operation__name": "chat", "gen_ai__request__model": "m"}


def test_gen_ai_counts_are_cut_into_kinds_that_do_not_overlap():
    call = read_call(
        span(
            **CHAT, gen_ai__provider__name="aws.bedrock", gen_ai__response__model="m-2026", gen_ai__response__id="r-1",
            gen_ai__usage__input_tokens=1000, gen_ai__usage__output_tokens=50,
            **{"gen_ai.usage.cache_read.input_tokens": 600, "gen_ai.usage.cache_write.input_tokens": 100,
               "gen_ai.usage.reasoning.output_tokens": 20, "openai.response.service_tier": "flex"},
        )
    )  # fmt: skip
    assert call.usage == (Usage(input=300, cache_read=600, cache_write=100, output=30, reasoning=20), None)
    assert (call.model, call.requested_model, call.provider, call.response_id) == ("m-2026", "m", "aws", "r-1")
    assert (call.tier, call.api, call.failed) == ("flex", "otlp.gen_ai", False)
    assert call.stated["input"] == 1000


@pytest.mark.parametrize(
    "names",
    [
        ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "gen_ai.usage.cache_creation.input_tokens"),
        ("gen_ai.usage.prompt_tokens", "gen_ai.usage.completion_tokens", "gen_ai.usage.cache_creation_input_tokens"),
        ("llm.token_count.prompt", "llm.token_count.completion", "llm.token_count.prompt_details.cache_write"),
    ],
)
def test_every_spelling_of_the_counts_means_the_same(names):
    call = read_call(span(**CHAT, **dict(zip(names, (10, 4, 3), strict=True))))
    assert call.usage == (Usage(input=7, cache_write=3, output=4), None)


def test_openinference_counts_and_names():
    call = read_call(
        span(
            status=2, resource={"service.name": "shop"},
            **{"openinference.span.kind": "LLM", "llm.model_name": "m", "llm.provider": "x_ai", "llm.token_count.prompt": 10.0,
               "llm.token_count.completion": 5, "llm.token_count.total": 15, "llm.token_count.prompt_details.audio": 2,
               "llm.token_count.completion_details.audio": 1, "session.id": "s", "user.id": "ada"},
        )
    )  # fmt: skip
    assert call.usage == (Usage(input=8, audio_input=2, output=4, audio_output=1), None)
    assert (call.provider, call.api, call.run, call.failed) == ("x-ai", "otlp.openinference", "s", True)
    assert call.tags == {"user": "ada", "service": "shop"}


def test_our_own_names_say_whose_call_it_is():
    call = read_call(
        span(
            resource={"service.name": "unknown_service:python"}, tally__team="a", tally__run="r", gen_ai__conversation__id="c",
            tally__step="plan", gen_ai__agent__name="agent", error__type="timeout", **CHAT,
        )
    )  # fmt: skip
    assert (call.tags, call.run, call.step, call.failed) == ({"team": "a", "agent": "agent"}, "r", "plan", True)
    assert (call.usage, call.provider, call.stated) == ((None, None), None, {})


def test_parts_above_their_whole_are_a_fault_and_no_usage():
    usage, fault = read_call(
        span(**CHAT, **{"gen_ai.usage.input_tokens": 10, "gen_ai.usage.cache_read.input_tokens": 600})
    ).usage
    assert usage is None
    assert "600" in fault


@pytest.mark.parametrize("count", [-1, 2**60, "12", 1.5, True, ("1",)])
def test_a_count_that_makes_no_sense_is_refused(count):
    with pytest.raises(InputError, match="number of input tokens"):
        read_call(span(**CHAT, **{"gen_ai.usage.input_tokens": count}))


def test_a_span_without_a_model_is_refused():
    with pytest.raises(InputError, match="names no model"):
        read_call(span(gen_ai__operation__name="chat", gen_ai__request__model=" "))


@pytest.mark.parametrize(
    ("attributes", "whether"),
    [
        (CHAT, True),
        (
            {
                "gen_ai__operation__name": "invoke_agent",
                "gen_ai__request__model": "m",
                "gen_ai__usage__input_tokens": 5,
            },
            False,
        ),
        ({"gen_ai__operation__name": "execute_tool"}, False),
        ({"openinference__span__kind": "LLM"}, True),
        ({"openinference__span__kind": "AGENT"}, False),
        ({"gen_ai__request__model": "m", "gen_ai__usage__output_tokens": 5}, True),
        ({"gen_ai__request__model": "m"}, False),
        ({"gen_ai__usage__output_tokens": 5}, False),
        ({"http__method": "GET"}, False),
    ],
)
def test_which_spans_are_calls(attributes, whether):
    assert is_inference(span(**attributes)) is whether


def ids(spans):
    return [one.span_id for one in spans]


def test_only_the_innermost_calls_count():
    agent = span("agent", gen_ai__operation__name="invoke_agent", gen_ai__usage__input_tokens=30)
    outer = span("outer", "agent", **CHAT)
    between = span("between", "outer")
    inner = span("inner", "between", **CHAT)
    alone = span("alone", "agent", **CHAT)
    same_id_elsewhere = span("outer", trace="t2", **CHAT)
    spans = [agent, outer, between, inner, alone, same_id_elsewhere]
    for order in (spans, spans[::-1]):
        assert {(one.trace_id, one.span_id) for one in Ancestry().leaves(order)} == {
            ("t1", "inner"),
            ("t1", "alone"),
            ("t2", "outer"),
        }


def test_an_outer_call_is_known_in_a_later_batch():
    ancestry = Ancestry()
    assert ids(ancestry.leaves([span("inner", "between", **CHAT)])) == ["inner"]
    assert ids(ancestry.leaves([span("between", "outer")])) == []
    assert ids(ancestry.leaves([span("outer", **CHAT)])) == []
    assert ids(ancestry.leaves([span("second", "between", **CHAT)])) == ["second"]


def test_parents_in_a_ring_end_and_memory_is_bounded():
    ancestry = Ancestry(2)
    assert ids(ancestry.leaves([span("a", "b", **CHAT), span("b", "a", **CHAT)])) == []
    assert len(ids(ancestry.leaves([span(f"c{n}", f"p{n}", **CHAT) for n in range(5)]))) == 5
    assert len(ancestry._around) == 2


def test_the_table_has_a_version_and_no_name_twice_within_a_row():
    assert VERSION
    assert all(len(set(names)) == len(names) for names in NAMES.values())
    assert all(name == name.lower() for name in INFERENCE)
