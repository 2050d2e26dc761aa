"""tally simulate: a local provider that speaks the real wire formats."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import click

from tallystick.cli import printable
from tallystick.cli.shared import json_option

if TYPE_CHECKING:
    from tallystick.simulator import Call

PORT = 4101
EXPORTS = {
    "openai": "OPENAI_BASE_URL",
    "anthropic": "ANTHROPIC_BASE_URL",
    "gemini": "GOOGLE_GEMINI_BASE_URL",
    "bedrock": "AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
    "groq": "GROQ_BASE_URL",
    "ollama": "OLLAMA_HOST",
}
"""The variables from which the providers' own clients take their base URL."""

_COUNT = click.IntRange(min=0)
_TIME = click.FloatRange(min=0)


@click.command(
    "simulate", epilog="Example: tally simulate --port 4101 --output-tokens 200 --chunk-delay 20 --fail 1 --status 429"
)
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0 takes a free one.")
@click.option("--text", help="What is said; without it and --output-tokens the question is repeated.")
@click.option("--output-tokens", type=_COUNT, metavar="N", help="A made-up text of N tokens.")
@click.option("--input-tokens", type=_COUNT, metavar="N", help="The whole prompt as stated; else it is counted.")
@click.option("--cached", type=_COUNT, metavar="N", default=0, help="Tokens of the prompt that were cached.")
@click.option("--reasoning", type=_COUNT, metavar="N", default=0, help="Reasoning tokens beside the text.")
@click.option(
    "--usage", type=click.Choice(["normal", "missing", "null", "inside", "twice"]), default="normal",
    help="How usage is stated.",
)  # fmt: skip
@click.option("--delay", type=_TIME, metavar="MS", default=0, help="Milliseconds before the first byte.")
@click.option("--chunk-delay", type=_TIME, metavar="MS", default=0, help="Milliseconds between the events of a stream.")
@click.option("--fail", type=_COUNT, metavar="N", default=0, help="Each request fails N times before it is answered.")
@click.option("--status", type=int, default=429, show_default=True, help="The status of these failures.")
@click.option("--cut", type=_COUNT, metavar="N", help="Close the connection after N events.")
@click.option("--calls", type=click.IntRange(min=1), metavar="N", help="End after N calls.")
@json_option
def command(
    port: int,
    text: str | None,
    output_tokens: int | None,
    input_tokens: int | None,
    cached: int,
    reasoning: int,
    usage: Any,
    delay: float,
    chunk_delay: float,
    fail: int,
    status: int,
    cut: int | None,
    calls: int | None,
    as_json: bool,
) -> int:
    """A local provider for tests: OpenAI, Anthropic, Gemini, Bedrock and others; nothing leaves this machine.

    Prints the base URLs to export and one line for each call; ends on Ctrl-C.
    """
    from tallystick.simulator import Answer, Simulator

    answer = Answer(
        text=text, output_tokens=output_tokens, input_tokens=input_tokens, cached_tokens=cached,
        reasoning_tokens=reasoning, usage=usage, first_byte_ms=delay, chunk_ms=chunk_delay, cut_after=cut,
        status=status if fail else 200, failures=fail or None,
    )  # fmt: skip
    # The server's thread only puts: this one prints, so that a closed pipe ends the command as it ends any other.
    news: SimpleQueue[Call | None] = SimpleQueue()
    with _ending(news), Simulator(answer, port=port, keep=0, typed=False, heard=news.put) as simulator:
        _begin(simulator.urls, as_json=as_json)
        left = calls
        while left != 0 and (call := news.get()) is not None:
            _say(call, as_json=as_json)
            left = None if left is None else left - 1
    return 0


@contextlib.contextmanager
def _ending(news: SimpleQueue[Call | None]) -> Iterator[None]:
    """Ctrl-C and a polite kill end the command instead of interrupting it."""
    kept = {number: signal.signal(number, lambda *_: news.put(None)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _begin(urls: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        _line({"urls": urls})
        return
    for name, variable in EXPORTS.items():
        click.echo(f"export {variable}={urls[name]}")
    others = [name for name in urls if name not in EXPORTS]
    click.echo(f"# also: {', '.join(urls[name] for name in others)}")


def _line(value: dict[str, Any]) -> None:
    click.echo(json.dumps(value, ensure_ascii=False))


def _say(call: Call, *, as_json: bool) -> None:
    if as_json:
        _line(
            {
                "number": call.number,
                "method": call.method,
                "path": call.path,
                "api": call.api,
                "model": call.model,
                "stream": call.stream,
                "status": call.status,
                "usage": None if call.usage is None else dict(call.usage),
                "finish": call.finish,
                "cut": call.cut,
                "abandoned": call.abandoned,
            }
        )
        return
    marks = [name for name, said in (("stream", call.stream), ("cut", call.cut), ("abandoned", call.abandoned)) if said]
    counts = "" if call.usage is None else f"  {call.usage.input_tokens:,} in, {call.usage.output_tokens:,} out"
    words = [str(call.status), call.method, call.path, call.model or "", *marks]
    click.echo(printable(" ".join(filter(None, words)) + counts))
