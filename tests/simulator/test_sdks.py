"""Real SDKs against the simulator: they get the text, the usage and the finish that it served."""

import asyncio
import io
import json
from contextlib import closing

import anthropic
import groq
import msgspec
import openai
import pytest
from mistralai.client import Mistral
from simulator_clients import HELLO, bedrock_at, claude_at, gemini_at, openai_at

from tallystick.core.usage import Usage
from tallystick.simulator import Answer, Function

FULL = Answer(
    output_tokens=12, input_tokens=100, cached_tokens=40, cache_write_5m=7, cache_write_1h=3, reasoning_tokens=5
)


def test_chat_whole(simulate):
    sim = simulate(FULL)
    with openai_at(sim) as client:
        answer = client.chat.completions.create(model="gpt-4o", messages=HELLO)
    (call,) = sim.calls
    assert answer.choices[0].message.content == call.text == call.delivered
    assert len(call.text.split()) == 12
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (100, 17, 117)
    assert answer.usage.prompt_tokens_details.cached_tokens == 40
    assert answer.usage.prompt_tokens_details.cache_write_tokens == 10
    assert answer.usage.completion_tokens_details.reasoning_tokens == 5
    assert call.usage == Usage(input=50, cache_read=40, cache_write=10, output=12, reasoning=5)
    assert answer.id == f"chatcmpl-{call.response_id}"
    assert (answer.choices[0].finish_reason, call.finish, call.model) == ("stop", "stop", "gpt-4o")


def test_chat_stream_with_and_without_usage(simulate):
    sim = simulate(FULL)
    with openai_at(sim) as client:
        asked = {"stream_options": {"include_usage": True}}
        told = list(client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True, **asked))
        untold = list(client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True))
    with_usage, without = sim.calls
    for chunks, call in ((told, with_usage), (untold, without)):
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == call.text == call.delivered
        assert {chunk.id for chunk in chunks} == {f"chatcmpl-{call.response_id}"}
    assert told[-1].choices == []
    assert told[-1].usage.total_tokens == 117
    events = [json.loads(line[6:]) for line in with_usage.response.decode().splitlines() if line.startswith("data: {")]
    assert [event["usage"] for event in events[:-1]] == [None] * (len(events) - 1)
    assert untold[-1].choices[0].finish_reason == "stop"
    assert b'"usage"' not in without.response
    assert with_usage.usage == without.usage


def test_async_chat_and_many_at_once(simulate):
    sim = simulate(Answer(output_tokens=30, chunk_ms=1))

    async def talk():
        async with openai.AsyncOpenAI(base_url=sim.openai_url, api_key="none") as client:

            async def one(number):
                messages = [{"role": "user", "content": f"question {number}"}]
                stream = await client.chat.completions.create(model="gpt-4o", messages=messages, stream=True)
                return [chunk.choices[0].delta.content async for chunk in stream if chunk.choices]

            return await asyncio.gather(*(one(number) for number in range(20)))

    for pieces in asyncio.run(talk()):
        assert len("".join(piece or "" for piece in pieces).split()) == 30
    assert len({call.response_id for call in sim.calls}) == 20
    assert {call.number for call in sim.calls} == set(range(1, 21))


def test_functions(simulate):
    sim = simulate(Answer(text="", functions=(Function("weather", '{"city":"Oslo"}'),)))
    with openai_at(sim) as client, claude_at(sim) as claude:
        choice = client.chat.completions.create(model="gpt-4o", messages=HELLO).choices[0]
        chunks = list(client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True))
        with claude.messages.stream(model="claude-sonnet-5", max_tokens=99, messages=HELLO) as stream:
            message = stream.get_final_message()
    assert (choice.finish_reason, choice.message.tool_calls[0].function.name) == ("tool_calls", "weather")
    assert [c.choices[0].delta.tool_calls[0].function.arguments for c in chunks if c.choices[0].delta.tool_calls] == [
        '{"city":"Oslo"}'
    ]
    assert message.stop_reason == "tool_use"
    assert message.content[-1].input == {"city": "Oslo"}


