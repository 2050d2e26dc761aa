"""The clients of `tally demo`: the SDKs that are installed, and the standard library in place of one that is not."""

from __future__ import annotations

import importlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from tallystick.capture.track import track
from tallystick.cli.calling import Exchange, credentials, shape_of
from tallystick.errors import TallyError

if TYPE_CHECKING:
    from tallystick.cli.demo_scene import Scene
    from tallystick.metering.meter import Meter
    from tallystick.simulator import Simulator

Ask = Callable[["Scene"], Iterator[str]]
"""Makes a scene's call and gives its answer piece by piece. Whatever the client raises, it raises."""

PACKAGES: Final = {"openai": "openai", "anthropic": "anthropic", "google": "google.genai"}
"""The SDK of each provider, as it is imported."""

INSTALL: Final = {"openai": "openai", "anthropic": "anthropic", "google": "google-genai"}
"""The SDK of each provider, as it is installed."""

PLAIN: Final = "standard library"
_KEY: Final = "no-key-needed"
_MOST: Final = 1000


class Clients:
    """A client for each provider, all metered. `names` says what each turned out to be. `prepare` opens one, while no
    call is under way: SDKs look at what others have imported so far, and stumble over halves. Once imports have taken
    `patience` seconds, the rest is done without: those providers are `late`."""

    def __init__(self, meter: Meter, simulator: Simulator, *, plain: bool = False, patience: float = math.inf) -> None:
        self.names: dict[str, str] = {}
        self.late: list[str] = []
        self._left = patience
        self._meter = meter
        self._simulator = simulator
        self._asks: dict[str, Ask] = {}
        self._plain = plain

    def ask(self, scene: Scene) -> Iterator[str]:
        """Makes a scene's call with the client that was prepared."""
        ask = self._asks.get(scene.provider)
        if ask is None:
            return self._by_hand(scene)
        return ask(scene)

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """What these clients raise where a call fails or breaks off."""
        places = [("openai", "OpenAIError"), ("anthropic", "AnthropicError"), ("google.genai.errors", "APIError"),
                  ("httpx", "HTTPError"), ("httpx2", "HTTPError"), ("aiohttp", "ClientError")]  # fmt: skip
        found = [getattr(sys.modules.get(module), name, None) for module, name in places]
        return (TallyError, OSError, *(kind for kind in found if isinstance(kind, type)))

    def prepare(self, provider: str) -> None:
        """Opens the client of a provider: its SDK, or where there is none nothing but the standard library."""
        if provider in self.names:
            return
        self.names[provider] = PLAIN
        if self._plain:
            return
        if self._left <= 0:
            self.late.append(provider)
            return
        began = time.monotonic()
        try:
            package = importlib.import_module(PACKAGES[provider])
            self._left -= time.monotonic() - began
            make = {"openai": _openai, "anthropic": _anthropic, "google": _google}[provider]
            client, ask = make(package, self._simulator)
            track(client, meter=self._meter, provider=provider)
        except (ImportError, AttributeError, TypeError, TallyError):
            # Not installed, or of a version that is nothing like today's: its format is spoken without it.
            return
        self._asks[provider] = ask
        self.names[provider] = f"{INSTALL[provider]} {getattr(package, '__version__', '')}".strip()

    def _by_hand(self, scene: Scene) -> Iterator[str]:
        from tallystick.wire.reader import reader_for

        simulator = self._simulator
        base = simulator.openai_url if scene.provider == "openai" else simulator.url
        shape = shape_of(scene.provider, scene.model, scene.prompt, stream=scene.stream, most=_MOST)
        for attempt in range(3):
            # The header by which SDKs say that they send a request again; the entries are linked by it.
            headers = {**credentials(scene.provider, _KEY), "x-stainless-retry-count": str(attempt)}
            exchange = Exchange(self._meter, f"{base}{shape.path}", headers, shape.data, provider=scene.provider)
            refused = exchange.admitted()
            if refused is not None:
                raise TallyError(refused[1].decode("utf-8", "replace"))
            exchange.send(direct=True)
            if exchange.status < 500:
                break
            list(exchange.pieces())
            time.sleep(float(exchange.headers.get("retry-after-ms", 0)) / 1000)
        reader = reader_for(exchange.call.facts, exchange.status, exchange.headers, want_text=True)
        for data, _ in exchange.pieces():
            progress = reader.feed(data)
            if progress is not None and progress.text_delta:
                yield progress.text_delta


def _openai(package: Any, simulator: Simulator) -> tuple[Any, Ask]:
    client = package.OpenAI(base_url=simulator.openai_url, api_key=_KEY, max_retries=2)

    def ask(scene: Scene) -> Iterator[str]:
        fields = {"model": scene.model, "messages": [{"role": "user", "content": scene.prompt}]}
        if not scene.stream:
            yield client.chat.completions.create(**fields).choices[0].message.content
            return
        for chunk in client.chat.completions.create(**fields, stream=True):
            if chunk.choices:
                yield chunk.choices[0].delta.content or ""

    return client, ask


def _anthropic(package: Any, simulator: Simulator) -> tuple[Any, Ask]:
    client = package.Anthropic(base_url=simulator.anthropic_url, api_key=_KEY, max_retries=2)

    def ask(scene: Scene) -> Iterator[str]:
        messages = [{"role": "user", "content": scene.prompt}]
        with client.messages.stream(model=scene.model, max_tokens=_MOST, messages=messages) as stream:
            yield from stream.text_stream

    return client, ask


def _google(package: Any, simulator: Simulator) -> tuple[Any, Ask]:
    client = package.Client(api_key=_KEY, vertexai=False, http_options={"base_url": simulator.gemini_url})

    def ask(scene: Scene) -> Iterator[str]:
        for chunk in client.models.generate_content_stream(model=scene.model, contents=scene.prompt):
            yield chunk.text or ""

    return client, ask
