"""The simulator's own truth against the wire readers', and its payloads against the SDKs' own types."""

import json
import subprocess
import sys

import msgspec
import pytest
from simulator_clients import CHAT, HELLO, STREAM, post

from tallystick.core.usage import Usage
from tallystick.simulator import Answer, Function, Request
from tallystick.simulator.formats import WRITERS
from tallystick.simulator.plan import plan
from tallystick.simulator.sdk import through
from tallystick.simulator.text import WORDS
from tallystick.tokens import count_text
from tallystick.wire.facts import request_facts
from tallystick.wire.reader import reader_for

RICH = Answer(
    output_tokens=6, input_tokens=1000, cached_tokens=100, cache_write_5m=20, cache_write_1h=30, reasoning_tokens=7,
    audio_input_tokens=11, audio_output_tokens=5, tools={"web_search": 2, "file_search": 1, "code_interpreter": 1},
    functions=(Function("f", '{"a":1}'),), cost="0.0125", upstream_cost="0.01", byok=True, pings=True, obfuscation=True,
)  # fmt: skip
CLAUDE = {"model": "claude-sonnet-5", "max_tokens": 5000, "messages": HELLO, "thinking": {"type": "adaptive"}}
INVOKE = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 5000, "messages": HELLO}
GEMINI = {
    "contents": [{"parts": [{"text": "hi"}]}],
    "generationConfig": {"thinkingConfig": {"includeThoughts": True}},
}
TALK = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
OLD = {"model": "gpt-3.5-turbo-instruct", "prompt": "a"}
NEW = {"model": "gpt-5", "input": "hi"}
SOUND = {"model": "gpt-4o-transcribe"}
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
COMPATIBLE = ("mistral", "deepseek", "xai", "groq", "openrouter", "together", "vllm", "perplexity")
READ = [
    ("/v1/chat/completions", CHAT), ("/v1/chat/completions", STREAM),
    ("/v1/completions", OLD), ("/v1/completions", OLD | STREAMED),
    ("/v1/responses", NEW), ("/v1/responses", NEW | {"stream": True}),
    ("/v1/responses", NEW | {"stream": True, "background": True}),
    ("/v1/embeddings", {"model": "text-embedding-3-small", "input": ["a", "b"]}),
    ("/v1/images/generations", {"model": "gpt-image-1", "prompt": "x"}),
    ("/v1/audio/transcriptions", SOUND), ("/v1/audio/transcriptions", SOUND | {"stream": True}),
    ("/v1/messages", CLAUDE), ("/v1/messages", CLAUDE | {"stream": True}),
    ("/v1beta/models/gemini-2.5-flash:generateContent", GEMINI),
    ("/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", GEMINI),
    ("/v1beta/models/gemini-2.5-flash:streamGenerateContent", GEMINI),
    ("/model/some.model/converse", TALK), ("/model/some.model/converse-stream", TALK),
    ("/model/some.model/invoke", INVOKE), ("/model/some.model/invoke-with-response-stream", INVOKE),
    ("/ollama/api/chat", CHAT), ("/ollama/api/chat", CHAT | {"stream": False}),
    *((f"/{name}/v1/chat/completions", body) for name in COMPATIBLE for body in (CHAT, STREAM)),
]  # fmt: skip
IDS = [f"{path.split('?')[0]}{'-stream' if body.get('stream') else ''}-{at}" for at, (path, body) in enumerate(READ)]
UNTYPED = ("/ollama/",)
"""Ollama's own client is not among the SDKs here."""


def read(path, body, response, data):
    """What the wire readers make of an answer."""
    first = path.split("/")[1]
    provider = {"xai": "x-ai"}.get(first, first) if first in (*COMPATIBLE, "ollama") else None
    facts = request_facts(
        "POST", path, {"content-type": "application/json"}, json.dumps(body).encode(), provider=provider
    )
    reader = reader_for(facts, response.status, {name.lower(): value for name, value in response.getheaders()})
    reader.feed(data)
    return reader.close()


@pytest.mark.parametrize(("path", "body"), READ, ids=IDS)
@pytest.mark.parametrize("shape", ["normal", "twice"])
def test_what_is_served_is_what_is_read(simulate, path, body, shape):
    sim = simulate(msgspec.structs.replace(RICH, usage=shape))
    response, data = post(sim, path, body)
    (call,) = sim.calls
    outcome = read(path, body, response, data)
    assert outcome.usage == call.usage
    assert (outcome.quality, outcome.fault) == ("exact", None)
    assert call.delivered == call.text
    assert call.response == data
    assert bool(call.typed) is not path.startswith(UNTYPED)


@pytest.mark.parametrize(("path", "body"), READ, ids=IDS)
def test_the_sdks_types_accept_every_payload_and_change_no_byte(path, body):
    request = Request("POST", path, {}, json.dumps(body).encode())
    frames = WRITERS[request.api](plan(request, RICH)).frames
    checked = 0
    if path == "/v1/completions":
        # OpenAI sends null as the finish_reason of every piece but the last, which its own type does not allow.
        frames = [frame for frame in frames if not frame.text or not body.get("stream")]
    for frame in frames:
        if frame.type is not None:
            accepted = through(frame.type, frame.payload)
            assert accepted is not None, frame
            assert msgspec.json.encode(accepted) == msgspec.json.encode(frame.payload)
            checked += 1
    assert checked >= len(frames) - 2 - sum(frame.name == "ping" for frame in frames) or path.startswith(UNTYPED)


