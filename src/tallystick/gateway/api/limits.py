"""Answers about limits: budgets and holds; and the changes of budgets."""

from __future__ import annotations

from typing import Any

import msgspec

from tallystick.gateway.api.bodies import BudgetBody, BudgetChange
from tallystick.gateway.api.desk import Asked, Desk
from tallystick.gateway.api.http import Problem
from tallystick.insight.api_rows import budget_json, hold_json
from tallystick.insight.when import length_of
from tallystick.ledger.budget import Budget
from tallystick.ledger.entry import SCHEMA
from tallystick.metering.advisory import advisory, open_tags
from tallystick.metering.budgets import put, standings
from tallystick.metering.rules import make_budget, parse_limit


def budgets(desk: Desk, asked: Asked) -> tuple[int, dict[str, Any]]:
    """All budgets."""
    del asked
    opened = open_tags(desk.ledger, desk.now())
    found = [_row(desk, one, opened) for one in desk.ledger.budgets().budgets]
    return 200, {"schema": SCHEMA, "budgets": found}


def budget(desk: Desk, asked: Asked) -> tuple[int, dict[str, Any]]:
    """One budget."""
    return _page(desk, _named(desk, asked.path["name"]))


def put_budget(desk: Desk, asked: Asked) -> tuple[int, dict[str, Any]]:
    """Adds a budget, or gives one another rule."""
    body: BudgetBody = asked.body
    rule = msgspec.structs.asdict(body)
    name = rule.pop("name")
    rule["tz"] = body.tz or desk.ledger.zone
    known = any(one.budget_id == name for one in desk.ledger.budgets().budgets)
    made = put(desk.ledger, make_budget(name, rule, desk.now()), desk.now())
    return _page(desk, made, 200 if known else 201)


def change_budget(desk: Desk, asked: Asked) -> tuple[int, dict[str, Any]]:
    """Raises, pauses or resumes a budget."""
    change: BudgetChange = asked.body
    name = asked.path["name"]
    found = _named(desk, name)
    if change.lift is msgspec.UNSET and change.paused is msgspec.UNSET:
        raise Problem(400, "Nothing is to be changed.", todo='Send {"raise": {"by": "$10", "for": "2h"}} or "paused".')
    if change.lift is None:
        found = msgspec.structs.replace(found, raised_by=0, raised_until=None)
    elif change.lift is not msgspec.UNSET:
        amount, unit, period = parse_limit(change.lift.by)
        if unit != found.unit or period.unit != "lifetime":
            raise Problem(
                400,
                f"The budget {name!r} counts {found.unit}; {change.lift.by[:60]!r} does not fit.",
                money="Nothing was changed.",
                todo="Give an amount without a period.",
            )
        until = desk.now() + length_of(change.lift.length)
        found = msgspec.structs.replace(found, raised_by=amount, raised_until=until)
    if change.paused is not msgspec.UNSET:
        found = msgspec.structs.replace(found, paused=change.paused)
    desk.ledger.put_budget(found)
    return _page(desk, found)


def remove_budget(desk: Desk, asked: Asked) -> tuple[int, dict[str, Any]]:
    """Takes a budget away."""
    name = asked.path["name"]
    _named(desk, name)
    desk.ledger.drop_budget(name)
    return 200, {"schema": SCHEMA, "removed": name}


def holds(desk: Desk, asked: Asked) -> tuple[int, dict[str, Any]]:
    """The holds."""
    known = {one.budget_id: one for one in desk.ledger.budgets().budgets}
    state = asked.get("state")
    states = ("suspect", "open") if state is None else (state,)
    found = [hold for one in states for hold in desk.ledger.holds(one, asked.get("budget"))]
    return 200, {"schema": SCHEMA, "holds": [hold_json(hold, known) for hold in found]}


def _named(desk: Desk, name: str) -> Budget:
    listed = {one.budget_id: one for one in desk.ledger.budgets().budgets}
    if name not in listed:
        known = f"There are: {', '.join(list(listed)[:20])}." if listed else "There is none yet."
        raise Problem(404, f"There is no budget {name[:80]!r}.", money="Nothing was changed.", todo=known)
    return listed[name]


def _row(desk: Desk, one: Budget, opened: frozenset[str]) -> dict[str, Any]:
    row = budget_json(one, standings(desk.ledger, one, desk.now()))
    return {**row, "advisory": list(advisory(one, opened))}


def _page(desk: Desk, one: Budget, status: int = 200) -> tuple[int, dict[str, Any]]:
    return status, {"schema": SCHEMA, "budget": _row(desk, one, open_tags(desk.ledger, desk.now()))}
