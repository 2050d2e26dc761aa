"""Streams that do not end as they should: closed, forgotten, cancelled, cut; and what the caller notices of us."""

import asyncio
import contextlib
import gc
import json
import threading

import anthropic
import httpx
import httpx2
import openai
import pytest

import tallystick
from tallystick.defaults import catalog
from tallystick.metering import reaper
from tallystick.metering.meter import Meter
from tallystick.simulator import Answer

HELLO = [{"role": "user", "content": "Hello, how are you today?"}]
LONG = Answer(output_tokens=400, chunk_tokens=4)
SLOW = Answer(output_tokens=400, chunk_tokens=4, chunk_ms=5)


@contextlib.contextmanager
def openai_at(sim, meter, **tags):
    with openai.OpenAI(base_url=sim.openai_url, api_key="none", max_retries=0) as client:
        yield tallystick.track(client, meter=meter, provider="openai", **tags)


def started(client):
    return client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)


def test_a_stream_closed_early_is_counted_from_what_was_delivered(simulate, ledger, meter):
    sim = simulate(SLOW)
    with openai_at(sim, meter) as client:
        stream = started(client)
        text = ""
        for chunk in stream:
            text += chunk.choices[0].delta.content or ""
            if len(text) > 200:
                break
        stream.close()
        [entry] = ledger.read()
    assert (entry.status, entry.quality) == ("cancelled", "lower_bound")
    assert entry.usage["output"] == tallystick.count(text, model="gpt-4o").tokens
    assert 0 < entry.usage["input"] <= sim.wait(1)[0].usage["input"]
    assert entry.amount.pico > 0


def test_a_forgotten_stream_settles_when_it_is_collected(simulate, ledger, meter):
    sim = simulate(SLOW)
    with openai_at(sim, meter) as client:
        stream = started(client)
        for _, _ in zip(range(5), stream, strict=False):
            pass
        stream.myself = stream
        del stream
        gc.collect()
        reaper.drain()
        [entry] = ledger.read()
    assert (entry.status, entry.quality) == ("cancelled", "lower_bound")
    assert entry.usage["output"] > 0


def test_a_stream_that_is_still_open_settles_when_its_meter_closes(simulate, ledger, meter):
    sim = simulate(SLOW)
    with openai_at(sim, meter) as client:
        stream = started(client)
        next(iter(stream))
        meter.close()
        [entry] = ledger.read()
        assert entry.status == "cancelled"
        stream.close()
        assert len(list(ledger.read())) == 1


def test_a_cancelled_task_leaves_its_entry(simulate, ledger, meter):
    sim = simulate(SLOW)

    async def cancelled():
        async with openai.AsyncOpenAI(base_url=sim.openai_url, api_key="none") as client:
            tallystick.track(client, meter=meter, provider="openai")
            first = asyncio.Event()

            async def consume():
                async for _ in await client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True):
                    first.set()

            task = asyncio.create_task(consume())
            await first.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancelled())
    reaper.drain()
    [entry] = ledger.read()
    assert (entry.status, entry.quality) == ("cancelled", "lower_bound")


def test_a_connection_that_breaks_in_the_middle_is_an_error_with_a_lower_bound(simulate, ledger, meter):
    sim = simulate(Answer(output_tokens=100, cut_after=20))
    with openai_at(sim, meter) as client:
        with pytest.raises((openai.APIError, httpx2.HTTPError)):
            list(started(client))
        [entry] = ledger.read()
    assert (entry.status, entry.quality) == ("error", "lower_bound")
    assert entry.usage["output"] == tallystick.count(sim.wait(1)[0].delivered, model="gpt-4o").tokens


def test_a_provider_that_cannot_be_reached_costs_nothing(ledger, meter):
    with (
        openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="none", max_retries=0) as client,
        pytest.raises(openai.APIConnectionError),
    ):
        started(tallystick.track(client, meter=meter, provider="openai"))
    [entry] = ledger.read()
    assert (entry.status, entry.http_status, entry.amount.pico) == ("error", None, 0)
    assert "never reached" in entry.cost.notes[0]


def test_an_answer_that_does_not_come_in_time_is_unknown_and_not_free(simulate, ledger, meter):
    sim = simulate(Answer(first_byte_ms=2000))
    with openai_at(sim, meter) as client, pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.1).chat.completions.create(model="gpt-4o", messages=HELLO)
    [entry] = ledger.read()
    assert (entry.status, entry.quality, entry.cost) == ("error", "unknown", None)


@pytest.mark.parametrize("encoding", [None, "gzip", "br"])
@pytest.mark.parametrize("writes", ["events", "odd"])
def test_bytes_and_headers_of_a_stream_are_the_same_but_for_what_must_go(simulate, ledger, meter, encoding, writes):
    sim = simulate(Answer(text="Grüße, 世界! 👩🏽‍🚀", chunks=6, encoding=encoding, writes=writes), series="abcdefgh")
    body = {"model": "gpt-4o", "messages": HELLO, "stream": True}
    url = f"{sim.openai_url}/chat/completions"
    with httpx.Client() as bare, httpx.Client() as client:
        tallystick.track(client, meter=meter, provider="openai")
        with bare.stream("POST", url, json=body) as one, client.stream("POST", url, json=body) as other:
            plain, ours = one.read(), other.read()
    ids = [call.response_id.encode() for call in sim.wait(2)]
    assert ours.replace(ids[1], ids[0]) == plain
    assert b"usage" not in ours
    dropped = {"content-encoding"} if encoding else set()
    ignored = {"x-request-id", "request-id", "date", "openai-processing-ms", *dropped}
    shown = [{name: value for name, value in r.headers.items() if name not in ignored} for r in (one, other)]
    assert shown[0] == shown[1]
    assert encoding is None or "content-encoding" not in other.headers
    [entry] = ledger.read()
    assert entry.usage == sim.calls[-1].usage


