"""Models: what a call and a task cost on each, and what the same traffic would have cost on others."""

from __future__ import annotations

from typing import Final

from tallystick.dashboard.asked import Asked
from tallystick.dashboard.figures import change
from tallystick.dashboard.reading import ask_first
from tallystick.dashboard.room import Column, Link, Page, Room, View
from tallystick.insight.board_models import ModelUse, Tasks, elsewhere, model_uses, tasks, what_if_row
from tallystick.insight.board_runs import filtered
from tallystick.insight.spreading import PRECISION
from tallystick.insight.whatif import ONLY_A_RERUN, WhatIf

_USES: Final = (
    Column("model", "Model"),
    Column("provider", "Provider"),
    Column("calls", "Calls", "count"),
    Column("cost", "Cost", "cost"),
    Column("share", "Share", "share", note="of what all of them cost, a subscription's calls at list prices"),
    Column("mean", "A call", "money", note="the mean"),
    Column("cost_p50", "p50", "money", note="half of the calls cost no more than this"),
    Column("cost_p95", "p95", "money", note="95 % of the calls cost no more than this"),
    Column("prompt", "Prompt", "tokens", note="tokens of input of one call, cached ones with them"),
    Column("answer", "Answer", "tokens", note="tokens of output of one call, reasoning with them"),
)
_TIMES: Final = (
    Column("model", "Model"),
    Column("timed", "Calls", "count", note="those whose time was measured"),
    Column("latency_p50", "Time p50", "lasting", note="half of the calls took no longer"),
    Column("latency_p95", "Time p95", "lasting", note="95 % of the calls took no longer"),
    Column("ttft_p50", "First word p50", "lasting", note="time to the first token"),
    Column("ttft_p95", "First word p95", "lasting"),
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
    if (question := ask_first(room, asked)) is not None:
        return question
    query = asked.query()
    uses, unread = model_uses(room.ledger, query, read=asked.get("read") == "1")
    # The runs of a model or a team could only be told by reading all calls.
    task = None if filtered(query) else tasks(room.ledger, query)
    worth = sum((use.worth.pico for use in uses), 0)
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
            "uses": [
                {**_use(asked, use), "share": use.worth.pico / worth if worth and use.mean is not None else None}
                for use in uses
            ],
            "unread": unread,
            "task": task,
            "time_columns": _TIMES,
            "times": [_times(asked, use) for use in uses if use.spread and use.spread.latency_us],
            "precision": PRECISION,
            "what_columns": _WHAT_IF,
            "rows": [_cells(asked, row) for row in rows if row.cost is not None],
            "offered": [_cells(asked, row) for row in offered],
            "problems": [row for row in rows if row.cost is None],
            "remarks": [(_who(models, len(told)), remark) for remark, models in remarks.items()],
            "wanted": wanted,
            "warning": ONLY_A_RERUN,
        },
        rows=[_use_row(use) for use in uses],
        more={
            "calls_to_read": unread,
            "task": _task_row(task),
            "what_if": [what_if_row(row) for row in (*rows, *offered)],
            "warning": ONLY_A_RERUN,
        },
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
        **_spread(use),
        "prompt": use.prompt,
        "answer": use.answer,
    }


def _spread(use: ModelUse) -> dict[str, object]:
    """The percentiles of one model's calls: US dollars, and seconds."""
    cost, latency, ttft = (None,) * 3 if use.spread is None else (
        use.spread.cost, use.spread.latency_us, use.spread.ttft_us,
    )  # fmt: skip
    return {
        "cost_p50": None if cost is None else cost.p50,
        "cost_p95": None if cost is None else cost.p95,
        "latency_p50": None if latency is None else latency.p50 / 1e6,
        "latency_p95": None if latency is None else latency.p95 / 1e6,
        "ttft_p50": None if ttft is None else ttft.p50 / 1e6,
        "ttft_p95": None if ttft is None else ttft.p95 / 1e6,
    }


def _times(asked: Asked, use: ModelUse) -> dict[str, object]:
    timed = None if use.spread is None or use.spread.latency_us is None else use.spread.latency_us.calls
    return {**_spread(use), "model": Link(use.model, asked.to("/calls", model=use.model)), "timed": timed}


def _task_row(task: Tasks | None) -> dict[str, object] | None:
    if task is None:
        return None
    costs = None if task.costs is None else task.costs.to_json()
    return {"runs": task.runs, "since": task.since, "calls": task.calls, "tokens": task.tokens, "cost": costs}


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
    path="/models",
    title="Models",
    symbol="models",
    show=show,
    own=frozenset({"with", "read"}),
    defaults={"period": "month"},
)
