"""Merging: two sources' rows become one. Where both speak they are compared; genai-prices' value stands unless a
reviewed override decides, and the card says whether the other agreed."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from fractions import Fraction
from typing import Final

import msgspec

from tallystick.catalog.sources.row import Log, Row, unit_price
from tallystick.catalog.sources.variants import scaled
from tallystick.core.models import parse_model
from tallystick.core.rates import Rate, RateCard, Variant
from tallystick.core.usage import TOKEN_KINDS

_PICO: Final = Fraction(1, 10**12)
_ROUNDED: Final = Fraction(1, 1000)
"""Rates per second are published rounded: a thousandth apart is the same price."""

_INHERITED: Final = "; as at "
_GLOBAL: Final = "global"
_GOV: Final = "us-gov"


class Rows:
    """Rows by provider and id, with an index of their other names."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.by_key: dict[tuple[str, str], Row] = {}
        self._names: dict[tuple[str, str], str] = {}
        for row in rows:
            self.add(row)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.by_key.values())

    def add(self, row: Row) -> None:
        """Adds a row, or replaces the one with its provider and id."""
        self.by_key[row.key] = row
        for alias in row.aliases:
            self._names.setdefault((row.provider, alias), row.id)

    def named(self, provider: str, name: str) -> tuple[Row, str] | None:
        """The row of a name and how it was found: `exact`, `alias` or `dated`."""
        found = self._exact(provider, name)
        if found is not None:
            return found
        ref = parse_model(name, provider)
        area = f"{ref.geo}." if ref.geo else ""
        for candidate, _ in ref.candidates():
            found = self._exact(provider, area + candidate)
            if found is not None and found[0].dated:
                return found[0], "dated"
        return None

    def _exact(self, provider: str, name: str) -> tuple[Row, str] | None:
        row = self.by_key.get((provider, name))
        if row is not None:
            return row, "exact"
        target = self._names.get((provider, name))
        row = None if target is None else self.by_key.get((provider, target))
        return None if row is None or name not in row.aliases else (row, "alias")

    def settle_names(self, log: Log) -> None:
        """Leaves each name with one row: an id beats an alias, and of two rows the first by id keeps it."""
        taken: set[tuple[str, str]] = set(self.by_key)
        for row in sorted(self, key=lambda row: row.key):
            for alias in sorted(row.aliases):
                if (row.provider, alias) in taken:
                    row.aliases.discard(alias)
                    log.note("alias claimed twice", f"{row.provider}/{alias}")
                taken.add((row.provider, alias))


def mirrored(rows: Iterable[Row], rules: Mapping[str, Mapping[str, object]]) -> Iterator[Row]:
    """The rows, with those of a source's list that covers two billers written under the billers who sell them."""
    for row in rows:
        rule = rules.get(row.provider)
        if rule is None:
            yield row
            continue
        makers = rule["makers"]
        if isinstance(makers, list) and row.maker in makers:
            yield row
        yield _moved(row, str(rule["to"]), "")


def _moved(row: Row, provider: str, remark: str) -> Row:
    other = copy.copy(row)
    other.provider, other.aliases, other.uplifts = provider, set(row.aliases), {}
    other.cards = [msgspec.structs.replace(card, provider=provider, source=card.source + remark) for card in row.cards]
    return other


def inherit(rows: Rows, heir: str, lenders: Iterable[str], log: Log) -> None:
    """Gives `heir` the rows of `lenders` that it has no row of its own for: it sells their models at their price. Rates
    by the clock are the lender's own custom and stay with him."""
    for lender in lenders:
        for row in [row for row in rows if row.provider == lender and row.cards]:
            if any(variant.windows for card in row.cards for variant in card.variants):
                log.note(f"rates by the clock, not for {heir}", f"{lender}/{row.id}")
            elif rows.named(heir, row.id) is None:
                rows.add(_moved(row, heir, f"{_INHERITED}{lender}"))
                log.note(f"rows that {heir} has from {lender}", row.id)


