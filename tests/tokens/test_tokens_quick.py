"""The short way for the first texts of a process gives the tokens of the long way."""

import random

import pytest

from tallystick.tokens.encodings import Encoding, encoding
from tallystick.tokens.quick import ALLOWANCE, LONGEST, Quick

PARTS = [
    *["Hello", "how", "are", "you", "it's", "we'll", "I'M", "12345", "3.14", "http://x.y/z", "foo_bar", "camelCase", "HTTPServer", "!!!", "don't", "'S", "x'll"],
    *["//", "~~", "...", "(", ")"],
    " ", "  ", "\n", "\r\n", "\t", "\x0b", "\x1c", "\x7f", "\x00",
]  # fmt: skip


@pytest.mark.parametrize("name", ["o200k_base", "o200k_harmony", "cl100k_base", "p50k_base", "r50k_base"])
def test_short_texts_have_the_same_tokens_either_way(name):
    rng = random.Random(name)
    slow = encoding(name)
    raw = b"\n".join(b" ".join(pair) for pair in _lines(slow)) + b"\n"
    quick = Quick(raw, slow.splitter)
    assert slow.backend
    for number in range(120):
        if number % 2:
            text = "".join(rng.choices(PARTS, k=rng.randrange(1, 15)))
        else:
            text = "".join(chr(rng.randrange(128)) for _ in range(rng.randrange(1, 30)))
        tokens = quick.encode(text)
        assert tokens == slow.encode(text), text
        assert [quick.lookup.token_bytes(token) for token in tokens] == [slow.token_bytes(token) for token in tokens]


def _lines(slow):
    import base64

    return ((base64.b64encode(piece), b"%d" % number) for piece, number in slow.ranks.items())


def test_the_lookup_is_the_ranks():
    fresh = Encoding("r50k_base")
    assert fresh.count("Hello, how are you?") == 6
    lookup = fresh._quick.lookup
    assert dict(lookup) == dict(fresh.ranks)
    assert len(lookup) == len(fresh.ranks)
    assert lookup.token_bytes(10**9) is None
    with pytest.raises(KeyError):
        lookup[b"no such token, surely"]


def test_only_the_first_short_plain_texts_go_the_short_way():
    fresh = Encoding("r50k_base")
    assert fresh.count("a b c") == 3
    assert not fresh._made
    assert fresh.encode("a b") == encoding("r50k_base").encode("a b")
    assert fresh.token_bytes(fresh.encode("a")[0]) == b"a"
    fresh.count("é")
    assert fresh._made
    assert fresh._quick is None

    long = Encoding("r50k_base")
    long.count("x" * (LONGEST + 1))
    assert long._made

    worn = Encoding("r50k_base")
    for _ in range(ALLOWANCE // 500 + 2):
        worn.count("word " * 100)
    assert worn._made
    assert worn.count("word " * 100) == encoding("r50k_base").count("word " * 100)


def test_a_backend_asked_for_is_used_from_the_first_text():
    named = Encoding("r50k_base", "reference")
    assert named.count("a b c") == 3
    assert named._made
