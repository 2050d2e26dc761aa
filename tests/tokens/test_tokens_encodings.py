"""Every backend gives tiktoken's tokens, for any text, and no text makes it fail."""

import functools
import gzip
import hashlib
import importlib.metadata
import random
import re
import socket
import unicodedata
from importlib.resources import files

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tokens_oracle import NAMES, oracle, texts

from tallystick.errors import ConfigError, TextError
from tallystick.tokens import bpe
from tallystick.tokens.encodings import BACKENDS, Encoding, decode, encoding, encoding_for, repair
from tallystick.tokens.rules import load

try:
    importlib.metadata.distribution("quicktok-v1")
    FAST = True
except importlib.metadata.PackageNotFoundError:
    FAST = False
USABLE = [name for name in BACKENDS if FAST or name != "quicktok"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("counting must not touch the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.delenv("TALLY_TOKENIZER", raising=False)


@pytest.mark.parametrize("name", NAMES)
def test_equals_tiktoken(name):
    truth = oracle(name)
    fast, plain, slow = encoding(name), Encoding(name, "tiktoken"), Encoding(name, "reference")
    for number, text in enumerate(texts(name, 3000)):
        expected = truth.encode(text, disallowed_special=())
        assert fast.encode(text) == expected, text
        assert fast.count(text) == len(expected), text
        assert plain.encode(text) == expected, text
        if number < 1000:
            assert slow.encode(text) == expected, text
            assert b"".join(plain.token_bytes(token) for token in expected) == text.encode()


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(), max_size=200))
def test_any_string_equals_tiktoken(text):
    for name in ("o200k_base", "cl100k_base"):
        truth = _truth(name)
        expected = truth.encode_ordinary(text)
        for backend in USABLE:
            assert _shared(name, backend).encode(text) == expected


_MADE = {}


@functools.cache
def _truth(name):
    return oracle(name)


@pytest.mark.skipif(not FAST, reason="the extra is not installed")
def test_characters_of_newer_unicode_equal_tiktoken():
    for name in ("o200k_base", "cl100k_base"):
        truth, made = _truth(name), _shared(name, "quicktok")
        ranges = (word.partition("-") for word in load("unicode")["changed"].split())
        for first, _, last in ranges:
            for point in range(int(first, 16), int(last or first, 16) + 1, 7):
                for text in (f"{chr(point)}'s", f"{chr(point)}A", f"a{chr(point)}b", f"1{chr(point)}2"):
                    assert made.encode(text) == truth.encode_ordinary(text), text


def _shared(name, backend):
    return _MADE.setdefault((name, backend), Encoding(name, backend))


def test_counts_people_know():
    for backend in USABLE:
        made = _shared("o200k_base", backend)
        assert made.count("Hello, how are you today?") == 7
        assert made.count("I am fine.") == 4
        assert made.count("") == 0


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base", "p50k_base", "r50k_base"])
def test_ranks_are_those_tiktoken_expects(name):
    raw = gzip.decompress(files("tallystick.tokens").joinpath("ranks", f"{name}.tiktoken.gz").read_bytes())
    source = files("tiktoken_ext").joinpath("openai_public.py").read_text()
    expected = re.search(rf'{name}\.tiktoken",\s*expected_hash="([0-9a-f]{{64}})"', source).group(1)
    assert hashlib.sha256(raw).hexdigest() == expected == load("encodings")["encoding"][name]["sha256"]


@pytest.mark.parametrize("name", NAMES)
def test_special_tokens_are_tiktokens(name):
    assert oracle(name)._special_tokens == encoding(name).special_tokens


def test_damaged_ranks_are_refused(monkeypatch):
    broken = Encoding("o200k_base", "tiktoken")
    monkeypatch.setattr(broken, "_file", ("o200k_base", "0" * 64))
    with pytest.raises(ConfigError):
        broken.count("a")


