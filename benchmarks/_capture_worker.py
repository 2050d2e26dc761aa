"""One client library under one kind of capture, in an environment of its own: works off commands of `capture.py`.

    python benchmarks/_capture_worker.py bare|tallystick|otel|openinference|litellm

A line of JSON on standard input is one command; a line of JSON on standard output is its answer.
"""

import asyncio
import gc
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

HELLO = [{"role": "user", "content": "Hello, how are you today?"}]
ASKING = {"stream": True, "stream_options": {"include_usage": True}}


class Bare:
    """The SDK alone."""

    def client(self, url):
        import openai

        client = openai.OpenAI(base_url=url, api_key="none", max_retries=2, timeout=120)
        client._calculate_retry_timeout = lambda *_: 0.0
        return client

    def async_client(self, url):
        import openai

        return openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)

    def recorded(self):
        return []

    def forget(self):
        """Nothing is kept."""


class Tallystick(Bare):
    """Tracked, with a ledger in a file."""

    def __init__(self):
        from tallystick.capture.process import make_meter
        from tallystick.ledger.sqlite import SqliteLedger

        self._folder = tempfile.TemporaryDirectory()
        place = Path(self._folder.name) / "ledger.db"
        self._ledger = SqliteLedger(place)
        self._meter = make_meter(self._ledger, place)
        self._seen = 0

    def client(self, url):
        return self._tracked(super().client(url))

    def async_client(self, url):
        return self._tracked(super().async_client(url))

    def _tracked(self, client):
        import tallystick

        return tallystick.track(client, meter=self._meter, provider="openai")

    def recorded(self):
        from tallystick.core.usage import INPUT_KINDS, OUTPUT_KINDS

        for plan in self._meter._bench.waiting():
            from tallystick.metering.callmeter import CallMeter

            CallMeter(self._meter._bench, plan).unfetched()
        gc.collect()
        time.sleep(0.3)
        entries = list(self._ledger.read())
        new, self._seen = entries[self._seen :], len(entries)
        return [
            {
                "input": None if entry.usage is None else sum(entry.usage.get(kind, 0) for kind in INPUT_KINDS),
                "output": None if entry.usage is None else sum(entry.usage.get(kind, 0) for kind in OUTPUT_KINDS),
                "usd": None if entry.amount is None else entry.amount.plain(),
                "word": entry.quality,
            }
            for entry in new
        ]


class Spans(Bare):
    """An instrumentation that makes spans; `names` are its attributes for input and output tokens."""

    def __init__(self, instrument, names):
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self._memory = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._memory))
        instrument(provider)
        self._names = names

    def recorded(self):
        gc.collect()
        spans = self._memory.get_finished_spans()
        self._memory.clear()
        rows = [
            {**{name: span.attributes.get(key) for name, key in self._names.items()}, "usd": None} for span in spans
        ]
        return [{**row, "word": "a span"} for row in rows]

    def forget(self):
        self._memory.clear()


def otel():
    def instrument(provider):
        from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

        OpenAIInstrumentor().instrument(tracer_provider=provider)

    return Spans(instrument, {"input": "gen_ai.usage.input_tokens", "output": "gen_ai.usage.output_tokens"})


def openinference():
    def instrument(provider):
        from openinference.instrumentation.openai import OpenAIInstrumentor

        OpenAIInstrumentor().instrument(tracer_provider=provider)

    return Spans(instrument, {"input": "llm.token_count.prompt", "output": "llm.token_count.completion"})


class LiteLLM(Bare):
    """LiteLLM's own functions, with its own callback."""

    def __init__(self):
        import litellm

        litellm.suppress_debug_info = True
        litellm.num_retries = 0
        self.rows = []
        litellm.success_callback = [self._heard]
        litellm.failure_callback = [self._failed]

    def _heard(self, kwargs, *_rest):
        # What LiteLLM itself logs: it has read the usage of whichever API it was.
        logged = kwargs.get("standard_logging_object") or {}
        counts = [logged.get("prompt_tokens"), logged.get("completion_tokens")]
        cost = kwargs.get("response_cost")
        word = "callback" if kwargs.get("complete_streaming_response") is not None or not kwargs.get("stream") else None
        if word is not None:
            usd = None if cost is None else f"{cost:.12f}"
            self.rows.append({"input": counts[0], "output": counts[1], "usd": usd, "word": word})

    def _failed(self, *_call):
        self.rows.append({"input": None, "output": None, "usd": None, "word": "failure"})

    def recorded(self):
        gc.collect()
        time.sleep(1.0)
        rows, self.rows = self.rows, []
        return rows

    def client(self, url):
        return _LikeOpenAI(url)

    def async_client(self, url):
        return _LikeOpenAI(url, asynchronous=True)


