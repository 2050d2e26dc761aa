"""A gateway that is told to end while its loop is busy answers what has reached it by then."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tallystick.gateway.exchange import Exchange
from tallystick.gateway.server import Server

PATIENCE = 20
BUSY = 0.3


class Busy:
    """Answers everything; while it answers /busy its loop does nothing else until it is let go."""

    def __init__(self) -> None:
        self.busy = threading.Event()
        self.go = threading.Event()

    async def begin(self) -> None:
        return

    async def close(self) -> None:
        return

    def at_once(self, _exchange: Exchange) -> bool:
        return False

    async def serve(self, exchange: Exchange) -> None:
        if exchange.head.target == b"/busy":
            self.busy.set()
            self.go.wait(PATIENCE)
        await exchange.say(200, {"status": "ok"})


def answer(client: http.client.HTTPConnection) -> int:
    try:
        return client.getresponse().status
    finally:
        client.close()


def test_a_request_that_came_before_the_end_is_answered():
    application = Busy()
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor() as pool:
        server = Server(application)
        # A server in another thread than the first takes no signals; `should_exit` is what they set.
        served = pool.submit(server.run, [listening])
        port = listening.getsockname()[1]
        busy, other = (http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE) for _ in range(2))
        busy.request("GET", "/busy")
        first = pool.submit(answer, busy)
        assert application.busy.wait(PATIENCE)
        other.request("GET", "/other")
        server.should_exit = True
        # The loop is busy for longer than the server's own tick, so that it hears first that it shall end.
        time.sleep(BUSY)
        application.go.set()
        assert (first.result(PATIENCE), answer(other)) == (200, 200)
        served.result(PATIENCE)
