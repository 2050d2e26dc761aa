"""The formats that are like OpenAI's chat."""

import json

import pytest

from tallystick.core.money import Money
from tallystick.core.usage import Usage
from tallystick.errors import UsageError
from tallystick.wire.usage import read_response, read_usage


def read(api, **usage):
    return read_usage(api, {"prompt_tokens": 100, "completion_tokens": 50, **usage})


CACHED = {"prompt_tokens_details": {"cached_tokens": 40}, "completion_tokens_details": {"reasoning_tokens": 20}}


@pytest.mark.parametrize(
    "api",
    ["mistral.chat", "deepseek.chat", "groq.chat", "openrouter.chat", "together.chat", "vllm.chat", "compatible.chat"],
)
def test_cached_and_reasoning_are_inside(api):
    reading = read(api, total_tokens=150, **CACHED)
    assert reading.usage == Usage(input=60, cache_read=40, output=30, reasoning=20)
    assert reading.fault is None


def test_cached_tokens_beside_the_details():
    assert read("together.chat", cached_tokens=40).usage == Usage(input=60, cache_read=40, output=50)
    assert read("together.chat", cached_tokens=1, **CACHED).usage["cache_read"] == 40
    assert read("mistral.chat", num_cached_tokens=40).usage == Usage(input=60, cache_read=40, output=50)


def test_mistral_audio_seconds():
    reading = read("mistral.chat", prompt_audio_seconds=7, total_tokens=900)
    assert reading.usage == Usage(input=100, output=50, milliseconds_input=7000)
    assert reading.fault is None
    assert read("mistral.chat", prompt_audio_seconds=0, total_tokens=900).fault is not None


def test_deepseek_hits_and_misses():
    reading = read("deepseek.chat", prompt_cache_hit_tokens=40, prompt_cache_miss_tokens=60)
    assert reading.usage == Usage(input=60, cache_read=40, output=50)
    assert reading.fault is None
    wrong = read("deepseek.chat", prompt_cache_hit_tokens=40, prompt_cache_miss_tokens=61)
    assert wrong.usage == Usage(input=60, cache_read=40, output=50)
    assert wrong.fault == "40 cache hits + 61 misses are not the 100 tokens of the prompt"
    assert read("deepseek.chat", prompt_cache_hit_tokens=40).fault is None
    assert read("deepseek.chat", prompt_cache_hit_tokens=101, prompt_cache_miss_tokens=0).usage is None


@pytest.mark.parametrize(
    ("total", "output", "fault"), [(170, 50, False), (150, 30, False), (None, 50, False), (171, 50, True)]
)
def test_xai_chat_reasoning_is_added_unless_the_total_says_inside(total, output, fault):
    reading = read("xai.chat", total_tokens=total, completion_tokens_details={"reasoning_tokens": 20})
    assert reading.usage == Usage(input=100, output=output, reasoning=20)
    assert (reading.fault is not None) == fault


def test_xai_cost_and_fees():
    tools = {"web_search_calls": 1, "x_search_calls": 2, "code_interpreter_calls": 3, "mcp_calls": 9}
    reading = read("xai.chat", cost_in_usd_ticks=37_756_000, num_sources_used=4, server_side_tool_usage_details=tools)
    assert reading.reported == Money.usd("0.0037756")
    assert reading.usage == Usage(
        {
            "input": 100,
            "output": 50,
            "fee:code_interpreter": 3,
            "fee:live_search": 4,
            "fee:web_search": 1,
            "fee:x_search": 2,
        }
    )
    assert read("xai.chat").reported is None


def test_xai_responses_reasoning_is_inside():
    usage = {
        "input_tokens": 100,
        "output_tokens": 50,
        "total_tokens": 150,
        "output_tokens_details": {"reasoning_tokens": 20},
        "cost_in_usd_ticks": 1,
    }
    reading = read_response("xai.responses", json.dumps({"id": "r", "usage": usage}).encode())
    assert reading.usage == Usage(input=100, output=30, reasoning=20)
    assert reading.reported == Money(100)
    assert reading.response_id == "r"


def test_openrouter_cost_is_read_as_text():
    body = b'{"id":"gen-1","model":"a/b","usage":{"prompt_tokens":1,"completion_tokens":1,"cost":0.1234567890125}}'
    reading = read_response("openrouter.chat", body)
    assert reading.reported == Money(123_456_789_012)
    assert reading.upstream is None
    assert (reading.model, reading.response_id) == ("a/b", "gen-1")
    assert read("openrouter.chat", cost=0.1).reported == Money.usd("0.1")
    assert read("openrouter.chat", cost=0).reported == Money(0)


def test_openrouter_second_bill_only_with_ones_own_key():
    details = {"upstream_inference_cost": 0.02}
    own = read("openrouter.chat", cost=0.001, is_byok=True, cost_details=details)
    assert (own.reported, own.upstream) == (Money.usd("0.001"), Money.usd("0.02"))
    assert read("openrouter.chat", cost=0.001, is_byok=False, cost_details=details).upstream is None
    assert read("openrouter.chat", cost=0.001, is_byok=True).upstream is None
    nothing = read("openrouter.chat", is_byok=True, cost_details={"upstream_inference_cost": None})
    assert (nothing.reported, nothing.upstream) == (None, None)


