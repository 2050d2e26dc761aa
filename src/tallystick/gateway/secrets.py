"""Secrets: the providers' keys that the gateway holds for those who bear a virtual key, and where each provider wants
its own. They are read from the environment or from files that only their owner may read."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from tallystick.errors import ConfigError

STYLES: Final = ("bearer", "x-api-key", "x-goog-api-key", "api-key", "none")
"""How a provider takes a key: in `authorization: Bearer`, or in a header of its own; none where it takes no key."""

_STYLE: Final = {"anthropic": "x-api-key", "google": "x-goog-api-key", "azure": "api-key"}
_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "openai": ("OPENAI_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY",),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "bedrock": ("AWS_BEARER_TOKEN_BEDROCK",),
    "openrouter": ("OPENROUTER_API_KEY",),
    "mistral": ("MISTRAL_API_KEY",),
    "deepseek": ("DEEPSEEK_API_KEY",),
    "xai": ("XAI_API_KEY",),
    "groq": ("GROQ_API_KEY",),
    "together": ("TOGETHER_API_KEY",),
    "perplexity": ("PERPLEXITY_API_KEY", "PPLX_API_KEY"),
    "cohere": ("COHERE_API_KEY", "CO_API_KEY"),
}
"""Source: the variables from which the providers' own clients take their keys."""


class Secret(msgspec.Struct, frozen=True):
    """A provider's key with the way in which it is sent. Its text never shows in a representation."""

    text: str
    style: str

    def __repr__(self) -> str:
        return f"Secret(style={self.style!r})"

    def headers(self, path: str) -> list[tuple[bytes, bytes]]:
        """The header that bears it on a request for a path; none where the provider takes no key."""
        if self.style == "none" or not self.text:
            return []
        # Google's endpoint in OpenAI's format takes its key as OpenAI does.
        if self.style == "bearer" or (self.style == "x-goog-api-key" and "/openai/" in path):
            return [(b"authorization", f"Bearer {self.text}".encode())]
        return [(self.style.encode(), self.text.encode())]


def secret_of(
    name: str,
    provider: str | None,
    reference: str | None,
    style: str | None,
    env: Mapping[str, str],
    kept: Mapping[str, str],
) -> Secret | None:
    """The key that the gateway holds for an upstream, or None. `reference` is what the configuration says, `kept` what
    the secrets file holds, by the upstream's name or the variable's. Raises ConfigError."""
    style = style or _STYLE.get(provider or "", "bearer")
    if style == "none":
        return Secret("", style)
    if reference is not None:
        return Secret(resolve(reference, env), style)
    names = (name, *_NAMES.get(name, ()))
    text = next((source[one] for source in (kept, env) for one in names if source.get(one)), None)
    return None if text is None else Secret(_sound(text, names[-1]), style)


def resolve(reference: str, env: Mapping[str, str]) -> str:
    """The secret that `env:NAME` or `file:PATH` stands for. Raises ConfigError, which never holds the secret."""
    kind, _, place = reference.partition(":")
    if kind == "env" and place:
        text = env.get(place, "")
        if not text:
            raise ConfigError(f"The variable {place} is not set.", todo="Set it, or take its env: reference out.")
        return _sound(text, place)
    if kind == "file" and place:
        return _sound(private_text(Path(place).expanduser()).strip(), place)
    raise ConfigError("A secret stands in the configuration.", todo='Write "env:NAME" or "file:PATH" instead.')


def read_secrets(path: Path) -> dict[str, str]:
    """The secrets of a file of lines NAME=VALUE, as `.env` files have them; # begins a remark. Raises ConfigError."""
    found: dict[str, str] = {}
    for number, line in enumerate(private_text(path).splitlines(), 1):
        row = line.strip().removeprefix("export ").strip()
        if not row or row.startswith("#"):
            continue
        name, equals, value = row.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"Line {number} of {path} is not NAME=VALUE.")
        found[name.strip()] = _sound(value.strip().strip("\"'"), name.strip())
    return found


def private_text(path: Path) -> str:
    """The text of a file that only its owner may read. Raises ConfigError."""
    try:
        mode = path.stat().st_mode
        if stat.S_IMODE(mode) & 0o077:
            raise ConfigError(f"Others may read {path}.", todo=f"chmod 600 {path}")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{path} cannot be read: {reason}.") from None


def _sound(text: str, place: str) -> str:
    """A secret that can stand in a header."""
    if not text.isascii() or not text.isprintable():
        raise ConfigError(f"The secret in {place} holds characters that no key has.")
    return text
