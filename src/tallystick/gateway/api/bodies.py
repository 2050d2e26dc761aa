"""Bodies: what requests to the interface carry."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class BudgetBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A budget as people write it: `limit` is `$50/day`, `1M tokens/month`, `100 calls/1m` or `$20` (for ever)."""

    name: Name
    limit: Name
    scope: dict[Name, Name] = {}
    each: list[Name] = []
    hard: bool = True
    failure: str = "closed"
    sources: list[str] = []
    tz: str | None = None
    anchor: int = 1
    alerts: list[int] = []


class Raise(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much more a limit is to be, and for how long: `{"by": "$10", "for": "2h"}`."""

    by: Name
    length: Annotated[str, msgspec.Meta(max_length=20)] = msgspec.field(name="for", default="24h")


class BudgetChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A change of a budget: `raise` lifts its limit for a while (null ends that at once), `paused` lets it limit
    nothing, or limit again."""

    lift: Raise | msgspec.UnsetType | None = msgspec.field(name="raise", default=msgspec.UNSET)
    paused: bool | msgspec.UnsetType = msgspec.UNSET


class EstimateBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call that is to be estimated: the prompt as `text` or as chat `messages`, the model, and what caps the
    answer. `agent` lets the answer's length be learned from the calls with the tag agent=NAME."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
    text: str | None = None
    messages: list[dict[str, Any]] | None = None
    max_output: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)] | None = None
    provider: Name | None = None
    agent: Name | None = None
    at: Annotated[str, msgspec.Meta(max_length=64)] | None = None
