"""The server under the gateway: connections that are kept, requests sent ahead, bodies in pieces, and its end."""

import asyncio
import json
import socket
import threading
import time

import pytest
from gateway_desk import post
from test_gateway_clients import CHAT

from tallystick.gateway import protocol
from tallystick.gateway.exchange import Exchange
from tallystick.gateway.serving import bind, serving
from tallystick.simulator import Answer

PATH = "/openai/v1/chat/completions"


class Echo:
    """An application that tells what it was asked."""

    def __init__(self):
        self.began = self.ended = False
        self.seen = []
        self.gone = threading.Event()
        self.go = threading.Event()

    async def begin(self):
        self.began = True

    async def close(self):
        self.ended = True

    def at_once(self, exchange: Exchange):
        if exchange.head.target == b"/fails-at-once":
            raise LookupError("words that nobody should see")
        return False

    async def serve(self, exchange: Exchange):
        scope = exchange.scope()
        self.seen.append(scope)
        work = getattr(self, scope["path"].strip("/").replace("-", "_"), None)
        if work is not None:
            await work(exchange)
            return
        body = b""
        more = True
        while more:
            message = await exchange.receive()
            if message["type"] == "http.disconnect":
                self.gone.set()
                return
            body += message["body"]
            more = message["more_body"]
        value = {"method": scope["method"], "path": scope["path"], "body": body.decode(),
                 "length": dict(scope["headers"]).get(b"content-length", b"").decode()}  # fmt: skip
        await exchange.send({"type": "http.response.start", "status": 200, "headers": [(b"X-One", b"1")]})
        await exchange.send({"type": "http.response.body", "body": json.dumps(value).encode()})

    async def pieces(self, exchange):
        await exchange.send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"one", b"", b"two"):
            await exchange.send({"type": "http.response.body", "body": piece, "more_body": True})
        await exchange.send({"type": "http.response.body", "body": b"three"})

    async def fails(self, _exchange):
        raise LookupError("words that nobody should see")

    async def fails_late(self, exchange):
        await exchange.start(200, [(b"content-length", b"10")])
        await exchange.body(b"half")
        raise LookupError

    async def splits(self, exchange):
        await exchange.answer(200, [(b"x", b"a\r\nset-cookie: b")], b"")

    async def early(self, exchange):
        await exchange.say(413, {})

    async def waits(self, exchange):
        message = await exchange.receive()
        assert message["type"] == "http.request"
        assert (await exchange.receive())["type"] == "http.disconnect"
        self.gone.set()

    async def slow(self, exchange):
        await asyncio.to_thread(self.go.wait, 10)
        await exchange.answer(200, [], b"late")

    async def much(self, exchange):
        await exchange.start(200, [])
        self.written = 0
        for _ in range(400):
            await exchange.body(b"x" * 65536)
            self.written += 65536
        await exchange.end()


@pytest.fixture
def echo():
    """A server of its own: the application, the server and its port."""
    made = []

    def start():
        application = Echo()
        listening = bind("127.0.0.1", 0)
        ready = threading.Event()
        server = serving(application, ready.set)
        thread = threading.Thread(target=lambda: server.run([listening]))
        thread.start()
        assert ready.wait(10)
        made.append((application, server, thread, listening))
        return application, server, listening.getsockname()[1]

    yield start
    for application, server, thread, listening in made:
        application.go.set()
        server.should_exit = True
        thread.join(40)
        listening.close()
        assert application.began
        assert application.ended
        assert not thread.is_alive()


def talk(sock, words, ends=1):
    """Sends words and reads so many answers with a stated length, or until the other side closes."""
    sock.sendall(words)
    return [answer(sock) for _ in range(ends)]


def answer(sock):
    head = b""
    while b"\r\n\r\n" not in head:
        more = sock.recv(1)
        if not more:
            return None
        head += more
    first, *lines = head.decode("latin-1").split("\r\n")
    named = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = b""
    if named.get("transfer-encoding") == "chunked":
        while not body.endswith(b"0\r\n\r\n"):
            body += sock.recv(65536)
        return int(first.split()[1]), named, body
    while left := int(named.get("content-length", 0)) - len(body):
        body += sock.recv(left)
    return int(first.split()[1]), named, body


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def ask(path, body=b"", more=""):
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{more}{length}\r\n".encode() + body


def test_one_connection_serves_many_requests_of_all_lengths(echo):
    application, _, port = echo()
    with connect(port) as sock:
        for body in (b"a", b"bb", b"c" * 70_000, b"dd", b"", b"eee"):
            [(status, named, said)] = talk(sock, ask("/a%20b?c=d", body))
            value = json.loads(said)
            assert (status, named["x-one"], value["path"], value["body"]) == (200, "1", "/a b", body.decode())
            assert value["length"] == (str(len(body)) if body else "")
            assert "connection" not in named
    assert application.seen[0]["query_string"] == b"c=d"
    assert application.seen[0]["client"][0] == application.seen[0]["server"][0] == "127.0.0.1"


def test_requests_sent_ahead_are_answered_in_their_order(echo):
    _, _, port = echo()
    bodies = [str(number).encode() * (number + 1) for number in range(40)]
    with connect(port) as sock:
        answers = talk(sock, b"".join([ask("/x", body) for body in bodies]), ends=40)
    assert [json.loads(body)["body"].encode() for *_, body in answers] == bodies


