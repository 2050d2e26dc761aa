"""Events that are not as documented, in every format: counted as far as they can be, never raised about."""

import base64
import json

import pytest

from tallystick.core.usage import Usage
from tallystick.wire.eventstream import encode, event
from tallystick.wire.facts import request_facts
from tallystick.wire.reader import reader_for
from tallystick.wire.usage import read_usage

ANTHROPIC = "https://api.anthropic.com/v1/messages"
RESPONSES = "https://api.openai.com/v1/responses"
GEMINI = "https://generativelanguage.googleapis.com/v1beta/models/g:streamGenerateContent?alt=sse"
CONVERSE = "https://bedrock-runtime.us-east-1.amazonaws.com/model/m/converse-stream"
INVOKE = "https://bedrock-runtime.us-east-1.amazonaws.com/model/m/invoke-with-response-stream"
BINARY = "application/vnd.amazon.eventstream"


def read(url, raw, kind="text/event-stream", request=None, status=200, **headers):
    facts = request_facts("POST", url, {}, json.dumps(request or {"stream": True}).encode())
    reader = reader_for(facts, status, {"content-type": kind, **headers})
    reader.feed(raw)
    return reader.close()


def sse(url, *events):
    raw = b"".join(
        b"data: " + (one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n\n" for one in events
    )
    return read(url, raw)


def test_anthropic():
    odd = {"type": 5, "error": {"type": "api_error"}, "usage": {"input_tokens": 3, "output_tokens": 2}}
    outcome = sse(ANTHROPIC, odd, {"type": "content_block_delta"}, {"type": "message_start"}, {"type": "new"}, [])
    assert (outcome.usage, outcome.quality) == (Usage(input=3, output=2), "lower_bound")
    assert (outcome.error, outcome.unread) == ("api_error", 2)
    done = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    outcome = sse(ANTHROPIC, {**done, "usage": {"output_tokens": 5}})
    assert outcome.usage is None
    assert "cannot be read" in outcome.fault
    outcome = sse(ANTHROPIC, done, {"type": "message_delta", "usage": 7}, {"type": "content_block_delta", "delta": {}})
    assert (outcome.usage, outcome.finish, outcome.quality) == (None, "end_turn", "unknown")
    block = {"type": "content_block_start", "content_block": {"type": "text", "text": "Hi"}}
    outcome = sse(ANTHROPIC, block, {"type": "content_block_start"}, {"type": "content_block_stop"})
    assert (outcome.text_bytes, outcome.quality) == (2, "lower_bound")
    large = {"input_tokens": 3, "output_tokens": 2, "x": "y" * 5000}
    outcome = sse(ANTHROPIC, {**done, "usage": large})
    assert (outcome.quality, outcome.usage_raw) == ("exact", None)


def test_responses():
    usage = {"input_tokens": 3, "output_tokens": 2}
    outcome = sse(RESPONSES, {"type": "response.completed", "sequence_number": "x", "response": {"usage": usage}})
    assert (outcome.usage, outcome.quality, outcome.unread) == (Usage(input=3, output=2), "exact", 1)
    outcome = sse(RESPONSES, {"type": "response.created", "response": {"id": 5}}, {"type": "response.completed"})
    assert (outcome.usage, outcome.ended, outcome.model) == (None, True, None)
    outcome = sse(RESPONSES, {"type": "response.completed", "response": {"status": 5, "usage": usage}})
    assert (outcome.usage, outcome.quality, outcome.finish) == (Usage(input=3, output=2), "exact", None)
    outcome = sse(RESPONSES, {"type": "response.completed", "response": {"usage": {"input_tokens": -3}}})
    assert (outcome.usage, outcome.quality) == (None, "unknown")
    assert outcome.fault.startswith("a usage could not be read")
    outcome = sse(
        RESPONSES, {"type": "response.created", "response": {"id": "r", "created_at": 1e300}}, b"[DONE]", b"{"
    )
    assert (outcome.response_id, outcome.ended, outcome.unread) == ("r", True, 1)
    outcome = sse(RESPONSES, {"error": {"code": "bad"}})
    assert outcome.error == "bad"
    outcome = sse(RESPONSES, {"type": "response.created"}, {"type": "response.x", "response": None}, {"type": "error"})
    assert outcome.error == "error"


def test_media():
    url = "https://api.openai.com/v1/images/generations"
    outcome = sse(url, {"type": 5}, {"type": "error", "error": {"code": "moderation_blocked"}}, b"[DONE]")
    assert (outcome.error, outcome.unread, outcome.ended, outcome.usage) == ("moderation_blocked", 1, True, None)
    body = json.dumps({"data": [{}, {}], "size": "1024x1024"}).encode()
    outcome = read(url, body, kind="")
    assert (outcome.usage, outcome.quality, outcome.usage_raw) == (Usage(images=2), "exact", None)
    outcome = read("https://api.openai.com/v1/audio/speech", b"\xff\xfb", "audio/mpeg", {"input": "Hi", "stream": True})
    assert outcome.usage == Usage(characters_input=2)


def test_speech_with_details():
    usage = {"input_tokens": 3, "output_tokens": 9, "output_token_details": {"audio_tokens": 7}}
    assert read_usage("openai.audio.speech", usage).usage == Usage(input=3, output=2, audio_output=7)


def test_gemini():
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 2}
    outcome = sse(GEMINI, {"candidates": 5, "usageMetadata": usage}, {"candidates": 5})
    assert (outcome.usage, outcome.quality, outcome.unread) == (Usage(input=3, output=2), "lower_bound", 2)
    grounded = {"finishReason": "STOP", "groundingMetadata": {"webSearchQueries": 5}}
    outcome = sse(GEMINI, {"candidates": [grounded]}, {"usageMetadata": usage})
    assert (outcome.usage, outcome.ended, outcome.quality) == (Usage(input=3, output=2), True, "estimated")
    assert "grounded" in outcome.fault
    outcome = sse(GEMINI, {"candidates": [{"content": {}}], "error": {"status": "INTERNAL"}, "promptFeedback": {}})
    assert (outcome.error, outcome.ended, outcome.quality) == ("INTERNAL", True, "unknown")


