"""OpenAI's formats."""

import json

import pytest

from tallystick.core.usage import Usage
from tallystick.wire.usage import read_response, read_usage


def response(api, **body):
    return read_response(api, json.dumps(body).encode())


def chat(prompt=100, completion=50, total=None, inside=None, made=None):
    return read_usage(
        "openai.chat",
        {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion if total is None else total,
            "prompt_tokens_details": inside,
            "completion_tokens_details": made,
        },
    )


def test_cached_written_and_reasoning_are_inside():
    reading = chat(inside={"cached_tokens": 60, "cache_write_tokens": 30}, made={"reasoning_tokens": 20})
    assert reading.usage == Usage(input=10, cache_read=60, cache_write=30, output=30, reasoning=20)
    assert list(reading.usage) == ["input", "cache_read", "cache_write", "output", "reasoning"]
    assert reading.fault is None


def test_wholly_cached_prompt_has_no_input():
    assert chat(inside={"cached_tokens": 100}, completion=0).usage == Usage(cache_read=100)
    assert chat(prompt=0, made={"reasoning_tokens": 50}).usage == Usage(reasoning=50)
    assert chat(prompt=0, completion=0).usage == Usage()


def test_prediction_tokens_are_billed_as_output():
    made = {"accepted_prediction_tokens": 10, "rejected_prediction_tokens": 20}
    assert chat(made=made).usage == Usage(input=100, output=50)


def test_audio_and_images_are_inside():
    inside = {"audio_tokens": 30, "image_tokens": 20, "text_tokens": 50}
    made = {"audio_tokens": 40, "text_tokens": 10}
    expected = Usage(input=50, audio_input=30, image_input=20, output=10, audio_output=40)
    assert chat(inside=inside, made=made).usage == expected


def test_cached_tokens_by_modality():
    inside = {
        "cached_tokens": 60,
        "audio_tokens": 50,
        "image_tokens": 10,
        "cached_tokens_details": {"text_tokens": 30, "audio_tokens": 25, "image_tokens": 5},
    }
    expected = Usage(
        input=10, cache_read=30, audio_input=25, audio_cache_read=25, image_input=5, image_cache_read=5, output=50
    )
    reading = chat(inside=inside)
    assert reading.usage == expected
    assert reading.usage.input_tokens == 100


@pytest.mark.parametrize(
    ("inside", "made", "numbers"),
    [
        ({"cached_tokens": 101}, None, "101 cached and 0 cache-written tokens are more than the 100"),
        ({"cached_tokens": 60, "cache_write_tokens": 41}, None, "60 cached and 41 cache-written"),
        ({"audio_tokens": 101}, None, "100 tokens: input -1 would remain"),
        ({"audio_tokens": 80, "cached_tokens": 90}, None, "input -70 would remain"),
        ({"audio_tokens": 5, "cached_tokens": 9, "cached_tokens_details": {"audio_tokens": 9}}, None, "audio_input -4"),
        (None, {"reasoning_tokens": 51}, "51 reasoning tokens are more than the 50"),
        (None, {"reasoning_tokens": 21, "audio_tokens": 30}, "fit into its 50 tokens: output -1 would remain"),
        ({"cached_tokens": 101}, {"reasoning_tokens": 1}, "101 cached"),
    ],
)
def test_parts_above_the_whole_are_unknown_usage_with_the_numbers(inside, made, numbers):
    reading = chat(inside=inside, made=made)
    assert reading.usage is None
    assert numbers in reading.fault


def test_a_wrong_total_is_a_fault_and_the_parts_stand():
    reading = chat(total=151)
    assert reading.usage == Usage(input=100, output=50)
    assert reading.fault == "the stated total of 151 tokens is not 100 input + 50 output"


def test_a_missing_total_is_no_fault():
    assert read_usage("openai.chat", {"prompt_tokens": 3}).fault is None


def test_chat_body():
    reading = response(
        "openai.chat",
        id="chatcmpl-1",
        model="m-2026-01-01",
        service_tier="flex",
        choices=[{"message": {"content": "hi"}}],
        usage={"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
    )
    assert (reading.usage, reading.model, reading.response_id) == (
        Usage(input=9, output=2),
        "m-2026-01-01",
        "chatcmpl-1",
    )
    assert reading.context == {"service_tier": "flex"}
    assert response("openai.chat", usage={"prompt_tokens": 9}).context == {}


def test_bodies_without_usage_are_unknown_not_zero():
    error = {"message": "no", "type": "invalid_request_error"}
    for api in ("openai.chat", "openai.responses", "openai.embeddings", "openai.images", "openai.realtime"):
        assert response(api, error=error).usage is None
    assert response("openai.audio.transcriptions", text="hi").usage is None
    assert response("openai.chat", id="x", model="m", service_tier="default").context == {"service_tier": "default"}


USAGE = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}