def test_responses(simulate):
    sim = simulate(
        Answer(output_tokens=9, input_tokens=50, reasoning_tokens=4, tools={"web_search": 2, "file_search": 1})
    )
    with openai_at(sim) as client:
        whole = client.responses.create(model="gpt-5", input="hi")
        with client.responses.stream(model="gpt-5", input="hi") as stream:
            kinds = [event.type for event in stream]
            streamed = stream.get_final_response()
    for response, call in zip((whole, streamed), sim.calls, strict=True):
        assert response.output_text == call.text == call.delivered
        assert [item.type for item in response.output].count("web_search_call") == 2
        assert (response.status, response.usage.output_tokens, response.usage.input_tokens) == ("completed", 13, 50)
        assert response.usage.output_tokens_details.reasoning_tokens == 4
        assert call.usage == Usage(
            {"input": 50, "output": 9, "reasoning": 4, "fee:web_search": 2, "fee:file_search": 1}
        )
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert kinds.count("response.output_text.delta") == 9


def test_background_responses_have_their_usage_when_fetched(simulate):
    sim = simulate(Answer(output_tokens=9, input_tokens=50, polls=1))
    with openai_at(sim) as client:
        begun = client.responses.create(model="gpt-5", input="hi", background=True)
        waiting = client.responses.retrieve(begun.id)
        done = client.responses.retrieve(begun.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve("resp_none")
    assert [(one.status, one.usage is None) for one in (begun, waiting, done)] == [
        ("queued", True),
        ("in_progress", True),
        ("completed", False),
    ]
    assert begun.id == done.id
    assert (done.usage.output_tokens, len(done.output_text.split())) == (9, 9)
    assert [call.usage for call in sim.calls] == [None, None, Usage(input=50, output=9), None]


def test_embeddings_sound_pictures_models(simulate):
    sim = simulate(Answer(input_tokens=20, output_tokens=6, audio_input_tokens=15, images=2, dimensions=4))
    with openai_at(sim) as client:
        vectors = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
        packed = client.embeddings.with_raw_response.create(
            model="text-embedding-3-small", input="a", encoding_format="float"
        ).parse()
        sound = io.BytesIO(b"RIFF")
        heard = client.audio.transcriptions.create(model="gpt-4o-transcribe", file=("a.wav", sound))
        pictures = client.images.generate(model="gpt-image-1", prompt="a cat")
        old = client.completions.create(model="gpt-3.5-turbo-instruct", prompt="a")
        assert [model.id for model in client.models.list()] == ["simulated"]
    assert [len(one.embedding) for one in vectors.data] == [4, 4]
    assert packed.data[0].embedding == vectors.data[0].embedding
    assert vectors.usage.prompt_tokens == 20
    assert heard.text == sim.calls[2].text
    assert heard.usage.input_token_details.audio_tokens == 15
    assert (len(pictures.data), pictures.usage.output_tokens) == (2, 6)
    assert (old.choices[0].text, old.usage.completion_tokens) == (heard.text, 6)
    assert [call.usage for call in sim.calls] == [
        Usage(input=20), Usage(input=20), Usage(input=5, audio_input=15, output=6),
        Usage(input=20, image_output=6), Usage(input=20, output=6), None,
    ]  # fmt: skip
    assert sim.calls[2].model == "gpt-4o-transcribe"


def test_messages(simulate):
    sim = simulate(msgspec.structs.replace(FULL, tools={"web_search": 2}, pings=True))
    with claude_at(sim) as client:
        asked = {"model": "claude-sonnet-5", "max_tokens": 2000, "messages": HELLO}
        thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
        whole = client.messages.create(**asked, **thinking)
        with client.messages.stream(**asked, **thinking) as stream:
            text = "".join(stream.text_stream)
            streamed = stream.get_final_message()
        counted = client.messages.count_tokens(model="claude-sonnet-5", messages=HELLO)
    for message, call in zip((whole, streamed), sim.calls, strict=False):
        assert message.usage.input_tokens == 50
        assert message.usage.cache_read_input_tokens == 40
        assert message.usage.cache_creation.ephemeral_1h_input_tokens == 3
        assert message.usage.output_tokens == 17
        assert message.usage.output_tokens_details.thinking_tokens == 5
        assert message.usage.server_tool_use.web_search_requests == 2
        assert [block.type for block in message.content if block.type in ("thinking", "text")] == ["thinking", "text"]
        assert message.content[-1].text == text == call.text == call.delivered
        assert (message.stop_reason, message.id) == ("end_turn", f"msg_{call.response_id}")
        assert call.usage == Usage(
            {"input": 50, "cache_read": 40, "cache_write_5m": 7, "cache_write_1h": 3, "output": 12, "reasoning": 5,
             "fee:web_search": 2}
        )  # fmt: skip
    assert b"event: ping" in sim.calls[1].response
    assert counted.input_tokens > 5
    assert sim.calls[2].usage is None


def test_async_messages(simulate):
    sim = simulate(Answer(text="Grüße, 世界 🌍!", writes="bytes"))

    async def talk():
        asked = {"model": "claude-sonnet-5", "max_tokens": 99, "messages": HELLO}
        client = anthropic.AsyncAnthropic(base_url=sim.anthropic_url, api_key="none")
        async with client, client.messages.stream(**asked) as stream:
            return await stream.get_final_text()

    assert asyncio.run(talk()) == "Grüße, 世界 🌍!" == sim.calls[0].delivered


def test_gemini(simulate):
    sim = simulate(FULL)
    with gemini_at(sim) as client:
        whole = client.models.generate_content(model="gemini-2.5-flash", contents="hi")
        chunks = list(client.models.generate_content_stream(model="gemini-2.5-flash", contents="hi"))
        counted = client.models.count_tokens(model="gemini-2.5-flash", contents="hi there")
        vectors = client.models.embed_content(model="gemini-embedding-001", contents=["a", "b"])
    first, second = sim.calls[:2]
    assert whole.text == first.text
    assert "".join(chunk.text or "" for chunk in chunks) == second.text == second.delivered
    for usage in (whole.usage_metadata, chunks[-1].usage_metadata):
        assert (usage.prompt_token_count, usage.cached_content_token_count) == (100, 40)
        assert (usage.candidates_token_count, usage.thoughts_token_count, usage.total_token_count) == (12, 5, 117)
    assert first.usage == second.usage == Usage(input=60, cache_read=40, output=12, reasoning=5)
    assert whole.candidates[0].finish_reason.value == "STOP"
    assert counted.total_tokens > 0
    assert len(vectors.embeddings) == 2


@pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")
def test_async_gemini(simulate):
    sim = simulate(FULL)

    async def talk():
        client = gemini_at(sim)
        try:
            stream = await client.aio.models.generate_content_stream(model="gemini-2.5-flash", contents="hi")
            return "".join([chunk.text or "" async for chunk in stream])
        finally:
            await client.aio.aclose()
            client.close()

    assert asyncio.run(talk()) == sim.calls[0].text


def test_bedrock(simulate):
    sim = simulate(FULL)
    body = {"modelId": "anthropic.claude-sonnet-5", "messages": [{"role": "user", "content": [{"text": "hi"}]}]}
    invoked = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 100, "messages": HELLO}
    with closing(bedrock_at(sim)) as client:
        whole = client.converse(**body)
        events = list(client.converse_stream(**body)["stream"])
        direct = json.loads(client.invoke_model(modelId=body["modelId"], body=json.dumps(invoked))["body"].read())
        parts = client.invoke_model_with_response_stream(modelId=body["modelId"], body=json.dumps(invoked))["body"]
        pieces = [json.loads(part["chunk"]["bytes"]) for part in parts]
    usage = {
        "inputTokens": 50, "outputTokens": 17, "totalTokens": 117, "cacheReadInputTokens": 40,
        "cacheWriteInputTokens": 10, "cacheDetails": [{"inputTokens": 7, "ttl": "5m"}, {"inputTokens": 3, "ttl": "1h"}],
    }  # fmt: skip
    text = "".join(e["contentBlockDelta"]["delta"]["text"] for e in events if "contentBlockDelta" in e)
    assert whole["output"]["message"]["content"][0]["text"] == text == sim.calls[1].delivered
    assert whole["usage"] == next(event["metadata"]["usage"] for event in events if "metadata" in event)
    assert whole["usage"] | {"cacheDetails": usage["cacheDetails"]} == usage
    assert whole["stopReason"] == "end_turn"
    # Converse does not tell reasoning from output, a message of the model's own does.
    assert sim.calls[0].usage == Usage(input=50, cache_read=40, cache_write_5m=7, cache_write_1h=3, output=17)
    assert (direct["usage"]["output_tokens"], direct["content"][0]["text"]) == (17, text)
    assert "".join(p["delta"]["text"] for p in pieces if p["type"] == "content_block_delta") == text
    assert pieces[-1]["amazon-bedrock-invocationMetrics"]["outputTokenCount"] == 17
    assert pieces[0]["message"]["id"] == f"msg_{sim.calls[3].response_id}"
    assert sim.calls[3].model == "anthropic.claude-sonnet-5"


