"""Bytes: however a stream is cut into reads, its usage is the same; and whatever comes, the caller gets its bytes."""

import functools
import gzip
import itertools
import json
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tallystick
from tallystick.defaults import catalog
from tallystick.ledger.memory import MemoryLedger
from tallystick.metering.meter import Meter
from tallystick.simulator import Answer, Function, Simulator

WIRE = Path(__file__).parents[1] / "data" / "wire"
CHAT = "https://api.openai.com/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]
BEDROCK = "https://bedrock-runtime.us-east-1.amazonaws.com/model/anthropic.claude-sonnet-4-5-20250929-v1:0/"
BINARY = "application/vnd.amazon.eventstream"
URLS = {
    "anthropic": ("https://api.anthropic.com/v1/messages", "text/event-stream"),
    "chat": (CHAT, "text/event-stream"),
    "completions": ("https://api.openai.com/v1/completions", "text/event-stream"),
    "cohere": ("https://api.cohere.com/v2/chat", "text/event-stream"),
    "converse": (BEDROCK + "converse-stream", BINARY),
    "deepseek": ("https://api.deepseek.com/chat/completions", "text/event-stream"),
    "gemini": (
        "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
        "text/event-stream",
    ),
    "groq": ("https://api.groq.com/openai/v1/chat/completions", "text/event-stream"),
    "images": ("https://api.openai.com/v1/images/generations", "text/event-stream"),
    "invoke": (BEDROCK + "invoke-with-response-stream", BINARY),
    "mistral": ("https://api.mistral.ai/v1/chat/completions", "text/event-stream"),
    "ollama": ("http://localhost:11434/api/chat", "application/x-ndjson"),
    "openrouter": ("https://openrouter.ai/api/v1/chat/completions", "text/event-stream"),
    "perplexity": ("https://api.perplexity.ai/chat/completions", "text/event-stream"),
    "responses": ("https://api.openai.com/v1/responses", "text/event-stream"),
    "speech": ("https://api.openai.com/v1/audio/speech", "text/event-stream"),
    "together": ("https://api.together.xyz/v1/chat/completions", "text/event-stream"),
    "transcription": ("https://api.openai.com/v1/audio/transcriptions", "text/event-stream"),
    "xai": ("https://api.x.ai/v1/chat/completions", "text/event-stream"),
}


def recorded():
    """Recorded streams: name, URL, content type, bytes."""
    for place in sorted(WIRE.iterdir()):
        if place.suffix in (".sse", ".ndjson", ".jsonl", ".eventstream"):
            url, kind = URLS[place.stem.partition("_")[0]]
            yield place.name, url, kind, place.read_bytes()


