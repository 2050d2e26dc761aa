"""Anthropic's formats."""

import json

import pytest

from tallystick.core.usage import Usage
from tallystick.errors import UsageError
from tallystick.wire.usage import read_response, read_usage

API = "anthropic.messages"


def read(**usage):
    return read_usage(API, {"input_tokens": 10, "output_tokens": 20, **usage})


def test_cache_is_outside_input():
    reading = read(cache_read_input_tokens=1000, cache_creation_input_tokens=300)
    assert reading.usage == Usage(input=10, cache_read=1000, cache_write=300, output=20)


def test_writes_by_time_to_live():
    split = {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200}
    reading = read(cache_creation_input_tokens=300, cache_creation=split)
    assert reading.usage == Usage(input=10, cache_write_5m=100, cache_write_1h=200, output=20)
    assert reading.fault is None
    assert read(cache_creation=split).usage == reading.usage
    assert read(cache_creation=split).fault is None


@pytest.mark.parametrize(("total", "unknown"), [(350, 50), (250, 0)])
def test_a_split_that_is_not_the_total_is_a_fault(total, unknown):
    split = {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200}
    reading = read(cache_creation_input_tokens=total, cache_creation=split)
    assert reading.usage == Usage(input=10, cache_write=unknown, cache_write_5m=100, cache_write_1h=200, output=20)
    assert reading.fault == f"{total} tokens written to the cache are not 100 for 5 minutes + 200 for 1 hour"


def test_thinking_is_inside_output():
    assert read(output_tokens_details={"thinking_tokens": 15}).usage == Usage(input=10, output=5, reasoning=15)
    assert read(output_tokens_details={"thinking_tokens": 20}).usage == Usage(input=10, reasoning=20)
    reading = read(output_tokens_details={"thinking_tokens": 21}, service_tier="priority")
    assert reading.usage is None
    assert reading.fault == "21 thinking tokens are more than the 20 of the output"
    assert reading.context == {"service_tier": "priority"}


def test_searches_cost_a_fee_and_fetches_do_not():
    reading = read(server_tool_use={"web_search_requests": 2, "web_fetch_requests": 5})
    assert reading.usage == Usage({"input": 10, "output": 20, "fee:web_search": 2})
    assert read(server_tool_use={"web_search_requests": 0}).usage == Usage(input=10, output=20)


def test_context():
    assert read(service_tier="batch").context == {"processing": "batch"}
    reading = read(service_tier="standard", speed="fast", inference_geo="us")
    assert reading.context == {"service_tier": "standard", "speed": "fast", "inference_geo": "us"}


def test_zero_input_and_output():
    assert read(input_tokens=0, output_tokens=0, cache_read_input_tokens=7).usage == Usage(cache_read=7)


def test_compactions_are_added_and_unknown_rounds_are_faults():
    message = {"type": "message", "input_tokens": 10, "output_tokens": 20}
    compaction = {
        "type": "compaction",
        "input_tokens": 1000,
        "output_tokens": 50,
        "cache_read_input_tokens": 5,
        "cache_creation_input_tokens": 7,
    }
    reading = read(iterations=[compaction, message])
    assert reading.usage == Usage(input=1010, cache_read=5, cache_write=7, output=70)
    assert reading.fault is None
    compaction["cache_creation"] = {"ephemeral_5m_input_tokens": 1}
    advisor = {"type": "advisor_message", "input_tokens": 3, "output_tokens": 4}
    faulty = read(iterations=[compaction, advisor, message], cache_creation_input_tokens=1, cache_creation={})
    assert faulty.usage == Usage(input=1010, cache_read=5, cache_write=7, cache_write_5m=1, output=70)
    assert faulty.fault == (
        "1 tokens written to the cache are not 0 for 5 minutes + 0 for 1 hour; "
        "7 tokens written to the cache are not 1 for 5 minutes + 0 for 1 hour; "
        "an iteration of type 'advisor_message' with 3 input and 4 output tokens is not counted"
    )


def test_sums_beyond_the_largest_count_are_refused():
    with pytest.raises(UsageError):
        read(input_tokens=2**53 - 1, iterations=[{"type": "compaction", "input_tokens": 1}])


def test_body():
    body = {
        "id": "msg_1",
        "type": "message",
        "model": "m",
        "content": [{"type": "text", "text": "hi"}],
        "usage": {
            "input_tokens": 3,
            "cache_creation_input_tokens": None,
            "cache_read_input_tokens": None,
            "cache_creation": None,
            "output_tokens": 4,
            "service_tier": "standard",
        },
    }
    reading = read_response(API, json.dumps(body).encode())
    assert reading.usage == Usage(input=3, output=4)
    assert (reading.model, reading.response_id) == ("m", "msg_1")
    assert reading.context == {"service_tier": "standard"}
    assert reading.fault is None
    error = {"type": "error", "error": {"type": "overloaded_error"}}
    assert read_response(API, json.dumps(error).encode()).usage is None


START = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "model": "m",
        "usage": {
            "input_tokens": 25,
            "cache_read_input_tokens": 5,
            "cache_creation": None,
            "output_tokens": 1,
            "service_tier": "standard",
        },
    },
}


def test_stream_takes_the_last_cumulative_value():
    events = [
        START,
        {"type": "message_delta", "usage": {"output_tokens": 100}},
        {"type": "message_delta", "usage": {"output_tokens": 150, "input_tokens": 30, "cache_read_input_tokens": None}},
    ]
    reading = read_usage(f"{API}.stream", events)
    assert reading.usage == Usage(input=30, cache_read=5, output=150)
    assert (reading.model, reading.response_id, reading.fault) == ("m", "msg_1", None)
    assert reading.context == {"service_tier": "standard"}
    assert read_response(f"{API}.stream", json.dumps(events).encode()) == reading


def test_a_stream_without_its_end_is_a_lower_bound():
    reading = read_usage(f"{API}.stream", [START, {"type": "ping"}])
    assert reading.usage == Usage(input=25, cache_read=5, output=1)
    assert reading.fault == "the stream ended before its output was counted"


@pytest.mark.parametrize(
    "events",
    [
        [],
        [{"type": "ping"}],
        [{"type": "message_start", "message": {}}],
        [{"type": "message_delta", "usage": {"output_tokens": 5}}],
        [{"usage": {"input_tokens": -1, "output_tokens": 1}}],
        {"usage": 1},
    ],
)
def test_streams_that_state_no_usage_are_refused(events):
    with pytest.raises(UsageError):
        read_usage(f"{API}.stream", events)
