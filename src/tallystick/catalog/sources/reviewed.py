"""Applying reviewed overrides to rows: whole cards, patches, settled conflicts, multipliers, derived rows."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import msgspec

from tallystick.catalog.merge import Rows
from tallystick.catalog.sources.overrides import Entry, Overrides
from tallystick.catalog.sources.row import Log, Row
from tallystick.catalog.sources.variants import times
from tallystick.core.rates import Multiplier, Rate, RateCard, Variant
from tallystick.core.usage import TOKEN_KINDS
from tallystick.errors import CatalogError

_BEGINNING = datetime.min.replace(tzinfo=UTC)
_END = datetime.max.replace(tzinfo=UTC)


def apply(rows: Rows, overrides: Overrides, log: Log) -> None:
    """Applies all tables in their order: models, cards, patches, settled conflicts, derived rows, multipliers."""
    for entry in overrides.of("model"):
        _model(rows, entry)
    for entry in overrides.of("card"):
        for row in _rows(rows, entry, create=True):
            _card(row, entry)
    for entry in overrides.of("patch"):
        for row in _rows(rows, entry):
            row.cards = [part for card in row.cards for part in _patched(card, entry)]
    for entry in overrides.of("settle"):
        for row in _rows(rows, entry) if entry.models else [row for row in rows if row.provider == entry.provider]:
            row.cards = [_settled(card, entry) for card in row.cards]
    for entry in overrides.of("derive"):
        _derive(rows, entry, log)
    for entry in overrides.of("multiplier"):
        _multiply(rows, entry)


def _rows(rows: Rows, entry: Entry, *, create: bool = False) -> Iterator[Row]:
    for name in entry.models:
        row = rows.by_key.get((entry.provider, name))
        if row is None and create:
            row = Row(entry.provider, name)
            rows.add(row)
        if row is None:
            raise CatalogError(f"An override names {entry.provider}/{name}, which no source knows.", todo="Remove it.")
        yield row


def _source(entry: Entry) -> str:
    return f"{entry.source} (reviewed {entry.reviewed})"


def _model(rows: Rows, entry: Entry) -> None:
    for row in _rows(rows, entry, create=True):
        row.aliases |= {name.lower() for name in entry.raw.get("aliases", ())}
        for name in entry.raw.get("not_aliases", ()):
            row.aliases.discard(name)
        row.retires = str(entry.raw["retires"]) if "retires" in entry.raw else row.retires
        row.mode = entry.raw.get("mode", row.mode)
        row.dated = entry.raw.get("dated", row.dated)
        rows.add(row)


def _card(row: Row, entry: Entry) -> None:
    """Puts a card into the row's history; the cards that were there keep the time before and after it."""
    start, end = entry.start or _BEGINNING, entry.end or _END
    kept = [part for card in row.cards for part in _outside(card, start, end)]
    card = RateCard(
        row.provider, row.id, entry.rates, entry.start, entry.end, _source(entry), entry.reviewed, "reviewed",
        entry.variants, note=entry.why,
    )  # fmt: skip
    row.cards = sorted([*kept, card], key=lambda one: one.valid_from or _BEGINNING)


def _outside(card: RateCard, start: datetime, end: datetime) -> Iterator[RateCard]:
    since, until = card.valid_from or _BEGINNING, card.valid_to or _END
    if since < start:
        yield _cut(card, since, min(until, start))
    if until > end:
        yield _cut(card, max(since, end), until)


def _cut(card: RateCard, since: datetime, until: datetime) -> RateCard:
    return msgspec.structs.replace(
        card,
        valid_from=None if since == _BEGINNING else since,
        valid_to=None if until == _END else until,
    )


def _patched(card: RateCard, entry: Entry) -> Iterator[RateCard]:
    since, until = card.valid_from or _BEGINNING, card.valid_to or _END
    start, end = max(since, entry.start or _BEGINNING), min(until, entry.end or _END)
    if start >= end:
        yield card
        return
    parts = [*_outside(card, start, end)]
    inner = _cut(card, start, end)
    rates = {kind: rate for kind, rate in inner.rates.items() if kind not in entry.raw.get("drop", ())}
    rates |= entry.rates
    for kind, least in entry.raw.get("minimum", {}).items():
        if kind in rates:
            rates[kind] = msgspec.structs.replace(rates[kind], minimum=least)
    variants = [_with_minimum(variant, entry) for variant in inner.variants]
    patched = msgspec.structs.replace(
        inner, rates=rates, variants=(*variants, *entry.variants), status="reviewed",
        source=f"{inner.source}; {_source(entry)}", note="; ".join(filter(None, (inner.note, entry.why))),
    )  # fmt: skip
    yield from sorted([*parts, patched], key=lambda one: one.valid_from or _BEGINNING)


