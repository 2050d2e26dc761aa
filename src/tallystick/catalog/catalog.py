"""Catalog: from a model's name and an instant to the rate card that applies, with its source.

A name is resolved by rule only: its exact id or alias, a release date or version where the row allows it, a Bedrock
profile's area, a fine-tune's own row. What none of these reach is unknown and stays unpriced.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

import msgspec

from tallystick.core.models import ModelRef, parse_model
from tallystick.core.rates import Rate, RateCard
from tallystick.errors import CatalogError, MissingRateError, UnknownModelError

SCHEMA: Final = 1
FREE_SUFFIX: Final = "free"
ROUTING_SUFFIXES: Final = frozenset({"nitro", "floor", "online", "exacto", "thinking", "beta"})
"""What OpenRouter takes behind a model's name without making it another model."""

_ZERO: Final = Decimal(0)


class ModelRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """One model at one provider: who made it, how much it takes and gives, when it ends, and its cards in time order.

    `dated` says that a release date or version may be dropped from a name to reach this row.
    """

    cards: tuple[RateCard, ...] = ()
    maker: str | None = None
    context_window: int | None = None
    max_output: int | None = None
    mode: str | None = None
    retires: str | None = None
    dated: bool = False


class Snapshot(msgspec.Struct, frozen=True):
    """The bundled catalogue as it lies on disk; rows stay undecoded until they are asked for."""

    schema: int
    built_at: str
    sources: dict[str, dict[str, str]]
    preference: tuple[str, ...]
    aliases: dict[str, dict[str, str]]
    models: dict[str, dict[str, msgspec.Raw]]


class Found(msgspec.Struct, frozen=True):
    """A resolved name: the row's provider and id, its card at the instant, and what the name itself says of the context
    (`geo`, `region`). `rule` is how the name was resolved: exact, alias, dated, version, latest, free or user."""

    provider: str
    model: str
    card: RateCard
    row: ModelRow
    ref: ModelRef
    rule: str
    context: Mapping[str, str]


class Resolved(msgspec.Struct, frozen=True):
    """A name taken to its row, whatever the instant. See `Found`."""

    provider: str
    model: str
    row: ModelRow
    ref: ModelRef
    rule: str
    context: Mapping[str, str]


# Made here, as two threads that make msgspec look into a type for the first time can crash the interpreter.
_snapshot: Final = msgspec.json.Decoder(Snapshot).decode
_row: Final = msgspec.json.Decoder(ModelRow).decode


