"""tally explain --call: one real call through the meter, each stage said as it happens."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import click
import msgspec

from tallystick import front
from tallystick.cli import printable
from tallystick.cli.calling import Exchange, credentials, free_meter, shape_of, shown_place
from tallystick.cli.explain_stages import Stages
from tallystick.defaults import ledger_place
from tallystick.errors import InputError, TallyError, UnpricedError

if TYPE_CHECKING:
    from pathlib import Path

    from tallystick.ledger.entry import Entry
    from tallystick.metering.claims import Bound
    from tallystick.metering.meter import Meter

REFUSED: Final = 5
FAILED: Final = 1
UNPRICED: Final = 3
_PACE: Final = 15.0
"""Milliseconds between the pieces of a simulated answer."""

_KEY: Final = "no-key-needed"
_HIDDEN: Final = frozenset({401, 403})
"""Answers to a wrong key, which may repeat parts of it."""


class Door(msgspec.Struct, frozen=True):
    """Where a provider's own SDK looks for its key and its base URL, and where it goes when nobody says."""

    keys: tuple[str, ...]
    bases: tuple[str, ...]
    base: str


DOORS: Final[Mapping[str, Door]] = {
    "openai": Door(("OPENAI_API_KEY",), ("OPENAI_BASE_URL",), "https://api.openai.com/v1"),
    "anthropic": Door(("ANTHROPIC_API_KEY",), ("ANTHROPIC_BASE_URL",), "https://api.anthropic.com"),
    "google": Door(
        ("GOOGLE_API_KEY", "GEMINI_API_KEY"), ("GOOGLE_GEMINI_BASE_URL",), "https://generativelanguage.googleapis.com"
    ),
}


class Asked(msgspec.Struct, frozen=True):
    """What `tally explain --call` was asked for."""

    text: str
    model: str
    provider: str | None
    simulate: bool
    most: int
    answer: str | None


class Target(msgspec.Struct, frozen=True):
    """Where the call goes: whose format is spoken, who bills (None: the host says), the base URL, the meter that
    follows the call, and the ledger's file (None: in memory)."""

    provider: str
    biller: str | None
    base: str
    key: str
    why: str
    meter: Meter
    place: Path | str | None


def explain_call(asked: Asked, *, as_json: bool) -> int:
    """Makes the call and shows its stages; the exit code. Raises TallyError where no answer came."""
    stages = Stages(quiet=as_json, live=not as_json and sys.stdout.isatty())
    with _target(asked) as target:
        shape = shape_of(target.provider, asked.model, asked.text, most=asked.most)
        exchange = Exchange(
            target.meter, f"{target.base.rstrip('/')}{shape.path}", credentials(target.provider, target.key),
            shape.data, provider=target.biller,
        )  # fmt: skip
        stages.request(exchange, _shown(exchange.url), target.why)
        bound, problem = _bound(exchange)
        stages.bound(bound, problem)
        refused = exchange.admitted()
        if refused is not None:
            stages.refused(*refused)
            code = REFUSED
        else:
            code = _sent(exchange, target, stages)
        exchange.settle()
        entry = _entry(target.meter, exchange.call.call_id)
        stages.entry(entry, exchange.call.call_id, None if target.place is None else shown_place(target.place))
        if entry is not None and entry.amount is None and code == 0:
            code = UNPRICED
    if as_json:
        stages.say_json()
    return code


def _sent(exchange: Exchange, target: Target, stages: Stages) -> int:
    stages.injected(exchange)
    began = time.monotonic()
    exchange.send(direct=target.place is None)
    stages.answered(exchange, time.monotonic() - began)
    failed = ""
    try:
        for data, handed in exchange.pieces():
            stages.piece(exchange, data, handed)
    except TallyError as error:
        failed = str(error)
    stages.ended(exchange, failed)
    if exchange.status >= 300:
        stages.trouble(exchange.status, "" if exchange.status in _HIDDEN else target.key)
        return FAILED
    return FAILED if failed else 0


@contextmanager
def _target(asked: Asked) -> Iterator[Target]:
    provider = asked.provider or _biller(asked.model)
    found = None if asked.simulate else _door(provider)
    with ExitStack() as stack:
        if found is not None:
            from tallystick.capture.process import close_meters, default_meter

            stack.callback(close_meters)
            name, key, base = found
            # Behind a base URL of the user's own anybody may bill, as with any client that is tracked.
            biller = asked.provider or (provider if base == DOORS[provider].base else None)
            why = f"with the key in {name}, which is neither shown nor kept"
            yield Target(provider, biller, base, key, why, default_meter(), ledger_place())
            return
        from tallystick.simulator import Answer, Simulator

        why = "simulated, as you asked" if asked.simulate else f"simulated: {_missing(provider)}"
        simulator = stack.enter_context(Simulator(Answer(text=asked.answer, chunk_ms=_PACE), typed=False))
        meter = free_meter(stack.enter_context(front.open(":memory:")))
        stack.callback(meter.close)
        format_of = provider if provider in DOORS else "openai"
        base = simulator.openai_url if format_of == "openai" else simulator.url
        yield Target(provider, provider, base, _KEY, why, meter, None)


def _biller(model: str) -> str:
    """Who bills for a model; one that nobody knows is asked for in OpenAI's format."""
    try:
        return front.catalog().find(model, at=front.now()).provider
    except UnpricedError:
        return "openai"


def _door(provider: str) -> tuple[str, str, str] | None:
    """The variable that holds the key, the key, and the base URL; None where there is no key. Raises InputError, which
    shows neither."""
    door = DOORS.get(provider)
    if door is None:
        return None
    name = next((name for name in door.keys if os.environ.get(name, "").strip()), None)
    if name is None:
        return None
    key = os.environ[name].strip()
    base = next((os.environ[base].strip() for base in door.bases if os.environ.get(base, "").strip()), door.base)
    for text, place in ((key, name), (base, "the base URL")):
        if not text.isascii() or not text.isprintable() or " " in text:
            raise InputError(f"{place} holds characters that cannot be sent.", todo="Set it again. Nothing was sent.")
    if not _usable(base):
        raise InputError("The base URL in the environment is none.", todo="It begins with http:// or https://.")
    return name, key, base


def _usable(base: str) -> bool:
    try:
        parts = urlsplit(base)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _missing(provider: str) -> str:
    door = DOORS.get(provider)
    return f"no door to {provider} is known here" if door is None else f"{' or '.join(door.keys)} is not set"


def _shown(url: str) -> str:
    """A URL without what may be secret: user, password, query."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"


def _bound(exchange: Exchange) -> tuple[Bound | None, str]:
    """The most the call may cost before anybody has answered it, or why that cannot be said."""
    from tallystick.metering.bounding import counted_input, find_card, rates_of

    facts, at = exchange.call.facts, front.now()
    tokens = counted_input(facts)
    found = find_card(facts, front.catalog(), at)
    if isinstance(found, UnpricedError):
        return None, str(found)
    try:
        priced = rates_of(facts, found, tokens, at, {})
    except UnpricedError as error:
        return None, str(error)
    return priced.bound(tokens, facts.max_output or 0), ""


def _entry(meter: Meter, call_id: str) -> Entry | None:
    from tallystick.errors import LedgerError
    from tallystick.ledger.query import Query

    try:
        return next(iter(meter.ledger.read(Query(call_id=call_id))), None)
    except (LedgerError, AttributeError):
        # Where the ledger cannot be opened the meter has a stand-in, and the entry is in the spool.
        click.echo(f"tally: {printable('the ledger cannot be read')}", err=True)
        return None
