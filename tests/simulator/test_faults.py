"""What goes wrong when the script says so, as real SDKs and plain sockets see it."""

import gzip
import http.client
import json
import socket
import threading

import anthropic
import brotli
import msgspec
import openai
import pytest
from botocore.exceptions import ClientError, EventStreamError
from google import genai
from google.genai import errors as genai_errors
from simulator_clients import CHAT, HELLO, STREAM, bedrock_at, claude_at, gemini_at, openai_at, post
from urllib3.exceptions import ProtocolError

from tallystick.core.usage import Usage
from tallystick.errors import InputError
from tallystick.simulator import Answer, Function, Request, Simulator

AT_ONCE = {"retry-after-ms": "1", "retry-after": "0"}


def test_sdks_retry_what_fails_at_first(simulate):
    sim = simulate(Answer(text="at last", status=429, failures=2, headers=AT_ONCE))
    with openai_at(sim) as client, claude_at(sim) as claude:
        assert client.chat.completions.create(**CHAT).choices[0].message.content == "at last"
        message = claude.messages.create(model="claude-sonnet-5", max_tokens=9, messages=HELLO)
        assert message.content[0].text == "at last"
    assert [call.status for call in sim.calls] == [429, 429, 200] * 2
    assert [call.usage is None for call in sim.calls] == [True, True, False] * 2
    assert sim.calls[0].model == "gpt-4o"


def test_a_list_waits_for_the_retry(simulate):
    sim = simulate([Answer(text="one", status=500, failures=1, headers=AT_ONCE), Answer(text="two")])
    with openai_at(sim) as client:
        said = [client.chat.completions.create(**CHAT).choices[0].message.content for _ in range(2)]
        with pytest.raises(openai.BadRequestError, match="no answer after its 2"):
            client.chat.completions.create(**CHAT)
    assert said == ["one", "two"]
    assert [call.status for call in sim.calls] == [500, 200, 200, 400]


@pytest.mark.parametrize(
    ("status", "theirs", "claudes"),
    [
        (400, openai.BadRequestError, anthropic.BadRequestError),
        (401, openai.AuthenticationError, anthropic.AuthenticationError),
        (404, openai.NotFoundError, anthropic.NotFoundError),
        (429, openai.RateLimitError, anthropic.RateLimitError),
        (500, openai.InternalServerError, anthropic.InternalServerError),
        (529, openai.InternalServerError, anthropic.APIStatusError),
    ],
)
def test_errors_are_the_sdks_own(simulate, status, theirs, claudes):
    sim = simulate(Answer(status=status, message="Not today."))
    with openai_at(sim, max_retries=0) as client, pytest.raises(theirs, match="Not today") as error:
        client.chat.completions.create(**CHAT)
    assert error.value.status_code == status
    with claude_at(sim, max_retries=0) as claude, pytest.raises(claudes, match="Not today") as error:
        claude.messages.create(model="claude-sonnet-5", max_tokens=9, messages=HELLO)
    assert error.value.body["type"] == "error"
    with gemini_at(sim) as gemini, pytest.raises(genai_errors.APIError) as error:
        gemini.models.generate_content(
            model="gemini-2.5-flash", contents="hi",
            config=genai.types.GenerateContentConfig(
                http_options=genai.types.HttpOptions(retry_options=genai.types.HttpRetryOptions(attempts=1))
            ),
        )  # fmt: skip
    assert (error.value.code, error.value.message) == (status, "Not today.")


def test_bedrocks_errors(simulate):
    sim = simulate(Answer(status=400))
    client = bedrock_at(sim)
    with pytest.raises(ClientError) as error:
        client.converse(modelId="m", messages=[{"role": "user", "content": [{"text": "hi"}]}])
    client.close()
    assert error.value.response["Error"]["Code"] == "ValidationException"


