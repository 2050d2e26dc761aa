"""Whole response bodies, from bytes to cost: the path that imports and proxies take for every call."""

from __future__ import annotations

from datetime import datetime

from tallystick.catalog.catalog import Catalog
from tallystick.core.cost import Cost
from tallystick.core.pricing import price, reported
from tallystick.errors import UsageError
from tallystick.wire.usage import read_response


def cost_of_response(body: bytes, api: str, catalog: Catalog, at: datetime, provider: str | None = None) -> Cost:
    """The cost of one whole response body of a known API. Raises UsageError when it states no usage or no model,
    UnpricedError when no rate applies."""
    reading = read_response(api, body)
    usage, model, context = reading.usage, reading.model, reading.context
    if usage is None or model is None:
        raise UsageError(reading.fault or "The response states no usage or no model.")
    card, said = catalog.card_at(model, provider, at)
    cost = price(usage, card, at=at, context={**said, **context} if said else context)
    return cost if reading.reported is None else reported(cost, reading.reported)
