"""Track: finds what a client sends its requests with and puts a meter on it; or on everything in the process."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Final, Self, TypeVar

from tallystick.capture.httpx import MeterFor
from tallystick.capture.process import default_meter, meter_of
from tallystick.core.models import provider_id
from tallystick.core.money import Money
from tallystick.errors import InputError
from tallystick.ledger.ledger import Ledger
from tallystick.metering.budgets import find_budget
from tallystick.metering.meter import Meter
from tallystick.metering.run import Block, money

Client = TypeVar("Client")

_KINDS: Final = (
    ("httpx", "httpx", True),
    ("httpx2", "httpx", True),
    ("aiohttp", "aiohttp", True),
    ("requests", "requests", False),
    ("urllib3", "urllib3", True),
    ("botocore", "botocore", True),
)
"""The packages that move bytes, the module here that meters them, and whether it is asked to meter all of the process
(requests sends with urllib3). A package that nobody has loaded has no clients."""

_SUPPORTED: Final = (
    "clients of openai, anthropic, google-genai, mistralai, groq and boto3's bedrock-runtime, and any client or "
    "session of httpx, httpx2, aiohttp, requests and urllib3"
)
_PLACES: Final = (
    ("_client",),
    ("_api_client",),
    ("_api_client", "_httpx_client"),
    ("_api_client", "_async_httpx_client"),
    ("sdk_configuration", "client"),
    ("sdk_configuration", "async_client"),
    ("_client_wrapper", "httpx_client", "httpx_client"),
)
"""Where SDKs keep what they send with."""


_NO_TAGS: Final = frozenset({"provider", "model", "run", "step"})
"""Scopes that the call itself decides."""


class _Client:
    """Gives the meter of one tracked client: that of its ledger, with the client's own tags, limit and provider."""

    def __init__(self, base: MeterFor, block: Block | None, provider: str | None) -> None:
        self._base = base
        self._block = block
        self._provider = provider
        self._last: tuple[Meter, Meter] | None = None

    def __call__(self) -> Meter:
        base = self._base()
        last = self._last
        if last is None or last[0] is not base:
            last = self._last = base, base.tagged(self._block, self._provider)
        return last[1]


def track(
    client: Client,
    *,
    ledger: Ledger | None = None,
    meter: Meter | None = None,
    max_cost: Money | str | None = None,
    budget: str | None = None,
    provider: str | None = None,
    **tags: object,
) -> Client:
    """The same client, whose calls are now in the ledger. Tracking it again changes only ledger, tags and limit.

    `max_cost` is the most one call may cost; a stream is ended there as if its length were reached. `tags`
    (`user="ada"`) go with every call of this client. `budget` names a budget of the ledger whose scope the calls take
    on as their tags, so that it concerns them; budgets that fit by themselves hold without it. `provider` names who
    bills where the host does not say it, as with a proxy of your own. Raises InputError for what cannot be tracked.
    """
    limit = money(max_cost, "max_cost")
    if budget is not None:
        tags = {**_scope(budget, meter_of(ledger) if meter is None else meter), **tags}
    block = Block(tags, most=None if limit is None else limit.pico) if tags or limit is not None else None
    base = (lambda: meter_of(ledger)) if meter is None else (lambda: meter)
    meter_for = _Client(base, block, None if provider is None else provider_id(provider))
    if not [one for one in _inside(client) if _attached(one, meter_for)]:
        raise InputError(
            f"{type(client).__module__}.{type(client).__qualname__} cannot be tracked.",
            money="Its calls are not entered anywhere.",
            todo=f"What can be: {_SUPPORTED}. Or send its calls through the gateway: tally up.",
        )
    return client


def _scope(budget: str, meter: Meter) -> dict[str, str]:
    """The tags by which a budget concerns a call."""
    found = dict(find_budget(meter.ledger, budget).scope)
    for name in found:
        if name in _NO_TAGS:
            raise InputError(
                f"The budget {budget!r} is for calls of one {name}, which a client's tags cannot say.",
                todo="Leave out budget=; it holds for such calls by itself.",
            )
    return {name.removeprefix("tag:"): value for name, value in found.items()}


def _attached(one: object, meter_for: MeterFor) -> bool:
    found = False
    for module in dict.fromkeys(module for package, module, _ in _KINDS if package in sys.modules):
        kind = import_module(f"tallystick.capture.{module}")
        if kind.handles(one):
            kind.attach(one, meter_for)
            found = True
    return found


def _inside(client: Any) -> Iterator[Any]:
    """The client itself and what SDKs keep inside, of their sync and their async half."""
    yield client
    seen = {id(client)}
    for path in _PLACES:
        found: Any = client
        for name in path:
            found = getattr(found, name, None)
        if found is not None and id(found) not in seen:
            seen.add(id(found))
            yield found


class Instrumented:
    """What `instrument` gives back: undo it with `close`, or use it as a with-block."""

    def close(self) -> None:
        """Puts everything back."""
        uninstrument()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Everywhere:
    """What is instrumented in this process: how to undo it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.undo: list[Callable[[], None]] = []


_EVERYWHERE: Final = _Everywhere()


def instrument(*, ledger: Ledger | None = None, meter: Meter | None = None) -> Instrumented:
    """Meters every call of the process, of clients that exist and of those still to be made. Doing it again reaches
    packages loaded since; the first ledger stays. `uninstrument`, or the handle's `close`, undoes it.

    It reaches the packages that are loaded by now: import your SDKs first. A client with a transport of its own kind is
    not reached; track it.
    """
    base = default_meter if ledger is None else (lambda: meter_of(ledger))
    meter_for = base if meter is None else (lambda: meter)
    with _EVERYWHERE.lock:
        for module in dict.fromkeys(module for package, module, all_of in _KINDS if all_of and package in sys.modules):
            _EVERYWHERE.undo.append(import_module(f"tallystick.capture.{module}").patch(meter_for))
    return Instrumented()


def uninstrument() -> None:
    """Undoes `instrument`; tracked clients stay tracked."""
    with _EVERYWHERE.lock:
        while _EVERYWHERE.undo:
            _EVERYWHERE.undo.pop()()
