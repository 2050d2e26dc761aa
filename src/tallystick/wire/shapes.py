"""api_of(): which API a usage object belongs to, told by who bills and by its keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tallystick.core.models import provider_id
from tallystick.core.usage import is_kind
from tallystick.errors import InputError, UsageError
from tallystick.wire.formats import APIS, OWN

CHATS: Final = {
    "openai": "openai.chat", "azure": "openai.chat", "mistral": "mistral.chat", "deepseek": "deepseek.chat",
    "groq": "groq.chat", "x-ai": "xai.chat", "openrouter": "openrouter.chat", "perplexity": "perplexity.chat",
    "together": "together.chat", "vllm": "vllm.chat",
}  # fmt: skip
"""The API of a usage with prompt_tokens, by provider; every other provider speaks `compatible.chat`."""

_MESSAGES: Final = frozenset(
    {"cache_creation_input_tokens", "cache_read_input_tokens", "cache_creation", "server_tool_use"}
)
_DETAILS: Final = frozenset({"input_tokens_details", "output_tokens_details"})


def api_of(provider: str, usage: Mapping[str, object] | Sequence[object]) -> str:
    """The API whose usage object this is.

    A mapping whose keys are all kinds of ours (`input`, `output`, `cache_read`, ...) is a usage already. Raises
    UsageError that names the candidates where provider and keys do not decide.
    """
    try:
        biller = provider_id(provider)
    except (InputError, AttributeError):
        raise UsageError(f"{provider!r} is not the name of a provider.") from None
    if isinstance(usage, Mapping):
        keys = frozenset(key for key in usage if isinstance(key, str))
        if keys and len(keys) == len(usage) and all(map(is_kind, keys)):
            return OWN
        candidates = _candidates(biller, keys, usage)
    elif isinstance(usage, list | tuple):
        candidates = ["anthropic.messages.stream"]
        if usage and not all(isinstance(event, Mapping) and {"message", "usage"} & set(event) for event in usage):
            candidates = []
    else:
        raise UsageError(f"A usage is an object or a list of stream events, not {type(usage).__name__}.")
    if len(candidates) == 1:
        return candidates[0]
    known = candidates or [api for api, providers in APIS.items() if biller in providers] or list(APIS)
    raise UsageError(
        f"The keys of this usage do not say which API of {biller} it is from.",
        todo=f"Say which with api=, one of: {', '.join(known)}.",
    )


def _candidates(biller: str, keys: frozenset[str], usage: Mapping[str, object]) -> list[str]:
    if keys & {"promptTokenCount", "candidatesTokenCount", "totalTokenCount"}:
        return ["gemini.generateContent"]
    if "inputTokens" in keys:
        return ["bedrock.converse"]
    if "billed_units" in keys:
        units = usage["billed_units"]
        rerank = isinstance(units, Mapping) and "search_units" in units and "input_tokens" not in units
        return ["cohere.rerank" if rerank else "cohere.chat"]
    if keys & {"prompt_eval_count", "eval_count"}:
        return ["ollama.chat"]
    if "prompt_tokens" in keys:
        chat = CHATS.get(biller, "compatible.chat")
        return ["openai.embeddings" if chat == "openai.chat" and "completion_tokens" not in keys else chat]
    if "seconds" in keys:
        return ["groq.audio" if biller == "groq" else "openai.audio.transcriptions"]
    return _by_input_tokens(biller, keys, usage) if "input_tokens" in keys else []


def _by_input_tokens(biller: str, keys: frozenset[str], usage: Mapping[str, object]) -> list[str]:
    if biller == "x-ai":
        return ["xai.responses"]
    if biller in ("anthropic", "aws", "vertex") or keys & _MESSAGES:
        return ["anthropic.messages"]
    if "type" in keys:
        return ["openai.audio.transcriptions"]
    if keys & {"input_token_details", "output_token_details"}:
        return ["openai.realtime"]
    details = usage.get("input_tokens_details")
    if isinstance(details, Mapping) and "image_tokens" in details and "cached_tokens" not in details:
        return ["openai.images"]
    if biller in ("openai", "azure") or keys & _DETAILS:
        return ["openai.responses"]
    return ["openai.responses", "anthropic.messages"]
