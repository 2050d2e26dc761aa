"""Checks: a wrong zero would silently disable every budget, so a build fails on a rate that is zero, negative, or moved
by more than half against the snapshot before, unless a reviewed override says that it is right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from tallystick.catalog import snapshot
from tallystick.catalog.sources.overrides import Entry
from tallystick.catalog.sources.row import Row, unit_price
from tallystick.core.rates import RateCard
from tallystick.errors import CatalogError

_FREE: Final = ":free"
_SHOWN: Final = 20
_BEGINNING: Final = datetime.min.replace(tzinfo=UTC)


def check(rows: Iterable[Row], previous: bytes | None, accepted: Iterable[Entry]) -> None:
    """Raises CatalogError, naming the rates, when one is zero or moved too far. `previous` is the snapshot before."""
    allowed = {(entry.provider, model, str(entry.raw["kind"])) for entry in accepted for model in entry.models}
    before = snapshot.decode(previous)["models"] if previous else {}
    faults: list[str] = []
    for row in rows:
        faults += _gaps(row)
        old = before.get(row.provider, {}).get(row.id, {}).get("cards", [])
        for card in row.cards:
            faults += [
                f"{card.id} {kind}: {fault}"
                for kind, fault in (*_zeros(row, card), *_moves(card, old))
                if (row.provider, row.id, kind) not in allowed and card.status != "reviewed"
            ]
    if faults:
        more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise CatalogError(
            f"{len(faults)} rates are not plausible: {'; '.join(faults[:_SHOWN])}{more}.",
            money="A wrong rate makes every cost and budget wrong.",
            todo="Check each one at its provider, then add a reviewed override or an [[accept]] entry.",
        )


def _gaps(row: Row) -> Iterator[str]:
    for card, following in zip(row.cards, row.cards[1:], strict=False):
        if card.valid_to is None or following.valid_from is None or card.valid_to > following.valid_from:
            yield f"{card.id}: overlaps the card after it"


def _zeros(row: Row, card: RateCard) -> Iterator[tuple[str, str]]:
    if row.provider == "openrouter" and row.id.endswith(_FREE):
        return
    groups = (("", card.rates), *((f" ({variant.name})", variant.rates) for variant in card.variants))
    for name, rates in groups:
        for kind, rate in rates.items():
            if not rate.usd or any(not cliff.usd for cliff in rate.cliffs):
                yield kind, f"is zero{name}"


def _moves(card: RateCard, old: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    since = card.valid_from or _BEGINNING
    held = next((one for one in old if _covers(one, since)), None)
    for kind, given in (held or {}).get("rates", {}).items():
        rate = card.rates.get(kind)
        was = Fraction(Decimal(given["usd"])) / given.get("per", 1_000_000)
        if rate is not None and was and abs(unit_price(rate) - was) > was / 2:
            yield kind, f"was {given['usd']}, is {rate.usd}"


def _covers(card: Mapping[str, Any], at: datetime) -> bool:
    since, until = card.get("valid_from"), card.get("valid_to")
    return (since is None or datetime.fromisoformat(since) <= at) and (
        until is None or at < datetime.fromisoformat(until)
    )
