"""The real SDKs against the simulator: the ledger says what was served, and the caller gets what it would get."""

import asyncio
import warnings

import anthropic
import groq
import openai
import pytest
from google import genai
from mistralai.client import Mistral

import tallystick
from tallystick.simulator import Answer

HELLO = [{"role": "user", "content": "Hello, how are you today?"}]
ANSWER = Answer(cached_tokens=3, reasoning_tokens=4, input_tokens=20)


def _openai(sim):
    return openai.OpenAI(base_url=sim.openai_url, api_key="none")


def _openai_async(sim):
    return openai.AsyncOpenAI(base_url=sim.openai_url, api_key="none")


def model_of(client):
    return "llama-3.3-70b-versatile" if isinstance(client, groq.Groq) else "gpt-4o"


def chat(client):
    return client.chat.completions.create(model=model_of(client), messages=HELLO)


def chat_stream(client):
    return list(client.chat.completions.create(model=model_of(client), messages=HELLO, stream=True))


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


def mistral(client):
    return client.chat.complete(model="mistral-small-latest", messages=HELLO)


def mistral_stream(client):
    with client.chat.stream(model="mistral-small-latest", messages=HELLO) as stream:
        return list(stream)


MAKERS = {
    "openai": _openai,
    "anthropic": lambda sim: anthropic.Anthropic(base_url=sim.anthropic_url, api_key="none"),
    "google": lambda sim: genai.Client(api_key="none", vertexai=False, http_options={"base_url": sim.gemini_url}),
    "mistral": lambda sim: Mistral(server_url=sim.urls["mistral"], api_key="none"),
    "groq": lambda sim: groq.Groq(base_url=sim.urls["groq"], api_key="none"),
}
CASES = [
    ("openai", chat), ("openai", chat_stream), ("openai", chat_stream_asking), ("openai", responses),
    ("openai", responses_stream), ("openai", embeddings), ("anthropic", claude), ("anthropic", claude_stream),
    ("google", gemini), ("google", gemini_stream), ("mistral", mistral), ("mistral", mistral_stream),
    ("groq", chat), ("groq", chat_stream),
]  # fmt: skip


