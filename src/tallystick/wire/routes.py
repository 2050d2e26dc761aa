"""Routes: which API a URL belongs to, who bills it, and what the URL itself says of the call.

A path is known by how it ends, for base URLs and gateways put different things before it; the host says who bills.
Source: the API references of the providers named here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from tallystick.core.models import provider_id
from tallystick.errors import InputError
from tallystick.wire.shapes import CHATS

_HOSTS: Final = (
    ("api.openai.com", "openai"), ("openai.azure.com", "azure"), ("services.ai.azure.com", "azure"),
    ("cognitiveservices.azure.com", "azure"), ("api.anthropic.com", "anthropic"),
    ("generativelanguage.googleapis.com", "google"), ("aiplatform.googleapis.com", "vertex"),
    ("api.mistral.ai", "mistral"), ("codestral.mistral.ai", "mistral"), ("api.deepseek.com", "deepseek"),
    ("api.x.ai", "x-ai"), ("api.groq.com", "groq"), ("api.together.xyz", "together"), ("api.together.ai", "together"),
    ("openrouter.ai", "openrouter"), ("api.perplexity.ai", "perplexity"), ("api.cohere.com", "cohere"),
    ("api.cohere.ai", "cohere"),
)  # fmt: skip
_AWS: Final = re.compile(r"bedrock-runtime(?:-fips)?\.(?P<region>[a-z0-9-]+)\.(?:amazonaws\.com(?:\.cn)?|api\.aws)")
_VERTEX: Final = re.compile(r"(?:[a-z0-9-]+-aiplatform\.googleapis\.com|aiplatform\.[a-z]+\.rep\.googleapis\.com)")
_RESIDENCY: Final = re.compile(r"(?P<area>[a-z]{2})\.api\.openai\.com")
_LOCATION: Final = re.compile(r"/locations/([a-z0-9-]+)/")
_DEPLOYMENT: Final = re.compile(r"/openai/deployments/([^/]+)/")


class Route(msgspec.Struct, frozen=True):
    """What a URL says. `model` and `stream` are None where the body says them; `context` holds region, deployment and
    data residency."""

    api: str
    provider: str
    path: str
    model: str | None = None
    stream: bool | None = None
    context: dict[str, str] = {}


def _chat(provider: str) -> str:
    return CHATS.get(provider, "compatible.chat")


def _responses(provider: str) -> str:
    return "xai.responses" if provider == "x-ai" else "openai.responses"


def _audio(provider: str) -> str:
    return "groq.audio" if provider == "groq" else "openai.audio.transcriptions"


def _always(api: str) -> Callable[[str], str]:
    return lambda _provider: api


_NAME: Final = "(?P<model>[^/]+)"
_MODEL: Final = f"/{_NAME}"
_GENERATE: Final = "generateContent|streamGenerateContent"
_PATHS: Final = tuple(
    (re.compile(rf"{pattern}\Z"), biller, api)
    for pattern, biller, api in (
        (r"/(?:chat/)?completions", "openai", _chat),
        (r"/responses", "openai", _responses),
        (r"/embeddings", "openai", _always("openai.embeddings")),
        (r"/images/(?:generations|edits|variations)", "openai", _always("openai.images")),
        (r"/audio/(?:transcriptions|translations)", "openai", _audio),
        (r"/audio/speech", "openai", _always("openai.audio.speech")),
        (r"/v1/messages", "anthropic", _always("anthropic.messages")),
        (rf"/publishers/anthropic/models{_MODEL}:(?P<verb>rawPredict|streamRawPredict)", "vertex",
         _always("anthropic.messages")),
        (rf"/(?P<vertex>publishers/google/|endpoints/)?(?:models/)?{_NAME}:(?P<verb>{_GENERATE})", "google",
         _always("gemini.generateContent")),
        (rf"/model{_MODEL}/(?P<verb>converse|converse-stream)", "aws", _always("bedrock.converse")),
        (rf"/model{_MODEL}/(?P<verb>invoke|invoke-with-response-stream)", "aws", _always("bedrock.invoke")),
        (r"/api/(?:chat|generate)", "ollama", _always("ollama.chat")),
    )
)  # fmt: skip
_STREAMS: Final = frozenset(
    {"streamGenerateContent", "streamRawPredict", "converse-stream", "invoke-with-response-stream"}
)
_COHERE: Final = re.compile(r"/v[12]/(chat|rerank|embed)\Z")
_FREE: Final = re.compile(
    r"(?:/v1/messages/count_tokens|/responses/input_tokens|/moderations|:countTokens|:computeTokens|/count-tokens"
    r"|/api/(?:show|tags|ps|version)|/tokenize|/detokenize)\Z"
)
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_BACKGROUND: Final = re.compile(r"/(?:responses|batches|videos|files|realtime)(?:/|$)")


def route(method: str, url: str, provider: str | None = None) -> Route | None:
    """The API that a request calls, or None where no reader knows the path.

    `url` is a whole URL or a path; `provider` names who bills where the caller knows better than the host (a gateway
    does). A host that is nobody's we know bills as `other:<host>`; a path alone bills as the maker of its format.
    """
    return _at(url, provider) if method.upper() == "POST" else None


@lru_cache(maxsize=256)
def _at(url: str, provider: str | None) -> Route | None:
    return _routed(*_split(url), provider)


@lru_cache(maxsize=512)
def _routed(host: str, path: str, provider: str | None) -> Route | None:
    found = _match(path, host, provider)
    if found is None:
        return None
    match, biller, api = found
    parts = match.groupdict()
    model, verb = parts.get("model"), parts.get("verb")
    if parts.get("vertex") and biller == "google":
        biller = "vertex"
    return Route(
        api,
        biller,
        path,
        None if model is None else unquote(model),
        None if verb is None else verb in _STREAMS,
        _context(host, path),
    )


def is_free(method: str, url: str) -> bool:
    """Whether a request that has no route is known to cost nothing: counting tokens, moderation, listing models.
    Reading a stored response or batch is not one of these: its usage may be somebody's first sight of a cost."""
    path = _split(url)[1]
    if method.upper() in _READS:
        return _BACKGROUND.search(path) is None
    return _FREE.search(path) is not None