def test_responses_fees_come_from_the_output_items():
    reading = response(
        "openai.responses",
        id="resp_1",
        model="m",
        service_tier="default",
        usage=USAGE,
        tools=[
            {"type": "function", "name": "f"},
            {"type": "web_search_preview", "search_context_size": "medium"},
        ],
        output=[
            {"type": "reasoning"},
            {"type": "web_search_call", "action": {"type": "search", "query": "q"}},
            {"type": "web_search_call", "action": {"type": "open_page", "url": "u"}},
            {"type": "web_search_call", "action": {"type": "find_in_page"}},
            {"type": "web_search_call"},
            {"type": "web_search_call", "action": {}},
            {"type": "file_search_call"},
            {"type": "code_interpreter_call", "container_id": "c1"},
            {"type": "code_interpreter_call", "container_id": "c1"},
            {"type": "code_interpreter_call", "container_id": "c2"},
            {"type": "code_interpreter_call"},
            {"type": "image_generation_call"},
            {"type": "message"},
        ],
    )
    fees = {
        "fee:code_interpreter": 3,
        "fee:file_search": 1,
        "fee:image_generation": 1,
        "fee:web_search": 3,
    }
    assert reading.usage == Usage({"input": 10, "output": 5, **fees})
    assert list(reading.usage)[2:] == list(fees)
    assert reading.context == {
        "service_tier": "default",
        "tool": "web_search_preview",
        "search_context_size": "medium",
    }


@pytest.mark.parametrize(
    ("tools", "context"),
    [([], {}), ([{"type": "web_search"}], {"tool": "web_search"}), ([{"type": "file_search"}], {})],
)
def test_search_tool_context(tools, context):
    reading = response("openai.responses", usage=USAGE, tools=tools, output=[{"type": "web_search_call"}])
    assert reading.context == context


def test_other_fees_do_not_ask_for_the_search_tool():
    reading = response(
        "openai.responses", usage=USAGE, tools=[{"type": "web_search"}], output=[{"type": "file_search_call"}]
    )
    assert reading.context == {}


def test_fees_beside_unknown_tokens_are_unknown():
    broken = {**USAGE, "input_tokens_details": {"cached_tokens": 11}}
    reading = response("openai.responses", usage=broken, output=[{"type": "web_search_call"}])
    assert reading.usage is None
    assert "11 cached" in reading.fault


def test_output_item_types_from_the_caller_give_the_same_fees():
    types = ["web_search_call", "web_search_call", "file_search_call", "message", "code_interpreter_call"]
    reading = read_usage("openai.responses", USAGE, {"output_item_types": types})
    fees = {"fee:code_interpreter": 1, "fee:file_search": 1, "fee:web_search": 2}
    assert reading.usage == Usage({"input": 10, "output": 5, **fees})
    assert reading.context == {}


def test_embeddings():
    reading = response("openai.embeddings", model="e", usage={"prompt_tokens": 8, "total_tokens": 8})
    assert reading.usage == Usage(input=8)
    assert reading.model == "e"
    assert read_usage("openai.embeddings", {"prompt_tokens": 8, "total_tokens": 9}).fault is not None


def test_images_are_image_output_unless_split():
    usage = {
        "input_tokens": 50,
        "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
        "output_tokens": 400,
        "total_tokens": 450,
    }
    reading = response("openai.images", usage=usage, size="1024x1024", data=[{"b64_json": ""}])
    assert reading.usage == Usage(input=10, image_input=40, image_output=400)
    assert reading.context == {"media_size": "1024x1024"}
    usage["output_tokens_details"] = {"image_tokens": 380, "text_tokens": 20}
    assert read_usage("openai.images", usage).usage == Usage(input=10, image_input=40, output=20, image_output=380)


def test_pictures_without_usage_are_counted():
    assert response("openai.images", data=[{"url": "a"}, {"url": "b"}]).usage == Usage(images=2)


def test_transcriptions_in_tokens_and_in_seconds():
    tokens = {
        "type": "tokens",
        "input_tokens": 14,
        "input_token_details": {"text_tokens": 4, "audio_tokens": 10},
        "output_tokens": 45,
        "total_tokens": 59,
    }
    api = "openai.audio.transcriptions"
    assert read_usage(api, tokens).usage == Usage(input=4, audio_input=10, output=45)
    assert response(api, usage=tokens).usage == Usage(input=4, audio_input=10, output=45)
    assert read_usage(api, {"type": "duration", "seconds": 30}).usage == Usage(milliseconds_input=30_000)
    assert read_usage(api, {"type": "duration", "seconds": 0.1}).usage == Usage(milliseconds_input=100)
    assert response(api, text="x", duration=8.47).usage == Usage(milliseconds_input=8470)
    neither = read_usage(api, {"type": "duration"})
    assert neither.usage is None
    assert neither.fault == "the usage states neither tokens nor seconds"


@pytest.mark.parametrize(("seconds", "expected"), [("1.0005", 1000), ("1.0015", 1002), ("2.00050001", 2001)])
def test_milliseconds_round_half_even_from_the_decimal_text(seconds, expected):
    body = b'{"usage":{"type":"duration","seconds":' + seconds.encode() + b"}}"
    assert read_response("openai.audio.transcriptions", body).usage == Usage(milliseconds_input=expected)


def test_realtime():
    usage = {
        "total_tokens": 150,
        "input_tokens": 100,
        "output_tokens": 50,
        "input_token_details": {
            "text_tokens": 40,
            "audio_tokens": 60,
            "cached_tokens": 30,
            "cached_tokens_details": {"text_tokens": 10, "audio_tokens": 20},
        },
        "output_token_details": {"text_tokens": 10, "audio_tokens": 40},
    }
    expected = Usage(input=30, cache_read=10, audio_input=40, audio_cache_read=20, output=10, audio_output=40)
    reading = response("openai.realtime", type="response.done", response={"id": "resp_1", "usage": usage})
    assert reading.usage == expected
    assert reading.response_id == "resp_1"
    assert read_usage("openai.realtime", usage).usage == expected