def compare_in(rows: Rows, others: Iterable[Row], now: datetime, inherited: frozenset[str], log: Log) -> None:
    """Lays the second source's rows against the first's: opinions on rows that exist, new rows where none does.

    `inherited` names providers whose rows are another's: there the second source, which speaks of the biller itself,
    wins where it differs.
    """
    ordered = sorted(others, key=lambda row: row.key)
    hosted = [row for row in ordered if row.provider == "aws"]
    ordered = [*(row for row in ordered if row.provider != "aws"), *_areas(hosted, rows, log)]
    # Names that are a row's own come first: what is said of its other names is then compared with the judged row.
    ordered.sort(key=lambda row: row.key not in rows.by_key)
    for other in ordered:
        _take(rows, other, now, inherited, log)


def _areas(others: list[Row], rows: Rows, log: Log) -> Iterator[Row]:
    """Bedrock's profiles by area, as the catalogue keeps them: `global.`, `us-gov.`, `regional.` for the rest."""
    regional: dict[str, list[Row]] = {}
    for other in others:
        ref = parse_model(other.id, "aws")
        if ref.geo and ref.geo not in (_GLOBAL, _GOV):
            regional.setdefault(ref.id, []).append(other)
        elif not ref.geo and rows.named("aws", f"regional.{ref.id}") is not None:
            log.note("litellm: bare Bedrock id, priced as regional", other.id)
        else:
            yield other
    for name, group in sorted(regional.items()):
        first = min(group, key=lambda row: (not row.id.startswith("us."), row.id))
        for row in group:
            if row.cards and first.cards and _differences(first.cards[0], row.cards[0]):
                log.note("litellm: a Bedrock area with rates of its own", row.id)
                yield row
        if rows.named("aws", f"regional.{name}") is None:
            bare = rows.named("aws", name)
            if bare is not None and not _row_differs(bare[0], first):
                continue
        yield _moved_id(first, f"regional.{name}")


def _moved_id(row: Row, name: str) -> Row:
    other = copy.copy(row)
    other.id = name
    return other


def _row_differs(row: Row, other: Row) -> bool:
    return bool(row.cards and other.cards and _differences(row.cards[-1], other.cards[0]))


def _take(rows: Rows, other: Row, now: datetime, inherited: frozenset[str], log: Log) -> None:
    found = rows.named(other.provider, other.id)
    if found is None:
        rows.add(other)
        return
    row, how = found
    _describe(row, other, exact=how == "exact")
    card = row.current(now)
    if not other.cards:
        return
    if card is None:
        if how == "exact":
            row.cards = other.cards
        return
    theirs = other.cards[0]
    differences = _differences(card, theirs)
    borrowed = row.provider in inherited and _INHERITED in card.source
    if differences and (borrowed or _release(card) == _release(theirs)):
        _own(rows, other, row, how, log)
    elif differences and how != "exact":
        if _said(differences, _release(theirs)) not in card.note:
            log.note(f"{how} name with other rates, a row of its own", f"{other.provider}/{other.id}")
            rows.add(_split(row, other, how, differences))
    elif differences or card.status == "single":
        _judge(row, card, theirs, differences)
        if not differences:
            _complete(row, theirs, now)
    if how == "dated" and not differences:
        row.aliases.add(other.id)
        rows.add(row)


def _describe(row: Row, other: Row, *, exact: bool) -> None:
    row.context_window = row.context_window or other.context_window
    row.max_output = row.max_output or other.max_output
    row.mode = row.mode or other.mode
    row.uplifts = {**other.uplifts, **row.uplifts}
    if exact:
        row.retires = other.retires or row.retires


def _differences(ours: RateCard, theirs: RateCard) -> list[tuple[str, Rate, Rate]]:
    if any(variant.windows for variant in (*ours.variants, *theirs.variants)):
        return []  # Rates by the clock are compared by people, in overrides.
    shared = sorted(ours.rates.keys() & theirs.rates.keys())
    return [(kind, ours.rates[kind], theirs.rates[kind]) for kind in shared if not _same(kind, ours, theirs)]


def _same(kind: str, ours: RateCard, theirs: RateCard) -> bool:
    one, two = ours.rates[kind], theirs.rates[kind]
    tolerance = unit_price(one) * _ROUNDED if kind.startswith("milliseconds") else _PICO / 2
    if abs(unit_price(one) - unit_price(two)) > tolerance:
        return False
    if not one.cliffs or not two.cliffs:
        return True  # A source that lists no step says nothing about one.
    return [(step.first, step.usd) for step in one.cliffs] == [(step.first, step.usd) for step in two.cliffs]


