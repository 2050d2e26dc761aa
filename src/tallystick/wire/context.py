"""Context: what besides the counts decides a price, as one mapping of text to text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from tallystick.errors import UsageError

ITEM_FEES: Final = {
    "code_interpreter_call": "fee:code_interpreter",
    "file_search_call": "fee:file_search",
    "image_generation_call": "fee:image_generation",
    "web_search_call": "fee:web_search",
}
"""Output items of the Responses API that are billed by the call, and the fee they count towards. Source: OpenAI's
pricing page, built-in tools."""

_LOWERED: Final = frozenset(
    {
        "service_tier",
        "requested_service_tier",
        "processing",
        "speed",
        "inference_geo",
        "data_residency",
        "region",
        "search_context_size",
        "search_type",
    }
)
_ITEMS: Final = "output_item_types"


def tiers(service_tier: str | None, speed: str | None = None, inference_geo: str | None = None) -> dict[str, str]:
    """The context of the tier fields that a response states. A tier of `batch` is a way of processing, so it becomes
    `processing`; every other tier stays as the provider calls it."""
    context = {}
    if service_tier:
        if service_tier == "batch":
            context["processing"] = "batch"
        else:
            context["service_tier"] = service_tier
    if speed:
        context["speed"] = speed
    if inference_geo:
        context["inference_geo"] = inference_geo
    return context


def item_fees(types: Iterable[str]) -> dict[str, int]:
    """Counts per fee of the output items of these types; items that cost nothing of their own are left out."""
    counts: dict[str, int] = {}
    for name in types:
        fee = ITEM_FEES.get(name)
        if fee is not None:
            counts[fee] = counts.get(fee, 0) + 1
    return counts


def overlay(found: Mapping[str, str], given: Mapping[str, object]) -> tuple[dict[str, str], dict[str, int]]:
    """The context of a payload with the caller's laid over it, and the fees of `output_item_types`.

    Values are text or bool (`true`, `false`), None means not said; `output_item_types` is a list of text. Names that
    decide no price are kept: a rate card of the user's own may ask for them. Raises UsageError for any other value.
    """
    merged = dict(found)
    fees: dict[str, int] = {}
    for key, value in given.items():
        if not isinstance(key, str):
            raise UsageError(f"{key!r} is not the name of a context value.", todo="Names are text: service_tier, ...")
        if key == _ITEMS:
            fees = item_fees(_texts(value))
        elif isinstance(value, bool):
            merged[key] = "true" if value else "false"
        elif isinstance(value, str):
            merged[key] = value.strip().lower() if key in _LOWERED else value
        elif value is not None:
            raise UsageError(f"The context value {key} must be text or true/false, not {value!r}.")
    if merged.get("service_tier") == "batch":
        del merged["service_tier"]
        merged["processing"] = "batch"
    return merged, fees


def _texts(value: object) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise UsageError(f"The context value {_ITEMS} must be a list of text, not {value!r}.")
    return list(value)
