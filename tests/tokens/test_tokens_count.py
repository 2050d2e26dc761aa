"""Counts with bounds: text, classes, calibration, media, and whole requests in every shape."""

import base64
import json
import random
import struct
import tomllib
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.errors import InputError
from tallystick.tokens import (
    Calibration,
    Count,
    audio_tokens,
    content_class,
    count_messages,
    count_text,
    encoding,
    image_size,
    image_tokens,
    pdf_tokens,
)
from tallystick.tokens.count import total

MODELS = (
    "gpt-4o",
    "gpt-5.2",
    "claude-sonnet-5",
    "gemini-2.5-pro",
    "grok-4",
    "deepseek-chat",
    "qwen3-max",
    "never-heard-of",
)

PROSE = "The committee met on Tuesday, and nobody could say afterwards what it had decided about the harbour. " * 5
CODE = "def total(rows: list[int]) -> int:\n    return sum(row['n'] for row in rows)\n\nclass A:\n    x = {1: 2}\n" * 5
JSON = json.dumps([{"name": "a", "value": 1.5, "tags": ["x", "y"], "nested": {"k": None}}] * 10)
CHINESE = "委员会星期二开会，之后没有人能说清楚它对港口作出了什么决定。" * 5


def test_known_models_are_exact():
    count = count_text("Hello, how are you today?", "gpt-4o")
    assert (count.tokens, count.low, count.high, count.method, count.encoding, count.bytes) == (
        7,
        7,
        7,
        "exact",
        "o200k_base",
        25,
    )
    assert count.exact
    assert count_text("I am fine.", "gpt-4o").tokens == 4


def test_unknown_models_say_so():
    count = count_text(PROSE, "never-heard-of")
    assert count.method == "estimate"
    assert not count.exact
    assert "unknown" in count.basis
    assert count.high >= 2 * count.low
    assert count.encoding is None


def test_an_assumed_tokenizer_is_no_exact_count():
    count = count_text(PROSE, "gpt-realtime")
    assert count.method == "estimate"
    assert count.low < count.tokens < count.high
    assert "assumed" in count.basis


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=300), st.sampled_from(MODELS))
def test_bounds_enclose_and_bytes_bound(text, model):
    count = count_text(text, model)
    assert 0 <= count.low <= count.tokens <= count.high <= count.bytes + 1
    assert (count.high == 0) == (not text)


@pytest.mark.parametrize(
    ("text", "kind"),
    [(PROSE, "prose"), (CODE, "code"), (JSON, "json"), (CHINESE, "cjk"), ("", "other"), (" \n", "other")],
)
def test_content_class(text, kind):
    assert content_class(text) == kind


def test_content_class_of_other_things():
    rng = random.Random(1)
    assert content_class(base64.b64encode(rng.randbytes(3000)).decode()) == "other"
    assert content_class("Комитет собрался во вторник, и никто не мог сказать, что он решил. " * 20) == "other"
    assert content_class(PROSE * 200) == "prose"


def test_calibration_learns_and_narrows():
    learned = Calibration()
    rng = random.Random(2)
    assert learned.ratio("claude-sonnet-5", "prose") is None
    for calls in range(1, 61):
        ours = rng.randint(200, 4000)
        learned = learned.update("claude-sonnet-5", "prose", ours, round(ours * rng.uniform(1.2, 1.3)))
        if calls == 10:
            early = learned.ratio("claude-sonnet-5", "prose")
    late = learned.ratio("claude-sonnet-5", "prose")
    assert late.low < 1.2 < late.likely < 1.3 < late.high
    assert late.high - late.low < early.high - early.low
    count = count_text(PROSE, "claude-sonnet-5", learned)
    assert count.method == "calibrated"
    assert abs(count.tokens / encoding("o200k_base").count(PROSE) - 1.25) < 0.05
    assert count_text(CODE, "claude-sonnet-5", learned).method == "estimate"


def test_calibration_follows_a_change():
    learned = Calibration()
    for _ in range(1000):
        learned = learned.update("m", "code", 100, 110)
    for _ in range(1000):
        learned = learned.update("m", "code", 100, 140)
    assert abs(learned.ratio("m", "code").likely - 1.4) < 0.01


def test_calibration_goes_through_a_store():
    learned = Calibration().update("m", "code", 100, 120).update("m", "json", 10, 11)
    stored = json.loads(json.dumps(learned.to_dict()))
    assert Calibration.from_dict(stored) == learned
    for broken in (
        {},
        {"schema": 2, "cells": []},
        {"schema": 1, "cells": [["m"]]},
        {"schema": 1, "cells": [["m", "x", "y", 1, 1, 1, 1]]},
    ):
        with pytest.raises(InputError):
            Calibration.from_dict(broken)


def test_calibration_refuses_and_ignores():
    assert Calibration().update("m", "x", 0, 5) == Calibration()
    with pytest.raises(InputError):
        Calibration().update("m", "x", -1, 5)


