"""What holds for every API: contexts, shapes, tolerance, refusals."""

import json
from collections import UserDict
from decimal import Decimal

import pytest

from tallystick.core.usage import Usage
from tallystick.errors import UsageError
from tallystick.wire.usage import APIS, api_of, read_response, read_usage

CHAT = {"prompt_tokens": 10, "completion_tokens": 5}


def test_apis_name_their_billers():
    assert APIS["openai.chat"] == ("openai", "azure")
    assert APIS["tally.usage"] == ()
    assert APIS["log.codex"] == ()


@pytest.mark.parametrize("api", ["openai.chats", "", "nothing like it", "openai", None, 3, ["openai.chat"]])
def test_unknown_apis_are_refused(api):
    with pytest.raises(UsageError, match=r"is not an API that can be read\. Known: openai\.chat, openai\.responses"):
        read_usage(api, CHAT)
    if api.__hash__:
        with pytest.raises(UsageError, match="is not an API"):
            read_response(api, b"{}")


def test_an_unknown_api_names_its_family():
    with pytest.raises(UsageError, match=r"Known: cohere\.chat, cohere\.rerank, cohere\.embed\.$"):
        read_usage("cohere.classify", {})


def test_context_is_normalised_and_the_caller_wins():
    usage = {"input_tokens": 1, "output_tokens": 1, "service_tier": "standard", "speed": "fast"}
    given = {
        "service_tier": " Priority ",
        "inference_geo": None,
        "deployment": "My-Own",
        "anything": True,
        "region": "US-East-1",
        "tool": False,
        "output_item_types": None,
    }
    reading = read_usage("anthropic.messages", usage, given)
    assert reading.context == {
        "service_tier": "priority",
        "speed": "fast",
        "deployment": "My-Own",
        "anything": "true",
        "region": "us-east-1",
        "tool": "false",
    }
    assert read_usage("openai.chat", CHAT, {"service_tier": "batch"}).context == {"processing": "batch"}
    assert read_usage("openai.chat", CHAT, {"output_item_types": ("web_search_call",)}).usage["fee:web_search"] == 1


@pytest.mark.parametrize(
    "context",
    [
        {"region": 3},
        {"region": ["us"]},
        {3: "us"},
        {"output_item_types": "web_search_call"},
        {"output_item_types": [1]},
    ],
)
def test_contexts_that_make_no_sense_are_refused(context):
    with pytest.raises(UsageError):
        read_usage("openai.chat", CHAT, context)


@pytest.mark.parametrize(
    "count",
    [-1, 2**53, 2**80, 1.5, "5", True, [], {}, float("nan"), float("inf"), Decimal("0.5"), Decimal("1e40"), 1e300],
)
def test_bad_counts_are_refused(count):
    with pytest.raises(UsageError, match=r"The usage object of openai\.chat cannot be read"):
        read_usage("openai.chat", {"prompt_tokens": count})


def test_whole_floats_decimals_nulls_and_other_mappings_are_taken():
    usage = {"prompt_tokens": 10.0, "completion_tokens": Decimal(5), "total_tokens": None, "x": (1.5, None)}
    assert read_usage("openai.chat", usage).usage == Usage(input=10, output=5)
    assert read_usage("openai.chat", UserDict(CHAT)).usage == Usage(input=10, output=5)


def test_nesting_has_an_end():
    deep = {}
    for _ in range(100):
        deep = {"x": deep}
    listed = []
    for _ in range(100):
        listed = [listed]
    for inner in (deep, listed):
        with pytest.raises(UsageError, match="nested too deeply"):
            read_usage("openai.chat", {"prompt_tokens": 1.0, "x": inner})


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b'{"model":"\xff"}', b'{"usage":', b'{"x":' + b"[" * 100_000, b'{"id":1,"x":"\xff"}'],
)
def test_malformed_bodies_are_refused(body):
    with pytest.raises(UsageError, match="is not JSON that can be read"):
        read_response("openai.chat", body)


