"""Schemas: the shapes of the interface's answers, as JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tallystick.ledger.entry import QUALITIES, SCHEMA, SOURCES, STATUSES
from tallystick.ledger.hold import HOLD_STATES

Shape = dict[str, Any]

TEXT: Final[Shape] = {"type": "string"}
COUNT: Final[Shape] = {"type": "integer", "minimum": 0}
FLAG: Final[Shape] = {"type": "boolean"}
INSTANT: Final[Shape] = {"type": "string", "format": "date-time"}
ANYTHING: Final[Shape] = {"type": "object"}
VERSION: Final[Shape] = {"const": SCHEMA}
COUNTS: Final[Shape] = {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}}
TEXTS: Final[Shape] = {"type": "object", "additionalProperties": {"type": "string"}}


def ref(name: str) -> Shape:
    """A shape by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def maybe(shape: Shape) -> Shape:
    """The shape or null."""
    return {"anyOf": [shape, {"type": "null"}]}


def each(shape: Shape) -> Shape:
    """A list of the shape."""
    return {"type": "array", "items": shape}


def thing(fields: Mapping[str, Shape]) -> Shape:
    """An object with exactly these keys, all of them present."""
    return {"type": "object", "properties": dict(fields), "required": list(fields), "additionalProperties": False}


def _entry() -> Shape:
    texts = (
        "attempt_of", "api", "requested_model", "maker", "tier", "region", "stopped_by", "run_id", "parent_run", "step",
        "provider_response_id", "trace_id", "span_id", "hold_id", "usage_raw",
    )  # fmt: skip
    counts = ("http_status", "latency_us", "ttft_us", "request_bytes", "response_bytes")
    return thing(
        {
            "schema": VERSION,
            **dict.fromkeys(("call_id", "provider", "model"), TEXT),
            **dict.fromkeys(texts, maybe(TEXT)),
            **dict.fromkeys(counts, maybe(COUNT)),
            "started_at": INSTANT,
            "settled_at": maybe(INSTANT),
            "recorded_at": maybe(INSTANT),
            "usage": maybe(COUNTS),
            "quality": {"enum": list(QUALITIES)},
            "cost": maybe(ref("Cost")),
            "reported_cost": maybe(ref("Money")),
            "status": {"enum": list(STATUSES)},
            "source": {"enum": list(SOURCES)},
            "owed": FLAG,
            "context": TEXTS,
            "tags": TEXTS,
        }
    )


def _total() -> Shape:
    counts = ("calls", "refused", "unpriced", "estimated", "lower_bound", "unknown")
    return thing(
        {
            "group": {"type": "object", "additionalProperties": maybe(TEXT)},
            "start": maybe(INSTANT),
            "end": maybe(INSTANT),
            "cost": maybe(ref("Money")),
            "not_owed": ref("Money"),
            "usage": COUNTS,
            **dict.fromkeys(counts, COUNT),
            "complete": FLAG,
        }
    )


def _run() -> Shape:
    return thing(
        {
            "run_id": TEXT,
            "parent_run": maybe(TEXT),
            "started_at": maybe(INSTANT),
            "ended_at": maybe(INSTANT),
            "models": each(TEXT),
            "direct": ref("Total"),
            "inclusive": ref("Total"),
            "steps": each(thing({"step": maybe(TEXT), "total": ref("Total")})),
            "calls": each(TEXT),
            "calls_left_out": COUNT,
            "runs": each(ref("Run")),
        }
    )


def _budget() -> Shape:
    amounts = ("limit", "spent", "suspect", "held", "overdraft", "left")
    account = thing({"value": TEXT, **dict.fromkeys(amounts, ref("Amount")), "resets_at": maybe(INSTANT)})
    return thing(
        {
            "name": TEXT,
            "limit": ref("Amount"),
            "unit": {"enum": ["usd", "tokens", "calls"]},
            "period": TEXT,
            "tz": TEXT,
            "anchor": {"type": "integer"},
            "scope": TEXTS,
            "each": each(TEXT),
            "hard": FLAG,
            "failure": {"enum": ["closed", "open"]},
            "sources": each(TEXT),
            "alerts": each({"type": "integer"}),
            "paused": FLAG,
            "raised_by": ref("Amount"),
            "raised_until": maybe(INSTANT),
            "accounts": each(account),
            "advisory": each(TEXT),
        }
    )


