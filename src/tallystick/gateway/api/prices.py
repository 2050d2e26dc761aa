"""Answers about prices: the rates of a model, and what a call will cost before it is made."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from tallystick.core.attribution import Tags
from tallystick.core.models import provider_id
from tallystick.core.periods import zone
from tallystick.gateway.api.bodies import EstimateBody
from tallystick.gateway.api.desk import Asked, Desk
from tallystick.gateway.api.http import Problem
from tallystick.insight.api_rows import rates_json
from tallystick.insight.when import bound_of
from tallystick.ledger.entry import SCHEMA
from tallystick.ledger.query import Query
from tallystick.metering.estimate import estimate_call

HISTORY: Final = 1000
"""How many earlier calls of a call site an estimate looks at."""


def rates(desk: Desk, asked: Asked) -> tuple[int, dict[str, Any]]:
    """The rates of a model."""
    model = asked.get("model")
    catalog = desk.catalog()
    at = asked.instant(desk, "at") or desk.now()
    found = catalog.find(model, at=at, provider=_provider(asked.get("provider")))
    cards = found.row.cards if asked.get("history") else (found.card,)
    return 200, {"schema": SCHEMA, **rates_json(found, cards)}


def estimate(desk: Desk, asked: Asked) -> tuple[int, dict[str, Any]]:
    """What a call will cost."""
    body: EstimateBody = asked.body
    if (body.text is None) == (body.messages is None):
        raise Problem(400, "An estimate needs a text or messages, one of them.")
    at: datetime = desk.now() if body.at is None else bound_of(body.at, desk.now(), zone(desk.ledger.zone))
    found = desk.catalog().find(body.model, at=at, provider=_provider(body.provider))
    tags = Tags() if body.agent is None else Tags(agent=body.agent)
    query = Query(
        provider=found.provider, model=found.model, tags=tags, status="ok", limit=HISTORY, newest_first=True
    )  # fmt: skip
    outputs = [entry.usage.output_tokens for entry in desk.ledger.read(query) if entry.usage is not None]
    made = estimate_call(_count(body), found, at, max_output=body.max_output, history=outputs[::-1])
    return 200, {"schema": SCHEMA, **made.to_json()}


def _count(body: EstimateBody) -> Any:
    # The tokenizer is loaded when somebody asks for it.
    if body.text is not None:
        from tallystick.tokens.count import count_text

        return count_text(body.text, body.model)
    from tallystick.tokens.chat import count_messages

    return count_messages(body.messages, body.model)


def _provider(name: str | None) -> str | None:
    return None if name is None else provider_id(name)
