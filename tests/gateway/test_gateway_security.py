"""Attacks on the gateway, one for each line of the design that protects it."""

import gzip
import json
import socket
import threading
from datetime import UTC, datetime

import openai
import pytest
from gateway_desk import post, request
from test_gateway_clients import CHAT, HELLO, STREAM

from tallystick.gateway import protocol
from tallystick.gateway.config import settings_of
from tallystick.gateway.credentials import bears
from tallystick.gateway.fence import Fence
from tallystick.gateway.paths import odd
from tallystick.gateway.station import fence_of
from tallystick.metering.budgets import put
from tallystick.metering.rules import make_budget
from tallystick.simulator import Answer

HELD = {"OPENAI_API_KEY": "sk-held-openai", "ANTHROPIC_API_KEY": "sk-held-anthropic"}
PATH = "/openai/v1/chat/completions"
TOKEN = "a-token-of-thirty-two-characters"


def raw(port, headers, path=PATH, value=CHAT):
    """A POST with exactly these headers beside its length."""
    body = json.dumps(value).encode()
    return request(port, f"POST {path} HTTP/1.1\n{headers}connection: close\ncontent-length: {len(body)}\n", body)


@pytest.mark.parametrize(
    "headers",
    [
        "host: evil.example\n",
        "host: 127.0.0.1.evil.example\n",
        "host: localhost.evil.example:{port}\n",
        "host:\n",
        "host: evil.example\nhost: 127.0.0.1:{port}\n",
        "host: 127.0.0.1:{port}\nhost: evil.example\n",
        "host: 10.0.0.1:{port}\n",
        "host: 127.0.0.1:{port}\norigin: https://evil.example\n",
        "host: 127.0.0.1:{port}\norigin: null\n",
        "host: 127.0.0.1:{port}\norigin: http://localhost:9\n",
        "host: 127.0.0.1:{port}\nsec-fetch-site: cross-site\n",
        "host: 127.0.0.1:{port}\nsec-fetch-site: same-site\n",
    ],
)
@pytest.mark.parametrize("path", [PATH, "/healthz", "/tally/v1/x"])
def test_other_sites_and_names_that_were_made_to_point_here_are_not_heard(simulate, gateway, headers, path):
    sim = simulate()
    through = gateway(sim)
    status, told, _ = raw(through.port, headers.format(port=through.port), path)
    assert status == 403
    assert sim.calls == []
    assert not [name for name in told if name.startswith("access-control")]


def test_a_page_of_the_gateways_own_is_heard(simulate, gateway):
    through = gateway(simulate())
    own = f"host: 127.0.0.1:{through.port}\norigin: http://127.0.0.1:{through.port}\nsec-fetch-site: same-origin\n"
    assert raw(through.port, own)[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/openai/v1/../v1/chat/completions",
        "/openai/v1/chat/completions/../../files",
        "/openai/v1/chat/completions/%2e%2e/moderations",
        "/openai/v1/chat/completions/.%2E/moderations",
        "/openai/v1/moderations/..%2fchat/completions",
        "/openai/v1\\..\\chat/completions",
        "/openai/v1/chat/completions%5c..",
        "/openai/v1/chat/completions%00",
        "/openai/v1/chat/completions%0d%0ax: y",
        "/openai/v1/chat%zz/completions",
        "/openai/./v1/chat/completions",
        "/openai/..",
        "/openai/v1/chat/completions?key=tly_0123456789",
    ],
)
def test_a_path_that_means_two_things_goes_nowhere(simulate, gateway, path):
    sim = simulate()
    through = gateway(sim, env=HELD)
    status, _, _ = raw(through.port, "host: localhost\n", path)
    assert status == 400
    assert sim.calls == []


def test_a_fragment_does_not_hide_a_call(simulate, gateway):
    sim = simulate()
    through = gateway(sim)
    raw(through.port, "host: localhost\n", "/openai/v1/chat/completions#/moderations")
    assert len(sim.calls) == len(through.entries())


def test_paths_that_are_plain_pass():
    plain = [
        "/v1/chat/completions",
        "/v1beta/models/m-1.5:generateContent",
        "/model/arn%3Aaws%3Ax%2Fy/converse",
        "/v1/..x/.y",
    ]
    assert [odd(path) for path in plain] == [False] * 4
    assert odd("/v1/\u00e9") is True
    assert odd("/a b") is True


def test_a_virtual_key_in_any_header_stays_here(simulate, gateway):
    sim = simulate()
    through = gateway(sim, env=HELD)
    key = through.key()
    headers = (
        f"host: localhost\nauthorization: Bearer {key}\napi-key: sk-other\nx-api-key: sk-third\nx-custom: {key}\n"
        f"cookie: tally_token=abc\nbaggage: k={key},a=b\nx-tally-secret: x\n"
    )
    assert raw(through.port, headers)[0] == 200
    [call] = sim.calls
    assert "tly_" not in repr(call)
    assert call.headers["authorization"] == "Bearer sk-held-openai"
    assert not {"api-key", "x-api-key", "x-custom", "cookie", "x-tally-secret"} & set(call.headers)