@pytest.mark.parametrize("inside", [False, True])
def test_cut_streams(simulate, inside):
    sim = simulate(Answer(output_tokens=20, cut_after=6, cut_inside=inside))
    with openai_at(sim) as client:
        stream = client.chat.completions.create(**STREAM)
        heard = []
        with pytest.raises(openai.APIConnectionError):
            heard.extend(chunk.choices[0].delta.content for chunk in stream)
    (call,) = sim.calls
    assert call.cut
    assert "".join(heard) == call.delivered
    # The first event carries the role and no text.
    assert call.delivered == "".join(call.text.split(" ")[0:1] + [f" {word}" for word in call.text.split(" ")[1:5]])
    assert len(call.text.split()) == 20
    assert call.usage.output_tokens == 20
    assert call.response.endswith(b"\n\n") is not inside


def test_cut_before_anything_and_whole_bodies(simulate):
    sim = simulate([Answer(cut_after=0), Answer(cut_after=0), Answer(cut_after=0, cut_inside=True)])
    for body in (STREAM, CHAT, CHAT):
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            post(sim, "/v1/chat/completions", body)
    assert [(call.cut, call.delivered) for call in sim.calls] == [(True, "")] * 3


def test_cut_event_streams(simulate):
    sim = simulate(Answer(output_tokens=20, cut_after=5, cut_inside=True))
    client = bedrock_at(sim)
    body = {"modelId": "m", "messages": [{"role": "user", "content": [{"text": "hi"}]}]}
    stream = client.converse_stream(**body)["stream"]
    with pytest.raises(ProtocolError):
        list(stream)
    stream.close()
    client.close()
    assert len(sim.calls[0].delivered.split()) == 4


def test_errors_in_the_middle_of_a_stream(simulate):
    sim = simulate(Answer(output_tokens=20, error_after=5, message="Enough."))
    talk = {"modelId": "m", "messages": [{"role": "user", "content": [{"text": "hi"}]}]}
    with openai_at(sim) as client, pytest.raises(openai.APIError, match="Enough"):
        list(client.chat.completions.create(**STREAM))
    with openai_at(sim) as client:
        events = list(client.responses.create(model="gpt-5", input="hi", stream=True))
    assert (events[-1].type, events[-1].message, len(events)) == ("error", "Enough.", 6)
    with claude_at(sim) as claude, pytest.raises(anthropic.APIStatusError, match="Enough"):
        list(claude.messages.create(model="claude-sonnet-5", max_tokens=99, messages=HELLO, stream=True))
    with gemini_at(sim) as gemini, pytest.raises(genai_errors.APIError, match="Enough"):
        list(gemini.models.generate_content_stream(model="gemini-2.5-flash", contents="hi"))
    client = bedrock_at(sim)
    stream = client.converse_stream(**talk)["stream"]
    with pytest.raises(EventStreamError, match="Enough"):
        list(stream)
    stream.close()
    client.close()
    assert [len(call.delivered.split()) for call in sim.calls] == [4, 1, 3, 5, 4]
    assert [call.cut for call in sim.calls] == [False] * 5
    response, data = post(sim, "/v1/chat/completions", CHAT)
    assert (response.status, b"Enough" in data) == (200, False)


@pytest.mark.parametrize("encoding", ["gzip", "br"])
@pytest.mark.parametrize("body", [CHAT, STREAM])
def test_encodings(simulate, encoding, body):
    sim = simulate(Answer(text="Grüße! " * 50, encoding=encoding))
    response, data = post(sim, "/v1/chat/completions", body, {"accept-encoding": encoding})
    plain = gzip.decompress(data) if encoding == "gzip" else brotli.decompress(data)
    assert response.headers["content-encoding"] == encoding
    assert plain == sim.calls[0].response
    response, data = post(sim, "/v1/chat/completions", body, {"accept-encoding": "identity"})
    assert response.headers["content-encoding"] is None
    assert data == sim.calls[1].response


def test_encoded_streams_through_an_sdk(simulate):
    sim = simulate(Answer(text="Grüße, 世界!", encoding="gzip", writes="odd"))
    with openai_at(sim) as client:
        chunks = list(client.chat.completions.create(**STREAM))
    assert sim.calls[0].response_headers["content-encoding"] == "gzip"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Grüße, 世界!"