def test_counts_add_up():
    exact, guess = count_text("a b", "gpt-4o"), count_text("a b", "who")
    both = exact + guess
    assert both.tokens == exact.tokens + guess.tokens
    assert both.method == "estimate"
    assert both.encoding is None
    assert total([]).tokens == 0
    assert (exact + exact).exact
    with pytest.raises(InputError):
        Count(1, 2, 3, "exact", None, "", 0)


@pytest.mark.parametrize(
    ("width", "height", "model", "detail", "tokens"),
    [
        (1024, 1024, "gpt-4o", "high", 765),
        (2048, 4096, "gpt-4o", "high", 1105),
        (4096, 8192, "gpt-4o", "low", 85),
        (128, 64, "gpt-4o", "high", 255),
        (1024, 1024, "gpt-4.1-mini", "high", 1659),
        (1800, 2400, "gpt-4.1-mini", "high", 2353),
        (512, 512, "gpt-5-mini", "auto", 308),
        (2048, 768, "gpt-5-mini", "auto", 1844),
        (200, 200, "claude-sonnet-4-5", "auto", 54),
        (1000, 1000, "claude-sonnet-4-5", "auto", 1334),
        (384, 384, "gemini-2.5-pro", "auto", 258),
        (600, 1000, "gemini-2.0-flash", "auto", 516),
        (5000, 5000, "gemini-3-pro", "low", 280),
    ],
)
def test_image_rules(width, height, model, detail, tokens):
    count = image_tokens(width, height, model, detail)
    assert count.tokens == tokens
    assert count.low <= tokens <= count.high
    assert count.method == "estimate"


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 20000),
    st.integers(1, 20000),
    st.sampled_from((*MODELS, "gpt-4.1-nano", "o4-mini")),
    st.sampled_from(("auto", "low", "high", "odd")),
)
def test_any_image_has_ordered_bounds(width, height, model, detail):
    count = image_tokens(width, height, model, detail)
    assert 0 < count.low <= count.tokens <= count.high


def test_unknown_images_are_wide():
    count = image_tokens(None, None, "gpt-4o")
    assert count.low == 85
    assert count.high >= 1105
    unknown = image_tokens(1000, 1000, "never-heard-of")
    assert unknown.high >= 10 * unknown.low
    with pytest.raises(InputError):
        image_tokens(0, 5, "gpt-4o")


def test_sound_and_pages():
    assert audio_tokens(60, "gemini-2.5-pro").tokens == 1920
    assert audio_tokens(10, "gpt-4o-audio-preview").tokens == 100
    assert pdf_tokens(3, "gemini-2.5-pro").tokens == 774
    assert audio_tokens(1, "who").low < audio_tokens(1, "who").high
    for bad in (-1, float("nan"), float("inf")):
        with pytest.raises(InputError):
            audio_tokens(bad, "gpt-4o")


def png(width, height):
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", width, height) + b"\x08\x06\x00\x00\x00"


IMAGES = {
    "png": png(640, 480),
    "gif": b"GIF89a" + struct.pack("<HH", 640, 480),
    "jpeg": b"\xff\xd8\xff\xe0\x00\x04ab\xff\xff\xc2\x00\x11\x08" + struct.pack(">HH", 480, 640),
    "webp lossy": b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0abc\x9d\x01\x2a" + struct.pack("<HH", 640, 480),
    "webp lossless": b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + struct.pack("<I", 639 | 479 << 14),
    "webp extended": b"RIFF\0\0\0\0WEBPVP8X\0\0\0\0\0\0\0\0"
    + (639).to_bytes(3, "little")
    + (479).to_bytes(3, "little"),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_image_size(kind):
    assert image_size(IMAGES[kind]) == (640, 480)
    for end in range(len(IMAGES[kind]) - 5):
        assert image_size(IMAGES[kind][:end]) in (None, (640, 480))


def test_image_size_of_rubbish():
    rng = random.Random(3)
    for head in (b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF0000WEBP", b"BM"):
        for _ in range(100):
            image_size(head + rng.randbytes(rng.randint(0, 60)))
    assert image_size(png(0, 5)) is None


def test_openai_chat_overhead():
    count = count_messages([{"role": "user", "content": "I am fine."}], "gpt-4o")
    assert count.tokens == 4 + 3 + 3
    assert count.low == 10
    named = count_messages([{"role": "user", "name": "Ada", "content": "I am fine."}], "gpt-4o")
    assert named.tokens == 10 + 1 + encoding("o200k_base").count("Ada")
    parts = count_messages([{"role": "user", "content": [{"type": "text", "text": "I am fine."}]}], "gpt-4o")
    assert parts.tokens == count.tokens


def test_the_same_text_in_every_shape_counts_about_alike():
    text = PROSE
    shapes = [
        text,
        [text],
        [{"role": "user", "content": text}],
        [{"role": "user", "content": [{"type": "input_text", "text": text}]}],
        [{"role": "user", "parts": [{"text": text}]}],
        {"contents": [{"role": "user", "parts": [{"text": text}]}]},
        {"messages": [{"role": "user", "content": text}]},
    ]
    for model in MODELS:
        assert len({count_messages(shape, model).tokens for shape in shapes}) == 1, model


def test_an_image_in_a_message_is_an_image_not_its_base64():
    data = base64.b64encode(png(1024, 1024) + bytes(200_000)).decode()
    plain = count_messages([{"role": "user", "content": "what?"}], "gpt-4o").tokens
    shapes = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + data, "detail": "high"}},
        {"type": "input_image", "image_url": "data:image/png;base64," + data, "detail": "high"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}},
        {"inlineData": {"mimeType": "image/png", "data": data}},
    ]
    for shape in shapes:
        count = count_messages([{"role": "user", "content": [{"type": "text", "text": "what?"}, shape]}], "gpt-4o")
        assert count.tokens - plain == 765, shape
    unknown = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    count = count_messages([{"role": "user", "content": [unknown]}], "gpt-4o")
    assert count.high - count.low > 1000