def frames(*parts):
    return b"".join(event(kind, json.dumps(value).encode()) for kind, value in parts)


def chunks(*inner):
    coded = [base64.b64encode(json.dumps(one).encode()).decode() for one in inner]
    return frames(*[("chunk", {"bytes": text}) for text in coded])


def test_converse():
    outcome = read(
        CONVERSE, frames(("contentBlockDelta", {"delta": {"text": 5}}), ("new", {}), ("metadata", {})), BINARY
    )
    assert (outcome.usage, outcome.unread, outcome.ended) == (None, 1, True)
    outcome = read(CONVERSE, frames(("contentBlockDelta", {"delta": {"reasoningContent": {}, "toolUse": {}}})), "")
    assert (outcome.text_bytes, outcome.quality) == (0, "unknown")
    outcome = read(CONVERSE, b'{"message":"no"}', "application/json")
    assert outcome.usage is None
    outcome = read(CONVERSE, b"\0" * 30, BINARY)
    assert (outcome.quality, "checksum" in outcome.fault) == ("lower_bound", True)


def test_invoke():
    failed = encode({":message-type": "exception", ":exception-type": "throttlingException"}, b"")
    outcome = read(INVOKE, chunks({"outputText": "Hi"}) + failed, BINARY)
    assert (outcome.error, outcome.ended, outcome.text_bytes, outcome.quality) == (
        "throttlingException", True, 2, "lower_bound",
    )  # fmt: skip
    raw = frames(("chunk", {"bytes": "no base64!"}), ("chunk", {})) + chunks({"text": 5}, {"unknown": "text"}, [])
    outcome = read(INVOKE, raw, BINARY)
    assert (outcome.unread, outcome.usage, outcome.quality) == (3, None, "lower_bound")
    outcome = read(
        INVOKE, chunks({"completion": "Hi"}, {"amazon-bedrock-invocationMetrics": {"inputTokenCount": -1}}), BINARY
    )
    assert (outcome.usage, outcome.text_bytes) == (None, 2)
    assert "could not be read" in outcome.fault
    assert read(INVOKE, b"{}", "application/json", status=403).quality == "unknown"


