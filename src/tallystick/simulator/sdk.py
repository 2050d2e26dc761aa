"""Sdk: payloads through the SDKs' own published types, where these are installed."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any, Final

import msgspec

_ALIASED: Final = "google.genai"


@cache
def _adapter(name: str) -> Any:
    """The type, or None where its package is not installed or has no such name any more."""
    module, _, kind = name.partition(":")
    try:
        if module == "botocore":
            return _shape(kind)
        found = getattr(import_module(module), kind)
        return import_module("pydantic").TypeAdapter(found)
    except (ImportError, AttributeError):
        return None


def _shape(kind: str) -> Any:
    session = import_module("botocore.session").Session()
    model = session.get_service_model("bedrock-runtime")
    return model.shape_for(kind)


def through(name: str, payload: dict[str, Any]) -> dict[str, Any] | None:
    """The payload as the type gives it back, keys in the order in which they went in; None where the type is not
    installed, refuses it or loses something."""
    adapter = _adapter(name)
    if adapter is None:
        return None
    if name.startswith("botocore:"):
        report = import_module("botocore.validate").ParamValidator().validate(payload, adapter)
        return None if report.has_errors() else payload
    pydantic = import_module("pydantic")
    try:
        value = adapter.validate_json(msgspec.json.encode(payload))
    except pydantic.ValidationError:
        return None
    dumped = adapter.dump_python(
        value, mode="json", by_alias=name.startswith(_ALIASED), exclude_unset=True, warnings="error"
    )
    restored = _restored(payload, dumped)
    return restored if msgspec.json.encode(restored) == msgspec.json.encode(payload) else None


def _restored(ours: Any, theirs: Any) -> Any:
    """The type's values in our order; a number keeps its spelling where it is the same number."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        known = {key: _restored(part, theirs[key]) for key, part in ours.items() if key in theirs}
        return known | {key: part for key, part in theirs.items() if key not in ours}
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [_restored(*pair) for pair in zip(ours, theirs, strict=True)]
    if isinstance(ours, msgspec.Raw):
        # Money is written as the script spells it.
        return ours if msgspec.json.decode(ours) == theirs else theirs
    if isinstance(ours, int) and isinstance(theirs, float) and ours == theirs:
        return ours
    return theirs
