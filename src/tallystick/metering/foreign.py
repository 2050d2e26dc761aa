"""Foreign: calls that somebody else has seen (an OTLP span, a log, an import) take from the budgets that name their
source, and from no others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tallystick.errors import ConflictError
from tallystick.ledger.entry import Entry
from tallystick.ledger.hold import Settlement
from tallystick.ledger.ledger import Receipt
from tallystick.ledger.query import Query
from tallystick.metering.claims import Account, Matcher, attributes, settlement

if TYPE_CHECKING:
    from tallystick.ledger.budget import Budgets
    from tallystick.ledger.ledger import Ledger


def enter_foreign(ledger: Ledger, entries: Sequence[Entry]) -> Receipt:
    """Enters calls of other sources, and charges the budgets that name their source. A call that a better source has
    seen is charged where that one was, and not here; the same call again takes nothing more. Raises LedgerError, and
    ConflictError where a call stands with another content; doing it again then is harmless."""
    receipt = ledger.append(entries)
    budgets = ledger.budgets()
    named = {source for budget in budgets.budgets for source in budget.sources}
    concerned = [entry for entry in entries if entry.source in named and entry.call_id not in receipt.joined]
    if concerned:
        charge(ledger, budgets, concerned)
    return receipt


def charge(ledger: Ledger, budgets: Budgets, entries: Sequence[Entry]) -> None:
    """Charges calls that stand in the ledger to the budgets that name their source. Raises LedgerError."""
    matcher = Matcher(budgets)
    waiting = []
    for entry in entries:
        standing = next(iter(ledger.read(Query(call_id=entry.call_id))), None)
        if standing is None:
            # It was joined into a call that a better source has seen.
            continue
        accounts = tuple([one for one in accounts_of(matcher, entry) if _counts(one, entry.source, standing)])
        if accounts:
            taken = settlement(entry, accounts)
            # What it cost beyond is nothing that was ever held here.
            waiting.append(ledger.settle(entry, Settlement(charges=taken.charges)))
    for future in waiting:
        try:
            future.result()
        except ConflictError:
            # Charged before, by the rules of then.
            continue


def accounts_of(matcher: Matcher, entry: Entry) -> tuple[Account, ...]:
    """The accounts that a finished call concerns, as its entry says."""
    others = {
        "provider": (entry.provider,),
        "model": (entry.model, entry.requested_model),
        "run": (entry.run_id, entry.parent_run),
        "step": (entry.step,),
    }
    return matcher.concerned(attributes(matcher.names, entry.tags, others), entry.started_at)


def _counts(account: Account, source: str, standing: Entry) -> bool:
    """Whether a budget counts the calls of a source, and did not begin with this one already."""
    budget = account.budget
    if source not in budget.sources:
        return False
    made, known = budget.created_at, standing.recorded_at
    return made is None or known is None or known >= made
