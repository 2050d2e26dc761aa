"""ModelRef: what a model is called, taken apart by rule. No name is known here; the catalogue decides what exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import msgspec

from tallystick.errors import InputError

PROVIDERS: Final = (
    "openai", "anthropic", "google", "vertex", "aws", "azure", "x-ai", "mistral", "deepseek", "groq", "cohere",
    "perplexity", "openrouter", "together", "vllm", "ollama",
)  # fmt: skip
"""Who bills. Anybody else is `other:<name>`."""

_ALIASES: Final = {
    "bedrock": "aws", "bedrock_converse": "aws", "bedrock_mantle": "aws", "amazon": "aws", "aws_bedrock": "aws",
    "vertex_ai": "vertex", "vertexai": "vertex", "gemini": "google", "google_genai": "google", "xai": "x-ai",
    "grok": "x-ai", "azure_ai": "azure", "azure_openai": "azure", "together_ai": "together", "mistralai": "mistral",
    "gcp.vertex_ai": "vertex", "gcp.gemini": "google", "gcp.gen_ai": "google", "aws.bedrock": "aws",
    "azure.ai.openai": "azure", "azure.ai.inference": "azure", "mistral_ai": "mistral", "hosted_vllm": "vllm",
}  # fmt: skip
"""Names that other tools and OpenTelemetry give to providers."""

_GEO: Final = re.compile(r"(global|us-gov|us|eu|apac|au|jp|ca|sa|me|af|in|uk|mx)\.(?=[a-z0-9-]+\.)")
_ARN: Final = re.compile(r"arn:aws[a-z-]*:bedrock:(?P<region>[a-z0-9-]*):\d*:(?P<type>[a-z-]+)/(?P<id>.+)")
_DATE: Final = re.compile(r"-(20\d\d)-?(0[1-9]|1[0-2])-?(0[1-9]|[12]\d|3[01])$")
_VERTEX: Final = re.compile(r"@(20\d{6}|default|latest|\d{3})$")
_BEDROCK_VERSION: Final = re.compile(r"-v\d+(:\d+)?(:\d+k|:mm)?$|:\d+$")
_BEDROCK_ID: Final = re.compile(r"[a-z][a-z0-9]*\.[a-z]")
_PATHS: Final = re.compile(
    r"^(?:projects/[^/]+/locations/(?P<region>[^/]+)/)?(?:publishers/[^/]+/)?(?:models|endpoints)/"
)


class ModelRef(msgspec.Struct, frozen=True):
    """A model name taken apart: `id` is what the catalogue is asked for, at `provider` (None: not said).

    `base` and `suffix` split a routing suffix (`:free`), `fine_tune_of` is the base of a fine-tuned id, `geo` a Bedrock
    profile's area (`global`, `us`, ...; empty for a bare id), `region` a cloud region named in an ARN or path.
    """

    text: str
    id: str
    provider: str | None = None
    suffix: str = ""
    fine_tune_of: str | None = None
    geo: str = ""
    region: str = ""

    def candidates(self) -> Iterator[tuple[str, str]]:
        """The ids to look up, best first, each with the rule that made it: `exact`, `dated`, `version`, `latest`.

        Only spelling that is known to name the same model is dropped: a release date, a Vertex or Bedrock version, a
        `-latest`. Nothing is matched by how it begins.
        """
        yield self.id, "exact"
        # Elsewhere a "-v3" is part of the name: only Bedrock's ids carry a version after the model's own.
        bedrock = self.provider == "aws" or (self.provider is None and _BEDROCK_ID.match(self.id) is not None)
        plain = (_BEDROCK_VERSION if bedrock else _VERTEX).sub("", self.id)
        if plain != self.id:
            yield plain, "version"
        bare = _DATE.sub("", plain)
        if bare != plain:
            yield bare, "dated"
        if bare.endswith("-latest"):
            yield bare.removesuffix("-latest"), "latest"


@lru_cache(maxsize=256)
def provider_id(name: str) -> str:
    """The provider's id of a name in any usual spelling; `other:<name>` for one we do not know. Raises InputError for
    an empty or unprintable name."""
    lowered = name.strip().lower()
    if not lowered or len(lowered) > 64 or not lowered.isprintable():
        raise InputError(f"{name!r} is not the name of a provider.", todo=f"Known: {', '.join(PROVIDERS)}.")
    known = _ALIASES.get(lowered, lowered)
    if known == "other:":
        raise InputError("The provider 'other:' has no name.", todo="Write other:<name>.")
    return known if known in PROVIDERS or known.startswith("other:") else f"other:{known}"


def parse_model(text: str, provider: str | None = None) -> ModelRef:
    """Takes a model name apart: ARNs, Bedrock profiles, Vertex paths and versions, `ft:` ids, `provider/` prefixes,
    OpenRouter suffixes. With `provider` given the name is read as that provider writes it. Raises InputError for an
    empty, overlong or unprintable name."""
    name = text.strip()
    if not name or len(name) > 512 or not name.isprintable():
        raise InputError(f"{text[:80]!r} is not a model name.", todo="Give the id that you send to the provider.")
    biller = None if provider is None else provider_id(provider)
    arn = _ARN.fullmatch(name)
    if arn is not None:
        return _bedrock(text, arn["id"], arn["region"])
    if biller is None:
        biller, name = _prefixed(name)
    else:
        stated, rest = _prefixed(name)
        name = rest if stated == biller else name
    if biller == "aws":
        return _bedrock(text, name, "")
    path = _PATHS.match(name)
    region = ""
    if path is not None:
        region, name = path["region"] or "", name[path.end() :]
        biller = "vertex" if biller is None and region else biller
    name = name.lower()
    if name.startswith("ft:"):
        base = ":".join(name.split(":")[:2])
        return ModelRef(text, name, biller, fine_tune_of=base)
    if biller == "openrouter" and ":" in name:
        base, _, suffix = name.rpartition(":")
        return ModelRef(text, name if suffix == "free" else base, biller, suffix=suffix)
    return ModelRef(text, name, biller, region=region)


def _prefixed(name: str) -> tuple[str | None, str]:
    """Splits `provider/model` where the first part names a provider; anything else stays whole, as does OpenRouter's
    own `openrouter/auto`."""
    head, slash, rest = name.partition("/")
    known = _ALIASES.get(head.lower(), head.lower())
    if slash and rest and known in PROVIDERS:
        return known, name if known == "openrouter" and "/" not in rest else rest
    return ("aws", name) if _GEO.match(name) else (None, name)


def _bedrock(text: str, name: str, region: str) -> ModelRef:
    lowered = name.lower()
    geo = _GEO.match(lowered)
    if geo is None:
        return ModelRef(text, lowered, "aws", region=region)
    return ModelRef(text, lowered[geo.end() :], "aws", geo=geo[1], region=region)
