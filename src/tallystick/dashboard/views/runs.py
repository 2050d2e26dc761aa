"""Runs: what agent tasks cost, one by one, and where in a task the money and the time went."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from tallystick.core.money import Money
from tallystick.dashboard.asked import Asked
from tallystick.dashboard.figures import dollars, open_ended, total_known
from tallystick.dashboard.room import Column, Link, Missing, Page, Room, View
from tallystick.errors import InputError
from tallystick.insight.board_lines import lines
from tallystick.insight.board_run import OUTLIER_RULE, READ, RunCall, RunView, run_view
from tallystick.insight.board_runs import ORDERS, RunList, RunRow, run_list
from tallystick.insight.board_tokens import grouped
from tallystick.insight.flights import look_flights
from tallystick.insight.spend import total_json
from tallystick.ledger.entry import rfc3339
from tallystick.ledger.query import Total

PAGE: Final = 50
"""Calls on a page of one run."""

QUIET: Final = timedelta(minutes=10)
"""A run without a call for so long is over: its page is not fetched again."""

ONLY: Final = {"": "All", "outliers": "Standing out", "retries": "Sent again", "wrong": "Not ok"}


def show(room: Room, asked: Asked) -> Page:
    """The runs of the period, the newest or the most expensive first."""
    order = asked.get("order", ORDERS[1])
    if order not in ORDERS:
        raise InputError(f"Runs cannot be ordered by {order[:40]!r}.", todo=f"It is one of: {', '.join(ORDERS)}.")
    before = _instant(asked.get("before"))
    if before is not None and asked.since is not None and before <= asked.since:
        before = None
    # Looked at before the ledger is: a call that ends in between is then found there.
    flights = look_flights(room.flights)
    found = run_list(
        room.ledger, asked.query(), now=room.now, order=order, before=before, page=asked.page, flights=flights
    )
    return Page(
        template="runs.html",
        data={
            "found": found,
            "order": order,
            "before": before,
            "earlier": None if found.earlier is None else asked.url(before=rfc3339(found.earlier)),
            "columns": _columns(),
            "lines": [_row(row, asked) for row in found.rows],
        },
        rows=[row.record() for row in found.rows],
        more=_more(found),
    )


def item(room: Room, asked: Asked, name: str) -> Page:
    """One run as a tree, and its calls."""
    flights = look_flights(room.flights)
    view = run_view(room.ledger, name, flights, newest=asked.get("end") == "1", near=asked.get("near"))
    if view is None:
        raise Missing(f"There is no run {name[:80]!r}.", todo="The page Runs lists those that are there.")
    only = asked.get("only")
    if only not in ONLY:
        raise InputError(f"Calls cannot be narrowed to {only[:40]!r}.")
    picked = [call for call in view.calls if _picked(call, asked, only)]
    shown = picked[(asked.page - 1) * PAGE : asked.page * PAGE]
    return Page(
        template="run.html",
        data={
            "found": view,
            "lines": lines(view, room.now),
            "rule": OUTLIER_RULE,
            "most": READ,
            "tokens": {name: count for name, count in grouped(view.root.inclusive.usage).items() if count},
            "only": ONLY,
            "chosen": only,
            "picked": len(picked),
            "columns": _call_columns(view),
            "calls": [_call_row(call, view) for call in shown],
            "more_calls": len(picked) > asked.page * PAGE,
            "above": _above(view.root.parent, name),
            "own": _own(view.root.direct),
            "call_notes": list(_call_notes(view)),
            "usual": dict(_middles(view)),
        },
        rows=[_call_record(call) for call in view.calls],
        more={
            "run": name,
            "direct": total_json(view.root.direct),
            "inclusive": total_json(view.root.inclusive),
            "gaps": view.gaps,
            "calls": view.of,
        },
        title=name,
        live=0.0 if _over(view, room.now) else None,
    )


def _over(view: RunView, now: datetime) -> bool:
    """Whether a run has been silent for so long that nobody waits for more of it."""
    return not view.flights and view.ended_at is not None and now - view.ended_at > QUIET


def _instant(text: str) -> datetime | None:
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"{text[:40]!r} is no instant.", todo="Follow the links of the page.") from None
    if at.tzinfo is None:
        raise InputError(f"The instant {text[:40]!r} has no time zone.", todo="Follow the links of the page.")
    return at


def _columns() -> list[Column]:
    return [
        Column("run", "Run"),
        Column("status", "Status"),
        Column("started", "First call", "time"),
        Column("lasted", "Duration", "text", note="From the begin of its first call to the end of its last one"),
        Column("calls", "Calls", "count"),
        Column("input", "Input", "tokens", note="Prompt tokens, cached or not"),
        Column("output", "Output", "tokens", note="Generated tokens, reasoning included"),
        Column("cost", "Cost", "cost"),
        Column("models", "Models"),
    ]


def _row(row: RunRow, asked: Asked) -> dict[str, object]:
    usage = row.total.usage
    return {
        "row": row,
        "run": Link(row.run_id, _address(row.run_id)),
        "parent": _above(row.parent, row.run_id),
        "started": row.started_at,
        "calls": row.total.calls,
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cost": row.total,
        "models": [Link(model, asked.url(model=model, before=None)) for model in row.models[:3]],
        "more_models": max(0, len(row.models) - 3),
    }


def _above(parent: str | None, run_id: str) -> str:
    """The address of the run above, which is found by the one below it where it made no call itself."""
    from urllib.parse import quote

    return "" if parent is None else f"{_address(parent)}?near={quote(run_id, safe='')}"


def _address(run_id: str) -> str:
    from urllib.parse import quote

    return f"/runs/{quote(run_id, safe='')}"


def _more(found: RunList) -> dict[str, object]:
    return {
        "order": found.order,
        "stretch": {"since": found.since, "until": found.until},
        "earlier": found.earlier,
        "found": found.found,
        "page": found.page,
        "pages": found.pages,
        "outside_any_run": None if found.outside is None else total_json(found.outside),
    }


def _picked(call: RunCall, asked: Asked, only: str) -> bool:
    if asked.get("part") and call.entry.run_id != asked.get("part"):
        return False
    if asked.get("step") and call.entry.step != asked.get("step"):
        return False
    tests = {"outliers": call.stands_out, "retries": call.attempt > 1, "wrong": call.entry.status != "ok"}
    return tests.get(only, True)


def _call_columns(view: RunView) -> list[Column]:
    nested = [Column("run", "Run")] if len(view.nodes) > 1 else []
    stepped = [Column("step", "Step")] if any(call.entry.step for call in view.calls) else []
    kinds = [
        Column(name, name.capitalize(), "tokens")
        for name, count in grouped(view.root.inclusive.usage).items()
        if count or name in ("uncached input", "output")
    ]
    return [
        Column("at", "Began"),
        *nested,
        *stepped,
        Column("model", "Model"),
        Column("latency", "Latency"),
        Column("ttft", "First word", note="Time to the first token"),
        Column("cost", "Cost", "money"),
        Column("remarks", "Remarks"),
        *kinds,
    ]


def _call_row(call: RunCall, view: RunView) -> dict[str, object]:
    entry = call.entry
    tokens: Mapping[str, int | None]
    tokens = {} if entry.usage is None else grouped(entry.usage)
    return {
        "call": call,
        "id": entry.call_id,
        "after": None if view.started_at is None else entry.started_at - view.started_at,
        "run": entry.run_id,
        "step": entry.step,
        "model": entry.model,
        **tokens,
        "ttft": None if entry.ttft_us is None else entry.ttft_us / 1e6,
        "latency": None if entry.latency_us is None else entry.latency_us / 1e6,
        # A refused call was never sent: it has no cost, and not one that nobody knows.
        "cost": Money(0) if entry.status == "refused" else entry.amount,
        "remarks": call.remarks,
    }


def _call_record(call: RunCall) -> dict[str, object]:
    entry = call.entry
    return {
        "call_id": entry.call_id,
        "run": entry.run_id,
        "step": entry.step,
        "started_at": entry.started_at,
        "provider": entry.provider,
        "model": entry.model,
        "status": entry.status,
        "quality": entry.quality,
        "attempt": call.attempt,
        "attempt_of": entry.attempt_of,
        "cost": entry.amount,
        "latency_ms": None if entry.latency_us is None else entry.latency_us / 1000,
        "ttft_ms": None if entry.ttft_us is None else entry.ttft_us / 1000,
        "slow_times_median": call.slow,
        "dear_times_median": call.dear,
        **({} if entry.usage is None else {name.replace(" ", "_"): n for name, n in grouped(entry.usage).items()}),
    }


def _middles(view: RunView) -> Iterator[tuple[str, float]]:
    """The middle one of the latencies and of the times to the first word, in seconds, where there are any."""
    for name in ("latency_us", "ttft_us"):
        values = sorted(value for call in view.calls if (value := getattr(call.entry, name)) is not None)
        if values:
            yield name, values[len(values) // 2] / 1e6


def _own(direct: Total) -> str:
    """What a run's own calls came to, in words."""
    known = total_known(direct)
    if known is None:
        return "unknown"
    return f"{'at least ' if open_ended(direct) else ''}{dollars(known)}"


def _call_notes(view: RunView) -> Iterator[str]:
    """What is to be said about the number of calls, in words."""
    if view.flights:
        yield f"{len(view.flights):,} in flight"
    resent = [call.entry.amount for call in view.retries]
    if resent:
        cost = Money(sum(amount.pico for amount in resent if amount is not None))
        yield f"{len(resent):,} sent again, {dollars(cost)}"
    wrong = sum(call.entry.status != "ok" for call in view.calls)
    if wrong:
        yield f"{wrong:,} not ok"
    if view.outliers:
        yield f"{len(view.outliers):,} standing out"


VIEW = View(
    path="/runs",
    title="Runs",
    symbol="runs",
    show=show,
    item=item,
    own=frozenset({"order", "before", "end", "only", "part", "step", "near"}),
    live=3.0,
)
