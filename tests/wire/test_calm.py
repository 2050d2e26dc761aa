"""Reads that may wait: many pieces of a stream taken at once come to the same as each by itself."""

import msgspec
import pytest

from tallystick.wire.facts import request_facts
from tallystick.wire.reader import reader_for
from tallystick.wire.sse import Sse
from tallystick.wire.transform import UsageFilter

HOSTS = {"chat/completions": "api.openai.com/v1", "responses": "api.openai.com/v1", "v1/messages": "api.anthropic.com"}
STREAM = {"content-type": "text/event-stream"}
CHAT = b'data: {"id":"c","model":"gpt-4o","choices":[{"index":0,"delta":{"content":"%b"}}],"usage":null}\n\n'
RESPONSE = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"%b"}\n\n'
MESSAGE = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta",'
    b'"text":"%b"}}\n\n'
)
FORMATS = [("chat/completions", CHAT), ("responses", RESPONSE), ("v1/messages", MESSAGE)]


def reading(path, headers=STREAM, texts=None):
    body = msgspec.json.encode({"model": "m", "stream": True})
    facts = request_facts("POST", f"https://{HOSTS[path]}/{path}", {}, body)
    return reader_for(facts, 200, headers, texts=texts)


@pytest.mark.parametrize(("path", "event"), FORMATS)
def test_pieces_that_wait_are_read_as_if_each_had_come_alone(path, event):
    reads = [event % word for word in (b"a", b"\xc3\xa9", b"", b" long word")]
    alone, together = [], []
    one, many = reading(path, texts=alone), reading(path, texts=together)
    assert all(read.startswith(one.calm) for read in reads)
    made = 0
    for read in reads:
        assert one.take(read) is False
        made += one.made
    assert many.take_calm(reads) is False
    assert many.made == made == 13
    assert "".join(alone) == "".join(together) == "aé long word"
    assert one.close("cancelled") == many.close("cancelled")
    assert many.response_bytes == sum(map(len, reads))


def test_pieces_after_an_unfinished_event_or_the_end_are_joined_first():
    reader = reading("chat/completions", texts=[])
    reader.take(b"data: {")
    reader.take_calm([b"data: {", CHAT % b"lost", CHAT % b"read"])
    assert reader.made >= 4
    reader.close()
    assert reader.take_calm([CHAT % b"late"]) is False
    assert reader.made == 0


def test_a_usage_among_pieces_that_waited_is_told():
    usage = CHAT.replace(b"null", b'{"prompt_tokens":3,"completion_tokens":2}') % b""
    reader = reading("chat/completions")
    assert reader.usage is None
    assert reader.take_calm([CHAT % b"a", usage]) is True
    assert dict(reader.usage) == {"input": 3, "output": 2}
    assert reader.ended is False
    assert reader.take(CHAT % b"b") is False
    assert reader.usage is None
    assert reader.take(b"data: [DONE]\n\n") is True
    assert reader.ended


def test_a_compressed_stream_and_a_whole_body_have_no_reads_that_may_wait():
    assert reading("chat/completions", {**STREAM, "content-encoding": "gzip"}).calm == b""
    assert reading("chat/completions", {"content-type": "application/json"}).calm == b""
    whole = reading("chat/completions", {"content-type": "application/json"})
    assert whole.take_calm([b"{", b"}"]) is False


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"event: a\ndata: b\n\n", [b"b"]),
        (b"event: a\ndata: b\ndata: c\n\n", [b"b\nc"]),
        (b"event: a\n\n", []),
        (b"event: a\nid: 1\n\n", []),
        (b"event: a\ndata: \n\n", []),
        (b"data: b\n\ndata: c\n\n", [b"b", b"c"]),
    ],
)
def test_one_read_with_a_named_event(data, found):
    assert Sse().feed(data) == found
    pieces = Sse()
    assert [payload for byte in data for payload in pieces.feed(bytes([byte]))] == found


def test_a_framing_rests_between_events_only():
    framing = Sse()
    assert framing.resting
    framing.feed(b"data: a")
    assert not framing.resting
    framing.feed(b"\n\n")
    assert framing.resting
    framing.feed(b": note\r")
    assert not framing.resting


@pytest.mark.parametrize(
    ("event", "left"),
    [
        (b'{"choices":[1],"usage":null}', b'{"choices":[1]}'),
        (b'{"choices":[1],"usage":null,"obfuscation":"aB3"}', b'{"choices":[1],"obfuscation":"aB3"}'),
        (b'{"choices":[1],"usage":null,"obfuscation":"a","b":"c"}', b'{"choices":[1],"obfuscation":"a","b":"c"}'),
        (b'{"choices":[1],"usage":null,"b":{"c":1}}', b'{"choices":[1],"b":{"c":1}}'),
        (b'{"choices":[1],"x":{"a":1,"usage":null}}', b'{"choices":[1],"x":{"a":1,"usage":null}}'),
        (b'{"choices":[1],"x":{"a":1,"usage":null},"b":"c"}', b'{"choices":[1],"x":{"a":1,"usage":null},"b":"c"}'),
        (b'{"a":"b\\"usage\\":null"}', b'{"a":"b\\"usage\\":null"}'),
        (b'{"x":{"a":1,"usage":null},"usage":null}', b'{"x":{"a":1,"usage":null}}'),
    ],
)
def test_a_null_usage_is_removed_where_it_is_the_events_own(event, left):
    assert UsageFilter().whole(b"data: %b\n\n" % event) == b"data: %b\n\n" % left
    assert UsageFilter().feed(b"data: %b\n\n" % event) == b"data: %b\n\n" % left


def test_a_whole_event_after_an_unfinished_one_waits_its_turn():
    hide = UsageFilter()
    assert hide.feed(b": no") == b""
    assert hide.whole(b'data: {"a":1,"usage":null}\n\n') == b': nodata: {"a":1,"usage":null}\n\n'
    assert hide.whole(b'data: {"a":1,"usage":null}\n\n') == b'data: {"a":1}\n\n'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"max_tokens": 5, "n": 2, "stream_options": {"include_usage": True}, "stream": True}, (5, 2, True)),
        ({"max_completion_tokens": 9, "max_output_tokens": 7, "max_tokens": "x", "n": 0}, (7, 1, False)),
        ({"max_tokens": 2.5, "stream": 1, "stream_options": {"include_usage": False}}, (None, 1, False)),
        ({"max_tokens": 4, "options": {}, "stream_options": {"include_usage": True}, "n": 3}, (4, 3, True)),
    ],
)
def test_usual_and_unusual_bodies_say_the_same(body, expected):
    url = "https://api.openai.com/v1/chat/completions"
    facts = request_facts("POST", url, {}, msgspec.json.encode({"model": "m", **body}))
    assert (facts.max_output, facts.answers, facts.usage_asked) == expected
    odd = request_facts("POST", url, {}, msgspec.json.encode({"model": "m", **body, "speed": ""}))
    assert [getattr(odd, name) for name in ("model", "max_output", "answers", "stream", "usage_asked", "tier")] == [
        getattr(facts, name) for name in ("model", "max_output", "answers", "stream", "usage_asked", "tier")
    ]


@pytest.mark.parametrize("name", ["m" * 84, "m" * 85, "m" * 1021, "m" * 1022, ""])
def test_a_name_may_be_so_long(name):
    body = msgspec.json.encode({"model": name, "service_tier": name})
    facts = request_facts("POST", "https://api.openai.com/v1/chat/completions", {}, body)
    assert facts.model == facts.tier == (name if 0 < len(name) < 1022 else None)
