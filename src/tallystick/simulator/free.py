"""Free: what providers answer without a bill: lists of models, counts of tokens."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tallystick.simulator.chat import CREATED
from tallystick.simulator.plan import prompt_tokens
from tallystick.simulator.request import Request

_MODEL: Final = "simulated"


def free_answer(request: Request) -> bytes | None:
    """The body of a free answer, or None where the path is not one of these."""
    payload: dict[str, Any]
    if request.api == "openai.models":
        model = {"id": _MODEL, "created": CREATED, "object": "model", "owned_by": "simulator"}
        payload = {"object": "list", "data": [model]}
    elif request.api == "anthropic.count":
        payload = {"input_tokens": prompt_tokens(request)}
    elif request.api == "gemini.count":
        payload = {"totalTokens": prompt_tokens(request)}
    else:
        return None
    return msgspec.json.encode(payload)