class _LikeOpenAI:
    """LiteLLM's functions under the names that OpenAI's client has for them."""

    def __init__(self, url, *, asynchronous=False):
        import litellm

        always = {"api_base": url, "api_key": "none", "max_retries": 2 if not asynchronous else 0}
        self.chat = self.completions = self.responses = self.embeddings = self
        self._always = always
        self._asynchronous = asynchronous
        self._litellm = litellm

    def create(self, **asked):
        found = {**self._always, **asked, "model": f"openai/{asked['model']}"}
        if "messages" in asked:
            return (self._litellm.acompletion if self._asynchronous else self._litellm.completion)(**found)
        if "text-embedding" in asked["model"]:
            return self._litellm.embedding(**found)
        return self._litellm.responses(**found)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        pass


def chat(client, **more):
    return client.chat.completions.create(model="gpt-4o", messages=HELLO, **more)


def some(stream, number=5):
    for _ in zip(range(number), stream, strict=False):
        pass


def early(client):
    stream = chat(client, stream=True)
    some(stream)
    if hasattr(stream, "close"):
        stream.close()


def forgotten(client):
    some(chat(client, stream=True))
    gc.collect()


async def cancelled(client):
    async def consume(begun):
        number = 0
        async for _ in await client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True):
            number += 1
            if number == 5:
                begun.set()

    begun = asyncio.Event()
    task = asyncio.create_task(consume(begun))
    await begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def responses(client, **more):
    return client.responses.create(model="gpt-5", input="Hello there", **more)


CASES = {
    "non-stream": chat,
    "stream with include_usage": lambda client: list(chat(client, **ASKING)),
    "stream without include_usage": lambda client: list(chat(client, stream=True)),
    "closed early": early,
    "break, forgotten": forgotten,
    "async cancelled": cancelled,
    "connection cut": lambda client: list(chat(client, stream=True)),
    "retry after 500": chat,
    "429 until failure": chat,
    "usage missing": chat,
    "flex tier": lambda client: client.chat.completions.create(model="gpt-5", messages=HELLO, service_tier="flex"),
    "gzip stream": lambda client: list(chat(client, stream=True)),
    "embeddings": lambda client: client.embeddings.create(model="text-embedding-3-small", input="Hello there"),
    "Responses": responses,
    "Responses, stream": lambda client: list(responses(client, stream=True)),
    "Responses, closed early": lambda client: some(responses(client, stream=True)),
    "Responses, tool fees": responses,
}


def case(kind, url, name):
    use = CASES[name]
    error = None
    try:
        if asyncio.iscoroutinefunction(use):

            async def played():
                async with kind.async_client(url) as client:
                    await use(client)

            asyncio.run(played())
        else:
            with kind.client(url) as client:
                use(client)
    except Exception as raised:  # noqa: BLE001 - some cases end in an error on purpose
        error = type(raised).__name__
    return {"rows": kind.recorded(), "error": error}


def load(client, work, times, callers):
    """CPU seconds of this process, all its threads, for the work done so often by each of so many callers."""
    threads = [threading.Thread(target=lambda: [work(client) for _ in range(times)]) for _ in range(callers)]
    gc.collect()
    began = time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.process_time() - began


def read(client):
    for _ in client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True):
        pass


KINDS = {"bare": Bare, "tallystick": Tallystick, "otel": otel, "openinference": openinference, "litellm": LiteLLM}


def main():
    kind = KINDS[sys.argv[1]]()
    clients = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["do"] == "case":
            answer = case(kind, asked["url"], asked["case"])
        elif asked["do"] == "profile":
            answer = profiled(kind, asked)
        else:
            client = clients.get(asked["url"])
            if client is None:
                client = clients[asked["url"]] = kind.client(asked["url"])
            answer = {"cpu": load(client, read if asked["do"] == "chunks" else chat, asked["times"], asked["callers"])}
            kind.forget()
        print("ANSWER" + json.dumps(answer), flush=True)


def profiled(kind, asked):
    """The functions of ours that take most of their own time, and the shares."""
    import cProfile
    import pstats

    client = kind.client(asked["url"])
    work = read if asked["what"] == "chunks" else chat
    work(client)
    profile = cProfile.Profile()
    profile.enable()
    for _ in range(asked["times"]):
        work(client)
    profile.disable()
    rows = []
    for (file, line, name), (_, calls, own, total, _) in pstats.Stats(profile).stats.items():
        place = file.partition("tallystick/")[2] if f"src{os.sep}tallystick" in file else ""
        rows.append(
            [f"{place}:{line} {name}" if place else f"{Path(file).name} {name}", calls, own, total, bool(place)]
        )
    return {"rows": sorted(rows, key=lambda row: -row[2])}


if __name__ == "__main__":
    main()
