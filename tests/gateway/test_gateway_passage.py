"""Calls that are relayed without a task: the second of each kind on a connection, as the first has opened the way."""

import contextlib
import json
import socket
import threading
import time

import pytest
from gateway_desk import NAMES, started
from test_gateway_clients import CHAT, STREAM
from test_gateway_server import PATH, answer, connect, talk

from tallystick.gateway import relay, server
from tallystick.ledger.memory import MemoryLedger
from tallystick.ledger.sqlite import SqliteLedger
from tallystick.simulator import Answer


@pytest.fixture(autouse=True)
def passages(monkeypatch):
    """How many calls went without a task."""
    made = []

    class Counted(relay.Passage):
        def __init__(self, *parts):
            made.append(self)
            super().__init__(*parts)

    monkeypatch.setattr(relay, "Passage", Counted)
    return made


def words(value=CHAT, more=""):
    body = json.dumps(value).encode()
    return f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\n{more}content-length: {len(body)}\r\n\r\n".encode() + body


def everything(sock):
    """All that comes until the other side closes."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while more := sock.recv(65536):
            received += more
    return received


@contextlib.contextmanager
def provider(*says):
    """A provider with one connection: an answer to each request, and the end after the last."""

    def work():
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            for say in says:
                connection.recv(2**20)
                connection.sendall(say)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=work)
        thread.start()
        yield {"openai": f"http://127.0.0.1:{listening.getsockname()[1]}/v1"}
        thread.join(10)


BODY = b'{"id":"x","model":"gpt-4o","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}'
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY


def test_all_but_the_first_go_without_a_task(simulate, gateway, passages):
    sim = simulate(Answer(output_tokens=5, ids="same"))
    through = gateway(sim)
    with connect(through.port) as sock:
        answers = [talk(sock, words())[0] for _ in range(4)] + talk(sock, words() * 4, ends=4)
        streams = [talk(sock, words(STREAM))[0] for _ in range(3)]
    # Those that are sent ahead are read by the parser, as the first is.
    assert len(passages) == 6
    assert {status for status, *_ in answers} == {200}
    assert {named["x-tally-cost"] for _, named, _ in answers} == {str(through.entries(8)[0].amount.plain())}
    assert {body for *_, body in answers} == {sim.calls[0].response}
    assert len({body for *_, body in streams}) == 1
    assert b"usage" not in streams[0][2]
    assert streams[0][2].endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    entries = through.entries(11)
    assert len({entry.call_id for entry in entries}) == 11
    assert [entry.usage for entry in entries] == [call.usage for call in sim.calls]
    assert {entry.quality for entry in entries} == {"exact"}


def test_the_entry_is_there_before_the_answer(simulate, tmp_path, passages):
    sim = simulate(Answer(output_tokens=5))
    upstreams = {name: getattr(sim, attribute) for name, attribute in NAMES.items()}
    # Without a place for calls in flight everybody waits for the ledger itself.
    with started(SqliteLedger(tmp_path / "ledger.db"), upstreams) as through, connect(through.port) as sock:
        for value in (CHAT, STREAM) * 5:
            status, named, said = talk(sock, words(value))[0]
            assert status == 200
            [entry] = [one for one in through.ledger.read() if one.call_id == named["x-tally-call"]]
            assert (entry.usage, entry.quality) == (sim.calls[-1].usage, "exact")
            assert value is CHAT or said.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert len(passages) == 9


def test_a_client_that_leaves_while_it_waits(simulate, gateway, passages):
    sim = simulate([Answer(), Answer(output_tokens=7, first_byte_ms=200)])
    through = gateway(sim)
    with connect(through.port) as sock:
        talk(sock, words())
        sock.sendall(words())
        sim.wait(1)
        time.sleep(0.05)
    entry = max(through.entries(2), key=lambda entry: entry.started_at)
    assert len(passages) == 1
    assert (entry.usage, entry.quality) == (sim.wait(2)[1].usage, "exact")


def test_a_client_that_leaves_in_a_stream(simulate, gateway, passages):
    sim = simulate([Answer(), Answer(output_tokens=60, chunk_ms=5)])
    through = gateway(sim)
    with connect(through.port) as sock:
        talk(sock, words())
        sock.sendall(words(STREAM))
        assert b"200 OK" in sock.recv(4096)
    entry = max(through.entries(2), key=lambda entry: entry.started_at)
    assert len(passages) == 1
    assert (entry.usage, entry.quality) == (sim.wait(2)[1].usage, "exact")


@pytest.mark.parametrize("where", [0, 40, -5])
@pytest.mark.parametrize("value", [CHAT, STREAM], ids=["whole", "stream"])
def test_an_answer_that_breaks_off(gateway, simulate, passages, where, value):
    says = WHOLE if value is CHAT else WHOLE.replace(b"application/json", b"text/event-stream")
    with provider(WHOLE, says[:where]) as upstreams:
        through = gateway(simulate(), upstreams=upstreams)
        with connect(through.port) as sock:
            talk(sock, words())
            sock.sendall(words(value))
            if where >= 0:
                assert answer(sock)[0] == 502
            else:
                assert everything(sock).startswith(b"HTTP/1.1 200 OK\r\n")
    assert len(passages) == 1
    entries = sorted(through.entries(2), key=lambda entry: entry.started_at)
    assert [entry.status for entry in entries] == ["ok", "error"]


def test_a_provider_that_falls_silent(simulate, gateway, passages):
    sim = simulate([Answer(), Answer(first_byte_ms=3000)])
    through = gateway(sim, gateway={"read_timeout": 0.2})
    with connect(through.port) as sock:
        talk(sock, words())
        assert talk(sock, words())[0][0] == 504
    assert len(passages) == 1


@pytest.mark.parametrize("size", [70_000, 300_000, 5_000_000])
def test_a_long_answer(gateway, simulate, passages, size):
    body = BODY[:-1] + b',"more":"' + b"x" * size + b'"}'
    long = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    with provider(WHOLE, long, WHOLE) as upstreams:
        through = gateway(simulate(), upstreams=upstreams)
        with connect(through.port) as sock:
            answers = [talk(sock, words())[0] for _ in range(3)]
    assert [said for *_, said in answers] == [BODY, body, BODY]
    assert len(passages) == 2
    assert {entry.usage["output"] for entry in through.entries(3)} == {2}


def test_a_slow_client_holds_a_stream_back(simulate, gateway, passages):
    sim = simulate([Answer(), Answer(output_tokens=20000)])
    through = gateway(sim)
    received, last = 0, b""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", through.port))
        talk(sock, words())
        sock.sendall(words(STREAM))
        time.sleep(0.2)
        assert len(through.entries()) == 1
        while not last.endswith(b"0\r\n\r\n"):
            chunk = sock.recv(65536)
            received += len(chunk)
            last = (last + chunk)[-100:]
    assert received > len(sim.calls[1].text)
    assert len(passages) == 1
    assert through.entries(2)[1].usage == sim.calls[1].usage


def test_a_budget_refuses(simulate, gateway):
    sim = simulate(Answer(output_tokens=5))
    through = gateway(sim, budgets={"all": {"limit": "$0.001", "default_max_output": 10}})
    with connect(through.port) as sock:
        answers = [talk(sock, words({**CHAT, "max_tokens": 10}))[0] for _ in range(12)]
    statuses = [status for status, *_ in answers]
    assert statuses[0] == 200
    assert statuses[-1] == 429
    assert len(sim.calls) == statuses.count(200)
    assert "x-tally-call" in answers[-1][1]


def test_a_body_beyond_the_limit(simulate, gateway):
    sim = simulate(Answer(output_tokens=5))
    through = gateway(sim, gateway={"max_body": 1024})
    with connect(through.port) as sock:
        assert talk(sock, words())[0][0] == 200
        assert talk(sock, words({**CHAT, "user": "x" * 1024}))[0][0] == 413
    assert len(sim.calls) == 1


def test_who_is_told_to_end_cuts_what_takes_too_long(simulate, monkeypatch, passages):
    monkeypatch.setattr(server, "DRAIN_SECONDS", 0.2)
    sim = simulate([Answer(), Answer(first_byte_ms=1500)])
    ledger = MemoryLedger()
    upstreams = {name: getattr(sim, attribute) for name, attribute in NAMES.items()}
    entered = []
    settle = ledger.submit
    monkeypatch.setattr(ledger, "submit", lambda items, **more: (entered.extend(items), settle(items, **more))[1])
    with contextlib.ExitStack() as stays, started(ledger, upstreams) as through:
        sock = stays.enter_context(connect(through.port))
        talk(sock, words())
        sock.sendall(words())
        while not passages:
            time.sleep(0.01)
    assert [entry.status for entry in entered] == ["ok", "cancelled"]


def test_a_fault_of_ours_ends_the_connection(simulate, gateway, monkeypatch, caplog):
    sim = simulate(Answer(output_tokens=5))
    through = gateway(sim)

    def fails(*_):
        raise LookupError("words that nobody should see")

    with connect(through.port) as sock:
        talk(sock, words())
        monkeypatch.setattr(relay.Passage, "_reply", fails)
        assert talk(sock, words())[0][0] == 500
        assert sock.recv(10) == b""
    assert "words that nobody" not in caplog.text
    assert "LookupError" in caplog.text
    assert {entry.status for entry in through.entries(2)} == {"ok", "cancelled"}
