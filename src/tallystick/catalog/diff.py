"""Diff: what changed between two snapshots of the catalogue, for people who decide whether to take the newer one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import msgspec

from tallystick.catalog import snapshot

_BEGINNING: Final = datetime.min.replace(tzinfo=UTC)
_MILLION: Final = 1_000_000


class Change(msgspec.Struct, frozen=True):
    """One difference. `what` is `added`, `removed` or `rate`; for a rate `kind` says which, `old` and `new` are US
    dollars for `per` units (None: no rate), and `since` is the instant from which they differ (None: always)."""

    what: str
    provider: str
    model: str
    kind: str = ""
    old: Decimal | None = None
    new: Decimal | None = None
    per: int = _MILLION
    since: datetime | None = None

    def __str__(self) -> str:
        """`provider/model input: $2.5 -> $2 per 1,000,000 since 2026-01-01 (-20.0 %)`."""
        name = f"{self.provider}/{self.model}"
        if self.what != "rate":
            return f"{name} {self.what}"
        since = f" since {self.since:%Y-%m-%d}" if self.since else ""
        moved = ""
        if self.old and self.new is not None:
            moved = f" ({(self.new - self.old) / self.old * 100:+.1f} %)"
        return f"{name} {self.kind}: {_usd(self.old)} -> {_usd(self.new)} per {self.per:,}{since}{moved}"


def compare(old: bytes, new: bytes) -> tuple[Change, ...]:
    """The differences between two snapshots: models added and removed, standard rates that differ and since when.
    Raises CatalogError for bytes that are no snapshot."""
    before, after = snapshot.decode(old)["models"], snapshot.decode(new)["models"]
    changes: list[Change] = []
    for provider in sorted({*before, *after}):
        had, has = before.get(provider, {}), after.get(provider, {})
        for model in sorted({*had, *has}):
            if model not in had:
                changes.append(Change("added", provider, model))
            elif model not in has:
                changes.append(Change("removed", provider, model))
            else:
                changes += _moves(provider, model, had[model].get("cards", []), has[model].get("cards", []))
    return tuple(changes)


def _moves(provider: str, model: str, had: list[Any], has: list[Any]) -> Iterator[Change]:
    starts = sorted({_instant(card) for card in (*had, *has)})
    told: dict[str, tuple[Fraction | None, Fraction | None]] = {}
    for start in starts:
        one, two = _rates_at(had, start), _rates_at(has, start)
        for kind in sorted({*one, *two}):
            pair = _unit(one.get(kind)), _unit(two.get(kind))
            if pair[0] != pair[1] and told.get(kind) != pair:
                per = (two.get(kind) or one[kind]).get("per", _MILLION)
                since = None if start == _BEGINNING else start
                yield Change("rate", provider, model, kind, _scaled(pair[0], per), _scaled(pair[1], per), per, since)
            told[kind] = pair


def _instant(card: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(card["valid_from"]) if "valid_from" in card else _BEGINNING


def _rates_at(cards: list[Any], at: datetime) -> Mapping[str, Any]:
    for card in cards:
        until = card.get("valid_to")
        if _instant(card) <= at and (until is None or at < datetime.fromisoformat(until)):
            rates: Mapping[str, Any] = card["rates"]
            return rates
    return {}


def _unit(rate: Mapping[str, Any] | None) -> Fraction | None:
    return None if rate is None else Fraction(rate["usd"]) / rate.get("per", _MILLION)


def _scaled(unit: Fraction | None, per: int) -> Decimal | None:
    return None if unit is None else Decimal((unit * per).numerator) / Decimal((unit * per).denominator)


def _usd(value: Decimal | None) -> str:
    return "no rate" if value is None else f"${value.normalize():f}"
