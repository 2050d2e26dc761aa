"""Board, models: what a call on each model costs and takes, and what the same traffic would cost elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tallystick.core.money import Money, divide_half_even
from tallystick.errors import InputError
from tallystick.insight.whatif import WhatIf, suggestions, what_if
from tallystick.ledger.query import Query, Total

if TYPE_CHECKING:
    from tallystick.catalog.catalog import Catalog
    from tallystick.ledger.ledger import Ledger

MOST_ASKED: Final = 12


class ModelUse(msgspec.Struct, frozen=True, kw_only=True):
    """One model in use: the sum of its calls, and what one sent call came to on average. `mean` is None where nothing
    is known of the cost."""

    provider: str
    model: str
    total: Total
    sent: int
    mean: Money | None
    prompt: int
    answer: int


class Tasks(msgspec.Struct, frozen=True):
    """What a finished task (a run) takes on average: `runs` of them, and tokens and US dollars of each."""

    runs: int
    calls: int
    tokens: int
    cost: Money


def model_uses(ledger: Ledger, query: Query) -> tuple[ModelUse, ...]:
    """The models that were called, the dearest first. Raises LedgerError."""
    uses = [_use(total) for total in ledger.total(query, ("provider", "model")) if total.calls > total.refused]
    return tuple(sorted(uses, key=lambda use: (-_worth(use.total).pico, use.provider, use.model)))


def elsewhere(
    uses: Sequence[ModelUse], wanted: Sequence[str], catalog: Catalog, at: datetime
) -> tuple[tuple[WhatIf, ...], tuple[WhatIf, ...]]:
    """The traffic of all these models on each of them and on the `wanted` ones, and on suggested ones. Raises
    InputError for too many."""
    if len(wanted) > MOST_ASKED:
        raise InputError(f"At most {MOST_ASKED} models are compared at once.")
    traffic = [use.total for use in uses]
    mine = [
        what_if(traffic, use.model, catalog, at, None if use.provider == "other:unknown" else use.provider)
        for use in uses[:MOST_ASKED]
    ]
    asked = [what_if(traffic, name, catalog, at) for name in wanted]
    known = {(row.provider, row.model) for row in (*mine, *asked)}
    offered = [row for row in suggestions(traffic, catalog, at) if (row.provider, row.model) not in known]
    return (*asked, *mine), tuple(offered)


def what_if_row(row: WhatIf) -> dict[str, Any]:
    """A row for CSV and JSON."""
    cost = row.cost
    return {
        "provider": row.provider,
        "model": row.model,
        "calls": row.calls,
        "left_out": row.left_out,
        "before": row.before,
        "low": None if cost is None else cost.low,
        "likely": None if cost is None else cost.likely,
        "high": None if cost is None else cost.high,
        "difference": row.difference,
        "remarks": "; ".join(row.remarks),
        "problem": row.problem,
    }


def _use(total: Total) -> ModelUse:
    sent = total.calls - total.refused
    known = max(1, sent - total.unknown)
    worth = _worth(total)
    priced = sent - total.unpriced
    out = total.usage.get("output", 0) + total.usage.get("reasoning", 0)
    return ModelUse(
        provider=str(total.group["provider"]),
        model=str(total.group["model"]),
        total=total,
        sent=sent,
        mean=Money(divide_half_even(worth.pico, priced)) if priced > 0 else None,
        prompt=total.usage.input_tokens // known,
        answer=out // known,
    )


def _worth(total: Total) -> Money:
    return total.cost + total.not_owed