@pytest.mark.parametrize("writes", ["events", "odd", "bytes"])
def test_every_ugliness_that_the_standard_allows(simulate, writes):
    ugly = {"crlf": True, "comments": True, "retry_ms": 5, "obfuscation": True, "pings": True, "writes": writes}
    sim = simulate(Answer(text="Ça va? 世界 🌍🌍", chunks=4, seed=3, **ugly))
    with openai_at(sim) as client, claude_at(sim) as claude:
        chunks = list(client.chat.completions.create(**STREAM))
        with claude.messages.stream(model="claude-sonnet-5", max_tokens=99, messages=HELLO) as stream:
            text = "".join(stream.text_stream)
        whole = client.chat.completions.create(**CHAT)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
    assert text == "Ça va? 世界 🌍🌍" == whole.choices[0].message.content
    assert chunks[-1].usage is not None
    assert all("obfuscation" in chunk.model_fields_set or chunk.model_extra for chunk in chunks)
    raw = sim.calls[0].response
    assert (b"\r\n\r\n" in raw, b": a comment" in raw, b"retry: 5" in raw) == (True, True, True)
    assert b"\n\n" not in raw.replace(b"\r\n", b"")


@pytest.mark.parametrize(
    ("shape", "stated"),
    [("normal", ["own"]), ("missing", []), ("null", []), ("inside", ["inside"]), ("twice", ["inside", "own"])],
)
def test_usage_shapes_of_a_chat_stream(simulate, shape, stated):
    sim = simulate(Answer(output_tokens=5, usage=shape))
    with openai_at(sim) as client:
        chunks = list(client.chat.completions.create(**STREAM))
    assert ["inside" if chunk.choices else "own" for chunk in chunks if chunk.usage] == stated
    assert sim.calls[0].usage.output_tokens == 5


@pytest.mark.parametrize("shape", ["missing", "null"])
def test_whole_answers_without_usage(simulate, shape):
    sim = simulate(Answer(usage=shape))
    for path, field in (("/v1/chat/completions", "usage"), ("/v1/messages", "usage"), ("/model/m/converse", "usage")):
        _, data = post(sim, path, {**CHAT, "max_tokens": 50})
        body = json.loads(data)
        assert (field in body, body.get(field)) == (shape == "null", None)
    assert all(call.usage for call in sim.calls)


def test_cumulative_usage_comes_twice(simulate):
    sim = simulate(Answer(output_tokens=10, usage="twice"))
    with claude_at(sim) as claude:
        events = list(claude.messages.create(model="claude-sonnet-5", max_tokens=99, messages=HELLO, stream=True))
    assert [event.usage.output_tokens for event in events if event.type == "message_delta"] == [5, 10]


@pytest.mark.parametrize("ids", ["unique", "same", "missing"])
def test_ids(simulate, ids):
    sim = simulate(Answer(ids=ids))
    seen = [json.loads(post(sim, "/v1/chat/completions", CHAT)[1]).get("id") for _ in range(2)]
    assert len(set(seen)) == {"unique": 2, "same": 1, "missing": 1}[ids]
    assert (None in seen) is (ids == "missing")
    assert [call.response_id for call in sim.calls] == [one and one.removeprefix("chatcmpl-") for one in seen]


def test_a_script_is_a_function_of_the_request(simulate):
    def script(request: Request):
        return Answer(text=f"{request.model}: {request.json['messages'][0]['content']}", service_tier="priority")

    sim = simulate(script)
    with openai_at(sim) as client:
        answer = client.chat.completions.create(**CHAT)
        sim.play(Answer(text="another"))
        later = client.chat.completions.create(**CHAT)
    assert answer.choices[0].message.content == "gpt-4o: Hello, how are you today?"
    assert (answer.service_tier, later.service_tier) == ("priority", "default")
    assert later.choices[0].message.content == "another"


