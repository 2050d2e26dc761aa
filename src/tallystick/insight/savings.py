"""Savings: what the cache saved and cost, what each kind of usage cost, and who else reported the same calls.

These are read off the calls one by one, from the lines of each cost: nothing is assumed about what a call would have
been like without a cache, only that the same tokens would have been sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tallystick.core.money import Money, divide_half_even
from tallystick.core.pricing import plan_for
from tallystick.errors import InputError, UnpricedError
from tallystick.insight.rerate import context_of

if TYPE_CHECKING:
    from tallystick.catalog.catalog import Catalog
    from tallystick.core.cost import Cost, Line, PricedKind
    from tallystick.ledger.entry import Entry
    from tallystick.ledger.ledger import Ledger
    from tallystick.ledger.query import Query

READS: Final = {
    "cache_read": "input",
    "audio_cache_read": "audio_input",
    "image_cache_read": "image_input",
    "video_cache_read": "video_input",
}
"""What tokens read from a cache would have been without one."""

WRITES: Final = {"cache_write": "input", "cache_write_5m": "input", "cache_write_1h": "input"}
STORAGE: Final = "cache_token_hours"
OTHER: Final = "stated by the provider, in no line"
"""The part of stated costs that our own lines do not explain, so that the kinds add up to the whole."""

Unit = tuple[int, int]
"""The exact price of one unit in picodollars, as numerator and denominator in lowest terms."""

_CACHED: Final = frozenset({*READS, *WRITES, STORAGE})


class Savings(msgspec.Struct, frozen=True):
    """What caching did to the cost of `calls` calls with cached tokens, as far as it could be computed (`computed`).

    `saved` is what the tokens read from the cache would have cost more at the uncached input rate of the same call,
    `extra` what writing and keeping them cost above it, both in US dollars.
    """

    calls: int = 0
    computed: int = 0
    saved: Money = Money(0)
    extra: Money = Money(0)

    @property
    def net(self) -> Money:
        """What caching saved in the end; negative where it cost more than it saved."""
        return self.saved - self.extra

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON values."""
        return {
            "calls": self.calls,
            "computed": self.computed,
            "saved": self.saved.to_json(),
            "extra": self.extra.to_json(),
            "net": self.net.to_json(),
        }


