"""Bytes in any pieces become the same events, lines, objects and frames; hostile bytes never raise."""

import gzip
import json
import types
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.wire import encodings, eventstream
from tallystick.wire.encodings import Inflater, inflated
from tallystick.wire.eventstream import EventStream, Frame, encode, event
from tallystick.wire.frames import Lines, Objects, Whole
from tallystick.wire.sse import Sse, SseEvents


def pieces(data, cuts):
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def heard(framing, parts):
    found = [payload for part in parts for payload in framing.feed(part)]
    return found + list(framing.flush())


CUTS = st.lists(st.integers(0, 10_000), max_size=12)
SSE = {
    b"data: a\n\ndata: b\n\n": [b"a", b"b"],
    b"data: a\r\n\r\ndata:b\r\rdata:  c\n\r\n": [b"a", b"b", b" c"],
    b"\xef\xbb\xbfdata: a\n\n": [b"a"],
    b": ping\n\nevent: x\nid: 3\nretry\ndata: one\ndata\ndata:two\n\n": [b"one\n\ntwo"],
    b"data\n\ndata:\n\nevent: x\n\n\n\ndata: z\n\n": [b"z"],
    "data: \u00e9\u4e2d\U0001f600\n\n".encode(): ["\u00e9\u4e2d\U0001f600".encode()],
    b"data: unfinished": [b"unfinished"],
    b"data: unfinished\r": [b"unfinished"],
    b"data: unfinished\n": [b"unfinished"],
    b"": [],
    b"\xef\xbb\xbf": [],
}


@pytest.mark.parametrize(("raw", "events"), SSE.items())
@given(cuts=CUTS)
def test_events_under_any_split(raw, events, cuts):
    assert heard(Sse(), pieces(raw, cuts)) == events
    assert heard(Sse(), [raw[at : at + 1] for at in range(len(raw))]) == events


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"data: x", b"data", b":", b"\xef\xbb\xbf", b"\xff"])), CUTS)
def test_any_mixture_of_line_ends(parts, cuts):
    raw = b"".join(parts)
    expected = heard(Sse(), [raw])
    assert heard(Sse(), pieces(raw, cuts)) == expected
    assert heard(Sse(), [raw[at : at + 1] for at in range(len(raw))]) == expected
    cutter = SseEvents()
    found = [cutter.feed(part) for part in pieces(raw, cuts)]
    flat = [one for some in found for one in some]
    assert b"".join(flat) + (rest := cutter.rest()) == raw
    assert cutter.rest() == b""
    whole = SseEvents()
    assert (whole.feed(raw), whole.rest()) == (flat, rest)


def test_raw_events_end_with_their_blank_line():
    cutter = SseEvents()
    assert cutter.feed(b"data: a\r\n\r") == []
    assert cutter.feed(b"\ndata: b\n\nda") == [b"data: a\r\n\r\n", b"data: b\n\n"]
    assert cutter.feed(b"ta: c\r\r") == []
    assert cutter.feed(b"x") == [b"data: c\r\r"]
    assert cutter.rest() == b"x"


def test_an_event_that_is_too_large_ends_the_hearing():
    reader = Sse(limit=100)
    assert reader.feed(b"data: " + b"x" * 90) == []
    assert not reader.overflow
    assert reader.feed(b"x" * 10) == []
    assert reader.overflow
    assert heard(reader, [b"\n\ndata: y\n\n", b"more"]) == []
    many = Sse(limit=100)
    for _ in range(30):
        many.feed(b"data: line\n")
    assert many.overflow
    quiet = Sse(limit=100)
    for _ in range(300):
        quiet.feed(b": comment\nev")
        quiet.feed(b"ent: x\n")
    assert heard(quiet, [b"data: y\n\n"]) == [b"y"]


def test_lines():
    assert heard(Lines(), [b'{"a"', b":1}\r\n\n {", b"}\n[]"]) == [b'{"a":1}', b"{}", b"[]"]
    assert heard(Lines(), []) == []
    small = Lines(limit=4)
    assert heard(small, [b"12345", b"\n12\n", b"1"]) == []
    assert small.overflow


ARRAYS = {
    b'[{"a":"}]\\"{"},\n{"b":[{}]}]': [b'{"a":"}]\\"{"}', b'{"b":[{}]}'],
    b'{"error":{"code":429}}': [b'{"error":{"code":429}}'],
    b"": [],
    b"]}[]": [],
    b'[{"a":"\\\\"},{"b"': [b'{"a":"\\\\"}'],
    b'\\[1,"x",{"c":1}]': [b'{"c":1}'],
}