def test_a_head_that_is_known_again_hides_nothing(echo):
    _, _, port = echo()
    plain = ask("/x", b"abc")
    with connect(port) as sock:
        assert talk(sock, plain)[0][0] == 200
        # The same head with more behind it: the rest is a request of its own.
        assert [json.loads(one[2])["body"] for one in talk(sock, plain + plain, ends=2)] == ["abc", "abc"]
        # With less behind it: the rest comes later.
        sock.sendall(plain[:-1])
        time.sleep(0.05)
        assert json.loads(talk(sock, plain[-1:])[0][2])["body"] == "abc"
    for head in (
        plain.replace(b"Content-Length: 3", b"Content-Length: +3"),
        plain.replace(b"Content-Length: 3", b"Content-Length: 3\r\nContent-Length: 4"),
        plain.replace(b"Content-Length: 3", b"Content-Length: 3\r\nTransfer-Encoding: chunked"),
    ):
        for _ in range(2):
            with connect(port) as sock:
                assert talk(sock, head)[0][0] == 400


def test_bodies_in_pieces_both_ways(echo):
    _, _, port = echo()
    with connect(port) as sock:
        sock.sendall(b"POST /x HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        time.sleep(0.02)
        [(_, _, said)] = talk(sock, b"2\r\nde\r\n0\r\n\r\n")
        assert json.loads(said)["body"] == "abcde"
        [(status, _, said)] = talk(sock, ask("/pieces"))
        assert (status, said) == (200, b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n")
        sock.sendall(b"HEAD /pieces HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert sock.recv(4096).endswith(b"\r\n\r\n")
        assert sock.recv(4096) == b""
    with connect(port) as sock:
        sock.sendall(b"GET /pieces HTTP/1.0\r\n\r\n")
        received = b""
        while more := sock.recv(4096):
            received += more
        assert received.endswith(b"\r\n\r\nonetwothree")


def test_who_waits_for_leave_to_send_gets_it(echo):
    _, _, port = echo()
    with connect(port) as sock:
        sock.sendall(b"POST /x HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        assert answer(sock)[0] == 100
        assert json.loads(talk(sock, b"ok")[0][2])["body"] == "ok"


def test_old_clients_and_those_that_say_goodbye(echo):
    _, _, port = echo()
    for words, kept in (
        (b"GET /x HTTP/1.0\r\n\r\n", False),
        (b"GET /x HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", True),
        (b"GET /x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", False),
        (b"GET http://localhost/x HTTP/1.1\r\nhost: localhost\r\n\r\n", True),
    ):
        with connect(port) as sock:
            [(status, _, said)] = talk(sock, words)
            assert (status, json.loads(said)["path"]) == (200, "/x")
            assert (answer(sock) if not kept else talk(sock, words)[0][0]) == (200 if kept else None)


def test_an_application_that_fails_says_nothing_of_why(echo, caplog):
    _, _, port = echo()
    for path in ("/fails", "/fails-at-once", "/splits"):
        with connect(port) as sock:
            status, _, said = talk(sock, ask(path))[0]
            assert (status, said) == (500, b"")
            assert answer(sock) is None
    with connect(port) as sock:
        sock.sendall(ask("/fails-late"))
        received = b""
        while more := sock.recv(4096):
            received += more
        assert received.endswith(b"half")
    assert "words that nobody" not in caplog.text
    assert "LookupError" in caplog.text


def test_an_answer_before_the_request_is_complete_can_be_read(echo):
    _, _, port = echo()
    with connect(port) as sock:
        sock.sendall(b"POST /early HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3000000\r\n\r\n")
        sock.sendall(b"x" * 3_000_000)
        status, named, _ = answer(sock)
        assert (status, named["connection"]) == (413, "close")
        assert answer(sock) is None


def test_who_goes_is_noticed(echo):
    application, _, port = echo()
    with connect(port) as sock:
        sock.sendall(ask("/waits"))
    assert application.gone.wait(10)
    application.gone.clear()
    with connect(port) as sock:
        sock.sendall(b"POST /x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nabc")
        time.sleep(0.05)
    assert application.gone.wait(10)


def test_a_slow_client_holds_the_answer_back(echo):
    application, _, port = echo()
    with connect(port) as sock:
        sock.sendall(ask("/much"))
        time.sleep(0.3)
        assert application.written < 400 * 65536
        size = 0
        while size < 400 * 65536:
            size += len(sock.recv(2**20))


def test_what_was_begun_is_answered_before_the_end(echo):
    application, server, port = echo()
    with connect(port) as idle, connect(port) as sock:
        assert talk(idle, ask("/x"))[0][0] == 200
        sock.sendall(ask("/slow"))
        while not application.seen or application.seen[-1]["path"] != "/slow":
            time.sleep(0.01)
        server.should_exit = True
        assert idle.recv(10) == b""
        application.go.set()
        status, named, said = answer(sock)
        assert (status, named["connection"], said) == (200, "close", b"late")


def test_idle_connections_end(echo, monkeypatch):
    monkeypatch.setattr(protocol, "KEEP_ALIVE_SECONDS", 0.2)
    _, _, port = echo()
    with connect(port) as sock:
        assert talk(sock, ask("/x"))[0][0] == 200
        assert sock.recv(10) == b""


def test_a_call_whose_client_sends_ahead(simulate, gateway):
    sim = simulate(Answer(output_tokens=5))
    through = gateway(sim)
    body = json.dumps(CHAT).encode()
    words = f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    with connect(through.port) as sock:
        answers = talk(sock, words * 10, ends=10)
    assert {status for status, *_ in answers} == {200}
    assert len({named["x-tally-call"] for _, named, _ in answers}) == len(through.entries(10)) == len(sim.calls) == 10


def test_settings_that_change_change_what_is_known_of_a_client(simulate, gateway):
    sim = simulate()
    through = gateway(sim)
    assert [post(through.port, PATH, CHAT)[0] for _ in range(3)] == [200] * 3
    through.change(own_keys=False)
    assert post(through.port, PATH, CHAT)[0] == 401
    through.change(own_keys=True)
    assert post(through.port, PATH, CHAT)[0] == 200
    assert len(sim.calls) == 4
