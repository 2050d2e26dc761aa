"""The word each provider uses for a status, so that its SDK raises the error of that name."""

import json

import pytest

from tallystick.wire.transform import refusal

WORDS = {
    400: ("invalid_request_error", "invalid_request_error", "INVALID_ARGUMENT", (400, "ValidationException")),
    401: ("authentication_error", "authentication_error", "UNAUTHENTICATED", (403, "AccessDeniedException")),
    403: ("permission_error", "permission_error", "PERMISSION_DENIED", (403, "AccessDeniedException")),
    404: ("not_found_error", "not_found_error", "NOT_FOUND", (404, "ResourceNotFoundException")),
    413: ("invalid_request_error", "request_too_large", "INVALID_ARGUMENT", (400, "ValidationException")),
    429: ("insufficient_quota", "rate_limit_error", "RESOURCE_EXHAUSTED", (400, "ServiceQuotaExceededException")),
    500: ("api_error", "api_error", "INTERNAL", (500, "InternalServerException")),
    503: ("api_error", "api_error", "UNAVAILABLE", (503, "ServiceUnavailableException")),
}


@pytest.mark.parametrize("asked", WORDS)
def test_each_provider_has_its_own_word(asked):
    openai, anthropic, google, bedrock = WORDS[asked]
    status, _, body = refusal("openai.chat", "No.", status=asked)
    assert (status, json.loads(body)["error"]["type"]) == (asked, openai)
    status, _, body = refusal("anthropic.messages", "No.", status=asked)
    assert (status, json.loads(body)["error"]["type"]) == (asked, anthropic)
    status, _, body = refusal("gemini.generateContent", "No.", status=asked)
    assert (status, json.loads(body)["error"]["status"]) == (asked, google)
    status, headers, _ = refusal("bedrock.converse", "No.", status=asked)
    assert (status, headers["x-amzn-errortype"]) == bedrock