@pytest.mark.parametrize(("raw", "objects"), ARRAYS.items())
@given(cuts=CUTS)
def test_objects_under_any_split(raw, objects, cuts):
    assert heard(Objects(), pieces(raw, cuts)) == objects
    assert heard(Objects(), [raw[at : at + 1] for at in range(len(raw))]) == objects


def test_objects_and_bodies_that_are_too_large():
    for framing in (Objects(limit=5), Whole(limit=5)):
        assert heard(framing, [b'[{"a":', b"12345", b"67890}]"]) == []
        assert framing.overflow
        assert heard(framing, [b"[{}]"]) == []


def test_whole_bodies():
    assert heard(Whole(), [b"a", b"", b"b"]) == [b"ab"]
    assert heard(Whole(), []) == []


FRAMES = event("messageStop", b'{"stopReason":"end_turn"}') + encode(
    {":message-type": "exception", ":exception-type": "throttlingException"}, b'{"message":"slow"}'
)
EXPECTED = [
    Frame("messageStop", False, b'{"stopReason":"end_turn"}'),
    Frame("throttlingException", True, b'{"message":"slow"}'),
]


@given(CUTS)
def test_frames_under_any_split(cuts):
    assert heard(EventStream(), pieces(FRAMES, cuts)) == EXPECTED


def test_frames_of_every_header_type():
    fixed = b"".join(
        bytes([1]) + b"h" + bytes([sort]) + b"\0" * size
        for sort, size in ((0, 0), (1, 0), (2, 1), (3, 2), (4, 4), (5, 8), (8, 8), (9, 16), (6, 2))
    )
    named = b"\x0b:event-type\x07\x00\x01x"

    def framed(headers):
        lengths = (16 + len(headers)).to_bytes(4, "big") + len(headers).to_bytes(4, "big")
        whole = lengths + zlib.crc32(lengths).to_bytes(4, "big") + headers
        return whole + zlib.crc32(whole).to_bytes(4, "big")

    def kind(headers):
        (frame,) = EventStream().feed(framed(headers))
        return frame.kind

    assert kind(fixed + named) == "x"
    assert kind(named + b"\x01h\x63" + named[:3]) == "x"
    assert kind(b"\x01h\x63" + named) == ""
    assert kind(named[:-2]) == ""
    assert kind(b"\x05ab") == ""
    failed = {":message-type": "error", ":error-code": "500"}
    assert EventStream().feed(encode(failed, b"")) == [Frame("500", True, b"")]
    assert EventStream().feed(encode({":message-type": "error"}, b"")) == [Frame("", True, b"")]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"\0" * 12, "length of a frame does not match"),
        (FRAMES[:-1] + b"\0", "a frame does not match its checksum"),
        (b"HTTP/1.1 502 Bad Gateway", "length of a frame"),
    ],
)
def test_broken_frames_end_the_hearing(raw, words):
    reader = EventStream()
    reader.feed(raw)
    assert words in reader.fault
    assert reader.feed(FRAMES) == []
    assert reader.pending == 0


def test_lengths_that_cannot_be():
    for total, headers in ((15, 0), (20, 10), (2**31, 0)):
        lengths = total.to_bytes(4, "big") + headers.to_bytes(4, "big")
        reader = EventStream()
        assert reader.feed(lengths + zlib.crc32(lengths).to_bytes(4, "big")) == []
        assert "cannot be" in reader.fault
    waiting = EventStream()
    waiting.feed(FRAMES[:20])
    assert waiting.pending == 20


TEXT = json.dumps({"text": "hello " * 300}).encode()


def raw_deflate(data):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(TEXT)),
        ("x-gzip", gzip.compress(TEXT[:100]) + gzip.compress(TEXT[100:])),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", raw_deflate(TEXT)),
    ],
    ids=["gzip", "two members", "deflate", "deflate without header"],
)
@given(cuts=CUTS)
def test_inflating_under_any_split(encoding, packed, cuts):
    inflater = Inflater(encoding)
    assert b"".join(inflater.feed(part) for part in pieces(packed, cuts)) == TEXT
    assert b"".join(map(Inflater(encoding).feed, [packed[at : at + 1] for at in range(len(packed))])) == TEXT
    assert inflater.fault is None


