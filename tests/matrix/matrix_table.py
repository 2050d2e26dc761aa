"""Table: all cells that this environment has the clients for."""

import matrix_uses as use
from matrix_cells import BUSY, CUT, FULL, GONE, INSIDE, JSON, TRIES, Cell, Maker, have, openai_like, openai_like_async

from tallystick.simulator import Answer

CLAUDE = "claude-sonnet-4-5"
BEDROCK = "anthropic.claude-sonnet-4-5-20250929-v1:0"
CACHED = Answer(input_tokens=500, cached_tokens=200, cache_write_5m=70, cache_write_1h=30, output_tokens=20)


def _no_delay(client):
    client._calculate_retry_timeout = lambda *_: 0.0
    return client


def _openai(sim):
    import openai

    return _no_delay(openai.OpenAI(base_url=sim.openai_url, api_key="none", max_retries=2))


def _openai_async(sim):
    import openai

    return _no_delay(openai.AsyncOpenAI(base_url=sim.openai_url, api_key="none", max_retries=2))


def _groq(sim):
    import groq

    return _no_delay(groq.Groq(base_url=sim.urls["groq"], api_key="none", max_retries=2))


def _groq_async(sim):
    import groq

    return _no_delay(groq.AsyncGroq(base_url=sim.urls["groq"], api_key="none", max_retries=2))


def _anthropic(sim):
    import anthropic

    return _no_delay(anthropic.Anthropic(base_url=sim.anthropic_url, api_key="none", max_retries=2))


def _anthropic_async(sim):
    import anthropic

    return _no_delay(anthropic.AsyncAnthropic(base_url=sim.anthropic_url, api_key="none", max_retries=2))


def _gemini(sim):
    from google import genai

    retry = {"attempts": 3, "initial_delay": 0.01, "max_delay": 0.02, "http_status_codes": [500, 429]}
    return genai.Client(
        api_key="none", vertexai=False, http_options={"base_url": sim.gemini_url, "retry_options": retry}
    )


def _bedrock(sim):
    import boto3
    from botocore.config import Config

    return boto3.client(
        "bedrock-runtime", endpoint_url=sim.bedrock_url, region_name="us-east-1", aws_access_key_id="none",
        aws_secret_access_key="none", config=Config(retries={"total_max_attempts": 3, "mode": "standard"}),
    )  # fmt: skip


def _mistral(sim):
    from mistralai.client import Mistral

    return Mistral(server_url=sim.urls["mistral"], api_key="none")


class _Place(str):
    """A base URL in the place of a client, for a library that is called by functions."""

    __slots__ = ()


def _litellm(sim):
    import litellm

    litellm.num_retries = 0
    litellm.in_memory_llm_clients_cache.flush_cache()
    return _Place(sim.openai_url)


def _langchain(sim):
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model="gpt-4o", base_url=sim.openai_url, api_key="none", stream_usage=False)