def test_two_virtual_keys_or_one_hidden_behind_another_credential(simulate, gateway):
    sim = simulate()
    through = gateway(sim, env=HELD)
    one, two = through.key(), through.key()
    assert raw(through.port, f"host: localhost\nauthorization: Bearer {one}\nx-api-key: {two}\n")[0] == 401
    assert raw(through.port, f"host: localhost\nauthorization: Bearer {one}\nauthorization: Bearer sk-own\n")[0] == 200
    assert sim.calls[0].headers["authorization"] == "Bearer sk-held-openai"
    assert len(sim.calls) == 1


def test_a_bomb_passes_and_is_not_inflated_here(simulate, gateway):
    bomb = gzip.compress(b" " * (80 * 2**20))

    sim = simulate()

    def serve(listening):
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: {len(bomb)}\r\n\r\n"
            connection.sendall(head.encode() + bomb)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        through = gateway(sim, upstreams={"openai": f"http://127.0.0.1:{listening.getsockname()[1]}/v1"})
        status, headers, body = post(through.port, PATH, CHAT)
        thread.join()
    assert (status, headers["content-encoding"], body) == (200, "gzip", bomb)
    [entry] = through.entries(1)
    assert entry.quality in ("lower_bound", "unknown")


def test_a_request_that_is_a_bomb_is_not_inflated_without_end(simulate, gateway):
    sim = simulate()
    through = gateway(sim)
    bomb = gzip.compress(b" " * (200 * 2**20))
    status, _, _ = post(through.port, PATH, bomb, "content-encoding: gzip\n")
    assert status in (200, 400)
    assert sim.calls[0].body == bomb


def test_headers_cannot_be_split(simulate, gateway):
    sim = simulate(Answer(headers={"x-tally-cost": "0", "x-tally-call": "forged", "x-note": "caf\u00e9"}))
    through = gateway(sim)
    status, headers, _ = raw(through.port, "host: localhost\nx-tally-user: a%0d%0aset-cookie: x=y\n")
    assert status == 200
    [entry] = through.entries(1)
    assert dict(entry.tags) == {}
    assert headers["x-tally-call"] == entry.call_id
    assert headers.get("x-tally-cost") != "0"
    with socket.create_connection(("127.0.0.1", through.port)) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: a\nb\r\nc: \x00\r\nconnection: close\r\n\r\n")
        assert b" 400 " in sock.recv(4096).split(b"\r\n")[0]


