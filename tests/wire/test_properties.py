"""For all payloads: the partition sums back to the provider's own totals, and garbage raises UsageError only."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.usage import INPUT_KINDS, MAX_COUNT, OUTPUT_KINDS, Usage, is_kind
from tallystick.errors import UsageError
from tallystick.wire.usage import APIS, api_of, read_response, read_usage

counts = st.integers(0, 2**40)


def usages(*kinds):
    return st.fixed_dictionaries(dict.fromkeys(kinds, counts)).map(Usage)


def check(api, payload, usage):
    """What was read is the partition the payload was made from, in canonical order."""
    body_key = "usageMetadata" if api.startswith("gemini") else "usage"
    body = json.dumps({body_key: payload}).encode()
    for reading in (read_usage(api, payload), read_response(api, body)):
        assert reading.fault is None
        assert dict(reading.usage) == dict(usage)
        assert list(reading.usage) == list(usage)


OPENAI = (
    "input",
    "cache_write",
    "cache_read",
    "audio_input",
    "audio_cache_read",
    "image_input",
    "image_cache_read",
    "output",
    "reasoning",
    "audio_output",
    "image_output",
)


def openai_details(usage):
    get = usage.get
    cached = {
        "audio_tokens": get("audio_cache_read", 0),
        "image_tokens": get("image_cache_read", 0),
        "text_tokens": get("cache_read", 0),
    }
    inside = {
        "cached_tokens": sum(cached.values()),
        "cache_write_tokens": get("cache_write", 0),
        "audio_tokens": get("audio_input", 0) + cached["audio_tokens"],
        "image_tokens": get("image_input", 0) + cached["image_tokens"],
        "cached_tokens_details": cached,
    }
    made = {
        "reasoning_tokens": get("reasoning", 0),
        "audio_tokens": get("audio_output", 0),
        "image_tokens": get("image_output", 0),
    }
    return inside, made


@given(usages(*OPENAI))
def test_openai_responses(usage):
    inside, made = openai_details(usage)
    payload = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.tokens,
        "input_tokens_details": inside,
        "output_tokens_details": made,
    }
    check("openai.responses", payload, usage)


@pytest.mark.parametrize("api", ["openai.chat", "groq.chat", "openrouter.chat", "deepseek.chat", "compatible.chat"])
@given(usage=usages(*OPENAI), added=st.booleans())
def test_openai_like_chat(api, usage, added):
    inside, made = openai_details(usage)
    payload = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "prompt_tokens_details": inside,
        "completion_tokens_details": made,
    }
    if added:
        payload["total_tokens"] = usage.tokens
    check(api, payload, usage)


@given(usages(*OPENAI))
def test_xai_chat_adds_reasoning(usage):
    inside, made = openai_details(usage)
    payload = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens - made["reasoning_tokens"],
        "total_tokens": usage.tokens,
        "prompt_tokens_details": inside,
        "completion_tokens_details": made,
    }
    check("xai.chat", payload, usage)


@given(usages("input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning", "fee:web_search"))
def test_anthropic(usage):
    short, long = usage.get("cache_write_5m", 0), usage.get("cache_write_1h", 0)
    payload = {
        "input_tokens": usage.get("input", 0),
        "cache_read_input_tokens": usage.get("cache_read", 0),
        "cache_creation_input_tokens": short + long,
        "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.get("reasoning", 0)},
        "server_tool_use": {"web_search_requests": usage.get("fee:web_search", 0)},
    }
    check("anthropic.messages", payload, usage)
    events = [{"type": "message_start", "message": {"usage": {**payload, "output_tokens": 1}}}]
    events.append({"type": "message_delta", "usage": payload})
    assert read_usage("anthropic.messages.stream", events).usage == usage


GEMINI = [kind for kind in (*INPUT_KINDS, *OUTPUT_KINDS) if not kind.startswith("cache_write") and kind != "citation"]


@given(usage=usages(*GEMINI), tool=usages("input", "audio_input", "image_input", "video_input"))
def test_gemini(usage, tool):
    def by(table, suffix):
        names = {"TEXT": "input" if suffix == "_input" else "cache_read" if "cache" in suffix else "output"}
        names |= {name: f"{name.lower()}{suffix}" for name in ("AUDIO", "IMAGE", "VIDEO")}
        return {name: table.get(kind, 0) for name, kind in names.items()}

    def rows(table):
        return [{"modality": name, "tokenCount": count} for name, count in table.items()]

    fresh, stored, made = by(usage, "_input"), by(usage, "_cache_read"), by(usage, "_output")
    prompt = {name: fresh[name] + stored[name] for name in fresh}
    payload = {
        "promptTokenCount": sum(prompt.values()),
        "promptTokensDetails": rows(prompt),
        "cachedContentTokenCount": sum(stored.values()),
        "cacheTokensDetails": rows(stored),
        "toolUsePromptTokenCount": tool.tokens,
        "toolUsePromptTokensDetails": rows(by(tool, "_input")),
        "candidatesTokenCount": sum(made.values()),
        "candidatesTokensDetails": rows(made),
        "thoughtsTokenCount": usage.get("reasoning", 0),
        "totalTokenCount": usage.tokens + tool.tokens,
    }
    check("gemini.generateContent", payload, usage + tool)


@given(usages("input", "cache_read", "cache_write_5m", "cache_write_1h", "output"))
def test_bedrock(usage):
    short, long = usage.get("cache_write_5m", 0), usage.get("cache_write_1h", 0)
    payload = {
        "inputTokens": usage.get("input", 0),
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.tokens,
        "cacheReadInputTokens": usage.get("cache_read", 0),
        "cacheWriteInputTokens": short + long,
        "cacheDetails": [{"ttl": "1h", "inputTokens": long}, {"ttl": "5m", "inputTokens": short}],
    }
    check("bedrock.converse", payload, usage)


NAMES = st.sampled_from(
    [
        "usage", "usageMetadata", "prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details",
        "cached_tokens", "cached_tokens_details", "audio_tokens", "reasoning_tokens", "input_tokens", "output_tokens",
        "input_tokens_details", "cache_creation", "iterations", "type", "message", "response", "promptTokenCount",
        "promptTokensDetails", "modality", "tokenCount", "inputTokens", "outputTokens", "cacheDetails", "billed_units",
        "search_units", "cost", "total_cost", "is_byok", "cost_details", "cost_in_usd_ticks", "seconds", "duration",
        "output", "data", "candidates", "groundingMetadata", "webSearchQueries", "id", "model", "service_tier", "input",
        "prompt_eval_count", "x_groq", "meta", "tools", "context", "fee:x",
    ]
)  # fmt: skip
GARBAGE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 5)
    | st.sampled_from([MAX_COUNT - 1, MAX_COUNT, 2**70, "compaction", "message_delta", "AUDIO", "5m", "batch", "1e9"])
    | st.floats()
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(NAMES, inner, max_size=6)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=2)
    ),
    max_leaves=25,
)


@pytest.mark.parametrize("api", sorted(APIS))
@given(garbage=GARBAGE)
def test_garbage_objects(api, garbage):
    try:
        reading = read_usage(api, garbage, garbage if isinstance(garbage, dict) else None)
    except UsageError:
        return
    assert_sound(reading)


@pytest.mark.parametrize("api", sorted(APIS))
@given(garbage=GARBAGE)
def test_garbage_bodies(api, garbage):
    try:
        reading = read_response(api, json.dumps(garbage).encode())
    except UsageError:
        return
    assert_sound(reading)


@given(api=st.sampled_from(sorted(APIS)), body=st.binary(max_size=40))
def test_garbage_bytes(api, body):
    with suppress(UsageError):
        assert_sound(read_response(api, body))


@given(provider=st.sampled_from(["openai", "anthropic", "google", "aws", "cohere", "me"]), garbage=GARBAGE)
def test_garbage_shapes(provider, garbage):
    try:
        api = api_of(provider, garbage)
    except UsageError:
        return
    assert api in APIS


def assert_sound(reading):
    """A reading never holds a count that a Usage would not take, whatever it was read from."""
    if reading.usage is not None:
        assert Usage(dict(reading.usage)) == reading.usage
        assert all(is_kind(kind) and count > 0 for kind, count in reading.usage.items())
    assert reading.usage is not None or reading.reported is None or reading.fault is not None
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in reading.context.items())
