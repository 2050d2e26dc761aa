"""TLS to providers: long bodies both ways, ends of all kinds, and what is no TLS."""

import asyncio
import contextlib
import socket
import ssl
import threading

import pytest
from test_gateway_sending import OK, ask, certificate

from tallystick.gateway.providers import ProviderSender
from tallystick.gateway.sending import ConnectError, UpstreamFault

__all__ = ["certificate"]

MANY = 3 * 2**20 + 7


@contextlib.contextmanager
def provider(certificate, work, connections=1, version=None):
    """Does `work` with each of so many connections that have agreed on TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    if version is not None:
        context.maximum_version = version

    def serve():
        for _ in range(connections):
            plain, _ = listening.accept()
            with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as safe:
                work(safe)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{listening.getsockname()[1]}", (certificate / "cert.pem").read_bytes()
        thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_long_bodies_pass_both_ways(certificate, version):
    size = []

    def work(safe):
        for _ in range(2):
            received = b""
            while not received.endswith(b"end"):
                received += safe.recv(2**20)
            size.append(len(received))
            safe.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % MANY)
            for _ in range(7):
                safe.sendall(b"y" * (MANY // 7))
            safe.sendall(b"z" * (MANY % 7))

    with provider(certificate, work, version=version) as (url, ca):
        answers = ask(url, 2, ca=ca, body=b"x" * MANY + b"end")
    assert [len(body) for *_, body in answers] == [MANY, MANY]
    assert {body[-(MANY % 7) :] for *_, body in answers} == {b"z" * (MANY % 7)}
    assert min(size) > MANY


def test_a_reader_that_is_slow(certificate):
    def work(safe):
        safe.recv(65536)
        safe.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % MANY + b"x" * MANY)

    async def read(url, ca):
        async with ProviderSender(ca=ca, read=5, connect=5) as sender:
            answer = await sender.send("POST", url, (), b"{}")
            await asyncio.sleep(0.3)
            held, size = answer.ahead, 0
            while (chunk := await answer.read()) is not None:
                size += len(chunk)
            return held, size

    with provider(certificate, work) as (url, ca):
        held, size = asyncio.run(read(url, ca))
    assert size == MANY
    assert 0 < held < 2**20


def test_small_records_arrive_as_they_come(certificate):
    parts = [b"a" * number for number in range(1, 60)]

    def work(safe):
        safe.recv(65536)
        safe.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for part in parts:
            safe.sendall(b"%x\r\n%b\r\n" % (len(part), part))
        safe.sendall(b"0\r\n\r\n")

    with provider(certificate, work) as (url, ca):
        assert ask(url, ca=ca)[0][2] == b"".join(parts)


@pytest.mark.parametrize("polite", [True, False])
def test_ends_of_an_answer_without_a_length(certificate, polite):
    def work(safe):
        safe.recv(65536)
        safe.sendall(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
        if polite:
            safe.unwrap()

    with provider(certificate, work) as (url, ca):
        assert ask(url, ca=ca)[0][2] == b"until the end"


@pytest.mark.parametrize("polite", [True, False])
def test_a_connection_that_was_ended_is_not_taken_again(certificate, polite):
    def work(safe):
        safe.recv(65536)
        safe.sendall(OK)
        if polite:
            safe.unwrap()

    async def twice(url, ca):
        async with ProviderSender(ca=ca, read=5, connect=5) as sender:
            for _ in range(2):
                answer = await sender.send("POST", url, (), b"{}")
                assert await answer.read() == b"ok"
                await asyncio.sleep(0.1)

    with provider(certificate, work, connections=2) as (url, ca):
        asyncio.run(twice(url, ca))


def test_bytes_that_were_changed_on_their_way_break_the_answer(certificate):
    def work(safe):
        safe.recv(65536)
        safe.sendall(b"HTTP/1.1 200 OK\r\n\r\nnot all")
        # Behind the back of TLS: a record that nobody has sealed.
        with socket.socket(fileno=safe.detach()) as bare:
            bare.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
            bare.recv(1)

    with provider(certificate, work) as (url, ca), pytest.raises(UpstreamFault, match="broke off"):
        ask(url, ca=ca)


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_who_speaks_no_tls_is_not_reached(certificate, says):
    def work():
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(says)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=work)
        thread.start()
        with pytest.raises(ConnectError, match="could not be reached"):
            ask(f"https://127.0.0.1:{listening.getsockname()[1]}", ca=(certificate / "cert.pem").read_bytes())
        thread.join(10)


def test_who_never_answers_our_hello_is_given_up(certificate):
    async def work(url):
        ca = (certificate / "cert.pem").read_bytes()
        async with ProviderSender(ca=ca, read=5, connect=0.2) as sender:
            with pytest.raises(ConnectError) as caught:
                await sender.send("POST", url, (), b"{}")
        return caught.value.timed_out

    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert asyncio.run(work(f"https://127.0.0.1:{listening.getsockname()[1]}"))


def test_another_name_is_not_trusted(certificate):
    with provider(certificate, lambda safe: None) as (url, ca), pytest.raises(ConnectError, match="not trusted"):
        ask(url.replace("127.0.0.1", "localhost"), ca=ca)
