"""Joining: one call seen by several sources is entered once.

(provider, provider_response_id) tells that two sources saw the same call. The better source stands:
client and gateway before otlp, before log, before what a person typed or imported. The other becomes an attribute.
The same source with the same id twice is two calls, flagged, because providers do repeat ids.
"""

from __future__ import annotations

from typing import Final

from tallystick.ledger.entry import Entry

RANK: Final = {"client": 0, "gateway": 0, "otlp": 1, "log": 2, "import": 3, "manual": 3}

REPEAT: Final = "repeat"
JOIN: Final = "join"
REPLACE: Final = "replace"


def response_key(entry: Entry) -> str | None:
    """What two sightings of one call have in common; None when the provider gave no id."""
    identity = entry.provider_response_id
    return f"{entry.provider} {identity}" if identity else None


def verdict(standing: str, arriving: str) -> str:
    """What becomes of an arriving entry whose id a standing one already has, by their sources: REPEAT (both count),
    JOIN (it becomes an attribute of the standing one), REPLACE (it stands, the other becomes its attribute)."""
    if standing == arriving:
        return REPEAT
    return REPLACE if RANK[arriving] < RANK[standing] else JOIN