def test_without_the_switch_nothing_is_asked_and_the_text_is_counted(simulate, ledger):
    sim = simulate(LONG)
    meter = Meter(ledger, catalog, stream_usage=False)
    with openai_at(sim, meter) as client:
        chunks = list(started(client))
    [entry] = ledger.read()
    assert "stream_options" not in json.loads(sim.calls[0].body)
    assert (entry.status, entry.quality) == ("ok", "lower_bound")
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert entry.usage["output"] == tallystick.count(text, model="gpt-4o").tokens == 400


def test_a_run_with_a_limit_stops_a_stream_cleanly_in_the_middle(simulate, ledger, meter):
    tallystick.count("The tokenizer is loaded.", model="gpt-4o")
    sim = simulate(Answer(output_tokens=3000, chunk_tokens=8, chunk_ms=3))
    with openai_at(sim, meter) as client, tallystick.run("tight", max_cost="$0.005") as run:
        chunks = list(started(client))
        refused = None
        while refused is None:
            try:
                list(started(client))
            except openai.RateLimitError as error:
                refused = error
    assert chunks[-1].choices[0].finish_reason == "length"
    cut, *others, last = ledger.read()
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert (cut.status, cut.stopped_by, cut.quality) == ("cut", "max_cost", "lower_bound")
    assert cut.usage["output"] == tallystick.count(text, model="gpt-4o").tokens
    assert {entry.status for entry in others} <= {"cut"}
    assert 0.7 * 0.005 < cut.amount.to_decimal() <= 0.005
    assert (last.status, last.amount.pico) == ("refused", 0)
    assert refused.code == "max_cost"
    assert run.known <= tallystick.core.money.Money.usd("0.005")
    assert run.refused == 1
    assert sim.wait(1)[0].abandoned


@pytest.mark.parametrize("model", ["claude-sonnet-5"])
def test_a_limit_holds_for_models_whose_tokenizer_is_not_known(simulate, ledger, meter, model):
    sim = simulate(Answer(output_tokens=3000, chunk_tokens=4))
    with anthropic.Anthropic(base_url=sim.anthropic_url, api_key="none") as client:
        tallystick.track(client, meter=meter, provider="anthropic", max_cost="$0.005")
        with client.messages.stream(model=model, max_tokens=4000, messages=HELLO) as stream:
            message = stream.get_final_message()
    [entry] = ledger.read()
    assert message.stop_reason == "max_tokens"
    assert (entry.status, entry.stopped_by) == ("cut", "max_cost")
    assert entry.usage["output"] > 1
    assert 0 < entry.amount.pico <= 5 * 10**9


def test_streams_of_one_run_share_what_is_left(simulate, ledger, meter):
    sim = simulate(Answer(output_tokens=2000, chunk_tokens=4, chunk_ms=0.2))
    with openai_at(sim, meter) as client, tallystick.run("shared", max_cost="$0.02") as run:

        @run.wrap
        def consume():
            with contextlib.suppress(openai.RateLimitError):
                list(started(client))

        threads = [threading.Thread(target=consume) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert run.known.to_decimal() <= 0.02
    assert run.known.to_decimal() > 0.01
    assert run.in_flight == 0
    assert {entry.status for entry in ledger.read()} <= {"cut", "refused", "ok"}


def test_tracking_twice_counts_once_and_other_objects_are_refused(simulate, ledger, meter):
    sim = simulate()
    with openai_at(sim, meter, user="ada") as client:
        tallystick.track(client, meter=meter, provider="openai", user="grace")
        client.chat.completions.create(model="gpt-4o", messages=HELLO)
        client.models.list()
    [entry] = ledger.read()
    assert dict(entry.tags) == {"user": "grace"}
    with pytest.raises(tallystick.TallyError, match="cannot be tracked"):
        tallystick.track(object())


@pytest.mark.parametrize("package", [httpx, httpx2])
def test_instrument_reaches_clients_that_exist_and_those_to_come(simulate, ledger, meter, package):
    sim = simulate()
    url, body = f"{sim.openai_url}/chat/completions", {"model": "gpt-4o", "messages": HELLO}
    original = package.HTTPTransport.handle_request
    with package.Client() as before:
        with tallystick.instrument(meter=meter), tallystick.instrument(meter=meter), package.Client() as after:
            before.post(url, json=body)
            tallystick.track(after, meter=meter)
            after.post(url, json=body)
        before.post(url, json=body)
    assert package.HTTPTransport.handle_request is original
    assert len(list(ledger.read())) == 2
    assert len(sim.calls) == 3


def test_what_is_no_call_passes_untouched(simulate, ledger, meter):
    sim = simulate()
    with httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200, json={"a": 1}))) as client:
        tallystick.track(client, meter=meter)
        stream = client.build_request("POST", "https://example.com/other", content=b"x")
        assert client.send(stream).json() == {"a": 1}
        reply = client.post("https://api.openai.com/v1/chat/completions", json={"model": "gpt-4o"})
        assert reply.json() == {"a": 1}
    [entry] = ledger.read()
    assert (entry.usage, entry.quality, entry.amount) == (None, "unknown", None)
    assert sim.calls == []
