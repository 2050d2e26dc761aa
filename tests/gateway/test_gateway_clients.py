"""Real clients through the gateway: they get what a direct call gives, and the ledger says what was served."""

import asyncio
import json
import socket
import threading
import warnings

import anthropic
import httpx
import openai
import pytest
from gateway_desk import post, request
from google import genai

from tallystick.simulator import Answer

HELLO = [{"role": "user", "content": "Hello, how are you today?"}]
ANSWER = Answer(cached_tokens=3, reasoning_tokens=4, input_tokens=20)
CHAT = {"model": "gpt-4o", "messages": HELLO}
STREAM = {**CHAT, "stream": True}


def chat(client):
    return client.chat.completions.create(model="gpt-4o", messages=HELLO)


def chat_stream(client):
    return list(client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True))


def chat_stream_asking(client):
    return list(
        client.chat.completions.create(
            model="gpt-4o", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )


def responses(client):
    return client.responses.create(model="gpt-5", input="Hello there")


def responses_stream(client):
    return list(client.responses.create(model="gpt-5", input="Hello there", stream=True))


def embeddings(client):
    return client.embeddings.create(model="text-embedding-3-small", input="Hello there")


def claude(client):
    return client.messages.create(model="claude-sonnet-5", max_tokens=100, messages=HELLO)


def claude_stream(client):
    with client.messages.stream(model="claude-sonnet-5", max_tokens=100, messages=HELLO) as stream:
        return list(stream)


def gemini(client):
    return client.models.generate_content(model="gemini-2.5-flash", contents="Hello there")


def gemini_stream(client):
    return list(client.models.generate_content_stream(model="gemini-2.5-flash", contents="Hello there"))


MAKERS = {
    "openai": lambda url: openai.OpenAI(base_url=url, api_key="sk-own", max_retries=2),
    "anthropic": lambda url: anthropic.Anthropic(base_url=url, api_key="sk-own"),
    "google": lambda url: genai.Client(api_key="sk-own", vertexai=False, http_options={"base_url": url}),
}
PLACES = {"openai": "openai", "anthropic": "anthropic", "google": "gemini"}
CASES = [
    ("openai", chat), ("openai", chat_stream), ("openai", chat_stream_asking), ("openai", responses),
    ("openai", responses_stream), ("openai", embeddings), ("anthropic", claude), ("anthropic", claude_stream),
    ("google", gemini), ("google", gemini_stream),
]  # fmt: skip
TIMES = ("created", "created_at", "completed_at", "id", "item_id", "response_id", "sdk_http_response", "obfuscation")


def plain(value):
    """What an SDK gave, without what differs between two identical calls."""
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if hasattr(value, "model_dump"):
        value = value.model_dump()
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items() if name not in TIMES}
    return value


@pytest.mark.parametrize(("provider", "use"), CASES, ids=[f"{name}-{use.__name__}" for name, use in CASES])
def test_the_caller_gets_the_same_and_the_ledger_says_what_was_served(simulate, gateway, provider, use):
    sim = simulate(ANSWER)
    through = gateway(sim)
    place = PLACES[provider]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with MAKERS[provider](getattr(sim, f"{place}_url")) as client:
            bare = use(client)
        with MAKERS[provider](getattr(through, place)) as client:
            relayed = use(client)
    direct, served = sim.calls
    assert plain(relayed) == plain(bare)
    [entry] = through.entries(1)
    assert entry.usage == served.usage
    assert (entry.quality, entry.status, entry.http_status) == ("exact", "ok", 200)
    assert (entry.source, entry.provider) == ("gateway", provider)
    assert entry.amount.pico > 0
    assert entry.provider_response_id is None or entry.provider_response_id.endswith(served.response_id)
    # The provider sees the client's own headers and key, and nothing of ours.
    assert served.path == direct.path
    kept = {name: value for name, value in served.headers.items() if name not in ("host", "content-length")}
    bare = {
        name: value for name, value in direct.headers.items() if name not in ("host", "content-length", "connection")
    }
    assert {name: kept.get(name) for name in bare} == bare
    assert not [name for name in kept if name.startswith("x-tally")]
    if use is chat_stream:
        assert json.loads(served.body)["stream_options"] == {"include_usage": True}
    else:
        assert served.body == direct.body


