"""The door to providers: directly and by a proxy, with TLS and with connections that end when they please."""

import asyncio
import contextlib
import socket
import ssl
import subprocess
import threading

import pytest
from gateway_desk import post, request

from tallystick.errors import ConfigError
from tallystick.gateway.direct import DirectSender
from tallystick.gateway.providers import ProviderSender
from tallystick.gateway.sending import ConnectError, UpstreamFault
from tallystick.simulator import Answer

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}


@contextlib.contextmanager
def serving(*scripts, context=None):
    """Answers one connection after the other: each script is what is said to the requests of one connection."""
    seen = []

    def work():
        for script in scripts:
            connection, _ = listening.accept()
            if context is not None:
                try:
                    connection = context.wrap_socket(connection, server_side=True)
                except OSError:
                    connection.close()
                    continue
            with connection, contextlib.suppress(OSError):
                for words in script:
                    received = connection.recv(65536)
                    if not received:
                        break
                    seen.append(received)
                    connection.sendall(words)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=work)
        thread.start()
        yield f"http{'s' if context else ''}://127.0.0.1:{listening.getsockname()[1]}", seen
        thread.join(10)


async def whole(sender, url, method="POST", headers=(), body=b"{}"):
    answer = await sender.send(method, url, headers, body)
    try:
        parts = []
        while (chunk := await answer.read()) is not None:
            parts.append(chunk)
        return answer.status, dict(answer.headers), b"".join(parts)
    finally:
        await answer.aclose()


def ask(url, times=1, *, ca=None, read=5.0, **options):
    async def work():
        async with ProviderSender(ca=ca, read=read, connect=5.0) as sender:
            return [await whole(sender, url, **options) for _ in range(times)]

    return asyncio.run(work())


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def test_a_connection_is_taken_again():
    with serving([OK, OK]) as (url, seen):
        assert [body for *_, body in ask(f"{url}/a?b=c", 2, headers=[(b"x-one", b"1")])] == [b"ok", b"ok"]
    assert seen[0] == seen[1]
    host = url.removeprefix("http://").encode()
    assert seen[0] == b"POST /a?b=c HTTP/1.1\r\nhost: " + host + b"\r\nx-one: 1\r\ncontent-length: 2\r\n\r\n{}"


def test_forms_of_answers():
    close = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
    with serving([close], [close]) as (url, _):
        assert len(ask(url, 2)) == 2
    with serving([b"HTTP/1.1 200 OK\r\n\r\nuntil the end"]) as (url, _):
        assert ask(url)[0][2] == b"until the end"
    with serving([b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK]) as (url, _):
        assert ask(url) == [(200, {b"content-length": b"2"}, b"ok")]
    with serving([b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n"]) as (url, _):
        assert ask(url, method="HEAD", body=b"")[0][2] == b""
    with serving([b"HTTP/1.1 204 No Content\r\n\r\n", OK]) as (url, seen):
        assert [status for status, *_ in ask(url, 2, method="GET", body=b"")] == [204, 200]
    assert b"content-length" not in seen[0]
    with serving([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"]) as (url, _):
        assert ask(url)[0][2] == b"abc"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok", "broke off"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nok", "broke off"),
        (b"HTTP/1.1 200", "broke off"),
        (b"SSH-2.0-OpenSSH\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "no HTTP"),
    ],
)
def test_answers_that_are_none(words, says):
    with serving([words]) as (url, _), pytest.raises(UpstreamFault, match=says):
        ask(url)


def test_words_that_nobody_asked_for_end_the_connection():
    with serving([OK + OK], [OK]) as (url, seen):
        assert [body for *_, body in ask(url, 2)] == [b"ok", b"ok"]
    assert len(seen) == 2


def test_silence_has_a_bound():
    with serving([b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", b""]) as (url, _):
        with pytest.raises(UpstreamFault) as caught:
            ask(url, read=0.2)
        assert caught.value.timed_out


def test_no_way_to_the_provider():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ConnectError, match="could not be reached"):
        ask(f"http://127.0.0.1:{port}/")
    with pytest.raises(ConnectError):
        ask("http://no-such-host.invalid/")


def test_a_slow_reader_holds_the_provider_back():
    async def work(url):
        sender = DirectSender(ssl.create_default_context(), connect=5, read=5)
        answer = await sender.send("POST", url, (), b"{}")
        await asyncio.sleep(0.2)
        held = answer.ahead
        size = 0
        while (chunk := await answer.read()) is not None:
            size += len(chunk)
        await answer.aclose()
        await sender.aclose()
        return held, size

    many = 32 * 2**20
    with serving([b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % many + b"x" * many]) as (url, _):
        held, size = asyncio.run(work(url))
    assert size == many
    assert 0 < held < 2**20


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


def test_tls_with_a_certificate_of_ones_own(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    ca = (certificate / "cert.pem").read_bytes()
    with serving([OK, OK], context=context) as (url, seen):
        assert [body for *_, body in ask(url, 2, ca=ca)] == [b"ok", b"ok"]
    assert len(seen) == 2
    with serving([OK], context=context) as (url, _), pytest.raises(ConnectError, match="not trusted"):
        ask(url)
    with pytest.raises(ConfigError):
        ProviderSender(ca=b"-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")


def test_the_proxy_of_the_environment(monkeypatch, simulate, gateway):
    with serving([OK]) as (proxy, seen):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("http_proxy", proxy)
        assert ask("http://api.provider.invalid/v1/x")[0][2] == b"ok"
    assert seen[0].startswith(b"POST http://api.provider.invalid/v1/x HTTP/1.1\r\n")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving([OK]) as (url, _):
        assert ask(url)[0][2] == b"ok"


def test_the_gateway_behind_a_proxy_relays_streams(monkeypatch, simulate, gateway):
    sim = simulate(Answer(output_tokens=30))

    def pipe(listening):
        client, _ = listening.accept()
        with client, socket.create_connection(("127.0.0.1", sim.port)) as server:
            client.settimeout(5)
            server.sendall(client.recv(65536).replace(b"http://provider.invalid", b"", 1))
            server.settimeout(10)
            data = b""
            while not data.endswith(b"0\r\n\r\n"):
                data = server.recv(65536)
                client.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=pipe, args=(listening,))
        thread.start()
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{listening.getsockname()[1]}")
        through = gateway(sim, upstreams={"openai": "http://provider.invalid/v1"})
        status, _, body = post(through.port, "/openai/v1/chat/completions", {**CHAT, "stream": True})
        thread.join(10)
    assert status == 200
    assert b"[DONE]" in body
    [entry] = through.entries(1)
    assert (entry.usage, entry.quality) == (sim.calls[0].usage, "exact")


def test_a_head_request_passes(simulate, gateway):
    sim = simulate()
    through = gateway(sim)
    status, _, body = request(through.port, "HEAD /openai/v1/models HTTP/1.1\nhost: localhost\nconnection: close\n")
    assert (status, body) == (sim.calls[0].status, b"")