def anthropic_cells():
    def cell(maker, case, used, **options):
        options = {"model": CLAUDE, "provider": "anthropic", "input_exact": True, "stated_output": 1, **options}
        return Cell(maker=maker, case=case, use=used, **options)

    sync, loop = Maker("anthropic", _anthropic), Maker("anthropic async", _anthropic_async)
    missing = Answer(output_tokens=30, usage="missing")
    searches = Answer(output_tokens=20, tools={"web_search": 3})
    thinks = Answer(output_tokens=20, reasoning_tokens=15)
    # The prices of the priority tier are a contract's; only that it is recorded can be shown.
    yield cell(sync, "non-stream", use.once(use.claude), answer=FULL)
    yield cell(sync, "beta", use.once(use.claude_beta), answer=FULL)
    yield cell(sync, "beta, stream", use.whole(use.claude_beta_stream), answer=FULL)
    yield cell(sync, "with_raw_response", use.claude_raw, answer=FULL)
    yield cell(sync, "parse", use.once(use.claude_parse), answer=JSON)
    yield cell(sync, "stream", use.whole(use.claude_stream), answer=FULL)
    yield cell(sync, "stream helper", use.claude_helper, answer=FULL)
    yield cell(sync, "cache TTLs", use.once(use.claude), answer=CACHED)
    yield cell(sync, "cache TTLs, stream", use.whole(use.claude_stream), answer=CACHED)
    yield cell(sync, "thinking", use.once(use.claude_thinking), answer=thinks)
    yield cell(sync, "tool fees", use.once(use.claude), answer=searches)
    yield cell(sync, "tool fees, stream", use.whole(use.claude_stream), answer=searches)
    yield cell(
        sync, "usage twice, stream", use.whole(use.claude_stream), answer=Answer(output_tokens=20, usage="twice")
    )
    yield cell(sync, "closed early", use.closed(use.claude_stream), **GONE)
    yield cell(sync, "break, kept", use.left(use.claude_stream), settles="kept", **GONE)
    yield cell(sync, "break, forgotten", use.dropped(use.claude_stream), settles="collected", **GONE)
    yield cell(sync, "never read", use.unread(use.claude_stream), settles="kept", **{**GONE, "expect": ("unread",)})
    yield cell(
        sync,
        "connection cut",
        use.whole(use.claude_stream),
        answer=CUT,
        raises=True,
        expect=("lower_bound",),
        ends="error",
    )
    yield cell(
        sync,
        "cut in an event",
        use.whole(use.claude_stream),
        answer=INSIDE,
        raises=True,
        expect=("lower_bound",),
        ends="error",
    )
    yield cell(sync, "retry after 500", use.once(use.claude), **TRIES)
    yield cell(
        sync,
        "429 until failure",
        use.once(use.claude),
        answer=BUSY,
        raises=True,
        calls=3,
        expect=("free",) * 3,
        attempts=True,
    )
    yield cell(
        sync,
        "usage missing",
        use.once(use.claude),
        answer=missing,
        expect=("lower_bound",),
        ends="ok",
        input_exact=False,
        stated_output=0,
    )
    yield cell(
        sync,
        "usage missing, stream",
        use.whole(use.claude_stream),
        answer=missing,
        expect=("lower_bound",),
        ends="ok",
        input_exact=False,
        stated_output=0,
    )
    yield cell(
        sync,
        "error event in a stream",
        use.whole(use.claude_stream),
        answer=Answer(output_tokens=50, error_after=20),
        raises=True,
        expect=("lower_bound",),
        ends="error",
    )
    yield cell(sync, "ids missing", use.once(use.claude), answer=Answer(ids="missing"))
    yield cell(sync, "gzip", use.once(use.claude), answer=Answer(output_tokens=40, encoding="gzip"))
    yield cell(sync, "gzip, stream", use.whole(use.claude_stream), answer=Answer(output_tokens=40, encoding="gzip"))
    yield cell(
        sync, "odd writes", use.whole(use.claude_stream), answer=Answer(output_tokens=40, writes="odd", pings=True)
    )
    yield cell(loop, "non-stream", use.once_async(use.claude), answer=FULL)
    yield cell(loop, "stream", use.whole_async(use.claude_stream), answer=FULL)
    yield cell(loop, "stream helper", use.claude_helper_async, answer=CACHED)
    yield cell(loop, "closed early", use.closed_async(use.claude_stream), **GONE)
    yield cell(loop, "break, forgotten", use.dropped_async(use.claude_stream), settles="collected", **GONE)
    yield cell(loop, "cancelled in mid-stream", use.cancelled_async(use.claude_stream), settles="collected", **GONE)
    yield cell(
        loop,
        "connection cut",
        use.whole_async(use.claude_stream),
        answer=CUT,
        raises=True,
        expect=("lower_bound",),
        ends="error",
    )
    yield cell(loop, "retry after 500", use.once_async(use.claude), **TRIES)