def test_mistral_and_groq(simulate):
    sim = simulate(Answer(output_tokens=8, input_tokens=30, cached_tokens=10))
    with Mistral(api_key="none", server_url=sim.urls["mistral"]) as client:
        whole = client.chat.complete(model="mistral-small-latest", messages=HELLO)
        with client.chat.stream(model="mistral-small-latest", messages=HELLO) as stream:
            chunks = [event.data for event in stream]
    with groq.Groq(base_url=sim.urls["groq"], api_key="none") as client:
        answer = client.chat.completions.create(model="llama-3.3-70b-versatile", messages=HELLO)
    assert whole.choices[0].message.content == "".join(c.choices[0].delta.content or "" for c in chunks)
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens == 38
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (30, 8)
    assert [call.api for call in sim.calls] == ["mistral.chat", "mistral.chat", "groq.chat"]
    assert [call.provider for call in sim.calls] == ["mistral", "mistral", "groq"]


@pytest.mark.parametrize("name", ["deepseek", "xai", "openrouter", "together", "vllm", "perplexity"])
def test_compatible_providers_through_openai(simulate, name):
    sim = simulate(Answer(output_tokens=8, input_tokens=30, cached_tokens=10, reasoning_tokens=4, cost="0.00012"))
    with openai_at(sim, name) as client:
        whole = client.chat.completions.create(model="some-model", messages=HELLO)
        chunks = list(
            client.chat.completions.create(
                model="some-model", messages=HELLO, stream=True, stream_options={"include_usage": True}
            )
        )
    assert whole.choices[0].message.content == sim.calls[0].text
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == sim.calls[1].delivered
    assert next(chunk.usage for chunk in reversed(chunks) if chunk.usage) == whole.usage
    assert whole.usage.prompt_tokens == 30
    assert sim.calls[0].api == f"{name}.chat"
    extras = whole.usage.model_extra
    if name == "openrouter":
        assert (extras["cost"], extras["is_byok"]) == (0.00012, False)
    if name == "xai":
        assert (whole.usage.completion_tokens, whole.usage.total_tokens) == (8, 42)
        assert extras["cost_in_usd_ticks"] == 1_200_000
    if name == "deepseek":
        assert (extras["prompt_cache_hit_tokens"], extras["prompt_cache_miss_tokens"]) == (10, 20)


def test_limits_of_every_api_cut_the_answer(simulate):
    sim = simulate(Answer(output_tokens=50))
    with openai_at(sim) as client, claude_at(sim) as claude, gemini_at(sim) as gemini, closing(bedrock_at(sim)) as aws:
        chat = client.chat.completions.create(model="gpt-4o", messages=HELLO, max_completion_tokens=7)
        response = client.responses.create(model="gpt-4o", input="hi", max_output_tokens=16)
        message = claude.messages.create(model="claude-sonnet-5", max_tokens=7, messages=HELLO)
        config = {"max_output_tokens": 7}
        content = gemini.models.generate_content(model="gemini-2.5-flash", contents="hi", config=config)
        said = aws.converse(
            modelId="m", messages=[{"role": "user", "content": [{"text": "hi"}]}], inferenceConfig={"maxTokens": 7}
        )
    assert (chat.choices[0].finish_reason, chat.usage.completion_tokens) == ("length", 7)
    assert len(chat.choices[0].message.content.split()) == 7
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 7)
    assert content.candidates[0].finish_reason.value == "MAX_TOKENS"
    assert (said["stopReason"], said["usage"]["outputTokens"]) == ("max_tokens", 7)
