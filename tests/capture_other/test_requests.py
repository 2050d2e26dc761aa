"""requests and urllib3: the caller's view is the same with and without, and the ledger says what was served."""

import gc
import http.server
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
import requests
import urllib3
from other_calls import CHAT, CLAUDE, STREAM, TEXT, entries, used
from requests.adapters import HTTPAdapter

import tallystick
from tallystick import instrument, run, track
from tallystick.simulator import Answer


@pytest.fixture
def session(ledger):
    with requests.Session() as made:
        yield track(made, ledger=ledger, provider="openai", user="ada")


def by_content(response):
    return [response.content]


def by_pieces(response):
    return list(response.iter_content(7))


def by_lines(response):
    return list(response.iter_lines())


def by_reading(response):
    pieces = []
    while piece := response.raw.read(11, decode_content=True):
        pieces.append(piece)
    return pieces


def by_reading_at_once(response):
    return [response.raw.read()]


def by_read1(response):
    pieces = []
    while piece := response.raw.read1():
        pieces.append(piece)
    return [b"".join(pieces)]


def by_streaming(response):
    return list(response.raw.stream(64, decode_content=True))


WAYS = [by_content, by_pieces, by_lines, by_reading, by_reading_at_once, by_read1, by_streaming]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("encoding", [None, "gzip"])
@pytest.mark.parametrize("stream", [False, True])
def test_every_way_to_read_gives_the_same(twins, ledger, session, way, encoding, stream):
    answer = Answer(text=TEXT, encoding=encoding, reasoning_tokens=5)
    seen = []
    with requests.Session() as bare:
        for sim, client in zip(twins(answer), (bare, session), strict=True):
            with client.post(f"{sim.anthropic_url}/v1/messages", json={**CLAUDE, "stream": stream}, stream=True) as r:
                seen.append((r.status_code, r.raw.headers.get("content-encoding"), way(r), type(r.raw).__name__))
    assert seen[0] == seen[1]
    (entry,) = entries(ledger)
    assert dict(entry.usage) == used(sim.calls[0])
    assert (entry.quality, entry.status, entry.tags["user"]) == ("exact", "ok", "ada")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("encoding", [None, "gzip"])
def test_the_usage_asked_for_on_the_callers_behalf_leaves_no_trace(twins, ledger, session, way, encoding):
    seen = []
    with requests.Session() as bare:
        for sim, client in zip(twins(Answer(text=TEXT, encoding=encoding)), (bare, session), strict=True):
            with client.post(f"{sim.openai_url}/chat/completions", json=STREAM, stream=True) as response:
                pieces = way(response)
                seen.append((b"\n" if way is by_lines else b"").join(pieces))
    if encoding is None or way not in (by_reading_at_once, by_read1):
        assert seen[0] == seen[1]
    (entry,) = entries(ledger)
    assert dict(entry.usage) == used(sim.calls[0])
    assert b'"include_usage":true' in sim.calls[0].body
    assert entry.quality == "exact"


def test_an_answer_that_is_not_read_on_counts_what_was_delivered(simulate, ledger, session):
    sim = simulate(Answer(text=TEXT, chunk_ms=20, chunk_tokens=2))
    response = session.post(f"{sim.openai_url}/chat/completions", json=STREAM, stream=True)
    lines = response.iter_lines(chunk_size=1)
    assert b"Streams" in b"".join(next(lines) for _ in range(5))
    response.close()
    (entry,) = entries(ledger)
    assert (entry.status, entry.quality) == ("cancelled", "lower_bound")
    assert sim.wait(1)[0].abandoned


def test_an_answer_that_is_forgotten_is_settled(simulate, ledger, session):
    sim = simulate(Answer(text=TEXT, chunk_ms=20, chunk_tokens=2))
    response = session.post(f"{sim.openai_url}/chat/completions", json=STREAM, stream=True)
    response.raw.read(2000)
    del response
    gc.collect()
    assert sim.wait(1)[0].abandoned
    (entry,) = entries(ledger)
    assert entry.status == "cancelled"


@pytest.mark.parametrize(
    ("path", "body", "inside"),
    [("/v1/messages", CLAUDE, False), ("/v1/messages", CLAUDE, True), ("/v1/chat/completions", STREAM, False)],
)
def test_a_broken_connection_is_the_same_exception(twins, ledger, session, path, body, inside):
    answer = Answer(text=TEXT, chunk_tokens=2, cut_after=6, cut_inside=inside)
    seen = []
    with requests.Session() as bare:
        for sim, client in zip(twins(answer), (bare, session), strict=True):
            response = client.post(sim.url + path, json=body, stream=True)
            got = []
            with pytest.raises(requests.exceptions.ChunkedEncodingError) as caught:
                got.extend(response.iter_content(None))
            response.close()
            seen.append((b"".join(got), str(caught.value), [type(e) for e in caught.value.args]))
    assert seen[0] == seen[1]
    assert seen[0][0]
    (entry,) = entries(ledger)
    assert (entry.status, entry.quality) == ("error", "lower_bound")


