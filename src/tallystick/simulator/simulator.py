"""Simulator: the provider as a server on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from tallystick.errors import InputError
from tallystick.simulator.answer import Answer, Script
from tallystick.simulator.call import Call
from tallystick.simulator.chooser import Chooser
from tallystick.simulator.delivery import Calls
from tallystick.simulator.failures import failure
from tallystick.simulator.request import COMPATIBLE
from tallystick.simulator.serving import Serving

_HOST: Final = "127.0.0.1"
_PATIENCE: Final = 10.0
_GRACE: Final = 0.2


class Simulator:
    """A local provider: OpenAI, Anthropic, Gemini, Bedrock and the OpenAI-compatible ones, on one port of 127.0.0.1.

    Use it as a context manager, or call `start` and `stop`. `script` says what is answered. `port` 0 takes a free one.
    `keep` bounds the calls that are remembered; None keeps all. Where `typed`, each new payload passes through the
    SDK's own type if that SDK is installed, which imports it once. `series` starts the ids, eight characters; by
    default they are random, so that no two simulators give the same. `heard` is called with each call, on the server's
    thread. Raises OSError where the port is taken, and at `stop` whatever a script's function raised.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        port: int = 0,
        keep: int | None = None,
        typed: bool = True,
        series: str | None = None,
        heard: Callable[[Call], None] | None = None,
    ) -> None:
        if series is not None and (len(series) != 8 or not series.isalnum()):
            raise InputError(f"A series is eight letters or digits, not {series!r}.")
        self._calls = Calls(keep, heard)
        self._serving = Serving(
            Answer() if script is None else script, self._calls, typed=typed, series=series or secrets.token_hex(4)
        )
        self._wanted = port
        self._port = 0
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._refused: OSError | None = None

    def start(self) -> Self:
        """Starts the server; returns when it listens."""
        if self._thread is not None:
            raise InputError("This simulator has been started already.", todo="Make a new one.")
        self._thread = threading.Thread(target=self._run, name="tallystick-simulator", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._refused is not None:
            self._thread.join()
            raise self._refused
        return self

    def stop(self) -> None:
        """Ends every connection, the server and its thread; raises what a script's function raised."""
        if self._thread is not None and self._thread.is_alive() and self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(_PATIENCE)
        faults, self._serving.faults = self._serving.faults, []
        if faults:
            raise faults[0]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.stop()
            return
        # The caller's own error says more than the script's, which is what it usually came from.
        self._serving.faults.clear()
        self.stop()

    @property
    def calls(self) -> list[Call]:
        """What was received and served so far, in the order in which the answers ended."""
        return self._calls.listed()

    def wait(self, number: int, seconds: float = 5.0) -> list[Call]:
        """The calls once there have been `number` of them, or after so many seconds: a client that goes away is
        noticed a moment later."""
        return self._calls.wait(number, seconds)

    def play(self, script: Script) -> None:
        """Another script from the next call on."""
        self._serving.chooser = Chooser(script)

    @property
    def port(self) -> int:
        """The port, once started."""
        return self._port

    @property
    def url(self) -> str:
        """The address without a path."""
        return f"http://{_HOST}:{self._port}"

    @property
    def openai_url(self) -> str:
        """OpenAI's base_url, which ends in /v1."""
        return f"{self.url}/v1"

    @property
    def anthropic_url(self) -> str:
        """Anthropic's base_url."""
        return self.url

    @property
    def gemini_url(self) -> str:
        """Gemini's base_url (http_options)."""
        return self.url

    @property
    def bedrock_url(self) -> str:
        """The endpoint_url for bedrock-runtime."""
        return self.url

    @property
    def urls(self) -> dict[str, str]:
        """The base URL that each provider's client takes. Groq's own and Mistral's own add the rest of the path
        themselves, OpenAI's with such a provider takes it with /v1."""
        bare = {"mistral": "", "groq": "", "ollama": ""}
        named = {name: f"{self.url}/{name}{bare.get(name, '/v1')}" for name in COMPATIBLE}
        ours = {"openai": self.openai_url, "anthropic": self.url, "gemini": self.url, "bedrock": self.url}
        return ours | named

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        from tallystick.simulator.http import Connection

        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        living: set[Connection] = set()
        try:
            server = await self._loop.create_server(
                lambda: Connection(self._serving, living, self._failed), _HOST, self._wanted, backlog=1024
            )
        except OSError as error:
            self._refused = error
            self._ready.set()
            return
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopping.wait()
        server.close()
        tasks = [connection.task for connection in living if connection.task is not None]
        if tasks:
            # A call is noted before its last write: who stops upon hearing of it must not take the answer away.
            await asyncio.wait(tasks, timeout=_GRACE)
        for connection in list(living):
            connection.end()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.wait_closed(), 1)

    def _failed(self, error: BaseException) -> bytes:
        self._serving.faults.append(error)
        return failure("openai", 500, f"The script failed: {type(error).__name__}: {error}")[1]


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
