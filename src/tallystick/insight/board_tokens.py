"""Board of tokens: what kinds they were, how many came from a cache, and what caching saved and cost.

All of it is from kept sums, so that a year of ten million calls is answered at once. `savings` reads the calls
themselves and knows more: the rates each call was really priced at. Sums know a model's tokens in a stretch of time,
not which call had how many, at which tier or hour; what that hides is said beside the figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from tallystick.core.money import Money, divide_half_even
from tallystick.core.periods import Period
from tallystick.core.pricing import plan_for
from tallystick.core.usage import TOKEN_KINDS, units_of
from tallystick.errors import InputError, UnpricedError
from tallystick.insight.board_runs import summed
from tallystick.insight.board_spend import to_read
from tallystick.insight.savings import READS, STORAGE, WRITES
from tallystick.insight.spend import known_cost
from tallystick.ledger.query import Query, Total

if TYPE_CHECKING:
    from tallystick.catalog.catalog import Catalog
    from tallystick.core.cost import PricedKind
    from tallystick.core.rates import RateCard
    from tallystick.core.usage import Usage
    from tallystick.ledger.ledger import Ledger

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "uncached input": ("input",),
    "cache read": tuple(READS),
    "cache write": tuple(WRITES),
    "output": ("output", "citation"),
    "reasoning": ("reasoning",),
    "audio": ("audio_input", "audio_output"),
    "image": ("image_input", "image_output"),
    "video": ("video_input", "video_output"),
}
"""What tokens are shown as. Every kind of token is in one of them."""

DAYS_APART: Final = 45
"""Up to so many days, savings are added up day by day; beyond, by month, but for months in which a rate changed."""

DIFFERENCE: Final = (
    "Worked out from the sums of each day and model at the rate in force at noon of that day: tokens read from a cache "
    "at the input rate less what they cost, tokens written at what they cost above it. The command tally report "
    "--breakdown reads every call instead and takes the rate that the call itself was priced at. Sums do not know the "
    "size, tier, region or hour of a single call, so long prompts that take a higher rate, batch or priority calls and "
    "rates by the hour count here at the plain rate."
)
_Model = tuple[str | None, str | None]
_ZERO: Final = Money(0)
_HALF_DAY: Final = timedelta(hours=12)
_CACHED: Final = frozenset({*READS, *WRITES, STORAGE})


class Bucket(msgspec.Struct, frozen=True):
    """The tokens of one stretch of time, by the names of GROUPS."""

    start: datetime
    tokens: dict[str, int]
    hit_rate: float | None


class Cached(msgspec.Struct, frozen=True):
    """What caching did to one model's cost, or to that of all: `saved` by reading, `extra` by writing and keeping.
    `unknown` cached tokens are in neither, for `reasons`; `hidden` says what the sums cannot know."""

    saved: Money = _ZERO
    extra: Money = _ZERO
    tokens: int = 0
    unknown: int = 0
    reasons: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()

    @property
    def net(self) -> Money:
        """What is left of the saving; negative where caching cost more than it saved."""
        return self.saved - self.extra

    @property
    def known(self) -> bool:
        """Whether anything of it could be worked out."""
        return self.unknown < self.tokens or not self.tokens

    def __add__(self, other: Cached) -> Cached:
        """Both together."""
        return Cached(
            self.saved + other.saved,
            self.extra + other.extra,
            self.tokens + other.tokens,
            self.unknown + other.unknown,
            tuple(dict.fromkeys((*self.reasons, *other.reasons))),
            tuple(dict.fromkeys((*self.hidden, *other.hidden))),
        )


class ModelTokens(msgspec.Struct, frozen=True):
    """One model's calls: their sum, their tokens by the names of GROUPS, and what caching did."""

    provider: str
    model: str
    total: Total
    tokens: dict[str, int]
    hit_rate: float | None
    cached: Cached

    def record(self) -> dict[str, object]:
        """The model as one flat row, for CSV and JSON; amounts are None where nothing of them is known."""
        known = self.cached.known
        return {
            "provider": self.provider,
            "model": self.model,
            "calls": self.total.calls,
            **{name.replace(" ", "_"): count for name, count in self.tokens.items()},
            "cache_hit_rate": self.hit_rate,
            "cost": known_cost(self.total),
            "cache_saved": self.cached.saved if known else None,
            "cache_extra": self.cached.extra if known else None,
            "cache_net": self.cached.net if known else None,
            "cached_tokens_of_unknown_rate": self.cached.unknown,
        }