def gemini_cells():
    def cell(maker, case, used, **options):
        return Cell(maker=maker, case=case, use=used, **{"model": "gemini-2.5-flash", "provider": "google", **options})

    sync, loop = Maker("google-genai", _gemini), Maker("google-genai async", _gemini)
    tries = {**TRIES, "attempts": None}
    busy = {"answer": BUSY, "raises": True, "calls": 3, "expect": ("free",) * 3}
    yield cell(sync, "non-stream", use.once(use.gemini), answer=FULL)
    yield cell(
        sync,
        "thoughts and cached",
        use.once(use.gemini_thinking),
        answer=Answer(input_tokens=90, cached_tokens=50, reasoning_tokens=33, output_tokens=12),
    )
    yield cell(sync, "structured", use.once(use.gemini_parse), answer=JSON)
    yield cell(sync, "stream", use.whole(use.gemini_stream), answer=FULL)
    yield cell(sync, "tool fees", use.once(use.gemini), answer=Answer(output_tokens=9, tools={"web_search": 1}))
    yield cell(sync, "closed early", use.closed(use.gemini_stream), **GONE)
    yield cell(sync, "break, kept", use.left(use.gemini_stream), settles="kept", **GONE)
    yield cell(sync, "break, forgotten", use.dropped(use.gemini_stream), settles="collected", **GONE)
    yield cell(
        sync,
        "connection cut",
        use.whole(use.gemini_stream),
        answer=CUT,
        raises=True,
        expect=("lower_bound",),
        ends="error",
    )
    yield cell(sync, "retry after 500", use.once(use.gemini), **tries)
    yield cell(sync, "429 until failure", use.once(use.gemini), **busy)
    yield cell(
        sync, "usage missing", use.once(use.gemini), answer=Answer(usage="missing"), expect=("lower_bound",), ends="ok"
    )
    yield cell(
        sync,
        "usage missing, stream",
        use.whole(use.gemini_stream),
        answer=Answer(output_tokens=30, usage="missing"),
        expect=("lower_bound",),
        ends="ok",
    )
    yield cell(sync, "gzip, stream", use.whole(use.gemini_stream), answer=Answer(output_tokens=40, encoding="gzip"))
    yield cell(sync, "odd writes", use.whole(use.gemini_stream), answer=Answer(output_tokens=40, writes="odd"))
    yield cell(loop, "non-stream", use.once_async(use.gemini_async), answer=FULL)
    yield cell(loop, "stream", use.whole_async(use.gemini_stream_async), answer=FULL)
    yield cell(loop, "closed early", use.closed_async(use.gemini_stream_async), **GONE)
    yield cell(loop, "break, forgotten", use.dropped_async(use.gemini_stream_async), settles="collected", **GONE)
    yield cell(
        loop, "cancelled in mid-stream", use.cancelled_async(use.gemini_stream_async), settles="collected", **GONE
    )
    yield cell(
        loop,
        "connection cut",
        use.whole_async(use.gemini_stream_async),
        answer=CUT,
        raises=True,
        expect=("lower_bound",),
        ends="error",
    )
    yield cell(loop, "retry after 500", use.once_async(use.gemini_async), **tries)
    yield cell(loop, "429 until failure", use.once_async(use.gemini_async), **busy)
    yield cell(
        loop, "gzip, stream", use.whole_async(use.gemini_stream_async), answer=Answer(output_tokens=40, encoding="gzip")
    )


def bedrock_cells():
    def cell(case, used, **options):
        return Cell(
            maker=Maker("boto3", _bedrock),
            case=case,
            use=used,
            **{"model": BEDROCK, "provider": "aws", "no_id": True, **options},
        )

    tries = {**TRIES, "attempts": None}
    yield cell("converse", use.once(use.converse), answer=FULL)
    yield cell("converse, cache TTLs", use.once(use.converse), answer=CACHED)
    yield cell("converse, stream", use.whole(use.converse_stream), answer=FULL)
    yield cell("converse, stream, cache TTLs", use.whole(use.converse_stream), answer=CACHED)
    yield cell("invoke", use.invoke, answer=FULL)
    yield cell("invoke, stream", use.whole(use.invoke_stream), answer=FULL)
    yield cell("closed early", use.closed(use.converse_stream), **GONE)
    yield cell("break, kept", use.left(use.converse_stream), settles="kept", **GONE)
    yield cell("break, forgotten", use.dropped(use.converse_stream), settles="collected", **GONE)
    yield cell(
        "connection cut", use.whole(use.converse_stream), answer=CUT, raises=True, expect=("lower_bound",), ends="error"
    )
    yield cell("retry after 500", use.once(use.converse), **tries)
    yield cell("429 until failure", use.once(use.converse), answer=BUSY, raises=True, calls=3, expect=("free",) * 3)
    yield cell("odd writes", use.whole(use.converse_stream), answer=Answer(output_tokens=40, writes="odd"))


