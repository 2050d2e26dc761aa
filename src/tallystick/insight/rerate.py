"""Rerate: what another catalogue would make of the calls in a ledger. It changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from tallystick.core.money import Money
from tallystick.core.pricing import price
from tallystick.errors import InputError, UnpricedError
from tallystick.ledger.query import Query

if TYPE_CHECKING:
    from tallystick.catalog.catalog import Catalog
    from tallystick.ledger.entry import Entry
    from tallystick.ledger.ledger import Ledger


class Effect(msgspec.Struct, frozen=True):
    """What another catalogue does to the calls of one model: `before` and `after` in US dollars, over `calls` calls.
    `skipped` calls have a price that the old catalogue does not give either (an unrecorded context, say), so nothing
    can be said of them; `lost` have no price in the new one, `found` had none in the old one."""

    provider: str
    model: str
    calls: int = 0
    before: Money = Money(0)
    after: Money = Money(0)
    skipped: int = 0
    lost: int = 0
    found: int = 0

    @property
    def difference(self) -> Money:
        """What the calls would cost more; negative when they would cost less."""
        return self.after - self.before

    def to_json(self) -> dict[str, Any]:
        """The effect as plain JSON values."""
        return {
            "provider": self.provider,
            "model": self.model,
            "calls": self.calls,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "difference": self.difference.to_json(),
            "skipped": self.skipped,
            "lost": self.lost,
            "found": self.found,
        }


def rerate(ledger: Ledger, old: Catalog, new: Catalog) -> tuple[Effect, ...]:
    """Prices the ledger's calls again, by both catalogues, and says per model what would change. Calls priced by the
    user's own rates or by the provider's statement are left out. Raises LedgerError where the ledger fails."""
    effects: dict[tuple[str, str], Effect] = {}
    for entry in ledger.read(Query()):
        if entry.usage is None or (entry.cost is not None and entry.cost.basis != "list"):
            continue
        key = entry.provider, entry.model
        effects[key] = _with(effects.get(key) or Effect(*key), entry, old, new)
    changed = (effect for effect in effects.values() if effect.difference or effect.lost or effect.found)
    return tuple(sorted(changed, key=lambda effect: (-abs(effect.difference.pico), effect.provider, effect.model)))


def _with(effect: Effect, entry: Entry, old: Catalog, new: Catalog) -> Effect:
    before, after = _cost(entry, old), _cost(entry, new)
    if before != entry.amount:
        return msgspec.structs.replace(effect, skipped=effect.skipped + 1)
    if before is None or after is None:
        lost, found = int(before is not None), int(after is not None)
        return msgspec.structs.replace(effect, lost=effect.lost + lost, found=effect.found + found)
    return msgspec.structs.replace(
        effect, calls=effect.calls + 1, before=effect.before + before, after=effect.after + after
    )


def _cost(entry: Entry, catalog: Catalog) -> Money | None:
    provider = None if entry.provider == "other:unknown" else entry.provider
    try:
        found = catalog.find(entry.requested_model or entry.model, at=entry.started_at, provider=provider)
    except (UnpricedError, InputError):
        return None
    assert entry.usage is not None
    context = {**found.context, **context_of(entry)}
    return price(entry.usage, found.card, at=entry.started_at, context=context).amount


def context_of(entry: Entry) -> Mapping[str, str]:
    """What decided the price of a call beside its usage, as far as the entry keeps it."""
    pairs = (("service_tier", entry.tier), ("region", entry.region))
    return {**entry.context, **{name: value for name, value in pairs if value is not None}}
