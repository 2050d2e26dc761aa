"""Failures: an error in the shape of the provider that is asked. Source: the providers' error references."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tallystick.simulator.frames import Frame, Written
from tallystick.simulator.plan import Plan

_OPENAI: Final = {
    400: "invalid_request_error", 401: "invalid_request_error", 403: "invalid_request_error",
    404: "invalid_request_error", 429: "requests", 500: "server_error", 529: "server_error",
}  # fmt: skip
_ANTHROPIC: Final = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 500: "api_error", 529: "overloaded_error",
}  # fmt: skip
_GEMINI: Final = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE",
}  # fmt: skip
_BEDROCK: Final = {
    400: "ValidationException", 401: "UnrecognizedClientException", 403: "AccessDeniedException",
    404: "ResourceNotFoundException", 408: "ModelTimeoutException", 429: "ThrottlingException",
    500: "InternalServerException", 503: "ServiceUnavailableException",
}  # fmt: skip
_CODES: Final = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}
_WORDS: Final = {
    400: "The request is not valid.",
    401: "The API key is not valid.",
    403: "This key may not do that.",
    404: "There is no such thing here.",
    408: "The request took too long.",
    409: "The request contradicts another one.",
    413: "The request is too large.",
    429: "Too many requests. Slow down.",
    500: "The server failed.",
    502: "Bad gateway.",
    503: "The service is not available.",
    529: "Overloaded.",
}


def failure(provider: str, status: int, message: str | None = None) -> tuple[dict[str, str], bytes]:
    """Headers and body of an error."""
    words = message or _WORDS.get(status, "The request failed.")
    headers = {"content-type": "application/json"}
    payload: dict[str, Any]
    if provider == "anthropic":
        payload = {"type": "error", "error": {"type": _ANTHROPIC.get(status, "api_error"), "message": words}}
    elif provider == "gemini":
        payload = {"error": {"code": status, "message": words, "status": _GEMINI.get(status, "UNKNOWN")}}
    elif provider == "bedrock":
        headers["x-amzn-errortype"] = _BEDROCK.get(status, "InternalServerException")
        payload = {"message": words}
    elif provider == "ollama":
        payload = {"error": words}
    else:
        kind = _OPENAI.get(status, "server_error" if status >= 500 else "invalid_request_error")
        payload = {"error": {"message": words, "type": kind, "param": None, "code": _CODES.get(status)}}
    return headers, msgspec.json.encode(payload)


def failing(written: Written, plan: Plan) -> Written:
    """The stream with an error event in the place of what would follow, where the script says so."""
    after = plan.answer.error_after
    if after is None or written.framing in ("json", "text") or after >= len(written.frames):
        return written
    return msgspec.structs.replace(written, frames=(*written.frames[:after], _event(plan, after)))


def _event(plan: Plan, number: int) -> Frame:
    words = plan.answer.message
    if plan.provider == "bedrock":
        payload = msgspec.json.decode(failure("bedrock", 500, words)[1])
        return Frame(payload, name="internalServerException", failed=True)
    if plan.api == "openai.responses":
        said = {"message": words or _WORDS[500], "param": None, "sequence_number": number, "type": "error"}
        return Frame({"code": "server_error", **said}, "", "openai.types.responses:ResponseErrorEvent", "error")
    status, name = (529, "error") if plan.provider == "anthropic" else (500, None)
    return Frame(msgspec.json.decode(failure(plan.provider, status, words)[1]), name=name)