def _with_minimum(variant: Variant, entry: Entry) -> Variant:
    least = entry.raw.get("minimum", {})
    rates = {
        kind: msgspec.structs.replace(rate, minimum=least[kind]) if kind in least else rate
        for kind, rate in variant.rates.items()
    }
    return msgspec.structs.replace(variant, rates=rates)


def _settled(card: RateCard, entry: Entry) -> RateCard:
    if card.status != "conflict":
        return card
    note = f"{card.note}; settled: {entry.why}" if card.note else entry.why
    return msgspec.structs.replace(card, status="reviewed", note=note)


def _derive(rows: Rows, entry: Entry, log: Log) -> None:
    """Writes rows under another prefix at a factor of the originals', where the prefix has none of its own."""
    old, new, factor = entry.raw["old"], entry.raw["new"], Fraction(Decimal(entry.raw["factor"]))
    makers, spared = entry.raw["makers"], set(entry.raw.get("except", ()))
    originals = [
        row for row in rows
        if row.provider == entry.provider and row.id.startswith(old) and row.maker in makers
        and row.id.removeprefix(old) not in spared and row.cards
    ]  # fmt: skip
    for row in originals:
        name = new + row.id.removeprefix(old)
        aliases = {new + alias.removeprefix(old) for alias in row.aliases if alias.startswith(old)}
        if any(rows.named(entry.provider, one) is not None for one in (name, *aliases)):
            continue
        other = copy.copy(row)
        other.id, other.aliases = name, aliases
        other.cards = [_scaled_card(card, factor, entry) for card in row.cards]
        rows.add(other)
        log.note(f"rows derived as {new}", name)


def _scaled_card(card: RateCard, factor: Fraction, entry: Entry) -> RateCard:
    return msgspec.structs.replace(
        card, rates=_scaled_rates(card.rates.items(), factor), status="reviewed", note=entry.why,
        source=f"{card.source}; {_source(entry)}",
        variants=tuple(
            msgspec.structs.replace(one, rates=_scaled_rates(one.rates.items(), factor)) for one in card.variants
        ),
    )  # fmt: skip


def _scaled_rates(rates: Iterable[tuple[str, Rate]], factor: Fraction) -> dict[str, Rate]:
    scaled = {}
    for kind, rate in rates:
        moved = times(rate, factor) if kind in TOKEN_KINDS else rate
        if moved is None:
            raise CatalogError(f"A derived rate of {kind} has no finite decimal: {rate}.")
        scaled[kind] = moved
    return scaled


def _multiply(rows: Rows, entry: Entry) -> None:
    for row in rows:
        makers = entry.raw.get("makers")
        if row.provider != entry.provider or (makers is not None and row.maker not in makers):
            continue
        if entry.models and row.id not in entry.models:
            continue
        factor = Decimal(entry.raw["factor"]) if "factor" in entry.raw else row.uplifts.get(entry.raw["uplift"])
        if factor is not None:
            row.cards = [_multiplied(card, entry, factor) for card in row.cards]


def _only_discounted(variant: Variant, card: RateCard, names: tuple[str, ...]) -> Variant:
    """A variant without cache rates that it repeats from the card although its input is cheaper: a rule decides."""
    given, listed = variant.rates.get("input"), card.rates.get("input")
    if variant.name not in names or given is None or listed is None or given.usd >= listed.usd:
        return variant
    rates = {kind: rate for kind, rate in variant.rates.items() if "cache" not in kind or rate != card.rates.get(kind)}
    return msgspec.structs.replace(variant, rates=rates)


def _multiplied(card: RateCard, entry: Entry, factor: Decimal) -> RateCard:
    if not card.rates.keys() & TOKEN_KINDS:
        return card
    unless = tuple(entry.raw.get("unless", ()))
    card = msgspec.structs.replace(card, variants=tuple(_only_discounted(one, card, unless) for one in card.variants))
    names = {variant.name for variant in card.variants}
    kept = tuple(name for name in unless if name in names)
    when = tuple(sorted(entry.raw["when"].items()))
    rule = (
        Multiplier(entry.raw["name"], factor, when, unless=kept)
        if kept
        else Multiplier(entry.raw["name"], factor, when)
    )
    note = card.note
    for variant in card.variants:
        lacking = sorted((card.rates.keys() - variant.rates.keys()) & TOKEN_KINDS)
        if variant.name in kept and lacking:
            remark = f"{variant.name}: {', '.join(lacking)} by rule (x {factor}), not stated by the source"
            note = "; ".join(filter(None, (note, remark)))
    return msgspec.structs.replace(card, multipliers=(*card.multipliers, rule), note=note)
