"""Limits: whether a hard budget concerns a caller, for requests that nobody can meter."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from tallystick.metering.claims import attributes
from tallystick.metering.leaves import hard

if TYPE_CHECKING:
    from tallystick.metering.admission import BudgetAdmission
    from tallystick.metering.leave import Who


def limited(admission: BudgetAdmission | None, provider: str | None, who: Who, at: datetime) -> str | None:
    """The name of a hard budget that concerns what this caller does at a provider, whatever the model; None: none."""
    if admission is None:
        return None
    matcher = admission.desk.matcher()
    others = {"provider": (provider,), "model": (), "run": (who.run_id, who.parent_run), "step": (who.step,)}
    found = hard(matcher.concerned(attributes(matcher.names, who.tags, others), at))
    return found[0].budget.budget_id if found else None