def test_requests_cannot_be_smuggled(simulate, gateway):
    sim = simulate()
    through = gateway(sim)
    both = "POST /openai/v1/chat/completions HTTP/1.1\nhost: localhost\ncontent-length: 4\ntransfer-encoding: chunked\n"
    status, _, _ = request(through.port, both, b"0\r\n\r\nGET /openai/v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert status == 400
    assert sim.calls == []


def test_heads_have_bounds_in_size_number_and_time(simulate, gateway, monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    through = gateway(simulate())
    assert raw(through.port, "host: localhost\n" + "".join(f"x-{n}: y\n" for n in range(300)))[0] == 431
    with socket.create_connection(("127.0.0.1", through.port)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nx: ")
        received = b""
        try:
            for _ in range(60):
                sock.sendall(b"a" * 16384)
            received = sock.recv(4096)
        except OSError:
            received = received or b"HTTP/1.1 431 "
        assert b" 431 " in received
    for begin in (b"", b"GET / HTTP/1.1\r\nho"):
        with socket.create_connection(("127.0.0.1", through.port), timeout=10) as sock:
            sock.sendall(begin)
            assert sock.recv(10) == b""


def test_a_token_stands_before_everything_where_there_is_one(simulate, gateway):
    async def room(scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode(), "more_body": False})

    sim = simulate()
    through = gateway(
        sim, env={**HELD, "TALLY_TOKEN": TOKEN}, mounts={"/tally/v1": room, "/pages": room},
        open_paths=frozenset({"/pages/enter"}),
    )  # fmt: skip
    for path in ("/tally/v1/calls", "/pages", "/nothing", PATH):
        assert raw(through.port, "host: localhost\n", path)[0] == 401
        assert raw(through.port, "host: localhost\nx-tally-token: wrong\n", path)[0] == 401
    assert raw(through.port, "host: localhost\n", "/healthz")[0] == 200
    assert raw(through.port, "host: localhost\n", "/pages/enter")[0] == 200
    for borne in (
        f"x-tally-token: {TOKEN}\n",
        f"authorization: Bearer {TOKEN}\n",
        f"cookie: a=b; tally_token={TOKEN}\n",
    ):
        status, _, body = raw(through.port, f"host: localhost\n{borne}", "/tally/v1/calls")
        assert (status, b"/tally/v1/calls" in body) == (200, True)
    # As a provider's key the token would go on to the provider: there it opens nothing.
    assert raw(through.port, f"host: localhost\nauthorization: Bearer {TOKEN}\n")[0] == 401
    assert raw(through.port, f"host: localhost\nx-tally-token: {TOKEN}\nauthorization: Bearer sk-own\n")[0] == 200
    assert raw(through.port, f"host: localhost\nauthorization: Bearer {through.key()}\n")[0] == 200
    assert TOKEN not in repr(sim.calls)
    assert raw(through.port, f"host: localhost\nx-tally-token: {TOKEN}\n", "/tally/v10")[0] == 404


def test_a_cookie_that_is_none_bears_nothing():
    assert bears(TOKEN, {"cookie": f"tally_token={TOKEN}"}) is True
    assert bears(TOKEN, {"cookie": f"tally_token\x00={TOKEN}"}) is False
    assert bears(TOKEN, {}) is False


def test_the_fence_beyond_loopback():
    from tallystick.config import Config

    config = Config(gateway={"host": "0.0.0.0", "hosts": ["tally.example.org"]})
    fence = fence_of(settings_of(config, {}))
    assert fence.refuses({"host": "192.0.2.7:4100"}) is None
    assert fence.refuses({"host": "tally.example.org"}) is None
    assert fence.refuses({"host": "[2001:db8::1]:4100"}) is None
    assert fence.refuses({"host": "other.example.org"}) is not None
    assert Fence().refuses({"host": "192.0.2.7"}) is not None
    assert Fence().refuses({"host": "localhost", "origin": "http://[bad"}) is not None


@pytest.fixture
def limited(simulate, gateway):
    def start(limit, answer=None, **options):
        sim = simulate(answer or Answer(output_tokens=20))
        through = gateway(sim, **options)
        put(through.ledger, make_budget("team-a", {"limit": limit, "scope": {"team": "a"}}), datetime.now(UTC))
        through.station.admission.refresh()
        return sim, through

    return start


def test_a_spent_budget_refuses_in_the_providers_shape(limited):
    sim, through = limited("$0.0001/day")
    with (
        openai.OpenAI(base_url=through.openai, api_key="x", default_headers={"x-tally-team": "a"}) as client,
        pytest.raises(openai.RateLimitError) as caught,
    ):
        client.chat.completions.create(model="gpt-4o", messages=HELLO, max_tokens=1000)
    assert "Budget team-a" in str(caught.value)
    assert caught.value.response.headers["x-tally-refused"] == "budget_exceeded"
    [entry] = through.entries(1)
    assert (entry.status, entry.call_id) == ("refused", caught.value.response.headers["x-tally-call"])
    assert sim.calls == []


def test_headers_tell_what_is_left_and_what_was_lowered(limited):
    sim, through = limited("$0.01/day")
    status, headers, _ = post(through.port, PATH, {**CHAT, "max_tokens": 5000}, "x-tally-team: a\n")
    assert status == 200
    assert int(headers["x-tally-capped"]) == json.loads(sim.calls[0].body)["max_tokens"] < 5000
    assert headers["x-tally-budget-remaining"].startswith("$0.0")


def test_a_stream_that_grows_out_of_its_budget_is_ended(limited):
    _, through = limited("$0.002/day", Answer(output_tokens=3000))
    status, _, body = post(through.port, PATH, STREAM, "x-tally-team: a\n")
    assert status == 200
    assert b"[DONE]" in body
    [entry] = through.entries(1)
    assert entry.amount.pico <= 2_000_000_000


def test_urls_keys_and_texts_are_in_no_entry(simulate, gateway):
    through = gateway(simulate(), env=HELD)
    post(through.port, f"{PATH}?api-version=SECRETQUERY", CHAT, "authorization: Bearer sk-SECRETKEY\n")
    [entry] = through.entries(1)
    assert "SECRET" not in json.dumps(entry.to_json())


def test_an_idle_connection_that_talks_slowly_in_its_body_is_dropped(simulate, gateway, monkeypatch):
    from tallystick.gateway import body

    monkeypatch.setattr(body, "SILENCE_SECONDS", 0.2)
    sim = simulate()
    through = gateway(sim)
    with socket.create_connection(("127.0.0.1", through.port), timeout=10) as sock:
        sock.sendall(b"POST /openai/v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
        assert b"200" not in sock.recv(4096)[:20]
    assert sim.calls == []
