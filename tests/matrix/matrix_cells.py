"""Cells: client by case, one row each. A client whose package is not installed here has no cells here."""

import asyncio
import importlib.metadata
import importlib.util
from dataclasses import dataclass, field

import matrix_uses as use

import tallystick
from tallystick.metering.run import Block
from tallystick.simulator import Answer, Function


@dataclass(frozen=True)
class Maker:
    """How a client is made for a simulator, tracked and closed. Where `everywhere`, the whole process is metered."""

    name: str
    make: object
    everywhere: bool = False
    undo: list = field(default_factory=list)

    def track(self, client, meter, provider):
        if not self.everywhere:
            return tallystick.track(client, meter=meter, provider=provider, cell="matrix")
        self.undo.append(tallystick.instrument(meter=meter.tagged(Block({"cell": "matrix"}), provider)))
        return client

    def close(self, client):
        while self.undo:
            self.undo.pop().close()
        if hasattr(client, "close"):
            client.close()
        elif hasattr(client, "__exit__"):
            client.__exit__(None, None, None)

    async def aclose(self, client):
        aio = getattr(client, "aio", None)
        if aio is not None:
            await aio.aclose()
        if hasattr(client, "__aexit__"):
            await client.__aexit__(None, None, None)
            return
        if asyncio.iscoroutinefunction(getattr(client, "close", None)):
            await client.close()
            return
        self.close(client)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell: what is done with which client, what the provider does, and what the ledger has to say of it.

    `expect` has a word for each entry, in their order. `calls` is how many requests the provider gets. `settles` says
    when: with the last byte, once the stream is `collected`, or while the stream is `kept` when the process ends.
    `billed` names the provider's calls that the entries belong to, where not one to one. `ends` is the status of a
    lower bound, `status` that of an exact entry. `attempts` True: later entries name the first. `whole`: the answer is read to its end. `inflated`: a
    compressed answer comes to the caller plain, because it had to be changed. `known` is a fault of ours that is known.
    """

    maker: Maker
    case: str
    use: object
    model: str
    answer: Answer = field(default_factory=Answer)
    expect: tuple = ("exact",)
    provider: str
    calls: int = 1
    raises: bool = False
    settles: str = "end"
    billed: tuple | None = None
    ends: str = "cancelled"
    status: str = "ok"
    attempts: bool | None = None
    whole: bool = True
    inflated: bool = False
    no_id: bool = False
    stated_output: int = 0
    input_exact: bool = False
    context: dict = field(default_factory=dict)
    known: str = ""

    @property
    def id(self):
        return f"{self.maker.name}: {self.case}"

    @property
    def answer_encoding(self):
        return self.answer.encoding


FULL = Answer(output_tokens=40, input_tokens=100, cached_tokens=30, reasoning_tokens=6)
LONG = Answer(output_tokens=160, chunk_tokens=4, chunk_ms=4)
CUT = Answer(output_tokens=100, cut_after=20)
INSIDE = Answer(output_tokens=100, cut_after=20, cut_inside=True)
FAILS = Answer(output_tokens=20, status=500, failures=2)
BUSY = Answer(status=429)
JSON = Answer(text='{"name": "Ada", "age": 36}')
FUNCTIONS = Answer(text="", functions=(Function("weather", '{"city":"Oslo"}'),))
ODD = Answer(text="Grüße, 世界! 👩🏽‍🚀 and so on.", chunks=6, writes="odd", crlf=True, comments=True, obfuscation=True)
GONE = {"whole": False, "expect": ("lower_bound",), "answer": LONG}
TRIES = {"answer": FAILS, "calls": 3, "expect": ("free", "free", "exact"), "attempts": True}


def have(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def openai_like(maker, model, provider, *, more=True):
    """The cells of a sync client that speaks OpenAI's chat."""

    def cell(case, used, **options):
        return Cell(maker=maker, case=case, use=used, **{"model": model, "provider": provider, **options})

    yield cell("non-stream", use.once(use.chat), answer=FULL)
    yield cell("with_raw_response", use.chat_raw, answer=FULL)
    yield cell("functions", use.once(use.chat_tools), answer=FUNCTIONS)
    yield cell("functions, stream", use.whole(use.chat_tools_stream), answer=FUNCTIONS)
    yield cell("stream without include_usage", use.whole(use.chat_stream), answer=FULL)
    yield cell("closed early", use.closed(use.chat_stream), **GONE)
    yield cell("break, kept", use.left(use.chat_stream), settles="kept", **GONE)
    yield cell("break, forgotten", use.dropped(use.chat_stream), settles="collected", **GONE)
    yield cell("never read", use.unread(use.chat_stream), settles="kept", **{**GONE, "expect": ("unread",)})
    yield cell(
        "connection cut", use.whole(use.chat_stream), answer=CUT, raises=True, expect=("lower_bound",), ends="error"
    )
    yield cell(
        "cut in an event",
        use.whole(use.chat_stream),
        answer=INSIDE,
        whole=False,
        raises=True,
        expect=("lower_bound",),
        ends="error",
    )
    yield cell(
        "connection cut, non-stream",
        use.once(use.chat),
        answer=CUT,
        raises=True,
        expect=("unknown",) * 3,
        calls=3,
        attempts=True,
    )
    yield cell("retry after 500", use.once(use.chat), **TRIES)
    yield cell("retry after 500, stream", use.whole(use.chat_stream), **TRIES)
    yield cell(
        "429 until failure", use.once(use.chat), answer=BUSY, raises=True, calls=3, expect=("free",) * 3, attempts=True
    )
    yield cell("usage missing", use.once(use.chat), answer=Answer(usage="missing"), expect=("lower_bound",), ends="ok")
    yield cell("usage null", use.once(use.chat), answer=Answer(usage="null"), expect=("lower_bound",), ends="ok")
    yield cell(
        "usage missing, stream",
        use.whole(use.chat_stream),
        answer=Answer(output_tokens=30, usage="missing"),
        expect=("lower_bound",),
        ends="ok",
    )
    yield cell(
        "error event in a stream",
        use.whole(use.chat_stream),
        answer=Answer(output_tokens=50, error_after=20),
        raises=True,
        expect=("lower_bound",),
        ends="error",
    )
    yield cell("ids missing", use.once(use.chat), answer=Answer(ids="missing"))
    yield cell("ids missing, stream", use.whole(use.chat_stream), answer=Answer(ids="missing"))
    yield cell("gzip", use.once(use.chat), answer=Answer(output_tokens=40, encoding="gzip"))
    yield cell(
        "gzip, stream", use.whole(use.chat_stream), answer=Answer(output_tokens=40, encoding="gzip"), inflated=True
    )
    yield cell("odd writes", use.whole(use.chat_stream), answer=ODD)
    if more:
        yield from openai_only(cell)


