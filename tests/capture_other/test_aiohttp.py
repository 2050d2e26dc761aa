"""aiohttp, and google-genai over it: the same bytes, errors and endings, and a ledger that says what was served."""

import asyncio
import gzip
import json
from contextlib import asynccontextmanager

import aiohttp
import pytest
from google import genai
from google.genai import errors as genai_errors
from other_calls import CHAT, CLAUDE, STREAM, TEXT, entries, soon, used
from test_requests import redirecting

import tallystick
from tallystick import instrument, run, track
from tallystick.simulator import Answer


@asynccontextmanager
async def sessions(ledger, **tags):
    """One that nobody looks at, and one that is metered."""
    async with aiohttp.ClientSession() as bare, aiohttp.ClientSession() as made:
        yield bare, track(made, ledger=ledger, provider="openai", **tags)


async def by_reading(response):
    return [await response.read()]


async def by_text(response):
    return [(await response.text()).encode()]


async def by_any(response):
    return [b"".join([piece async for piece in response.content.iter_any()])]


async def by_size(response):
    pieces = [piece async for piece in response.content.iter_chunked(13)]
    return [b"".join(pieces), max(map(len, pieces)), response.content.total_bytes]


async def by_chunks(response):
    return [b"".join([piece async for piece, _ in response.content.iter_chunks()])]


async def by_lines(response):
    return [line async for line in response.content]


async def by_asking_for_the_end(response):
    data = b""
    while not response.content.at_eof():
        data += await response.content.read(29)
    return [data, response.content.is_eof(), await response.content.read()]


async def by_exact_size(response):
    head = await response.content.readexactly(20)
    return [head, await response.content.readuntil(b"}"), await response.content.read()]


async def by_not_waiting(response):
    await response.content.wait_eof()
    return [response.content.read_nowait(), await response.content.read()]


