"""Desk: what the answers of the interface are made from, and what a question has said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import msgspec

from tallystick.catalog.catalog import Catalog
from tallystick.core.attribution import Tags
from tallystick.core.periods import zone
from tallystick.errors import InputError
from tallystick.insight.when import bound_of
from tallystick.ledger.ledger import Ledger


class Desk(msgspec.Struct, frozen=True):
    """Where answers come from: the ledger, the rates in force, the clock, and the folder of the calls in flight beside
    the ledger (None: there is none)."""

    ledger: Ledger
    catalog: Callable[[], Catalog]
    now: Callable[[], datetime]
    flights: Path | None = None


class Asked(msgspec.Struct, frozen=True):
    """A question: `path` are the values in the path, `query` those behind the question mark (each as its table says:
    text, number, flag, or a list of texts), `body` the decoded body."""

    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: Any = None

    def get(self, name: str) -> Any:
        """A value of the query, None where it was not given."""
        return self.query.get(name)

    def zone_of(self, desk: Desk) -> tzinfo:
        """The time zone of the question's days: the one it names, else the ledger's. Raises InputError."""
        return zone(self.get("tz") or desk.ledger.zone)

    def instant(self, desk: Desk, name: str) -> datetime | None:
        """A value of the query as an instant. Raises InputError."""
        text = self.get(name)
        return None if text is None else bound_of(text, desk.now(), self.zone_of(desk))

    def tags(self) -> Tags:
        """The tags that calls must bear, from `tag=NAME=VALUE`. Raises InputError."""
        found = {}
        for pair in self.get("tag") or ():
            name, equals, value = pair.partition("=")
            if not equals or not name:
                raise InputError(f"The tag {pair[:60]!r} must be written NAME=VALUE.")
            found[name] = value
        return Tags(found)
