import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.models import PROVIDERS, ModelRef, parse_model, provider_id
from tallystick.errors import InputError


def ref(text, provider=None):
    parsed = parse_model(text, provider)
    assert parsed.text == text
    filled = {
        name: getattr(parsed, name) for name in ("suffix", "fine_tune_of", "geo", "region") if getattr(parsed, name)
    }
    return parsed.provider, parsed.id, filled


@pytest.mark.parametrize(
    ("text", "provider", "expected"),
    [
        ("gpt-x", None, (None, "gpt-x", {})),
        (" GPT-X ", "OpenAI", ("openai", "gpt-x", {})),
        ("openai/gpt-x", None, ("openai", "gpt-x", {})),
        ("openai/gpt-x", "openai", ("openai", "gpt-x", {})),
        ("openai/gpt-x", "azure", ("azure", "openai/gpt-x", {})),
        ("azure/gpt-x", None, ("azure", "gpt-x", {})),
        ("azure_ai/gpt-x", "azure", ("azure", "gpt-x", {})),
        ("gemini/gem-x", None, ("google", "gem-x", {})),
        ("gemini/gem-x", "google", ("google", "gem-x", {})),
        ("models/gem-x", "google", ("google", "gem-x", {})),
        ("models/gem-x", None, (None, "gem-x", {})),
        ("unknown/x", None, (None, "unknown/x", {})),
        ("openai/", None, (None, "openai/", {})),
        ("vertex_ai/clod-x@20250514", None, ("vertex", "clod-x@20250514", {})),
        ("projects/p/locations/europe-west4/publishers/anthropic/models/clod@001", None, ("vertex", "clod@001", {"region": "europe-west4"})),
        ("projects/p/locations/us-east5/endpoints/123", "vertex", ("vertex", "123", {"region": "us-east5"})),
        ("publishers/google/models/gem-x", "vertex", ("vertex", "gem-x", {})),
        ("us.maker.clod-v1:0", None, ("aws", "maker.clod-v1:0", {"geo": "us"})),
        ("us-gov.maker.clod", None, ("aws", "maker.clod", {"geo": "us-gov"})),
        ("global.maker.clod", "bedrock", ("aws", "maker.clod", {"geo": "global"})),
        ("bedrock/eu.maker.clod", None, ("aws", "maker.clod", {"geo": "eu"})),
        ("bedrock/eu.maker.clod", "aws", ("aws", "maker.clod", {"geo": "eu"})),
        ("Maker.Clod-v1:0", "aws", ("aws", "maker.clod-v1:0", {})),
        ("us.clod", "aws", ("aws", "us.clod", {})),
        ("arn:aws:bedrock:us-east-1::foundation-model/maker.clod-v1:0", None, ("aws", "maker.clod-v1:0", {"region": "us-east-1"})),
        ("arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.maker.clod", "openai", ("aws", "maker.clod", {"geo": "eu", "region": "eu-west-1"})),
        ("arn:aws-us-gov:bedrock:us-gov-west-1:1:application-inference-profile/ab12", None, ("aws", "ab12", {"region": "us-gov-west-1"})),
        ("arn:aws:s3:::bucket", None, (None, "arn:aws:s3:::bucket", {})),
        ("ft:gpt-x-2024-07-18:org::id7", None, (None, "ft:gpt-x-2024-07-18:org::id7", {"fine_tune_of": "ft:gpt-x-2024-07-18"})),
        ("openai/ft:gpt-x:org::id7", None, ("openai", "ft:gpt-x:org::id7", {"fine_tune_of": "ft:gpt-x"})),
        ("maker/m:free", "openrouter", ("openrouter", "maker/m:free", {"suffix": "free"})),
        ("maker/m:nitro", "openrouter", ("openrouter", "maker/m", {"suffix": "nitro"})),
        ("openrouter/maker/m", None, ("openrouter", "maker/m", {})),
        ("openrouter/maker/m", "openrouter", ("openrouter", "maker/m", {})),
        ("openrouter/auto", None, ("openrouter", "openrouter/auto", {})),
        ("openrouter/auto", "openrouter", ("openrouter", "openrouter/auto", {})),
        ("openai/gpt-x", "openrouter", ("openrouter", "openai/gpt-x", {})),
        ("llama:8b", "ollama", ("ollama", "llama:8b", {})),
    ],
)  # fmt: skip
def test_names_are_taken_apart_by_rule(text, provider, expected):
    assert ref(text, provider) == expected


@pytest.mark.parametrize(
    ("provider", "name", "expected"),
    [
        ("openai", "m", [("m", "exact")]),
        ("openai", "m-2024-08-06", [("m-2024-08-06", "exact"), ("m", "dated")]),
        ("anthropic", "m-20240806", [("m-20240806", "exact"), ("m", "dated")]),
        ("anthropic", "m-20241306", [("m-20241306", "exact")]),
        ("anthropic", "m-latest", [("m-latest", "exact"), ("m", "latest")]),
        ("vertex", "m@20250514", [("m@20250514", "exact"), ("m", "version")]),
        ("vertex", "m@default", [("m@default", "exact"), ("m", "version")]),
        ("vertex", "m-20250514@001", [("m-20250514@001", "exact"), ("m-20250514", "version"), ("m", "dated")]),
        ("aws", "a.m-20240307-v1:0", [("a.m-20240307-v1:0", "exact"), ("a.m-20240307", "version"), ("a.m", "dated")]),
        ("aws", "a.m-v1:0:200k", [("a.m-v1:0:200k", "exact"), ("a.m", "version")]),
        ("aws", "a.m-v2", [("a.m-v2", "exact"), ("a.m", "version")]),
        ("aws", "a.m:1", [("a.m:1", "exact"), ("a.m", "version")]),
        (None, "a.m-v1:0", [("a.m-v1:0", "exact"), ("a.m", "version")]),
        (None, "m2.5-v1", [("m2.5-v1", "exact")]),
        ("groq", "whisper-large-v3", [("whisper-large-v3", "exact")]),
        ("deepseek", "deepseek-chat-v9", [("deepseek-chat-v9", "exact")]),
        ("ollama", "m:8", [("m:8", "exact")]),
    ],
)
def test_candidates_drop_only_dates_and_versions(provider, name, expected):
    assert list(ModelRef(name, name, provider).candidates()) == expected


@given(st.text(st.sampled_from("ab-.@:v0123456789/"), min_size=1, max_size=25), st.sampled_from([None, *PROVIDERS]))
def test_candidates_begin_exact_get_shorter_and_never_repeat(name, provider):
    ids = [name for name, _ in ModelRef(name, name, provider).candidates()]
    assert ids[0] == name
    assert [len(text) for text in ids] == sorted({len(text) for text in ids}, reverse=True)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 513, "\x00"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InputError, match="not a model name"):
        parse_model(name)
    assert parse_model("x" * 512).id == "x" * 512


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, name) for name in PROVIDERS),
        ("bedrock", "aws"), (" Vertex_AI ", "vertex"), ("gemini", "google"), ("xai", "x-ai"), ("azure_openai", "azure"),
        ("gcp.gen_ai", "google"), ("acme", "other:acme"), ("other:acme", "other:acme"), ("a" * 64, "other:" + "a" * 64),
    ],
)  # fmt: skip
def test_providers_have_one_name(name, expected):
    assert provider_id(name) == expected


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a" * 65, "other:"])
def test_what_is_no_provider_is_refused(name):
    with pytest.raises(InputError):
        provider_id(name)
