"""API rows: budgets, holds, corrections and rates as plain JSON values, the same for every surface."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from tallystick.core.money import Money
from tallystick.ledger.entry import Correction, rfc3339
from tallystick.metering.rules import period_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tallystick.catalog.catalog import Found
    from tallystick.core.rates import RateCard
    from tallystick.ledger.budget import Budget
    from tallystick.ledger.hold import Hold
    from tallystick.metering.budgets import Standing


def budget_json(budget: Budget, stands: Sequence[Standing]) -> dict[str, Any]:
    """A budget with its accounts in the present period."""
    return {
        "name": budget.budget_id,
        "limit": amount_json(budget, budget.limit),
        "unit": budget.unit,
        "period": period_words(budget.period),
        "tz": budget.period.tz,
        "anchor": budget.period.anchor,
        "scope": dict(budget.scope),
        "each": list(budget.each),
        "hard": budget.hard,
        "failure": budget.failure,
        "sources": list(budget.sources),
        "alerts": list(budget.alerts),
        "paused": budget.paused,
        "raised_by": amount_json(budget, budget.raised_by),
        "raised_until": instant_json(budget.raised_until),
        "accounts": [
            {
                "value": one.value,
                **{
                    name: amount_json(budget, getattr(one, name))
                    for name in ("limit", "spent", "suspect", "held", "overdraft", "left")
                },
                "resets_at": instant_json(one.resets_at),
            }
            for one in stands
        ],
    }


def hold_json(hold: Hold, budgets: Mapping[str, Budget]) -> dict[str, Any]:
    """A hold with what it claims of each account."""
    return {
        "call_id": hold.hold_id,
        "state": hold.state,
        "owner": hold.owner,
        "authorised_at": instant_json(hold.authorised_at),
        "expires_at": instant_json(hold.expires_at),
        "holds": [
            {
                "budget": one.budget_id,
                "value": one.value,
                "period": one.period,
                "amount": amount_json(budgets.get(one.budget_id), one.amount),
            }
            for one in hold.charges
        ],
    }


def correction_json(correction: Correction) -> dict[str, Any]:
    """A correction; `fields` are in the JSON form of an entry."""
    return {
        "correction_id": correction.correction_id,
        "corrects": correction.corrects,
        "recorded_at": rfc3339(correction.recorded_at),
        "reason": correction.reason,
        "fields": correction.fields,
    }


def rates_json(found: Found, cards: Sequence[RateCard]) -> dict[str, Any]:
    """A model as the catalogue knows it, with the given rate cards."""
    return {
        "provider": found.provider,
        "model": found.model,
        "rule": found.rule,
        "cards": [msgspec.to_builtins(card) for card in cards],
    }


def amount_json(budget: Budget | None, amount: int) -> Any:
    """An amount of a budget: money, or a whole number of tokens or calls."""
    return amount if budget is not None and budget.unit != "usd" else Money(amount).to_json()


def instant_json(at: datetime | None) -> str | None:
    """An instant as RFC 3339 text."""
    return None if at is None else rfc3339(at)
