"""History: the catalogue only grows. A model that a source forgets keeps its cards, and where a source without dates
changes a rate, the old card ends and a new one begins on the day of the build, so that past calls keep their price."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from tallystick.catalog import snapshot
from tallystick.catalog.merge import Rows
from tallystick.catalog.sources.row import Log, Row
from tallystick.core.rates import RateCard

_UNDATED: Final = "litellm "


def carry_over(rows: Rows, previous: bytes, now: datetime, log: Log) -> None:
    """Adds to the rows what the previous snapshot knows and the sources no longer say. `now` is the build's instant."""
    before = snapshot.decode(previous)
    for provider, models in before["models"].items():
        names: dict[str, set[str]] = {}
        for alias, model in before["aliases"].get(provider, {}).items():
            names.setdefault(model, set()).add(alias)
        for model, old in models.items():
            cards = [msgspec.convert(card, RateCard) for card in old.get("cards", ())]
            row = rows.by_key.get((provider, model))
            if row is not None:
                row.cards = _continued(row.cards, cards, now)
            elif cards and rows.named(provider, model) is None:
                rows.add(_kept(provider, model, old, cards, names.get(model, set())))
                log.note("no longer in any source, kept", f"{provider}/{model}")


def _kept(provider: str, model: str, old: dict[str, Any], cards: list[RateCard], aliases: set[str]) -> Row:
    row = Row(provider, model, cards, aliases, dated=bool(old.get("dated")))
    row.maker, row.mode, row.retires = old.get("maker"), old.get("mode"), old.get("retires")
    row.context_window, row.max_output = old.get("context_window"), old.get("max_output")
    return row


def _continued(cards: list[RateCard], old: list[RateCard], now: datetime) -> list[RateCard]:
    if len(cards) != 1 or not old or cards[0].valid_from is not None or not cards[0].source.startswith(_UNDATED):
        return cards
    last = old[-1]
    if last.rates == cards[0].rates or not last.source.startswith(_UNDATED):
        return [*old[:-1], msgspec.structs.replace(cards[0], valid_from=last.valid_from)]
    if last.valid_from is not None and last.valid_from >= now:
        return [*old[:-1], msgspec.structs.replace(cards[0], valid_from=last.valid_from)]
    return [*old[:-1], msgspec.structs.replace(last, valid_to=now), msgspec.structs.replace(cards[0], valid_from=now)]
