"""What a request says: which API, who bills, how much it may cost; whatever the body."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.wire.facts import RequestFacts, request_facts
from tallystick.wire.routes import is_free, route

ROUTES = [
    ("https://api.openai.com/v1/chat/completions", "openai.chat", "openai", {}),
    ("https://eu.api.openai.com/v1/responses", "openai.responses", "openai", {"data_residency": "eu"}),
    ("https://api.openai.com/v1/embeddings/", "openai.embeddings", "openai", {}),
    ("https://api.openai.com/v1/images/edits", "openai.images", "openai", {}),
    ("https://api.openai.com/v1/audio/transcriptions", "openai.audio.transcriptions", "openai", {}),
    ("https://api.openai.com/v1/audio/speech", "openai.audio.speech", "openai", {}),
    ("https://r.openai.azure.com/openai/deployments/my%20dep/chat/completions?api-version=1", "openai.chat", "azure",
     {"deployment": "my dep"}),
    ("https://api.anthropic.com/v1/messages?beta=true", "anthropic.messages", "anthropic", {}),
    ("https://api.mistral.ai/v1/chat/completions", "mistral.chat", "mistral", {}),
    ("https://api.deepseek.com/chat/completions", "deepseek.chat", "deepseek", {}),
    ("https://us-east-1.api.x.ai/v1/responses", "xai.responses", "x-ai", {}),
    ("https://api.groq.com/openai/v1/audio/transcriptions", "groq.audio", "groq", {}),
    ("https://api.together.ai/v1/chat/completions", "together.chat", "together", {}),
    ("https://openrouter.ai/api/v1/chat/completions", "openrouter.chat", "openrouter", {}),
    ("https://api.perplexity.ai/chat/completions", "perplexity.chat", "perplexity", {}),
    ("https://api.cohere.com/v2/chat", "cohere.chat", "cohere", {}),
    ("https://api.cohere.com/v2/rerank", "cohere.rerank", "cohere", {}),
    ("https://api.cohere.ai/compatibility/v1/chat/completions", "compatible.chat", "cohere", {}),
    ("http://localhost:11434/api/chat", "ollama.chat", "ollama", {}),
    ("http://localhost:8000/v1/chat/completions", "compatible.chat", "other:localhost", {}),
    ("https://evilapi.openai.com.example/v1/chat/completions", "compatible.chat",
     "other:evilapi.openai.com.example", {}),
    (f"https://{'a' * 60}.example/v1/chat/completions", "compatible.chat", f"other:{'a' * 58}", {}),
    ("/v1/chat/completions", "openai.chat", "openai", {}),
    ("/v1/messages", "anthropic.messages", "anthropic", {}),
    ("/api/generate", "ollama.chat", "ollama", {}),
]  # fmt: skip


@pytest.mark.parametrize(("url", "api", "provider", "context"), ROUTES)
def test_routes(url, api, provider, context):
    found = route("post", url)
    assert (found.api, found.provider, found.context, found.model, found.stream) == (api, provider, context, None, None)
    assert "?" not in found.path


GOOGLE = "https://generativelanguage.googleapis.com/v1beta/models/"
VERTEX = "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/us-central1/publishers/"
AWS = "https://bedrock-runtime.eu-west-1.amazonaws.com/model/"
MODELS = [
    (f"{GOOGLE}gm:generateContent?key=secret", "gemini.generateContent", "google", "gm", False, {}),
    (f"{GOOGLE}gm:streamGenerateContent?alt=sse", "gemini.generateContent", "google", "gm", True, {}),
    (f"{VERTEX}google/models/gm:streamGenerateContent", "gemini.generateContent", "vertex", "gm", True,
     {"region": "us-central1"}),
    ("/v1/projects/p/locations/global/publishers/google/models/gm:generateContent", "gemini.generateContent", "vertex",
     "gm", False, {"region": "global"}),
    ("https://aiplatform.us.rep.googleapis.com/v1/endpoints/12:generateContent", "gemini.generateContent", "vertex",
     "12", False, {}),
    (f"{VERTEX}anthropic/models/cl@20250101:streamRawPredict", "anthropic.messages", "vertex", "cl@20250101", True,
     {"region": "us-central1"}),
    (f"{AWS}us.maker.name-v1%3A0/converse-stream", "bedrock.converse", "aws", "us.maker.name-v1:0", True,
     {"region": "eu-west-1"}),
    (f"{AWS}arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fx/invoke", "bedrock.invoke", "aws",
     "arn:aws:bedrock:us-east-1:1:inference-profile/x", False, {"region": "eu-west-1"}),
]  # fmt: skip


@pytest.mark.parametrize(("url", "api", "provider", "model", "stream", "context"), MODELS)
def test_routes_that_name_the_model(url, api, provider, model, stream, context):
    facts = request_facts("POST", url, {}, b"")
    found = (facts.api, facts.provider, facts.model, facts.stream, facts.context)
    assert found == (api, provider, model, stream, context)


def test_the_caller_knows_better_than_the_host():
    local = "http://127.0.0.1:4100/v1/chat/completions"
    assert route("POST", local, "openrouter").api == "openrouter.chat"
    assert route("POST", local, "vllm").api == "vllm.chat"
    assert route("POST", local, "\n").provider == "other:unnamed"
    assert route("POST", "http://h/api/chat", "other:mine").provider == "other:mine"
    assert route("POST", "https://api.cohere.com/v2/classify") is None


@pytest.mark.parametrize(
    "url",
    ["", "/", "http://[::1", "/v1/messages/count_tokens", "/v1/messages/batches", "/v1/threads/t/messages",
     "/v1/chat/completions/x", "/v1/models", "/model/x/count-tokens", "/v1beta/models/gm:countTokens", "//"],
)  # fmt: skip
def test_paths_without_a_reader(url):
    assert route("POST", url) is None
    assert request_facts("POST", url, {}, b"{}") is None


def test_what_is_known_to_be_free():
    for url in ("/v1/messages/count_tokens", "/v1/moderations", "/v1/responses/input_tokens", "/x:countTokens",
                "/model/m/count-tokens", "/api/tags"):  # fmt: skip
        assert is_free("POST", url)
    for url in ("/v1/chat/completions", "/v1/videos", "/v1/moderations/x", "http://[::1"):
        assert not is_free("POST", url)
    assert route("GET", "/v1/chat/completions") is None
    assert is_free("GET", "/v1/models")
    assert not is_free("GET", "/v1/responses/resp_1")
    assert not is_free("DELETE", "/v1/models/x")


def facts(url, body, **headers):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return request_facts("POST", url, headers, raw)


PICTURE = "data:image/png;base64,AAAA"
CHAT = {
    "model": "m", "stream": True, "stream_options": {"include_usage": True}, "max_completion_tokens": 50,
    "max_tokens": 70, "n": 3, "service_tier": "flex",
    "messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [
            {"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": PICTURE}},
        ]},
    ],
    "tools": [
        {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}},
        {"type": "web_search"}, "odd", {"functionDeclarations": ["odd"]}, {"name": 5},
    ],
}  # fmt: skip


def test_a_chat():
    found = facts("/v1/chat/completions", CHAT)
    assert (found.model, found.stream, found.max_output, found.answers) == ("m", True, 50, 3)
    assert (found.tier, found.tools, found.images, found.usage_asked) == ("flex", ("look", "web_search"), 1, True)
    assert found.body_bytes == len(json.dumps(CHAT))
    assert found.texts() == ["Be kind.", "What is it?", "look", "Looks.", "odd", "odd"]
    assert found.system() == "Be kind."
    assert found.payload() == CHAT


def test_the_other_formats():
    found = facts("/v1/messages", {
        "model": "m", "max_tokens": 9, "system": [{"type": "text", "text": "S"}], "speed": "fast",
        "inference_geo": "us", "tools": [{"name": "t", "input_schema": {}}],
        "messages": [{"role": "user", "content": [{"type": "image", "source": {"data": "AA"}}]}],
    })  # fmt: skip
    assert (found.max_output, found.tools, found.images, found.system()) == (9, ("t",), 1, "S")
    assert found.context == {"speed": "fast", "inference_geo": "us"}
    found = facts("/v1/responses", {"input": "Hi", "instructions": "S", "max_output_tokens": 7, "background": True})
    assert (found.max_output, found.background, found.texts(), found.system()) == (7, True, ["S", "Hi"], "S")
    found = facts("/v1beta/models/g:generateContent", {
        "contents": [{"parts": [{"text": "Hi"}, {"inlineData": {"mimeType": "image/png", "data": "AA"}},
                                {"inlineData": {"mimeType": "audio/wav", "data": "image"}}, {"inlineData": 5}]}],
        "generationConfig": {"maxOutputTokens": 8, "candidateCount": 2}, "systemInstruction": {"parts": [{"text": "S"}]},
        "tools": [{"functionDeclarations": [{"name": "f"}, {"name": "g"}]}, {"googleSearch": {}}], "serviceTier": "flex",
    })  # fmt: skip
    assert (found.max_output, found.answers, found.tools, found.images) == (8, 2, ("f", "g", "googleSearch"), 1)
    assert (found.tier, found.system()) == ("flex", "S")
    found = facts("/model/m/converse", {
        "messages": [{"role": "user", "content": [{"text": "Hi"}, {"image": {"format": "png", "source": {"bytes": "A"}}}]}],
        "inferenceConfig": {"maxTokens": 6}, "serviceTier": {"type": "priority"},
        "toolConfig": {"tools": [{"toolSpec": {"name": "w"}}]}, "performanceConfig": {"latency": "optimized"},
    })  # fmt: skip
    assert (found.max_output, found.tier, found.tools, found.images) == (6, "priority", ("w",), 1)
    assert (found.context, found.texts()) == ({"speed": "optimized"}, ["Hi", "w"])
    found = facts("/api/chat", {"model": "m", "messages": [], "options": {"num_predict": 5}})
    assert (found.stream, found.max_output) == (True, 5)
    assert not facts("/api/chat", {"stream": False}).stream


def test_forms():
    parts = {"model": "m", "stream": "true", "n": "2"}
    head = "".join(f'--b\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in parts.items())
    file = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + b"\0" * 2**21 + b"\r\n"
    headers = {"content-type": "multipart/form-data; boundary=b"}
    for body in (head.encode() + file, file + head.encode()):
        found = request_facts("POST", "/v1/audio/transcriptions", headers, body)
        assert (found.model, found.stream, found.answers, found.body_bytes) == ("m", True, 2, len(body))
    empty = request_facts("POST", "/v1/images/edits", headers, b"")
    assert (empty.model, empty.stream, empty.answers) == (None, False, 1)


def test_compressed_and_unreadable_bodies():
    packed = gzip.compress(json.dumps(CHAT).encode())
    headers = {"content-encoding": "gzip"}
    assert request_facts("POST", "/v1/chat/completions", headers, packed).model == "m"
    assert request_facts("POST", "/v1/chat/completions", headers, b"x" * 30).model is None
    for body in (b"", b"[1]", b"\xff", b"[" * 99_999, b'{"model":"\\ud800","stream":"yes","n":true,"image":[[]}'):
        found = facts("/v1/chat/completions", body)
        assert (found.model, found.stream, found.answers, found.images) == (None, False, 1, 0)
        assert (found.payload(), found.texts(), found.system()) == ({}, [], "")


def test_odd_values_are_unknown():
    deep = {"x": 1}
    for _ in range(100):
        deep = {"image": deep}
    body = {"model": "m" * 2000, "max_tokens": -1, "n": 2**60, "tools": {}, "messages": [deep, 3], "service_tier": 5}
    found = facts("/v1/chat/completions", body)
    assert found == RequestFacts(
        "openai.chat", "openai", "/v1/chat/completions", body_bytes=found.body_bytes, body=found.body
    )
    assert found.texts() == []
    broken = b'{"tools":"\xff","inferenceConfig":[],"model":"m"}'
    assert facts("/v1/chat/completions", broken).tools == ()


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["model", "stream", "n", "tools", "messages", "image", "type", "input", "contents", "function", "name", "options", "system"]),
        inner, max_size=4),
    max_leaves=15,
)  # fmt: skip


@given(st.sampled_from([row[0] for row in ROUTES + MODELS]), ANY, st.binary(max_size=50))
def test_no_body_raises(url, value, raw):
    for body in (json.dumps(value).encode(), raw):
        for kind in ("application/json", "multipart/form-data"):
            found = request_facts("POST", url, {"content-type": kind}, body)
            found.texts()
            found.system()


@given(st.text(max_size=60), st.text(max_size=6))
def test_no_url_raises(url, method):
    route(method, url)
    is_free(method, url)
    route("POST", f"http://{url}/v1/messages")