def test_async_clients(simulate, gateway):
    sim = simulate(ANSWER)
    through = gateway(sim)

    async def both():
        async with openai.AsyncOpenAI(base_url=through.openai, api_key="sk-own") as client:
            made = await asyncio.gather(
                *(client.chat.completions.create(model="gpt-4o", messages=HELLO) for _ in range(8))
            )
            chunks = [
                chunk
                async for chunk in await client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
            ]
        async with (
            anthropic.AsyncAnthropic(base_url=through.anthropic, api_key="sk-own") as client,
            client.messages.stream(model="claude-sonnet-5", max_tokens=100, messages=HELLO) as stream,
        ):
            return made, chunks, "".join([piece async for piece in stream.text_stream])

    made, chunks, text = asyncio.run(both())
    assert len(made) == 8
    assert all(chunk.usage is None for chunk in chunks)
    assert text == sim.calls[-1].text
    entries = through.entries(10)
    assert sorted(entry.provider_response_id for entry in entries) == sorted(
        entry.provider_response_id for entry in entries if entry.quality == "exact"
    )
    assert sum(entry.usage["output"] for entry in entries) == sum(call.usage["output"] for call in sim.calls)


@pytest.mark.parametrize("value", [CHAT, STREAM], ids=["whole", "stream"])
def test_bytes_of_a_raw_client_are_those_of_a_direct_call(simulate, gateway, value):
    sim = simulate(Answer(output_tokens=50, ids="same"), series="same0000")
    through = gateway(sim)
    asking = {**value, "stream_options": {"include_usage": True}} if value is STREAM else value
    direct = post(sim.port, "/v1/chat/completions", asking)
    relayed = post(through.port, "/openai/v1/chat/completions", asking)
    assert relayed[0] == direct[0] == 200
    assert sim.calls[0].response == sim.calls[1].response
    ours = {name: text for name, text in relayed[1].items() if name.startswith("x-tally")}
    assert ours.keys() == ({"x-tally-call"} if value is STREAM else {"x-tally-call", "x-tally-cost"})
    same = ("content-type", "x-request-id") if value is STREAM else ("content-type", "content-length")
    assert {name: relayed[1].get(name) for name in same if name != "x-request-id"} == {
        name: direct[1].get(name) for name in same if name != "x-request-id"
    }
    [entry] = through.entries(1)
    assert entry.call_id == ours["x-tally-call"]
    assert ours.get("x-tally-cost", entry.amount.plain()) == entry.amount.plain()


def test_a_compressed_answer_passes_as_it_is(simulate, gateway):
    sim = simulate(Answer(output_tokens=300, encoding="gzip"))
    through = gateway(sim)
    status, headers, body = post(through.port, "/openai/v1/chat/completions", CHAT, "accept-encoding: gzip\n")
    assert (status, headers["content-encoding"]) == (200, "gzip")
    assert body[:2] == b"\x1f\x8b"
    [entry] = through.entries(1)
    assert (entry.usage, entry.quality) == (sim.calls[0].usage, "exact")


def test_a_retry_after_a_failure_is_an_attempt_of_its_own(simulate, gateway):
    sim = simulate(Answer(status=500, failures=2))
    through = gateway(sim)
    with openai.OpenAI(base_url=through.openai, api_key="sk-own", max_retries=3) as client:
        client._calculate_retry_timeout = lambda *_: 0.0
        assert chat(client).choices[0].message.content == sim.calls[-1].text
    first, second, third = through.entries(3)
    assert [entry.status for entry in (first, second, third)] == ["error", "error", "ok"]
    assert (first.attempt_of, second.attempt_of, third.attempt_of) == (None, first.call_id, first.call_id)
    assert third.usage == sim.calls[-1].usage


def test_errors_of_the_provider_stay_its_own(simulate, gateway):
    sim = simulate(Answer(status=429))
    through = gateway(sim)
    with (
        openai.OpenAI(base_url=through.openai, api_key="sk-own", max_retries=0) as client,
        pytest.raises(openai.RateLimitError) as caught,
    ):
        chat(client)
    assert caught.value.response.content == sim.calls[0].response
    [entry] = through.entries(1)
    assert (entry.status, entry.http_status, entry.amount.pico) == ("error", 429, 0)


def test_a_client_that_goes_away_leaves_an_exact_entry(simulate, gateway):
    sim = simulate(Answer(output_tokens=60, chunk_ms=5))
    through = gateway(sim)
    with openai.OpenAI(base_url=through.openai, api_key="sk-own") as client:
        stream = client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
        next(iter(stream))
        stream.close()
    [entry] = through.entries(1)
    [served] = sim.wait(1)
    assert entry.usage == served.usage
    assert entry.quality == "exact"
    assert not served.abandoned


def test_a_stream_that_the_provider_cuts_is_cut_for_the_client(simulate, gateway):
    sim = simulate(Answer(output_tokens=60, cut_after=10, cut_inside=True))
    through = gateway(sim)
    with httpx.Client() as client, pytest.raises(httpx.RemoteProtocolError):
        client.post(f"{through.openai}/chat/completions", json=STREAM)
    [entry] = through.entries(1)
    assert (entry.status, entry.quality) == ("error", "lower_bound")
    assert 0 < entry.usage["output"] <= 60