@pytest.mark.parametrize("key", ["upper", "lower", "letter", "mark", "number", "space"])
def test_character_classes_are_tiktokens(key):
    pattern = {
        "upper": r"[\p{Lu}\p{Lt}]",
        "lower": r"\p{Ll}",
        "letter": r"[\p{Lm}\p{Lo}]",
        "mark": r"\p{M}",
        "number": r"\p{N}",
        "space": r"\s",
    }[key]
    single = {bytes([byte]): byte for byte in range(256)}
    core = tiktoken.Encoding("one class", pat_str=pattern, mergeable_ranks=single, special_tokens={})
    every = "".join(chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000)
    theirs = core.decode(core.encode_ordinary(every))
    ours = "".join(re.findall(f"[{bpe.character_class(load('unicode')[key])}]", every))
    assert ours == theirs


LONG = {
    "spaces": " " * 1_000_000,
    "letters": "a" * 1_000_000,
    "capitals": "A" * 300_000,
    "tabs and lines": "\t\n" * 300_000,
    "lines": "\n" * 300_000,
    "dots": "." * 300_000,
    "ideographs": "你" * 100_000,
    "marks": "ก็" * 100_000,
    "digits": "1" * 300_000,
    "zeros": "\x00" * 100_000,
    "spaces before a word": "x" + " " * 400_000 + "end",
}


@pytest.mark.parametrize("kind", LONG)
@pytest.mark.parametrize("name", ["o200k_base", "r50k_base"])
def test_long_runs_count_alike(kind, name):
    text = LONG[kind] if name == "o200k_base" else LONG[kind][:210_000]
    counts = {_shared(name, backend).count(text) for backend in USABLE if backend != "reference"}
    assert len(counts) == 1
    assert 0 < counts.pop() <= len(text.encode())


def test_long_run_equals_reference():
    for run in (" " * 205_000, "ab" * 101_000 + " x"):
        expected = _shared("o200k_base", "reference").encode(run)
        assert _shared("o200k_base", "tiktoken").encode(run) == expected


@pytest.mark.parametrize("name", NAMES)
def test_long_text_equals_tiktoken(name):
    truth = oracle(name)
    text = "".join(texts("long" + name, 1500))
    assert len(text) > 60_000
    expected = truth.encode_ordinary(text)
    assert encoding(name).encode(text) == expected
    assert encoding(name).count(text) == len(expected)
    rng = random.Random(5)
    chunks = [text[at : at + 997] for at in range(0, len(text), 997)]
    assert encoding(name).count_stream(chunks) == len(expected)
    assert encoding(name).count_stream(rng.choice(("a", " ")) for _ in range(10)) > 0


def test_lone_surrogates_are_replaced():
    assert repair("a\ud800b\udfffc\ud83d\ude00") == "a\ufffdb\ufffdc😀"
    for text in ("\ud800", "a\udc00 b", "\ud83d\ude00!", "\ude00\ud83d", "x" * 70_000 + "\ud800"):
        for backend in USABLE:
            made = _shared("cl100k_base", backend)
            assert made.encode(text) == made.encode(repair(text))
            assert made.count(text) == len(made.encode(text))


def test_random_bytes_are_read_and_said():
    rng = random.Random(1)
    for _ in range(200):
        data = rng.randbytes(rng.randint(0, 300))
        read = decode(data)
        assert read.replaced >= 0
        assert encoding("o200k_base").count(read.text) <= len(read.text.encode())
    assert decode("é�".encode()) == ("é�", 0)
    assert decode(b"\xff\xfea") == ("��a", 2)
    assert decode(b"\xef\xbb\xbfa") == ("a", 0)


def test_a_failing_backend_is_replaced():
    class Panic(BaseException):
        pass

    class Broken:
        name = "tiktoken"
        encode_piece = None

        def encode(self, _text):
            raise Panic

        count = encode

    made = Encoding("o200k_base")
    made._made = dict.fromkeys(("quicktok", "tiktoken"), Broken())
    assert made.count("Hello, how are you today?") == 7
    assert made.encode("Hello, how are you today?") == _shared("o200k_base", "tiktoken").encode(
        "Hello, how are you today?"
    )
    assert made.count(" " * 100_000) == _shared("o200k_base", "tiktoken").count(" " * 100_000)