class TokenBoard(msgspec.Struct, frozen=True):
    """The tokens of a period: `total` of all calls, `buckets` over time (each one of the period, also those without
    calls between the first and the last), `models` by tokens, and `cached` over all models. `others` are units that
    are no tokens, by kind. Where `unread` calls would have to be read to part them by model that is left out until
    somebody asks for it."""

    total: Total
    tokens: dict[str, int]
    hit_rate: float | None
    buckets: tuple[Bucket, ...]
    models: tuple[ModelTokens, ...]
    cached: Cached
    others: tuple[tuple[str, int, str], ...] = ()
    unread: int = 0

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that have tokens; the five of text always."""
        return tuple(name for place, name in enumerate(GROUPS) if place < 5 or self.tokens[name])


def token_board(
    ledger: Ledger, query: Query, catalog: Catalog, per: Period, now: datetime, *, read: bool = False
) -> TokenBoard:
    """The tokens of the calls that fit, over time by `per`. `read` reads the calls where no sums answer. Raises
    InputError for a rolling period, LedgerError."""
    if query.until is not None and query.until > now:
        query = msgspec.structs.replace(query, until=None)
    unread = 0 if read else to_read(ledger, query, "model")
    over = ledger.total(query, (), per)
    buckets = tuple(_buckets(over, per))
    models = [] if unread else ledger.total(query, ("provider", "model"))
    found: dict[_Model, Cached] = dict(_unpriced(models))
    for row in _stretches(_Sums(ledger, query, models), set(found), catalog, now):
        if row.start is not None:
            key = _model(row)
            found[key] = found.get(key, Cached()) + cached(row, row.start + _HALF_DAY, catalog)
    rows = []
    for row in models:
        provider, model = _model(row)
        did = found.get((provider, model), Cached())
        rows.append(
            ModelTokens(provider or "", model or "", row, grouped(row.usage), hit_rate(row.usage), did)
        )  # fmt: skip
    rows.sort(key=lambda row: (-row.total.usage.tokens, row.provider, row.model))
    whole = summed(over if unread else models, {})
    others = [(kind, count, units_of(kind)) for kind, count in whole.usage.items() if kind not in TOKEN_KINDS]
    every = Cached()
    for did in found.values():
        every += did
    return TokenBoard(
        whole, grouped(whole.usage), hit_rate(whole.usage), buckets, tuple(rows), every, tuple(others), unread
    )


def grouped(usage: Usage) -> dict[str, int]:
    """Tokens by the names of GROUPS."""
    return {name: sum([usage.get(kind, 0) for kind in kinds]) for name, kinds in GROUPS.items()}


def hit_rate(usage: Usage) -> float | None:
    """The share of all prompt tokens that came from a cache; None where there was no prompt."""
    asked = usage.input_tokens
    return sum([usage.get(kind, 0) for kind in READS]) / asked if asked else None


def _buckets(rows: Iterable[Total], per: Period) -> Iterator[Bucket]:
    following: datetime | None = None
    for row in rows:
        if row.start is None:
            continue
        while following is not None and following < row.start:
            yield Bucket(following, dict.fromkeys(GROUPS, 0), None)
            following = per.bounds(following)[1]
        yield Bucket(row.start, grouped(row.usage), hit_rate(row.usage))
        following = row.end


class _Sums:
    """Sums by provider and model over time. Where a model's name tells its provider, they are asked by the name alone,
    of which the ledger keeps far smaller sums."""

    def __init__(self, ledger: Ledger, query: Query, models: list[Total]) -> None:
        self.ledger = ledger
        self.query = query
        self.models = models
        self._providers = {row.group["model"]: row.group["provider"] for row in models}

    def per(self, period: Period, since: datetime | None, until: datetime | None) -> list[Total]:
        """The sums of some time, by period."""
        query = msgspec.structs.replace(self.query, since=since, until=until)
        if len(self._providers) < len(self.models):
            return self.ledger.total(query, ("provider", "model"), period)
        return [
            msgspec.structs.replace(row, group={"provider": self._providers.get(row.group["model"]), **row.group})
            for row in self.ledger.total(query, ("model",), period)
        ]


def _stretches(sums: _Sums, passed: set[_Model], catalog: Catalog, now: datetime) -> Iterator[Total]:
    """The sums by model of days, or of months within which no rate of the model changed."""
    wanted = {_model(row) for row in sums.models if not _CACHED.isdisjoint(row.usage)} - passed
    if not wanted:
        return
    query, zone = sums.query, sums.ledger.zone
    day, month = Period("day", zone), Period("month", zone)
    if query.since is not None and (query.until or now) - query.since <= timedelta(days=DAYS_APART):
        yield from [row for row in sums.per(day, query.since, query.until) if _model(row) in wanted]
        return
    changes = {model: _changes(catalog, *model) for model in wanted}
    apart: dict[tuple[datetime, datetime], set[_Model]] = {}
    for row in sums.per(month, query.since, query.until):
        model = _model(row)
        if model not in wanted or row.start is None or row.end is None:
            continue
        if any(row.start < at < row.end for at in changes[model]):
            apart.setdefault((row.start, row.end), set()).add(model)
        else:
            yield row
    for (start, end), changed in apart.items():
        since = start if query.since is None else max(start, query.since)
        until = end if query.until is None else min(end, query.until)
        yield from [row for row in sums.per(day, since, until) if _model(row) in changed]


def _unpriced(models: Iterable[Total]) -> Iterator[tuple[_Model, Cached]]:
    """The models with cached tokens of which no call has a price: nobody has to look for rates of theirs."""
    for row in models:
        if not _CACHED.isdisjoint(row.usage) and row.unpriced >= row.calls - row.refused and row.unpriced:
            tokens = sum([row.usage.get(kind, 0) for kind in (*READS, *WRITES)])
            reason = f"the calls of {row.group['model']} have no price"
            yield _model(row), Cached(tokens=tokens, unknown=tokens, reasons=(reason,))


def _model(row: Total) -> _Model:
    return row.group["provider"], row.group["model"]


def _changes(catalog: Catalog, provider: str | None, model: str | None) -> tuple[datetime, ...]:
    """The instants at which a model's rates changed."""
    try:
        cards = catalog.history(model or "", None if provider == "other:unknown" else provider)
    except (UnpricedError, InputError):
        return ()
    edges = [edge for card in cards for edge in (card.valid_from, card.valid_to) if edge is not None]
    return tuple(sorted(set(edges)))