def test_openrouter_details():
    reading = read(
        "openrouter.chat",
        prompt_tokens_details={"cached_tokens": 10, "cache_write_tokens": 20, "video_tokens": 30},
        completion_tokens_details={"image_tokens": 50},
        server_tool_use={"web_search_requests": 2},
        service_tier="priority",
        speed="fast",
    )
    assert reading.usage == Usage(
        {
            "input": 40,
            "cache_read": 10,
            "cache_write": 20,
            "video_input": 30,
            "image_output": 50,
            "fee:web_search": 2,
        }
    )
    assert reading.context == {"service_tier": "priority", "speed": "fast"}


@pytest.mark.parametrize("cost", [-0.1, "NaN", "sNaN", "Infinity", "1e999999", "1e16", "0." + "1" * 61])
def test_absurd_costs_are_refused(cost):
    with pytest.raises(UsageError, match="is not a cost in US dollars"):
        read("openrouter.chat", cost=cost)


def test_costs_too_small_to_hold_are_nothing():
    assert read("openrouter.chat", cost="1e-999999").reported == Money(0)
    assert read("openrouter.chat", cost="0e-999999").reported == Money(0)


def test_perplexity_request_fee():
    cost = {"total_cost": 0.006, "request_cost": 0.006}
    reading = read("perplexity.chat", total_tokens=150, search_context_size="High", num_search_queries=3, cost=cost)
    assert reading.usage == Usage(input=100, output=50, requests=1)
    assert reading.context == {"search_context_size": "high"}
    assert reading.reported == Money.usd("0.006")
    assert read("perplexity.chat").reported is None


@pytest.mark.parametrize("total", [150, 350, 357])
def test_perplexity_deep_research(total):
    reading = read(
        "perplexity.chat", total_tokens=total, citation_tokens=7, reasoning_tokens=200, num_search_queries=18
    )
    assert reading.usage == Usage(input=100, output=50, reasoning=200, citation=7, searches=18)
    assert reading.fault is None


def test_perplexity_search_cost_tells_deep_research():
    reading = read("perplexity.chat", num_search_queries=2, cost={"search_queries_cost": 0.01})
    assert reading.usage == Usage(input=100, output=50, searches=2)
    assert reading.reported is None


def test_perplexity_faults():
    wrong = read("perplexity.chat", total_tokens=151)
    assert wrong.usage == Usage(input=100, output=50, requests=1)
    assert wrong.fault == "the stated total of 151 tokens is not 100 input + 50 output"
    over = read("perplexity.chat", total_tokens=150, prompt_tokens_details={"cached_tokens": 101})
    assert over.usage is None
    kept = read("perplexity.chat", reasoning_tokens=0, completion_tokens_details={"reasoning_tokens": 20})
    assert kept.usage == Usage(input=100, output=30, reasoning=20, requests=1)


def test_ollama():
    body = {"model": "m", "done": True, "prompt_eval_count": 26, "eval_count": 298, "eval_duration": 1}
    reading = read_response("ollama.chat", json.dumps(body).encode())
    assert reading.usage == Usage(input=26, output=298)
    assert reading.model == "m"
    assert read_usage("ollama.chat", {"eval_count": 3}).usage == Usage(output=3)
    assert read_usage("ollama.chat", {"prompt_eval_count": 3}).usage == Usage(input=3)
    assert read_usage("ollama.chat", {"model": "m"}).usage is None


def test_groq_audio():
    def body(**parts):
        return read_response("groq.audio", json.dumps(parts).encode())

    expected = Usage(milliseconds_input=4500)
    assert read_usage("groq.audio", {"seconds": 4.5}).usage == expected
    assert body(usage={"seconds": 4.5}).usage == expected
    assert body(duration=4.5, x_groq={"id": "req_1"}).usage == expected
    assert body(duration=4.5, x_groq={"id": "req_1"}).response_id == "req_1"
    assert body(x_groq={"id": "req_1", "usage": {"seconds": 4.5}}).usage == expected
    assert body(text="x").usage is None


def test_groq_body_with_tier():
    body = {"id": "c", "model": "m", "service_tier": "on_demand", "usage": {"prompt_tokens": 1, "prompt_time": 0.1}}
    reading = read_response("groq.chat", json.dumps(body).encode())
    assert reading.usage == Usage(input=1)
    assert reading.context == {"service_tier": "on_demand"}


def test_a_tier_may_stand_in_the_usage_or_in_the_body():
    def context(body_tier):
        usage = {"prompt_tokens": 1, "service_tier": "priority"}
        body = json.dumps({"service_tier": body_tier, "usage": usage}).encode()
        return read_response("openrouter.chat", body).context

    assert context(None) == {"service_tier": "priority"}
    assert context("flex") == {"service_tier": "flex"}
    batch = read_response("openai.chat", b'{"service_tier":"batch","usage":{"prompt_tokens":1}}')
    assert batch.context == {"processing": "batch"}
