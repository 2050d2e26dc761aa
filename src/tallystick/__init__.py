"""tallystick: exact, live, enforceable cost tracking for LLM and agent applications.

    import tallystick
    tallystick.count("Hello, how are you today?", model="gpt-4o")
    tallystick.price({"prompt_tokens": 1000, "completion_tokens": 100}, model="gpt-4o")

Names are loaded when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tallystick.capture.scopes import budget, call, run
    from tallystick.capture.track import instrument, track, uninstrument
    from tallystick.core.cost import Cost, Line
    from tallystick.core.money import Money
    from tallystick.core.usage import Usage
    from tallystick.errors import BudgetExceeded, TallyError, UnknownModelError
    from tallystick.front import compare, count, estimate, open, price, record, report, spent  # noqa: A004
    from tallystick.ledger.entry import Entry
    from tallystick.metering.budgets import refusal

__version__ = "0.1.0"

__all__ = [
    "BudgetExceeded",
    "Cost",
    "Entry",
    "Line",
    "Money",
    "TallyError",
    "UnknownModelError",
    "Usage",
    "budget",
    "call",
    "compare",
    "count",
    "estimate",
    "instrument",
    "open",
    "price",
    "record",
    "refusal",
    "report",
    "run",
    "spent",
    "track",
    "uninstrument",
]

_HOMES = {
    "BudgetExceeded": "tallystick.errors",
    "Cost": "tallystick.core.cost",
    "Entry": "tallystick.ledger.entry",
    "Line": "tallystick.core.cost",
    "Money": "tallystick.core.money",
    "TallyError": "tallystick.errors",
    "UnknownModelError": "tallystick.errors",
    "Usage": "tallystick.core.usage",
    "budget": "tallystick.capture.scopes",
    "call": "tallystick.capture.scopes",
    "instrument": "tallystick.capture.track",
    "refusal": "tallystick.metering.budgets",
    "run": "tallystick.capture.scopes",
    "track": "tallystick.capture.track",
    "uninstrument": "tallystick.capture.track",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'tallystick' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES.get(name, "tallystick.front")), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