def test_nobody_there_is_the_same_exception(ledger, session):
    seen = []
    with requests.Session() as bare:
        for client in (bare, session):
            with pytest.raises(requests.exceptions.ConnectionError) as caught:
                client.post("http://127.0.0.1:9/v1/chat/completions", json=CHAT)
            seen.append(type(caught.value.args[0].reason))
    assert seen[0] is seen[1]
    (entry,) = entries(ledger)
    assert (entry.status, entry.cost.amount.pico) == ("error", 0)


def test_each_attempt_of_the_library_is_a_call(simulate, ledger):
    sim = simulate(Answer(text="at last", status=503, failures=2))
    retries = urllib3.Retry(total=3, status_forcelist=[503], allowed_methods=None, backoff_factor=0)
    with requests.Session() as made:
        track(made, ledger=ledger)
        made.mount("http://", HTTPAdapter(max_retries=retries))
        answer = made.post(f"{sim.openai_url}/chat/completions", json=CHAT)
    assert answer.json()["choices"][0]["message"]["content"] == "at last"
    assert [(entry.http_status, entry.status) for entry in entries(ledger)] == [
        (503, "error"), (503, "error"), (200, "ok"),
    ]  # fmt: skip


@contextmanager
def redirecting(target):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(307)
            self.send_header("location", target)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/chat/completions"
        finally:
            server.shutdown()
            thread.join()


def test_a_redirect_is_a_call_without_cost(simulate, ledger, session):
    sim = simulate(Answer(text="there"))
    with redirecting(f"{sim.openai_url}/chat/completions") as url:
        answer = session.post(url, json=CHAT)
    assert answer.json()["choices"][0]["message"]["content"] == "there"
    found = entries(ledger)
    assert [entry.http_status for entry in found] == [307, 200]
    assert dict(found[1].usage) == used(sim.calls[0])


def test_a_refusal_is_an_answer_of_the_provider_and_nothing_is_sent(simulate, ledger, session):
    sim = simulate()
    with run("small", max_cost="$0.000001") as task:
        for _ in range(12):
            response = session.post(f"{sim.openai_url}/chat/completions", json=CHAT)
            assert response.status_code == 429
            assert response.json()["error"]["type"] == "insufficient_quota"
            assert response.headers["x-should-retry"] == "false"
    assert not sim.calls
    assert task.refused == 12
    assert session.post(f"{sim.openai_url}/chat/completions", json=CHAT).ok
    assert [entry.status for entry in entries(ledger)] == ["refused"] * 12 + ["ok"]


@pytest.mark.parametrize("way", [by_content, by_pieces, by_reading])
def test_a_stream_that_reaches_its_limit_ends_as_if_its_length_were(simulate, ledger, way):
    sim = simulate(Answer(text="word " * 2000, chunk_tokens=1, chunk_ms=1))
    with requests.Session() as made:
        track(made, ledger=ledger, provider="openai", max_cost="$0.0005")
        with made.post(
            f"{sim.openai_url}/chat/completions", json={**STREAM, "max_tokens": 3000}, stream=True
        ) as answer:
            body = b"".join(way(answer))
        sim.play(Answer(text="the connection was not used again"))
        assert made.post(f"{sim.openai_url}/chat/completions", json={**CHAT, "max_tokens": 30}).ok
    assert body.endswith(b"data: [DONE]\n\n")
    assert b'"finish_reason":"length"' in body
    assert [entry.status for entry in entries(ledger)] == ["cut", "ok"]
    assert sim.wait(1)[0].abandoned


def test_what_is_no_call_passes_untouched(simulate, ledger, session):
    sim = simulate()
    assert session.get(f"{sim.openai_url}/models").status_code in (200, 404)
    assert entries(ledger) == []


