"""Board, models: what a call on each model costs and takes, and what the same traffic would cost elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tallystick.core.money import Money, divide_half_even
from tallystick.errors import InputError
from tallystick.insight.board_runs import stretch
from tallystick.insight.board_spend import READ_AT_ONCE, in_cube, to_read, whole_days
from tallystick.insight.runcosts import RunCosts, run_costs
from tallystick.insight.whatif import WhatIf, suggestions, what_if
from tallystick.ledger.query import Query, Total

if TYPE_CHECKING:
    from tallystick.catalog.catalog import Catalog
    from tallystick.ledger.ledger import Ledger
    from tallystick.ledger.sketches import Spread

MOST_ASKED: Final = 12


class ModelUse(msgspec.Struct, frozen=True, kw_only=True):
    """One model in use: the sum of its calls, and what one sent call came to on average. `mean` is None where nothing
    is known of the cost. `spread` says how cost and time are spread over them; None where only reading the calls one by
    one could tell."""

    provider: str
    model: str
    total: Total
    sent: int
    mean: Money | None
    prompt: int
    answer: int
    spread: Spread | None = None

    @property
    def worth(self) -> Money:
        """What its calls cost, those that a subscription covers at list prices."""
        return self.total.cost + self.total.not_owed


class Tasks(msgspec.Struct, frozen=True):
    """What a task (a run) takes: of `runs` of them the cost, and the mean of calls and tokens. `since` is where the
    stretch begins that they are from, where it is later than the period's begin."""

    runs: int
    calls: float
    tokens: int
    costs: RunCosts | None
    since: datetime | None = None


def model_uses(ledger: Ledger, query: Query, *, read: bool = False) -> tuple[tuple[ModelUse, ...], int]:
    """The models that were called, the dearest first. Where no sums answer that, and without `read`, there are none,
    and the number is how many calls would have to be read. Raises LedgerError."""
    unread = 0 if read else to_read(ledger, query, "model")
    if unread:
        return (), unread
    totals = ledger.total(query, ("provider", "model"))
    spreads = _spreads(ledger, query, sum(total.calls for total in totals), read=read)
    uses = [_use(total, spreads) for total in totals if total.calls > total.refused]
    return tuple(sorted(uses, key=lambda use: (-use.worth.pico, use.provider, use.model))), 0


def _spreads(ledger: Ledger, query: Query, calls: int, *, read: bool) -> dict[tuple[str | None, ...], Spread]:
    """How cost and time are spread, by provider and model, where that is quickly told or the calls are to be read."""
    sketched = in_cube(query, ("provider", "model")) and whole_days(ledger, query)
    if not (read or sketched or calls <= READ_AT_ONCE):
        return {}
    found = ledger.spread(query, ("provider", "model"))
    return {(row.group["provider"], row.group["model"]): row for row in found}


def tasks(ledger: Ledger, query: Query) -> Tasks | None:
    """What a run takes, over the newest stretch of the period whose runs can be looked at at once; None without runs.
    Raises LedgerError."""
    since, _ = stretch(ledger, query)
    rows = ledger.total(msgspec.structs.replace(query, since=since), ("run",))
    runs = [row for row in rows if row.group["run"] is not None]
    if not runs:
        return None
    owed, free = run_costs(runs)
    return Tasks(
        runs=len(runs),
        calls=sum(row.calls for row in runs) / len(runs),
        tokens=sum(row.usage.tokens for row in runs) // len(runs),
        costs=owed or free,
        since=None if since == query.since else since,
    )


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


def _use(total: Total, spreads: Mapping[tuple[str | None, ...], Spread]) -> ModelUse:
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
        spread=spreads.get((total.group["provider"], total.group["model"])),
    )


def _worth(total: Total) -> Money:
    return total.cost + total.not_owed
