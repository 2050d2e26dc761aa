"""OTLP names: which attribute of a span says what. One table, with its version; the first name that is there counts.

Sources: OpenTelemetry's semantic conventions for GenAI (development status) and their earlier names, OpenInference's
conventions, and the names that OpenLLMetry used before them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

VERSION: Final = "2026-11"
"""The state of the conventions that the table follows."""

NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "operation": ("gen_ai.operation.name", "openinference.span.kind", "llm.request.type"),
    "provider": ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system"),
    "requested_model": ("gen_ai.request.model", "llm.request.model"),
    "model": (
        "gen_ai.response.model", "llm.response.model", "gen_ai.request.model", "llm.model_name", "llm.request.model",
        "embedding.model_name", "reranker.model_name",
    ),
    "response_id": ("gen_ai.response.id", "llm.response.id"),
    "input": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt"),
    "output": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion"),
    "total": ("gen_ai.usage.total_tokens", "llm.usage.total_tokens", "llm.token_count.total"),
    "cache_read": (
        "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens",
        "llm.token_count.prompt_details.cache_read",
    ),
    "cache_write": (
        "gen_ai.usage.cache_write.input_tokens", "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens", "llm.token_count.prompt_details.cache_write",
    ),
    "reasoning": (
        "gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.reasoning_tokens",
        "llm.token_count.completion_details.reasoning",
    ),
    "audio_input": ("llm.token_count.prompt_details.audio",),
    "audio_output": ("llm.token_count.completion_details.audio",),
    "tier": ("openai.response.service_tier", "gen_ai.openai.response.service_tier"),
    "run": ("tally.run", "gen_ai.conversation.id", "session.id"),
    "step": ("tally.step",),
    "agent": ("tally.agent", "gen_ai.agent.name", "agent.name"),
    "user": ("tally.user", "user.id", "enduser.id"),
    "team": ("tally.team",),
    "project": ("tally.project",),
    "error": ("error.type",),
}  # fmt: skip
"""Our word for each thing, and the attributes that say it. `input` includes what was read from and written to a cache,
`output` includes reasoning."""

INFERENCE: Final = frozenset(
    {
        "chat",
        "text_completion",
        "generate_content",
        "embeddings",
        "completion",
        "llm",
        "embedding",
        "reranker",
        "rerank",
    }
)
"""Operations that call a model (in lower case). All others, agents, tools, chains, only contain such calls."""

PROVIDERS: Final[Mapping[str, str]] = {
    "x_ai": "x-ai", "azure.ai.openai": "azure", "az.ai.openai": "azure", "az.ai.inference": "azure", "gemini": "google",
    "vertex_ai": "vertex", "google_vertexai": "vertex", "google_genai": "google", "aws_bedrock": "aws",
}  # fmt: skip
"""Names of providers that the general rule of provider names does not know."""
