"""Scopes: `tallystick.run` and `tallystick.call`, the with-blocks that say what the calls inside them are for, and
`tallystick.budget`, out of which anything else is paid."""

from __future__ import annotations

from collections.abc import Callable

from tallystick.capture.process import default_meter, meter_of
from tallystick.core.money import Money
from tallystick.errors import LedgerUnavailable
from tallystick.ledger.ids import new_call_id
from tallystick.ledger.ledger import Ledger
from tallystick.metering.admission import BudgetAdmission
from tallystick.metering.purse import Purse
from tallystick.metering.run import Block, Run, money


def run(
    name: str,
    *,
    max_cost: Money | str | None = None,
    budget: Money | str | None = None,
    on_update: Callable[[Run], object] | None = None,
    **tags: object,
) -> Run:
    """A run: the calls of tracked clients made inside its with-block carry its id and tags, and add up in it.

    `max_cost` and `budget` ("$0.50") are the most that all of them together may cost: a stream is ended where that is
    reached, as if its length were, and a call that cannot fit is refused before it is sent, in the provider's own
    shape. `on_update` is called with the run when it changes. Tags are text (`user="ada"`). Raises InputError.

        with tallystick.run("research", user="ada", max_cost="$0.50") as run:
            client.responses.create(model=MODEL, input="...")
        print(run.cost, run.usage)
    """
    return Run(
        name,
        run_id=f"{name}-{new_call_id().replace('-', '')[-12:]}",
        max_cost=money(max_cost, "max_cost"),
        budget=money(budget, "budget"),
        on_update=on_update,
        tags=tags,
    )


def call(*, max_cost: Money | str | None = None, **tags: object) -> Block:
    """A with-block whose calls carry these tags and cost at most `max_cost` each. Raises InputError."""
    limit = money(max_cost, "max_cost")
    return Block(tags, most=None if limit is None else limit.pico)


def budget(name: str, *, ledger: Ledger | None = None) -> Purse:
    """A budget of the ledger (the default one, where none is given), to hold money in for what is no call to a model.
    Raises InputError where there is none of that name or it counts no dollars, LedgerError.

        with tallystick.budget("team-a").hold(at_most="$0.10", what="search") as hold:
            hold.settle("$0.07")
    """
    admission = (default_meter() if ledger is None else meter_of(ledger)).admission
    if not isinstance(admission, BudgetAdmission):
        raise LedgerUnavailable(
            "The ledger cannot be opened, so its budgets are out of reach.", money="Nothing was held."
        )
    return admission.budget(name)