WAYS = [
    by_reading, by_text, by_any, by_size, by_chunks, by_lines, by_asking_for_the_end, by_exact_size, by_not_waiting,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("encoding", [None, "gzip"])
@pytest.mark.parametrize("body", [CHAT, STREAM, {**STREAM, "n": 1}], ids=["plain", "stream", "one"])
def test_every_way_to_read_gives_the_same(twins, ledger, way, encoding, body):
    sims = twins(Answer(text=TEXT, encoding=encoding, reasoning_tokens=5))

    async def main():
        seen = []
        async with sessions(ledger, user="ada") as clients:
            for sim, client in zip(sims, clients, strict=True):
                async with client.post(f"{sim.openai_url}/chat/completions", json=body) as response:
                    seen.append((response.status, dict(response.headers), await way(response)))
                    assert isinstance(response, aiohttp.ClientResponse)
                    assert isinstance(response.content, aiohttp.StreamReader)
        return seen

    bare, metered = asyncio.run(main())
    assert bare[2] == metered[2]
    if body is CHAT:
        assert bare[1].keys() == metered[1].keys()
    (entry,) = entries(ledger)
    assert dict(entry.usage) == used(sims[0].calls[0])
    assert (entry.quality, entry.status, entry.tags["user"]) == ("exact", "ok", "ada")


def test_json_errors_and_empty_answers_are_the_callers(simulate, ledger):
    sim = simulate(Answer(status=401))

    async def main():
        async with sessions(ledger) as (_, client):
            async with client.post(f"{sim.openai_url}/chat/completions", json=CHAT) as response:
                said = await response.json()
            with pytest.raises(aiohttp.ClientResponseError) as caught:
                async with client.post(f"{sim.openai_url}/chat/completions", json=CHAT, raise_for_status=True):
                    pass
            return said, caught.value

    said, error = asyncio.run(main())
    assert said["error"]
    assert error.status == 401
    assert [(entry.status, entry.http_status) for entry in entries(ledger)] == [("error", 401)] * 2


def test_a_body_is_read_however_it_is_sent(simulate, ledger):
    sim = simulate(Answer(text="yes"))

    async def main():
        async with sessions(ledger) as (_, client):
            url = f"{sim.openai_url}/chat/completions"
            sent = json.dumps(STREAM)
            kind = {"content-type": "application/json"}
            for data, options in (
                (sent, {}),
                (sent.encode(), {"chunked": True}),
                (sent.encode(), {"compress": "gzip"}),
            ):
                async with client.post(url, data=data, headers=kind, **options) as response:
                    await response.read()

    asyncio.run(main())
    assert [entry.requested_model for entry in entries(ledger)] == ["gpt-4o"] * 3
    assert [entry.quality for entry in entries(ledger)][:2] == ["exact"] * 2
    bodies = [gzip.decompress(call.body) if "content-encoding" in call.headers else call.body for call in sim.calls]
    assert all(json.loads(body) == {**STREAM, "stream_options": {"include_usage": True}} for body in bodies)


def test_an_answer_left_early_counts_what_was_delivered(simulate, ledger):
    sim = simulate(Answer(text=TEXT, chunk_ms=20, chunk_tokens=2))

    async def main():
        async with sessions(ledger) as (_, client):
            async with client.post(f"{sim.anthropic_url}/v1/messages", json=CLAUDE) as response:
                while b"words" not in await response.content.readline():
                    pass
            with pytest.raises(aiohttp.ClientConnectionError):
                await response.content.read()

    asyncio.run(main())
    (entry,) = entries(ledger)
    assert (entry.status, entry.quality) == ("cancelled", "lower_bound")
    assert sim.wait(1)[0].abandoned


def test_an_answer_that_is_forgotten_is_counted_to_its_end(simulate, ledger):
    """aiohttp itself keeps reading it: the connection holds on to the answer until the last byte is there."""
    sim = simulate(Answer(text=TEXT, chunk_ms=2))

    async def main():
        async with sessions(ledger) as (_, client):
            response = await client.post(f"{sim.anthropic_url}/v1/messages", json=CLAUDE)
            await response.content.readline()
            del response
            await soon(lambda: entries(ledger))

    asyncio.run(main())
    (entry,) = entries(ledger)
    assert (entry.quality, dict(entry.usage)) == ("exact", used(sim.calls[0]))


def test_an_answer_that_nobody_reads_counts_as_far_as_it_has_come(simulate, ledger):
    sim = simulate(Answer(text="short"))

    async def main():
        async with sessions(ledger) as (_, client):
            async with client.post(f"{sim.openai_url}/chat/completions", json=CHAT) as response:
                await response.content.wait_eof()
            return response.closed

    assert asyncio.run(main())
    (entry,) = entries(ledger)
    assert (entry.quality, dict(entry.usage)) == ("exact", used(sim.calls[0]))


def test_a_cancelled_task_leaves_an_entry_and_an_open_session(simulate, ledger):
    sim = simulate(Answer(text=TEXT, first_byte_ms=30_000))

    async def main():
        async with sessions(ledger) as (_, client):

            async def call():
                async with client.post(f"{sim.openai_url}/chat/completions", json=STREAM) as response:
                    return await response.read()

            task = asyncio.create_task(call())
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            sim.play(Answer(text="on it goes"))
            return await call()

    assert b"goes" in asyncio.run(main())
    assert [entry.status for entry in entries(ledger)] == ["cancelled", "ok"]


def test_a_read_that_was_given_up_loses_nothing(twins, ledger):
    sims = twins(Answer(text=TEXT, chunk_ms=3, chunk_tokens=4))

    async def patient(client, sim):
        data = b""
        async with client.post(f"{sim.openai_url}/chat/completions", json=STREAM) as response:
            while not response.content.at_eof():
                try:
                    async with asyncio.timeout(0.004):
                        data += await response.content.readany()
                except TimeoutError:
                    continue
        return data

    async def main():
        async with sessions(ledger) as clients:
            return [await patient(client, sim) for client, sim in zip(clients, sims, strict=True)]

    bare, metered = asyncio.run(main())
    assert bare == metered
    (entry,) = entries(ledger)
    assert (entry.status, dict(entry.usage)) == ("ok", used(sims[0].calls[0]))


@pytest.mark.parametrize("inside", [False, True])
def test_a_broken_connection_is_the_same_exception(twins, ledger, inside):
    sims = twins(Answer(text=TEXT, chunk_tokens=2, chunk_ms=5, cut_after=6, cut_inside=inside))

    async def main():
        seen = []
        async with sessions(ledger) as clients:
            for sim, client in zip(sims, clients, strict=True):
                response = await client.post(f"{sim.anthropic_url}/v1/messages", json=CLAUDE)
                with pytest.raises(aiohttp.ClientPayloadError) as caught:
                    [piece async for piece in response.content.iter_any()]
                assert response.content.exception() is caught.value
                response.release()
                seen.append((type(caught.value.__cause__), str(caught.value)))
        return seen

    bare, metered = asyncio.run(main())
    assert bare == metered
    (entry,) = entries(ledger)
    assert (entry.status, entry.quality) == ("error", "lower_bound")


def test_nobody_there_is_the_same_exception(ledger):
    async def main():
        async with sessions(ledger) as clients:
            for client in clients:
                with pytest.raises(aiohttp.ClientConnectorError):
                    await client.post("http://127.0.0.1:9/v1/chat/completions", json=CHAT)

    asyncio.run(main())
    (entry,) = entries(ledger)
    assert (entry.status, entry.cost.amount.pico) == ("error", 0)


def test_a_redirect_is_a_call_without_cost(simulate, ledger):
    sim = simulate(Answer(text="there"))

    async def main(url):
        async with sessions(ledger) as (_, client), client.post(url, json=STREAM) as response:
            return await response.read(), len(response.history)

    with redirecting(f"{sim.openai_url}/chat/completions") as url:
        body, hops = asyncio.run(main(url))
    assert b"there" in body
    assert hops == 1
    assert [entry.http_status for entry in entries(ledger)] == [307, 200]


def test_a_middleware_of_the_callers_stays_around_each_attempt(simulate, ledger):
    sim = simulate(Answer(text="at last", status=503, failures=1))
    seen = []

    async def again(request, send):
        while (response := await send(request)).status == 503:
            seen.append(await response.text())
        return response

    async def main():
        async with sessions(ledger) as (_, client):
            url = f"{sim.openai_url}/chat/completions"
            async with client.post(url, json=CHAT, middlewares=(again,)) as response:
                return await response.json()

    assert asyncio.run(main())["choices"][0]["message"]["content"] == "at last"
    assert len(seen) == 1
    assert [entry.http_status for entry in entries(ledger)] == [503, 200]


def test_a_refusal_is_an_answer_of_the_provider_and_nothing_is_sent(simulate, ledger):
    sim = simulate()

    async def main():
        async with sessions(ledger) as (_, client):
            with run("small", max_cost="$0.000001"):
                async with client.post(f"{sim.openai_url}/chat/completions", json=CHAT) as response:
                    said = response.status, (await response.json())["error"]["type"], response.reason
                with pytest.raises(aiohttp.ClientResponseError, match="429"):
                    await client.post(f"{sim.openai_url}/chat/completions", json=CHAT, raise_for_status=True)
            return said

    assert asyncio.run(main()) == (429, "insufficient_quota", "Too Many Requests")
    assert not sim.calls
    assert [entry.status for entry in entries(ledger)] == ["refused"] * 2


@pytest.mark.parametrize("pause", [0, 1])
def test_a_stream_that_reaches_its_limit_ends_as_if_its_length_were(simulate, ledger, pause):
    sim = simulate(Answer(text="word " * 2000, chunk_tokens=1, chunk_ms=pause))

    async def main():
        async with aiohttp.ClientSession() as made:
            track(made, ledger=ledger, provider="openai", max_cost="$0.0005")
            async with made.post(f"{sim.openai_url}/chat/completions", json={**STREAM, "max_tokens": 3000}) as response:
                return await response.read()

    body = asyncio.run(main())
    assert body.endswith(b"data: [DONE]\n\n")
    assert body.count(b"[DONE]") == body.count(b'"finish_reason":"length"') == 1
    (entry,) = entries(ledger)
    assert entry.status == "cut"
    assert sim.wait(1)[0].abandoned or not pause


def test_instrument_reaches_sessions_that_exist_and_is_undone(simulate, ledger):
    sim = simulate(Answer(text="yes"))
    url = f"{sim.openai_url}/chat/completions"
    before = aiohttp.ClientSession._request

    async def main():
        async with sessions(ledger, user="ada") as (bare, made):
            with instrument(ledger=ledger):
                for client in (bare, made):
                    async with client.post(url, json=CHAT) as response:
                        await response.read()
            async with bare.post(url, json=CHAT) as response:
                await response.read()

    asyncio.run(main())
    assert aiohttp.ClientSession._request is before
    assert [entry.tags.get("user") for entry in entries(ledger)] == [None, "ada"]


def test_a_hundred_tasks_keep_their_tags_apart(simulate, ledger):
    sim = simulate(Answer(chunk_ms=1))

    async def one(client, number):
        body = {**STREAM, "messages": [{"role": "user", "content": f"number {number}"}]}
        async with run(f"agent {number}"), client.post(f"{sim.openai_url}/chat/completions", json=body) as response:
            return await response.read()

    async def main():
        async with sessions(ledger, user="ada") as (_, client):
            return await asyncio.gather(*(one(client, number) for number in range(100)))

    bodies = asyncio.run(main())
    assert all(body.endswith(b"data: [DONE]\n\n") for body in bodies)
    found = entries(ledger)
    assert sorted(entry.tags["agent"] for entry in found) == sorted(f"agent {number}" for number in range(100))
    served = {call.response_id: used(call) for call in sim.calls}
    assert {entry.provider_response_id.removeprefix("chatcmpl-"): dict(entry.usage) for entry in found} == served


@pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession")
def test_google_genai_over_aiohttp(simulate, ledger):
    sim = simulate(Answer(text=TEXT, reasoning_tokens=7))

    async def main():
        client = genai.Client(api_key="none", vertexai=False, http_options={"base_url": sim.gemini_url})
        assert track(client, ledger=ledger, provider="google", user="ada") is client
        try:
            models = client.aio.models
            whole = await models.generate_content(model="gemini-2.5-flash", contents="Hello")
            stream = await models.generate_content_stream(model="gemini-2.5-flash", contents="Hello")
            parts = [part.text async for part in stream if part.text]
            sim.play(Answer(status=400))
            with pytest.raises(genai_errors.ClientError):
                await models.generate_content(model="gemini-2.5-flash", contents="Hello")
            return whole.text, "".join(parts)
        finally:
            await client.aio.aclose()
            client.close()

    assert asyncio.run(main()) == (TEXT, TEXT)
    found = entries(ledger)
    assert [dict(entry.usage) for entry in found[:2]] == [used(call) for call in sim.calls[:2]]
    assert [(entry.status, entry.provider, entry.tags["user"]) for entry in found] == [
        ("ok", "google", "ada"), ("ok", "google", "ada"), ("error", "google", "ada"),
    ]  # fmt: skip


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["plain", "stream"])
def test_a_call_is_in_the_file_before_its_last_bytes_are_handed_over(simulate, tmp_path, body):
    sim = simulate(Answer(text="now"))
    place = tmp_path / "ledger.db"

    async def main():
        with tallystick.open(place) as ledger:
            async with sessions(ledger) as (_, client):
                response = await client.post(f"{sim.openai_url}/chat/completions", json=body)
                async for piece in response.content.iter_any():
                    if b"[DONE]" in piece or body is CHAT:
                        with tallystick.open(place, read_only=True) as other:
                            return entries(other)
        return []

    (entry,) = asyncio.run(main())
    assert (entry.status, dict(entry.usage)) == ("ok", used(sim.calls[0]))


def test_a_ledger_that_takes_nothing_changes_nothing_for_the_caller(twins, ledger, caplog):
    sims = twins(Answer(text=TEXT))
    ledger.close()

    async def main():
        seen = []
        async with sessions(ledger) as clients:
            for sim, client in zip(sims, clients, strict=True):
                async with client.post(f"{sim.openai_url}/chat/completions", json=STREAM) as response:
                    seen.append(await response.read())
        return seen

    bare, metered = asyncio.run(main())
    assert bare == metered
    assert "takes no entries" in caplog.text or "metering failed" in caplog.text