def test_sound_and_documents_in_messages():
    data = base64.b64encode(bytes(160_000)).decode()
    pdf = base64.b64encode(b"%PDF-1.4 /Type /Pages /Type /Page x /Type/Page").decode()
    for part in (
        {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
        {"inline_data": {"mime_type": "audio/wav", "data": data}},
        {"type": "input_audio", "input_audio": {}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64," + data}},
        {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}},
    ):
        count = count_messages([{"role": "user", "content": [part]}], "gemini-2.5-pro")
        assert count.low < count.tokens < count.high, part
    two = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": pdf}}
    assert count_messages([{"role": "user", "content": [two]}], "gemini-2.5-pro").tokens == 516
    text = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": PROSE}}
    assert count_messages([{"role": "user", "content": [text]}], "gpt-4o").tokens < 200


def test_tools_calls_and_results_count():
    tool = {
        "type": "function",
        "function": {"name": "weather", "description": "The weather of a place.", "parameters": {"type": "object"}},
    }
    base = count_messages("hi", "claude-sonnet-4-5")
    with_tools = count_messages("hi", "claude-sonnet-4-5", tools=[tool], system="Be brief.")
    assert with_tools.tokens - base.tokens > 346
    messages = [
        {
            "role": "assistant",
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "4"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "2", "name": "f", "input": {"a": 1}}]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "2", "content": [{"type": "text", "text": "4"}]}],
        },
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"a": 1}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"r": 4}}}]},
        {"type": "function_call", "call_id": "3", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "3", "output": "4"},
    ]
    for message in messages:
        count = count_messages([message], "gpt-4o")
        assert 0 < count.low <= count.tokens <= count.high
        assert "not understood" not in count.basis, message


def test_sdk_objects_are_read():
    class Message:
        def model_dump(self, **_options):
            return {"role": "user", "content": "I am fine."}

    assert count_messages([Message()], "gpt-4o").tokens == 10


def test_odd_shapes_never_raise_and_widen():
    cycle = {"role": "user"}
    cycle["content"] = [cycle]
    deep = "x"
    for _ in range(2000):
        deep = [deep]
    odd = [
        None,
        5,
        1.5,
        True,
        b"bytes",
        object(),
        {},
        [],
        {"role": 7},
        {"type": []},
        {1: 2},
        {"image_url": 3},
        {"content": {"a": {"b": "c"}}},
    ]
    odd += [
        cycle,
        deep,
        {"type": "image"},
        {"type": "image", "source": "x"},
        {"type": "image_url", "image_url": {"url": "data:,%%%"}},
    ]
    odd += [
        {"tool_calls": "x"},
        {"tool_calls": [None]},
        {"role": "user", "content": "\ud800"},
        {"type": "file", "file": 4},
        {"inlineData": {"data": 4}},
    ]
    for message in odd:
        for model in ("gpt-4o", "claude-3-opus", "never-heard-of"):
            for shape in (message, [message], [{"role": "user", "content": [message]}]):
                count = count_messages(shape, model, tools=message if isinstance(message, dict) else None)
                assert 0 <= count.low <= count.tokens <= count.high
    strange = count_messages([{"role": "user", "hologram": {"x": PROSE}}], "gpt-4o")
    assert "not understood" in strange.basis
    assert strange.high > strange.tokens > strange.low + 50


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20) | st.binary(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ("role", "content", "type", "text", "image_url", "source", "parts", "tool_calls", "input", "x")
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_structure_has_a_count(shape):
    count = count_messages(shape, "gpt-4o", tools=shape, system=shape)
    assert 0 <= count.low <= count.tokens <= count.high


def test_every_row_of_the_data_is_dated_and_sourced():
    for path in files("tallystick.tokens").joinpath("data").iterdir():
        if path.name == "unicode.toml":
            continue
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        assert table["dated"].startswith("20"), path.name
        for key in ("model", "image", "audio", "pdf"):
            for row in table.get(key, ()):
                assert row["source"], (path.name, row)
                for value in row.values():
                    if (
                        isinstance(value, list)
                        and len(value) == 3
                        and all(isinstance(one, (int, float)) for one in value)
                    ):
                        assert value == sorted(value), (path.name, row)