def test_an_interrupt_is_not_swallowed():
    class Stopped:
        name = "tiktoken"
        encode_piece = None

        def encode(self, _text):
            raise KeyboardInterrupt

        count = encode

    made = Encoding("o200k_base")
    made._made = dict.fromkeys(("quicktok", "tiktoken"), Stopped())
    with pytest.raises(KeyboardInterrupt):
        made.count("a")
    with pytest.raises(KeyboardInterrupt):
        made.encode("a")


def test_the_backend_can_be_forced(monkeypatch):
    for backend in USABLE:
        monkeypatch.setenv("TALLY_TOKENIZER", backend)
        assert encoding("o200k_base").backend == backend
    monkeypatch.setenv("TALLY_TOKENIZER", "guess")
    with pytest.raises(ConfigError):
        encoding("o200k_base")


def test_another_release_of_the_extra_is_not_used(monkeypatch):
    class Other:
        version = "9.9.9"

    monkeypatch.setattr(importlib.metadata, "distribution", lambda _name: Other())
    assert Encoding("o200k_base").backend == "tiktoken"


def test_unknown_names():
    with pytest.raises(ConfigError):
        encoding("o300k")
    with pytest.raises(TextError):
        encoding("o200k_base").token_bytes(-1)
    assert encoding("gpt2") is encoding("r50k_base")
    assert encoding("o200k_harmony").token_bytes(200006) == b"<|start|>"


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-4o", "o200k_base"),
        ("gpt-4o-2024-11-20", "o200k_base"),
        ("openai/gpt-4o", "o200k_base"),
        ("azure/gpt-4.1-nano", "o200k_base"),
        ("openrouter/openai/gpt-5.2", "o200k_base"),
        ("ft:gpt-4o-2024-08-06:org::id", "o200k_base"),
        ("ft:gpt-3.5-turbo-0125:org:name:id", "cl100k_base"),
        ("GPT-5-mini", "o200k_base"),
        ("o3-pro", "o200k_base"),
        ("gpt-4", "cl100k_base"),
        ("gpt-4-0613", "cl100k_base"),
        ("gpt-35-turbo-16k", "cl100k_base"),
        ("text-embedding-3-large", "cl100k_base"),
        ("openai.gpt-oss-20b-1:0", "o200k_harmony"),
        ("text-davinci-003", "p50k_base"),
        ("davinci", "r50k_base"),
        ("gpt-50", None),
        ("o200", None),
        ("claude-sonnet-4-5", None),
        ("", None),
        ("/", None),
    ],
)
def test_encoding_for(model, name):
    assert encoding_for(model) == name


def test_every_name_of_tiktokens_tables_agrees():
    for model, name in tiktoken.model.MODEL_TO_ENCODING.items():
        assert encoding_for(model) == ("r50k_base" if name == "gpt2" else name), model
    for prefix, name in tiktoken.model.MODEL_PREFIX_TO_ENCODING.items():
        assert encoding_for(prefix + ("" if prefix[-1].isalnum() else "x")) == name, prefix


def test_explain_shows_the_split():
    pieces = list(encoding("o200k_base").explain("Hello,  world's 12345"))
    assert "".join(piece.text for piece in pieces) == "Hello,  world's 12345"
    assert [piece.text for piece in pieces] == ["Hello", ",", " ", " world's", " ", "123", "45"]
    assert pieces[0].tokens == (b"Hello",)


def test_alphanumerics_of_python_are_letters_or_numbers():
    classes = load("unicode")
    either = "".join(bpe.character_class(classes[key]) for key in ("upper", "lower", "letter", "number"))
    known = re.compile(f"[{either}]")
    strange = [
        c for c in map(chr, range(0x110000)) if c.isalnum() and unicodedata.category(c) != "Cs" and not known.match(c)
    ]
    # A newer Python may know letters that the tokenizers' Unicode does not; it knows them as letters or numbers too.
    assert all(unicodedata.category(c)[0] in "LN" for c in strange)
