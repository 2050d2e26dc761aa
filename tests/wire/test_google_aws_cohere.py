"""Gemini, Bedrock and Cohere."""

import json

import pytest

from tallystick.core.usage import Usage
from tallystick.errors import UsageError
from tallystick.wire.usage import read_response, read_usage


def gemini(**usage):
    return read_usage("gemini.generateContent", usage)


def parts(**counts):
    return [{"modality": name.upper(), "tokenCount": count} for name, count in counts.items()]


def test_thoughts_and_tool_use_are_added_and_cached_is_inside():
    reading = gemini(
        promptTokenCount=100,
        cachedContentTokenCount=60,
        candidatesTokenCount=20,
        thoughtsTokenCount=30,
        toolUsePromptTokenCount=7,
        totalTokenCount=157,
    )
    assert reading.usage == Usage(input=47, cache_read=60, output=20, reasoning=30)
    assert reading.fault is None


def test_modalities():
    reading = gemini(
        promptTokenCount=1000,
        promptTokensDetails=parts(text=400, audio=100, image=200, video=250, document=50),
        cachedContentTokenCount=300,
        cacheTokensDetails=parts(text=100, audio=50, image=70, video=80),
        toolUsePromptTokenCount=50,
        toolUsePromptTokensDetails=parts(text=10, image=40),
        candidatesTokenCount=90,
        candidatesTokensDetails=parts(text=10, audio=20, image=30, video=30),
        totalTokenCount=1140,
    )
    assert reading.usage == Usage(
        input=360,
        cache_read=100,
        audio_input=50,
        audio_cache_read=50,
        image_input=170,
        image_cache_read=70,
        video_input=170,
        video_cache_read=80,
        output=10,
        audio_output=20,
        image_output=30,
        video_output=30,
    )
    assert reading.fault is None


@pytest.mark.parametrize(
    ("usage", "words"),
    [
        ({"totalTokenCount": 3}, "no prompt tokens"),
        ({"promptTokenCount": 5, "cachedContentTokenCount": 6}, "input -1 would remain"),
        ({"promptTokenCount": 5, "promptTokensDetails": parts(audio=6)}, "input -1"),
        (
            {"promptTokenCount": 5, "toolUsePromptTokenCount": 2, "toolUsePromptTokensDetails": parts(video=3)},
            "its 7 tokens: input -1",
        ),
        (
            {"promptTokenCount": 5, "candidatesTokenCount": 2, "candidatesTokensDetails": parts(image=3)},
            "the parts of the candidates exceed their 2 tokens",
        ),
    ],
)
def test_gemini_contradictions_are_unknown_usage(usage, words):
    reading = gemini(**usage)
    assert reading.usage is None
    assert words in reading.fault


def test_gemini_total():
    reading = gemini(promptTokenCount=10, candidatesTokenCount=5, totalTokenCount=16)
    assert reading.usage == Usage(input=10, output=5)
    assert reading.fault == (
        "the stated total of 16 tokens is not 10 prompt + 0 tool-use prompt + 5 candidates + 0 thoughts"
    )
    assert gemini(promptTokenCount=10).fault is None


def test_gemini_sums_beyond_the_largest_count_are_refused():
    with pytest.raises(UsageError):
        gemini(promptTokenCount=2**53 - 1, toolUsePromptTokenCount=1)


@pytest.mark.parametrize(
    ("stated", "context"),
    [
        ({"serviceTier": "PRIORITY"}, {"service_tier": "priority"}),
        ({"serviceTier": "SERVICE_TIER_FLEX"}, {"service_tier": "flex"}),
        ({"trafficType": "ON_DEMAND"}, {"service_tier": "on_demand"}),
        ({"trafficType": "ON_DEMAND_PRIORITY"}, {"service_tier": "priority"}),
        ({"trafficType": "PROVISIONED_THROUGHPUT"}, {"service_tier": "provisioned_throughput"}),
        ({"trafficType": "TRAFFIC_TYPE_UNSPECIFIED"}, {}),
        ({"serviceTier": "unspecified"}, {}),
        ({"serviceTier": "batch"}, {"processing": "batch"}),
        ({}, {}),
    ],
)
def test_gemini_tiers(stated, context):
    assert gemini(promptTokenCount=1, **stated).context == context


def gemini_body(**body):
    return read_response("gemini.generateContent", json.dumps(body).encode())