class KindCost(msgspec.Struct, frozen=True):
    """What one kind of usage cost: `cost` is owed, `not_owed` is what a subscription covers, both as far as known.
    `unpriced` counts the calls whose line of this kind has no rate."""

    kind: str
    cost: Money = Money(0)
    not_owed: Money = Money(0)
    unpriced: int = 0

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON values."""
        return {
            "kind": self.kind,
            "cost": self.cost.to_json(),
            "not_owed": self.not_owed.to_json(),
            "unpriced": self.unpriced,
        }


class Detail(msgspec.Struct, frozen=True):
    """What only the calls themselves tell: cache savings of calls that are owed and of those a subscription covers,
    the cost by kind, how many reports by other sources were `joined` into these calls (each counts once), and how many
    calls carry a provider's id that the same source had given before (`repeated`; each counts)."""

    owed: Savings
    not_owed: Savings
    kinds: tuple[KindCost, ...]
    joined: int = 0
    repeated: int = 0

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON values."""
        return {
            "savings": self.owed.to_json(),
            "savings_not_owed": self.not_owed.to_json(),
            "kinds": [kind.to_json() for kind in self.kinds],
            "joined": self.joined,
            "repeated": self.repeated,
        }


def look_at(ledger: Ledger, query: Query, catalog: Catalog | None = None) -> Detail:
    """Reads the calls that fit. The uncached rate is that of the call's own input line; where it has none, the
    catalogue's at the call's instant, if that catalogue also gives the rate the cached tokens were priced at. Raises
    LedgerError."""
    found = _Finding(catalog)
    for entry in ledger.read(query):
        found.add(entry)
        if entry.provider_response_id is not None:
            found.joined += len(ledger.joined(entry.call_id))
    repeated = ledger.total(msgspec.structs.replace(query, repeated=True))[0].calls
    kinds = [KindCost(kind, Money(owed), Money(free), gaps) for kind, (owed, free, gaps) in found.kinds.items()]
    owed, free = (Savings(calls, done, Money(saved), Money(extra)) for calls, done, saved, extra in found.caches)
    return Detail(owed, free, tuple(kinds), found.joined, repeated)


class _Finding:
    """Sums so far. `caches` are [calls, computed, saved, extra] of owed calls and of others."""

    def __init__(self, catalog: Catalog | None) -> None:
        self.kinds: dict[str, list[int]] = {}
        self.caches = [[0, 0, 0, 0], [0, 0, 0, 0]]
        self.joined = 0
        self._catalog = catalog

    def add(self, entry: Entry) -> None:
        place = 0 if entry.owed else 1
        if entry.cost is not None:
            self._add_kinds(entry.cost, place)
        if entry.usage is None or _CACHED.isdisjoint(entry.usage):
            return
        cache = self.caches[place]
        cache[0] += 1
        found = None if entry.cost is None else cache_effect(entry, entry.cost, self._catalog)
        if found is not None:
            cache[1] += 1
            cache[2] += found[0]
            cache[3] += found[1]

    def _add_kinds(self, cost: Cost, place: int) -> None:
        known = 0
        for line in cost.lines:
            sums = self.kinds.setdefault(line.kind, [0, 0, 0])
            sums[place] += line.pico or 0
            sums[2] += line.pico is None
            known += line.pico or 0
        if cost.pico is not None and cost.pico != known:
            self.kinds.setdefault(OTHER, [0, 0, 0])[place] += cost.pico - known


def cache_effect(entry: Entry, cost: Cost, catalog: Catalog | None = None) -> tuple[int, int] | None:
    """What the cache saved and cost extra in one call, in picodollars; None where it cannot be told: a line without a
    rate, a bill that our lines do not explain, or no uncached rate to compare with."""
    if cost.listed_pico is not None and cost.listed_pico != cost.pico:
        return None
    lines = {line.kind: line for line in cost.lines}
    saved = extra = 0
    for kind in entry.usage or ():
        if kind not in _CACHED:
            continue
        line = lines.get(kind)
        if line is None or line.pico is None:
            return None
        if kind == STORAGE:
            extra += line.pico
            continue
        uncached = _uncached(entry, lines, line, catalog)
        if uncached is None:
            return None
        difference = divide_half_even(line.quantity * uncached[0], uncached[1]) - line.pico
        if kind in READS:
            saved += difference
        else:
            extra -= difference
    return saved, extra


def _uncached(entry: Entry, lines: dict[str, Line], cached: Line, catalog: Catalog | None) -> Unit | None:
    """The price of one unit had it not been cached."""
    kind = READS.get(cached.kind) or WRITES[cached.kind]
    beside = lines.get(kind)
    if beside is not None:
        return None if beside.priced is None else _unit(beside.priced)
    for plan in _plans(entry, catalog):
        own, plain = plan.get(cached.kind), plan.get(kind)
        same = own is not None and cached.priced is not None and _unit(own) == _unit(cached.priced)
        return _unit(plain) if same and plain is not None else None
    return None


def _plans(entry: Entry, catalog: Catalog | None) -> Iterator[dict[str, PricedKind]]:
    if catalog is None or entry.usage is None:
        return
    provider = None if entry.provider == "other:unknown" else entry.provider
    try:
        card, said = catalog.card_at(entry.requested_model or entry.model, provider, entry.started_at)
    except (UnpricedError, InputError):
        return
    context = {**said, **context_of(entry)}
    yield dict(plan_for(card, entry.usage.input_tokens, entry.started_at, context).kinds)


def _unit(priced: PricedKind) -> Unit | None:
    """The price of one unit; None where it depends on what else was used."""
    return None if priced.rate.brackets is not None else (priced.numerator, priced.denominator)
