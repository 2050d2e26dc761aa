"""What the facts of a request leave until somebody asks, and what fields with nothing in them mean."""

import json

from tallystick.wire.facts import request_facts

URL = "https://api.openai.com/v1/chat/completions"


def facts(body):
    return request_facts("POST", URL, {}, body)


def test_pictures_are_counted_when_somebody_asks():
    picture = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    assert facts(json.dumps({"messages": [{"role": "user", "content": [picture, picture]}]}).encode()).images == 2
    assert facts(json.dumps({"messages": [{"role": "user", "content": "an image"}]}).encode()).images == 0
    deep = {"type": "image"}
    for _ in range(100):
        deep = {"image": deep}
    assert facts(json.dumps({"messages": [deep]}).encode()).images == 0
    # Cut off behind the word: nothing in it can be counted.
    found = facts(b'{"model":"m","messages":[{"type":"image"')
    assert (found.images, found.texts(), found.body_bytes) == (0, [], 40)


def test_a_rare_field_that_says_nothing_changes_nothing():
    plain = {"model": "m", "max_tokens": 7, "stream": True}
    for name in ("speed", "options", "generationConfig", "inferenceConfig", "toolConfig", "performanceConfig"):
        empty, said = facts(json.dumps({**plain, name: None}).encode()), facts(json.dumps({**plain, name: {}}).encode())
        for found in (empty, said):
            assert (found.model, found.max_output, found.stream, found.tools) == ("m", 7, True, ())
    assert facts(json.dumps({**plain, "speed": "fast"}).encode()).context["speed"] == "fast"
    assert facts(json.dumps({"model": "m", "options": {"num_predict": 5}}).encode()).max_output == 5