class Catalog:
    """Rate cards by model and instant. Immutable, apart from rows it has decoded and names it has resolved before.

    `snapshot` is the catalogue file's bytes, `user` the user's own cards, which win over it; `sha256` is the hash of
    the bytes where it is known already. Raises CatalogError when the bytes are not a catalogue.
    """

    def __init__(self, snapshot: bytes, user: Iterable[RateCard] = (), sha256: str | None = None) -> None:
        self.sha256 = sha256 or digest(snapshot)
        try:
            self._data = _snapshot(snapshot)
        except msgspec.DecodeError as error:
            raise CatalogError(f"The rate catalogue cannot be read: {error}.", todo="Reinstall tallystick.") from None
        if self._data.schema != SCHEMA:
            raise CatalogError(f"The rate catalogue has schema {self._data.schema}; this version reads {SCHEMA}.")
        self._user = tuple(user)
        self._rows: dict[tuple[str, str], ModelRow] = {}
        self._resolved: dict[tuple[str, str | None], Resolved] = {}

    @classmethod
    def bundled(cls) -> Catalog:
        """The catalogue that came with the package; read once."""
        return _bundled()

    @classmethod
    def newest(cls, folder: Path) -> Catalog:
        """The updated catalogue in `folder` where there is one, its hash matches and it is newer than the bundled one;
        else the bundled one."""
        data = read_update(folder)
        if data is None or built_on(data) <= _bundled().built_at:
            return _bundled()
        return cls(data)

    def with_user(self, cards: Iterable[RateCard]) -> Catalog:
        """The same catalogue with the user's own cards on top."""
        other = copy.copy(self)
        other._user, other._resolved = tuple(cards), {}  # noqa: SLF001 - of our own kind
        return other

    @property
    def built_at(self) -> str:
        """The day the catalogue was built, `YYYY-MM-DD`."""
        return self._data.built_at

    @property
    def sources(self) -> Mapping[str, Mapping[str, str]]:
        """The sources it was built from, with version, day of retrieval and licence."""
        return self._data.sources

    def providers(self) -> tuple[str, ...]:
        """Providers with at least one model, in the order in which a bare name is looked up."""
        return (*self._data.preference, *sorted(set(self._data.models) - set(self._data.preference)))

    def models(self, provider: str) -> Iterator[str]:
        """The row ids at a provider."""
        return iter(self._data.models.get(provider, {}))

    def row(self, provider: str, model: str) -> ModelRow | None:
        """The row of an exact row id, or None."""
        key = (provider, model)
        held = self._rows.get(key)
        if held is None:
            raw = self._data.models.get(provider, {}).get(model)
            if raw is None:
                return None
            row = _row(raw)
            cards = tuple(msgspec.structs.replace(card, catalogue=self.sha256) for card in row.cards)
            held = self._rows[key] = msgspec.structs.replace(row, cards=cards)
        return held

    def find(self, model: str, *, at: datetime, provider: str | None = None) -> Found:
        """The card of `model` at the instant `at`.

        Without a provider, and without one in the name itself (`azure/...`, an ARN), first parties are asked first.
        Raises UnknownModelError with the three nearest names, MissingRateError when the model is known but nothing
        states its rate at that instant, InputError for what cannot be a model name.
        """
        resolved = self.resolve(model, provider)
        card, context = self.card_at(model, provider, at)
        return Found(resolved.provider, resolved.model, card, resolved.row, resolved.ref, resolved.rule, context)

    def card_at(self, model: str, provider: str | None, at: datetime) -> tuple[RateCard, Mapping[str, str]]:
        """The card alone, and what the name says of the context: `find` for those who price many calls."""
        resolved = self._resolved.get((model, provider)) or self.resolve(model, provider)
        for card in resolved.row.cards:
            if (card.valid_from is None or card.valid_from <= at) and (card.valid_to is None or at < card.valid_to):
                return card, resolved.context
        raise _no_card(model, resolved, at)

    def history(self, model: str, provider: str | None = None) -> tuple[RateCard, ...]:
        """Every card of a model, in time order. Raises as `find` does."""
        return self.resolve(model, provider).row.cards

    def resolve(self, model: str, provider: str | None = None) -> Resolved:
        """The row that a name means, whatever the instant. Raises UnknownModelError."""
        key = (model, provider)
        held = self._resolved.get(key)
        if held is None:
            ref = parse_model(model, provider)
            held = self._by_user(ref) or self._by_rule(ref)
            if held is None:
                raise UnknownModelError(model, functools.partial(self.nearest, ref), provider=ref.provider)
            self._resolved[key] = held
        return held

    def nearest(self, ref: ModelRef, count: int = 3) -> tuple[str, ...]:
        """Up to `count` known names that look most like the reference, for an error message: each model once, and of
        two that are as near the one that its maker sells."""
        from tallystick.catalog.nearest import nearest

        places = [ref.provider] if ref.provider in self._data.models else [*self.providers()]
        names: dict[str, tuple[int, str]] = {}
        for rank, place in enumerate(places):
            for name in self._data.models.get(place or "", ()):
                names.setdefault(name, (rank, name))
            for name, model in self._data.aliases.get(place or "", {}).items():
                names.setdefault(name, (rank, model))
        if ref.fine_tune_of is None:
            names = {name: known for name, known in names.items() if not name.startswith("ft:")}
        names.update((card.model.lower(), (0, card.model.lower())) for card in self._user)
        return nearest(ref.id, names, count)

    def _by_user(self, ref: ModelRef) -> Resolved | None:
        names = (ref.id, ref.text.strip().lower())
        cards = [card for card in self._user if card.model.lower() in names]
        if not cards:
            return None
        below = self._by_rule(ref)
        # A card for one provider says nothing about a name that means another.
        asked = ref.provider or (None if below is None else below.provider)
        cards = [card for card in cards if _bills(card.provider, asked)]
        if not cards:
            return None
        row = ModelRow() if below is None else below.row
        provider = ref.provider or cards[0].provider or ("other:user" if below is None else below.provider)
        owned = [
            [msgspec.structs.replace(card, provider=provider) for card in cards if bool(card.provider) is special]
            for special in (True, False)
        ]
        row = msgspec.structs.replace(row, cards=(*_newest(owned[0]), *_newest(owned[1]), *row.cards))
        return Resolved(provider, cards[0].model.lower(), row, ref, "user", _said(ref))

    def _by_rule(self, ref: ModelRef) -> Resolved | None:
        places = self.providers() if ref.provider is None else (ref.provider,)
        for name, rule in _candidates(ref):
            for place in places:
                found = self._row_named(place, name, ref)
                if found is None:
                    continue
                model, row, how = found
                if rule == "exact" or row.dated:
                    return Resolved(place, model, row, ref, how if rule == "exact" else rule, _said(ref))
        if ref.fine_tune_of is not None:
            return self._fine_tune(ref, places)
        if ref.suffix == FREE_SUFFIX:
            return self._free(ref)
        return None

    def _row_named(self, provider: str, name: str, ref: ModelRef) -> tuple[str, ModelRow, str] | None:
        aliases = self._data.aliases.get(provider, {})
        for spelling in _spellings(provider, name, ref):
            for model, how in ((spelling, "exact"), (aliases.get(spelling), "alias")):
                row = None if model is None else self.row(provider, model)
                if model is not None and row is not None:
                    return model, row, how
        return None

    def _fine_tune(self, ref: ModelRef, places: Iterable[str]) -> Resolved | None:
        """A fine-tuned id has a row of its own (`ft:<base>`); the base model's price never stands in for it."""
        for place in places:
            found = self._row_named(place, ref.fine_tune_of or "", ref)
            if found is not None:
                return Resolved(place, found[0], found[1], ref, "fine-tune", _said(ref))
        return None

    def _free(self, ref: ModelRef) -> Resolved | None:
        """A `:free` id of a known model costs nothing, by the provider's own rule for that suffix."""
        base = ref.id.removesuffix(f":{FREE_SUFFIX}")
        found = self._row_named(ref.provider or "", base, ref)
        if found is None:
            return None
        rates = {kind: Rate(_ZERO) for card in found[1].cards for kind in card.rates}
        card = RateCard(
            ref.provider or "", ref.id, rates, source="the :free suffix", status="reviewed", catalogue=self.sha256
        )
        row = msgspec.structs.replace(found[1], cards=(card,))
        return Resolved(ref.provider or "", ref.id, row, ref, "free", _said(ref))