def test_bombs_and_broken_bodies():
    bomb = gzip.compress(b"\0" * 10_000_000)
    inflater = Inflater("gzip", limit=1_000_000)
    assert inflater.feed(bomb) == b""
    assert "more than 1000000 bytes" in inflater.fault
    assert inflater.feed(bomb) == b""
    exact = Inflater("gzip", limit=len(TEXT))
    assert exact.feed(gzip.compress(TEXT)) == TEXT
    assert exact.fault is None
    for encoding in ("gzip", "deflate"):
        broken = Inflater(encoding)
        assert broken.feed(b"\xff\xfe\xfd\xfc") == b""
        assert "broken" in broken.fault
    assert "'zip'" in Inflater("zip").fault
    assert inflated(None, b"x") == inflated("identity", b"x") == b"x"
    assert inflated("gzip", gzip.compress(b"x")) == b"x"
    assert inflated("gzip", b"x" * 20) is None


class BrotliDouble:
    """Speaks brotli's interface, packs with zlib."""

    error = zlib.error

    class Decompressor:
        def __init__(self):
            self.inner, self.rest = zlib.decompressobj(), b""

        def process(self, data, output_buffer_limit):
            made = self.inner.decompress(self.rest + data, output_buffer_limit)
            self.rest = self.inner.unconsumed_tail
            return made


class ZstdDouble:
    ZstdError = zlib.error

    class ZstdDecompressor:
        def __init__(self):
            self.inner = zlib.decompressobj()

        def decompress(self, data, max_length):
            if self.inner.eof:
                raise EOFError("already at the end")
            return self.inner.decompress(data, max_length)


class ZstandardDouble:
    ZstdError = zlib.error

    class ZstdDecompressor:
        def decompressobj(self):
            return zlib.decompressobj()


@pytest.mark.parametrize(
    ("encoding", "name", "double"),
    [
        ("br", "brotli", BrotliDouble),
        ("zstd", "backports.zstd", ZstdDouble),
        ("zstd", "zstandard", ZstandardDouble),
    ],
)
def test_encodings_of_other_packages(monkeypatch, encoding, name, double):
    def load(wanted):
        if wanted != name:
            raise ImportError(wanted)
        return double

    monkeypatch.setattr(encodings, "import_module", load)
    packed = zlib.compress(TEXT)
    inflater = Inflater(encoding)
    assert b"".join(inflater.feed(part) for part in pieces(packed, [3, 9])) == TEXT
    assert Inflater(encoding, limit=20_000_000).feed(zlib.compress(b"\0" * 1_000_000)) == b"\0" * 1_000_000
    bomb = Inflater(encoding, limit=1000)
    assert bomb.feed(zlib.compress(b"\0" * 10_000_000)) == b""
    assert "inflates to more than 1000 bytes" in bomb.fault
    broken = Inflater(encoding)
    assert broken.feed(b"\xff\xfe\xfd") == b""
    assert "broken" in broken.fault


def test_encodings_without_a_package(monkeypatch):
    def load(wanted):
        raise ImportError(wanted)

    monkeypatch.setattr(encodings, "import_module", load)
    for encoding in ("br", "zstd"):
        assert "cannot be read here" in Inflater(encoding).fault
    old = types.SimpleNamespace(Decompressor=lambda: types.SimpleNamespace(process=lambda _data: b""), error=zlib.error)
    monkeypatch.setattr(encodings, "import_module", lambda _name: old)
    assert Inflater("br").feed(b"x") == b""


@pytest.mark.parametrize(
    ("encoding", "package", "pack"),
    [
        ("br", "brotli", "compress"),
        ("br", "brotlicffi", "compress"),
        ("zstd", "backports.zstd", "compress"),
        ("zstd", "compression.zstd", "compress"),
        ("zstd", "zstandard", "compress"),
    ],
)
def test_encodings_with_the_real_package(monkeypatch, encoding, package, pack):
    module = pytest.importorskip(package)

    def load(wanted):
        if wanted != package:
            raise ImportError(wanted)
        return module

    monkeypatch.setattr(encodings, "import_module", load)
    plain = TEXT * 50 + b"\0" * 1_000_000
    packed = getattr(module, pack)(plain)
    for step in (1, 7, len(packed)):
        inflater = Inflater(encoding)
        assert b"".join(inflater.feed(packed[at : at + step]) for at in range(0, len(packed), step)) == plain
    bomb = Inflater(encoding, limit=1000)
    assert bomb.feed(packed) == b""
    assert "inflates to more than 1000 bytes" in bomb.fault
    broken = Inflater(encoding)
    broken.feed(b"no such thing, in no encoding at all")
    assert "broken" in broken.fault


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_garbage_never_raises(parts):
    for framing in (Sse(), Lines(), Objects(), Whole(), EventStream()):
        heard(framing, parts)
    for encoding in ("gzip", "deflate", "br"):
        inflater = Inflater(encoding)
        for part in parts:
            inflater.feed(part)
    eventstream._headers(b"".join(parts))