def test_nulls_anywhere_in_a_body_are_absent():
    body = {"id": None, "usage": {**CHAT, "prompt_tokens_details": {"cached_tokens": None}, "x": [1, 2.0]}}
    reading = read_response("openai.chat", json.dumps(body).encode())
    assert reading.usage == Usage(input=10, output=5)
    assert reading.fault is None


def test_a_body_that_is_not_as_documented_gives_its_usage_and_a_fault():
    reading = read_response("openai.chat", json.dumps({"id": 7, "usage": {**CHAT, "total_tokens": 16}}).encode())
    assert reading.usage == Usage(input=10, output=5)
    assert reading.fault == (
        "the response body is not as documented (Expected `str | null`, got `int` - at `$.id`), so only its usage was "
        "read; the stated total of 16 tokens is not 10 input + 5 output"
    )
    nothing = read_response("openai.chat", b"[1]")
    assert nothing.usage is None
    assert "not as documented" in nothing.fault
    nested = read_response("openai.realtime", b'{"response":{"id":1,"usage":{"input_tokens":3}}}')
    assert nested.usage == Usage(input=3)
    assert read_response("openai.realtime", b'{"response":3}').usage is None


def test_a_broken_usage_in_a_body_is_refused():
    with pytest.raises(UsageError, match="Expected `int` >= 0"):
        read_response("openai.chat", b'{"usage":{"prompt_tokens":-4}}')


def test_costs_keep_their_digits_on_the_tolerant_path():
    body = b'{"id":5,"usage":{"prompt_tokens":1,"cost":0.123456789012,"cost_details":null,"completion_tokens":2.0}}'
    assert read_response("openrouter.chat", body).reported.pico == 123_456_789_012


def test_usage_in_our_own_kinds():
    assert read_usage("tally.usage", {"input": 3, "fee:web_search": 1}).usage == Usage(
        {"input": 3, "fee:web_search": 1}
    )
    assert read_response("tally.usage", b'{"input":3}').usage == Usage(input=3)
    for bad in ({}, {"inputs": 3}, {"input": -1}, {"input": True}):
        with pytest.raises(UsageError):
            read_usage("tally.usage", bad)


IN_OUT = {"input_tokens": 1, "output_tokens": 2}


@pytest.mark.parametrize(
    ("provider", "usage", "api"),
    [
        ("openai", CHAT, "openai.chat"),
        ("azure", CHAT, "openai.chat"),
        ("openai", {"prompt_tokens": 1}, "openai.embeddings"),
        ("mistral", {"prompt_tokens": 1}, "mistral.chat"),
        ("xai", CHAT, "xai.chat"),
        ("xai", IN_OUT, "xai.responses"),
        ("other:me", CHAT, "compatible.chat"),
        ("somebody", CHAT, "compatible.chat"),
        ("ollama", CHAT, "compatible.chat"),
        ("ollama", {"prompt_eval_count": 1}, "ollama.chat"),
        ("ollama", {"eval_count": 1}, "ollama.chat"),
        ("openai", IN_OUT, "openai.responses"),
        ("openai", {**IN_OUT, "input_tokens_details": {"image_tokens": 3}}, "openai.images"),
        ("openai", {**IN_OUT, "input_tokens_details": {"image_tokens": 3, "cached_tokens": 0}}, "openai.responses"),
        ("openai", {**IN_OUT, "input_token_details": {}}, "openai.realtime"),
        ("openai", {**IN_OUT, "type": "tokens"}, "openai.audio.transcriptions"),
        ("openai", {"type": "duration", "seconds": 3}, "openai.audio.transcriptions"),
        ("groq", {"seconds": 3}, "groq.audio"),
        ("bedrock", IN_OUT, "anthropic.messages"),
        ("vertex", IN_OUT, "anthropic.messages"),
        ("azure", {**IN_OUT, "cache_read_input_tokens": 0}, "anthropic.messages"),
        ("openrouter", {**IN_OUT, "output_tokens_details": {}}, "openai.responses"),
        ("bedrock", {"inputTokens": 1}, "bedrock.converse"),
        ("google", {"totalTokenCount": 1}, "gemini.generateContent"),
        ("cohere", {"billed_units": {"search_units": 1}}, "cohere.rerank"),
        ("cohere", {"billed_units": {"search_units": 1, "input_tokens": 1}}, "cohere.chat"),
        ("cohere", {"billed_units": None}, "cohere.chat"),
        ("anthropic", [{"type": "message_start", "message": {}}, {"usage": {}}], "anthropic.messages.stream"),
        ("openai", {"input": 1, "cache_read": 2}, "tally.usage"),
    ],
)
def test_api_of(provider, usage, api):
    assert api_of(provider, usage) == api


