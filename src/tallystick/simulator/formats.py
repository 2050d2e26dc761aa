"""Formats: which module writes which API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from tallystick.simulator import bedrock, chat, compatible, gemini, media, messages, responses
from tallystick.simulator.frames import Written
from tallystick.simulator.plan import Plan

WRITERS: Final[Mapping[str, Callable[[Plan], Written]]] = {
    "openai.chat": chat.write,
    "openai.completions": chat.write_completion,
    "openai.responses": responses.write,
    "openai.embeddings": media.write_embeddings,
    "openai.audio.transcriptions": media.write_transcription,
    "openai.images": media.write_images,
    "anthropic.messages": messages.write,
    "gemini.generateContent": gemini.write,
    "gemini.embed": media.write_gemini_embedding,
    "bedrock.converse": bedrock.write,
    "bedrock.invoke": bedrock.write_invoke,
    "ollama.chat": compatible.write_ollama,
    **{f"{name}.chat": compatible.write for name in compatible.ACCENTS},
}
"""The writers, by API."""
