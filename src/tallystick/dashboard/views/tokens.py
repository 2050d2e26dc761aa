"""Tokens: of which kinds they were over time and by model, and what caching did for the bill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tallystick.core.money import Money
from tallystick.core.periods import zone
from tallystick.dashboard import svg
from tallystick.dashboard.asked import Asked
from tallystick.dashboard.reading import ask_first
from tallystick.dashboard.room import Column, Link, Page, Room, View
from tallystick.insight.board_tokens import (
    DIFFERENCE,
    GROUPS,
    Bucket,
    Cached,
    ModelTokens,
    TokenBoard,
    token_board,
)
from tallystick.insight.spend import total_json
from tallystick.ledger.entry import rfc3339

SLOTS: Final = {name: place + 1 for place, name in enumerate(GROUPS)}
"""The colour of each kind, the same on every page."""

_SHAPES: Final = {
    "hour": ("%a %d %b, %H:%M", "%H:%M"),
    "day": ("%a %d %b %Y", "%d %b"),
    "week": ("week of %d %b %Y", "%d %b"),
    "month": ("%B %Y", "%b %Y"),
}


def show(room: Room, asked: Asked) -> Page:
    """The tokens of the period."""
    if (question := ask_first(room, asked)) is not None:
        return question
    read = asked.get("read") == "1"
    board = token_board(room.ledger, asked.query(), room.catalog(), asked.per(), room.now, read=read)
    return Page(
        template="tokens.html",
        data={
            "board": board,
            "charts": _charts(board, asked) if board.total.usage.tokens else None,
            "legend": [Link(name.capitalize(), series=SLOTS[name]) for name in board.groups],
            "columns": _columns(board),
            "rows": [_row(one, asked) for one in board.models],
            "sum": {
                "model": "All models",
                **_figures(board.total.calls, board.tokens, board.hit_rate),
                "cost": board.total,
            },
            "cache_columns": _cache_columns(),
            "cache_rows": [_cache_row(one, asked) for one in board.models if one.cached.tokens],
            "cache_sum": {"model": "All models", **_cache_figures(board.cached, board.hit_rate)},
            "difference": DIFFERENCE,
        },
        rows=[one.record() for one in board.models],
        more=_more(board),
    )


def _labels(buckets: Sequence[Bucket], asked: Asked) -> tuple[list[str], list[str]]:
    here, shapes = zone(asked.tz), _SHAPES[asked.unit]
    long, short = ([bucket.start.astimezone(here).strftime(shape) for bucket in buckets] for shape in shapes)
    return long, short


def _charts(board: TokenBoard, asked: Asked) -> dict[str, object]:
    long, short = _labels(board.buckets, asked)
    kinds = [
        svg.Series(
            name=name.capitalize(), values=tuple(bucket.tokens[name] for bucket in board.buckets), slot=SLOTS[name]
        )
        for name in board.groups
    ]
    rates = tuple(None if one.hit_rate is None else round(100 * one.hit_rate, 2) for one in board.buckets)
    hits = [svg.Series(name="Cache hit rate", values=rates, slot=SLOTS["cache read"])]
    return {
        "kinds": svg.bars(kinds, long, title="Tokens by kind", unit="count", short=short),
        "hits": svg.lines(hits, long, title="Cache hit rate", unit="percent", short=short, area=True, tall=140),
    }


def _columns(board: TokenBoard) -> list[Column]:
    return [
        Column("model", "Model"),
        Column("calls", "Calls", "count"),
        *[Column(name, name.capitalize(), "tokens") for name in board.groups],
        Column("hits", "Cache hits", "percent", note="The share of prompt tokens that came from a cache"),
        Column("cost", "Cost", "cost"),
    ]


def _figures(calls: int, tokens: dict[str, int], rate: float | None) -> dict[str, object]:
    return {"calls": calls, **tokens, "hits": rate}


def _row(one: ModelTokens, asked: Asked) -> dict[str, object]:
    return {
        "model": _link(one, asked),
        **_figures(one.total.calls, one.tokens, one.hit_rate),
        "cost": one.total,
    }


def _cache_columns() -> list[Column]:
    return [
        Column("model", "Model"),
        Column("hits", "Cache hits", "percent"),
        Column("saved", "Saved by reading", "money", note="What the tokens read from a cache would have cost more"),
        Column("extra", "Paid for writing", "money", note="What writing and keeping cost above the input rate"),
        Column("net", "Net", "money", note="Saved less paid"),
        Column("unknown", "Tokens without a known rate", "tokens"),
    ]


def _cache_figures(did: Cached, rate: float | None) -> dict[str, object]:
    amounts: tuple[Money | None, ...] = (did.saved, did.extra, did.net) if did.known else (None, None, None)
    return {"hits": rate, **dict(zip(("saved", "extra", "net"), amounts, strict=True)), "unknown": did.unknown or None}


def _cache_row(one: ModelTokens, asked: Asked) -> dict[str, object]:
    row = {"model": _link(one, asked), **_cache_figures(one.cached, one.hit_rate)}
    if one.cached.known and not one.cached.extra and not one.tokens["cache write"]:
        row["extra"] = Link("—")
    return row


def _link(one: ModelTokens, asked: Asked) -> Link:
    return Link(one.model, asked.url(model=one.model, provider=one.provider), note=f"billed by {one.provider}")


def _more(board: TokenBoard) -> dict[str, object]:
    did = board.cached
    return {
        "total": total_json(board.total),
        "calls_to_read": board.unread,
        "tokens": board.tokens,
        "cache_hit_rate": board.hit_rate,
        "caching": {
            "saved": did.saved if did.known else None,
            "extra": did.extra if did.known else None,
            "net": did.net if did.known else None,
            "cached_tokens": did.tokens,
            "cached_tokens_of_unknown_rate": did.unknown,
            "why_unknown": did.reasons,
            "not_known_to_sums": did.hidden,
            "how": DIFFERENCE,
        },
        "over_time": [
            {"start": rfc3339(one.start), "tokens": one.tokens, "cache_hit_rate": one.hit_rate} for one in board.buckets
        ],
    }


VIEW = View(path="/tokens", title="Tokens", symbol="tokens", show=show, own=frozenset({"read"}), live=10.0)
