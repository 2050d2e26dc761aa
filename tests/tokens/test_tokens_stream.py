"""A stream's count is the count of its text, at every moment and however it was cut."""

import itertools
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokens_oracle import NAMES, cut, texts

from tallystick.tokens import boundaries, bpe
from tallystick.tokens.boundaries import Boundaries
from tallystick.tokens.encodings import encoding
from tallystick.tokens.rules import load
from tallystick.tokens.stream import StreamCounter


@pytest.mark.parametrize("name", NAMES)
def test_every_prefix_counts_exactly(name):
    made = encoding(name)
    rng = random.Random(name)
    checks = 0
    for text in texts("prefixes " + name, 550):
        counter = StreamCounter(made)
        fed = ""
        for delta in cut(rng, text):
            counter.feed(delta)
            fed += delta
            if rng.random() < 0.7:
                expected = made.count(fed)
                assert counter.upper >= expected, fed
                assert counter.tokens == expected == counter.upper, fed
                checks += 1
        assert counter.close() == made.count(fed)
    assert checks > 3_000


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=12), max_size=25))
def test_surrogates_may_arrive_in_halves(parts):
    made = encoding("o200k_base")
    counter = StreamCounter(made)
    for at, part in enumerate(parts):
        counter.feed(part)
        assert counter.tokens == made.count("".join(parts[: at + 1]))


def test_a_pair_split_over_two_deltas():
    made = encoding("o200k_base")
    counter = StreamCounter(made)
    for half in ("look ", "\ud83d", "\ude00", " there"):
        counter.feed(half)
        assert counter.tokens > 0
    assert counter.tokens == made.count("look 😀 there")


def test_nobody_asks_until_the_end():
    made = encoding("cl100k_base")
    text = "".join(texts("lazy", 600))
    counter = StreamCounter(made)
    rng = random.Random(3)
    kept = 0
    for delta in cut(rng, text):
        counter.feed(delta)
        kept = max(kept, sum(map(len, counter._parts)))
    assert counter.upper >= made.count(text)
    assert counter.tokens == made.count(text)
    assert kept < 10_000


def test_one_endless_word_stays_exact():
    made = encoding("o200k_base")
    for letter in "a 你\n.1":
        counter = StreamCounter(made)
        for _ in range(3_000):
            counter.feed(letter * 5)
        assert counter.tokens == made.count(letter * 15_000)


def test_close_and_go_on():
    made = encoding("o200k_base")
    counter = StreamCounter(made)
    assert counter.tokens == counter.upper == 0
    counter.feed("Hello, how are you today?")
    assert counter.close() == 7
    counter.feed("")
    assert counter.tokens == 7
    counter.feed("I am fine.")
    assert counter.close() == 11


PATTERNS = [("o200k", "modern"), ("cl100k", "modern"), ("r50k", "classic")]


@pytest.mark.parametrize(("pattern", "kind"), PATTERNS)
def test_safe_cuts_by_brute_force(pattern, kind):
    rule = Boundaries(kind)
    split = bpe.splitter(pattern).findall
    for length in (2, 3, 4):
        for letters in itertools.product("aA1'. \n\r/s\u0301你,²\t", repeat=length):
            text = "".join(letters)
            at = rule.last(text)
            if at:
                assert split(text) == split(text[:at]) + split(text[at:]), text


@pytest.mark.parametrize(("pattern", "kind"), PATTERNS)
def test_chunks_lose_nothing(pattern, kind):
    rule = Boundaries(kind)
    split = bpe.splitter(pattern).findall
    for text in texts("chunks" + pattern, 300):
        for size in (1, 2, 7, 30):
            parts = list(rule.chunks(text, size))
            assert "".join(parts) == text
            assert [piece for part in parts for piece in split(part)] == split(text)


def test_the_classes_of_the_cuts_are_what_they_say():
    classes = {
        key: re.compile(f"[{bpe.character_class(value)}]")
        for key, value in load("unicode").items()
        if key not in ("unicode", "changed")
    }
    marker = re.compile(f"[{boundaries._MARKER}]")
    plain = re.compile(f"[{boundaries._PLAIN_LETTER}]")
    space = re.compile(f"[{boundaries._SPACE}]")
    for point in itertools.chain(range(0xD800), range(0xE000, 0x20000)):
        char = chr(point)
        kinds = {key for key, pattern in classes.items() if pattern.match(char)}
        assert bool(space.match(char)) == ("space" in kinds)
        if marker.match(char):
            assert not kinds
            assert char != "'"
        if plain.match(char):
            assert kinds & {"upper", "lower", "letter"}