def _split(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return "", ""
    return host.lower().rstrip("."), parts.path.rstrip("/")


def _match(path: str, host: str, provider: str | None) -> tuple[re.Match[str], str, str] | None:
    stated = _biller(host, provider)
    if stated == "cohere":
        match = _COHERE.search(path)
        if match is not None:
            return match, "cohere", f"cohere.{match[1]}"
    for pattern, usual, api in _PATHS:
        match = pattern.search(path)
        if match is not None:
            biller = stated or usual
            if usual == "ollama" and provider is None and biller.startswith("other:"):
                # Ollama runs on anybody's host, and nobody else has these paths.
                biller = usual
            return match, biller, api(biller)
    return None


def _biller(host: str, provider: str | None) -> str | None:
    """Who bills: as the caller says, else by the host, else not said."""
    name = provider or _of_host(host)
    if not name:
        return None
    try:
        return provider_id(name)
    except InputError:
        return "other:unnamed"


def _of_host(host: str) -> str:
    for known, name in _HOSTS:
        if host == known or host.endswith(f".{known}"):
            return name
    if _AWS.search(host):
        return "aws"
    if _VERTEX.fullmatch(host):
        return "vertex"
    return f"other:{host}"[:64] if host else ""


def _context(host: str, path: str) -> dict[str, str]:
    found = {}
    aws, residency = _AWS.search(host), _RESIDENCY.fullmatch(host)
    location, deployment = _LOCATION.search(path), _DEPLOYMENT.search(path)
    if aws is not None:
        found["region"] = aws["region"]
    elif location is not None:
        found["region"] = location[1]
    if residency is not None:
        found["data_residency"] = residency["area"]
    if deployment is not None:
        found["deployment"] = unquote(deployment[1])
    return found
