"""What a body speaks of is found in one pass, and all of it."""

from hypothesis import given
from hypothesis import strategies as st

from tallystick.metering.bounding import traits_of
from tallystick.wire.facts import request_facts

URL = "https://api.openai.com/v1/chat/completions"
SPEAKS = {
    "media": ['"image', '"input_image', '"audio', '"input_audio', '"video', '"file', '"input_file', '"document',
              '"inlineData', '"inline_data'],
    "remembered": ['"previous_response_id"', '"conversation"', '"cachedContent"', '"cached_content"'],
    "cached": ['"cache_control"', '"cachePoint"'],
    "hour": ['"1h"'],
    "shaped": ['"modalities', '"responseModalities', '"response_modalities'],
    "system": ['"system', '"developer"', '"instructions"'],
}  # fmt: skip
MARKS = [mark for marks in SPEAKS.values() for mark in marks]


@given(st.lists(st.sampled_from([*MARKS, '"', "1h", " text ", "image", '\\"', '":', "_", '"}'])))
def test_traits_are_those_that_a_search_for_each_finds(pieces):
    body = "".join(pieces)
    facts = request_facts("POST", URL, {}, body.encode())
    traits = traits_of(facts)
    for name, marks in SPEAKS.items():
        assert getattr(traits, name) == any(mark in body for mark in marks), (name, body)
    assert traits.video == (traits.media and "video" in body)
    assert traits.audio == (traits.media and "audio" in body)


def test_speech_is_heard_of_where_nothing_is_said():
    facts = request_facts("POST", "https://api.openai.com/v1/audio/speech", {}, b'{"model": "tts-1", "input": "Hello"}')
    assert traits_of(facts).audio
    assert not traits_of(facts).media
