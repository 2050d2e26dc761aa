"""Rating: from what a provider said to what it costs, the same way for every surface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from tallystick.core.pricing import price, reported
from tallystick.core.usage import Usage
from tallystick.errors import MissingRateError, UnpricedError, UsageError
from tallystick.wire.reading import Reading

if TYPE_CHECKING:
    from tallystick.catalog.catalog import Catalog
    from tallystick.core.cost import Cost

RawUsage = Usage | Mapping[str, object] | Sequence[object]
"""A usage in our kinds, or the provider's own usage object (a list of them for streams and logs)."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a call besides its usage: the model as named, who bills, the wire format, when it was made,
    what the caller says of its context, and how much the period used before it, per kind."""

    model: str
    at: datetime
    provider: str | None = None
    api: str | None = None
    context: Mapping[str, object] = {}
    volume: Mapping[str, int] | None = None


class Rated(msgspec.Struct, frozen=True):
    """A usage, read and priced. `cost` is None where no rate applies, and `unpriced` then says why."""

    reading: Reading
    provider: str
    model: str
    maker: str | None
    api: str | None
    cost: Cost | None
    unpriced: UnpricedError | None


def read_call(raw: RawUsage, call: Call, catalog: Catalog) -> tuple[Reading, str | None]:
    """Reads a usage object by the call's API, or by its provider's where none is named; returns the API used.
    Raises UsageError for what cannot be read, and when it is ambiguous."""
    if isinstance(raw, Usage):
        if not call.context:
            return Reading(raw), call.api
        from tallystick.wire.context import overlay
        from tallystick.wire.partition import with_counts

        context, fees = overlay({}, call.context)
        return Reading(with_counts(raw, fees), context=context), call.api
    from tallystick.wire.usage import api_of, read_usage

    if not isinstance(raw, Mapping | list | tuple):
        raise UsageError(f"A usage is a mapping of counts, not {type(raw).__name__}.")
    api = call.api
    if api is None:
        if not isinstance(raw, Mapping):
            raise UsageError("A list of usage objects does not say its format.", todo="Name it: api='...'.")
        api = api_of(_provider_of(call, catalog), raw)
    return read_usage(api, raw, call.context), api


def rate(raw: RawUsage, call: Call, catalog: Catalog) -> Rated:
    """Reads and prices one call. An unknown model or missing rate does not raise: the cost is None and says why."""
    reading, api = read_call(raw, call, catalog)
    return rate_reading(reading, call, catalog, api)


def rate_reading(reading: Reading, call: Call, catalog: Catalog, api: str | None = None) -> Rated:
    """Prices a call that has been read already."""
    cost: Cost | None = None
    unpriced: UnpricedError | None = None
    provider, model, maker = call.provider or "other:unknown", call.model, None
    try:
        found = catalog.resolve(call.model, call.provider)
        card, said = catalog.card_at(call.model, call.provider, call.at)
    except UnpricedError as error:
        unpriced = error
    else:
        provider, model, maker = found.provider, found.model, found.row.maker
        if reading.usage is not None:
            context = {**said, **reading.context} if said else reading.context
            cost = price(reading.usage, card, at=call.at, context=context, volume=call.volume)
    if reading.reported is not None:
        cost, unpriced = reported(cost, reading.reported), None
    return Rated(reading, provider, model, maker, api or call.api, cost, unpriced)


def _provider_of(call: Call, catalog: Catalog) -> str:
    if call.provider is not None:
        return call.provider
    try:
        return catalog.resolve(call.model).provider
    except UnpricedError:
        return "other:unknown"


def missing_rate(cost: Cost, model: str) -> MissingRateError:
    """Why a cost with unpriced lines is unknown."""
    kinds = ", ".join(cost.unpriced)
    return MissingRateError(
        f"No rate covers {kinds} on {model}.",
        money=f"The cost is unknown, not zero; the other lines come to {cost.known}.",
        todo=f"Set the model's rates yourself: tally rates set {model} --input USD --output USD "
        f"--rate {cost.unpriced[0]}=USD",
    )