@pytest.mark.parametrize(
    ("provider", "usage", "words"),
    [
        ("somebody", IN_OUT, "api=, one of: openai.responses, anthropic.messages\\."),
        ("anthropic", {"tokens": 3}, "api=, one of: anthropic.messages, anthropic.messages.stream\\."),
        ("somebody", {}, "one of: openai.chat, openai.responses"),
        ("anthropic", [3], "do not say which API"),
        ("anthropic", [{"type": "ping"}], "do not say which API"),
        ("anthropic", {3: 4}, "do not say which API"),
        ("openai", "text", "not str"),
        ("openai", None, "not NoneType"),
        ("", CHAT, "is not the name of a provider"),
        (None, CHAT, "is not the name of a provider"),
    ],
)
def test_api_of_refuses_to_guess(provider, usage, words):
    with pytest.raises(UsageError, match=words):
        api_of(provider, usage)


EMPTY_PARTS = [
    ("openai.chat", {**CHAT, "prompt_tokens_details": {}, "completion_tokens_details": {}}),
    ("openai.chat", {**CHAT, "prompt_tokens_details": {"cached_tokens_details": {}}}),
    ("anthropic.messages", {"input_tokens": 10, "output_tokens": 5, "cache_creation": {}, "server_tool_use": {}}),
    ("anthropic.messages", {"input_tokens": 10, "output_tokens": 5, "output_tokens_details": {}}),
    ("anthropic.messages", {"input_tokens": 10, "output_tokens": 5, "iterations": [{}, {"type": "compaction"}]}),
    ("gemini.generateContent", {"promptTokenCount": 10, "candidatesTokenCount": 5, "promptTokensDetails": [{}]}),
    ("bedrock.converse", {"inputTokens": 10, "outputTokens": 5, "cacheDetails": [{}]}),
    ("cohere.chat", {"billed_units": {"input_tokens": 10, "output_tokens": 5}}),
    ("xai.chat", {**CHAT, "server_side_tool_usage_details": {}}),
    ("openrouter.chat", {**CHAT, "server_tool_use": {}, "cost_details": {}}),
]


@pytest.mark.parametrize(("api", "usage"), EMPTY_PARTS)
def test_what_is_not_stated_counts_nothing(api, usage):
    reading = read_usage(api, usage)
    assert reading.usage == Usage(input=10, output=5)
    assert reading.fault is None


def test_limits_are_where_they_are_said_to_be():
    sixty = "0." + "1" * 60
    assert read_usage("openrouter.chat", {**CHAT, "cost": sixty}).reported.pico == 111_111_111_111
    assert read_usage("openrouter.chat", {**CHAT, "cost": "9e15"}).reported.pico == 9 * 10**27
    nested = {}
    for _ in range(30):
        nested = {"x": nested}
    assert read_usage("openai.chat", {"prompt_tokens": 1.0, "x": nested}).usage == Usage(input=1)
    with pytest.raises(UsageError, match="nested too deeply"):
        read_usage("openai.chat", {"prompt_tokens": 1.0, "x": {"x": nested}})
