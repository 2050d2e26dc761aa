"""Board, rates: what each model costs now, how that changed, and what a change did to the calls of a ledger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tallystick.core.money import Money, divide_half_even
from tallystick.core.pricing import plan_for
from tallystick.errors import InputError, UnpricedError
from tallystick.insight.cardwords import per_million
from tallystick.ledger.query import Query, Total

if TYPE_CHECKING:
    from tallystick.catalog.catalog import Catalog, Found
    from tallystick.core.rates import RateCard
    from tallystick.ledger.ledger import Ledger

SHOWN: Final = ("input", "cache_read", "cache_write", "output")
"""The kinds that a list of rates shows; a model's own page has them all."""

MOST_FOUND: Final = 50


class ModelRates(msgspec.Struct, frozen=True, kw_only=True):
    """A model and the card in force; `card` None: nothing states a rate now, and `problem` says why. `total` is what
    the ledger's calls of it came to, None for a model that was only looked up. `rates` are US dollars for a million
    tokens, by the kinds of SHOWN; None where there is none."""

    provider: str
    model: str
    card: RateCard | None = None
    problem: str = ""
    total: Total | None = None
    rates: tuple[Money | None, ...] = (None,) * len(SHOWN)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What it meant that one card took over from another at `at`: the calls made under the new one until `until` (None:
    until now), and what their tokens cost by the standard rates of either card. `new` and `old` are None where a card
    lacks a rate for what was used."""

    at: datetime
    until: datetime | None
    calls: int
    old: Money | None
    new: Money | None
    moved: tuple[tuple[str, Money | None, Money | None], ...]

    @property
    def difference(self) -> Money | None:
        """What the change cost; negative where it saved."""
        return None if self.old is None or self.new is None else self.new - self.old


class History(msgspec.Struct, frozen=True, kw_only=True):
    """One model: how its name was resolved, its cards with the newest first, and what each change did."""

    found: Found | None
    provider: str
    model: str
    cards: tuple[RateCard, ...]
    changes: tuple[Change, ...]
    problem: str = ""


def used_rates(ledger: Ledger, query: Query, catalog: Catalog, at: datetime) -> tuple[ModelRates, ...]:
    """The models that were called, the dearest first, with their rates at an instant. Raises LedgerError."""
    totals = ledger.total(query, ("provider", "model"))
    rows = [
        _rates(catalog, str(total.group["model"]), str(total.group["provider"]), at, total)
        for total in totals
        if total.calls > total.refused
    ]
    return tuple(sorted(rows, key=lambda row: (-_spent(row.total), row.provider, row.model)))


def looked_up(catalog: Catalog, words: str, at: datetime) -> tuple[tuple[ModelRates, ...], bool]:
    """The models of the catalogue whose provider or name holds every word, and whether there were more of them than
    are given."""
    parts = words.lower().split()
    found: list[ModelRates] = []
    for provider in catalog.providers():
        for model in catalog.models(provider):
            name = f"{provider} {model}"
            if all(part in name for part in parts):
                if len(found) == MOST_FOUND:
                    return tuple(found), True
                found.append(_rates(catalog, model, provider, at, None))
    return tuple(found), False


def history(ledger: Ledger, catalog: Catalog, model: str, provider: str | None, at: datetime) -> History:
    """A model's cards and what their changes did to the calls in the ledger. Raises LedgerError."""
    biller = None if provider in (None, "other:unknown") else provider
    try:
        resolved = catalog.resolve(model, biller)
    except (UnpricedError, InputError) as error:
        return History(found=None, provider=provider or "", model=model, cards=(), changes=(), problem=error.what)
    cards = resolved.row.cards
    problem, found = "", None
    try:
        found = catalog.find(model, at=at, provider=biller)
    except UnpricedError as error:
        problem = error.what
    changes = _changes(ledger, cards, resolved.provider, model, at)
    newest = sorted(cards, key=lambda card: -(card.valid_from.timestamp() if card.valid_from else 0))
    return History(
        found=found, provider=resolved.provider, model=resolved.model, cards=tuple(newest), changes=tuple(changes),
        problem=problem,
    )  # fmt: skip


def rates_row(row: ModelRates) -> dict[str, Any]:
    """A row for CSV and JSON; rates are US dollars for a million tokens."""
    card = row.card
    return {
        "provider": row.provider,
        "model": row.model,
        **dict(zip(SHOWN, row.rates, strict=True)),
        "since": None if card is None else card.valid_from,
        "until": None if card is None else card.valid_to,
        "status": None if card is None else card.status,
        "source": None if card is None else card.source,
        "note": row.problem if card is None else card.note,
        "calls": None if row.total is None else row.total.calls,
        "cost": None if row.total is None or row.total.unpriced else row.total.cost,
    }


def _rates(catalog: Catalog, model: str, provider: str, at: datetime, total: Total | None) -> ModelRates:
    try:
        card, _ = catalog.card_at(model, None if provider == "other:unknown" else provider, at)
    except (UnpricedError, InputError) as error:
        return ModelRates(provider=provider, model=model, problem=error.what, total=total)
    rates = tuple(per_million(card, kind) for kind in SHOWN)
    return ModelRates(provider=provider, model=model, card=card, total=total, rates=rates)


def _spent(total: Total | None) -> int:
    return 0 if total is None else total.cost.pico + total.not_owed.pico


def _changes(ledger: Ledger, cards: Sequence[RateCard], provider: str, model: str, at: datetime) -> Iterator[Change]:
    dated = sorted(
        (card for card in cards if card.status != "user"),
        key=lambda card: card.valid_from.timestamp() if card.valid_from else 0.0,
    )
    for old, new in pairwise(dated):
        start = new.valid_from
        if start is None or start > at or old.valid_to != start:
            continue
        total = ledger.total(Query(since=start, until=new.valid_to, provider=provider, model=model))[0]
        size = total.usage.input_tokens // max(1, total.calls - total.refused)
        kinds = tuple(dict.fromkeys((*old.rates, *new.rates)))
        pairs = ((kind, per_million(old, kind), per_million(new, kind)) for kind in kinds)
        yield Change(
            at=start,
            until=new.valid_to,
            calls=total.calls - total.refused,
            old=_priced(total, old, size, start),
            new=_priced(total, new, size, start),
            moved=tuple(pair for pair in pairs if pair[1] != pair[2]),
        )


def _priced(total: Total, card: RateCard, size: int, at: datetime) -> Money | None:
    """What a sum of tokens costs by a card's standard rates, at the size of its average prompt."""
    kinds = plan_for(card, size, at, None).kinds
    amount = 0
    for kind, quantity in total.usage.items():
        priced = kinds.get(kind)
        if priced is None:
            return None
        amount += divide_half_even(quantity * priced.numerator, priced.denominator)
    return Money(amount)