def cached(row: Total, at: datetime, catalog: Catalog) -> Cached:
    """What caching did to the cost of one model's calls, at the rates in force at the instant `at`."""
    usage = row.usage
    tokens = sum([usage.get(kind, 0) for kind in (*READS, *WRITES)])
    if _CACHED.isdisjoint(usage):
        return Cached()
    provider, model = _model(row)
    try:
        card, said = catalog.card_at(model or "", None if provider == "other:unknown" else provider, at)
    except (UnpricedError, InputError):
        return Cached(tokens=tokens, unknown=tokens, reasons=(f"no rate is known for {model}",))
    plan = plan_for(card, 0, at, said)
    saved = extra = unknown = 0
    reasons = []
    for kind in (*READS, *WRITES):
        count = usage.get(kind, 0)
        if not count:
            continue
        plain, own = (_unit(plan.kinds.get(one)) for one in (READS.get(kind) or WRITES[kind], kind))
        if plain is None or own is None:
            unknown += count
            reasons.append(f"{model} has no plain rate for {kind if own is None else READS.get(kind, 'input')}")
            continue
        difference = _cost(count, plain) - _cost(count, own)
        if kind in READS:
            saved += difference
        else:
            extra -= difference
    kept, rate = usage.get(STORAGE, 0), _unit(plan.kinds.get(STORAGE))
    if kept and rate is not None:
        extra += _cost(kept, rate)
    elif kept:
        reasons.append(f"{model} has no rate for keeping a cache")
    hidden = tuple(_hidden(card, model or ""))
    return Cached(Money(saved), Money(extra), tokens, unknown, tuple(reasons), hidden)


def _unit(priced: PricedKind | None) -> tuple[int, int] | None:
    if priced is None or priced.rate.brackets is not None:
        return None
    return priced.numerator, priced.denominator


def _cost(count: int, unit: tuple[int, int]) -> int:
    return divide_half_even(count * unit[0], unit[1])


def _hidden(card: RateCard, model: str) -> Iterator[str]:
    """What the sums of a model cannot know, of what its card prices by."""
    if card.thresholds:
        first = min(card.thresholds)
        yield f"{model} costs more for prompts from {first:,} tokens, and so do its cached tokens"
    if card.windowed:
        yield f"{model} has rates by the hour"
