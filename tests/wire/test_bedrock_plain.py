"""A Converse usage without any cache fields, as models without a cache send it."""

from tallystick.core.usage import Usage
from tallystick.wire.usage import read_response, read_usage


def test_a_usage_without_cache_fields():
    reading = read_usage("bedrock.converse", {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3})
    assert reading.usage == Usage(input=1, output=2)
    assert reading.fault is None
    body = b'{"usage": {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}}'
    assert read_response("bedrock.converse", body).usage == Usage(input=1, output=2)
