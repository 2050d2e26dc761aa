"""Models: what a call and a task cost on each, and what the same traffic would have cost on others."""

from __future__ import annotations

from typing import Final

from tallystick.dashboard.asked import Asked
from tallystick.dashboard.figures import change
from tallystick.dashboard.room import Column, Link, Page, Room, View
from tallystick.insight.board_models import ModelUse, elsewhere, model_uses, what_if_row
from tallystick.insight.whatif import ONLY_A_RERUN, WhatIf

_USES: Final = (
    Column("model", "Model"),
    Column("provider", "Provider"),
    Column("calls", "Calls", "count"),
    Column("cost", "Cost", "cost"),
    Column("mean", "A call", "money", note="the mean"),
    Column("prompt", "Prompt", "tokens", note="tokens of input of one call, cached ones with them"),
    Column("answer", "Answer", "tokens", note="tokens of output of one call, reasoning with them"),
)
_WHAT_IF: Final = (
    Column("model", "On"),
    Column("provider", "Provider"),
    Column("likely", "Would cost", "money"),
    Column("low", "At least", "money"),
    Column("high", "At most", "money"),
    Column("delta", "Against what it did", "delta"),
    Column("ratio", "Tokens", "ratio", note="how many of its tokens stand for one of those that were used"),
    Column("calls", "Calls", "count"),
    Column("left_out", "Left out", "count", note="calls that could not be carried over"),
)
_MOST_TEXT: Final = 2000


def show(room: Room, asked: Asked) -> Page:
    """The models in use and the what-if table."""
    uses = model_uses(room.ledger, asked.query())
    wanted = tuple(dict.fromkeys(asked.get("with")[:_MOST_TEXT].replace(",", " ").split()))
    rows, offered = elsewhere(uses, wanted, room.catalog(), room.now)
    remarks: dict[str, list[str]] = {}
    told = [row for row in (*rows, *offered) if row.cost is not None]
    for row in told:
        for remark in row.remarks:
            remarks.setdefault(remark, []).append(row.model)
    return Page(
        template="models.html",
        data={
            "use_columns": _USES,
            "uses": [_use(asked, use) for use in uses],
            "what_columns": _WHAT_IF,
            "rows": [_cells(asked, row) for row in rows if row.cost is not None],
            "offered": [_cells(asked, row) for row in offered],
            "problems": [row for row in rows if row.cost is None],
            "remarks": [(_who(models, len(told)), remark) for remark, models in remarks.items()],
            "wanted": wanted,
            "warning": ONLY_A_RERUN,
        },
        rows=[_use_row(use) for use in uses],
        more={"what_if": [what_if_row(row) for row in (*rows, *offered)], "warning": ONLY_A_RERUN},
    )


def _use(asked: Asked, use: ModelUse) -> dict[str, object]:
    return {**_use_row(use), "model": Link(use.model, asked.to("/spend", model=use.model)), "cost": use.total}


def _use_row(use: ModelUse) -> dict[str, object]:
    return {
        "provider": use.provider,
        "model": use.model,
        "calls": use.sent,
        "cost": None if use.total.unpriced else use.total.cost,
        "mean": use.mean,
        "prompt": use.prompt,
        "answer": use.answer,
    }


def _cells(asked: Asked, row: WhatIf) -> dict[str, object]:
    assert row.cost is not None
    return {
        **what_if_row(row),
        "model": Link(
            row.model, asked.to("/rates", model=row.model, provider=row.provider), note="; ".join(row.remarks)
        ),
        "ratio": _ratio(*row.ratios),
        "delta": change(row.cost.likely, row.before),
    }


def _who(models: list[str], of: int) -> str:
    return "every model" if len(models) == of else ", ".join(models)


def _ratio(low: float, high: float) -> str:
    return f"\u00d7 {low:.2f}" if high - low < 0.005 else f"\u00d7 {low:.2f} to {high:.2f}"


VIEW: Final = View(
    path="/models", title="Models", symbol="models", show=show, own=frozenset({"with"}), defaults={"period": "month"}
)
