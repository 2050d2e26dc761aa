"""Entries: from a call in a log to the entry that the ledger keeps, priced like any other call."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Final

from tallystick.catalog.catalog import Catalog
from tallystick.core.attribution import MAX_LENGTH, Tags
from tallystick.core.usage import Usage
from tallystick.errors import UnknownModelError
from tallystick.ledger.entry import Entry
from tallystick.metering.rating import Call, Rated, rate_reading
from tallystick.wire.logs.lines import LogCall
from tallystick.wire.reading import Reading

UNKNOWN_MODEL: Final = "unknown"
_KEPT: Final = 20_000


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
        self._unknown: set[tuple[str, str | None]] = set()

    def entry(self, call: LogCall) -> Entry:
        """The entry of a call."""
        reading = self._reading_of(call)
        rated = self._rated(reading, call)
        session, agent = clean(call.session), clean(call.agent)
        context = reading.context
        quality = call.quality
        if reading.usage is None:
            quality = "unknown"
        elif reading.fault is not None and quality == "exact":
            quality = "estimated"
        return Entry(
            call_id=call_id(self._tool, call.key),
            started_at=call.at,
            recorded_at=self._now,
            provider=rated.provider,
            api=self._api,
            requested_model=clean(call.model),
            model=rated.model,
            maker=rated.maker,
            tier=context.get("service_tier"),
            region=context.get("region"),
            usage=reading.usage,
            quality=quality,
            cost=rated.cost,
            reported_cost=reading.reported,
            source=self._source,
            owed=self._owed,
            tags=self._tags_of(call.project, session),
            run_id=session if agent is None else f"{session}/{agent}",
            parent_run=clean(call.parent),
            step=clean(call.step),
            provider_response_id=clean(call.response_id),
        )

    def _rated(self, reading: Reading, call: LogCall) -> Rated:
        model = clean(call.model) or UNKNOWN_MODEL
        provider = call.provider
        if (model, provider) not in self._unknown:
            rated = rate_reading(
                reading, Call(model=model, at=call.at, provider=provider, api=self._api), self._catalog
            )
            # Looking for the nearest names takes long, and a log may name an unknown model a thousand times.
            if not isinstance(rated.unpriced, UnknownModelError):
                return rated
            self._unknown.add((model, provider))
        biller = provider or self._biller or "other:unknown"
        return Rated(reading, biller, model, None, self._api, None, None)

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
    return _uuid(f"{tool}\n{key}")


def correction_id(call: str, usage: Usage) -> str:
    """The id of the correction that gives a call this usage."""
    return _uuid(f"{call}\n{sorted(usage.items())}")


def _uuid(text: str) -> str:
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-8{digest[13:16]}-8{digest[17:20]}-{digest[20:]}"