def openai_only(cell):
    yield cell("stream with include_usage", use.whole(use.chat_stream_asking), answer=FULL)
    yield cell(
        "usage inside, stream", use.whole(use.chat_stream_asking), answer=Answer(output_tokens=9, usage="inside")
    )
    yield cell("usage twice, stream", use.whole(use.chat_stream), answer=Answer(output_tokens=9, usage="twice"))
    yield cell("with_raw_response, stream", use.chat_raw_stream, answer=FULL)
    yield cell("with_streaming_response, lines", use.chat_lines, answer=FULL)
    yield cell("parse", use.once(use.chat_parse), answer=JSON)
    yield cell("stream helper", use.chat_helper, answer=FULL)
    yield cell("br", use.once(use.chat), answer=Answer(output_tokens=40, encoding="br"))
    yield cell("br, stream", use.whole(use.chat_stream), answer=Answer(output_tokens=40, encoding="br"), inflated=True)
    yield cell(
        "gzip, stream with include_usage",
        use.whole(use.chat_stream_asking),
        answer=Answer(output_tokens=40, encoding="gzip"),
    )
    yield cell(
        "same id twice", _twice(use.chat), answer=Answer(ids="same"), calls=2, expect=("exact",) * 2, attempts=False
    )
    for tier in ("flex", "priority"):
        tiered = {"model": "gpt-5", "context": {"service_tier": tier}}
        yield cell(f"{tier} tier", use.once(use.chat), answer=Answer(service_tier=tier), **tiered)
        yield cell(f"{tier} tier, stream", use.whole(use.chat_stream), answer=Answer(service_tier=tier), **tiered)
    yield cell(
        "completions, stream",
        use.whole(use.completion_stream),
        model="gpt-3.5-turbo-instruct",
        answer=Answer(output_tokens=30),
    )
    yield cell("embeddings", use.once(use.embeddings), model="text-embedding-3-small", no_id=True)
    yield cell(
        "images",
        use.once(use.images),
        model="gpt-image-1",
        answer=Answer(input_tokens=20, output_tokens=1000),
        no_id=True,
    )
    yield cell(
        "transcription",
        use.once(use.transcription),
        model="gpt-4o-transcribe",
        answer=Answer(input_tokens=50, audio_input_tokens=45, output_tokens=9),
        no_id=True,
    )
    yield from openai_responses(cell)