def test_whole_bodies_of_invoke():
    url = INVOKE.replace("-with-response-stream", "")
    outcome = read(url, b'{"usage":{"tokens":3},"id":5}', "application/json")
    assert (outcome.usage, "could not be read" in outcome.fault) == (None, True)
    outcome = read(url, b'{"usage":{"prompt_tokens":3},"model":"m"}', "application/json")
    assert (outcome.usage, outcome.api, outcome.model) == (Usage(input=3), "compatible.chat", "m")
    outcome = read(url, b"{}", "application/json", **{"x-amzn-bedrock-input-token-count": "x"})
    assert (outcome.usage, outcome.quality) == (None, "unknown")


def test_ollama_and_cohere():
    url = "http://localhost:11434/api/chat"
    outcome = read(url, b'{"model":5}\n{"error":"gone"}\n', "application/x-ndjson")
    assert (outcome.error, outcome.unread, outcome.ended) == ("gone", 1, True)
    url = "https://api.cohere.com/v2/chat"
    outcome = sse(url, {"type": 5}, {"delta": {}, "type": "x"}, {"delta": {"message": {"content": []}}}, b"[DONE]")
    assert (outcome.unread, outcome.usage, outcome.ended) == (1, None, False)
    outcome = sse(url, {"event_type": "stream-end", "response": {}})
    assert (outcome.usage, outcome.ended) == (None, True)


@pytest.mark.parametrize("raw", [b'data: {"choices":[{"delta":{"content":"Hi"}}]}', b"data: [DONE]", b"data: {", b""])
def test_what_is_left_at_the_end_counts_if_it_is_whole(raw):
    outcome = read("https://api.openai.com/v1/chat/completions", raw)
    assert outcome.unread == 0
    assert outcome.text_bytes == (2 if b"Hi" in raw else 0)
    assert outcome.ended == (b"DONE" in raw)


def test_a_stream_of_no_stated_type_is_taken_as_events():
    raw = b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'
    for kind in ("", "text/plain"):
        assert read("https://api.openai.com/v1/chat/completions", raw, kind).text_bytes == 2


def test_a_whole_body_that_is_not_as_documented():
    url = "https://api.openai.com/v1/chat/completions"
    outcome = read(url, b'{"choices":[{},{"finish_reason":"stop"}],"usage":{"prompt_tokens":-1}}', "application/json")
    assert (outcome.finish, outcome.usage, outcome.quality) == ("stop", None, "unknown")
    assert outcome.fault.startswith("a usage could not be read")
    assert read(url, b'{"choices":[{}]}', "application/json").finish is None


def test_what_an_early_end_must_fit_to():
    facts = request_facts("POST", ANTHROPIC, {}, b'{"stream":true}')
    reader = reader_for(facts, 200, {"content-type": "text/event-stream"})
    assert not reader.ending().started
    start = {"id": "msg_1", "model": "m", "usage": {"input_tokens": 3, "output_tokens": 1}}
    for one in ({"type": "message_start", "message": start}, {"type": "content_block_start", "index": 1}):
        reader.feed(b"data: " + json.dumps(one).encode() + b"\n\n")
    ending = reader.ending()
    assert (ending.model, ending.response_id, ending.open_parts, ending.started) == ("m", "msg_1", (1,), True)
    assert (ending.input_tokens, ending.output_tokens) == (3, 1)
