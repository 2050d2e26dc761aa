"""Uses: what a caller does with a client, in the words of each SDK. Every one says all that it gets."""

import asyncio
import json

HELLO = [{"role": "user", "content": "Hello, how are you today?"}]
FIRST = 5


def once(ask):
    """A call that is answered in one piece."""

    def use(client, caller, model):
        caller.say(ask(client, model))

    return use


def once_async(ask):
    async def use(client, caller, model):
        caller.say(await ask(client, model))

    return use


def whole(begin):
    """A stream read to its end."""

    def use(client, caller, model):
        for chunk in begin(client, model):
            caller.say(chunk)

    return use


def closed(begin):
    """A stream that is closed early."""

    def use(client, caller, model):
        stream = begin(client, model)
        _first(stream, caller)
        stream.close()

    return use


def left(begin):
    """A stream that the caller stops reading and keeps."""

    def use(client, caller, model):
        stream = begin(client, model)
        _first(stream, caller)
        caller.kept.append(stream)

    return use


def dropped(begin):
    """A stream that the caller stops reading and forgets."""

    def use(client, caller, model):
        stream = begin(client, model)
        _first(stream, caller)
        del stream

    return use


def unread(begin):
    """A stream of which nothing is read, kept."""

    def use(client, caller, model):
        caller.kept.append(begin(client, model))

    return use


def _first(stream, caller):
    for _, chunk in zip(range(FIRST), stream, strict=False):
        caller.say(chunk)


def whole_async(begin):
    async def use(client, caller, model):
        async for chunk in await begin(client, model):
            caller.say(chunk)

    return use


def closed_async(begin):
    async def use(client, caller, model):
        stream = await begin(client, model)
        await _first_async(stream, caller)
        await (stream.close() if hasattr(stream, "close") else stream.aclose())

    return use


def dropped_async(begin):
    async def use(client, caller, model):
        stream = await begin(client, model)
        await _first_async(stream, caller)
        del stream
        await asyncio.sleep(0.01)

    return use


def cancelled_async(begin):
    """A task that is cancelled while it waits for the next chunk."""

    async def use(client, caller, model):
        begun = asyncio.Event()

        async def consume():
            number = 0
            async for _ in await begin(client, model):
                number += 1
                if number == FIRST:
                    begun.set()

        task = asyncio.create_task(consume())
        await begun.wait()
        task.cancel()
        try:
            await task
        except asyncio.CancelledError as error:
            caller.say(error)

    return use


async def _first_async(stream, caller):
    number = 0
    async for chunk in stream:
        caller.say(chunk)
        number += 1
        if number == FIRST:
            break


# OpenAI and those that look like it.


def chat(client, model, **more):
    return client.chat.completions.create(model=model, messages=HELLO, **more)


def chat_stream(client, model):
    return chat(client, model, stream=True)


def chat_stream_asking(client, model):
    return chat(client, model, stream=True, stream_options={"include_usage": True})


def chat_raw(client, caller, model):
    raw = client.chat.completions.with_raw_response.create(model=model, messages=HELLO)
    caller.say([raw.status_code, [*raw.headers.raw], raw.parse(), raw.text, raw.http_request.content])


async def chat_raw_async(client, caller, model):
    raw = await client.chat.completions.with_raw_response.create(model=model, messages=HELLO)
    caller.say([raw.status_code, [*raw.headers.raw], raw.parse(), raw.http_request.content])


def chat_raw_stream(client, caller, model):
    raw = client.chat.completions.with_raw_response.create(model=model, messages=HELLO, stream=True)
    caller.say([raw.status_code, [*raw.headers.raw], raw.http_request.content])
    for chunk in raw.parse():
        caller.say(chunk)


def chat_lines(client, caller, model):
    with client.chat.completions.with_streaming_response.create(model=model, messages=HELLO, stream=True) as response:
        for line in response.iter_lines():
            caller.say(line)


def person():
    import pydantic

    return pydantic.create_model("Person", name=(str, ...), age=(int, ...))


def chat_parse(client, model):
    return client.chat.completions.parse(model=model, messages=HELLO, response_format=person())


def chat_helper(client, caller, model):
    with client.chat.completions.stream(model=model, messages=HELLO) as stream:
        for found in stream:
            caller.say(found)
        caller.say(stream.get_final_completion())


async def chat_helper_async(client, caller, model):
    async with client.chat.completions.stream(model=model, messages=HELLO) as stream:
        async for found in stream:
            caller.say(found)
        caller.say(await stream.get_final_completion())


TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]


def chat_tools(client, model):
    return chat(client, model, tools=TOOLS)


def chat_tools_stream(client, model):
    return chat(client, model, tools=TOOLS, stream=True)


def completion_stream(client, model):
    return client.completions.create(model=model, prompt="Hello there", stream=True)


def embeddings(client, model):
    return client.embeddings.create(model=model, input=["Hello there", "and here"])


def images(client, model):
    return client.images.generate(model=model, prompt="a boat")


def transcription(client, model):
    return client.audio.transcriptions.create(model=model, file=("a.wav", b"RIFF" * 100))


def responses(client, model):
    return client.responses.create(model=model, input="Hello there")


def responses_raw(client, caller, model):
    raw = client.responses.with_raw_response.create(model=model, input="Hello there")
    caller.say([raw.status_code, [*raw.headers.raw], raw.parse()])


def responses_parse(client, model):
    return client.responses.parse(model=model, input="Hello there", text_format=person())


def responses_stream(client, model):
    return client.responses.create(model=model, input="Hello there", stream=True)


def responses_helper(client, caller, model):
    with client.responses.stream(model=model, input="Hello there") as stream:
        for found in stream:
            caller.say(found)
        caller.say(stream.get_final_response())


