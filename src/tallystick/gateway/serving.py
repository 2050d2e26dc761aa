"""Serving: the gateway's process or processes on one socket, from the first request to the last."""

from __future__ import annotations

import contextlib
import gc
import ipaddress
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Final

from tallystick.errors import ConfigError
from tallystick.gateway.server import DRAIN_SECONDS, Application, Server

_COLLECT_AFTER: Final = 20_000
"""Objects made and not yet gone after which the collector looks for cycles: a hundred calls' worth."""

_SOCKET: Final = "TALLY_SOCKET"
_LOOK: Final = 0.1
_SOON: Final = 30.0
_MOST_DEATHS: Final = 20
"""So many deaths of workers within `_SOON` seconds are no accident."""


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigError when the address is taken or not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"Nothing can listen at {host}:{port}: {error.strerror or error}.", todo="Choose another one: --port 4101."
        ) from None
    listening.set_inheritable(True)
    return listening


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(
    application: Application,
    listening: socket.socket,
    *,
    ready: Callable[[], None] | None = None,
    stopping: Callable[[], None] | None = None,
) -> None:
    """Serves an application on a socket in this process until SIGINT or SIGTERM, and then lets the calls in
    flight end; `stopping` ends what would go on for ever."""
    # What was loaded at the start lives as long as the process: looking through it again and again finds nothing.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 20)
    serving(application, ready, stopping).run(sockets=[listening])


def serving(
    application: Application, ready: Callable[[], None] | None = None, stopping: Callable[[], None] | None = None
) -> Server:
    """The server of an application, to be run on a socket; `ready` is called when it takes requests, `stopping` when
    it takes no more."""
    return Server(application, ready, stopping)


def supervise(command: list[str], listening: socket.socket, workers: int) -> int:
    """Runs so many processes of `command` on one socket, starts anew what dies, hands SIGHUP on, and ends them when
    told to stop. Returns the exit code: 1 where they die as fast as they are started."""
    watch = _Watch(command, listening)
    kept = {number: signal.signal(number, watch.stop) for number in (signal.SIGINT, signal.SIGTERM)}
    if hasattr(signal, "SIGHUP"):
        kept[signal.SIGHUP] = signal.signal(signal.SIGHUP, watch.reload)
    try:
        return watch.run(workers)
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


class _Watch:
    """The worker processes and who watches over them."""

    def __init__(self, command: list[str], listening: socket.socket) -> None:
        self._command = command
        self._number = listening.fileno()
        self._children: list[subprocess.Popen[bytes]] = []
        self._stopping = False
        self._died: list[float] = []

    def stop(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def reload(self, number: int, _frame: object) -> None:
        for child in self._children:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(number)

    def run(self, workers: int) -> int:
        self._children = [self._start() for _ in range(workers)]
        while not self._stopping and len(self._died) < _MOST_DEATHS:
            time.sleep(_LOOK)
            for place, child in enumerate(self._children):
                if child.poll() is not None and not self._stopping:
                    now = time.monotonic()
                    self._died = [*[at for at in self._died if now - at < _SOON], now]
                    self._children[place] = self._start()
        self._end()
        return 0 if self._stopping else 1

    def _start(self) -> subprocess.Popen[bytes]:
        env = {**os.environ, _SOCKET: str(self._number)}
        # A group of its own: Ctrl-C at the terminal reaches this process only, which ends the workers politely.
        return subprocess.Popen(self._command, pass_fds=(self._number,), env=env, process_group=0)  # noqa: S603 - our own interpreter

    def _end(self) -> None:
        for child in self._children:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
        until = time.monotonic() + DRAIN_SECONDS + 5
        for child in self._children:
            try:
                child.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def inherited() -> socket.socket | None:
    """The socket that a supervisor handed to this worker."""
    number = os.environ.pop(_SOCKET, None)
    return socket.socket(fileno=int(number)) if number else None