def test_a_script_that_fails_is_heard_of():
    def script(request):
        raise KeyError(request.path)

    sim = Simulator(script).start()
    response, data = post(sim, "/v1/chat/completions", CHAT)
    assert (response.status, b"KeyError" in data) == (500, True)
    with pytest.raises(KeyError, match="completions"):
        sim.stop()
    with pytest.raises(ZeroDivisionError), Simulator(script) as sim:
        # What happens in the block says more than what the script did.
        1 / len(post(sim, "/v1/chat/completions", CHAT)[1][:0])


def test_what_makes_no_sense_is_refused(simulate):
    for wrong in ({"input_tokens": 5, "cached_tokens": 6}, {"status": 418}, {"failures": 2}, {"output_tokens": -1},
                  {"chunk_ms": -1}, {"tools": {"web_search": 1.5}}, {"cost": "1e-5"}, {"upstream_cost": "much"}):  # fmt: skip
        with pytest.raises(InputError):
            Answer(**wrong)
    for arguments in ("[]", "{"):
        with pytest.raises(InputError):
            Function("f", arguments)
    with pytest.raises(InputError):
        Simulator(series="short")
    sim = simulate()
    with pytest.raises(InputError):
        sim.start()
    with pytest.raises(OSError, match="in use"):
        Simulator(port=sim.port).start()
    for path, body, status in (("/nowhere", "{}", 404), ("/v1/chat/completions", "not JSON", 400)):
        connection = http.client.HTTPConnection("127.0.0.1", sim.port)
        connection.request("POST", path, body)
        assert connection.getresponse().status == status
        connection.close()


def test_bytes_that_are_no_http(simulate):
    sim = simulate()
    with socket.create_connection(("127.0.0.1", sim.port)) as plain:
        plain.sendall(b"\x00\x01\x02 hello\r\n\r\n")
        assert plain.recv(100).startswith(b"HTTP/1.1 400")


def test_pipelined_requests_and_expectations(simulate):
    sim = simulate(Answer(text="x"))
    body = json.dumps(CHAT).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", sim.port)) as plain:
        plain.sendall(head + b"expect: 100-continue\r\n\r\n")
        assert plain.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        plain.sendall(body + head + b"connection: close\r\n\r\n" + body)
        answered = b"".join(iter(lambda: plain.recv(65536), b""))
    assert answered.count(b"HTTP/1.1 200 OK") == 2
    assert b"connection: close" in answered
    assert len(sim.calls) == 2


def test_a_client_that_goes_away_is_noted(simulate):
    sim = simulate(Answer(output_tokens=5000, chunk_ms=1))
    with openai_at(sim) as client:
        stream = client.chat.completions.create(**STREAM)
        for _ in range(5):
            next(stream)
        stream.close()
    (call,) = sim.wait(1)
    assert call.abandoned
    assert call.text.startswith(call.delivered)
    assert 4 <= len(call.delivered.split()) < 5000
    assert call.usage == Usage(input=call.usage["input"], output=5000)


def test_nothing_is_left_behind():
    before = threading.active_count()
    with Simulator(Answer(output_tokens=10**4, chunk_ms=100)) as sim:
        connection = http.client.HTTPConnection("127.0.0.1", sim.port)
        connection.request("POST", "/v1/chat/completions", json.dumps(STREAM))
        assert connection.getresponse().read(10)
        port = sim.port
    connection.close()
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    sim.stop()


def test_kept_calls_are_bounded(simulate):
    sim = simulate(Answer(text="x"), keep=2, series="abcdefgh")
    for _ in range(3):
        post(sim, "/v1/chat/completions", CHAT)
    assert [call.number for call in sim.calls] == [2, 3]
    assert sim.calls[-1].response_id == "abcdefgh" + "3".rjust(16, "0")
    assert msgspec.json.decode(sim.calls[-1].body) == CHAT
    deaf = simulate(keep=0)
    post(deaf, "/v1/chat/completions", CHAT)
    assert deaf.calls == deaf.wait(1) == []