def test_an_answer_that_breaks_off_is_broken_off_for_the_client(gateway, simulate):
    def half(listening):
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(
                b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"id":'
            )

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=half, args=(listening,))
        thread.start()
        through = gateway(simulate(), upstreams={"openai": f"http://127.0.0.1:{listening.getsockname()[1]}/v1"})
        with httpx.Client() as client, pytest.raises(httpx.RemoteProtocolError):
            client.post(f"{through.openai}/chat/completions", json=CHAT)
        thread.join()
    [entry] = through.entries(1)
    assert (entry.status, entry.quality) == ("error", "lower_bound")


def test_a_provider_that_is_not_there(simulate, gateway):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    through = gateway(simulate(), upstreams={"openai": f"http://127.0.0.1:{port}/v1"})
    with (
        openai.OpenAI(base_url=through.openai, api_key="sk-secret-own", max_retries=0) as client,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        chat(client)
    assert caught.value.status_code == 502
    assert "could not be reached" in str(caught.value)
    assert "secret" not in caught.value.response.text
    [entry] = through.entries(1)
    assert entry.status == "error"


def test_a_provider_that_is_silent(simulate, gateway):
    sim = simulate(Answer(first_byte_ms=3000))
    through = gateway(sim, gateway={"read_timeout": 0.2})
    status, _, body = post(through.port, "/openai/v1/chat/completions", CHAT)
    assert status == 504
    assert b"in time" in body


def test_what_costs_nothing_passes_unmetered(simulate, gateway):
    sim = simulate()
    through = gateway(sim)
    with openai.OpenAI(base_url=through.openai, api_key="sk-own") as client:
        assert client.models.list().data
    with anthropic.Anthropic(base_url=through.anthropic, api_key="sk-own") as client:
        assert client.messages.count_tokens(model="claude-sonnet-5", messages=HELLO).input_tokens > 0
    assert through.entries() == []


def test_a_background_response_is_entered_when_it_is_fetched(simulate, gateway):
    through = gateway(simulate(Answer(polls=1)))
    with openai.OpenAI(base_url=through.openai, api_key="sk-own") as client:
        made = client.responses.create(model="gpt-5", input="Hello there", background=True)
        assert through.entries() == []
        while client.responses.retrieve(made.id).status != "completed":
            pass
    [entry] = through.entries(1)
    assert entry.quality == "exact"


def test_headers_say_who_asks(simulate, gateway):
    through = gateway(simulate())
    extra = {
        "x-tally-user": "ada%20l", "x-tally-tags": "team=a,step=x", "x-tally-run": "r1", "x-tally-step": "plan",
        "baggage": "tally.project=apollo,other=1", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
    }  # fmt: skip
    with openai.OpenAI(base_url=through.openai, api_key="sk-own", default_headers=extra) as client:
        chat(client)
    [entry] = through.entries(1)
    assert dict(entry.tags) == {"user": "ada l", "team": "a", "step": "x", "project": "apollo"}
    assert (entry.run_id, entry.step, entry.trace_id, entry.span_id) == ("r1", "plan", "a" * 32, "b" * 16)


def test_a_large_body_arrives_whole(simulate, gateway):
    sim = simulate(Answer(text="fine", input_tokens=1))
    through = gateway(sim)
    text = "x" * (100 * 2**20)
    value = {
        "model": "gpt-4o",
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{text}"}}]}
        ],
    }
    body = json.dumps(value).encode()
    status, _, _ = post(through.port, "/openai/v1/chat/completions", body)
    assert status == 200
    assert sim.calls[0].body == body


def test_a_body_beyond_the_limit_is_refused_at_once(simulate, gateway):
    sim = simulate()
    through = gateway(sim, gateway={"max_body": 4096})
    status, headers, body = post(through.port, "/anthropic/v1/messages", {"text": "x" * 5000})
    assert (status, json.loads(body)["error"]["type"]) == (413, "request_too_large")
    assert headers["x-should-retry"] == "false"
    chunked = (
        "POST /openai/v1/chat/completions HTTP/1.1\nhost: localhost\nconnection: close\ntransfer-encoding: chunked\n"
    )
    status, _, body = request(through.port, chunked, b"2000\r\n" + b"x" * 0x2000 + b"\r\n0\r\n\r\n")
    assert status == 413
    assert sim.calls == []


def test_a_slow_client_gets_everything_and_holds_little_back(simulate, gateway):
    sim = simulate(Answer(output_tokens=20000))
    through = gateway(sim)
    body = json.dumps(STREAM).encode()
    head = (
        f"POST /openai/v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    received, last = 0, b""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", through.port))
        sock.sendall(head.encode() + body)
        sock.recv(10)
        while chunk := sock.recv(65536):
            received += len(chunk)
            last = (last + chunk)[-100:]
    assert b"[DONE]" in last
    assert received > len(sim.calls[0].text)
    [entry] = through.entries(1)
    assert entry.usage == sim.calls[0].usage