def test_gemini_body_and_grounding():
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}
    queries = {"webSearchQueries": ["a", "", "b", "a"], "groundingChunks": [{"web": {}}, {}]}
    reading = gemini_body(
        responseId="r",
        modelVersion="m",
        usageMetadata=usage,
        candidates=[
            {"content": {}},
            {"groundingMetadata": queries},
            {"groundingMetadata": {"webSearchQueries": ["c"]}},
        ],
    )
    assert reading.usage == Usage({"input": 10, "output": 5, "fee:web_search": 3})
    assert (reading.model, reading.response_id) == ("m", "r")
    maps = {"groundingChunks": [{"web": {}}, {"maps": {"uri": "u"}}]}
    grounded = gemini_body(usageMetadata=usage, candidates=[{"groundingMetadata": maps}])
    assert grounded.usage == Usage({"input": 10, "output": 5, "fee:google_maps": 1})
    assert gemini_body(usageMetadata=usage, candidates=[{}]).usage == Usage(input=10, output=5)
    assert gemini_body(usageMetadata=usage).usage == Usage(input=10, output=5)
    assert gemini_body(promptFeedback={"blockReason": "SAFETY"}, modelVersion="m").model == "m"


def bedrock(**usage):
    return read_usage("bedrock.converse", {"inputTokens": 10, "outputTokens": 20, **usage})


def test_bedrock_cache_is_outside():
    reading = bedrock(cacheReadInputTokens=5, cacheWriteInputTokens=7, totalTokens=42)
    assert reading.usage == Usage(input=10, cache_read=5, cache_write=7, output=20)
    assert reading.fault is None


def test_bedrock_cache_details():
    details = [{"ttl": "1h", "inputTokens": 3}, {"ttl": "5m", "inputTokens": 4}]
    reading = bedrock(cacheWriteInputTokens=7, cacheDetails=details)
    assert reading.usage == Usage(input=10, cache_write_5m=4, cache_write_1h=3, output=20)
    assert reading.fault is None
    more = bedrock(cacheWriteInputTokens=9, cacheDetails=details)
    assert more.usage == Usage(input=10, cache_write=2, cache_write_5m=4, cache_write_1h=3, output=20)
    assert more.fault == "9 tokens written to the cache are not the 7 of its details"
    other = bedrock(cacheWriteInputTokens=7, cacheDetails=[*details[:1], {"ttl": "1d", "inputTokens": 4}])
    assert other.usage == Usage(input=10, cache_write=4, cache_write_1h=3, output=20)
    assert other.fault is None


def test_bedrock_total():
    reading = bedrock(cacheReadInputTokens=5, totalTokens=30)
    assert reading.usage == Usage(input=10, cache_read=5, output=20)
    assert reading.fault == "the stated total of 30 tokens is not the 35 of its parts"


def test_bedrock_body():
    def read(**body):
        return read_response("bedrock.converse", json.dumps(body).encode())

    usage = {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}
    reading = read(usage=usage, serviceTier={"type": "priority"}, performanceConfig={"latency": "optimized"}, output={})
    assert reading.usage == Usage(input=1, output=2)
    assert reading.context == {"service_tier": "priority", "speed": "optimized"}
    assert read(usage=usage, performanceConfig={"latency": "standard"}).context == {}
    assert read(message="denied").usage is None


def test_cohere_bills_billed_units():
    usage = {"billed_units": {"input_tokens": 100.0, "output_tokens": 50}, "tokens": {"input_tokens": 1300}}
    assert read_usage("cohere.chat", usage).usage == Usage(input=100, output=50)
    unbilled = read_usage("cohere.chat", {"tokens": {"input_tokens": 5}})
    assert unbilled.usage is None
    assert unbilled.fault == "the usage states no billed units"


def test_cohere_other_units():
    def units(**counts):
        return read_usage("cohere.embed", {"billed_units": counts}).usage

    assert units(search_units=3) == Usage(searches=3)
    assert units(images=2) == Usage(images=2)
    assert units(images=2, image_tokens=500, input_tokens=1) == Usage(input=1, image_input=500)
    assert units(classifications=4) == Usage({"fee:classification": 4})


def test_cohere_body():
    def read(**body):
        return read_response("cohere.rerank", json.dumps(body).encode())

    assert read(id="i", meta={"billed_units": {"search_units": 1}}).usage == Usage(searches=1)
    assert read(id="i", usage={"billed_units": {"input_tokens": 1}}).response_id == "i"
    assert read(message="no").usage is None
