"""Anthropic's reports: usage of messages, and costs.

Pages of buckets. Cache reads and writes are beside `uncached_input_tokens`; thinking is inside output. Amounts are
decimal text in cents, and the costs of the Priority Tier are not in them. Source: Anthropic's API reference, usage and
cost Admin API.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from tallystick.errors import InputError
from tallystick.insight.provider_reports.figures import Figure, check_currency, count, dollars, name, table, tier_name

COUNTED: Final = frozenset({"input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "fee:web_search"})
LEFT_OUT: Final = frozenset({"priority"})
"""Tiers that the cost report does not contain."""

_TOKENS: Final = {
    "uncached_input_tokens": "input",
    "cache_read_input_tokens": "cache_read",
    "cache_creation.ephemeral_5m_input_tokens": "cache_write_5m",
    "cache_creation.ephemeral_1h_input_tokens": "cache_write_1h",
    "output_tokens": "output",
}

Bucket = tuple[datetime, datetime]


def usage_figures(result: object, bucket: Bucket, where: str) -> tuple[list[Figure], list[str]]:
    """The figures of one result of a usage report. Raises InputError."""
    row = table(result, where)
    creation = table(row.get("cache_creation") or {}, f"{where}: cache_creation")
    tools = table(row.get("server_tool_use") or {}, f"{where}: server_tool_use")
    stated = {
        "input": row.get("uncached_input_tokens"),
        "cache_read": row.get("cache_read_input_tokens"),
        "cache_write_5m": creation.get("ephemeral_5m_input_tokens"),
        "cache_write_1h": creation.get("ephemeral_1h_input_tokens"),
        "output": row.get("output_tokens"),
        "fee:web_search": tools.get("web_search_requests"),
    }
    common = _common(row, bucket, where)
    figures = [
        Figure(**common, kind=kind, quantity=count(number, f"{where}: {kind}")) for kind, number in stated.items()
    ]
    return figures, []


def cost_figures(result: object, bucket: Bucket, where: str) -> tuple[list[Figure], list[str]]:
    """The figure of one result of a cost report. Raises InputError."""
    row = table(result, where)
    check_currency(row.get("currency"), where)
    amount = row.get("amount")
    if not isinstance(amount, str):
        raise InputError(
            f"{where}: amount must be decimal text in cents.", todo="Give the report as Anthropic sends it."
        )
    return [
        Figure(**_common(row, bucket, where), kind=_class(row, where), amount=dollars(amount, where, cents=True))
    ], []


def _class(row: Mapping[str, Any], where: str) -> str:
    token_type, cost_type = name(row.get("token_type"), f"{where}: token_type"), row.get("cost_type")
    if token_type is not None:
        return _TOKENS.get(token_type, f"other: {token_type}")
    if cost_type == "tokens":
        return "other: tokens"
    if cost_type is None and row.get("description") is None:
        return "total"
    words = name(cost_type, f"{where}: cost_type") or name(row.get("description"), f"{where}: description")
    return {"web_search": "fee:web_search", "code_execution": "fee:code_execution"}.get(str(words), f"other: {words}")


def _common(row: Mapping[str, Any], bucket: Bucket, where: str) -> dict[str, Any]:
    return {
        "start": bucket[0],
        "end": bucket[1],
        "model": name(row.get("model"), f"{where}: model"),
        "project": name(row.get("workspace_id"), f"{where}: workspace_id"),
        "key": name(row.get("api_key_id"), f"{where}: api_key_id"),
        "tier": tier_name(row.get("service_tier")),
    }
