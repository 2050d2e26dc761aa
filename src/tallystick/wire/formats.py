"""The table of formats: every API that can be read."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tallystick.core.usage import Usage
from tallystick.errors import UsageError
from tallystick.wire import anthropic, bedrock, cohere, compatible, gemini, openai
from tallystick.wire.format import Format
from tallystick.wire.logs import claude_code, codex
from tallystick.wire.partition import Count
from tallystick.wire.reading import Reading

OWN: Final = "tally.usage"
"""The API of a usage in our own kinds."""


def _own(counts: dict[str, int]) -> Reading:
    if not counts:
        raise UsageError("The usage is empty; unknown usage is not zero usage.")
    return Reading(Usage(counts))


FORMATS: Final[Mapping[str, Format]] = {
    **openai.FORMATS,
    **anthropic.FORMATS,
    **gemini.FORMATS,
    **bedrock.FORMATS,
    **cohere.FORMATS,
    **compatible.FORMATS,
    **claude_code.FORMATS,
    **codex.FORMATS,
    OWN: Format((), dict[str, Count], dict[str, Count], _own, _own, ((),)),
}
"""How to read each API."""

APIS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({api: form.providers for api, form in FORMATS.items()})
"""The APIs that can be read, and who bills through each: `{"openai.chat": ("openai", "azure"), ...}`."""