def mistral_cells():
    def cell(case, used, **options):
        options = {"model": "mistral-small-latest", "provider": "mistral", **options}
        return Cell(maker=Maker("mistralai", _mistral), case=case, use=used, **options)

    yield cell("non-stream", use.once(use.mistral), answer=FULL)
    yield cell("parse", use.once(use.mistral_parse), answer=JSON)
    yield cell("stream", use.whole(use.mistral_stream), answer=FULL)
    yield cell("closed early", use.closed(use.mistral_stream), **GONE)
    yield cell("break, kept", use.left(use.mistral_stream), settles="kept", **GONE)
    yield cell("break, forgotten", use.dropped(use.mistral_stream), settles="collected", **GONE)
    yield cell(
        "connection cut", use.whole(use.mistral_stream), answer=CUT, raises=True, expect=("lower_bound",), ends="error"
    )
    yield cell("429 until failure", use.once(use.mistral), answer=BUSY, raises=True, expect=("free",))
    yield cell(
        "usage missing",
        use.once(use.mistral),
        answer=Answer(usage="missing"),
        raises=True,
        expect=("lower_bound",),
        ends="ok",
    )
    yield cell(
        "usage missing, stream",
        use.whole(use.mistral_stream),
        answer=Answer(output_tokens=30, usage="missing"),
        expect=("lower_bound",),
        ends="ok",
    )
    yield cell("gzip, stream", use.whole(use.mistral_stream), answer=Answer(output_tokens=40, encoding="gzip"))
    yield cell("async non-stream", use.once_async(use.mistral_async), answer=FULL)
    yield cell("async stream", use.whole_async(use.mistral_stream_async), answer=FULL)
    yield cell(
        "async cancelled in mid-stream", use.cancelled_async(use.mistral_stream_async), settles="collected", **GONE
    )


def litellm_cells():
    def cell(case, used, **options):
        options = {"model": "gpt-4o", "provider": "openai", **options}
        return Cell(maker=Maker("litellm", _litellm, everywhere=True), case=case, use=used, **options)

    claude = {"model": CLAUDE, "provider": "anthropic", "input_exact": True, "stated_output": 1}
    yield cell("completion", use.once(use.litellm_chat), answer=FULL)
    yield cell("completion, stream", use.whole(use.litellm_chat_stream), answer=FULL)
    yield cell("completion, stream with include_usage", use.whole(use.litellm_chat_stream_asking), answer=FULL)
    yield cell("completion, break, forgotten", use.dropped(use.litellm_chat_stream), **GONE)
    yield cell("acompletion", use.once_async(use.litellm_chat_async), answer=FULL)
    yield cell("acompletion, stream", use.whole_async(use.litellm_chat_stream_async), answer=FULL)
    yield cell("completion, anthropic", use.once(use.litellm_claude), answer=CACHED, **claude)
    # LiteLLM does not read the last event of Anthropic's, which comes after the usage.
    yield cell(
        "completion, anthropic, stream",
        use.whole(use.litellm_claude_stream),
        answer=CACHED,
        status="cancelled",
        **claude,
    )


def langchain_cells():
    def cell(case, used, **options):
        options = {"model": "gpt-4o", "provider": "openai", **options}
        return Cell(maker=Maker("langchain-openai", _langchain, everywhere=True), case=case, use=used, **options)

    yield cell("invoke", use.once(use.langchain), answer=FULL)
    yield cell("stream", use.whole(use.langchain_stream), answer=FULL)
    yield cell("ainvoke", use.once_async(use.langchain_async), answer=FULL)
    yield cell("astream", use.whole_async(use.langchain_stream_async), answer=FULL)


def cells():
    """All cells whose clients are installed here."""
    found = []
    if have("openai"):
        found += openai_like(Maker("openai", _openai), "gpt-4o", "openai")
        found += openai_like_async(Maker("openai async", _openai_async), "gpt-4o", "openai")
    if have("groq"):
        found += openai_like(Maker("groq", _groq), "llama-3.3-70b-versatile", "groq", more=False)
        found += openai_like_async(Maker("groq async", _groq_async), "llama-3.3-70b-versatile", "groq", more=False)
    others = {
        "anthropic": anthropic_cells, "google.genai": gemini_cells, "boto3": bedrock_cells,
        "mistralai": mistral_cells, "litellm": litellm_cells, "langchain_openai": langchain_cells,
    }  # fmt: skip
    for package, table in others.items():
        if have(package):
            found += table()
    return found
