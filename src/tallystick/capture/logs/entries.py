"""Entries: from a call in a log to the entry that the ledger keeps, priced like any other call."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec

from tallystick.catalog.catalog import Catalog
from tallystick.core.attribution import MAX_LENGTH, Tags
from tallystick.core.cost import Cost
from tallystick.core.pricing import price
from tallystick.core.usage import Usage
from tallystick.errors import UnknownModelError, UnpricedError
from tallystick.ledger.entry import Entry
from tallystick.metering.rating import Call, rate_reading
from tallystick.metering.recording import kept_context
from tallystick.wire.logs.lines import LogCall
from tallystick.wire.reading import Reading

UNKNOWN_MODEL: Final = "unknown"
_KEPT: Final = 20_000

_copy: Final[Any] = Entry.__copy__  # type: ignore[attr-defined]
_put: Final = msgspec.structs.force_setattr
_hash: Final = hashlib.blake2b

Named = tuple[str, str, str | None]
"""Who bills, the model, and its maker."""


class Clerk:
    """Writes the entries of one tool's calls.

    `tool` and `api` name it, `biller` is who bills where neither the log nor the catalogue says so, `reading_of` reads
    a call's usage. `owed` is False for what a subscription covers.
    """

    def __init__(
        self,
        tool: str,
        catalog: Catalog,
        now: datetime,
        *,
        api: str,
        biller: str | None,
        reading_of: Callable[[LogCall], Reading],
        owed: bool = False,
        source: str = "log",
    ) -> None:
        self._tool = tool
        self._api = api
        self._biller = biller
        self._reading_of = reading_of
        self._catalog = catalog
        self._now = now
        self._owed = owed
        self._source = source
        self._tags: dict[tuple[str | None, str | None], Tags] = {}
        self._forms: dict[object, Entry] = {}
        self._contexts: dict[Tags, Tags] = {}
        self._known: dict[tuple[str, str | None], tuple[str, Named]] = {}
        self._unknown: set[tuple[str, str | None]] = set()

    def entry(self, call: LogCall) -> Entry:
        """The entry of a call."""
        reading = self._reading_of(call)
        usage, context, quality = reading.usage, reading.context, call.quality
        if usage is None:
            quality = "unknown"
        elif reading.fault is not None and quality == "exact":
            quality = "estimated"
        named, cost = self._rated(reading, call)
        decided = tuple(context.items()) if context else ()
        key = named, call.model, quality, decided, call.project, call.session, call.agent, call.parent
        form = self._forms.get(key)
        if form is None:
            form = self._form(call, named, quality, reading)
            if len(self._forms) > _KEPT:
                self._forms.clear()
            self._forms[key] = form
        # Calls of one run differ in little: the form was checked, and nobody else has seen this copy of it.
        entry: Entry = _copy(form)
        _put(entry, "call_id", call_id(self._tool, call.key))
        _put(entry, "started_at", call.at)
        _put(entry, "usage", usage)
        _put(entry, "cost", cost)
        _put(entry, "reported_cost", reading.reported)
        _put(entry, "step", clean(call.step))
        _put(entry, "provider_response_id", clean(call.response_id))
        return entry

    def _form(self, call: LogCall, named: Named, quality: str, reading: Reading) -> Entry:
        """What the entries of a run's calls have in common."""
        provider, model, maker = named
        session, agent = clean(call.session), clean(call.agent)
        return Entry(
            call_id=call_id(self._tool, call.key),
            started_at=call.at,
            recorded_at=self._now,
            provider=provider,
            api=self._api,
            requested_model=clean(call.model),
            model=model,
            maker=maker,
            tier=reading.context.get("service_tier"),
            region=reading.context.get("region"),
            context=self._shared(kept_context(reading.context)),
            usage=reading.usage,
            quality=quality,
            source=self._source,
            owed=self._owed,
            tags=self._tags_of(call.project, session),
            run_id=session if agent is None else f"{session}/{agent}",
            parent_run=clean(call.parent),
        )

    def _shared(self, context: Tags) -> Tags:
        """The one object of all equal contexts: the ledger knows tags it has met by their identity."""
        if len(self._contexts) > _KEPT:
            self._contexts.clear()
        return self._contexts.setdefault(context, context)

    def _rated(self, reading: Reading, call: LogCall) -> tuple[Named, Cost | None]:
        """Who bills which model, whose it is, and the cost."""
        usage, at = reading.usage, call.at
        known = self._known.get((call.model, call.provider))
        if known is None or usage is None or reading.reported is not None:
            return self._looked_up(reading, call)
        model, named = known
        try:
            card, said = self._catalog.card_at(model, call.provider, at)
        except UnpricedError:
            return self._looked_up(reading, call)
        return named, price(usage, card, at=at, context={**said, **reading.context} if said else reading.context)

    def _looked_up(self, reading: Reading, call: LogCall) -> tuple[Named, Cost | None]:
        model = clean(call.model) or UNKNOWN_MODEL
        provider = call.provider
        if (model, provider) not in self._unknown or reading.reported is not None:
            rated = rate_reading(
                reading, Call(model=model, at=call.at, provider=provider, api=self._api), self._catalog
            )
            # Looking for the nearest names takes long, and a log may name an unknown model a thousand times.
            if not isinstance(rated.unpriced, UnknownModelError):
                named = rated.provider, rated.model, rated.maker
                if rated.unpriced is None and reading.reported is None:
                    self._known[call.model, provider] = model, named
                return named, rated.cost
            self._unknown.add((model, provider))
        return (provider or self._biller or "other:unknown", model, None), None

    def _tags_of(self, project: str | None, session: str | None) -> Tags:
        key = project, session
        tags = self._tags.get(key)
        if tags is None:
            named = {"tool": self._tool, "project": clean(project), "session": session}
            tags = Tags({name: value for name, value in named.items() if value})
            if len(self._tags) > _KEPT:
                self._tags.clear()
            self._tags[key] = tags
        return tags


def clean(text: str | None) -> str | None:
    """A text from a foreign file without control characters and of bounded length; None for nothing."""
    if text is None or (text and len(text) <= MAX_LENGTH and text.isprintable()):
        return text
    return "".join(filter(str.isprintable, text))[:MAX_LENGTH] or None


def call_id(tool: str, key: str) -> str:
    """The id of a call: always the same for the same call of the same tool (a UUID of version 8, made from a hash)."""
    digest = _hash(f"{tool}\n{key}".encode("utf-8", "replace"), digest_size=16).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-8{digest[13:16]}-8{digest[17:20]}-{digest[20:]}"


def correction_id(call: str, usage: Usage) -> str:
    """The id of the correction that gives a call this usage."""
    return call_id(call, str(sorted(usage.items())))