def _said(differences: list[tuple[str, Rate, Rate]], release: str) -> str:
    return f"{release} has " + ", ".join(
        f"{kind} {format(two.usd, 'f')} for {format(one.usd, 'f')}"
        if one.usd != two.usd or one.per != two.per
        else f"{kind} with other steps"
        for kind, one, two in differences
    )


def _release(card: RateCard) -> str:
    return card.source.split(",")[0].split(";")[0]


def _judge(row: Row, card: RateCard, theirs: RateCard, differences: list[tuple[str, Rate, Rate]]) -> None:
    if not card.rates.keys() & theirs.rates.keys():
        return
    status, note = "agreed", card.note
    if differences:
        status, note = "conflict", _joined(card.note, _said(differences, _release(theirs)))
    _replace(row, card, msgspec.structs.replace(card, status=status, note=note))


def _replace(row: Row, old: RateCard, new: RateCard) -> None:
    row.cards = [new if card is old else card for card in row.cards]


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _own(rows: Rows, other: Row, row: Row, how: str, log: Log) -> None:
    """An inherited row gives way to what the second source says of this biller itself."""
    log.note("inherited price replaced by the biller's own", f"{other.provider}/{other.id}")
    if how == "exact":
        row.cards = other.cards
    else:
        row.aliases.discard(other.id)
        rows.add(other)


def _split(row: Row, other: Row, how: str, differences: list[tuple[str, Rate, Rate]]) -> Row:
    """A row of its own for a name that the first source covers loosely and the second prices otherwise."""
    card, theirs = row.cards[-1], other.cards[0]
    if how == "dated":  # Our first source only says "starts with"; the second names this very model.
        reverse = [(kind, two, one) for kind, one, two in differences]
        note = _said(reverse, f"{_release(card)}, by how the name begins,")
        other.cards = [msgspec.structs.replace(theirs, status="conflict", note=note)]
        return other
    note = _joined(card.note, _said(differences, _release(theirs)))
    own = copy.copy(row)
    own.id, own.aliases, own.dated = other.id, set(), False
    own.cards = [*row.cards[:-1], msgspec.structs.replace(card, status="conflict", note=note)]
    row.aliases.discard(other.id)
    return own


def _complete(row: Row, theirs: RateCard, now: datetime) -> None:
    """Adds what only the second source states to a row on which both agree: kinds to the card in force, tiers to every
    card, at the exact ratio they have to it."""
    card = row.current(now)
    if card is None or not card.rates.keys() & theirs.rates.keys():
        return
    release = _release(theirs)
    extra = {
        kind: rate for kind, rate in theirs.rates.items() if kind not in card.rates and _credible(kind, rate, card)
    }
    known = {variant.when for variant in card.variants}
    variants = [variant for variant in theirs.variants if variant.when and variant.when not in known]
    changed = []
    for one in row.cards:
        rates, added, note = dict(one.rates), [], one.note
        if one is card and extra:
            rates |= extra
            note = _joined(note, f"{', '.join(sorted(extra))} from {release}")
        for variant in variants:
            moved = variant.rates if one is card else scaled(variant.rates, theirs.rates, one.rates)
            moved = {kind: rate for kind, rate in moved.items() if kind in rates}
            if moved:
                added.append(Variant(variant.name, moved, variant.when, source=release))
        changed.append(msgspec.structs.replace(one, rates=rates, variants=(*one.variants, *added), note=note))
    row.cards = changed


def _credible(kind: str, rate: Rate, card: RateCard) -> bool:
    """Whether a kind that only the second source states is worth having. It often repeats the text rate for audio,
    which is a known way to a wrong bill, and counts images, seconds or requests beside tokens as an estimate."""
    text = card.rates.get("input" if kind.endswith("input") else "output")
    if kind.startswith("audio") and text is not None and rate.usd == text.usd:
        return False
    return kind in TOKEN_KINDS or kind.startswith("fee:") or kind in ("searches", "pages")
