"""Asks, budgets and settlements to try holds with."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from ledger_samples import NOW, cost, entry

from tallystick.ledger.budget import Budget
from tallystick.ledger.entry import Entry
from tallystick.ledger.hold import Account, Ask, Balance, Charge, Claim, Granted, Settlement
from tallystick.ledger.ledger import Ledger

LATER = NOW + timedelta(days=900)


def budget(budget_id: str = "b", limit: int = 100, **fields: Any) -> Budget:
    return Budget(budget_id=budget_id, limit=limit, **fields)


def claim(base: int = 10, per_output: int = 0, budget_id: str = "b", **fields: Any) -> Claim:
    values: dict[str, Any] = {"value": "", "period": "2026-11", **fields}
    return Claim(budget_id=budget_id, base=base, per_output=per_output, **values)


def ask(hold_id: str = "c1", *claims: Claim, **fields: Any) -> Ask:
    values: dict[str, Any] = {"output": 0, "least": 0, "payload": "p", "version": 1, "expires_at": LATER, **fields}
    return Ask(hold_id=hold_id, claims=claims or (claim(),), **values)


def charge(amount: int, budget_id: str = "b", value: str = "", period: str = "2026-11") -> Charge:
    return Charge(budget_id=budget_id, value=value, period=period, amount=amount)


def settlement(*charges: Charge, keep: bool = False) -> Settlement:
    return Settlement(charges=charges, keep=keep)


def call(hold_id: str, amount: int = 10, **fields: Any) -> Entry:
    return entry(hold_id, hold_id=hold_id, cost=cost(amount), **fields)


def granted(ledger: Ledger, wanted: Ask, wait: float = 0.0) -> Granted:
    found = ledger.authorise(wanted, wait=wait).result(20)
    assert isinstance(found, Granted), found
    return found


def account(ledger: Ledger, budget_id: str = "b", value: str = "", period: str = "2026-11") -> Balance:
    found = [one for one in ledger.accounts(budget_id) if (one.value, one.period) == (value, period)]
    assert all(isinstance(one, Account) for one in found)
    return found[0].balance if found else Balance(limit=None)