def openai_responses(plain):
    def cell(case, used, **options):
        return plain(f"Responses, {case}", used, **{"model": "gpt-5", **options})

    fees = Answer(output_tokens=30, input_tokens=50, reasoning_tokens=4, tools={"web_search": 2, "file_search": 1})
    slow = Answer(output_tokens=30, input_tokens=50, polls=2)
    yield cell("non-stream", use.once(use.responses), answer=FULL)
    yield cell("with_raw_response", use.responses_raw, answer=FULL)
    yield cell("parse", use.once(use.responses_parse), answer=JSON)
    yield cell("stream", use.whole(use.responses_stream), answer=FULL)
    yield cell("stream helper", use.responses_helper, answer=FULL)
    yield cell("tool fees", use.once(use.responses), answer=fees)
    yield cell("tool fees, stream", use.whole(use.responses_stream), answer=fees)
    yield cell(
        "flex tier", use.once(use.responses), answer=Answer(service_tier="flex"), context={"service_tier": "flex"}
    )
    yield cell("incomplete", use.once(use.responses), answer=Answer(output_tokens=20, finish="length"))
    yield cell("closed early", use.closed(use.responses_stream), **GONE)
    yield cell("break, kept", use.left(use.responses_stream), settles="kept", **GONE)
    yield cell("break, forgotten", use.dropped(use.responses_stream), settles="collected", **GONE)
    yield cell(
        "connection cut",
        use.whole(use.responses_stream),
        answer=CUT,
        raises=True,
        expect=("lower_bound",),
        ends="error",
    )
    yield cell("retry after 500", use.once(use.responses), **TRIES)
    yield cell("background, fetched", use.background_fetched, answer=slow, calls=4, billed=(3,))
    yield cell("background, never fetched", use.background_unfetched, answer=slow, expect=("unknown",))
    yield cell("background, stream", use.whole(use.background_stream), answer=Answer(output_tokens=30))


def openai_like_async(maker, model, provider, *, more=True):
    """The cells of an async client that speaks OpenAI's chat."""

    def cell(case, used, **options):
        return Cell(maker=maker, case=case, use=used, **{"model": model, "provider": provider, **options})

    yield cell("non-stream", use.once_async(use.chat), answer=FULL)
    yield cell("with_raw_response", use.chat_raw_async, answer=FULL)
    yield cell("stream without include_usage", use.whole_async(use.chat_stream), answer=FULL)
    yield cell("closed early", use.closed_async(use.chat_stream), **GONE)
    yield cell("break, forgotten", use.dropped_async(use.chat_stream), settles="collected", **GONE)
    yield cell("cancelled in mid-stream", use.cancelled_async(use.chat_stream), settles="collected", **GONE)
    yield cell(
        "connection cut",
        use.whole_async(use.chat_stream),
        answer=CUT,
        raises=True,
        expect=("lower_bound",),
        ends="error",
    )
    yield cell("retry after 500", use.once_async(use.chat), **TRIES)
    yield cell(
        "429 until failure",
        use.once_async(use.chat),
        answer=BUSY,
        raises=True,
        calls=3,
        expect=("free",) * 3,
        attempts=True,
    )
    yield cell(
        "usage missing, stream",
        use.whole_async(use.chat_stream),
        answer=Answer(output_tokens=30, usage="missing"),
        expect=("lower_bound",),
        ends="ok",
    )
    yield cell(
        "gzip, stream",
        use.whole_async(use.chat_stream),
        answer=Answer(output_tokens=40, encoding="gzip"),
        inflated=True,
    )
    yield cell("odd writes", use.whole_async(use.chat_stream), answer=ODD)
    if not more:
        return
    slow = Answer(output_tokens=30, input_tokens=50, polls=2)
    yield cell("stream with include_usage", use.whole_async(use.chat_stream_asking), answer=FULL)
    yield cell("parse", use.once_async(use.chat_parse), answer=JSON)
    yield cell("stream helper", use.chat_helper_async, answer=FULL)
    yield cell("embeddings", use.once_async(use.embeddings), model="text-embedding-3-small", no_id=True)
    yield cell("Responses, non-stream", use.once_async(use.responses), model="gpt-5", answer=FULL)
    yield cell("Responses, stream", use.whole_async(use.responses_stream), model="gpt-5", answer=FULL)
    yield cell("Responses, closed early", use.closed_async(use.responses_stream), model="gpt-5", **GONE)
    yield cell(
        "Responses, cancelled", use.cancelled_async(use.responses_stream), model="gpt-5", settles="collected", **GONE
    )
    yield cell(
        "Responses, background, fetched", use.background_fetched_async, model="gpt-5", answer=slow, calls=4, billed=(3,)
    )


def _twice(ask):
    def used(client, caller, model):
        caller.say(ask(client, model))
        caller.say(ask(client, model))

    return used
