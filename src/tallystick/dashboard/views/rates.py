"""Rates: what each model costs now, where that is from, how it changed, and what a change did to the ledger."""

from __future__ import annotations

from typing import Final

from tallystick.core.money import Money
from tallystick.dashboard.asked import Asked
from tallystick.dashboard.room import Column, Link, Page, Room, View
from tallystick.insight.board_rates import SHOWN, ModelRates, history, looked_up, rates_row, used_rates
from tallystick.insight.cardwords import rate_words, when_words
from tallystick.ledger.query import Query

_HEADS: Final = {"input": "Input", "cache_read": "Cache read", "cache_write": "Cache write", "output": "Output"}
_MOST_WORDS: Final = 200


def show(room: Room, asked: Asked) -> Page:
    """The models in use with their rates, or those whose names hold the words looked for, or one model's history."""
    picked = dict(asked.filters)
    if "model" in picked:
        return _one(room, picked["model"], picked.get("provider"))
    words = asked.get("find").strip()[:_MOST_WORDS]
    # Rates are the same for everybody: whose calls another page has picked does not matter here.
    query = Query(since=asked.since, until=asked.until, provider=picked.get("provider"), maker=picked.get("maker"))
    used = used_rates(room.ledger, query, room.catalog(), room.now)
    found, more = looked_up(room.catalog(), words, room.now) if words else ((), False)
    catalog = room.catalog()
    shown = found if words else used
    return Page(
        template="rates.html",
        data={
            "columns": _columns(used=not words),
            "used": [_cells(asked, row) for row in used],
            "found": [_cells(asked, row) for row in found],
            "more": more,
            "words": words,
            "conflicts": [row for row in used if row.card is not None and row.card.status == "conflict"],
            "missing": [row for row in used if row.card is None],
            "built_at": catalog.built_at,
            "sources": sorted(catalog.sources.items()),
        },
        rows=[rates_row(row) for row in shown],
    )


def _columns(*, used: bool) -> tuple[Column, ...]:
    rates = [Column(kind, _HEADS[kind], "rate", note="US dollars for a million tokens") for kind in SHOWN]
    spent = (Column("calls", "Calls", "count"), Column("cost", "Cost", "cost")) if used else ()
    return (
        Column("model", "Model"),
        Column("provider", "Provider"),
        *rates,
        Column("since", "Since", "text"),
        Column("status", "Support", note="agreed: two sources say the same; single: one; conflict: they differ"),
        *spent,
    )


def _cells(asked: Asked, row: ModelRates) -> dict[str, object]:
    card = row.card
    since = "" if card is None else "always" if card.valid_from is None else f"{card.valid_from:%Y-%m-%d}"
    return {
        "model": Link(row.model, asked.url(model=row.model, provider=row.provider, find=None)),
        "provider": row.provider,
        **{kind: _rate(rate) for kind, rate in zip(SHOWN, row.rates, strict=True)},
        "since": since,
        "status": Link("no rate" if card is None else card.status, note=row.problem or (card.note if card else "")),
        "calls": None if row.total is None else row.total.calls,
        "cost": row.total,
    }


def _rate(rate: Money | None) -> str | None:
    """A rate is shown to its last digit: a rounded one would be another rate."""
    return None if rate is None else str(rate)


def _one(room: Room, model: str, provider: str | None) -> Page:
    """One model's page."""
    told = history(room.ledger, room.catalog(), model, provider, room.now)
    cards = []
    for card in told.cards:
        rows = [(kind, *rate_words(kind, rate), "") for kind, rate in card.rates.items()]
        for variant in card.variants:
            rows += [(kind, *rate_words(kind, rate), when_words(variant)) for kind, rate in variant.rates.items()]
        lent = [
            f"{kind} as {other}"
            for kind, other in card.fallbacks.items()
            if kind not in card.rates and other in card.rates
        ]
        factors = [
            f"\u00d7 {factor.factor} {factor.name} when {', '.join('='.join(pair) for pair in factor.when)}"
            for factor in card.multipliers
        ]
        cards.append(
            {"card": card, "rows": rows, "lent": ", ".join(lent), "factors": factors, "now": card.covers(room.now)}
        )
    flat = [
        {"card": one.id, "since": one.valid_from, "until": one.valid_to, "kind": kind, "usd": rate.usd, "per": rate.per,
         "status": one.status, "source": one.source}
        for one in told.cards for kind, rate in one.rates.items()
    ]  # fmt: skip
    return Page(template="rate.html", data={"told": told, "cards": cards}, rows=flat, title=told.model)


VIEW: Final = View(
    path="/rates", title="Rates", symbol="rates", show=show, own=frozenset({"find"}), defaults={"period": "90d"}
)