def background_fetched(client, caller, model):
    made = client.responses.create(model=model, input="Hello there", background=True)
    caller.say(made)
    for _ in range(3):
        made = client.responses.retrieve(made.id)
        caller.say(made)


def background_unfetched(client, caller, model):
    caller.say(client.responses.create(model=model, input="Hello there", background=True))


async def background_fetched_async(client, caller, model):
    made = await client.responses.create(model=model, input="Hello there", background=True)
    caller.say(made)
    for _ in range(3):
        made = await client.responses.retrieve(made.id)
        caller.say(made)


def background_stream(client, model):
    return client.responses.create(model=model, input="Hello there", background=True, stream=True)


# Anthropic.


def claude(client, model, **more):
    return client.messages.create(model=model, max_tokens=2000, messages=HELLO, **more)


def claude_stream(client, model):
    return claude(client, model, stream=True)


def claude_beta(client, model):
    return client.beta.messages.create(model=model, max_tokens=2000, messages=HELLO, betas=["context-1m-2025-08-07"])


def claude_beta_stream(client, model):
    return client.beta.messages.create(model=model, max_tokens=2000, messages=HELLO, stream=True)


def claude_thinking(client, model):
    return claude(client, model, thinking={"type": "enabled", "budget_tokens": 1024})


def claude_raw(client, caller, model):
    raw = client.messages.with_raw_response.create(model=model, max_tokens=2000, messages=HELLO)
    caller.say([raw.status_code, [*raw.headers.raw], raw.parse(), raw.http_request.content])


def claude_parse(client, model):
    return client.messages.parse(model=model, max_tokens=2000, messages=HELLO, output_format=person())


def claude_helper(client, caller, model):
    with client.messages.stream(model=model, max_tokens=2000, messages=HELLO) as stream:
        for found in stream:
            caller.say(found)
        caller.say(stream.get_final_message())


async def claude_helper_async(client, caller, model):
    async with client.messages.stream(model=model, max_tokens=2000, messages=HELLO) as stream:
        async for found in stream:
            caller.say(found)
        caller.say(await stream.get_final_message())


# Google.


def gemini(client, model):
    return client.models.generate_content(model=model, contents="Hello there")


def gemini_stream(client, model):
    return client.models.generate_content_stream(model=model, contents="Hello there")


def gemini_thinking(client, model):
    config = {"thinking_config": {"include_thoughts": True}}
    return client.models.generate_content(model=model, contents="Hello there", config=config)


def gemini_parse(client, model):
    config = {"response_mime_type": "application/json", "response_schema": person()}
    return client.models.generate_content(model=model, contents="Hello there", config=config).parsed.model_dump()


def gemini_async(client, model):
    return client.aio.models.generate_content(model=model, contents="Hello there")


def gemini_stream_async(client, model):
    return client.aio.models.generate_content_stream(model=model, contents="Hello there")


def gemini_embed(client, model):
    return client.models.embed_content(model=model, contents="Hello there")


# Amazon.

ASK = {"messages": [{"role": "user", "content": [{"text": "Hello, how are you today?"}]}]}
INVOKE = json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 400, "messages": HELLO})


def converse(client, model):
    return client.converse(modelId=model, **ASK)


def converse_stream(client, model):
    return client.converse_stream(modelId=model, **ASK)["stream"]


def invoke(client, caller, model):
    answer = client.invoke_model(modelId=model, body=INVOKE)
    caller.say([answer.pop("body").read(), answer])


def invoke_stream(client, model):
    return client.invoke_model_with_response_stream(modelId=model, body=INVOKE)["body"]


# Mistral.


def mistral(client, model):
    return client.chat.complete(model=model, messages=HELLO)


def mistral_parse(client, model):
    return client.chat.parse(response_format=person(), model=model, messages=HELLO)


def mistral_stream(client, model):
    return _Opened(client.chat.stream(model=model, messages=HELLO))


def mistral_async(client, model):
    return client.chat.complete_async(model=model, messages=HELLO)


def mistral_stream_async(client, model):
    return client.chat.stream_async(model=model, messages=HELLO)


class _Opened:
    """Mistral's stream with a `close`: it has none of its own, only an exit and the response inside."""

    def __init__(self, stream):
        self._stream = stream

    def __iter__(self):
        return iter(self._stream)

    def close(self):
        self._stream.response.close()


# LiteLLM and LangChain, where they are installed.


def litellm_chat(place, model, **more):
    import litellm

    return litellm.completion(model=f"openai/{model}", messages=HELLO, api_base=place, api_key="none", **more)


def litellm_chat_stream(place, model):
    return litellm_chat(place, model, stream=True)


def litellm_chat_stream_asking(place, model):
    return litellm_chat(place, model, stream=True, stream_options={"include_usage": True})


def litellm_chat_async(place, model, **more):
    import litellm

    return litellm.acompletion(model=f"openai/{model}", messages=HELLO, api_base=place, api_key="none", **more)


def litellm_chat_stream_async(place, model):
    return litellm_chat_async(place, model, stream=True)


def litellm_claude(place, model, **more):
    import litellm

    place = place.removesuffix("/v1")
    return litellm.completion(model=f"anthropic/{model}", messages=HELLO, api_base=place, api_key="none", **more)


def litellm_claude_stream(place, model):
    return litellm_claude(place, model, stream=True)


def langchain(client, model):
    return client.invoke("Hello, how are you today?")


def langchain_stream(client, model):
    return client.stream("Hello, how are you today?")


def langchain_async(client, model):
    return client.ainvoke("Hello, how are you today?")


async def langchain_stream_async(client, model):
    return client.astream("Hello, how are you today?")