def _hold() -> Shape:
    claim = thing({"budget": TEXT, "value": TEXT, "period": TEXT, "amount": ref("Amount")})
    return thing(
        {
            "call_id": TEXT,
            "state": {"enum": list(HOLD_STATES)},
            "owner": TEXT,
            "authorised_at": INSTANT,
            "expires_at": INSTANT,
            "holds": each(claim),
        }
    )


def _flight() -> Shape:
    return thing(
        {
            **dict.fromkeys(("call_id", "provider", "api", "model", "owner"), TEXT),
            "started_at": INSTANT,
            "age_s": {"type": "number", "minimum": 0},
            "run": maybe(TEXT),
            "output": COUNT,
            "response_bytes": COUNT,
            "cost": ref("Money"),
            "alive": FLAG,
        }
    )


def _estimate() -> Shape:
    return thing(
        {
            "schema": VERSION,
            "model": TEXT,
            "provider": TEXT,
            **dict.fromkeys(("low", "likely", "high"), maybe(ref("Money"))),
            "input": ANYTHING,
            "output": thing({**dict.fromkeys(("low", "likely", "high"), COUNT), "basis": TEXT}),
            "rate_id": TEXT,
            "notes": each(TEXT),
        }
    )


def _page(name: str, shape: Shape) -> Shape:
    return thing({"schema": VERSION, name: shape})


def shapes() -> dict[str, Shape]:
    """Every shape by its name."""
    correction = {**dict.fromkeys(("correction_id", "corrects", "reason"), TEXT), "recorded_at": INSTANT}
    report: dict[str, Shape] = {
        "schema": VERSION,
        "by": each(TEXT),
        "per": maybe(TEXT),
        "tz": TEXT,
        "since": maybe(INSTANT),
        "until": maybe(INSTANT),
        "total": ref("Total"),
        "rows": each(ref("Total")),
        **dict.fromkeys(("runs", "runs_not_owed", "detail"), maybe(ANYTHING)),
        "spreads": maybe(each(ANYTHING)),
    }
    told = {"type": TEXT, "message": TEXT, "what": TEXT, "money": maybe(TEXT), "todo": maybe(TEXT)}
    return {
        "Money": thing({"usd": {"type": "string", "pattern": r"^-?\d+(\.\d{1,12})?$"}}),
        "Amount": {"anyOf": [ref("Money"), {"type": "integer"}]},
        "Cost": {
            "type": "object",
            "required": ["amount", "listed", "basis", "lines", "rate_ids", "catalogue", "notes"],
        },
        "Call": _entry(),
        "Total": _total(),
        "Run": _run(),
        "Budget": _budget(),
        "Hold": _hold(),
        "Flight": _flight(),
        "Correction": thing({**correction, "fields": ANYTHING}),
        "Calls": thing({"schema": VERSION, "calls": each(ref("Call")), "cursor": maybe(TEXT)}),
        "CallPage": thing(
            {
                "schema": VERSION,
                "call": maybe(ref("Call")),
                "in_flight": maybe(ref("Flight")),
                "joined": each(ref("Call")),
                "corrections": each(ref("Correction")),
            }
        ),
        "Runs": thing(
            {
                "schema": VERSION,
                "runs": each(ref("Total")),
                "outside_any_run": maybe(ref("Total")),
                "cursor": maybe(TEXT),
            }
        ),
        "RunPage": thing({"schema": VERSION, "complete": FLAG, "run": ref("Run")}),
        "Report": thing(report),
        "Budgets": _page("budgets", each(ref("Budget"))),
        "BudgetPage": _page("budget", ref("Budget")),
        "Removed": _page("removed", TEXT),
        "Holds": _page("holds", each(ref("Hold"))),
        "Rates": thing({"schema": VERSION, "provider": TEXT, "model": TEXT, "rule": TEXT, "cards": each(ANYTHING)}),
        "EstimatePage": _estimate(),
        "Error": _page("error", thing(told)),
    }
