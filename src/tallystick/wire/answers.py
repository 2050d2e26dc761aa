"""Answers of our own, in the provider's shape: the end of a stream that we cut, and the refusal of a call.

Source: the error and streaming pages of each provider's API reference; botocore's retry rules for Bedrock's status.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from tallystick.wire import eventstream
from tallystick.wire.heard import Ending

_json: Final = msgspec.json.encode


def end_event(api: str, reason: str = "length", ending: Ending | None = None, *, array: bool = False) -> bytes:
    """The final events of a stream that was cut by us between two events, in the format's own words.

    `reason` is `length` (the budget allows no more) or `stop`. `ending` comes from `Reader.ending()` and makes ids,
    open blocks and numbers fit. `array` is for Gemini's streams that are a JSON array. Empty for an API whose stream
    has no early end.
    """
    make = _ENDS.get(api, _chat_end if api.endswith(".chat") else None)
    if make is None:
        return b""
    return make(reason == "length", ending or Ending(), array)


def _sse(value: Mapping[str, Any]) -> bytes:
    return b"data: %b\n\n" % _json(value)


def _named(value: Mapping[str, Any]) -> bytes:
    return b"event: %b\n%b" % (str(value["type"]).encode(), _sse(value))


def _chat_end(cut: bool, ending: Ending, _array: bool) -> bytes:
    chunk = {
        "id": ending.response_id or "chatcmpl-tally",
        "object": "chat.completion.chunk",
        "created": ending.created or 0,
        "model": ending.model or "",
    }
    word = "length" if cut else "stop"
    ends = [
        _sse({**chunk, "choices": [{"index": index, "delta": {}, "logprobs": None, "finish_reason": word}]})
        for index in ending.open_parts or (0,)
    ]
    return b"".join([*ends, b"data: [DONE]\n\n"])


def _message_events(cut: bool, ending: Ending) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    if not ending.started:
        message: dict[str, Any] = {
            "id": ending.response_id or "msg_tally",
            "type": "message",
            "role": "assistant",
            "model": ending.model or "",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        events.append({"type": "message_start", "message": message})
    events += [{"type": "content_block_stop", "index": index} for index in ending.open_parts]
    delta = {"stop_reason": "max_tokens" if cut else "end_turn", "stop_sequence": None}
    events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": ending.output_tokens}})
    events.append({"type": "message_stop"})
    return events


def _messages_end(cut: bool, ending: Ending, _array: bool) -> bytes:
    return b"".join(map(_named, _message_events(cut, ending)))


def _responses_end(cut: bool, ending: Ending, _array: bool) -> bytes:
    response: dict[str, Any] = {
        "id": ending.response_id or "resp_tally",
        "object": "response",
        "created_at": ending.created or 0,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": ending.model or "",
        "output": [],
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "usage": None,
    }
    number = ending.sequence
    events = []
    if not ending.started:
        events.append({"type": "response.created", "sequence_number": number, "response": response})
        number += 1
    details = {"reason": "max_output_tokens"} if cut else None
    last = {**response, "status": "incomplete" if cut else "completed", "incomplete_details": details}
    kind = "response.incomplete" if cut else "response.completed"
    events.append({"type": kind, "sequence_number": number, "response": last})
    return b"".join(map(_named, events))


def _gemini_end(cut: bool, ending: Ending, array: bool) -> bytes:
    chunk: dict[str, Any] = {
        "candidates": [
            {
                "content": {"parts": [{"text": ""}], "role": "model"},
                "finishReason": "MAX_TOKENS" if cut else "STOP",
                "index": index,
            }
            for index in ending.open_parts or (0,)
        ],
        "usageMetadata": {
            "promptTokenCount": ending.input_tokens,
            "candidatesTokenCount": ending.output_tokens,
            "totalTokenCount": ending.input_tokens + ending.output_tokens,
        },
        "modelVersion": ending.model or "",
        "responseId": ending.response_id or "tally",
    }
    if array:
        return b"%b%b]" % (b",\r\n" if ending.started else b"[", _json(chunk))
    return b"data: %b\r\n\r\n" % _json(chunk)


def _converse_end(cut: bool, ending: Ending, _array: bool) -> bytes:
    total = ending.input_tokens + ending.output_tokens
    usage = {"inputTokens": ending.input_tokens, "outputTokens": ending.output_tokens, "totalTokens": total}
    events: list[tuple[str, dict[str, Any]]] = [] if ending.started else [("messageStart", {"role": "assistant"})]
    events += [("contentBlockStop", {"contentBlockIndex": index}) for index in ending.open_parts]
    events.append(("messageStop", {"stopReason": "max_tokens" if cut else "end_turn"}))
    events.append(("metadata", {"usage": usage, "metrics": {"latencyMs": 0}}))
    return b"".join(eventstream.event(kind, _json(value)) for kind, value in events)


def _invoke_end(cut: bool, ending: Ending, _array: bool) -> bytes:
    """Anthropic's events where its stream was seen (it has an id); otherwise one chunk with the end in the words of the
    other makers."""
    inner = _message_events(cut, ending)
    if ending.response_id is None:
        word = "length" if cut else "stop"
        counts = {"inputTokenCount": ending.input_tokens, "outputTokenCount": ending.output_tokens}
        last = {"generation": "", "stop_reason": word, "outputText": "", "completionReason": word.upper()}
        inner = [{**last, "amazon-bedrock-invocationMetrics": counts}]
    return b"".join(
        eventstream.event("chunk", _json({"bytes": base64.b64encode(_json(event)).decode()})) for event in inner
    )


def _ollama_end(cut: bool, ending: Ending, _array: bool) -> bytes:
    line = {
        "model": ending.model or "",
        "created_at": "1970-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": ""},
        "response": "",
        "done": True,
        "done_reason": "length" if cut else "stop",
    }
    return _json(line) + b"\n"


def _cohere_end(cut: bool, _ending: Ending, _array: bool) -> bytes:
    return _named({"type": "message-end", "delta": {"finish_reason": "MAX_TOKENS" if cut else "COMPLETE"}})


_ENDS: Final[Mapping[str, Callable[[bool, Ending, bool], bytes]]] = {
    "anthropic.messages": _messages_end,
    "openai.responses": _responses_end,
    "xai.responses": _responses_end,
    "gemini.generateContent": _gemini_end,
    "bedrock.converse": _converse_end,
    "bedrock.invoke": _invoke_end,
    "ollama.chat": _ollama_end,
    "cohere.chat": _cohere_end,
}

_OPENAI: Final = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "invalid_request_error", 429: "insufficient_quota",
}  # fmt: skip
_ANTHROPIC: Final = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error",
}  # fmt: skip
_GOOGLE: Final = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    413: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE",
}  # fmt: skip
_BEDROCK: Final = {
    400: "ValidationException", 401: "AccessDeniedException", 403: "AccessDeniedException",
    404: "ResourceNotFoundException", 413: "ValidationException", 429: "ServiceQuotaExceededException",
    503: "ServiceUnavailableException",
}  # fmt: skip
_AWS_STATUS: Final = {401: 403, 413: 400, 429: 400}
"""botocore sends a 429 again, whatever its type; a ServiceQuotaExceededException is a 400 and is not sent again."""


def refusal(
    api: str, message: str, *, status: int = 429, code: str = "budget_exceeded", retry_after: int | None = None
) -> tuple[int, dict[str, str], bytes]:
    """An error of our own in the provider's shape: status, headers (names in lower case) and body.

    `x-should-retry: false` makes the SDKs of OpenAI and Anthropic raise their own error after one attempt. `status` is
    400, 401, 403, 404, 413, 429, 500 or 503; `code` is a word for programs; `retry_after` is in seconds and only told
    where waiting helps.
    """
    headers = {"content-type": "application/json", "x-should-retry": "false", "x-tally-refused": code}
    if retry_after is not None:
        headers["retry-after"] = str(retry_after)
    body: dict[str, Any]
    if api.startswith("anthropic."):
        kind = _ANTHROPIC.get(status, "api_error")
        body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": None}
    elif api.startswith("gemini."):
        body = {"error": {"code": status, "message": message, "status": _GOOGLE.get(status, "INTERNAL")}}
    elif api.startswith("bedrock."):
        headers["x-amzn-errortype"] = _BEDROCK.get(status, "InternalServerException")
        status = _AWS_STATUS.get(status, status)
        body = {"message": message}
    elif api.startswith("cohere."):
        body = {"message": message}
    elif api.startswith("ollama."):
        body = {"error": message}
    elif api.startswith("mistral."):
        body = {
            "object": "error",
            "message": message,
            "type": _OPENAI.get(status, "api_error"),
            "param": None,
            "code": code,
        }
    else:
        kind = _OPENAI.get(status, "api_error")
        body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    raw = _json(body)
    headers["content-length"] = str(len(raw))
    return status, headers, raw