def test_instrument_reaches_pools_that_exist_and_is_undone(simulate, ledger):
    sim = simulate(Answer(text=TEXT))
    url = f"{sim.openai_url}/chat/completions"
    before = urllib3.HTTPConnectionPool._make_request
    with ExitStack() as stack:
        pools = stack.enter_context(urllib3.PoolManager())
        stack.callback(pools.clear)
        with instrument(ledger=ledger):
            read = pools.request("POST", url, json=CHAT)
            held = pools.request("POST", url, json=STREAM, preload_content=False)
            held.read()
            held.release_conn()
            with requests.Session() as tracked:
                track(tracked, ledger=ledger, user="ada").post(url, json=CHAT)
        assert pools.request("POST", url, json=CHAT).status == 200
    assert read.json()["choices"][0]["message"]["content"] == TEXT
    assert urllib3.HTTPConnectionPool._make_request is before
    found = entries(ledger)
    assert [entry.tags.get("user") for entry in found] == [None, None, "ada"]
    assert [dict(entry.usage) for entry in found] == [used(call) for call in sim.calls[:3]]


def test_a_pool_and_a_manager_can_be_tracked(simulate, ledger):
    sim = simulate(Answer(text="yes"))
    with urllib3.HTTPConnectionPool("127.0.0.1", sim.port) as pool:
        track(pool, ledger=ledger, provider="openai")
        assert pool.request("POST", "/v1/chat/completions", json=CHAT).status == 200
    with urllib3.PoolManager() as manager:
        manager.request("GET", sim.url)
        track(manager, ledger=ledger)
        track(manager, ledger=ledger)
        assert manager.request("POST", f"{sim.openai_url}/chat/completions", json=CHAT).status == 200
    assert [entry.status for entry in entries(ledger)] == ["ok", "ok"]


def test_a_hundred_threads_keep_their_tags_apart(simulate, ledger, session):
    sim = simulate()
    url = f"{sim.openai_url}/chat/completions"
    session.mount("http://", HTTPAdapter(pool_maxsize=100))

    def one(number):
        body = {**STREAM, "messages": [{"role": "user", "content": f"number {number}"}]}
        with run(f"agent {number}"), session.post(url, json=body, stream=True) as response:
            return b"".join(response.iter_content(None))

    with ThreadPoolExecutor(25) as pool:
        bodies = list(pool.map(one, range(100)))
    assert all(body.endswith(b"data: [DONE]\n\n") for body in bodies)
    found = entries(ledger)
    assert sorted(entry.tags["agent"] for entry in found) == sorted(f"agent {number}" for number in range(100))
    assert {entry.tags["user"] for entry in found} == {"ada"}
    assert all(entry.run_id.startswith(f"{entry.tags['agent']}-") for entry in found)
    served = {call.response_id: used(call) for call in sim.calls}
    assert {entry.provider_response_id.removeprefix("chatcmpl-"): dict(entry.usage) for entry in found} == served


def test_a_ledger_that_takes_nothing_changes_nothing_for_the_caller(twins, ledger, session, caplog):
    ledger.close()
    seen = []
    with requests.Session() as bare:
        for sim, client in zip(twins(Answer(text=TEXT)), (bare, session), strict=True):
            with client.post(f"{sim.openai_url}/chat/completions", json=STREAM, stream=True) as response:
                seen.append(list(response.iter_content(31)))
    assert b"".join(seen[0]) == b"".join(seen[1])
    assert "takes no entries" in caplog.text or "metering failed" in caplog.text


def test_a_body_of_text_or_of_unknown_length_is_sent_as_it_is(simulate, ledger, session):
    sim = simulate(Answer(text="yes"))
    url = f"{sim.openai_url}/chat/completions"
    body = json.dumps(STREAM)
    session.post(url, data=body)
    session.post(url, data=iter([body[:20].encode(), body[20:].encode()]))
    assert json.loads(sim.calls[0].body) == {**STREAM, "stream_options": {"include_usage": True}}
    assert sim.calls[1].body == body.encode()
    assert [entry.requested_model for entry in entries(ledger)] == ["gpt-4o", None]


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["plain", "stream"])
def test_a_call_is_in_the_file_before_its_last_bytes_are_handed_over(simulate, tmp_path, body):
    sim = simulate(Answer(text="now"))
    place = tmp_path / "ledger.db"
    found = None
    with tallystick.open(place) as ledger, requests.Session() as session:
        track(session, ledger=ledger)
        with session.post(f"{sim.openai_url}/chat/completions", json=body, stream=True) as response:
            for piece in response.iter_content(None):
                if found is None and (b"[DONE]" in piece or body is CHAT):
                    with tallystick.open(place, read_only=True) as other:
                        found = entries(other)
    (entry,) = found
    assert (entry.status, dict(entry.usage)) == ("ok", used(sim.calls[0]))
