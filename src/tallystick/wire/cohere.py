"""Cohere: chat, rerank, embed. Only `billed_units` are billed; `tokens` also counts what Cohere adds by itself. Source:
Cohere's guide on how pricing works."""

from __future__ import annotations

from typing import Final

import msgspec

from tallystick.core.usage import Usage
from tallystick.wire.format import Format
from tallystick.wire.partition import Count
from tallystick.wire.reading import Reading


class BilledUnits(msgspec.Struct, frozen=True, gc=False):
    """What the call is billed for."""

    input_tokens: Count = 0
    output_tokens: Count = 0
    image_tokens: Count = 0
    images: Count = 0
    search_units: Count = 0
    classifications: Count = 0


class CohereUsage(msgspec.Struct, frozen=True, gc=False):
    """`usage` of version 2, `meta` of version 1."""

    billed_units: BilledUnits | None = None


class CohereBody(msgspec.Struct, frozen=True, gc=False):
    """The body of a chat, rerank or embed response."""

    id: str | None = None
    usage: CohereUsage | None = None
    meta: CohereUsage | None = None


def cohere_usage(stated: CohereUsage) -> Reading:
    """Reads billed units. Pictures are billed by their tokens where those are stated, by the piece otherwise."""
    units = stated.billed_units
    if units is None:
        return Reading(None, fault="the usage states no billed units")
    return Reading(
        Usage(
            {
                "input": units.input_tokens,
                "output": units.output_tokens,
                "image_input": units.image_tokens,
                "images": 0 if units.image_tokens else units.images,
                "searches": units.search_units,
                "fee:classification": units.classifications,
            }
        )
    )


def cohere_body(body: CohereBody) -> Reading:
    """Reads a whole response."""
    stated = body.usage or body.meta
    reading = Reading(None) if stated is None else cohere_usage(stated)
    return msgspec.structs.replace(reading, response_id=body.id)


_FORMAT: Final = Format(("cohere",), CohereUsage, CohereBody, cohere_usage, cohere_body, (("usage",), ("meta",)))

FORMATS: Final = {"cohere.chat": _FORMAT, "cohere.rerank": _FORMAT, "cohere.embed": _FORMAT}
"""The readers of this family, by API."""
