"""Correcting: the corrections that would make the ledger agree with a provider's report.

Only what can be put down to calls is corrected: all calls of a group at another tier, side of a context threshold or
dated rate; one round price per unit for a token class; or a report about the single call. Calls that one side has and
the other has not are never made up: an entry is one call, and a bill does not say which calls its sum is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from tallystick.core.cost import Cost, Line
from tallystick.core.money import Money
from tallystick.core.pricing import reported
from tallystick.insight.halves import card_of
from tallystick.insight.residuals import Candidate, billed_lines, summed
from tallystick.ledger.entry import Correction

if TYPE_CHECKING:
    from tallystick.catalog.catalog import Catalog
    from tallystick.insight.halves import Halves
    from tallystick.insight.provider_reports.figures import Figure
    from tallystick.insight.reconcile import Fix, Reconciliation
    from tallystick.ledger.entry import Entry
    from tallystick.ledger.ledger import Ledger


class Proposal(msgspec.Struct, frozen=True):
    """One correction, with the call's cost before and after it (None: unpriced)."""

    correction: Correction
    model: str
    before: Money | None
    after: Money | None

    def to_json(self) -> dict[str, Any]:
        """The proposal as plain JSON values."""
        return {
            "corrects": self.correction.corrects,
            "model": self.model,
            "reason": self.correction.reason,
            "before": None if self.before is None else self.before.to_json(),
            "after": None if self.after is None else self.after.to_json(),
            "fields": self.correction.fields,
        }


def proposals(
    found: Reconciliation, ledger: Ledger, catalog: Catalog, *, now: datetime, new_id: Callable[[], str]
) -> Iterator[Proposal]:
    """What to append so that the ledger agrees with the report, call by call, as far as that can be known. `new_id`
    names the corrections. Reads the ledger again."""
    for halves, fixes in zip(found.halves, found.fixes, strict=True):
        if not fixes:
            continue
        titles = " and ".join(one.title for one in halves.statements)
        for place, entry, statements in halves.calls(ledger):
            group = halves.folded(place)
            fix, loose = fixes.get(group), fixes.get(group._replace(model=None))
            if not statements or (fix is None and loose is None):
                continue
            figure = halves.call_figure(place.call)
            changed = _changed(entry, (fix, loose), halves, catalog, figure)
            if changed is None:
                continue
            fields, why, after = changed
            correction = Correction(
                correction_id=new_id(),
                corrects=entry.call_id,
                recorded_at=now,
                reason=f"reconciled with {titles} of {place.start:%Y-%m-%d}: {why}",
                fields=fields,
            )
            yield Proposal(correction, entry.model, entry.amount, after)


def _changed(
    entry: Entry, fixes: tuple[Fix | None, Fix | None], halves: Halves, catalog: Catalog, figure: Figure | None
) -> tuple[dict[str, Any], str, Money | None] | None:
    """The new values of an entry's fields, why, and the new amount; None when nothing changes."""
    fields: dict[str, Any] = {}
    cost, words = entry.cost, []
    way = next((fix.way for fix in fixes if fix is not None and fix.way is not None), None)
    if figure is not None and figure.amount is not None:
        cost = _as_reported(entry, figure, catalog)
        fields["reported_cost"] = figure.amount.to_json()
        if figure.usage is not None and figure.usage != entry.usage:
            fields |= {"usage": dict(figure.usage), "quality": "exact"}
        words.append("the provider states the cost of this call")
    elif way is not None:
        known = card_of(entry, catalog)
        cost = None if known is None else way.cost(entry, known)
        if way.tier is not None:
            fields["tier"] = way.tier or "standard"
        words.append(way.words)
    prices = {kind: rate for fix in fixes if fix is not None for kind, rate in fix.prices.items()}
    lines = cost.lines if cost is not None else _unpriced(entry)
    if any(halves.classes.get(line.kind, line.kind) in prices for line in lines):
        cost = summed(billed_lines(lines, prices, halves.classes, "the provider's bill"), "reported")
        words.append(f"{', '.join(sorted(prices))} as billed")
    if cost is None or (
        entry.cost is not None and cost.to_json() == entry.cost.to_json() and not _moves(entry, fields)
    ):
        return None
    return {**fields, "cost": cost.to_json()}, "; ".join(words), cost.amount


def _as_reported(entry: Entry, figure: Figure, catalog: Catalog) -> Cost:
    """The cost of a call that the provider states, with our lines beside it where there are any."""
    ours = entry.cost
    if figure.usage is not None and figure.usage != entry.usage:
        known, same_tier = card_of(entry, catalog), Candidate("usage", "")
        again = msgspec.structs.replace(entry, usage=figure.usage)
        ours = None if known is None else same_tier.cost(again, known)
    return reported(ours, figure.amount or Money())


def _moves(entry: Entry, fields: dict[str, Any]) -> bool:
    tier = fields.get("tier")
    return "usage" in fields or (tier is not None and tier != (entry.tier or "standard"))


def _unpriced(entry: Entry) -> list[Line]:
    return [Line(kind, quantity, None, None, "") for kind, quantity in (entry.usage or {}).items()]
