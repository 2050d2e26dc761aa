"""Reading: what a response payload says about its call, in our own terms."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tallystick.core.money import Money
from tallystick.core.usage import Usage


class Reading(msgspec.Struct, frozen=True, gc=False):
    """One payload, read. `usage` is None when the payload states none (unknown, never zero).

    `model` and `response_id` are the provider's own words. `context` holds what decides the price: service_tier,
    processing, speed, inference_geo, search_context_size, ... . `reported` is the cost of this very call where the
    response states it, `upstream` a second bill that the response names. `fault` says what contradicts itself in the
    usage object; the numbers are then kept as stated where they can be, and the quality is not exact.
    """

    usage: Usage | None
    model: str | None = None
    context: Mapping[str, str] = {}
    reported: Money | None = None
    upstream: Money | None = None
    response_id: str | None = None
    fault: str | None = None