@pytest.mark.parametrize("form", ["background", "in_progress", "fetched"])
def test_background_payloads_are_the_sdks_too(form):
    decided = plan(Request("POST", "/v1/responses", {}, json.dumps(NEW).encode()), RICH)
    (frame,) = WRITERS["openai.responses"](msgspec.structs.replace(decided, form=form)).frames
    assert through(frame.type, frame.payload) is not None


def test_a_type_refuses_what_is_wrong():
    assert through("openai.types.chat:ChatCompletion", {"id": "x"}) is None
    assert through("botocore:ConverseResponse", {"usage": {"inputTokens": "many"}}) is None
    assert through("no.such.module:Type", {}) is None
    assert through("openai.types:NoSuchType", {}) is None


def test_the_same_bytes_with_and_without_the_types(simulate):
    answers = [
        [post(simulate(RICH, typed=typed, series="abcdefgh"), *one)[1] for one in READ] for typed in (True, False)
    ]
    assert answers[0] == answers[1]


def test_seconds_of_sound(simulate):
    sim = simulate(Answer(text="hello", audio_seconds=9))
    response, data = post(sim, "/v1/audio/transcriptions", {"model": "whisper-1"})
    outcome = read("/v1/audio/transcriptions", {"model": "whisper-1"}, response, data)
    assert outcome.usage == sim.calls[0].usage == Usage(milliseconds_input=9000)


def test_made_up_words_are_one_token_each():
    for model in ("gpt-4o", "gpt-4"):
        assert count_text(" ".join(WORDS), model).tokens == len(WORDS)
        assert {count_text(word, model).tokens for word in WORDS} == {1}


def test_prompts_are_counted_and_hidden_tokens_added(simulate):
    sim = simulate(Answer())
    post(sim, "/v1/chat/completions", CHAT)
    sim.play(Answer(hidden_tokens=1000))
    post(sim, "/v1/chat/completions", CHAT)
    post(sim, "/v1/embeddings", {"model": "text-embedding-3-small", "input": ["hello", "Hello, how are you today?"]})
    post(sim, "/v1/embeddings", {"model": "text-embedding-3-small", "input": [1, 2, 3]})
    plain, hidden, embedded, packed = (call.usage for call in sim.calls)
    assert plain["input"] >= 7
    assert hidden["input"] == plain["input"] + 1000
    assert embedded == Usage(input=1000 + 1 + 7)
    assert packed == Usage(input=1003)
    text = sim.calls[0].text
    assert text == "You said: Hello, how are you today?"
    assert plain["output"] == count_text(text, "gpt-4o").tokens


@pytest.mark.parametrize("limit", [1, 3, 4])
def test_a_given_text_is_cut_at_the_limit(simulate, limit):
    sim = simulate(Answer(text="Grüße aus 世界 🌍 und anderswo", reasoning_tokens=1))
    _, data = post(sim, "/v1/chat/completions", CHAT | {"max_tokens": limit})
    body = json.loads(data)
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == limit
    assert sim.calls[0].usage.output_tokens == limit
    said = body["choices"][0]["message"]["content"]
    assert "Grüße aus 世界 🌍 und anderswo".startswith(said)
    assert count_text(said, "gpt-4o").tokens <= limit


def test_stated_tokens_and_a_text_are_cut_together(simulate):
    sim = simulate(Answer(text="a" * 100, output_tokens=50))
    post(sim, "/v1/chat/completions", CHAT | {"max_tokens": 10})
    assert (len(sim.calls[0].text), sim.calls[0].usage["output"]) == (20, 10)


@pytest.mark.parametrize(("options", "number"), [({"chunks": 3}, 3), ({"chunk_tokens": 4}, 5), ({}, 20)])
def test_how_many_pieces(simulate, options, number):
    sim = simulate(Answer(output_tokens=20, **options))
    _, data = post(sim, "/v1/messages", CLAUDE | {"stream": True})
    assert data.count(b"text_delta") == number
    assert sim.calls[0].delivered == sim.calls[0].text


def test_the_simulator_needs_no_sdk():
    code = (
        "import sys\n"
        "from tallystick.simulator import Answer, Simulator\n"
        "import http.client, json\n"
        "with Simulator(Answer(text='hi', input_tokens=3), typed=False) as sim:\n"
        "    to = http.client.HTTPConnection('127.0.0.1', sim.port)\n"
        "    to.request('POST', '/v1/chat/completions', json.dumps({'model': 'x', 'messages': []}))\n"
        "    print(json.loads(to.getresponse().read())['usage']['prompt_tokens'])\n"
        "    to.close()\n"
        "print(*({'openai', 'anthropic', 'google', 'botocore', 'pydantic'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("3\n\n", "")