FULL = {"output_tokens": 30, "input_tokens": 100, "cached_tokens": 30, "reasoning_tokens": 5}
ANSWERS = {
    "plain": Answer(**FULL),
    "noise": Answer(**FULL, crlf=True, comments=True, pings=True, obfuscation=True),
    "functions": Answer(text="Grüße 世界", functions=(Function("weather", '{"city":"Ås"}'),)),
    "twice": Answer(**FULL, usage="twice"),
    "missing": Answer(output_tokens=30, usage="missing"),
    "error": Answer(output_tokens=30, error_after=9),
}
ASKED = {"model": "gpt-4o", "messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}
REQUESTS = {
    "chat": ("/v1/chat/completions", ASKED),
    "anthropic": ("/v1/messages", {"model": "claude-sonnet-4-5", "max_tokens": 900, "messages": HELLO, "stream": True}),
    "responses": ("/v1/responses", {"model": "gpt-5", "input": "Hello", "stream": True}),
    "gemini": ("/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", {"contents": [{"parts": [{"text": "Hello"}]}]}),
    "converse": ("/model/m/converse-stream", {"messages": [{"role": "user", "content": [{"text": "Hello"}]}]}),
}  # fmt: skip
NAMES = [*(name for name, *_ in recorded()), *(f"{api} {name}" for name in ANSWERS for api in REQUESTS)]


@functools.cache
def streams():
    """All streams by their names: the recorded ones, and those that the simulator writes: every way of stating usage,
    with all that may stand between events."""
    found = {name: rest for name, *rest in recorded()}
    with Simulator() as sim, httpx.Client(timeout=60) as client:
        for name, answer in ANSWERS.items():
            for api, (path, body) in REQUESTS.items():
                sim.play(answer)
                found[f"{api} {name}"] = [*URLS[api], client.post(sim.url + path, json=body).content]
    return found


def fed(url, kind, parts, model="gpt-4o", **answer):
    """The entry of a call whose answer came in these parts, and what was handed over."""
    with MemoryLedger() as ledger:
        meter = Meter(ledger, catalog, stream_usage=False)
        body = json.dumps({"model": model, "stream": True, "messages": HELLO}).encode()
        call = meter.call("POST", url, {"content-type": "application/json"}, body)
        call.ask()
        call.outgoing()
        call.answered(200, {"content-type": kind, **answer})
        out = b"".join([*(call.feed(part) for part in parts), call.close()])
        meter.close()
        assert meter.faults.counts == {}
        [entry] = ledger.read()
    return entry, out


def said(entry):
    return (
        entry.usage, entry.quality, entry.status, entry.amount, entry.model, entry.tier, entry.provider_response_id,
        entry.usage_raw,
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_any_split_of_a_stream_gives_the_same_usage(name):
    url, kind, raw = streams()[name]
    expected, out = fed(url, kind, [raw])
    assert out == raw
    assert expected.usage is not None or b"usage" not in raw

    @settings(max_examples=12)
    @given(st.lists(st.integers(0, len(raw)), max_size=60))
    def check(places):
        ends = [0, *sorted(places), len(raw)]
        parts = [raw[start:end] for start, end in itertools.pairwise(ends)]
        entry, passed = fed(url, kind, parts)
        assert passed == raw
        assert said(entry) == said(expected)

    check()
    if len(raw) < 12_000:
        entry, _ = fed(url, kind, [raw[at : at + 1] for at in range(len(raw))])
        assert said(entry) == said(expected)


class Served(httpx.SyncByteStream):
    """A body in parts, with the end that a test asks for."""

    def __init__(self, parts, error=None):
        self.parts = parts
        self.error = error

    def __iter__(self):
        yield from self.parts
        if self.error is not None:
            raise self.error


def through(parts, headers, status=200, error=None, stream=True):
    """The bytes that a tracked client gets, or the error; and the entries."""

    def provider(request):
        return httpx.Response(status, headers=headers, stream=Served(list(parts), error))

    with MemoryLedger() as ledger, httpx.Client(transport=httpx.MockTransport(provider)) as client:
        meter = Meter(ledger, catalog)
        tallystick.track(client, meter=meter)
        got = b""
        with client.stream("POST", CHAT, json={"model": "gpt-4o", "stream": stream, "messages": HELLO}) as response:
            try:
                for part in response.iter_raw():
                    got += part
            except httpx.ReadError as raised:
                assert raised is error
        meter.close()
        return got, list(ledger.read()), meter.faults.counts


EVENTS = st.one_of(
    st.binary(max_size=200),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["usage", "choices", "delta", "content", "id", "model", "prompt_tokens", "type", "error"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ).map(lambda found: b"data: " + json.dumps(found).encode() + b"\n\n"),
    st.sampled_from([b"data: [DONE]\n\n", b"\r\n\r\n", b":\n\n", b"\xef\xbb\xbf", b"data:" + b"[" * 5000 + b"\n\n"]),
)
KINDS = st.sampled_from(
    ["text/event-stream", "application/json", BINARY, "text/html", "", "text/event-stream; charset=utf-16", "x" * 200]
)


@settings(max_examples=120)
@given(st.lists(EVENTS, max_size=12), KINDS, st.sampled_from([200, 206, 204, 301, 400, 429, 500]), st.booleans())
def test_garbage_never_reaches_the_callers_call(parts, kind, status, breaks):
    error = httpx.ReadError("The connection broke.") if breaks else None
    got, entries, faults = through(parts, {"content-type": kind}, status, error)
    assert faults == {}
    assert len(entries) == 1
    if kind != "text/event-stream" or status != 200:
        assert got == b"".join(parts)
    if entries[0].usage is None and entries[0].status == "ok":
        assert entries[0].amount is None


@settings(max_examples=60)
@given(
    st.binary(max_size=400),
    st.sampled_from(["gzip", "br", "deflate", "zstd", "nonsense", "gzip, gzip"]),
    st.integers(0, 400),
)
def test_a_compressed_answer_that_is_broken_never_raises_in_us(data, encoding, size):
    whole = gzip.compress(b'data: {"choices":[]}\n\n' + data)
    raw = data if encoding != "gzip" else whole[:size]
    got, entries, faults = through([raw], {"content-type": "application/json", "content-encoding": encoding})
    assert (got, faults, len(entries)) == (raw, {}, 1)


@settings(max_examples=40)
@given(st.sampled_from(NAMES), st.data())
def test_truncated_and_damaged_recordings_pass_and_are_never_more_than_the_whole(name, data):
    url, kind, raw = streams()[name]
    size = data.draw(st.integers(0, len(raw)))
    entry, out = fed(url, kind, [raw[:size]])
    assert out == raw[:size]
    assert entry.quality != "exact" or entry.usage is not None
    at = data.draw(st.integers(0, max(0, len(raw) - 1)))
    damaged = raw[:at] + data.draw(st.binary(max_size=9)) + raw[at + 1 :]
    entry, out = fed(url, kind, [damaged])
    assert out == damaged
    assert entry.amount is None or entry.amount.pico >= 0
