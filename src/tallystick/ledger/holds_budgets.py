"""Budgets as a ledger keeps them: what may be edited, and their form as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from tallystick.core.attribution import Tags
from tallystick.core.periods import Period
from tallystick.errors import InputError, LedgerCorrupt
from tallystick.ledger.accounts import Figures, Key, Rules
from tallystick.ledger.budget import Budget

MAX_SHOWN: Final = 20
_FIELDS: Final = ("settled", "suspect", "held", "unlearned", "overdraft")


class Changes:
    """How often budgets have been changed from this process, in whatever ledger: whoever goes by what it read before
    looks again when `number` has moved. A ledger notes a change when others can read it."""

    def __init__(self) -> None:
        self.number = 0

    def note(self) -> None:
        """A change is there."""
        # Two at once may count as one; who looks then sees both.
        self.number += 1


CHANGES: Final = Changes()
"""Of this process."""


def edited(rules: Rules, budget: Budget) -> Rules:
    """The budgets after one was added or changed. Raises InputError for a change of its unit."""
    before = rules.standing.get(budget.budget_id) or rules.retired.get(budget.budget_id)
    if before is not None and before.unit != budget.unit:
        raise InputError(
            f"The budget {budget.budget_id!r} counts {before.unit}; what it has used cannot be told in {budget.unit}.",
            money="Nothing was changed.",
            todo="Give the new budget another name.",
        )
    others = [one for name, one in rules.standing.items() if name != budget.budget_id]
    retired = [one for name, one in rules.retired.items() if name != budget.budget_id]
    return Rules(rules.version + 1, [*others, budget], retired)


def without(rules: Rules, budget: Budget) -> Rules:
    """The budgets after one of them was dropped."""
    standing = [one for one in rules.standing.values() if one.budget_id != budget.budget_id]
    return Rules(rules.version + 1, standing, [*rules.retired.values(), budget])


def known_budget(rules: Rules, budget_id: str) -> Budget:
    """The budget that stands under an id. Raises InputError."""
    budget = rules.standing.get(budget_id)
    if budget is None:
        raise InputError(
            f"There is no budget {budget_id!r}.", money="Nothing was changed.", todo="See them all: tally budget."
        )
    return budget


def wrong_accounts(kept: Mapping[Key, Figures], wanted: Mapping[Key, Figures]) -> list[str]:
    """Where accounts differ from what their holds and charges give, in words; at most MAX_SHOWN."""
    found, nothing = [], Figures()
    for key in sorted(kept.keys() | wanted.keys()):
        here, right = kept.get(key, nothing).row()[1:], wanted.get(key, nothing).row()[1:]
        if here != right:
            parts = [
                f"{name} {one}, its holds and charges give {other}"
                for name, one, other in zip(_FIELDS, here, right, strict=True)
                if one != other
            ]
            found.append(f"The account {' '.join(part for part in key if part)} is wrong: {'; '.join(parts)}.")
    return found[:MAX_SHOWN]


def budget_text(budget: Budget) -> str:
    """A budget as JSON text."""
    row: dict[str, Any] = {name: getattr(budget, name) for name in budget.__struct_fields__}
    period = budget.period
    length = None if period.length is None else period.length // timedelta(microseconds=1)
    row["period"] = [period.unit, period.tz, period.anchor, length]
    row["scope"] = dict(budget.scope)
    return msgspec.json.encode(row).decode()


def budget_from(text: str) -> Budget:
    """The inverse of `budget_text`. Raises LedgerCorrupt."""
    try:
        row = msgspec.json.decode(text)
        unit, tz, anchor, length = row["period"]
        row["period"] = Period(unit, tz, anchor, None if length is None else timedelta(microseconds=length))
        row["scope"] = Tags(row["scope"])
        for name in ("each", "sources", "alerts"):
            row[name] = tuple(row[name])
        for name in ("raised_until", "created_at"):
            row[name] = None if row[name] is None else datetime.fromisoformat(row[name])
        return Budget(**row)
    except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
        raise LedgerCorrupt(
            f"The ledger is damaged: a budget cannot be read: {error}.",
            money="What it limits is unknown.",
            todo="Restore the ledger from a backup.",
        ) from None