def _candidates(ref: ModelRef) -> Iterator[tuple[str, str]]:
    """The ids to look up. A whole id may be a row of its own, with its prefix or suffix (`maker/model:batch`); without
    such a row the base stands in only for a suffix that says how a call is routed, not what it costs."""
    suffixed = bool(ref.suffix) and ref.suffix != FREE_SUFFIX
    if suffixed:
        yield f"{ref.id}:{ref.suffix}", "exact"
    whole = ref.text.strip().lower()
    if ref.provider is not None and not ref.geo and "/" in whole and whole != ref.id:
        yield whole, "exact"
    if not suffixed or ref.suffix in ROUTING_SUFFIXES:
        yield from ref.candidates()


def _spellings(provider: str, name: str, ref: ModelRef) -> tuple[str, ...]:
    """The row ids a Bedrock name may stand under: its area's own, then the regional one that bare ids share."""
    if provider != "aws":
        return (name,)
    if ref.geo == "global":
        return f"global.{name}", name
    own = (f"{ref.geo}.{name}",) if ref.geo else ()
    return (*own, f"regional.{name}", name)


def _bills(card_provider: str, asked: str | None) -> bool:
    """A user's card without a provider holds for the model wherever it is billed."""
    return not card_provider or asked is None or card_provider == asked


def _said(ref: ModelRef) -> Mapping[str, str]:
    said = {key: value for key, value in (("geo", ref.geo), ("region", ref.region)) if value}
    if ref.provider == "vertex" and ref.region not in ("", "global"):
        said["endpoint"] = "regional"
    return said


def _newest(user: list[RateCard]) -> Iterator[RateCard]:
    """The user's cards, newest first and of one instant the last one written, so that the first that holds wins."""
    dated = sorted((card.valid_from, place, card) for place, card in enumerate(user) if card.valid_from is not None)
    yield from [card for _, _, card in reversed(dated)]
    yield from reversed([card for card in user if card.valid_from is None])


def _no_card(model: str, resolved: Resolved, at: datetime) -> MissingRateError:
    cards = resolved.row.cards
    todo = f"Set it yourself: tally rates set {model} --input USD --output USD (per million tokens)."
    money = "Its cost is unknown, not zero."
    if not cards:
        return MissingRateError(
            f"{model!r} is known at {resolved.provider}, but no source states its rate.", money=money, todo=todo
        )
    spans = ", ".join(f"{_day(card.valid_from) or 'the beginning'} to {_day(card.valid_to) or 'now'}" for card in cards)
    return MissingRateError(f"No rate of {model!r} holds on {at:%Y-%m-%d}; known: {spans}.", money=money, todo=todo)


def _day(instant: datetime | None) -> str:
    return "" if instant is None else f"{instant:%Y-%m-%d}"


SNAPSHOT: Final = "snapshot.json"
HASH: Final = "snapshot.sha256"


def digest(data: bytes) -> str:
    """The SHA-256 of a snapshot, hexadecimal."""
    import hashlib

    return hashlib.sha256(data).hexdigest()


def built_on(data: bytes) -> str:
    """The day a snapshot was built, `YYYY-MM-DD`, from its first bytes; empty for anything else."""
    head, mark, rest = data[:64].partition(b'"built_at":"')
    return rest[:10].decode("ascii", "replace") if mark and head.startswith(b"{") else ""


def read_update(folder: Path) -> bytes | None:
    """The snapshot that was installed in a folder, or None when there is none or its hash does not match."""
    try:
        stated = (folder / HASH).read_text(encoding="ascii").split()
        data = (folder / SNAPSHOT).read_bytes()
    except (OSError, ValueError):
        return None
    return data if stated[:1] == [digest(data)] else None


def bundled_path() -> Path:
    """The file of the catalogue that came with the package."""
    # importlib.resources would cost a command line more time than reading the file does.
    return Path(__file__).with_name(SNAPSHOT)


@functools.cache
def _bundled() -> Catalog:
    try:
        data = bundled_path().read_bytes()
        # A test compares the hash that is kept beside the file; computing it costs each command some milliseconds.
        stated = bundled_path().with_name(HASH).read_text(encoding="ascii").split()
    except OSError as error:
        raise CatalogError(f"The rate catalogue is missing: {error}.", todo="Reinstall tallystick.") from None
    return Catalog(data, sha256=stated[0] if stated else None)
