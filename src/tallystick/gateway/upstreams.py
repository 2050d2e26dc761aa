"""Upstream: where calls go on to. A name in the path of the gateway stands for a provider's base URL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import msgspec

from tallystick.core.models import provider_id
from tallystick.errors import ConfigError

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_PAGES: Final = ("login", "spend", "runs", "tokens", "models", "budgets", "quality", "rates", "calls")
_RESERVED: Final = frozenset(("tally", "v1", "metrics", "static", "healthz", *_PAGES))


class Upstream(msgspec.Struct, frozen=True):
    """A provider's base URL, exactly as its SDK would be given it; `provider` is who bills (None: the host says)."""

    name: str
    url: str
    provider: str | None = None

    def target(self, rest: str, query: str) -> str:
        """The URL that a path below the upstream's name stands for: `/v1` is not said twice where the base URL ends in
        it."""
        if self.url.endswith("/v1") and (rest == "/v1" or rest.startswith("/v1/")):
            rest = rest[3:]
        return f"{self.url}{rest}?{query}" if query else f"{self.url}{rest}"


BUILT_IN: Final[Mapping[str, Upstream]] = {
    name: Upstream(name, url, provider)
    for name, url, provider in (
        ("openai", "https://api.openai.com/v1", "openai"),
        ("anthropic", "https://api.anthropic.com", "anthropic"),
        ("gemini", "https://generativelanguage.googleapis.com", "google"),
        ("bedrock", "https://bedrock-runtime.us-east-1.amazonaws.com", "aws"),
        ("openrouter", "https://openrouter.ai/api/v1", "openrouter"),
        ("mistral", "https://api.mistral.ai/v1", "mistral"),
        ("deepseek", "https://api.deepseek.com/v1", "deepseek"),
        ("xai", "https://api.x.ai/v1", "x-ai"),
        ("groq", "https://api.groq.com/openai/v1", "groq"),
        ("together", "https://api.together.xyz/v1", "together"),
        ("perplexity", "https://api.perplexity.ai", "perplexity"),
        ("cohere", "https://api.cohere.com", "cohere"),
    )
}
"""Source: the base URL that each provider's own SDK has as its default."""


def upstream(name: str, url: str, provider: str | None = None) -> Upstream:
    """A checked upstream. One of a built-in name keeps its provider. Raises ConfigError."""
    if _NAME.fullmatch(name) is None or name in _RESERVED:
        raise ConfigError(
            f"An upstream cannot be named {name!r}.",
            todo="Use lower-case letters, digits, - and _, as in [upstreams.vllm].",
        )
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        port_is_fine = False
    if not port_is_fine or parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError(
            f"The URL of upstream {name!r} makes no sense.",
            todo="Give what the SDK's base_url would be: https://host/v1.",
        )
    if parts.username or parts.password:
        raise ConfigError(
            f"The URL of upstream {name!r} holds a password.", todo="Keep keys in the environment or a secrets file."
        )
    known = BUILT_IN.get(name)
    biller = provider_id(provider) if provider else known.provider if known else None
    return Upstream(name, url.rstrip("/"), biller)


def upstreams(stated: Mapping[str, Upstream], env: Mapping[str, str], given: Mapping[str, str]) -> dict[str, Upstream]:
    """All upstreams in force: those of the configuration, over them `TALLY_UPSTREAM_<NAME>`, over them those given on
    the command line as NAME=URL. Raises ConfigError."""
    found = {**BUILT_IN, **stated}
    for key, url in env.items():
        if key.startswith("TALLY_UPSTREAM_") and url:
            name = key.removeprefix("TALLY_UPSTREAM_").lower()
            found[name] = upstream(name, url, _provider(found, name))
    for name, url in given.items():
        found[name] = upstream(name, url, _provider(found, name))
    return found


def _provider(found: Mapping[str, Upstream], name: str) -> str | None:
    return found[name].provider if name in found else None