def plain(value):
    """What an SDK gave, without what differs between two identical calls: the times."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    dump = value.model_dump() if hasattr(value, "model_dump") else value
    return without_times(dump)


def without_times(value):
    if isinstance(value, dict):
        return {
            key: without_times(part)
            for key, part in value.items()
            if key not in ("created", "created_at", "completed_at", "id", "item_id", "response_id", "sdk_http_response",
                           "queue_time", "prompt_time", "completion_time", "total_time", "x_groq", "obfuscation")
        }  # fmt: skip
    return [without_times(part) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("name", "use"), CASES, ids=[f"{name}-{use.__name__}" for name, use in CASES])
def test_the_entry_says_what_was_served_and_the_caller_gets_the_same(simulate, ledger, meter, name, use):
    sim = simulate(ANSWER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with MAKERS[name](sim) as client:
            bare = use(client)
        with MAKERS[name](sim) as client:
            assert tallystick.track(client, meter=meter, provider=name, user="ada") is client
            tracked = use(client)
    served = sim.calls[-1]
    [entry] = ledger.read()
    assert plain(tracked) == plain(bare)
    assert entry.usage == served.usage
    assert (entry.quality, entry.status, entry.http_status) == ("exact", "ok", 200)
    assert dict(entry.tags) == {"user": "ada"}
    assert entry.provider == name
    assert entry.amount is not None
    assert entry.amount.pico > 0
    assert entry.request_bytes == len(sim.calls[0].body)
    if entry.provider_response_id is not None:
        assert entry.provider_response_id.endswith(served.response_id)
    assert (entry.source, entry.call_id[14]) == ("client", "7")
    assert entry.latency_us > 0
    # Without us the stream would state no usage: it was asked for, and nobody sees it.
    if use is chat_stream:
        assert b'"include_usage":true' in served.body
        assert b'"include_usage"' not in sim.calls[0].body


def test_async_clients_of_openai_and_anthropic(simulate, ledger, meter):
    sim = simulate(ANSWER)

    async def both():
        async with _openai_async(sim) as client:
            tallystick.track(client, meter=meter, provider="openai")
            await client.chat.completions.create(model="gpt-4o", messages=HELLO)
            chunks = [
                c async for c in await client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
            ]
        async with anthropic.AsyncAnthropic(base_url=sim.anthropic_url, api_key="none") as claude:
            tallystick.track(claude, meter=meter, provider="anthropic")
            async with claude.messages.stream(model="claude-sonnet-5", max_tokens=100, messages=HELLO) as stream:
                text = "".join([piece async for piece in stream.text_stream])
        return chunks, text

    chunks, text = asyncio.run(both())
    assert all(chunk.usage is None for chunk in chunks)
    assert text == sim.calls[-1].text
    assert [entry.usage for entry in ledger.read()] == [call.usage for call in sim.calls]
    assert {entry.quality for entry in ledger.read()} == {"exact"}


def test_gemini_async_goes_over_httpx_too(simulate, ledger, meter):
    sim = simulate(ANSWER)
    import httpx

    async def ask():
        async with httpx.AsyncClient() as http:
            client = genai.Client(
                api_key="none", vertexai=False, http_options={"base_url": sim.gemini_url, "httpx_async_client": http}
            )
            tallystick.track(client, meter=meter, provider="google")
            return await client.aio.models.generate_content(model="gemini-2.5-flash", contents="Hello there")

    assert asyncio.run(ask()).text == sim.calls[0].text
    [entry] = ledger.read()
    assert entry.usage == sim.calls[0].usage


def test_a_retry_is_an_attempt_of_its_own_that_names_the_first(simulate, ledger, meter):
    sim = simulate(Answer(status=500, failures=2))
    with openai.OpenAI(base_url=sim.openai_url, api_key="none", max_retries=3) as client:
        client._calculate_retry_timeout = lambda *_: 0.0
        tallystick.track(client, meter=meter, provider="openai")
        assert chat(client).choices[0].message.content == sim.calls[-1].text
    first, second, third = ledger.read()
    assert [entry.status for entry in (first, second, third)] == ["error", "error", "ok"]
    assert [entry.http_status for entry in (first, second, third)] == [500, 500, 200]
    assert (first.attempt_of, second.attempt_of, third.attempt_of) == (None, first.call_id, first.call_id)
    assert first.amount.pico == 0
    assert "bill nothing" in first.cost.notes[0]
    assert third.usage == sim.calls[-1].usage
    [total] = ledger.total()
    assert total.complete
    assert total.cost == third.amount


def test_errors_of_the_provider_stay_its_own(simulate, ledger, meter):
    sim = simulate(Answer(status=429))
    with openai.OpenAI(base_url=sim.openai_url, api_key="none", max_retries=0) as client:
        tallystick.track(client, meter=meter, provider="openai")
        with pytest.raises(openai.RateLimitError) as caught:
            chat(client)
    assert caught.value.status_code == 429
    [entry] = ledger.read()
    assert (entry.status, entry.quality, entry.amount.pico) == ("error", "exact", 0)


def test_a_background_response_settles_once_when_it_is_fetched(simulate, ledger, meter):
    sim = simulate(Answer(polls=2))
    with tallystick.track(_openai(sim), meter=meter, provider="openai") as client:
        with tallystick.run("slow") as run:
            made = client.responses.create(model="gpt-5", input="Hello there", background=True)
            assert list(ledger.read()) == []
            assert (run.calls, run.in_flight) == (0, 1)
        states = [client.responses.retrieve(made.id).status for _ in range(5)]
    assert states[-1] == "completed"
    assert states[0] != "completed"
    [entry] = ledger.read()
    assert entry.usage == sim.calls[-1].usage
    assert entry.run_id == run.run_id
    assert (run.calls, run.in_flight) == (1, 0)
    assert run.cost == entry.amount


def test_a_background_response_that_nobody_fetches_is_unknown_and_not_free(simulate, ledger, meter):
    sim = simulate(Answer(polls=2))
    with tallystick.track(_openai(sim), meter=meter, provider="openai") as client:
        client.responses.create(model="gpt-5", input="Hello there", background=True)
    meter.close()
    [entry] = ledger.read()
    assert (entry.usage, entry.quality, entry.cost, entry.status) == (None, "unknown", None, "ok")
